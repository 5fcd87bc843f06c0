//! Where training takes the weights.

use std::fmt;

use ndarray::ArrayD;

use super::{Score, score::product};
use crate::{
    error::Result,
    tensor::{Statistic, Weights},
};

/// Movement pruning (Sanh et al. 2020): `-Σ g w` over the steps of a training, positive where a weight moved away from
/// zero. What moved towards zero goes first, however large it still is.
///
/// [`Amount::Below`](super::Amount::Below) makes it the paper's soft movement: it keeps where `σ(S) > τ`, which is where
/// `S` is above the logit `ln(τ / (1 - τ))`.
///
/// ```
/// use ndarray::array;
/// use tersor::{Pruner, prune::Amount, tensor::{Observed, Statistic}};
///
/// let (weights, movement) = (array![2.0_f32, -0.1, 0.5], array![-3.0_f32, 1.0, 0.5]);
/// let observed = Observed::new(&weights).with(Statistic::Movement, &movement);
/// let pruned = Pruner::movement(1).apply(&observed)?;
/// assert_eq!(pruned.values(), array![0.0, -0.1, 0.5].into_dyn());
/// let tau = 0.7_f64; // σ(1) = 0.731, σ(0.5) = 0.622
/// let pruned = Pruner::movement(Amount::Below((tau / (1.0 - tau)).ln())).apply(&observed)?;
/// assert_eq!(pruned.values(), array![0.0, -0.1, 0.0].into_dyn());
/// # Ok::<(), tersor::Error>(())
/// ```
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
