//! Layer-adaptive magnitude.

use std::fmt;

use ndarray::{ArrayD, IxDyn};

use super::{Score, Units};
use crate::{
    error::Result,
    tensor::{Dense, Weights},
};

/// LAMP (Lee et al. 2021): `w² / Σ v²` over the `v` of the same tensor that come no earlier in ascending order of size,
/// the lower index first among equals. Ranked together, tensors get the sparsity that suits each: the largest of a tensor
/// scores 1, so that none is emptied before the others. Of units, the mean squares take the place of the squares.
///
/// ```
/// use ndarray::array;
/// use tersor::Pruner;
///
/// let (small, large) = (array![0.1_f32, 0.2], array![10.0_f32, 20.0]);
/// let pruned = Pruner::lamp(0.5).apply_together(&[&small, &large])?;
/// assert_eq!((pruned[0].mask().kept(), pruned[1].mask().kept()), (1, 1)); // magnitude would empty the first
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Lamp;

impl fmt::Debug for Lamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lamp")
    }
}

impl Score for Lamp {
    fn elements(&self, weights: &dyn Weights) -> Result<ArrayD<f32>> {
        let dense = Dense::new(weights)?;
        let squares = dense.values().iter().map(|w| f64::from(*w).powi(2)).collect();
        let scores = shares(squares).into_iter().map(|score| score as f32).collect();
        Ok(ArrayD::from_shape_vec(IxDyn(dense.shape()), scores).expect("a score an element"))
    }

    fn units(&self, weights: &dyn Weights, units: &Units) -> Result<Vec<f64>> {
        let dense = Dense::new(weights)?;
        Ok(shares(units.mean(|element| f64::from(dense.values()[element]).powi(2))))
    }
}

/// Each square over the sum of those that are not before it in ascending order.
fn shares(mut squares: Vec<f64>) -> Vec<f64> {
    let mut rest = 0.0;
    for (place, index) in ascending(&squares).into_iter().rev().enumerate() {
        rest += squares[index];
        // The largest scores 1 even of a tensor of zeros, which is not emptied either.
        squares[index] = if place == 0 {
            1.0
        } else if rest > 0.0 {
            squares[index] / rest
        } else {
            0.0
        };
    }
    squares
}

/// The indices in ascending order of their squares, the lower first of equal ones.
fn ascending(squares: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..squares.len()).collect();
    order.sort_unstable_by(|a, b| squares[*a].total_cmp(&squares[*b]).then(a.cmp(b)));
    order
}
