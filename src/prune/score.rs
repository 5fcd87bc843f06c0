//! What ranks the elements of a tensor: the least goes first.

use std::fmt::Debug;

use ndarray::{ArrayD, IxDyn};

use super::Units;
use crate::{
    error::{Error, Result},
    tensor::{Dense, Statistic, Weights},
};

/// A ranking of a tensor's elements, the least first to go. One written outside this crate works with every pattern,
/// amount and schedule.
///
/// ```
/// use ndarray::{ArrayD, Axis, array};
/// use tersor::{Pruner, Result, Weights, prune::{Ranked, Score}};
///
/// /// Keeps what is positive.
/// #[derive(Debug)]
/// struct Signed;
///
/// impl Score for Signed {
///     fn elements(&self, weights: &dyn Weights) -> Result<ArrayD<f32>> {
///         Ok(weights.values().into_owned())
///     }
/// }
///
/// let weights = array![[1.0_f32, -5.0], [0.5, 2.0]];
/// let pruned = Ranked::new(Signed, 0.5).apply(&weights)?;
/// assert_eq!(pruned.values(), array![[1.0, 0.0], [0.0, 2.0]].into_dyn());
/// let pruned = Ranked::new(Signed, 0.5).structured(Axis(0)).apply(&weights)?; // rows by their mean
/// assert_eq!(pruned.values(), array![[0.0, 0.0], [0.5, 2.0]].into_dyn());
/// # Ok::<(), tersor::Error>(())
/// ```
pub trait Score: Debug + Send + Sync {
    /// A number for every element, in the shape of the weights; none may be NaN.
    ///
    /// # Errors
    /// What the score finds wrong with its settings or the weights.
    fn elements(&self, weights: &dyn Weights) -> Result<ArrayD<f32>>;

    /// A number for every unit of elements that go together: by default the mean of their elements', to which what was
    /// removed before adds 0.
    ///
    /// # Errors
    /// As [`elements`](Score::elements).
    fn units(&self, weights: &dyn Weights, units: &Units) -> Result<Vec<f64>> {
        let scores = self.elements(weights)?;
        if scores.shape() != units.shape() {
            let (expected, found) = (units.shape().to_vec(), scores.shape().to_vec());
            return Err(Error::Shape { what: "the scores", expected, found });
        }
        let scores = scores.as_standard_layout();
        let scores = scores.as_slice().unwrap_or_default();
        let is_kept = |element| weights.mask().is_none_or(|mask| mask.is_kept(element));
        Ok(units.mean(|element| if is_kept(element) { scores[element].into() } else { 0.0 }))
    }

    /// Whether the score of every element is `|w|`; false by default. Where single elements or N:M are ranked, masks are
    /// then found in the bits of the weights, and neither [`elements`](Score::elements) nor [`units`](Score::units) is
    /// asked.
    fn is_magnitude(&self) -> bool {
        false
    }

    /// The statistic that it reads; `None`, the default, for a score of the numbers alone.
    fn needs(&self) -> Option<Statistic> {
        None
    }

    /// Rounds in which the amount is best reached, the statistic gathered anew in each: 1 by default.
    fn rounds(&self) -> usize {
        1
    }
}

/// A number for every unit, checked: a score may come from outside the crate.
pub(crate) fn checked_units(score: &dyn Score, weights: &dyn Weights, units: &Units) -> Result<Vec<f64>> {
    let scores = score.units(weights, units)?;
    if scores.len() != units.count() {
        return Err(Error::Shape {
            what: "the scores of the units",
            expected: vec![units.count()],
            found: vec![scores.len()],
        });
    }
    match scores.iter().position(|score| score.is_nan()) {
        Some(index) => Err(Error::NotFinite { what: "the scores", index, value: f64::NAN }),
        None => Ok(scores),
    }
}

/// `f(w, s)` for every weight and its statistic; `scheme` is the constructor's name.
pub(super) fn product(
    weights: &dyn Weights,
    which: Statistic,
    scheme: &'static str,
    f: impl Fn(f32, f32) -> f32,
) -> Result<ArrayD<f32>> {
    let dense = Dense::new(weights)?;
    let Some(statistic) = weights.statistic(which) else {
        return Err(Error::NeedsCalibration { scheme, what: which.needed() });
    };
    if statistic.shape() != dense.shape() {
        let (expected, found) = (dense.shape().to_vec(), statistic.shape().to_vec());
        return Err(Error::Shape { what: which.name(), expected, found });
    }
    let statistic = Dense::named(which.name(), &statistic)?;
    let scores = dense.values().iter().zip(statistic.values()).map(|(w, s)| f(*w, *s)).collect();
    Ok(ArrayD::from_shape_vec(IxDyn(dense.shape()), scores).expect("a score an element"))
}
