//! Choosing what goes: scores, patterns and amounts, behind one trait.

mod amount;
mod fpgm;
mod grasp;
mod lamp;
mod magnitude;
mod movement;
mod pattern;
mod random;
mod ranked;
mod schedule;
mod score;
mod select;
mod snip;
mod synflow;
mod taylor;

use std::fmt::Debug;

pub use amount::Amount;
pub use fpgm::Fpgm;
pub use grasp::Grasp;
pub use lamp::Lamp;
pub use magnitude::Magnitude;
pub use movement::Movement;
pub use pattern::{Pattern, Units};
pub use random::Random;
pub use ranked::{Ranked, Ranking};
pub use schedule::Schedule;
pub use score::Score;
pub(crate) use score::checked_units;
pub use snip::Snip;
pub use synflow::SynFlow;
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

    /// [`Magnitude`] by [`Amount::Below`]: what is smaller than this goes, however much it is.
    ///
    /// ```
    /// use ndarray::array;
    /// use tersor::Pruner;
    ///
    /// let pruned = Pruner::threshold(0.5).apply(&array![0.1_f32, -0.5, 2.0])?;
    /// assert_eq!(pruned.values(), array![0.0, -0.5, 2.0].into_dyn());
    /// # Ok::<(), tersor::Error>(())
    /// ```
    fn threshold(threshold: f64) -> Self
    where
        Self: Sized,
        Ranked<Magnitude>: Is<Self>,
    {
        Ranked::new(Magnitude::default(), Amount::Below(threshold)).is()
    }

    /// [`Random`]: anything may go.
    fn random(amount: impl Into<Amount>, seed: u64) -> Self
    where
        Self: Sized,
        Ranked<Random>: Is<Self>,
    {
        Ranked::new(Random::new(seed), amount).is()
    }

    /// [`Lamp`]: what is small beside the rest of its tensor goes.
    fn lamp(amount: impl Into<Amount>) -> Self
    where
        Self: Sized,
        Ranked<Lamp>: Is<Self>,
    {
        Ranked::new(Lamp, amount).is()
    }

    /// [`Fpgm`]: filters that others can stand in for go.
    fn fpgm(amount: impl Into<Amount>) -> Self
    where
        Self: Sized,
        Ranked<Fpgm>: Is<Self>,
    {
        Ranked::new(Fpgm, amount).is()
    }

    /// [`Snip`]: what the loss is least sensitive to goes. Needs gradients.
    fn snip(amount: impl Into<Amount>) -> Self
    where
        Self: Sized,
        Ranked<Snip>: Is<Self>,
    {
        Ranked::new(Snip, amount).is()
    }

    /// [`Grasp`]: what gradients flow best without goes. Needs Hessian-gradient products.
    fn grasp(amount: impl Into<Amount>) -> Self
    where
        Self: Sized,
        Ranked<Grasp>: Is<Self>,
    {
        Ranked::new(Grasp, amount).is()
    }

    /// [`SynFlow`]: what carries the least synaptic flow goes. Needs the flow, but no data.
    fn synflow(amount: impl Into<Amount>) -> Self
    where
        Self: Sized,
        Ranked<SynFlow>: Is<Self>,
    {
        Ranked::new(SynFlow::default(), amount).is()
    }

    /// [`Movement`]: what training moves towards zero goes. Needs the movement of a training.
    fn movement(amount: impl Into<Amount>) -> Self
    where
        Self: Sized,
        Ranked<Movement>: Is<Self>,
    {
        Ranked::new(Movement, amount).is()
    }
}
