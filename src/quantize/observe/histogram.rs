//! The whole distribution, in bounded memory.

use super::Observer;
use crate::{
    error::{Error, Result},
    kernels::{ends::Ends, histogram},
    quantize::{Affine, Uniform, range::Sample},
    tensor::{Dense, Granularity, Weights},
};

/// Counts numbers in bins whose width is a power of two and doubles whenever a larger magnitude is seen.
///
/// Since bins only ever merge in pairs, the counts depend on the numbers alone: not on how they were cut into batches, nor
/// on the order, and merging two histograms is exact. Memory is the bins', 64 KiB by default.
///
/// | setting | default | range |
/// |---|---|---|
/// | bins ([`with_bins`](Histogram::with_bins)) | 8,192: from 2,048 to 4,096 over the magnitudes seen | a power of two from 256 to 2^20 |
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    bins: usize,
    /// A bin is 2^exponent wide; bin `i` starts at `(i - bins / 2) * 2^exponent`.
    exponent: i32,
    counts: Vec<u64>,
    ends: Option<(f32, f32)>,
}

/// The finest width: below the smallest subnormal there is nothing to tell apart.
const FINEST: i32 = -149;

impl Histogram {
    /// With 8,192 bins.
    #[allow(clippy::new_without_default)] // as its siblings
    pub fn new() -> Self {
        Histogram::with_bins(1 << 13)
    }

    /// With so many bins, over both signs.
    pub fn with_bins(bins: usize) -> Self {
        Histogram { bins, exponent: FINEST, counts: Vec::new(), ends: None }
    }

    /// The least and the largest number seen, if any.
    pub fn ends(&self) -> Option<(f32, f32)> {
        self.ends
    }

    /// How many numbers were seen.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Takes in what another saw; the order does not matter.
    ///
    /// # Errors
    /// [`Error::Setting`] if the number of bins differs.
    pub fn merge(&mut self, other: &Histogram) -> Result<()> {
        self.valid()?;
        if self.bins != other.bins {
            let (value, bound) = (other.bins as f64, "the same in both histograms");
            return Err(Error::Setting { setting: "bins", value, bound });
        }
        let Some(ends) = other.ends else { return Ok(()) };
        let mut other = other.clone();
        self.widen_to(other.exponent.max(self.exponent));
        other.widen_to(self.exponent);
        self.counts.iter_mut().zip(other.counts).for_each(|(own, other)| *own += other);
        self.join_ends(ends);
        Ok(())
    }

    fn valid(&self) -> Result<()> {
        if self.bins.is_power_of_two() && (256..=1 << 20).contains(&self.bins) {
            return Ok(());
        }
        let bound = "a power of two from 256 to 2^20";
        Err(Error::Setting { setting: "bins", value: self.bins as f64, bound })
    }

    fn join_ends(&mut self, (min, max): (f32, f32)) {
        self.ends = Some(self.ends.map_or((min, max), |(low, high)| (low.min(min), high.max(max))));
    }

    /// Merges neighbouring bins until they are 2^exponent wide.
    fn widen_to(&mut self, exponent: i32) {
        self.counts.resize(self.bins, 0);
        let half = self.bins as isize / 2;
        while self.exponent < exponent {
            let mut merged = vec![0; self.bins];
            for (i, count) in self.counts.iter().enumerate() {
                // Numbered from zero, so that halving rounds towards minus infinity on both sides.
                merged[((i as isize - half).div_euclid(2) + half) as usize] += count;
            }
            self.counts = merged;
            self.exponent += 1;
        }
    }

    /// The centres of the occupied bins, kept within the ends, and their counts.
    fn occupied(&self) -> (Vec<f32>, Vec<f32>) {
        let (min, max) = self.ends.unwrap_or((0.0, 0.0));
        let (half, width) = (self.bins as f64 / 2.0, 2f64.powi(self.exponent));
        let bins = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        bins.map(|(i, count)| ((((i as f64 - half + 0.5) * width) as f32).clamp(min, max), *count as f32)).unzip()
    }
}

impl Observer for Histogram {
    fn observe(&mut self, batch: &dyn Weights) -> Result<()> {
        self.valid()?;
        let batch = Dense::unchecked("the batch", batch)?;
        let values = batch.values();
        let ends = Ends::of(values);
        if !ends.are_finite() {
            return batch.check_finite();
        }
        let (min, max) = ends.or_zero();
        let half = self.bins as f64 / 2.0;
        let largest = f64::from(min.abs().max(max.abs()));
        let mut exponent = self.exponent;
        // The largest magnitude must fall below the last edge, since that edge belongs to no bin.
        while largest >= half * 2f64.powi(exponent) {
            exponent += 1;
        }
        self.widen_to(exponent);
        histogram::count(values, self.exponent, &mut self.counts);
        self.join_ends((min, max));
        Ok(())
    }

    fn fit(&self, scheme: &Uniform) -> Result<Affine> {
        let rule = scheme.rule()?;
        let Some((min, max)) = self.ends else { return Err(Error::Empty { what: "the observer" }) };
        let (centres, counts) = self.occupied();
        let sample = Sample::new(&centres, Some(&counts)).of_bins(min, max, self.count());
        let (min, max) = scheme.range_chooser().choose(&sample, rule)?;
        let step = rule.step(min, max)?;
        let grid = Affine::new(vec![step.scale], vec![step.zero], Granularity::Tensor, rule.codes)?;
        Ok(grid.convention(rule.convention))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array1;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn batches_and_order_do_not_matter(
            values in prop::collection::vec(-1e6f32..1e6, 1..200),
            scale in prop::sample::select(vec![1f32, 1e-30, 1e-42, 1e30]),
            cut in 0usize..200,
        ) {
            let values: Vec<f32> = values.into_iter().map(|x| x * scale).collect();
            let (head, tail) = values.split_at(cut.min(values.len()));
            let seen = |parts: &[&[f32]]| {
                let mut histogram = Histogram::with_bins(256);
                for part in parts.iter().filter(|part| !part.is_empty()) {
                    histogram.observe(&Array1::from(part.to_vec())).unwrap();
                }
                histogram
            };
            let whole = seen(&[&values]);
            prop_assert_eq!(whole.count(), values.len() as u64);
            prop_assert_eq!(&seen(&[head, tail]), &whole);
            prop_assert_eq!(&seen(&[tail, head]), &whole);
            let mut merged = seen(&[tail]);
            merged.merge(&seen(&[head])).unwrap();
            prop_assert_eq!(&merged, &whole);
        }
    }
}
