//! Relational distillation by angles.

use ndarray::{Array2, Axis};

use super::{
    Distiller, Loss, Signals,
    rkd_distance::huber,
    samples::{Samples, compare, products, products_backward},
    units::Units,
};
use crate::error::Result;

/// Relational knowledge distillation by angles (RKD-A, Park et al. 2019): any three samples should make the same angle as
/// they do for the teacher,
///
/// `Σ_ijk huber(cos ∠ s_i s_j s_k - cos ∠ t_i t_j t_k) / n³`,
///
/// the angle at `s_j` between the directions to `s_i` and `s_k`, `huber` that of [`RkdDistance`](super::RkdDistance). The
/// mean is over all n³ triples, as in the authors' code, torchdistill and mdistiller; where a direction is of samples that
/// coincide, the cosine is 0 and its gradient too. The loss is zero for a teacher that is rotated, moved and scaled. The
/// authors weigh it 50.
///
/// It takes n³ multiplications a feature for the student's angles, the teacher's and the gradient each, as products of
/// matrices, and holds the n² angles at one sample at a time.
///
/// Signals are (batch, ..), flattened; student and teacher may differ in all but the batch. There are no settings.
///
/// ```
/// use ndarray::array;
/// use tersor::{Distiller, Signals};
///
/// let student = array![[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]];
/// let turned_and_doubled = array![[0.0, 0.0], [0.0, 6.0], [-8.0, 0.0]];
/// let loss = Distiller::rkd_angle().apply(&Signals::new(&student, &turned_and_doubled))?;
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
pub struct RkdAngle;

impl RkdAngle {
    /// The loss, which has no settings.
    pub fn new() -> RkdAngle {
        RkdAngle
    }
}

impl Distiller for RkdAngle {
    fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
        let samples = Samples::of(signals)?;
        let share = 1.0 / (samples.len() as f64).powi(3);
        let (mut sum, mut gradient) = (0.0, Array2::zeros(samples.student.dim()));
        for vertex in 0..samples.len() {
            let [student, teacher] = [&samples.student, &samples.teacher].map(|rows| directions(rows, vertex));
            let (value, slopes) = compare(&products(&student.rows), &products(&teacher.rows), |s, t| huber(s - t));
            sum += value;
            let of_arms = student.backward(products_backward(&(slopes * share), &student.rows));
            let mut of_vertex = gradient.row_mut(vertex);
            of_vertex -= &of_arms.sum_axis(Axis(0));
            gradient += &of_arms;
        }
        signals.fitting(samples.loss(share * sum, gradient))
    }
}

/// From one sample to every sample.
fn directions(rows: &Array2<f64>, vertex: usize) -> Units {
    Units::of(rows - &rows.row(vertex))
}
