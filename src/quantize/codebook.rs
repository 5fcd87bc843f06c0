//! From levels to a tensor: every group's table is fitted, then every number gets the code of its nearest level.

use std::{borrow::Cow, ops::RangeInclusive};

use ndarray::Array2;

use super::sample::{Points, Sample};
use crate::{
    error::{Error, Result},
    kernels::{codebook, parallel},
    tensor::{Codes, Dense, Granularity, Grid, Groups, QuantizedTensor, Survivors},
};

/// Elements assigned at a time.
const PIECE: usize = 1 << 14;

/// The builder methods by which a scheme is told which elements share a table.
macro_rules! granularity_builders {
    () => {
        /// One table (or scale) for each index along `axis`; `Axis(0)` is a weight's output channel.
        #[must_use]
        pub fn per_channel(self, axis: ndarray::Axis) -> Self {
            self.granularity($crate::tensor::Granularity::Channel(axis))
        }

        /// One table (or scale) for so many consecutive elements of the last axis; 1 or more.
        #[must_use]
        pub fn per_group(self, size: usize) -> Self {
            self.granularity($crate::tensor::Granularity::Group(size))
        }

        /// Which elements share a table (or scale).
        #[must_use]
        pub fn granularity(mut self, granularity: $crate::tensor::Granularity) -> Self {
            self.granularity = granularity;
            self
        }
    };
}
pub(super) use granularity_builders;

/// Checks the settings that need no weights.
pub(super) fn check(
    scheme: &'static str,
    bits: u8,
    (range, allowed): (RangeInclusive<u8>, &'static str),
    granularity: Granularity,
) -> Result<()> {
    if !range.contains(&bits) {
        return Err(Error::Bits { bits, scheme, allowed });
    }
    match granularity {
        Granularity::Group(0) => Err(Error::GroupSize { group_size: 0 }),
        _ => Ok(()),
    }
}

/// The numbers of one group that no mask removes, and their weights.
pub(super) struct Group<'a> {
    values: Cow<'a, [f32]>,
    weights: Option<Cow<'a, [f32]>>,
    removed: usize,
}

impl<'a> Group<'a> {
    fn gather(weights: &'a Dense<'_>, groups: &Groups, index: usize) -> Group<'a> {
        let Survivors { values, importance, removed } = weights.survivors(groups, index);
        // A group whose weights are all 0 is one whose elements count alike.
        Group { values, weights: importance.filter(|importance| importance.iter().any(|w| *w > 0.0)), removed }
    }

    pub(super) fn sample(&self) -> Sample {
        Sample::new(self.values.iter().copied(), self.weights.as_deref())
    }

    pub(super) fn magnitudes(&self) -> Sample {
        Sample::new(self.values.iter().map(|x| x.abs()), self.weights.as_deref())
    }

    pub(super) fn largest_magnitude(&self) -> f32 {
        self.values.iter().fold(0.0, |largest, x| largest.max(x.abs()))
    }

    /// The weighted mean of `f` of each number.
    pub(super) fn mean(&self, f: impl Fn(f64) -> f64) -> f64 {
        let values = self.values.iter().map(|x| f(f64::from(*x)));
        match &self.weights {
            None => values.sum::<f64>() / self.values.len() as f64,
            Some(weights) => {
                let weights = || weights.iter().map(|w| f64::from(*w));
                values.zip(weights()).map(|(x, w)| w * x).sum::<f64>() / weights().sum::<f64>()
            }
        }
    }
}

/// Gives each group a table of its own: `fit` returns at most so many ascending levels, of which equal ones are merged.
/// Every number takes its nearest level, the lower of two. A group with removed elements has one level at 0, and one
/// fewer to fit.
pub(super) fn free(
    weights: &Dense<'_>,
    bits: u8,
    granularity: Granularity,
    fit: impl Fn(&Group<'_>, usize) -> Vec<f32> + Sync + Send,
) -> Result<QuantizedTensor> {
    let groups = granularity.groups(weights.shape())?;
    let fits = parallel::map(groups.count(), |index| {
        let group = Group::gather(weights, &groups, index);
        let pruned = group.removed > 0;
        let mut levels = fit(&group, (1 << bits) - usize::from(pruned));
        levels.dedup();
        if pruned && levels.len() < 1 << bits && !levels.contains(&0.0) {
            levels.insert(levels.partition_point(|level| *level < 0.0), 0.0);
        }
        let cuts = codebook::nearest_cuts(&levels, bits);
        (levels, cuts)
    });
    // Shorter tables repeat their last level; no code points there.
    let longest = fits.iter().map(|(levels, _)| levels.len()).max().unwrap_or(1);
    let levels = Array2::from_shape_fn((fits.len(), longest), |(group, level)| {
        let levels = &fits[group].0;
        levels[level.min(levels.len() - 1)]
    });
    let codes = encode(weights, &groups, bits, |group| &fits[group].1)?;
    weights.quantized(codes, Grid::Codebook { levels, scale: Vec::new(), granularity })
}

/// A group's scale, and the cuts between its levels.
pub(super) struct Scaled {
    scale: f32,
    cuts: Vec<f32>,
}

impl Scaled {
    /// Every number takes its nearest level, the lower of two. A scale that is 0 in `f32` becomes the smallest number
    /// above 0.
    pub(super) fn nearest(scale: f64, table: &[f32], bits: u8) -> Scaled {
        let scale = usable(scale);
        let levels: Vec<f32> = table.iter().map(|level| scale * level).collect();
        Scaled { scale, cuts: codebook::nearest_cuts(&levels, bits) }
    }

    /// Cuts of the scheme's own.
    pub(super) fn with_cuts(scale: f64, cuts: &[f32], bits: u8) -> Scaled {
        Scaled { scale: usable(scale), cuts: codebook::pad_cuts(cuts.iter().copied(), bits) }
    }
}

/// Gives each group a scale for the one table that all share.
pub(super) fn scaled(
    weights: &Dense<'_>,
    bits: u8,
    granularity: Granularity,
    table: Vec<f32>,
    fit: impl Fn(&Group<'_>) -> Scaled + Sync + Send,
) -> Result<QuantizedTensor> {
    let groups = granularity.groups(weights.shape())?;
    let fits = parallel::map(groups.count(), |index| fit(&Group::gather(weights, &groups, index)));
    let codes = encode(weights, &groups, bits, |group| &fits[group].cuts)?;
    let scale = fits.iter().map(|fit| fit.scale).collect();
    let levels = Array2::from_shape_fn((1, table.len()), |(_, level)| table[level]);
    weights.quantized(codes, Grid::Codebook { levels, scale, granularity })
}

fn encode<'a>(
    weights: &Dense<'_>,
    groups: &Groups,
    bits: u8,
    cuts: impl Fn(usize) -> &'a [f32] + Sync + Send,
) -> Result<Codes> {
    let values = weights.values();
    let mut codes = vec![0; values.len()];
    parallel::for_each_chunk_mut(&mut codes, PIECE, |index, codes| {
        let start = index * PIECE;
        for (group, range) in groups.segments(start..start + codes.len()) {
            let inside = range.start - start..range.end - start;
            codebook::assign(&values[range], cuts(group), &mut codes[inside]);
        }
    });
    Codes::pack(bits, &codes)
}

/// The nearest finite `f32`.
pub(super) fn narrow(x: f64) -> f32 {
    x.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32
}

fn usable(scale: f64) -> f32 {
    narrow(scale).max(f32::from_bits(1))
}

/// An ascending table symmetric about 0: each magnitude with both signs, and 0.
pub(super) fn mirrored(magnitudes: &[f32]) -> Vec<f32> {
    magnitudes.iter().rev().map(|x| -x).chain([0.0]).chain(magnitudes.iter().copied()).collect()
}

/// The scale of least squared error for a table: the best of a grid in quarter octaves, down from where the table's end
/// meets the largest magnitude, improved by least squares as long as that helps.
pub(super) fn best_scale(points: &Points, table: &[f32], largest: f32) -> f64 {
    const GRID: i32 = 40;
    const STEPS: usize = 64;
    let table: Vec<f64> = table.iter().map(|level| f64::from(*level)).collect();
    let top = f64::from(largest) / table.iter().fold(0.0, |end: f64, level| end.max(level.abs()));
    let mut scale = top;
    let (mut error, mut next) = points.scaled_error(&table, scale);
    let mut improve = |candidate: f64| {
        let found = points.scaled_error(&table, candidate);
        let better = found.0 < error;
        if better {
            scale = candidate;
            (error, next) = found;
        }
        better.then_some(next)
    };
    let start = (1..GRID).filter_map(|i| improve(top * libm::exp2(f64::from(-i) / 4.0))).last();
    let mut candidate = start.unwrap_or_else(|| points.scaled_error(&table, top).1);
    for _ in 0..STEPS {
        match improve(candidate) {
            Some(next) => candidate = next,
            None => break,
        }
    }
    scale
}
