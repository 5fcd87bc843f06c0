//! Attention, layer against layer.

use super::{Distiller, Loss, Signals, heads::Heads};
use crate::error::Result;

/// Attention distillation: every position of every head should look where the teacher's does,
///
/// `Σ KL(softmax(Q_t K_tᵀ / √d_t) ‖ softmax(Q_s K_sᵀ / √d_s))`, mean over batch, heads and query positions,
///
/// with `d` the features of a head, each network's own (MiniLM, Wang et al. 2020). [`Compare::Scores`] compares what stands
/// in the softmax instead (TinyBERT, Jiao et al. 2019).
///
/// | setting | default | range |
/// |---|---|---|
/// | `heads` | | a divisor of the features of both |
/// | `compare` | [`Compare::Distributions`] | |
/// | `causal`: a position sees itself and those before it | all | queries as long as keys |
///
/// The signals are queries (batch, sequence, features), and with [`Signals::and`] keys (batch, sequence, features); the
/// features of a head are neighbours. Student and teacher may differ in features, but have as many heads; otherwise see
/// [`Relations`](super::Relations). The gradient for the keys is [`Loss::second`].
///
/// ```
/// use ndarray::{Array3, array};
/// use tersor::{Distiller, Signals, distill::Compare};
///
/// let (queries, keys) = (array![[[1.0], [0.0]]], array![[[2.0], [0.0]]]); // one head, one feature
/// let zeros = Array3::<f64>::zeros((1, 2, 6)); // of a teacher that looks everywhere
/// let signals = Signals::new(&queries, &zeros).and(&keys, &zeros);
/// let loss = Distiller::attentions(1).apply(&signals)?;
/// assert!((loss.value - (1.0_f64.cosh()).ln() / 2.0).abs() < 1e-12);
/// assert!(loss.second.is_some());
/// assert_eq!(Distiller::attentions(1).compare(Compare::Scores).apply(&signals)?.value, 1.0);
/// # Ok::<(), tersor::Error>(())
/// ```
///
/// # Errors
/// [`apply`](Distiller::apply) gives those of [`Signals::student`] and [`Signals::second`],
/// [`Error::Rank`](crate::Error::Rank) for other than three axes, [`Error::Shape`](crate::Error::Shape) for arrays that do
/// not fit one another, [`Error::Setting`](crate::Error::Setting) for heads that do not divide the features,
/// [`Error::NotFinite`](crate::Error::NotFinite) for numbers so large that the scores overflow.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Attentions {
    heads: usize,
    compare: Compare,
    causal: bool,
}

/// What of attention is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compare {
    /// Where positions look, by the Kullback-Leibler divergence (MiniLM).
    #[default]
    Distributions,
    /// The scores `Q Kᵀ / √d`, by the mean of squared differences over batch, heads and pairs of positions that see one
    /// another (TinyBERT).
    Scores,
}

impl Attentions {
    /// The distributions of so many heads.
    pub fn new(heads: usize) -> Attentions {
        Attentions { heads, compare: Compare::default(), causal: false }
    }

    /// Sets what is compared.
    pub fn compare(self, compare: Compare) -> Attentions {
        Attentions { compare, ..self }
    }

    /// Lets every position see itself and those before it alone.
    pub fn causal(self) -> Attentions {
        Attentions { causal: true, ..self }
    }
}

impl Distiller for Attentions {
    fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
        let (queries, of_teacher, [keys, keys_of_teacher]) =
            (signals.student()?, signals.teacher()?, signals.second()?);
        let heads = Heads { heads: self.heads, compare: self.compare, causal: self.causal };
        let (value, [of_queries, of_keys]) = heads.compare([queries, keys], [of_teacher, keys_of_teacher])?;
        signals.fitting(Loss::new(value, of_queries.into_dyn()).with_second(of_keys.into_dyn()))
    }
}
