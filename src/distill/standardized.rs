//! Logits brought to one scale before a loss.

use ndarray::{Array2, ArrayD, ArrayView1, ArrayViewMut1};

use super::{Distiller, Loss, Signals};
use crate::{error::Result, nn::positive};

/// Logit standardization (Sun et al. 2024): before a loss on outputs each row of logits, the student's and the teacher's,
/// becomes `(z - mean) / (ε + std)`, `std² = Σ (z - mean)² / (classes - 1)`. The student then learns the teacher's
/// proportions, not its scale. Made by [`standardized`](Distiller::standardized); the gradient is for the logits as given.
///
/// | setting | default | range |
/// |---|---|---|
/// | `epsilon` ε | 1e-7 | above 0 |
///
/// A row of equal logits, or of one class (whose std the formula leaves open), becomes zeros. A student's row of equal logits
/// has a gradient of the order 1 / ε: raise ε where a student starts with such.
///
/// ```
/// use ndarray::array;
/// use tersor::{Distiller, Signals};
///
/// let loss = Distiller::soft_targets(2.0).standardized();
/// let (student, teacher) = (array![[1.0, 2.0, 3.0]], array![[30.0, 50.0, 70.0]]); // the same, scaled and shifted
/// assert!(loss.apply(&Signals::new(&student, &teacher))?.value < 1e-12);
/// # Ok::<(), tersor::Error>(())
/// ```
///
/// # Errors
/// [`apply`](Distiller::apply) gives [`Error::Setting`](crate::Error::Setting) for an ε that is not above 0, those of
/// [`Signals::outputs`] and those of the loss.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Standardized<D> {
    distiller: D,
    epsilon: f64,
}

impl<D: Distiller> Standardized<D> {
    /// Standardizes before this loss.
    pub fn new(distiller: D) -> Standardized<D> {
        Standardized { distiller, epsilon: 1e-7 }
    }

    /// Sets what is added to the standard deviation.
    pub fn epsilon(self, epsilon: f64) -> Standardized<D> {
        Standardized { epsilon, ..self }
    }
}

impl<D: Distiller> Distiller for Standardized<D> {
    fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
        positive("epsilon", self.epsilon)?;
        let outputs = signals.outputs()?;
        let shaped = |rows: Array2<f64>| rows.into_shape_with_order(&outputs.shape[..]).expect("as many elements");
        let (student, deviations) = standardize(outputs.student.clone(), self.epsilon);
        let (teacher, _) = standardize(outputs.teacher.clone(), self.epsilon);
        let standard = signals.instead(shaped(student.clone()), shaped(teacher));
        let mut loss = standard.fitting(self.distiller.apply(&standard)?)?;

        // Each row in place: less what the mean takes out, less what the standard deviation does.
        let classes = student.ncols();
        let gradients = loss.gradient.rows_mut().into_iter();
        for ((mut gradient, z), deviation) in gradients.zip(student.rows()).zip(deviations) {
            let (mean, along) = (mean(gradient.view()), gradient.dot(&z));
            let bend = if deviation > 0.0 { along / (deviation * (classes - 1) as f64) } else { 0.0 };
            let scale = self.epsilon + deviation;
            gradient.zip_mut_with(&z, |gradient, z| *gradient = (*gradient - mean) / scale - bend * z);
        }
        loss.finite()
    }

    fn parameters(&self, student: &[usize], teacher: &[usize], seed: u64) -> Result<Vec<(String, ArrayD<f64>)>> {
        self.distiller.parameters(student, teacher, seed)
    }

    fn parameters_between(
        &self,
        student: [&[usize]; 2],
        teacher: [&[usize]; 2],
        seed: u64,
    ) -> Result<Vec<(String, ArrayD<f64>)>> {
        self.distiller.parameters_between(student, teacher, seed)
    }

    fn temperature(&self, progress: f64) -> f64 {
        self.distiller.temperature(progress)
    }

    fn weighs_samples(&self) -> bool {
        self.distiller.weighs_samples()
    }
}

/// Rows standardized, and their standard deviations.
fn standardize(mut rows: Array2<f64>, epsilon: f64) -> (Array2<f64>, Vec<f64>) {
    let freedom = (rows.ncols() - 1).max(1) as f64;
    let of_row = |mut row: ArrayViewMut1<'_, f64>| {
        row -= mean(row.view());
        let deviation = (row.dot(&row) / freedom).sqrt();
        row /= epsilon + deviation;
        deviation
    };
    let deviations = rows.rows_mut().into_iter().map(of_row).collect();
    (rows, deviations)
}

/// The mean, exact for numbers that are all the same.
fn mean(row: ArrayView1<'_, f64>) -> f64 {
    row[0] + row.iter().map(|z| z - row[0]).sum::<f64>() / row.len() as f64
}
