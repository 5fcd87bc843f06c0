//! Relational distillation by distances.

use ndarray::Array2;

use super::{
    Distiller, Loss, Signals,
    distances::Distances,
    samples::{Samples, compare},
};
use crate::error::Result;

/// Relational knowledge distillation by distances (RKD-D, Park et al. 2019): samples should be as far from one another as
/// they are for the teacher, relative to the mean distance,
///
/// `Σ_ij huber(d_ij / μ_s - e_ij / μ_t) / n²`, `d_ij = |s_i - s_j|`, `e_ij = |t_i - t_j|`,
///
/// where `s_i` and `t_i` are the samples' features, `μ` is the mean of the distances above 0, and `huber` is `x²/2` up to
/// `|x| = 1`, then `|x| - 1/2`. The mean is over all n² pairs, also of a sample with itself, as in the authors' code,
/// torchdistill and mdistiller. It is zero for a teacher that is rotated, moved and scaled. The gradient also goes through
/// `μ_s`; samples that coincide pull one another nowhere. The authors weigh it 25 (and [`RkdAngle`](super::RkdAngle) 50).
///
/// Signals are (batch, ..), flattened; student and teacher may differ in all but the batch. There are no settings.
///
/// ```
/// use ndarray::array;
/// use tersor::{Distiller, Signals};
///
/// let student = array![[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]];
/// let turned_and_doubled = array![[0.0, 0.0], [0.0, 6.0], [-8.0, 0.0]];
/// let loss = Distiller::rkd_distance().apply(&Signals::new(&student, &turned_and_doubled))?;
/// assert!(loss.value < 1e-30);
/// # Ok::<(), tersor::Error>(())
/// ```
///
/// # Errors
/// [`apply`](Distiller::apply) gives those of [`Signals::student`], [`Error::Rank`](crate::Error::Rank) for signals of one
/// axis, and [`Error::Shape`](crate::Error::Shape) for another number of samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct RkdDistance;

impl RkdDistance {
    /// The loss, which has no settings.
    pub fn new() -> RkdDistance {
        RkdDistance
    }
}

impl Distiller for RkdDistance {
    fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
        let samples = Samples::of(signals)?;
        let [student, teacher] = [&samples.student, &samples.teacher].map(Relative::of);
        let share = 1.0 / (samples.len() as f64).powi(2);
        let (value, slopes) = compare(&student.relative, &teacher.relative, |s, t| huber(s - t));
        signals.fitting(samples.loss(share * value, student.backward(slopes * share)))
    }
}

/// Distances between all samples, divided by their mean.
struct Relative<'a> {
    distances: Distances<'a>,
    relative: Array2<f64>,
    /// Of those above 0; 1 if there are none.
    mean: f64,
    /// How many are above 0.
    positive: usize,
}

impl<'a> Relative<'a> {
    fn of(rows: &'a Array2<f64>) -> Relative<'a> {
        let distances = Distances::of(rows);
        let positive = distances.between.iter().filter(|distance| **distance > 0.0).count();
        let mean = if positive > 0 { distances.between.sum() / positive as f64 } else { 1.0 };
        Relative { relative: &distances.between / mean, distances, mean, positive }
    }

    /// With `r = d / μ` and `m` distances above 0, of which `μ` is the mean: a distance's slope is
    /// `(∂r_ij - Σ ∂r r / m) / μ`, and it moves both its ends apart, along their difference divided by the distance.
    fn backward(&self, mut slopes: Array2<f64>) -> Array2<f64> {
        let through_mean = (&slopes * &self.relative).sum() / self.positive.max(1) as f64;
        slopes.zip_mut_with(&self.distances.between, |slope, distance| {
            *slope = if *distance > 0.0 { (*slope - through_mean) / self.mean / distance } else { 0.0 };
        });
        self.distances.pulled(&slopes)
    }
}

/// Huber's loss (1964) with δ = 1, and its slope.
pub(super) fn huber(x: f64) -> (f64, f64) {
    let slope = x.clamp(-1.0, 1.0);
    (slope * (x - slope / 2.0), slope)
}
