//! Sensitivity of the loss at initialization.

use std::fmt;

use ndarray::ArrayD;

use super::{Score, score::product};
use crate::{
    error::Result,
    tensor::{Statistic, Weights},
};

/// SNIP (Lee et al. 2019): `|g w|`, the connection sensitivity, meant for a network before training and for one ranking
/// over all layers. The paper divides by the sum over the whole network, which ranks alike. The units' score is the mean
/// of their elements', where [`Taylor`](super::Taylor) lets gains and losses cancel.
///
/// ```
/// use ndarray::{Axis, array};
/// use tersor::{Pruner, tensor::{Observed, Statistic}};
///
/// let (weights, gradients) = (array![[3.0_f32, 3.0], [1.0, 1.0]], array![[1.0_f32, -1.0], [1.0, 1.0]]);
/// let observed = Observed::new(&weights).with(Statistic::Gradient, &gradients);
/// let pruned = Pruner::snip(1).structured(Axis(0)).apply(&observed)?;
/// assert_eq!(pruned.values(), array![[3.0, 3.0], [0.0, 0.0]].into_dyn()); // Taylor: |3 - 3| < |1 + 1|
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Snip;

impl fmt::Debug for Snip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "snip")
    }
}

impl Score for Snip {
    fn elements(&self, weights: &dyn Weights) -> Result<ArrayD<f32>> {
        product(weights, Statistic::Gradient, "Pruner::snip", |w, g| (w * g).abs())
    }

    fn needs(&self) -> Option<Statistic> {
        Some(Statistic::Gradient)
    }
}
