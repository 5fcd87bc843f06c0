//! The direction of the features.

use super::{Distiller, Loss, Signals, maps::Maps, units::Units};
use crate::error::Result;

/// `1 - cos(f_s, f_t)` of the channels' vectors, the mean over batch and positions: the hidden-state term of DistilBERT
/// (Sanh et al. 2019), torch's `cosine_embedding_loss` with targets 1. Lengths do not matter: it is unchanged when either
/// side's features are scaled, position by position. A zero vector is at right angles to every other, itself included: it
/// costs 1 and gets no gradient.
///
/// It compares channels one by one: widths must be equal, or brought to be by [`projected`](Distiller::projected). Images of
/// different size are [pooled](super#features). No settings.
///
/// ```
/// use ndarray::array;
/// use tersor::{Distiller, Signals};
///
/// let loss = Distiller::cosine().apply(&Signals::new(&array![[3.0, 0.0]], &array![[3.0, 4.0]]))?;
/// assert!((loss.value - 0.4).abs() < 1e-12 && (loss.gradient[[0, 1]] + 0.8 / 3.0).abs() < 1e-12);
/// # Ok::<(), tersor::Error>(())
/// ```
///
/// # Errors
/// [`apply`](Distiller::apply) gives [`Error::Rank`](crate::Error::Rank) for features of rank other than 2, 3 or 4,
/// [`Error::Conflict`](crate::Error::Conflict) for features of two kinds or widths, [`Error::Shape`](crate::Error::Shape)
/// for batches or sequences of different length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct Cosine;

impl Cosine {
    /// Of every position.
    pub fn new() -> Cosine {
        Cosine
    }
}

impl Distiller for Cosine {
    fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
        let [student, teacher] = Maps::alike(signals)?;
        let [s, t] = [&student, &teacher].map(|maps| Units::of(maps.rows().into_owned()));
        let count = s.rows.nrows() as f64;
        let value = 1.0 - (&s.rows * &t.rows).sum() / count;
        let gradient = s.backward(t.rows / -count);
        signals.fitting(Loss::new(value, student.rows_to_signal(gradient)))
    }

    fn compares_channels(&self) -> bool {
        true
    }
}
