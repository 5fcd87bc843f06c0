//! Distillation: what a student should learn from a teacher, as losses with exact gradients, behind one trait.
//!
//! A [`Distiller`] takes arrays and gives a value and gradients: it works with any framework. [`Distillation`] trains a
//! network of [`nn`](crate::nn) by several of them.

mod attentions;
mod correlation_congruence;
mod heads;
mod logits;
mod loss;
mod pkt;
mod reduction;
mod relations;
mod rkd_angle;
mod rkd_distance;
mod samples;
mod schedule;
mod settings;
mod signals;
mod similarity_preserving;
mod soft_targets;
mod softmax;
mod teacher;
mod units;

use std::fmt::Debug;

pub use attentions::{Attentions, Compare};
pub use correlation_congruence::{Correlation, CorrelationCongruence};
pub use logits::Logits;
pub use loss::Loss;
use ndarray::ArrayD;
pub use pkt::Pkt;
pub use reduction::Reduction;
pub use relations::Relations;
pub use rkd_angle::RkdAngle;
pub use rkd_distance::RkdDistance;
pub use schedule::Schedule;
pub use signals::{Outputs, Signals};
pub use similarity_preserving::SimilarityPreserving;
pub use soft_targets::{Divergence, SoftTargets};
pub use teacher::{Answer, Batch, Recorded, Teacher};

use crate::{error::Result, sealed::Is};

/// A way to distil. Built-in ones are made by the constructors below, on the trait itself; one of your own implements
/// [`apply`](Distiller::apply) and is used in the same way.
///
/// ```
/// use ndarray::array;
/// use tersor::{Distiller, Signals};
///
/// let (student_logits, teacher_logits) = (array![[0.1_f32, 2.0, -1.0]], array![[0.0_f32, 3.0, -2.0]]);
/// let loss = Distiller::soft_targets(4.0).apply(&Signals::new(&student_logits, &teacher_logits))?;
/// assert!(loss.value > 0.0 && loss.gradient[[0, 1]] < 0.0); // more of the second class
/// # Ok::<(), tersor::Error>(())
/// ```
pub trait Distiller: Debug + Send + Sync {
    /// The loss of a batch, and its gradients.
    ///
    /// # Errors
    /// Settings are validated first ([`Error::Setting`](crate::Error::Setting)), then the signals:
    /// [`Error::Empty`](crate::Error::Empty), [`Error::NotFinite`](crate::Error::NotFinite),
    /// [`Error::Shape`](crate::Error::Shape), [`Error::Rank`](crate::Error::Rank), [`Error::Label`](crate::Error::Label),
    /// [`Error::Conflict`](crate::Error::Conflict) for what the loss needs and the signals lack.
    fn apply(&self, signals: &Signals<'_>) -> Result<Loss>;

    /// Initial values of the loss's own trainable parameters, for signals of these shapes: a regressor's weights, say.
    /// Named; drawn from `seed`. By default there are none.
    ///
    /// # Errors
    /// Shapes that the loss does not take.
    fn parameters(&self, student: &[usize], teacher: &[usize], seed: u64) -> Result<Vec<(String, ArrayD<f64>)>> {
        let _ = (student, teacher, seed);
        Ok(vec![])
    }

    /// [`SoftTargets`]: the teacher's distribution at a temperature.
    fn soft_targets(temperature: impl Into<Schedule>) -> Self
    where
        Self: Sized,
        SoftTargets: Is<Self>,
    {
        SoftTargets::new(temperature).is()
    }

    /// [`Logits`]: the teacher's logits, number by number.
    fn logits() -> Self
    where
        Self: Sized,
        Logits: Is<Self>,
    {
        Logits::new().is()
    }

    /// [`RkdDistance`]: distances between samples.
    fn rkd_distance() -> Self
    where
        Self: Sized,
        RkdDistance: Is<Self>,
    {
        RkdDistance::new().is()
    }

    /// [`RkdAngle`]: angles between samples.
    fn rkd_angle() -> Self
    where
        Self: Sized,
        RkdAngle: Is<Self>,
    {
        RkdAngle::new().is()
    }

    /// [`SimilarityPreserving`]: which samples are alike.
    fn similarity_preserving() -> Self
    where
        Self: Sized,
        SimilarityPreserving: Is<Self>,
    {
        SimilarityPreserving::new().is()
    }

    /// [`CorrelationCongruence`]: how samples correlate.
    fn correlation_congruence() -> Self
    where
        Self: Sized,
        CorrelationCongruence: Is<Self>,
    {
        CorrelationCongruence::new().is()
    }

    /// [`Pkt`]: who is a neighbour of whom, as probabilities.
    fn pkt() -> Self
    where
        Self: Sized,
        Pkt: Is<Self>,
    {
        Pkt::new().is()
    }

    /// [`Relations`]: how positions of a transformer's layer relate to one another.
    fn relations(heads: usize) -> Self
    where
        Self: Sized,
        Relations: Is<Self>,
    {
        Relations::new(heads).is()
    }

    /// [`Attentions`]: where the heads of a transformer's layer look.
    fn attentions(heads: usize) -> Self
    where
        Self: Sized,
        Attentions: Is<Self>,
    {
        Attentions::new(heads).is()
    }
}
