//! The labels themselves.

use super::{Distiller, Loss, Reduction, Signals, softmax::Softmax};
use crate::{error::Result, nn::share};

/// Cross-entropy of the student's logits with the labels of the signals, smoothed (Szegedy et al. 2016):
///
/// `-Σ q log softmax(z_s) / N`, `q = (1 - ε) [class] + ε / classes`, `N` as the [`Reduction`] says (rows).
///
/// Its gradient is `(p_s - q) / N`. The teacher is not read: one that is unsure of everything, its logits all the same,
/// teaches what label smoothing does, but for a constant.
///
/// | setting | default | range |
/// |---|---|---|
/// | `label_smoothing` ε, spread over all classes as torch does | 0 | 0 to 1 |
/// | `reduction` | [`Reduction::RowMean`] | |
///
/// Reads sample and class weights; a class's weight multiplies its term of the sum, as torch's `weight` does. (torch's mean
/// with `weight` divides by the labels' weights: `Reduction::Sum` over their sum is that.)
///
/// ```
/// use ndarray::array;
/// use tersor::{Distiller, Signals};
///
/// let logits = array![[0.0, 0.0]];
/// let loss = Distiller::hard_labels().apply(&Signals::new(&logits, &logits).labels(&[1]))?;
/// assert!((loss.value - 2f64.ln()).abs() < 1e-15);
/// assert_eq!(loss.gradient, array![[0.5, -0.5]].into_dyn());
/// # Ok::<(), tersor::Error>(())
/// ```
///
/// # Errors
/// [`apply`](Distiller::apply) gives [`Error::Setting`](crate::Error::Setting) for a smoothing that is not a share,
/// [`Error::Conflict`](crate::Error::Conflict) for signals without labels, and those of [`Signals::outputs`].
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct HardLabels {
    label_smoothing: f64,
    reduction: Reduction,
}

impl Default for HardLabels {
    fn default() -> HardLabels {
        HardLabels { label_smoothing: 0.0, reduction: Reduction::RowMean }
    }
}

impl HardLabels {
    /// Without label smoothing, the mean over the rows.
    pub fn new() -> HardLabels {
        HardLabels::default()
    }

    /// Sets the share ε of a label that is spread over all classes.
    pub fn label_smoothing(self, label_smoothing: f64) -> HardLabels {
        HardLabels { label_smoothing, ..self }
    }

    /// Sets what the sum is divided by.
    pub fn reduction(self, reduction: Reduction) -> HardLabels {
        HardLabels { reduction, ..self }
    }
}

impl Distiller for HardLabels {
    fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
        share("label_smoothing", self.label_smoothing)?;
        let student = signals.student()?;
        let untaught = signals.instead(student.view(), student.view());
        let outputs = untaught.outputs()?;
        let (labels, classes) = (outputs.labels()?, outputs.student.ncols());
        let spread = self.label_smoothing / classes as f64;
        let student = Softmax::of_rows(&outputs.student, 1.0);
        signals.fitting(outputs.reduce(self.reduction, |row, _, _, gradient| {
            let target = |class: usize| {
                let label = if class == labels[row] { 1.0 - self.label_smoothing } else { 0.0 };
                outputs.class_weight(class) * (label + spread)
            };
            let [p, s] = student.row(row);
            let sum: f64 = (0..classes).map(target).sum();
            for (class, gradient) in gradient.iter_mut().enumerate() {
                *gradient = p[class] * sum - target(class);
            }
            -s.iter().enumerate().map(|(class, s)| target(class) * s).sum::<f64>()
        }))
    }

    fn weighs_samples(&self) -> bool {
        self.reduction.weighs_samples()
    }
}
