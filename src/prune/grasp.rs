//! Preserving the flow of gradients.

use std::fmt;

use ndarray::ArrayD;

use super::{Score, score::product};
use crate::{
    error::Result,
    tensor::{Statistic, Weights},
};

/// GraSP (Wang et al. 2020): `w · (H g)`, where `H g` is the Hessian of the loss times its gradient. Without a weight,
/// the squared norm of the gradient changes by `-2 w (H g)` to first order; weights whose removal makes it larger, or
/// lessens it least, go first. Meant for a network before training and one ranking over all layers.
///
/// ```
/// use ndarray::array;
/// use tersor::{Pruner, tensor::{Observed, Statistic}};
///
/// let (weights, hg) = (array![2.0_f32, -1.0, 0.5], array![0.1_f32, 0.3, 0.2]);
/// let pruned = Pruner::grasp(1).apply(&Observed::new(&weights).with(Statistic::HessianGradient, &hg))?;
/// assert_eq!(pruned.values(), array![2.0, 0.0, 0.5].into_dyn()); // w (H g): 0.2, -0.3, 0.1
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Grasp;

impl fmt::Debug for Grasp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "grasp")
    }
}

impl Score for Grasp {
    fn elements(&self, weights: &dyn Weights) -> Result<ArrayD<f32>> {
        product(weights, Statistic::HessianGradient, "Pruner::grasp", |w, hg| w * hg)
    }

    fn needs(&self) -> Option<Statistic> {
        Some(Statistic::HessianGradient)
    }
}
