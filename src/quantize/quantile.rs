//! Levels where equal shares of the numbers are.

use std::fmt;

use std::ops::Range;

use super::{
    Quantizer,
    codebook::{self, granularity_builders},
    sample::Sample,
    written::write_scheme,
};
use crate::{
    error::Result,
    tensor::{Dense, Granularity, QuantizedTensor, Weights},
};

/// Levels at equal shares of the cumulative distribution: sorted numbers are cut into `2^bits` cells of equal weight, and
/// each level is the mean of its cell.
///
/// Made by [`Quantizer::quantile`](crate::Quantizer::quantile). Every code is used about equally often, so the codes
/// carry the most information that their bits can; the squared error is not the least (see
/// [`KMeans`](super::KMeans)). The weight of a number is its [importance](crate::tensor::Weighted), 1 where none is
/// given.
///
/// Equal numbers are never torn apart: a cut goes to the nearest change of value. A number more frequent than a cell
/// (the zeros of a pruned tensor) takes one cell, and the other cells share what is left, as if it were only so heavy.
/// Levels ascend strictly, and are fewer than `2^bits` where there are fewer distinct numbers, or where a cut is lost to
/// ties. At the end every number takes its nearest level, the lower of two.
///
/// | setting | default | range |
/// |---|---|---|
/// | `bits` | | 1 to 8 |
/// | [`granularity`](Self::granularity) | `Tensor` | tensor, channel, group of 1 or more |
/// | [`median`](Self::median) | the mean | the median of each cell |
///
/// # Sources
/// Dettmers et al. 2022 (*8-bit Optimizers via Block-wise Quantization*), who call it quantile quantization; the equal
/// cells are those of entropy-maximal quantizers, Messerschmitt 1971.
///
/// ```
/// use tersor::Quantizer;
///
/// let weights = ndarray::array![0.0_f32, 1.0, 3.0, 4.0, 10.0, 20.0, 40.0, 80.0];
/// let q = Quantizer::quantile(2).apply(&weights)?;
/// assert_eq!(q.dequantize().into_raw_vec_and_offset().0, [0.5, 0.5, 3.5, 3.5, 15.0, 15.0, 60.0, 60.0]);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Quantile {
    bits: u8,
    granularity: Granularity,
    median: bool,
}

impl fmt::Debug for Quantile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scheme(
            f,
            format_args!("quantile({})", self.bits),
            (self.granularity, Granularity::Tensor),
            &[(self.median, "median")],
        )
    }
}

impl Quantile {
    /// One table of `2^bits` levels for the tensor.
    pub fn new(bits: u8) -> Quantile {
        Quantile { bits, granularity: Granularity::Tensor, median: false }
    }

    granularity_builders!();

    /// Takes the median of each cell as its level: the least absolute error for these cells.
    #[must_use]
    pub fn median(mut self) -> Quantile {
        self.median = true;
        self
    }
}

impl Quantizer for Quantile {
    fn apply(&self, weights: &dyn Weights) -> Result<QuantizedTensor> {
        codebook::check("Quantizer::quantile", self.bits, (1..=8, "1 to 8"), self.granularity)?;
        codebook::free(&Dense::new(weights)?, self.bits, self.granularity, |group, k| {
            let sample = group.sample();
            let level = |cell| if self.median { sample.median(cell) } else { sample.mean(cell) };
            let cells = |k| equal_cells(&sample, k).into_iter().map(|cell| codebook::narrow(level(cell))).collect();
            sample.distinct(k).unwrap_or_else(|| cells(k))
        })
    }
}

/// At most k cells of about equal weight, ascending, for more than k distinct numbers.
fn equal_cells(sample: &Sample, k: usize) -> Vec<Range<usize>> {
    let share = share(sample, k);
    let mut cuts = vec![0]; // number i is where i shares lie below
    let mut below = 0.0;
    for (run, weight) in sample.runs() {
        let above = below + weight.min(share);
        while cuts.len() < k && cuts.len() as f64 * share <= above {
            let line = cuts.len() as f64 * share;
            cuts.push(if above - line <= line - below { run.end } else { run.start });
        }
        below = above;
    }
    cuts.push(sample.len());
    cuts.dedup();
    cuts.windows(2).map(|cut| cut[0]..cut[1]).collect()
}

/// The weight of a cell such that k cells hold all numbers, none counted as heavier than a cell.
fn share(sample: &Sample, k: usize) -> f64 {
    let (mut heavy, mut share) = (0, f64::INFINITY);
    loop {
        let (mut above, mut light) = (0, 0.0);
        for (_, weight) in sample.runs() {
            if weight > share { above += 1 } else { light += weight }
        }
        if share.is_finite() && above == heavy {
            return share;
        }
        // Each number found heavy outweighs a share, so fewer than k are, and the share falls.
        (heavy, share) = (above, light / (k - above) as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_equal_where_nothing_ties() {
        let sample = Sample::new((0..64).map(|i| (i * i) as f32), None);
        assert!(equal_cells(&sample, 8).iter().all(|cell| cell.len() == 8));
    }

    #[test]
    fn a_frequent_number_takes_one_cell_and_the_rest_share_the_others() {
        let values = (0..900).map(|_| 0.0).chain((1..=50).flat_map(|i| [i as f32, -(i as f32)]));
        let sample = Sample::new(values, None);
        let cells = equal_cells(&sample, 16);
        // Without that, 14 of the 16 cells would hold zeros alone.
        assert_eq!(cells.iter().filter(|cell| cell.len() <= 7).count(), 15, "{cells:?}");
    }
}
