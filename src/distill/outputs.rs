//! Outputs as rows of classes.

use ndarray::{Array2, ArrayD, ArrayViewD};

use super::{Loss, Reduction};
use crate::error::{Error, Result};

/// Logits as rows: what [`Signals::outputs`](super::Signals::outputs) checked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outputs<'a> {
    /// The student's, (rows, classes).
    pub student: Array2<f64>,
    /// The teacher's, (rows, classes).
    pub teacher: Array2<f64>,
    /// The class of each row.
    pub labels: Option<&'a [usize]>,
    /// The factor of each row's loss.
    pub sample_weights: Option<&'a [f64]>,
    /// The factor of each class's share of the loss.
    pub class_weights: Option<&'a [f64]>,
    /// The length of the batch axis.
    pub batch: usize,
    /// The shape of the logits as given.
    pub shape: Vec<usize>,
}

impl Outputs<'_> {
    /// The class of each row.
    ///
    /// # Errors
    /// [`Error::Conflict`] if there are none.
    pub fn labels(&self) -> Result<&[usize]> {
        self.labels.ok_or_else(|| Error::Conflict {
            what: "the loss reads labels, but the signals have none".into(),
            remedy: "add them with Signals::labels",
        })
    }

    /// The factor of a class.
    pub fn class_weight(&self, class: usize) -> f64 {
        self.class_weights.map_or(1.0, |weights| weights[class])
    }

    /// Sums losses row by row: `of_row(row, student, teacher, gradient)` returns a row's loss and sets its gradient for the
    /// student's logits. Both are weighted by sample and reduced.
    pub fn reduce(
        &self,
        reduction: Reduction,
        mut of_row: impl FnMut(usize, &[f64], &[f64], &mut [f64]) -> f64,
    ) -> Loss {
        let (rows, classes) = self.student.dim();
        let mut gradient = vec![0.0; rows * classes];
        let share = 1.0 / reduction.divisor(self);
        let mut value = 0.0;
        for (row, slopes) in gradient.chunks_mut(classes).enumerate() {
            let weight = share * self.sample_weights.map_or(1.0, |weights| weights[row]);
            let [student, teacher] =
                [&self.student, &self.teacher].map(|logits| &slice(logits)[row * classes..][..classes]);
            value += weight * of_row(row, student, teacher, slopes);
            slopes.iter_mut().for_each(|slope| *slope *= weight);
        }
        let gradient = ArrayD::from_shape_vec(self.shape.clone(), gradient).expect("as many elements");
        Loss::new(value, gradient)
    }
}

fn slice(rows: &Array2<f64>) -> &[f64] {
    rows.as_slice().expect("made row-major")
}

/// The last axis, of `classes`, as rows.
pub(super) fn as_rows(array: ArrayViewD<'_, f64>, classes: usize) -> Array2<f64> {
    let rows = array.len() / classes;
    array.to_shape((rows, classes)).expect("as many elements").as_standard_layout().into_owned()
}
