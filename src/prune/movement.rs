//! Where training takes the weights.

use std::fmt;

use ndarray::ArrayD;

use super::{Score, score::product};
use crate::{
    error::Result,
    tensor::{Statistic, Weights},
};

/// Movement pruning (Sanh et al. 2020): `-Σ g w` over the steps of a training, positive where a weight moved away from
/// zero. What moved towards zero goes first. [`Amount::Below`](super::Amount) makes it the paper's soft movement, whose
/// threshold `σ(S) > τ` is `S > ln(τ / (1 - τ))`.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Movement;

impl fmt::Debug for Movement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "movement")
    }
}

impl Score for Movement {
    fn elements(&self, weights: &dyn Weights) -> Result<ArrayD<f32>> {
        product(weights, Statistic::Movement, "Pruner::movement", |_, movement| movement)
    }

    fn needs(&self) -> Option<Statistic> {
        Some(Statistic::Movement)
    }
}
