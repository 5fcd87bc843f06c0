//! Two levels: the sign.

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

/// Levels `-α, α`, in codes of 1 bit: `α sign(w)` with `α = mean|w|`, which is the least squared error for signs.
///
/// Made by [`Quantizer::binary`](crate::Quantizer::binary). The sign of 0 is plus. The mean is weighted by the
/// [importance](crate::tensor::Weighted). Stored as the table `-1, 1` and one scale `α` a group. There is no level 0: a
/// group of zeros gets the smallest scale above 0, and comes back as 1.4e-45.
///
/// [`centered`](Self::centered) takes the sign of `w - μ`, with `μ = mean(w)`: the levels are `μ ± α`, with
/// `α = mean|w - μ|`, a table for each group. Every number takes its nearest level, the lower of two.
///
/// | setting | default | range |
/// |---|---|---|
/// | [`granularity`](Self::granularity) | `Tensor` | tensor, channel, group of 1 or more |
/// | [`centered`](Self::centered) | about 0 | about the mean |
///
/// # Source
/// Rastegari et al. 2016 (*XNOR-Net*).
///
/// ```
/// use tersor::Quantizer;
///
/// let weights = ndarray::array![0.5_f32, -1.5, 0.0, 2.0];
/// let q = Quantizer::binary().apply(&weights)?;
/// assert_eq!(q.dequantize().into_raw_vec_and_offset().0, [1.0, -1.0, 1.0, 1.0]);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Default, PartialEq)]
pub struct Binary {
    granularity: Granularity,
    centered: bool,
}

impl fmt::Debug for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scheme(
            f,
            format_args!("binary()"),
            (self.granularity, Granularity::Tensor),
            &[(self.centered, "centered")],
        )
    }
}

const BITS: u8 = 1;

impl Binary {
    /// One scale for the tensor, signs about 0.
    pub fn new() -> Binary {
        Binary::default()
    }

    granularity_builders!();

    /// Takes signs about the mean of each group, not about 0.
    #[must_use]
    pub fn centered(mut self) -> Binary {
        self.centered = true;
        self
    }
}

impl Quantizer for Binary {
    fn apply(&self, weights: &dyn Weights) -> Result<QuantizedTensor> {
        codebook::check("Quantizer::binary", BITS, (BITS..=BITS, "1"), self.granularity)?;
        let weights = Dense::new(weights)?;
        if self.centered {
            return codebook::free(&weights, BITS, self.granularity, |group, _| about_mean(group));
        }
        let below_zero = 0f32.next_down();
        codebook::scaled(&weights, BITS, self.granularity, vec![-1.0, 1.0], |group| {
            Scaled::with_cuts(group.mean(f64::abs), &[below_zero], BITS)
        })
    }
}

fn about_mean(group: &Group<'_>) -> Vec<f32> {
    let mean = group.mean(|x| x);
    let scale = group.mean(|x| (x - mean).abs());
    vec![codebook::narrow(mean - scale), codebook::narrow(mean + scale)]
}
