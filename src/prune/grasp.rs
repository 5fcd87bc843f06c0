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
