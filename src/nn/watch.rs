//! Outputs of some layers, in a pass that keeps nothing else.

use ndarray::{ArrayBase, ArrayD, ArrayViewD, CowArray, Data, Dimension, IxDyn};

use super::{Attention, Layer, Network, network::within, shape::expect_shape};
use crate::{Error, Result, tensor::expect_finite};

/// The layers watched, by full name, and what became of them so far.
struct Watch<'a> {
    names: &'a [String],
    outputs: Vec<Option<ArrayD<f32>>>,
}

impl Network {
    /// The output of a batch in evaluation mode, and those of these layers, by full name, in this order: what
    /// [`trace`](Network::trace) gives, without the memory of all the others.
    ///
    /// ```
    /// use tersor::nn::Network;
    ///
    /// let network = Network::builder(0).linear(3, 2).relu().linear(2, 1).build()?;
    /// let (output, layers) = network.forward_with(&ndarray::array![[0.1, 0.2, 0.3]], &["1".to_owned()])?;
    /// assert_eq!((output.shape(), layers[0].shape()), (&[1, 1][..], &[1, 2][..]));
    /// # Ok::<(), tersor::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Network::forward`]; [`Error::UnknownName`].
    pub fn forward_with<S, D>(
        &self,
        inputs: &ArrayBase<S, D>,
        layers: &[String],
    ) -> Result<(ArrayD<f32>, Vec<ArrayD<f32>>)>
    where
        S: Data<Elem = f32>,
        D: Dimension,
    {
        expect_finite("the input", inputs)?;
        let mut watch = Watch { names: layers, outputs: vec![None; layers.len()] };
        let output = self.evaluate_watched(inputs.as_standard_layout().view().into_dyn(), "", &mut watch)?;
        let outputs = watch.outputs.into_iter().zip(layers).map(|(found, name)| {
            found.ok_or_else(|| Error::UnknownName { name: name.clone(), known: self.watchable() })
        });
        Ok((output, outputs.collect::<Result<_>>()?))
    }

    /// As `evaluate`, of layers whose full names start with `prefix`.
    fn evaluate_watched(
        &self,
        inputs: ArrayViewD<'_, f32>,
        prefix: &str,
        watch: &mut Watch<'_>,
    ) -> Result<ArrayD<f32>> {
        let mut x: CowArray<'_, f32, IxDyn> = inputs.into();
        for (name, layer) in &self.layers {
            let full = format!("{prefix}{name}");
            let own = format!("{full}.");
            let output = match layer {
                Layer::Residual(residual) if watch.is_within(&own) => {
                    let branch = residual.branch().evaluate_watched(x.view(), &own, watch)?;
                    let shape = expect_shape("output of a residual branch", x.shape(), branch.shape());
                    shape.map(|()| branch + &x).map_err(|error| within(error, name))?
                }
                Layer::Attention(attention) if watch.is_within(&own) => {
                    let shape = layer.output_shape(x.shape()).map_err(|error| within(error, name))?;
                    let (output, projections) =
                        attention.trace(x.view(), &shape).map_err(|error| within(error, name))?;
                    for part in Attention::PROJECTIONS {
                        if let Some(projection) = projections.part(part) {
                            watch.see(&format!("{own}{part}"), projection);
                        }
                    }
                    output
                }
                _ => layer.evaluate(x.view()).map_err(|error| within(error, name))?,
            };
            watch.see(&full, output.view());
            x = output.into();
        }
        Ok(x.into_owned())
    }

    /// The names that can be watched.
    fn watchable(&self) -> Vec<String> {
        let of_layer = |(name, layer): (String, &Layer)| {
            let parts = if let Layer::Attention(_) = layer { &Attention::PROJECTIONS[..] } else { &[] };
            let parts: Vec<_> = parts.iter().map(|part| format!("{name}.{part}")).collect();
            std::iter::once(name).chain(parts)
        };
        self.walk().into_iter().flat_map(of_layer).collect()
    }
}

impl Watch<'_> {
    /// Whether anything below this prefix is watched.
    fn is_within(&self, prefix: &str) -> bool {
        self.names.iter().any(|name| name.starts_with(prefix))
    }

    fn see(&mut self, name: &str, output: ArrayViewD<'_, f32>) {
        for (watched, found) in self.names.iter().zip(&mut self.outputs) {
            if watched == name {
                *found = Some(output.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;

    use super::*;
    use crate::nn::Mode;

    #[test]
    fn watched_layers_are_those_of_a_trace() {
        let network = Network::builder(3)
            .residual(|branch| branch.layer_norm(6).attention(6, 2).named("attn").residual(|b| b.linear(6, 6).gelu()))
            .named("block")
            .linear(6, 4)
            .build()
            .unwrap();
        let x = Array3::from_shape_fn((2, 4, 6), |(i, j, k)| ((i * 24 + j * 6 + k) as f32).sin());
        let trace = network.trace(&x, Mode::Evaluation).unwrap();
        let names = network.watchable();
        assert_eq!(names.len(), 10);
        let (output, layers) = network.forward_with(&x, &names).unwrap();
        assert_eq!(output, trace.output());
        for (name, layer) in names.iter().zip(layers) {
            assert_eq!(layer, trace.output_of(name).unwrap(), "{name}");
        }
        assert_eq!(network.forward_with(&x, &[]).unwrap(), (output, vec![]));
        for name in ["2", "block.attn.output", "block.0.query", ""] {
            let unknown = network.forward_with(&x, &[name.to_owned()]);
            let Err(Error::UnknownName { known, .. }) = unknown else { panic!("{name}: {unknown:?}") };
            assert_eq!(known, names);
        }
    }
}
