//! Schemes that give a tensor fewer bits.

mod adaptive;
mod additive_power_of_two;
mod affine;
mod binary;
mod codebook;
mod convention;
mod entropy;
mod fake;
mod fit;
mod kmeans;
mod nf4;
pub mod observe;
mod passes;
mod piecewise;
mod power_of_two;
mod quantile;
mod range;
mod sample;
mod ternary;
mod uniform;
mod written;

pub use adaptive::{Adaptive, Candidate, Choice};
pub use additive_power_of_two::AdditivePowerOfTwo;
pub use affine::{Affine, CodeRange};
pub use binary::Binary;
pub use convention::{Convention, Quotient, Rounding, SymmetricScale, UnsignedZero, ZeroInRange, ZeroPointAdded};
pub use fake::LearnedStep;
pub use kmeans::{Clusters, KMeans, kmeans_1d};
pub use nf4::Nf4;
pub use piecewise::Piecewise;
pub use power_of_two::PowerOfTwo;
pub use quantile::Quantile;
pub use range::Range;
pub use ternary::Ternary;
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
///
/// ```
/// use tersor::{PackedWeights, QuantizedTensor, Quantizer, Weights, tensor::{Codes, Granularity, Grid}};
///
/// /// The sign of every weight, times the largest magnitude.
/// #[derive(Debug)]
/// struct Sign;
///
/// impl Quantizer for Sign {
///     fn apply(&self, weights: &dyn Weights) -> tersor::Result<QuantizedTensor> {
///         let w = weights.values(); // of any layout: iterate, which is row-major
///         let codes: Vec<u8> = w.iter().map(|x| u8::from(*x >= 0.0)).collect();
///         let largest = w.iter().fold(f32::MIN_POSITIVE, |largest, x| largest.max(x.abs()));
///         let levels = ndarray::array![[-1.0, 1.0]];
///         let grid = Grid::Codebook { levels, scale: vec![largest], granularity: Granularity::Tensor };
///         QuantizedTensor::new(w.shape(), Codes::pack(1, &codes)?, grid)
///     }
/// }
///
/// let q = Sign.apply(&ndarray::array![[0.5_f32, -2.0], [1.0, -0.1]])?;
/// assert_eq!(q.dequantize(), ndarray::array![[2.0, -2.0], [2.0, -2.0]].into_dyn());
/// assert_eq!(PackedWeights::new(&q)?.matmul(&ndarray::array![[1.0, 1.0]])?, ndarray::array![[0.0, 0.0]]);
/// # Ok::<(), tersor::Error>(())
/// ```
pub trait Quantizer: Debug + Send + Sync {
    /// Quantizes weights: any float array or view, of any rank and layout, or [`Weighted`](crate::tensor::Weighted).
    ///
    /// What a [`Pruner`](crate::Pruner) removed ([`Weights::mask`]) comes back as exactly 0, and levels are fitted to the
    /// survivors. A scheme without a level at zero refuses such weights. Free levels ([`KMeans`], [`Quantile`]) are one
    /// fewer in a group with removed elements, and that one is 0.
    ///
    /// # Errors
    /// The settings are validated first ([`Error::Bits`](crate::Error::Bits),
    /// [`Error::GroupSize`](crate::Error::GroupSize), [`Error::Setting`](crate::Error::Setting)), then the weights:
    /// [`Error::Empty`](crate::Error::Empty), [`Error::NotFinite`](crate::Error::NotFinite),
    /// [`Error::Axis`](crate::Error::Axis). [`Error::Conflict`](crate::Error::Conflict) where the grid has no zero for
    /// what was removed.
    fn apply(&self, weights: &dyn Weights) -> Result<QuantizedTensor>;

    /// As [`apply`](Quantizer::apply), with the scheme in words: its `Debug` text, unless it chooses among others and
    /// has more to tell. Recipes and reports ask for it.
    ///
    /// # Errors
    /// As [`apply`](Quantizer::apply).
    fn apply_described(&self, weights: &dyn Weights) -> Result<(QuantizedTensor, String)> {
        Ok((self.apply(weights)?, format!("{self:?}")))
    }

    /// [`Uniform`]: evenly spaced levels over the range of the weights, 1 to 8 or 16 bits.
    fn uniform(bits: u8) -> Self
    where
        Self: Sized,
        Uniform: Is<Self>,
    {
        Uniform::new(bits).is()
    }

    /// [`Adaptive`]: whichever scheme, clip and granularity leaves the least error at that cost, 1 to 8 bits.
    fn adaptive(bits: u8) -> Self
    where
        Self: Sized,
        Adaptive: Is<Self>,
    {
        Adaptive::new(bits).is()
    }

    /// [`KMeans`]: `2^bits` free levels of least squared error, 1 to 8 bits.
    fn kmeans(bits: u8) -> Self
    where
        Self: Sized,
        KMeans: Is<Self>,
    {
        KMeans::new(bits).is()
    }

    /// [`Quantile`]: `2^bits` levels, each for an equal share of the numbers, 1 to 8 bits.
    fn quantile(bits: u8) -> Self
    where
        Self: Sized,
        Quantile: Is<Self>,
    {
        Quantile::new(bits).is()
    }

    /// [`Piecewise`]: steps of their own for the middle and the tails, 2 to 8 bits.
    fn piecewise(bits: u8) -> Self
    where
        Self: Sized,
        Piecewise: Is<Self>,
    {
        Piecewise::new(bits).is()
    }

    /// [`PowerOfTwo`]: shifts, 2 to 8 bits.
    fn power_of_two(bits: u8) -> Self
    where
        Self: Sized,
        PowerOfTwo: Is<Self>,
    {
        PowerOfTwo::new(bits).is()
    }

    /// [`AdditivePowerOfTwo`]: sums of shifts, 2 to 8 bits.
    fn additive_power_of_two(bits: u8) -> Self
    where
        Self: Sized,
        AdditivePowerOfTwo: Is<Self>,
    {
        AdditivePowerOfTwo::new(bits).is()
    }

    /// [`Nf4`]: 4 bits, the quantiles of the normal distribution.
    fn nf4() -> Self
    where
        Self: Sized,
        Nf4: Is<Self>,
    {
        Nf4::new().is()
    }

    /// [`Ternary`]: minus, zero, plus, in 2 bits.
    fn ternary() -> Self
    where
        Self: Sized,
        Ternary: Is<Self>,
    {
        Ternary::new().is()
    }

    /// [`Binary`]: the sign, in 1 bit.
    fn binary() -> Self
    where
        Self: Sized,
        Binary: Is<Self>,
    {
        Binary::new().is()
    }
}
