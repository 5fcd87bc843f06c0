//! Three levels: minus, nothing, plus.

use std::fmt;

use super::{
    Quantizer,
    codebook::{self, Group, Scaled, granularity_builders},
    written::write_scheme,
};
use crate::{
    error::Result,
    tensor::{Dense, Granularity, QuantizedTensor, Weights},
};

/// Levels `-α, 0, α`, in codes of 2 bits.
///
/// Made by [`Quantizer::ternary`](crate::Quantizer::ternary). By default `α` is the exact optimum of the squared error,
/// weighted by the [importance](crate::tensor::Weighted): if the k largest magnitudes go to `±α`, the best `α` is their
/// mean, and it lowers the error by `(Σ w|x|)² / Σ w`; the k that lowers it most is found over the sorted magnitudes.
/// Every number then takes its nearest level, the lower of two.
///
/// [`twn`](Self::twn) is the rule of thumb of ternary weight networks: `δ = 0.7 mean|w|`, `α` the mean of the magnitudes
/// above `δ`, and a number is 0 exactly if its magnitude is at most `δ`. On normal numbers its squared error is 0.1916,
/// the optimum's 0.1902.
///
/// Stored as the table `-1, 0, 1` and one scale `α` a group; a group of zeros gets the scale 1.
///
/// | setting | default | range |
/// |---|---|---|
/// | [`granularity`](Self::granularity) | `Tensor` | tensor, channel, group of 1 or more |
/// | [`twn`](Self::twn) | least squared error | `δ = 0.7 mean|w|` |
///
/// # Source
/// Li, Zhang and Liu 2016 (*Ternary Weight Networks*), whose objective the default solves.
///
/// ```
/// use tersor::Quantizer;
///
/// let weights = ndarray::array![1.0_f32, -1.0, 0.1, -0.2, 0.0];
/// let q = Quantizer::ternary().apply(&weights)?;
/// assert_eq!(q.dequantize().into_raw_vec_and_offset().0, [1.0, -1.0, 0.0, 0.0, 0.0]);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Default, PartialEq)]
pub struct Ternary {
    granularity: Granularity,
    twn: bool,
}

impl fmt::Debug for Ternary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scheme(f, format_args!("ternary()"), (self.granularity, Granularity::Tensor), &[(self.twn, "twn")])
    }
}

const BITS: u8 = 2;
const TABLE: [f32; 3] = [-1.0, 0.0, 1.0];

impl Ternary {
    /// One scale for the tensor, of least squared error.
    pub fn new() -> Ternary {
        Ternary::default()
    }

    granularity_builders!();

    /// Takes the threshold `0.7 mean|w|` of ternary weight networks.
    #[must_use]
    pub fn twn(mut self) -> Ternary {
        self.twn = true;
        self
    }
}

impl Quantizer for Ternary {
    fn apply(&self, weights: &dyn Weights) -> Result<QuantizedTensor> {
        codebook::check("Quantizer::ternary", BITS, (BITS..=BITS, "2"), self.granularity)?;
        codebook::scaled(&Dense::new(weights)?, BITS, self.granularity, TABLE.to_vec(), |group| {
            match group.largest_magnitude() {
                0.0 => Scaled::nearest(1.0, &TABLE, BITS),
                _ if self.twn => by_rule(group),
                _ => Scaled::nearest(optimum(group), &TABLE, BITS),
            }
        })
    }
}

fn by_rule(group: &Group<'_>) -> Scaled {
    let threshold = codebook::narrow(0.7 * group.mean(f64::abs));
    let above = |x: f64| x.abs() > f64::from(threshold);
    let share = group.mean(|x| f64::from(u8::from(above(x))));
    // Where nothing of weight is above the threshold, nothing of weight is there at all.
    let scale = if share > 0.0 { group.mean(|x| if above(x) { x.abs() } else { 0.0 }) / share } else { 1.0 };
    Scaled::with_cuts(scale, &[(-threshold).next_down(), threshold], BITS)
}

/// The α of least squared error.
fn optimum(group: &Group<'_>) -> f64 {
    let magnitudes = group.magnitudes();
    let (mut weight, mut sum) = (0.0, 0.0);
    let (mut gain, mut scale) = (0.0, 1.0);
    for (x, w) in magnitudes.pairs(0..magnitudes.len()).rev() {
        weight += w;
        sum += w * x;
        if sum * (sum / weight) > gain {
            (gain, scale) = (sum * (sum / weight), sum / weight);
        }
    }
    scale
}
