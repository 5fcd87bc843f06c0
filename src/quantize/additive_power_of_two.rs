//! Levels that are sums of shifts (APoT).

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

/// Levels `±γ (p_0 + p_1 + ..)`, each term a power of two or 0: shifts and additions, spaced more evenly than powers of
/// two alone.
///
/// Made by [`Quantizer::additive_power_of_two`](crate::Quantizer::additive_power_of_two). One bit is the sign; the other
/// `bits - 1` make `n` terms of 2 bits,
///
/// ```text
/// p_i ∈ {0, 2^-i, 2^-(i + n), 2^-(i + 2n)},  i = 0 .. n - 1.
/// ```
///
/// An odd bit left over makes a further term, 0 or one power of two, whose exponent comes before the last round of
/// exponents of the others (as in the authors' code for 4 bits: `{0, 1, 1/2, 1/8} + {0, 1/4}`). No exponent occurs twice,
/// so all `2^bits - 1` levels differ. Stored as the table of sums and one scale `γ` a group. Every number takes its
/// nearest level, the lower of two. A group of zeros gets `γ = 1`.
///
/// By default `γ` is the one of least squared error, weighted by the [importance](crate::tensor::Weighted), that a search
/// finds (a grid in quarter octaves, then steps of least squares). [`absmax`](Self::absmax) takes
/// `γ = max|w| / Σ max p_i`.
///
/// | setting | default | range |
/// |---|---|---|
/// | `bits` | | 2 to 8 |
/// | [`granularity`](Self::granularity) | `Tensor` | tensor, channel, group of 1 or more |
/// | [`absmax`](Self::absmax) | least squared error | the highest level is the largest magnitude |
///
/// # Source
/// Li, Dong and Wang 2020 (*Additive Powers-of-Two Quantization*), with their base of 2 bits a term.
///
/// ```
/// use tersor::Quantizer;
///
/// let weights = ndarray::array![1.0_f32, -0.6, 0.25, 0.0];
/// let q = Quantizer::additive_power_of_two(4).absmax().apply(&weights)?;
/// assert_eq!(q.dequantize()[0], 1.0);
/// assert!((q.dequantize()[1] + 0.6).abs() < 1e-6); // 0.6 = 3/4 of 4/5
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct AdditivePowerOfTwo {
    bits: u8,
    granularity: Granularity,
    absmax: bool,
}

impl fmt::Debug for AdditivePowerOfTwo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scheme(
            f,
            format_args!("additive_power_of_two({})", self.bits),
            (self.granularity, Granularity::Tensor),
            &[(self.absmax, "absmax")],
        )
    }
}

impl AdditivePowerOfTwo {
    /// One scale for the tensor.
    pub fn new(bits: u8) -> AdditivePowerOfTwo {
        AdditivePowerOfTwo { bits, granularity: Granularity::Tensor, absmax: false }
    }

    granularity_builders!();

    /// Makes the highest level of each group its largest magnitude.
    #[must_use]
    pub fn absmax(mut self) -> AdditivePowerOfTwo {
        self.absmax = true;
        self
    }
}

impl Quantizer for AdditivePowerOfTwo {
    fn apply(&self, weights: &dyn Weights) -> Result<QuantizedTensor> {
        codebook::check("Quantizer::additive_power_of_two", self.bits, (2..=8, "2 to 8"), self.granularity)?;
        let sums = sums(self.bits - 1);
        let table = codebook::mirrored(&sums[1..]);
        codebook::scaled(&Dense::new(weights)?, self.bits, self.granularity, table.clone(), |group| {
            let largest = group.largest_magnitude();
            let scale = match largest {
                0.0 => 1.0,
                _ if self.absmax => f64::from(largest) / f64::from(table[table.len() - 1]),
                _ => codebook::best_scale(&Points::new(&group.sample(), BINS), &table, largest),
            };
            Scaled::nearest(scale, &table, self.bits)
        })
    }
}

/// All sums of one entry of every term, for magnitudes of so many bits; ascending from 0.
fn sums(bits: u8) -> Vec<f32> {
    const ROUNDS: usize = 3; // the powers of two of a term of 2 bits
    let mut powers = std::iter::successors(Some(1.0f32), |power| Some(power / 2.0));
    let mut terms = vec![vec![0.0]; usize::from(bits / 2)];
    let mut odd = vec![0.0];
    for round in 0..ROUNDS {
        if round == ROUNDS - 1 && bits % 2 == 1 {
            odd.extend(powers.next());
        }
        terms.iter_mut().for_each(|term| term.extend(powers.next()));
    }
    terms.push(odd);
    let mut sums = vec![0.0];
    for term in terms {
        sums = term.iter().flat_map(|power| sums.iter().map(move |sum| sum + power)).collect();
    }
    sums.sort_by(f32::total_cmp);
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_are_those_of_the_paper() {
        assert_eq!(sums(2), [0.0, 0.25, 0.5, 1.0]);
        assert_eq!(sums(3), [0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 1.25]);
        // Two terms of 2 bits: {0, 32, 8, 2} + {0, 16, 4, 1}, in 32nds.
        let expected = [0, 1, 2, 3, 4, 6, 8, 9, 12, 16, 18, 24, 32, 33, 36, 48].map(|n: u8| f32::from(n) / 32.0);
        assert_eq!(sums(4), expected);
    }

    #[test]
    fn no_two_sums_are_equal() {
        for bits in 1..=7 {
            let sums = sums(bits);
            assert_eq!(sums.len(), 1 << bits);
            assert!(sums.windows(2).all(|pair| pair[0] < pair[1]), "{bits}");
        }
    }
}
