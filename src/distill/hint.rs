//! Hints: the teacher's features, number by number.

use ndarray::ArrayD;

use super::{Distiller, Loss, Signals, maps::Maps, units::sum_of_squares};
use crate::error::Result;

/// FitNets (Romero et al. 2015): the mean of `(r(f_s) - f_t)²` over all elements, `r` a trainable map from the student's
/// channels to the teacher's, `W f_s + b` at each position, with the parameters of [`Projected`](super::Projected). Images
/// of different size are [pooled](super#features).
///
/// | setting | default | range |
/// |---|---|---|
/// | `without_regressor`: `r(f) = f` | with it | widths must then be equal |
///
/// Without a regressor it is the hidden-state term of TinyBERT (Jiao et al. 2019) for layers of one width. The value is
/// torch's `mse_loss`; RepDistiller, mdistiller and torchdistill weight it by 100, and theirs have a batch norm in `r`.
///
/// ```
/// use ndarray::array;
/// use tersor::{Distiller, Signals};
///
/// let (student, teacher) = (array![[1.0, 2.0]], array![[3.0]]);
/// let own = [array![[1.0, 0.5]].into_dyn(), array![0.0].into_dyn()]; // W and b
/// let loss = Distiller::hint().apply(&Signals::new(&student, &teacher).parameters(&own))?;
/// assert_eq!((loss.value, loss.gradient), (1.0, array![[-2.0, -1.0]].into_dyn()));
/// assert_eq!(loss.parameters[0], array![[-2.0, -4.0]].into_dyn());
/// # Ok::<(), tersor::Error>(())
/// ```
///
/// # Errors
/// [`apply`](Distiller::apply) gives [`Error::Rank`](crate::Error::Rank) for features of rank other than 2, 3 or 4,
/// [`Error::Conflict`](crate::Error::Conflict) for features of two kinds, or of other widths without a regressor,
/// [`Error::Shape`](crate::Error::Shape) for batches or sequences of different length, and those of [`Signals::own`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Hint {
    regressor: bool,
}

impl Default for Hint {
    fn default() -> Hint {
        Hint { regressor: true }
    }
}

impl Hint {
    /// With a regressor.
    pub fn new() -> Hint {
        Hint::default()
    }

    /// Compares the features as they are.
    pub fn without_regressor(self) -> Hint {
        Hint { regressor: false }
    }
}

impl Distiller for Hint {
    fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
        if self.regressor {
            return self.clone().without_regressor().projected().apply(signals);
        }
        let [student, teacher] = Maps::alike(signals)?;
        let mut difference = &student.values - &teacher.values;
        let count = difference.len() as f64;
        let value = sum_of_squares(&difference) / count;
        difference *= 2.0 / count;
        signals.fitting(Loss::new(value, student.to_signal(difference)))
    }

    fn parameters(&self, student: &[usize], teacher: &[usize], seed: u64) -> Result<Vec<(String, ArrayD<f64>)>> {
        match self.regressor {
            true => self.clone().without_regressor().projected().parameters(student, teacher, seed),
            false => Ok(vec![]),
        }
    }

    fn compares_channels(&self) -> bool {
        !self.regressor
    }
}
