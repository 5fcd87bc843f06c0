//! Similarities between samples, kept.

use super::{
    Distiller, Loss, Signals,
    samples::{Samples, compare, products, products_backward},
    units::Units,
};
use crate::error::Result;

/// Similarity-preserving distillation (SP, Tung and Mori 2019): inputs that make the teacher's features alike should make
/// the student's alike,
///
/// `‖Ĝ_s - Ĝ_t‖² / n²`, `G = F Fᵀ` of the samples' features `F`, `Ĝ` its rows divided by their lengths (0 where a row is 0).
///
/// It does not change if the features of either are scaled. The authors weigh it 3000; RepDistiller, torchdistill and
/// mdistiller compute the same.
///
/// Signals are (batch, ..), flattened; student and teacher may differ in all but the batch. There are no settings.
///
/// ```
/// use ndarray::array;
/// use tersor::{Distiller, Signals};
///
/// let (student, teacher) = (array![[1.0, 0.0], [0.0, 1.0]], array![[3.0], [3.0]]); // unlike, alike
/// let loss = Distiller::similarity_preserving().apply(&Signals::new(&student, &teacher))?;
/// assert!((loss.value - (1.0 - 0.5_f64.sqrt())).abs() < 1e-12);
/// # Ok::<(), tersor::Error>(())
/// ```
///
/// # Errors
/// [`apply`](Distiller::apply) gives those of [`Signals::student`], [`Error::Rank`](crate::Error::Rank) for signals of one
/// axis, and [`Error::Shape`](crate::Error::Shape) for another number of samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct SimilarityPreserving;

impl SimilarityPreserving {
    /// The loss, which has no settings.
    pub fn new() -> SimilarityPreserving {
        SimilarityPreserving
    }
}

impl Distiller for SimilarityPreserving {
    fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
        let samples = Samples::of(signals)?;
        let [student, teacher] = [&samples.student, &samples.teacher].map(|rows| Units::of(products(rows)));
        let share = 1.0 / (samples.len() as f64).powi(2);
        let (value, slopes) = compare(&student.rows, &teacher.rows, |s, t| ((s - t) * (s - t), 2.0 * share * (s - t)));
        signals.fitting(samples.loss(share * value, products_backward(&student.backward(slopes), &samples.student)))
    }
}
