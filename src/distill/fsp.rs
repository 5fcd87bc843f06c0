//! The flow of the solution procedure: how one layer's channels go with another's.

use ndarray::{Array3, Zip};

use super::{
    Distiller, Loss, Signals,
    maps::{Maps, STUDENT, TEACHER},
    units::sum_of_squares,
};
use crate::error::{Error, Result};

/// FSP (Yim et al. 2017): between two layers of a network stands the matrix `G = F₁ F₂ᵀ / positions` of each sample, (first
/// layer's channels, second layer's), and the loss is the mean of `(G_s - G_t)²` over batch and elements.
///
/// The signals hold the first layer's features, and by [`and`](Signals::and) the second's; the loss has a gradient for each.
/// Student and teacher have the same widths, layer by layer, or are [`projected`](Distiller::projected) to the same, and may
/// differ in positions. Where the two layers of one
/// network do, the larger is averaged down to the smaller ([how](super#features)); the authors take maxima. RepDistiller
/// averages as well (weight 50). No settings.
///
/// ```
/// use ndarray::array;
/// use tersor::{Distiller, Signals};
///
/// let (s1, s2, t1, t2) = (array![[1.0, 2.0]], array![[3.0]], array![[1.0, 1.0]], array![[2.0]]);
/// let loss = Distiller::fsp().apply(&Signals::new(&s1, &t1).and(&s2, &t2))?;
/// assert_eq!(loss.value, (1.0 + 16.0) / 2.0); // G_s = [3, 6], G_t = [2, 2]
/// assert_eq!(loss.gradient, array![[3.0, 12.0]].into_dyn());
/// assert_eq!(loss.second, Some(array![[9.0]].into_dyn()));
/// # Ok::<(), tersor::Error>(())
/// ```
///
/// # Errors
/// [`apply`](Distiller::apply) gives [`Error::Rank`] for features of rank other than 2, 3 or 4, [`Error::Conflict`] for
/// layers of two kinds, or without a second, or of other widths, [`Error::Shape`] for batches or sequences of different
/// length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct Fsp;

impl Fsp {
    /// Between two layers.
    pub fn new() -> Fsp {
        Fsp
    }
}

impl Distiller for Fsp {
    fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
        let [student, teacher] = signals.second()?;
        let student = Maps::pair([STUDENT, "the student's second signal"], [signals.student()?, student])?;
        let teacher = Maps::pair([TEACHER, "the teacher's second signal"], [signals.teacher()?, teacher])?;
        let (mut flow, goal) = (flow(&student), flow(&teacher));
        if flow.dim() != goal.dim() {
            let [s, t] = [flow.dim(), goal.dim()];
            let what =
                format!("(batch, first channels, second channels) are {s:?} of the student, {t:?} of the teacher");
            let remedy = "give the same batch, and layers of the teacher's widths or its Distiller::projected";
            return Err(Error::Conflict { what, remedy });
        }
        flow -= &goal;
        let count = flow.len() as f64;
        let value = sum_of_squares(&flow) / count;
        let [first, second] = &student;
        flow *= 2.0 / (count * first.values.dim().2 as f64);
        let [mut to_first, mut to_second] = [first, second].map(|maps| Array3::zeros(maps.values.dim()));
        Zip::from(to_first.outer_iter_mut())
            .and(flow.outer_iter())
            .and(second.values.outer_iter())
            .for_each(|mut gradient, slopes, second| gradient.assign(&slopes.dot(&second)));
        Zip::from(to_second.outer_iter_mut())
            .and(flow.outer_iter())
            .and(first.values.outer_iter())
            .for_each(|mut gradient, slopes, first| gradient.assign(&slopes.t().dot(&first)));
        signals.fitting(Loss::new(value, first.to_signal(to_first)).with_second(second.to_signal(to_second)))
    }

    fn compares_channels(&self) -> bool {
        true
    }
}

/// `F₁ F₂ᵀ / positions` of each sample.
fn flow([first, second]: &[Maps<'_>; 2]) -> Array3<f64> {
    let ((batch, rows, positions), columns) = (first.values.dim(), second.values.dim().1);
    let mut flow = Array3::zeros((batch, rows, columns));
    Zip::from(flow.outer_iter_mut())
        .and(first.values.outer_iter())
        .and(second.values.outer_iter())
        .for_each(|mut flow, first, second| flow.assign(&(first.dot(&second.t()) / positions as f64)));
    flow
}
