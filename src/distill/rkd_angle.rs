//! Relational distillation by angles.

use ndarray::{Array1, Array2, Axis, Zip};

use super::{Distiller, Loss, Signals, distances::Distances, rkd_distance::huber, samples::Samples};
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
/// All angles come of the n² products of samples: the cost is n² a feature and n³ besides. Only where samples all but
/// coincide are those of them taken from their differences, n² a feature for each. The n² angles at one sample are held at a
/// time.
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
        let n = samples.len();
        let [student, teacher] = [&samples.student, &samples.teacher].map(Angles::of);
        let share = 1.0 / (n as f64).powi(3);
        let [mut own, mut wanted, mut pulls] = [(); 3].map(|()| Array2::zeros((n, n)));
        let mut losses = Array1::<f64>::zeros(n);
        for vertex in 0..n {
            student.cosines(vertex, &mut own);
            teacher.cosines(vertex, &mut wanted);
            // Every pair of arms: the slope of its cosine pulls at the ends of both, and at the vertex along each.
            let inverse = student.inverse.row(vertex);
            let [mut by_angle, mut by_length] = [(); 2].map(|()| Array1::<f64>::zeros(n));
            for (i, (own, wanted)) in own.rows().into_iter().zip(wanted.rows()).enumerate() {
                let slopes = Zip::from(&mut losses).and(own).and(wanted).map_collect(|sum, own, wanted| {
                    let (loss, slope) = huber(own - wanted);
                    *sum += loss;
                    slope
                });
                Zip::from(&mut by_length).and(&slopes).and(own).for_each(|sum, slope, own| *sum += slope * own);
                let of_i = inverse[i];
                let pulls = pulls.row_mut(i);
                Zip::from(&mut by_angle).and(pulls).and(&slopes).and(inverse).for_each(|sum, pull, slope, inverse| {
                    let along = slope * of_i * inverse;
                    *sum += along;
                    *pull -= along;
                });
            }
            let pulls = pulls.row_mut(vertex);
            Zip::from(pulls).and(&by_angle).and(&by_length).and(inverse).for_each(|pull, angle, length, inverse| {
                *pull += 2.0 * (angle - length * inverse * inverse);
            });
        }
        pulls *= share;
        signals.fitting(samples.loss(share * losses.sum(), student.distances.pulled(&pulls)))
    }
}

/// The samples, and what their angles are made of.
struct Angles<'a> {
    distances: Distances<'a>,
    /// One over each distance; 0 where that is 0.
    inverse: Array2<f64>,
}

impl<'a> Angles<'a> {
    fn of(rows: &'a Array2<f64>) -> Angles<'a> {
        let distances = Distances::of(rows);
        let inverse = distances.between.mapv(|distance| if distance > 0.0 { 1.0 / distance } else { 0.0 });
        Angles { distances, inverse }
    }

    /// The cosines of all angles at a sample: `(x_i - x_j) · (x_k - x_j)`, of the products of samples, over the lengths.
    fn cosines(&self, vertex: usize, cosines: &mut Array2<f64>) {
        let Distances { rows, products, crowded, .. } = &self.distances;
        if crowded[vertex] {
            // Too few digits are left of the products: from the differences.
            let arms = (*rows - &rows.row(vertex)) * self.inverse.row(vertex).insert_axis(Axis(1));
            return cosines.assign(&arms.dot(&arms.t()));
        }
        let (of_vertex, inverse) = (products.row(vertex), self.inverse.row(vertex));
        let half = of_vertex[vertex] / 2.0;
        let of_arm = of_vertex.mapv(|product| product - half);
        for (i, (mut cosines, products)) in cosines.rows_mut().into_iter().zip(products.rows()).enumerate() {
            let (of_i, inverse_i) = (of_arm[i], inverse[i]);
            Zip::from(&mut cosines).and(products).and(&of_arm).and(inverse).for_each(
                |cosine, product, of_k, inverse_k| {
                    *cosine = (product - of_i - of_k) * inverse_i * inverse_k;
                },
            );
        }
    }
}
