//! Filters that others can stand in for.

use std::fmt;

use ndarray::ArrayD;

use super::{Score, Units};
use crate::{
    error::{Error, Result},
    kernels::parallel,
    tensor::{Dense, Weights},
};

/// FPGM (He et al. 2019): the sum of a filter's Euclidean distances to all others of its tensor, so that those nearest to
/// the geometric median go first. A filter removed before is no neighbour any more: masked and truly removed, a tensor is
/// pruned alike.
///
/// Of indices along an axis only, `.structured(Axis(0))`; and since the sums grow with the number and the size of the
/// filters, for a ranking of each tensor by itself. For `n` filters of `d` numbers it takes `n² d` steps.
///
/// ```
/// use ndarray::{Axis, array};
/// use tersor::Pruner;
///
/// let filters = array![[5.0_f32, 0.0], [0.0, 5.0], [2.4, 2.5]]; // the last is much like the mean of the others
/// let pruned = Pruner::fpgm(1).structured(Axis(0)).apply(&filters)?;
/// assert_eq!(pruned.values(), array![[5.0, 0.0], [0.0, 5.0], [0.0, 0.0]].into_dyn());
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Fpgm;

impl fmt::Debug for Fpgm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fpgm")
    }
}

impl Score for Fpgm {
    fn elements(&self, _: &dyn Weights) -> Result<ArrayD<f32>> {
        Err(Error::Conflict {
            what: "fpgm compares whole filters, not elements or blocks".into(),
            remedy: "add .structured(Axis(0))",
        })
    }

    fn units(&self, weights: &dyn Weights, units: &Units) -> Result<Vec<f64>> {
        if units.axis().is_none() {
            self.elements(weights)?;
        }
        let dense = Dense::new(weights)?;
        let mut filters = units.fold(Vec::new(), |filter, element| filter.push(dense.values()[element]));
        let is_kept = |element| dense.mask().is_none_or(|mask| mask.is_kept(element));
        let alive = units.fold(false, |alive, element| *alive |= is_kept(element));
        filters.iter_mut().zip(alive).filter(|(_, alive)| !alive).for_each(|(filter, _)| filter.clear());
        let others = |filter: &[f32]| {
            let alive = filters.iter().filter(|other| !other.is_empty());
            alive.map(|other| squared_distance(filter, other).sqrt()).sum()
        };
        Ok(parallel::map(filters.len(), |index| others(&filters[index])))
    }
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    /// Sums side by side, which the compiler makes vectors of.
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
        for ((a, b), sum) in a.iter().zip(b).zip(&mut sums) {
            let difference = f64::from(*a) - f64::from(*b);
            *sum += difference * difference;
        }
    }
    sums.iter().sum()
}
