//! Choosing what goes: scores, patterns and amounts, behind one trait.

mod amount;
mod magnitude;
mod pattern;
mod ranked;
mod score;
mod select;
mod taylor;

use std::fmt::Debug;

pub use amount::Amount;
pub use magnitude::Magnitude;
pub use pattern::{Pattern, Units};
pub use ranked::{Ranked, Ranking};
pub use score::Score;
pub(crate) use score::checked_units;
pub use taylor::Taylor;

use crate::{
    error::Result,
    sealed::Is,
    tensor::{PrunedTensor, Weights},
};

/// A way to prune. Built-in ones are made by the constructors below, on the trait itself; one of your own implements
/// [`apply`](Pruner::apply), or is a [`Score`] in a [`Ranked`].
///
/// ```
/// use ndarray::{Array2, Axis};
/// use tersor::Pruner;
///
/// let weights = Array2::from_shape_fn((40, 50), |(i, j)| ((i * 50 + j) as f32).sin());
/// let pruned = Pruner::magnitude(0.9).apply(&weights)?; // a PrunedTensor: values and mask
/// assert_eq!(pruned.mask().kept(), 200);
/// let pruned = Pruner::magnitude(0.5).n_of_m(2, 4).apply(&weights)?; // any score, any pattern
/// let rows = Pruner::magnitude(0.5).structured(Axis(0)).apply(&pruned)?; // pruned again
/// assert_eq!(rows.mask().kept(), 20 * 26); // 2 of every 4 of 50 columns, in 20 rows
/// # Ok::<(), tersor::Error>(())
/// ```
pub trait Pruner: Debug + Send + Sync {
    /// Prunes weights: any float array or view, of any rank and layout, or ones that say more
    /// ([`PrunedTensor`], [`Observed`](crate::tensor::Observed)).
    ///
    /// # Errors
    /// The settings are validated first ([`Error::Setting`](crate::Error::Setting)), then the weights:
    /// [`Error::Empty`](crate::Error::Empty), [`Error::NotFinite`](crate::Error::NotFinite),
    /// [`Error::Axis`](crate::Error::Axis), [`Error::NeedsCalibration`](crate::Error::NeedsCalibration).
    fn apply(&self, weights: &dyn Weights) -> Result<PrunedTensor>;

    /// The score and how it is cut, for those who rank several tensors as one; `None`, the default, for a pruner that
    /// decides tensor by tensor.
    fn ranking(&self) -> Option<(&dyn Score, Ranking)> {
        None
    }

    /// [`Magnitude`]: what is small goes.
    fn magnitude(amount: impl Into<Amount>) -> Self
    where
        Self: Sized,
        Ranked<Magnitude>: Is<Self>,
    {
        Ranked::new(Magnitude::default(), amount).is()
    }

    /// [`Taylor`]: what changes the loss least goes. Needs gradients ([`Statistic::Gradient`](crate::tensor::Statistic)).
    fn taylor(amount: impl Into<Amount>) -> Self
    where
        Self: Sized,
        Ranked<Taylor>: Is<Self>,
    {
        Ranked::new(Taylor, amount).is()
    }
}
