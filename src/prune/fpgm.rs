//! Filters that others can stand in for.

use std::fmt;

use ndarray::ArrayD;

use super::{Score, Units};
use crate::{
    error::{Error, Result},
    tensor::{Dense, Weights},
};

/// FPGM (He et al. 2019): the sum of a filter's Euclidean distances to all others of its tensor, so that those nearest to
/// the geometric median go first. Of indices along an axis only: `.structured(Axis(0))`.
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
        let mut filters = vec![Vec::with_capacity(units.len() / units.count().max(1)); units.count()];
        dense.values().iter().enumerate().for_each(|(element, w)| filters[units.unit_of(element)].push(*w));
        let distance = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
        };
        Ok(filters.iter().map(|filter| filters.iter().map(|other| distance(filter, other)).sum()).collect())
    }
}
