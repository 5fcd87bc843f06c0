//! Channel-wise distillation: where each channel is active.

use ndarray::Ix2;

use super::{Distiller, Loss, Schedule, Signals, SoftTargets, maps::Maps};
use crate::{error::Result, nn::positive};

/// Channel-wise distillation (CWD, Shu et al. 2021): each channel's map is softened into a distribution over positions,
/// `p = softmax(f / T)`, and the student's is drawn to the teacher's,
///
/// `T² / (batch · channels) · Σ p_t log(p_t / p_s)`,
///
/// with gradient `T / (batch · channels) · (p_s - p_t)`: [`SoftTargets`] with positions for classes and channels for rows.
/// Features of one position have no distribution: the loss is then 0.
///
/// | setting | default | range |
/// |---|---|---|
/// | `temperature` T | | above 0; a number or a [`Schedule`] |
///
/// As mmrazor's `ChannelWiseDivergence`. It compares channels one by one: widths must be equal, or brought to be by
/// [`projected`](Distiller::projected), as the authors do. Images of different size are [pooled](super#features).
///
/// ```
/// use ndarray::array;
/// use tersor::{Distiller, Signals};
///
/// // One channel over a sequence of three: the same numbers as logits of three classes.
/// let (student, teacher) = (array![[[1.0], [2.0], [3.0]]], array![[[1.0], [2.0], [4.0]]]);
/// let loss = Distiller::channel_wise(4.0).apply(&Signals::new(&student, &teacher))?;
/// assert!((loss.value - 0.1241053348).abs() < 1e-9);
/// # Ok::<(), tersor::Error>(())
/// ```
///
/// # Errors
/// [`apply`](Distiller::apply) gives [`Error::Setting`](crate::Error::Setting) for a temperature that is not above 0,
/// [`Error::Rank`](crate::Error::Rank) for features of rank other than 2, 3 or 4,
/// [`Error::Conflict`](crate::Error::Conflict) for features of two kinds or widths, [`Error::Shape`](crate::Error::Shape)
/// for batches or sequences of different length.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct ChannelWise {
    temperature: Schedule,
}

impl ChannelWise {
    /// Softens by this temperature.
    pub fn new(temperature: impl Into<Schedule>) -> ChannelWise {
        ChannelWise { temperature: temperature.into() }
    }
}

impl Distiller for ChannelWise {
    fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
        self.temperature.check("temperature", positive)?;
        let [student, teacher] = Maps::alike(signals)?;
        let (s, t) = (student.channel_rows(), teacher.channel_rows());
        let rows = Signals::new(&s, &t).progress(signals.at());
        let loss = SoftTargets::new(self.temperature).apply(&rows)?;
        let gradient = loss.gradient.into_dimensionality::<Ix2>().expect("of the rows' shape");
        signals.fitting(Loss::new(loss.value, student.channel_rows_to_signal(gradient)))
    }

    fn compares_channels(&self) -> bool {
        true
    }
}
