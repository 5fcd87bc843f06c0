//! Levels that are shifts.

use std::fmt;

use super::{
    Quantizer,
    codebook::{self, Scaled, granularity_builders},
    sample::{BINS, Points},
    written::write_scheme,
};
use crate::{
    error::Result,
    tensor::{Dense, Granularity, QuantizedTensor, Weights},
};

/// Levels `0` and `±2^e` for the `2^(bits-1) - 1` exponents `top, top - 1, ..`: a product with a weight is a shift.
///
/// Made by [`Quantizer::power_of_two`](crate::Quantizer::power_of_two). Stored as the table `0, ±1, ±1/2, ±1/4, ..`, and
/// one scale `2^top` a group (a power of two as well). Every number takes its nearest level in the linear domain, the
/// lower of two. A group of zeros gets the scale 1.
///
/// The largest `top` that makes sense is `floor(log2(4/3 max|w|))`, the power of two nearest to the largest magnitude
/// (INQ's rule). By default `top` is the one of least squared error, weighted by the
/// [importance](crate::tensor::Weighted), among this and the 15 below it: giving up the outliers buys finer small levels.
///
/// | setting | default | range |
/// |---|---|---|
/// | `bits` | | 2 to 8 |
/// | [`granularity`](Self::granularity) | `Tensor` | tensor, channel, group of 1 or more |
/// | [`absmax`](Self::absmax) | least squared error | `top` from the largest magnitude |
/// | [`float_scale`](Self::float_scale) | `2^top` | any scale: no longer pure shifts |
///
/// # Sources
/// Miyashita, Lee and Murmann 2016; Zhou et al. 2017 (*Incremental Network Quantization*), whose code spends a bit on
/// zero and so has `2^(bits-2)` exponents.
///
/// ```
/// use tersor::Quantizer;
///
/// let weights = ndarray::array![0.9_f32, -0.45, 0.26, 0.05];
/// let q = Quantizer::power_of_two(3).apply(&weights)?;
/// assert_eq!(q.dequantize().into_raw_vec_and_offset().0, [1.0, -0.5, 0.25, 0.0]);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct PowerOfTwo {
    bits: u8,
    granularity: Granularity,
    absmax: bool,
    float_scale: bool,
}

impl fmt::Debug for PowerOfTwo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = [(self.absmax, "absmax"), (self.float_scale, "float_scale")];
        write_scheme(f, format_args!("power_of_two({})", self.bits), (self.granularity, Granularity::Tensor), &options)
    }
}

impl PowerOfTwo {
    /// One scale for the tensor, itself a power of two.
    pub fn new(bits: u8) -> PowerOfTwo {
        PowerOfTwo { bits, granularity: Granularity::Tensor, absmax: false, float_scale: false }
    }

    granularity_builders!();

    /// Takes the highest level from the largest magnitude: the nearest power of two, or with
    /// [`float_scale`](Self::float_scale) the magnitude itself.
    #[must_use]
    pub fn absmax(mut self) -> PowerOfTwo {
        self.absmax = true;
        self
    }

    /// Multiplies the powers of two by any number, by default that of least squared error.
    #[must_use]
    pub fn float_scale(mut self) -> PowerOfTwo {
        self.float_scale = true;
        self
    }

    fn scale(&self, group: &codebook::Group<'_>, table: &[f32]) -> f64 {
        let largest = group.largest_magnitude();
        let points = || Points::new(&group.sample(), BINS);
        match (self.float_scale, self.absmax) {
            _ if largest == 0.0 => 1.0,
            (true, true) => largest.into(),
            (true, false) => codebook::best_scale(&points(), table, largest),
            (false, true) => power(nearest_exponent(largest)),
            (false, false) => best_power(&points(), table, nearest_exponent(largest)),
        }
    }
}

impl Quantizer for PowerOfTwo {
    fn apply(&self, weights: &dyn Weights) -> Result<QuantizedTensor> {
        codebook::check("Quantizer::power_of_two", self.bits, (2..=8, "2 to 8"), self.granularity)?;
        let exponents = (1 << (self.bits - 1)) - 1;
        let magnitudes: Vec<f32> = (0..exponents).rev().map(|e| power(-e) as f32).collect();
        let table = codebook::mirrored(&magnitudes);
        codebook::scaled(&Dense::new(weights)?, self.bits, self.granularity, table.clone(), |group| {
            Scaled::nearest(self.scale(group, &table), &table, self.bits)
        })
    }
}

/// The exponents of all powers of two in `f32`, subnormal ones included.
const EXPONENTS: std::ops::RangeInclusive<i32> = -149..=127;

fn power(exponent: i32) -> f64 {
    2f64.powi(exponent)
}

/// The exponent of the power of two nearest to a magnitude above 0, that is `floor(log2(4/3 x))`.
fn nearest_exponent(x: f32) -> i32 {
    // The exponent field of an f64, which is normal for every f32.
    let field = (4.0 * f64::from(x) / 3.0).to_bits() >> 52;
    (field as i32 - 1023).clamp(*EXPONENTS.start(), *EXPONENTS.end())
}

fn best_power(points: &Points, table: &[f32], highest: i32) -> f64 {
    const TRIED: i32 = 16;
    let error = |scale: f64| points.error(0..points.len(), table.iter().map(|level| scale * f64::from(*level)));
    let tried = (0..TRIED).map(|down| highest - down).filter(|exponent| EXPONENTS.contains(exponent));
    let scored = tried.map(|exponent| (error(power(exponent)), power(exponent)));
    scored.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(power(highest), |(_, scale)| scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_power_of_two_changes_at_three_quarters() {
        let cases = [(1.0, 0), (1.5, 1), (1.4999, 0), (0.75, 0), (0.7499, -1), (3e38, 127), (1e-45, -149), (6.0, 3)];
        for (x, exponent) in cases {
            assert_eq!(nearest_exponent(x), exponent, "{x}");
        }
    }
}
