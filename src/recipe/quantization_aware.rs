//! Training with rounded weights.

use std::sync::Arc;

use ndarray::{ArrayD, ArrayViewD};

use super::{Planned, Recipe};
use crate::{
    error::{Error, Result},
    nn::{Callback, Network, Progress},
    quantize::{Affine, Quantizer},
    tensor::{Mask, Observed, QuantizedTensor},
};

/// Quantization-aware training: forward and backward pass see the weights as the recipe rounds them, steps go to latent
/// weights behind them, which are rounded anew after each. Made by [`Recipe::while_training`].
///
/// The gradient passes the rounding as it is: the straight-through estimate (Bengio et al. 2013). On evenly spaced levels it
/// is 0 for a weight that its range clips, as in [`Affine::straight_through`]. Ranges and levels are found anew after each
/// step, by the scheme itself, so that fitted levels ([`KMeans`](crate::quantize::KMeans), or
/// [`Adaptive`](crate::quantize::Adaptive)) cost their fit every time. Inputs of layers are not rounded.
///
/// The network has its rounded weights between steps and in the end, so that the same recipe, applied next, meets weights
/// that already lie on levels. The schemes of this crate find those levels again, but for the rounding of floats; only
/// [`Range::Entropy`](crate::quantize::Range::Entropy) may choose others.
///
/// Masks are kept, and levels fitted to what they leave. Among several callbacks those that prune come before this one, so
/// that they see latent weights, and [`BestEpoch`](crate::nn::BestEpoch) comes after it, so that it measures rounded ones.
///
/// A training that is cancelled leaves rounded weights as well; [`latent`](QuantizationAware::latent) has those behind them.
///
/// ```
/// use ndarray::{Array2, Axis};
/// use tersor::{Quantizer, Recipe, nn::{Adam, Data, Network, Training}};
///
/// let mut network = Network::builder(1).linear(8, 32).relu().linear(32, 2).build()?;
/// let data = Data::classes(Array2::from_shape_fn((64, 8), |(i, j)| ((i * j) as f32).sin()), (0..64).map(|i| i % 2))?;
/// let recipe = Recipe::new().quantize("*", Quantizer::uniform(3).symmetric().per_channel(Axis(0)));
/// let mut aware = recipe.clone().while_training();
/// Training::new(10).train_with(&mut network, &data, &mut Adam::new(1e-3), &mut aware, &mut |_| {
///     std::ops::ControlFlow::Continue(())
/// })?;
/// let compressed = recipe.apply(&network)?.to_network()?; // nothing is lost any more
/// let rounded = compressed.parameter("0.weight")?.into_iter().zip(network.parameter("0.weight")?);
/// assert!(rounded.into_iter().all(|(a, b)| (a - b).abs() < 1e-6));
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct QuantizationAware {
    recipe: Recipe,
    weights: Vec<Latent>,
}

/// A weight under way.
#[derive(Clone, Debug)]
struct Latent {
    name: String,
    scheme: Arc<dyn Quantizer>,
    values: ArrayD<f32>,
    rounded: QuantizedTensor,
}

impl Latent {
    fn new(name: String, scheme: Arc<dyn Quantizer>, network: &Network) -> Result<Latent> {
        let values = network.parameter(&name)?.to_owned();
        let observed =
            network.mask(&name)?.into_iter().fold(Observed::new(&values), |all, mask: &Mask| all.masked(mask));
        let rounded = scheme.apply(&observed).map_err(|error| error.in_layer(&name))?;
        Ok(Latent { rounded, values, name, scheme })
    }

    /// The same weight where the network has it now.
    fn renewed(&self, network: &Network) -> Result<Latent> {
        Latent::new(self.name.clone(), self.scheme.clone(), network)
    }

    fn put(&self, network: &mut Network, values: &ArrayD<f32>) -> Result<()> {
        network.set_parameter(&self.name, values).map_err(|error| error.in_layer(&self.name))
    }

    fn is_finite_in(&self, network: &Network) -> Result<bool> {
        Ok(network.parameter(&self.name)?.iter().all(|value| value.is_finite()))
    }
}

impl QuantizationAware {
    pub(super) fn new(recipe: Recipe) -> QuantizationAware {
        QuantizationAware { recipe, weights: Vec::new() }
    }

    /// The weights behind the rounded ones, by name, as of the last step; none before a training. With
    /// [`Network::set_parameter`] a training that was cancelled can go on from them.
    pub fn latent(&self) -> impl Iterator<Item = (&str, ArrayViewD<'_, f32>)> {
        self.weights.iter().map(|weight| (weight.name.as_str(), weight.values.view()))
    }

    /// Takes these weights, and puts them into the network rounded.
    fn take(&mut self, weights: Vec<Latent>, network: &mut Network) -> Result<()> {
        self.weights = weights;
        self.weights.iter().try_for_each(|weight| weight.put(network, &weight.rounded.dequantize()))
    }
}

impl Callback for QuantizationAware {
    fn start(&mut self, network: &mut Network, _: usize) -> Result<()> {
        let planned = self.recipe.dry_run(network)?.into_iter();
        let chosen = planned.filter_map(|Planned { name, scheme, .. }| Some((name, scheme?)));
        let weights = chosen.map(|(name, scheme)| Latent::new(name, scheme, network)).collect::<Result<_>>()?;
        self.take(weights, network)
    }

    fn before_step(
        &mut self,
        at: &Progress,
        network: &mut Network,
        gradients: &mut [(String, ArrayD<f32>)],
    ) -> Result<()> {
        for weight in &self.weights {
            if !weight.is_finite_in(network)? {
                return Err(Error::Diverged { loss: at.loss, epoch: at.epoch });
            }
            weight.put(network, &weight.values)?;
            let gradient = gradients.iter_mut().find(|(name, _)| *name == weight.name);
            if let (Some((_, gradient)), Some(grid)) = (gradient, Affine::of(&weight.rounded)) {
                *gradient = grid.straight_through(&weight.values, gradient)?;
            }
        }
        Ok(())
    }

    fn after_step(&mut self, _: &Progress, network: &mut Network) -> Result<()> {
        for weight in &self.weights {
            // The training sees by its next loss that it diverged, and goes back; latent weights stay as they were.
            if !weight.is_finite_in(network)? {
                return Ok(());
            }
        }
        let weights = self.weights.iter().map(|weight| weight.renewed(network)).collect::<Result<_>>()?;
        self.take(weights, network)
    }

    fn finish(&mut self, network: &mut Network) -> Result<()> {
        for weight in &self.weights {
            // Other weights are there if another callback put them there at its end.
            if network.parameter(&weight.name)? != weight.rounded.dequantize() {
                let rounded = weight.renewed(network)?.rounded.dequantize();
                weight.put(network, &rounded)?;
            }
        }
        Ok(())
    }
}
