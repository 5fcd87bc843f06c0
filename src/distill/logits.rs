//! Logits matched number by number.

use super::{Distiller, Loss, Reduction, Signals};
use crate::error::Result;

/// The mean squared difference of logits (Ba and Caruana 2014; Kim et al. 2021): `Σ (z_s - z_t)² / N`, with gradient
/// `2 (z_s - z_t) / N`, `N` as the [`Reduction`] says (all elements).
///
/// | setting | default | range |
/// |---|---|---|
/// | `reduction` | [`Reduction::Mean`] | |
///
/// Reads sample and class weights.
///
/// ```
/// use ndarray::array;
/// use tersor::{Distiller, Signals};
///
/// let loss = Distiller::logits().apply(&Signals::new(&array![[1.0, 2.0]], &array![[0.0, 2.0]]))?;
/// assert_eq!((loss.value, loss.gradient), (0.5, array![[1.0, 0.0]].into_dyn()));
/// # Ok::<(), tersor::Error>(())
/// ```
///
/// # Errors
/// [`apply`](Distiller::apply) gives those of [`Signals::outputs`].
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Logits {
    reduction: Reduction,
}

impl Default for Logits {
    fn default() -> Logits {
        Logits { reduction: Reduction::Mean }
    }
}

impl Logits {
    /// The mean over all elements.
    pub fn new() -> Logits {
        Logits::default()
    }

    /// Sets what the sum is divided by.
    pub fn reduction(self, reduction: Reduction) -> Logits {
        Logits { reduction }
    }
}

impl Distiller for Logits {
    fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
        let outputs = signals.outputs()?;
        signals.fitting(outputs.reduce(self.reduction, |_, student, teacher, gradient| {
            let classes = gradient.iter_mut().zip(student.iter().zip(teacher)).enumerate();
            classes
                .map(|(class, (gradient, (s, t)))| {
                    let weight = outputs.class_weight(class);
                    *gradient = 2.0 * weight * (s - t);
                    weight * (s - t) * (s - t)
                })
                .sum()
        }))
    }

    fn weighs_samples(&self) -> bool {
        self.reduction.weighs_samples()
    }
}
