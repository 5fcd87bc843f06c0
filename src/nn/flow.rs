//! Synaptic flow: what a network of absolute weights passes on.

use std::collections::BTreeMap;

use ndarray::{ArrayD, IxDyn};

use super::{BatchNorm2d, Dropout, Layer, Mode, Network, Residual, inner::Inner, network::within, trace::Saved};
use crate::{Error, Result};

/// Powers of two between which the largest score of every weight lies for the flow to be given as it is: room below for
/// the smaller scores, above for sums of them. `HIGHEST` bounds the flow as well.
const LOWEST: i32 = -80;
const HIGHEST: i32 = 120;

impl Network {
    /// The synaptic flow (Tanaka et al. 2020): `dR/d|w|` of every weight that can be masked, by name, in order, for `R`
    /// the sum of the outputs of the network of absolute weights for one sample of ones.
    ///
    /// That network has no biases; activations, softmax, dropout and layer normalization pass everything on, batch
    /// normalization multiplies by `|weight| / √(running_var + eps)`, max pooling is as it is. So in a sequence of layers
    /// `Σ |w| dR/d|w|` is `R` for each of them. Where that is too large or too small for f32, as in deep networks, all is
    /// scaled by one power of two.
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
    /// [`Error::Layer`] around [`Error::Conflict`] for a weight through which so much or so little flows beside the others
    /// that f32 does not hold both.
    pub fn synaptic_flow(&self, input_shape: &[usize]) -> Result<Vec<(String, ArrayD<f32>)>> {
        self.output_shape(input_shape)?;
        let mut shape = input_shape.to_vec();
        if let Some(batch) = shape.first_mut() {
            *batch = 1;
        }
        let linear = self.linearized()?;
        let (output, passed) = linear.flow_forward(Scaled::new(ArrayD::ones(IxDyn(&shape)), 0)?)?;
        let ones = Scaled::new(ArrayD::ones(output.values.raw_dim()), 0)?;
        let mut flows = BTreeMap::new();
        linear.flow_backward(&passed, ones, "", &mut flows)?;
        let of_weights = linear.maskable().into_iter().filter_map(|name| flows.remove_entry(&name)).collect();
        in_one_scale(of_weights, &linear)
    }

    /// The output, and what passed through each layer.
    fn flow_forward(&self, mut x: Scaled) -> Result<(Scaled, Vec<Passed>)> {
        let mut passed = Vec::with_capacity(self.layers.len());
        for (name, layer) in &self.layers {
            let (after, here) = match layer {
                Layer::Residual(residual) => {
                    let (after, branch) =
                        residual.branch().flow_forward(x.clone()).map_err(|error| within(error, name))?;
                    (x.plus(&after)?, Passed::Branch(branch))
                }
                layer => {
                    let run = || {
                        let (output, saved) = layer.trace(x.values.view(), Mode::Evaluation)?;
                        Ok((Scaled::new(output.clone(), x.exponent)?, output, saved))
                    };
                    let (after, output, saved) = run().map_err(|error| within(error, name))?;
                    (after, Passed::Layer(Box::new((x, output, saved))))
                }
            };
            passed.push(here);
            x = after;
        }
        Ok((x, passed))
    }

    /// The gradient of the input, given that of the output; those of the parameters go to `flows`, by full name.
    fn flow_backward(
        &self,
        passed: &[Passed],
        mut gradient: Scaled,
        prefix: &str,
        flows: &mut BTreeMap<String, Scaled>,
    ) -> Result<Scaled> {
        for ((name, layer), passed) in self.layers.iter().zip(passed).rev() {
            let full = format!("{prefix}{name}");
            gradient = match (layer, passed) {
                (Layer::Residual(residual), Passed::Branch(passed)) => {
                    let inner =
                        residual.branch().flow_backward(passed, gradient.clone(), &format!("{full}."), flows)?;
                    gradient.plus(&inner)?
                }
                (layer, Passed::Layer(passed)) => {
                    let (input, output, saved) = &**passed;
                    let mut run = || {
                        let pass = (input.values.view(), output.view());
                        let (before, own) =
                            layer.backward(pass, saved, gradient.values.clone(), &Inner::default(), true)?;
                        for (array, flow) in own {
                            flows.insert(
                                format!("{full}.{array}"),
                                Scaled::new(flow, gradient.exponent + input.exponent)?,
                            );
                        }
                        before.map_or(Ok(gradient.clone()), |before| Scaled::new(before, gradient.exponent))
                    };
                    run().map_err(|error| error.in_layer(&full))?
                }
                (_, Passed::Branch(_)) => gradient,
            };
        }
        Ok(gradient)
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

/// What passed through a layer.
enum Passed {
    /// Input, output (of the input's values, without their power of two), and what backward needs besides.
    Layer(Box<(Scaled, ArrayD<f32>, Saved)>),
    Branch(Vec<Passed>),
}

/// `values · 2^exponent`, with the largest value from 1 to 2, or all of them 0: products over many layers neither overflow
/// nor vanish. Powers of two change no digit.
#[derive(Clone)]
struct Scaled {
    values: ArrayD<f32>,
    exponent: i32,
}

impl Scaled {
    /// `values · 2^exponent`, none of them negative.
    fn new(values: ArrayD<f32>, exponent: i32) -> Result<Scaled> {
        if !values.iter().all(|x| x.is_finite()) {
            return Err(beyond("the sum"));
        }
        let most = values.iter().copied().fold(0.0, f32::max);
        let power = if most > 0.0 { most.log2().floor() as i32 } else { 0 };
        Ok(Scaled { values: times_power(&values, -power), exponent: exponent + power })
    }

    fn plus(&self, other: &Scaled) -> Result<Scaled> {
        if other.is_zero() {
            return Ok(self.clone());
        }
        let exponent = if self.is_zero() { other.exponent } else { self.exponent.max(other.exponent) };
        let at = |term: &Scaled| times_power(&term.values, term.exponent - exponent);
        Scaled::new(at(self) + at(other), exponent)
    }

    fn is_zero(&self) -> bool {
        self.values.iter().all(|x| *x == 0.0)
    }
}

/// `values · 2^power`, rounded once.
fn times_power(values: &ArrayD<f32>, power: i32) -> ArrayD<f32> {
    let factor = 2f64.powi(power);
    values.mapv(|x| (f64::from(x) * factor) as f32)
}

/// The flows as floats: as they are if they and the scores `|w| dR/d|w|` fit, else all times one power of two.
fn in_one_scale(flows: Vec<(String, Scaled)>, linear: &Network) -> Result<Vec<(String, ArrayD<f32>)>> {
    // The powers of two of the largest scores; none where nothing flows through what is left of a weight.
    let largest_score = |(name, flow): &(String, Scaled)| -> Result<Option<i32>> {
        let weight = linear.parameter(name)?;
        let scores = weight.iter().zip(&flow.values).map(|(w, flow)| f64::from(*w) * f64::from(*flow));
        let largest = scores.fold(0.0, f64::max);
        Ok((largest > 0.0).then(|| largest.log2().floor() as i32 + flow.exponent))
    };
    let scores: Vec<Option<i32>> = flows.iter().map(largest_score).collect::<Result<_>>()?;
    let of_flows = flows.iter().filter(|(_, flow)| !flow.is_zero()).map(|(_, flow)| flow.exponent);
    let of_scores = scores.iter().copied().flatten();
    let highest = of_flows.chain(of_scores.clone()).max().unwrap_or(0);
    let fits = highest <= HIGHEST && of_scores.min().is_none_or(|least| least >= LOWEST);
    let shift = if fits { 0 } else { HIGHEST - highest };
    let shifted = flows.into_iter().zip(scores).map(|((name, flow), score)| match score {
        Some(score) if score + shift < f32::MIN_EXP => Err(beyond("its share, beside the others',").in_layer(&name)),
        _ => Ok((name, times_power(&flow.values, flow.exponent + shift))),
    });
    shifted.collect()
}

fn beyond(what: &str) -> Error {
    Error::Conflict {
        what: format!("{what} of synaptic flow is beyond f32"),
        remedy: "bring the sizes of its weights closer to those of the other layers",
    }
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
        assert_equal(&sums(&network, &[1, 40]));
        for (_, mut array) in network.parameters_mut() {
            array.mapv_inplace(|w| w * 1e16);
        }
        let Err(Error::Layer { name, source }) = network.synaptic_flow(&[1, 40]) else { panic!("sums beyond f32") };
        assert!(name == "0" && matches!(*source, Error::Conflict { .. }), "{name}: {source}");
        assert!(matches!(network.synaptic_flow(&[1, 41]), Err(Error::Layer { .. })));
    }

    #[test]
    fn flows_below_f32_are_scaled_up() {
        for (layers, width, size) in [(60, 32, 0.01), (24, 64, 5e-4), (12, 16, 1e-5), (3, 8, 1e-30)] {
            let mut network = Network::builder(2);
            for _ in 0..layers {
                network = network.linear(width, width).relu();
            }
            let mut network = network.build().unwrap();
            let ones = network.synaptic_flow(&[1, width]).unwrap();
            for (_, mut array) in network.parameters_mut() {
                array.mapv_inplace(|w| w * size * (width as f32).sqrt());
            }
            assert_equal(&sums(&network, &[1, width]));
            // The same network but for one factor: the same flow but for another.
            let flow = network.synaptic_flow(&[1, width]).unwrap();
            let factor = flow[0].1[[0, 0]] / ones[0].1[[0, 0]];
            for ((name, a), (_, b)) in flow.iter().zip(&ones) {
                assert!(a.iter().zip(b).all(|(a, b)| (a / (b * factor) - 1.0).abs() < 1e-3), "{name} of {layers}");
            }
        }
    }

    #[test]
    fn a_branch_that_f32_does_not_hold_beside_the_rest_is_named() {
        let network = Network::builder(1).linear(4, 4).residual(|b| b.linear(4, 4).linear(4, 4)).linear(4, 1);
        let mut network = network.build().unwrap();
        let scaled = |network: &mut Network, size: f32| {
            for (name, mut array) in network.parameters_mut() {
                array.mapv_inplace(|w| if name.starts_with("1.") { w * size } else { w });
            }
        };
        scaled(&mut network, 1e-25);
        let flow = network.synaptic_flow(&[1, 4]).unwrap();
        let score = |index: usize| network.parameter(&flow[index].0).unwrap().mapv(f32::abs) * &flow[index].1;
        assert!(score(1).iter().all(|score| *score > 0.0) && score(2).iter().all(|score| *score > 0.0));
        scaled(&mut network, 1e-12);
        let Err(Error::Layer { name, .. }) = network.synaptic_flow(&[1, 4]) else { panic!("1e-74 beside 1") };
        assert_eq!(name, "1.0.weight");
    }
}
