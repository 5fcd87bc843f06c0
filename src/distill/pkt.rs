//! Who is a neighbour of whom, as probabilities.

use ndarray::{Array1, Array2, Axis};

use super::{
    Distiller, Loss, Signals,
    samples::{Samples, compare, products, products_backward},
    units::Units,
};
use crate::error::Result;

/// Probabilistic knowledge transfer (PKT, Passalis and Tefas 2018): a sample should pick its neighbours with the
/// probabilities with which it does for the teacher,
///
/// `Σ_ij p_t log((p_t + ε) / (p_s + ε)) / n²`, `p_ij = k_ij / Σ_j k_ij`, `k_ij = (1 + cos(f_i, f_j)) / 2`, `ε = 1e-7`,
///
/// over all n² pairs, also of a sample with itself, as in the authors' code and RepDistiller; those add ε to the lengths
/// too, here a cosine with a sample of length 0 is 0. It does not change if the features of either are scaled. For a teacher
/// equal to the student it is 0, its gradient 0 but for ε. The authors weigh it 30000.
///
/// Signals are (batch, ..), flattened; student and teacher may differ in all but the batch. There are no settings.
///
/// ```
/// use ndarray::array;
/// use tersor::{Distiller, Signals};
///
/// let (student, teacher) = (array![[1.0, 0.0], [0.0, 1.0]], array![[3.0], [3.0]]); // probabilities 2/3, 1/3; 1/2, 1/2
/// let loss = Distiller::pkt().apply(&Signals::new(&student, &teacher))?;
/// assert!((loss.value - (9.0_f64 / 8.0).ln() / 4.0).abs() < 1e-7);
/// # Ok::<(), tersor::Error>(())
/// ```
///
/// # Errors
/// [`apply`](Distiller::apply) gives those of [`Signals::student`], [`Error::Rank`](crate::Error::Rank) for signals of one
/// axis, and [`Error::Shape`](crate::Error::Shape) for another number of samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct Pkt;

const EPSILON: f64 = 1e-7;

impl Pkt {
    /// The loss, which has no settings.
    pub fn new() -> Pkt {
        Pkt
    }
}

impl Distiller for Pkt {
    fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
        let samples = Samples::of(signals)?;
        let directions = Units::of(samples.student.clone());
        let (student, sums) = probabilities(&directions.rows);
        let (teacher, _) = probabilities(&Units::of(samples.teacher.clone()).rows);
        let share = 1.0 / (samples.len() as f64).powi(2);
        let (value, mut slopes) =
            compare(&student, &teacher, |s, t| (t * ((t + EPSILON) / (s + EPSILON)).ln(), -share * t / (s + EPSILON)));
        // Through a row's sum, and the half of its cosines.
        let means = (&slopes * &student).sum_axis(Axis(1));
        slopes = (slopes - means.insert_axis(Axis(1))) / (sums * 2.0).insert_axis(Axis(1));
        signals.fitting(samples.loss(share * value, directions.backward(products_backward(&slopes, &directions.rows))))
    }
}

/// Of each row's neighbours; and each row's sum before it was divided by that, which is at least 1/2.
fn probabilities(directions: &Array2<f64>) -> (Array2<f64>, Array1<f64>) {
    // A cosine may round to below -1.
    let similarities = products(directions).mapv(|cosine| ((1.0 + cosine) / 2.0).max(0.0));
    let sums = similarities.sum_axis(Axis(1));
    (similarities / sums.view().insert_axis(Axis(1)), sums)
}
