//! How positions relate to one another.

use super::{Compare, Distiller, Loss, Signals, heads::Heads};
use crate::error::Result;

/// Self-attention relations (MiniLMv2, Wang et al. 2020): positions should relate to one another as they do in the teacher,
///
/// `Σ KL(softmax(A_t A_tᵀ / √d_t) ‖ softmax(A_s A_sᵀ / √d_s))`, mean over batch, relation heads and positions,
///
/// where `A` are the queries, the keys or the values of a layer, shared out anew to relation heads of `d = features / heads`
/// features, each network's own. So student and teacher may have other features and another number of attention heads. The
/// paper adds up three such losses, of queries, keys and values, with 48 heads for a teacher of 768 features. With the
/// attention's own number of heads, the one of values is MiniLM's value relation (Wang et al. 2020).
///
/// | setting | default | range |
/// |---|---|---|
/// | `heads` | | a divisor of the features of both |
///
/// Signals are (batch, sequence, features); student and teacher may differ in features.
///
/// ```
/// use ndarray::array;
/// use tersor::{Distiller, Signals};
///
/// let (student, teacher) = (array![[[1.0], [0.0]]], array![[[0.0, 0.0], [0.0, 0.0]]]); // the teacher's are all alike
/// let loss = Distiller::relations(1).apply(&Signals::new(&student, &teacher))?;
/// assert!((loss.value - 0.5_f64.cosh().ln() / 2.0).abs() < 1e-12);
/// # Ok::<(), tersor::Error>(())
/// ```
///
/// # Errors
/// [`apply`](Distiller::apply) gives those of [`Signals::student`], [`Error::Rank`](crate::Error::Rank) for other than three
/// axes, [`Error::Shape`](crate::Error::Shape) for another batch or sequence, [`Error::Setting`](crate::Error::Setting) for
/// heads that do not divide the features, [`Error::NotFinite`](crate::Error::NotFinite) for numbers so large that their
/// products overflow.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Relations {
    heads: usize,
}

impl Relations {
    /// Relations of so many heads.
    pub fn new(heads: usize) -> Relations {
        Relations { heads }
    }
}

impl Distiller for Relations {
    fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
        let (student, teacher) = (signals.student()?, signals.teacher()?);
        let heads = Heads { heads: self.heads, compare: Compare::Distributions, causal: false };
        let (value, [left, right]) = heads.compare([student.clone(), student], [teacher.clone(), teacher])?;
        signals.fitting(Loss::new(value, (left + right).into_dyn()))
    }
}
