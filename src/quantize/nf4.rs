//! Sixteen levels for normal numbers.

use std::fmt;

use super::{
    Quantizer,
    codebook::{self, Scaled, granularity_builders},
    written::write_scheme,
};
use crate::{
    error::Result,
    tensor::{Dense, Granularity, QuantizedTensor, Weights},
};

/// 4 bits: quantiles of the normal distribution, scaled to the largest magnitude of each group (NormalFloat).
///
/// Made by [`Quantizer::nf4`](crate::Quantizer::nf4). The scale is `max|w|`. With `δ = 0.9677083` and `Φ⁻¹` the normal
/// quantile function, the table is `0`, the 8 numbers `Φ⁻¹(linspace(δ, 1/2, 9))` and the 7 numbers
/// `-Φ⁻¹(linspace(δ, 1/2, 8))`, both without their last, all over the largest; so `-1`, `0` and `1` are levels. Every
/// number takes its nearest level `scale * table`, the lower of two. A group of zeros gets the scale 1. Importance has no
/// say.
///
/// | setting | default | range |
/// |---|---|---|
/// | [`granularity`](Self::granularity) | `Group(64)` | tensor, channel, group of 1 or more |
///
/// # Source
/// Dettmers et al. 2023 (*QLoRA*). Their code cuts blocks from the flattened tensor, ours along the last axis: the same
/// where 64 divides it. The scales stay `f32` (no double quantization): 4.5 bits a weight.
///
/// ```
/// use tersor::Quantizer;
///
/// let weights = ndarray::array![[0.5_f32, -0.5, 0.0, 0.04]];
/// let q = Quantizer::nf4().apply(&weights)?;
/// assert_eq!(q.integers().into_raw_vec_and_offset().0, [15, 0, 7, 8]);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Nf4 {
    granularity: Granularity,
}

impl fmt::Debug for Nf4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scheme(f, format_args!("nf4()"), (self.granularity, Granularity::Group(64)), &[])
    }
}

const BITS: u8 = 4;

/// The levels of the authors' implementation, which are `f32`: every digit of them.
const LEVELS: [f64; 16] = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
];

impl Nf4 {
    /// One scale for each 64 elements.
    pub fn new() -> Nf4 {
        Nf4 { granularity: Granularity::Group(64) }
    }

    granularity_builders!();
}

impl Default for Nf4 {
    fn default() -> Nf4 {
        Nf4::new()
    }
}

impl Quantizer for Nf4 {
    fn apply(&self, weights: &dyn Weights) -> Result<QuantizedTensor> {
        codebook::check("Quantizer::nf4", BITS, (BITS..=BITS, "4"), self.granularity)?;
        let table = LEVELS.map(|level| level as f32);
        codebook::scaled(&Dense::new(weights)?, BITS, self.granularity, table.to_vec(), |group| {
            let largest = group.largest_magnitude();
            let scale = if largest == 0.0 { 1.0 } else { largest.into() };
            Scaled::nearest(scale, &table, BITS)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By Newton's method on the distribution function.
    fn normal_quantile(p: f64) -> f64 {
        let mut x = 0.0;
        for _ in 0..50 {
            let below = 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2);
            let density = libm::exp(-x * x / 2.0) / (2.0 * std::f64::consts::PI).sqrt();
            x += (p - below) / density;
        }
        x
    }

    #[test]
    fn the_table_follows_from_the_normal_quantiles() {
        const DELTA: f64 = 0.9677083;
        let side = |n: u32| (0..n).map(move |i| normal_quantile(DELTA - f64::from(i) * (DELTA - 0.5) / f64::from(n)));
        let mut expected: Vec<f64> = side(8).chain([0.0]).chain(side(7).map(|x| -x)).collect();
        expected.sort_by(f64::total_cmp);
        let largest = normal_quantile(DELTA);
        for (level, expected) in LEVELS.iter().zip(expected) {
            assert!((level - expected / largest).abs() < 1e-6, "{level} {}", expected / largest);
            assert_eq!(f64::from(*level as f32), *level);
        }
    }
}
