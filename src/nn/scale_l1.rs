//! Network slimming's regularizer.

use ndarray::ArrayD;

use super::{Callback, Layer, Network, Progress, settings::not_negative};
use crate::{Error, Result};

/// Adds `λ Σ |γ|` over the weights of all batch normalizations to the loss of a training (network slimming, Liu et al.
/// 2017, with λ = 1e-4): channels that matter little get small factors, and can be removed afterwards.
///
/// ```
/// use ndarray::Array4;
/// use tersor::nn::{Conv2d, Data, Network, ScaleL1, Sgd, Training};
///
/// let mut network =
///     Network::builder(1).conv2d(Conv2d::new(1, 4, 3)).batch_norm2d(4).relu().flatten().linear(4, 2).build()?;
/// let data = Data::classes(Array4::from_shape_fn((4, 1, 3, 3), |(n, ..)| n as f32), [0, 1, 0, 1])?;
/// let go_on = &mut |_: &_| std::ops::ControlFlow::Continue(());
/// Training::new(2).train_with(&mut network, &data, &mut Sgd::new(0.1), &mut ScaleL1::new(1e-4), go_on)?;
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScaleL1 {
    lambda: f64,
}

impl ScaleL1 {
    /// With this factor, at least 0.
    pub fn new(lambda: f64) -> ScaleL1 {
        ScaleL1 { lambda }
    }
}

fn scales(network: &Network) -> Vec<String> {
    let norms = network.walk().into_iter().filter(|(_, layer)| matches!(layer, Layer::BatchNorm2d(_)));
    norms.map(|(name, _)| format!("{name}.weight")).collect()
}

impl Callback for ScaleL1 {
    fn start(&mut self, network: &mut Network, _: usize) -> Result<()> {
        not_negative("lambda of ScaleL1", self.lambda)?;
        if scales(network).is_empty() {
            return Err(Error::Conflict {
                what: "the network has no batch normalization, whose factors ScaleL1 makes small".into(),
                remedy: "add batch_norm2d after its convolutions, or leave ScaleL1 out",
            });
        }
        Ok(())
    }

    fn before_step(
        &mut self,
        _: &Progress,
        network: &mut Network,
        gradients: &mut [(String, ArrayD<f32>)],
    ) -> Result<()> {
        let (scales, lambda) = (scales(network), self.lambda as f32);
        for ((name, gamma), (_, gradient)) in network.parameters().into_iter().zip(gradients) {
            if scales.contains(&name) {
                let sign = |x: f32| if x == 0.0 { 0.0 } else { x.signum() };
                gradient.zip_mut_with(&gamma, |g, gamma| *g += lambda * sign(*gamma));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use ndarray::Array4;

    use super::*;
    use crate::nn::{Conv2d, Data, Sgd, Training};

    #[test]
    fn factors_shrink_by_lambda_a_step_beside_what_the_loss_does() {
        let network = || {
            let branch = |b: crate::nn::Builder| b.batch_norm2d(2).named("norm");
            Network::builder(1).conv2d(Conv2d::new(1, 2, 1)).residual(branch).named("block").flatten().linear(2, 2)
        };
        let data = Data::classes(Array4::from_shape_fn((4, 1, 1, 1), |(n, ..)| n as f32), [0, 1, 0, 1]).unwrap();
        let train = |lambda: f64| {
            let mut network = network().build().unwrap();
            let go_on = &mut |_: &Progress| ControlFlow::Continue(());
            let mut penalty = ScaleL1::new(lambda);
            Training::new(1).train_with(&mut network, &data, &mut Sgd::new(0.5), &mut penalty, go_on).map(|_| network)
        };
        let (plain, slim) = (train(0.0).unwrap(), train(0.2).unwrap());
        let difference = |name: &str| &plain.parameter(name).unwrap() - &slim.parameter(name).unwrap();
        assert!(difference("block.norm.weight").iter().all(|d| (d - 0.1).abs() < 1e-6));
        assert!(difference("block.norm.bias").iter().chain(&difference("0.weight")).all(|d| *d == 0.0));
        assert!(matches!(train(-1.0), Err(Error::Setting { .. })));
        let mut bare = Network::builder(1).linear(1, 2).build().unwrap();
        assert!(matches!(ScaleL1::new(0.1).start(&mut bare, 1), Err(Error::Conflict { .. })));
    }
}
