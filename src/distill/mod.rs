//! Distillation: what a student should learn from a teacher, as losses with exact gradients, behind one trait.
//!
//! A [`Distiller`] takes arrays and gives a value and gradients: it works with any framework. [`Distillation`] trains a
//! network of [`nn`](crate::nn) by several of them.
//!
//! # Features
//!
//! Losses on features see every signal as channels at positions:
//!
//! | rank | axes | channels | positions |
//! |---|---|---|---|
//! | 2 | (batch, features) | features | one |
//! | 3 | (batch, sequence, features) | features | the sequence |
//! | 4 | (batch, channels, height, width) | channels | height x width, row by row |
//!
//! Student and teacher have the same rank. Where their images differ in size, the larger is averaged down to the smaller,
//! each axis for itself, by torch's `adaptive_avg_pool2d`: of `n` entries and `m` wanted, entry `i` is the mean of those from
//! `floor(i n / m)` up to, not including, `ceil((i + 1) n / m)`. The gradient goes back by the transpose of that. Sequences
//! of different length are an error: their positions are tokens.
//!
//! Where student and teacher differ in their number of channels, a loss that compares channel by channel takes a trainable
//! projection: [`Distiller::projected`].

mod attention;
mod attentions;
mod channel_wise;
mod correlation_congruence;
mod cosine;
mod dist;
mod distances;
mod distillation;
mod dkd;
mod ensemble;
mod fsp;
mod hard_labels;
mod heads;
mod hint;
mod logits;
mod loss;
mod maps;
mod mix;
mod mutual;
mod nst;
mod objective;
mod outputs;
mod pkt;
mod pointers;
mod pointwise;
mod projected;
mod reduction;
mod relations;
mod report;
mod rkd_angle;
mod rkd_distance;
mod samples;
mod schedule;
mod signals;
mod similarity_preserving;
mod soft_targets;
mod softmax;
mod standardized;
mod teacher;
mod term;
mod units;
mod vid;

use std::fmt::Debug;

pub use attention::Attention;
pub use attentions::{Attentions, Compare};
pub use channel_wise::ChannelWise;
pub use correlation_congruence::{Correlation, CorrelationCongruence};
pub use cosine::Cosine;
pub use dist::Dist;
pub use distillation::Distillation;
pub use dkd::Dkd;
pub use ensemble::{Average, Ensemble};
pub use fsp::Fsp;
pub use hard_labels::HardLabels;
pub use hint::Hint;
pub use logits::Logits;
pub use loss::Loss;
pub use mix::Mix;
pub use mutual::Mutual;
use ndarray::ArrayD;
pub use nst::{Kernel, Nst};
pub use outputs::Outputs;
pub use pkt::Pkt;
pub use projected::Projected;
pub use reduction::Reduction;
pub use relations::Relations;
pub use report::{Distilled, Part};
pub use rkd_angle::RkdAngle;
pub use rkd_distance::RkdDistance;
pub use schedule::Schedule;
pub use signals::Signals;
pub use similarity_preserving::SimilarityPreserving;
pub use soft_targets::{Divergence, SoftTargets};
pub use standardized::Standardized;
pub use teacher::{Answer, Batch, Recorded, Teacher};
pub use term::At;
pub use vid::Vid;

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

    /// The same for signals of two layers ([`Signals::and`]), first and second. By default the parameters for the first.
    ///
    /// # Errors
    /// Shapes that the loss does not take.
    fn parameters_between(
        &self,
        student: [&[usize]; 2],
        teacher: [&[usize]; 2],
        seed: u64,
    ) -> Result<Vec<(String, ArrayD<f64>)>> {
        self.parameters(student[0], teacher[0], seed)
    }

    /// The temperature by which the loss softens outputs when this share of the training is over; 1 by default. Several
    /// teachers' probabilities are averaged at it ([`Ensemble`]).
    fn temperature(&self, progress: f64) -> f64 {
        let _ = progress;
        1.0
    }

    /// Whether a [sample weight](Signals::sample_weights) multiplies its row's loss and does nothing else, so that losses
    /// against several teachers may be averaged row by row ([`Ensemble::by_entropy`]). By default it does not.
    fn weighs_samples(&self) -> bool {
        false
    }

    /// The same loss of logits that are [`Standardized`] first, student's and teacher's.
    fn standardized(self) -> Standardized<Self>
    where
        Self: Sized,
    {
        Standardized::new(self)
    }

    /// Whether the loss compares features channel by channel, so that it must be [`projected`](Distiller::projected) where
    /// student and teacher have different numbers of channels. By default it does not.
    fn compares_channels(&self) -> bool {
        false
    }

    /// The loss behind a trainable linear map from the student's channels to the teacher's, one for each layer.
    fn projected(self) -> Projected<Self>
    where
        Self: Sized,
    {
        Projected::new(self)
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

    /// [`Dkd`]: soft targets, the label's class and the others apart.
    fn dkd() -> Self
    where
        Self: Sized,
        Dkd: Is<Self>,
    {
        Dkd::new().is()
    }

    /// [`Dist`]: correlations with the teacher, over classes and over samples.
    fn dist() -> Self
    where
        Self: Sized,
        Dist: Is<Self>,
    {
        Dist::new().is()
    }

    /// [`HardLabels`]: the labels themselves; the teacher is not read.
    fn hard_labels() -> Self
    where
        Self: Sized,
        HardLabels: Is<Self>,
    {
        HardLabels::new().is()
    }

    /// [`Mix`]: a weighted sum of losses.
    fn mix() -> Self
    where
        Self: Sized,
        Mix: Is<Self>,
    {
        Mix::new().is()
    }

    /// [`Hint`]: the teacher's features, number by number, through a trainable regressor.
    fn hint() -> Self
    where
        Self: Sized,
        Hint: Is<Self>,
    {
        Hint::new().is()
    }

    /// [`Attention`]: where features are large.
    fn attention() -> Self
    where
        Self: Sized,
        Attention: Is<Self>,
    {
        Attention::new().is()
    }

    /// [`Nst`]: the distribution of what channels respond to.
    fn nst() -> Self
    where
        Self: Sized,
        Nst: Is<Self>,
    {
        Nst::new().is()
    }

    /// [`Fsp`]: how the channels of two layers go together.
    fn fsp() -> Self
    where
        Self: Sized,
        Fsp: Is<Self>,
    {
        Fsp::new().is()
    }

    /// [`ChannelWise`]: where each channel is active, at a temperature.
    fn channel_wise(temperature: impl Into<Schedule>) -> Self
    where
        Self: Sized,
        ChannelWise: Is<Self>,
    {
        ChannelWise::new(temperature).is()
    }

    /// [`Vid`]: the teacher's features, as likely as the student can make them.
    fn vid() -> Self
    where
        Self: Sized,
        Vid: Is<Self>,
    {
        Vid::new().is()
    }

    /// [`Cosine`]: the direction of the features.
    fn cosine() -> Self
    where
        Self: Sized,
        Cosine: Is<Self>,
    {
        Cosine::new().is()
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
