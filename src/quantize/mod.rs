//! Schemes that give a tensor fewer bits.

use std::fmt::Debug;

use crate::{
    error::Result,
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
}
