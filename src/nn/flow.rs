//! Synaptic flow: what a network of absolute weights passes on.

use ndarray::{ArrayD, IxDyn};

use super::{BatchNorm2d, Dropout, Layer, Mode, Network, Residual, network::within};
use crate::{Error, Result};

/// Factors by which the flow is scaled at both ends until it fits f32: all scores change alike.
const SCALES: [f32; 4] = [1.0, 1e-12, 1e-24, 1e-36];

impl Network {
    /// The synaptic flow (Tanaka et al. 2020): `dR/d|w|` of every weight that can be masked, by name, in order, for `R`
    /// the sum of the outputs of the network of absolute weights for one sample of ones.
    ///
    /// That network has no biases; activations, softmax, dropout and layer normalization pass everything on, batch
    /// normalization multiplies by `|weight| / √(running_var + eps)`, max pooling is as it is. So in a sequence of layers
    /// `Σ |w| dR/d|w|` is `R` for each of them. In networks too large for f32 all is scaled by one factor.
    ///
    /// `input_shape` is that of a batch; its first axis is taken as 1.
    ///
    /// ```
    /// use ndarray::array;
    /// use tersor::nn::{Linear, Network};
    ///
    /// let layer = |weight| Linear::from_arrays(weight, None).map(Into::into);
    /// let first = layer(array![[1.0, -2.0], [3.0, 0.5]])?;
    /// let network = Network::from_layers(vec![("0".into(), first), ("1".into(), layer(array![[-1.0, 10.0]])?)])?;
    /// let flow = network.synaptic_flow(&[1, 2])?;
    /// assert_eq!(flow[0].1, array![[1.0, 1.0], [10.0, 10.0]].into_dyn()); // what comes after each weight
    /// assert_eq!(flow[1].1, array![[3.0, 3.5]].into_dyn()); // what comes before
    /// # Ok::<(), tersor::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Layer`] for a shape that a layer does not take, and for attention, which has no flow of its own;
    /// [`Error::Conflict`] if the flow does not fit f32.
    pub fn synaptic_flow(&self, input_shape: &[usize]) -> Result<Vec<(String, ArrayD<f32>)>> {
        self.output_shape(input_shape)?;
        let mut shape = input_shape.to_vec();
        if let Some(batch) = shape.first_mut() {
            *batch = 1;
        }
        let (linear, names) = (self.linearized()?, self.maskable());
        for scale in SCALES {
            let trace = linear.run(ArrayD::from_elem(IxDyn(&shape), scale), Mode::Evaluation)?;
            let (_, flow) = linear.propagate(&trace, trace.output().mapv(|_| scale), false)?;
            let flow: Vec<_> = flow.into_iter().filter(|(name, _)| names.contains(name)).collect();
            let steps = trace.steps.iter().all(|step| step.output.iter().all(|x| x.is_finite()));
            if steps && flow.iter().all(|(_, flow)| flow.iter().all(|x| x.is_finite())) {
                return Ok(flow);
            }
        }
        Err(Error::Conflict {
            what: "the synaptic flow leaves f32, its products of weights are so large".into(),
            remedy: "scale the layers with the largest weights down",
        })
    }

    fn linearized(&self) -> Result<Network> {
        let linearized = |(name, layer): &(String, Layer)| {
            Ok((name.clone(), layer.linearized().map_err(|error| within(error, name))?))
        };
        Ok(Network { layers: self.layers.iter().map(linearized).collect::<Result<_>>()? })
    }
}

impl Layer {
    fn linearized(&self) -> Result<Layer> {
        let passes_on = || Layer::Dropout(Dropout::new(0.0));
        Ok(match self {
            Layer::Linear(linear) => absolute(linear.clone().without_bias().into()),
            Layer::Conv2d(conv) => absolute(conv.clone().without_bias().into()),
            Layer::BatchNorm2d(norm) => {
                let (zero, one) = (norm.weight().mapv(|_| 0.0), norm.weight().mapv(f32::abs));
                let plain = BatchNorm2d::from_arrays(one, zero.clone(), zero, norm.running_var().to_owned())?;
                plain.eps(norm.eps).into()
            }
            Layer::Residual(residual) => Residual::new(residual.branch().linearized()?).into(),
            Layer::MaxPool2d(_) | Layer::AvgPool2d(_) | Layer::GlobalAvgPool2d | Layer::Flatten => self.clone(),
            Layer::LayerNorm(_)
            | Layer::Relu
            | Layer::Gelu(_)
            | Layer::Silu
            | Layer::Sigmoid
            | Layer::Tanh
            | Layer::Softmax { .. }
            | Layer::LogSoftmax { .. }
            | Layer::Dropout(_) => passes_on(),
            Layer::Attention(_) => {
                return Err(Error::Conflict {
                    what: "attention has no synaptic flow: what it passes on depends on its inputs".into(),
                    remedy: "prune networks with attention by another score, such as lamp or snip",
                });
            }
        })
    }
}

fn absolute(mut layer: Layer) -> Layer {
    for (_, _, mut array) in layer.arrays_mut() {
        array.mapv_inplace(f32::abs);
    }
    layer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Conv2d;

    /// `Σ |w| dR/d|w|` of every weight.
    fn sums(network: &Network, shape: &[usize]) -> Vec<f64> {
        let flow = network.synaptic_flow(shape).unwrap();
        let sum = |(name, flow): (String, ArrayD<f32>)| {
            let weight = network.parameter(&name).unwrap().mapv(f32::abs);
            weight.iter().zip(&flow).map(|(w, flow)| f64::from(*w) * f64::from(*flow)).sum()
        };
        flow.into_iter().map(sum).collect()
    }

    fn assert_equal(sums: &[f64]) {
        assert!(sums.iter().all(|sum| (sum / sums[0] - 1.0).abs() < 1e-4 && *sum > 0.0), "{sums:?}");
    }

    #[test]
    fn every_layer_carries_the_same_flow() {
        for seed in 0..8 {
            let dense = Network::builder(seed).linear(7, 20).relu().linear(20, 9).gelu().layer_norm(9).linear(9, 3);
            assert_equal(&sums(&dense.log_softmax().build().unwrap(), &[5, 7]));
            let images = Network::builder(seed)
                .conv2d(Conv2d::new(2, 6, 3).padding(1).stride(2))
                .batch_norm2d(6)
                .relu()
                .conv2d(Conv2d::new(6, 4, 3).groups(2))
                .max_pool2d(2)
                .conv2d(Conv2d::new(4, 8, 1))
                .avg_pool2d(2)
                .flatten()
                .dropout(0.5)
                .linear(8, 5);
            assert_equal(&sums(&images.build().unwrap(), &[1, 2, 14, 14]));
        }
    }

    #[test]
    fn what_flows_into_a_hidden_unit_flows_out_of_it() {
        let network = Network::builder(3).linear(5, 8).tanh().linear(8, 4).build().unwrap();
        let flow = network.synaptic_flow(&[1, 5]).unwrap();
        let score = |index: usize| network.parameter(&flow[index].0).unwrap().mapv(f32::abs) * &flow[index].1;
        let (into, out) = (score(0).sum_axis(ndarray::Axis(1)), score(1).sum_axis(ndarray::Axis(0)));
        assert!((&into - &out).iter().zip(&into).all(|(e, sum)| e.abs() < 1e-5 * sum), "{into} {out}");
    }

    #[test]
    fn masked_weights_carry_nothing_and_residuals_carry_both_ways() {
        let mut network = Network::builder(1).residual(|b| b.linear(2, 2)).linear(2, 1).build().unwrap();
        let mask = crate::tensor::Mask::from_fn(&[2, 2], |i| i != 0).unwrap();
        network.set_mask("0.0.weight", Some(mask)).unwrap();
        let (w, last) = (network.parameter("0.0.weight").unwrap(), network.parameter("1.weight").unwrap());
        let (w, last) = (w.mapv(f32::abs), last.mapv(f32::abs));
        let flow = network.synaptic_flow(&[1, 2]).unwrap();
        // Into the last layer flows 1 + Σ |w| of a row; what follows a weight of the branch is the last layer's own.
        assert!((flow[1].1[[0, 0]] - (1.0 + w[[0, 0]] + w[[0, 1]])).abs() < 1e-6);
        assert!((flow[0].1[[1, 0]] - last[[0, 1]]).abs() < 1e-6);
        assert_eq!(w[[0, 0]], 0.0);
    }

    #[test]
    fn flows_beyond_f32_are_scaled_down() {
        let mut network = Network::builder(1);
        for _ in 0..6 {
            network = network.linear(40, 40).relu();
        }
        let mut network = network.build().unwrap();
        for (_, mut array) in network.parameters_mut() {
            array.mapv_inplace(|w| w * 1e7);
        }
        assert_equal(&sums(&network, &[1, 40]));
        for (_, mut array) in network.parameters_mut() {
            array.mapv_inplace(|w| w * 1e15);
        }
        assert!(matches!(network.synaptic_flow(&[1, 40]), Err(Error::Conflict { .. })));
        assert!(matches!(network.synaptic_flow(&[1, 41]), Err(Error::Layer { .. })));
    }
}
