//! Schemes that give a tensor fewer bits.

mod affine;
mod convention;
mod entropy;
mod fake;
mod fit;
pub mod observe;
mod range;
mod uniform;

pub use affine::{Affine, CodeRange};
pub use convention::{Convention, Quotient, Rounding, SymmetricScale, UnsignedZero, ZeroInRange, ZeroPointAdded};
pub use fake::LearnedStep;
pub use range::Range;
pub use uniform::Uniform;

use std::fmt::Debug;

use crate::{
    error::Result,
    sealed::Is,
    tensor::{QuantizedTensor, Weights},
};

/// A scheme that turns weights into codes on a grid. One verb; every option is a builder method of the concrete type.
///
/// The built-in schemes are made by constructors on the trait itself, `Quantizer::uniform(8)`; a scheme of your own
/// implements [`apply`](Quantizer::apply) and is used exactly as they are.
pub trait Quantizer: Debug + Send + Sync {
    /// Quantizes weights: any float array or view, of any rank and layout, or [`Weighted`](crate::tensor::Weighted).
    ///
    /// # Errors
    /// The settings are validated first ([`Error::Bits`](crate::Error::Bits),
    /// [`Error::GroupSize`](crate::Error::GroupSize), [`Error::Setting`](crate::Error::Setting)), then the weights:
    /// [`Error::Empty`](crate::Error::Empty), [`Error::NotFinite`](crate::Error::NotFinite),
    /// [`Error::Axis`](crate::Error::Axis).
    fn apply(&self, weights: &dyn Weights) -> Result<QuantizedTensor>;

    /// Evenly spaced levels over the range of the weights: [`Uniform`].
    fn uniform(bits: u8) -> Self
    where
        Self: Sized,
        Uniform: Is<Self>,
    {
        Uniform::new(bits).is()
    }
}
