//! Named layers in order: forward, trace, backward.

use std::collections::HashSet;

use ndarray::{ArrayBase, ArrayD, ArrayViewD, CowArray, Data, Dimension, IxDyn};

use super::{
    Builder,
    dense::row_major,
    inner::Inner,
    known::Known,
    layer::{Backward, Layer, foreign_trace},
    shape::expect_shape,
    trace::{Gradients, Mode, Saved, Step, Trace},
};
use crate::{Error, Result, random::derive, tensor::expect_finite};

/// A trainable network: named layers in order, of which a [`Residual`](super::Residual) holds a network of its own.
///
/// Layers are named by position (`0`, `1`, ..) unless given a name; the layers of the residual `3` are `3.0`, `3.1`, ..;
/// parameters are `0.weight`, `0.bias`; running statistics `1.running_mean`, `1.running_var`.
///
/// Results are the same bits for any number of threads.
///
/// ```
/// use tersor::nn::{Conv2d, Network};
///
/// let network = Network::builder(7)
///     .conv2d(Conv2d::new(1, 8, 3).padding(1)).relu()
///     .residual(|branch| branch.conv2d(Conv2d::new(8, 8, 3).padding(1)).batch_norm2d(8).relu())
///     .max_pool2d(2).flatten().linear(8 * 14 * 14, 10).named("head")
///     .build()?;
/// assert_eq!(network.output_shape(&[64, 1, 28, 28])?, [64, 10]);
/// assert_eq!(network.parameter("head.weight")?.shape(), [10, 1568]);
/// assert_eq!(network.parameter("2.0.weight")?.shape(), [8, 8, 3, 3]);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    pub(super) layers: Vec<(String, Layer)>,
}

impl Network {
    /// Starts a network whose initial weights follow from `seed`.
    pub fn builder(seed: u64) -> Builder {
        Builder::new(seed)
    }

    /// A network of trained layers, made by their `from_arrays`.
    ///
    /// # Errors
    /// [`Error::Empty`] without layers; [`Error::LayerName`] for a name that is empty, has a `.`, or comes twice;
    /// [`Error::Layer`] around what is wrong in a layer or between it and the one before.
    pub fn from_layers(layers: Vec<(String, Layer)>) -> Result<Network> {
        let network = Network { layers };
        network.validate().map(|()| network)
    }

    /// As [`Network::from_layers`]: layers may have been changed since.
    pub(crate) fn validate(&self) -> Result<()> {
        self.check()?;
        self.known_after(Known::Nothing).map(|_| ())
    }

    /// The layers in order, with their names within this network.
    pub fn layers(&self) -> impl DoubleEndedIterator<Item = (&str, &Layer)> + ExactSizeIterator {
        self.layers.iter().map(|(name, layer)| (name.as_str(), layer))
    }

    /// The layers in order, to be changed. A layer that no longer fits its neighbours is an error at the next pass.
    pub fn layers_mut(&mut self) -> impl DoubleEndedIterator<Item = (&str, &mut Layer)> + ExactSizeIterator {
        self.layers.iter_mut().map(|(name, layer)| (name.as_str(), layer))
    }

    /// Every layer of the tree with its full name, a residual before the layers of its branch.
    pub fn walk(&self) -> Vec<(String, &Layer)> {
        let mut found = Vec::new();
        for (name, layer) in &self.layers {
            found.push((name.clone(), layer));
            if let Layer::Residual(residual) = layer {
                let inner = residual.branch().walk().into_iter();
                found.extend(inner.map(|(inner, layer)| (format!("{name}.{inner}"), layer)));
            }
        }
        found
    }

    /// The layer of this full name.
    ///
    /// # Errors
    /// [`Error::UnknownName`].
    pub fn layer(&self, name: &str) -> Result<&Layer> {
        let layers = self.walk();
        let found = layers.iter().find(|(full, _)| full == name).map(|(_, layer)| *layer);
        found.ok_or_else(|| Error::UnknownName {
            name: name.to_owned(),
            known: layers.into_iter().map(|(full, _)| full).collect(),
        })
    }

    /// The output of a batch in evaluation mode; the first axis counts samples.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for NaN or infinities; [`Error::Layer`] around [`Error::Rank`] or [`Error::Shape`], naming
    /// the layer that the input, or what became of it, does not fit.
    pub fn forward<S, D>(&self, inputs: &ArrayBase<S, D>) -> Result<ArrayD<f32>>
    where
        S: Data<Elem = f32>,
        D: Dimension,
    {
        expect_finite("the input", inputs)?;
        self.evaluate(inputs.as_standard_layout().view().into_dyn())
    }

    /// The shape of the output for an input of this shape, batch axis included.
    ///
    /// # Errors
    /// [`Error::Layer`] naming the layer at fault.
    pub fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        let through = |shape: Vec<usize>, (name, layer): &(String, Layer)| {
            layer.output_shape(&shape).map_err(|error| within(error, name))
        };
        self.layers.iter().try_fold(input.to_vec(), through)
    }

    /// A forward pass that keeps every activation, for [`Network::backward`] or to look at.
    ///
    /// # Errors
    /// As [`Network::forward`]; in training also [`Error::Conflict`] where batch normalization sees one value a channel.
    pub fn trace<S, D>(&self, inputs: &ArrayBase<S, D>, mode: Mode) -> Result<Trace>
    where
        S: Data<Elem = f32>,
        D: Dimension,
    {
        expect_finite("the input", inputs)?;
        self.run(inputs.as_standard_layout().to_owned().into_dyn(), mode)
    }

    /// The gradients of the parameters and of the input, given the gradient of a loss for the output of a trace.
    ///
    /// ```
    /// use tersor::nn::{Mode, Network};
    ///
    /// let network = Network::builder(0).linear(3, 2).tanh().build()?;
    /// let trace = network.trace(&ndarray::array![[0.1, 0.2, 0.3]], Mode::Evaluation)?;
    /// let gradients = network.backward(&trace, &ndarray::array![[1.0, 0.0]])?;
    /// assert_eq!(gradients.parameters[0].0, "0.weight");
    /// assert_eq!(gradients.input.shape(), [1, 3]);
    /// # Ok::<(), tersor::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] for a gradient of another shape than the output's, [`Error::Conflict`] for a trace of another
    /// network.
    pub fn backward<S, D>(&self, trace: &Trace, gradient: &ArrayBase<S, D>) -> Result<Gradients>
    where
        S: Data<Elem = f32>,
        D: Dimension,
    {
        let gradient = gradient.to_owned().into_dyn();
        let (input, parameters) = self.propagate(trace, gradient, true)?;
        Ok(Gradients { parameters, input: input.ok_or_else(foreign_trace)? })
    }

    /// As [`Network::backward`], of a loss that reads the outputs of layers too: their gradients, by full name, are added
    /// where the backward pass comes to them. `3.query`, `3.key` and `3.value` are what the attention `3` makes of its input.
    ///
    /// ```
    /// use tersor::nn::{Mode, Network};
    ///
    /// let network = Network::builder(0).linear(3, 2).tanh().linear(2, 1).build()?;
    /// let trace = network.trace(&ndarray::array![[0.1, 0.2, 0.3]], Mode::Evaluation)?;
    /// let of_hidden = ("1".to_owned(), ndarray::array![[0.5, 0.0]].into_dyn());
    /// let gradients = network.backward_with(&trace, &ndarray::array![[1.0]], &[of_hidden])?;
    /// assert_eq!(gradients.parameters.len(), 4);
    /// # Ok::<(), tersor::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Network::backward`]; [`Error::UnknownName`], and [`Error::Layer`] around [`Error::Shape`] for a gradient of
    /// another shape than the layer's output.
    pub fn backward_with<S, D>(
        &self,
        trace: &Trace,
        gradient: &ArrayBase<S, D>,
        of_layers: &[(String, ArrayD<f32>)],
    ) -> Result<Gradients>
    where
        S: Data<Elem = f32>,
        D: Dimension,
    {
        for (name, gradient) in of_layers {
            let shape = expect_shape("gradient of the output", trace.output_of(name)?.shape(), gradient.shape());
            shape.map_err(|error| error.in_layer(name))?;
        }
        let gradient = gradient.to_owned().into_dyn();
        let (input, parameters) = self.propagate_with(trace, gradient, &Inner::new(of_layers), true)?;
        Ok(Gradients { parameters, input: input.ok_or_else(foreign_trace)? })
    }

    /// Takes the running statistics of a training trace into the network's batch normalizations.
    ///
    /// # Errors
    /// [`Error::Conflict`] for a trace of another network.
    pub fn update_statistics(&mut self, trace: &Trace) -> Result<()> {
        self.expect_own(trace)?;
        for ((_, layer), step) in self.layers.iter_mut().zip(&trace.steps) {
            match (layer, &step.saved) {
                (Layer::BatchNorm2d(norm), Saved::Batch(statistics)) => norm.update_statistics(statistics),
                (Layer::Residual(residual), Saved::Branch(trace)) => residual.branch_mut().update_statistics(trace)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// As [`Network::forward`], of a row-major view whose values were looked at.
    pub(super) fn evaluate(&self, inputs: ArrayViewD<'_, f32>) -> Result<ArrayD<f32>> {
        let mut x: CowArray<'_, f32, IxDyn> = inputs.into();
        for (name, layer) in &self.layers {
            x = layer.evaluate(x.view()).map_err(|error| within(error, name))?.into();
        }
        Ok(x.into_owned())
    }

    /// As [`Network::trace`], of a row-major array whose values were looked at.
    pub(super) fn run(&self, input: ArrayD<f32>, mode: Mode) -> Result<Trace> {
        let mut trace = Trace { input, steps: Vec::with_capacity(self.layers.len()) };
        for (index, (name, layer)) in self.layers.iter().enumerate() {
            let result = layer.trace(trace.output(), mode.of_layer(index));
            let (output, saved) = result.map_err(|error| within(error, name))?;
            trace.steps.push(Step { name: name.clone(), output, saved });
        }
        Ok(trace)
    }

    /// As [`Network::backward`], with the input's gradient only if wanted: it costs as much as the first layer's own.
    pub(super) fn propagate(&self, trace: &Trace, gradient: ArrayD<f32>, wants_input: bool) -> Result<Backward> {
        self.propagate_with(trace, gradient, &Inner::default(), wants_input)
    }

    /// As [`Network::propagate`], with gradients, of the right shapes, that enter on the way.
    pub(super) fn propagate_with(
        &self,
        trace: &Trace,
        gradient: ArrayD<f32>,
        inner: &Inner<'_>,
        wants_input: bool,
    ) -> Result<Backward> {
        self.expect_own(trace)?;
        expect_shape("gradient of the output", trace.output().shape(), gradient.shape())?;
        let learns = |layer: &Layer| matches!(layer, Layer::Residual(_)) || !layer.arrays().is_empty();
        let first = if wants_input { Some(0) } else { self.layers.iter().position(|(_, layer)| learns(layer)) };
        let mut found = Vec::new();
        let mut gradient = Some(row_major(gradient));
        for index in (first.unwrap_or(self.layers.len())..self.layers.len()).rev() {
            let ((name, layer), step) = (&self.layers[index], &trace.steps[index]);
            let pass = (trace.input_of_step(index), step.output.view());
            let mut dy = gradient.take().ok_or_else(foreign_trace)?;
            inner.add_to(name, &mut dy);
            let inner = inner.within(name);
            let (dx, own) = layer.backward(pass, &step.saved, dy, &inner, wants_input || Some(index) > first)?;
            found.extend(own.into_iter().rev().map(|(own, values)| (format!("{name}.{own}"), values)));
            gradient = dx;
        }
        found.reverse();
        Ok((gradient.filter(|_| wants_input), found))
    }

    /// The trace has this network's layers, and shapes that these take.
    fn expect_own(&self, trace: &Trace) -> Result<()> {
        let own = self.layers.len() == trace.steps.len()
            && self.layers.iter().zip(&trace.steps).enumerate().all(|(index, ((name, layer), step))| {
                let shape = layer.output_shape(trace.input_of_step(index).shape());
                *name == step.name && shape.is_ok_and(|shape| shape == step.output.shape())
            });
        if own { Ok(()) } else { Err(foreign_trace()) }
    }

    /// There are layers, their names are names, and each of them is sound.
    pub(super) fn check(&self) -> Result<()> {
        if self.layers.is_empty() {
            return Err(Error::Empty { what: "the network" });
        }
        let mut names = HashSet::new();
        for (name, layer) in &self.layers {
            if name.is_empty() || name.contains('.') || !names.insert(name) {
                return Err(Error::LayerName { name: name.clone() });
            }
            layer.check().map_err(|error| within(error, name))?;
        }
        Ok(())
    }

    /// Draws the arrays that are not there yet.
    pub(super) fn initialize(&mut self, seed: u64) -> Result<()> {
        for (index, (name, layer)) in self.layers.iter_mut().enumerate() {
            layer.initialize(derive(seed, index)).map_err(|error| within(error, name))?;
        }
        Ok(())
    }

    /// What is known of the output's features, or which layer does not take those it would get.
    pub(super) fn known_after(&self, before: Known) -> Result<Known> {
        let through = |known: Known, (name, layer): &(String, Layer)| {
            layer.known_after(known).map_err(|error| within(error, name))
        };
        self.layers.iter().try_fold(before, through)
    }
}

/// Names the layer in which an error arose; an error from a branch already names one, which becomes a full name.
pub(super) fn within(error: Error, name: &str) -> Error {
    match error {
        Error::Layer { name: inner, source } => Error::Layer { name: format!("{name}.{inner}"), source },
        error => error.in_layer(name),
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array4, array};

    use super::*;
    use crate::nn::{BatchNorm2d, Conv2d, Linear};

    fn tree() -> Network {
        Network::builder(1)
            .conv2d(Conv2d::new(1, 2, 3).padding(1))
            .residual(|b| b.batch_norm2d(2).residual(|b| b.conv2d(Conv2d::new(2, 2, 1)).named("inner")).relu())
            .named("block")
            .flatten()
            .linear(32, 3)
            .build()
            .unwrap()
    }

    #[test]
    fn full_names_lead_through_the_tree() {
        let mut network = tree();
        let layers: Vec<_> = network.walk().into_iter().map(|(name, _)| name).collect();
        assert_eq!(layers, ["0", "block", "block.0", "block.1", "block.1.inner", "block.2", "2", "3"]);
        let state: Vec<_> = network.state().into_iter().map(|(name, _)| name).collect();
        let norm = ["weight", "bias", "running_mean", "running_var"].map(|name| format!("block.0.{name}"));
        let rest = ["block.1.inner.weight", "block.1.inner.bias", "3.weight", "3.bias"].map(str::to_owned);
        assert_eq!(state, [&["0.weight".to_owned(), "0.bias".to_owned()][..], &norm, &rest].concat());
        assert_eq!(network.parameters().len(), state.len() - 2, "running statistics are no parameters");
        assert_eq!(network.parameter_count(), 2 * 9 + 2 + 2 + 2 + 2 * 2 + 2 + 32 * 3 + 3);

        network.set_parameter("block.1.inner.bias", &array![5.0, 6.0]).unwrap();
        assert_eq!(network.parameter("block.1.inner.bias").unwrap(), array![5.0, 6.0].into_dyn());
        let Layer::Conv2d(conv) = network.layer("block.1.inner").unwrap() else { panic!("a convolution") };
        assert_eq!(conv.bias().unwrap(), array![5.0, 6.0]);
        let again = Network::from_layers(network.layers().map(|(name, layer)| (name.into(), layer.clone())).collect());
        assert_eq!(again.unwrap(), network);
    }

    #[test]
    fn errors_name_the_layer_in_the_tree() {
        let mut network = tree();
        let wrong = Array4::zeros((1, 1, 5, 4));
        let Err(Error::Layer { name, source }) = network.forward(&wrong) else { panic!("an error") };
        assert!(name == "3" && matches!(*source, Error::Shape { .. }), "{name}: {source}");
        let Layer::Residual(block) = network.layers_mut().nth(1).unwrap().1 else { panic!("a residual") };
        let Layer::Residual(inner) = block.branch_mut().layers_mut().nth(1).unwrap().1 else { panic!("a residual") };
        *inner.branch_mut().layers_mut().next().unwrap().1 =
            Conv2d::from_arrays(Array4::ones((2, 3, 1, 1)), None).unwrap().into();
        let Err(Error::Layer { name, source }) = network.forward(&Array4::zeros((1, 1, 4, 4))) else {
            panic!("an error")
        };
        assert!(name == "block.1.inner" && matches!(*source, Error::Shape { .. }), "{name}: {source}");
    }

    #[test]
    fn a_trace_holds_what_goes_into_and_out_of_every_layer() {
        let network = tree();
        let x = Array4::from_shape_fn((2, 1, 4, 4), |(n, _, y, x)| (n + 3 * y + x) as f32 / 8.0);
        let trace = network.trace(&x, Mode::Evaluation).unwrap();
        assert_eq!(trace.input_of("0").unwrap(), x.into_dyn());
        let into_inner = trace.input_of("block.1.inner").unwrap();
        assert_eq!(trace.output_of("block.0").unwrap(), into_inner);
        let inner = network.layer("block.1.inner").unwrap().forward(&into_inner).unwrap();
        assert_eq!(trace.output_of("block.1.inner").unwrap(), inner);
        assert_eq!(trace.output_of("block.1").unwrap(), &into_inner + &inner);
        assert_eq!(trace.output_of("3").unwrap(), trace.output());
        let Err(Error::UnknownName { known, .. }) = trace.output_of("block.3") else { panic!("an error") };
        assert_eq!(known, network.walk().into_iter().map(|(name, _)| name).collect::<Vec<_>>());
    }

    #[test]
    fn running_statistics_move_towards_the_batch() {
        let mut network = Network::builder(0).batch_norm2d(1).build().unwrap();
        let x = array![[[[1.0, 2.0]]], [[[3.0, 6.0]]]];
        let trace = network.trace(&x, Mode::Training { seed: 0 }).unwrap();
        network.update_statistics(&trace).unwrap();
        // Mean 3; unbiased variance (4 + 1 + 0 + 9) / 3; a tenth of each, and nine tenths of 0 and 1.
        let [mean, variance] = ["0.running_mean", "0.running_var"].map(|name| network.parameter(name).unwrap()[[0]]);
        assert!((mean - 0.3).abs() < 1e-6 && (variance - (0.9 + 14.0 / 30.0)).abs() < 1e-6, "{mean}, {variance}");
        let biased = 3.5f32;
        let expected = x.mapv(|x| (x - 3.0) / (biased + 1e-5).sqrt()).into_dyn();
        assert!((&trace.output() - &expected).iter().all(|error| error.abs() < 1e-6));
    }

    #[test]
    fn initial_weights_follow_from_the_seed_and_have_torchs_law() {
        let network = |seed| Network::builder(seed).linear(400, 300).build().unwrap();
        assert_eq!(network(3), network(3));
        assert_ne!(network(3), network(4));
        let network = network(3);
        for (_, values) in network.parameters() {
            let (bound, count) = (0.05, values.len() as f32);
            assert!(values.iter().all(|value| value.abs() <= bound));
            // Variance bound²/3; the sample's is within five standard errors, √(4/5/n) of itself each.
            let variance = values.iter().map(|value| value * value).sum::<f32>() / count;
            let relative = variance / (bound * bound / 3.0) - 1.0;
            assert!(relative.abs() < 5.0 * (0.8 / count).sqrt(), "{relative}");
        }
    }

    #[test]
    fn a_trace_of_another_network_is_refused() {
        let x = Array4::zeros((2, 1, 4, 4));
        let mut network = tree();
        let trace = network.trace(&x, Mode::Training { seed: 0 }).unwrap();
        let gradient = ndarray::Array2::<f32>::zeros((2, 3));
        assert!(network.backward(&trace, &gradient).is_ok());
        assert!(matches!(network.backward(&trace, &gradient.t()), Err(Error::Shape { .. })));
        let plain = Network::builder(0).flatten().linear(16, 3).build().unwrap();
        assert!(matches!(plain.backward(&trace, &gradient), Err(Error::Conflict { .. })));
        // The same names and shapes, but the trace has no branch to go back through.
        let layers: Vec<(String, Layer)> =
            [("0", Layer::Relu), ("1", Linear::from_arrays(array![[1.0]], None).unwrap().into())]
                .map(|(name, layer)| (name.to_owned(), layer))
                .into();
        let flat = Network::from_layers(layers).unwrap();
        let branch = Network::builder(0).residual(|b| b.linear(1, 1)).linear_without_bias(1, 1).build().unwrap();
        let trace = flat.trace(&array![[1.0]], Mode::Evaluation).unwrap();
        assert!(matches!(branch.backward(&trace, &array![[1.0]]), Err(Error::Conflict { .. })));
        // A batch normalization keeps its statistics when a foreign trace comes by.
        assert!(matches!(network.update_statistics(&trace), Err(Error::Conflict { .. })));
        let norm = BatchNorm2d::new(1);
        assert!(matches!(Layer::from(norm).forward(&x), Err(Error::Shape { .. })), "arrays are drawn by build");
    }
}
