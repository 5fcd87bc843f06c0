//! A group's numbers in order, with sums over any stretch of them: what fits of levels are made of.

use std::ops::Range;

use crate::kernels::parallel;

/// Numbers in ascending order, each with its weight, which is above 0.
pub(super) struct Sample {
    values: Vec<f32>,
    weights: Vec<f32>,
}

impl Sample {
    /// Sorts; numbers of weight 0 are left out, unless all are: then all count alike.
    pub(super) fn new(values: impl Iterator<Item = f32>, weights: Option<&[f32]>) -> Sample {
        let mut keys: Vec<u64> = match weights {
            Some(weights) if weights.iter().any(|w| *w > 0.0) => {
                values.zip(weights).filter(|(_, w)| **w > 0.0).map(|(x, w)| key(x, *w)).collect()
            }
            _ => values.map(|x| key(x, 1.0)).collect(),
        };
        parallel::sort(&mut keys);
        let (values, weights) = keys.into_iter().map(unkey).unzip();
        Sample { values, weights }
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }

    /// The largest number.
    pub(super) fn last(&self) -> f64 {
        self.values.last().copied().map_or(0.0, f64::from)
    }

    /// Every distinct number: where it stands, and the weight of all its copies.
    pub(super) fn runs(&self) -> impl Iterator<Item = (Range<usize>, f64)> + '_ {
        let mut start = 0;
        self.values.chunk_by(|a, b| a == b).map(move |run| {
            let run = start..start + run.len();
            start = run.end;
            let weight = self.weights[run.clone()].iter().map(|w| f64::from(*w)).sum();
            (run, weight)
        })
    }

    /// The distinct numbers, if there are at most so many.
    pub(super) fn distinct(&self, most: usize) -> Option<Vec<f32>> {
        let runs = self.values.chunk_by(|a, b| a == b).take(most.saturating_add(1));
        let distinct: Vec<f32> = runs.map(|run| run[0]).collect();
        (distinct.len() <= most).then_some(distinct)
    }

    /// Numbers and weights of a stretch.
    pub(super) fn pairs(&self, range: Range<usize>) -> impl DoubleEndedIterator<Item = (f64, f64)> + '_ {
        let pairs = self.values[range.clone()].iter().zip(&self.weights[range]);
        pairs.map(|(x, w)| (f64::from(*x), f64::from(*w)))
    }

    /// The mean of a stretch that is not empty; to the bit, if it holds one number only.
    pub(super) fn mean(&self, range: Range<usize>) -> f64 {
        // From its first number on, so that a narrow stretch far from zero keeps its digits.
        let first = f64::from(self.values[range.start]);
        let (sum, weight) = self.pairs(range).fold((0.0, 0.0), |(s, n), (x, w)| (s + w * (x - first), n + w));
        first + sum / weight
    }

    /// The number of a stretch at which half of its weight is reached.
    pub(super) fn median(&self, range: Range<usize>) -> f64 {
        let half = self.pairs(range.clone()).map(|(_, w)| w).sum::<f64>() / 2.0;
        let mut below = 0.0;
        let at = range.clone().zip(self.pairs(range.clone())).find(|(_, (_, w))| {
            below += w;
            below >= half
        });
        at.map_or(f64::from(self.values[range.start]), |(_, (x, _))| x)
    }

    /// The squared error of a stretch against one level.
    pub(super) fn error(&self, range: Range<usize>, level: f64) -> f64 {
        self.pairs(range).map(|(x, w)| w * (x - level) * (x - level)).sum()
    }
}

/// Orders as the numbers do, the sign of zero dropped; the weight rides along.
fn key(x: f32, weight: f32) -> u64 {
    let bits = (x + 0.0).to_bits();
    let ordered = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    u64::from(ordered) << 32 | u64::from(weight.to_bits())
}

fn unkey(key: u64) -> (f32, f32) {
    let ordered = (key >> 32) as u32;
    let bits = if ordered >> 31 == 1 { ordered ^ 1 << 31 } else { !ordered };
    (f32::from_bits(bits), f32::from_bits(key as u32))
}

/// A sample cut into consecutive bins, with the sums over any run of bins at hand.
///
/// Sums are of offsets from the median and start there, running both ways: the square of an outlier never enters the
/// sums over bins nearer to the median, and so cannot drown them.
pub(super) struct Points {
    /// Where bin `i` starts in the sample; one more entry for the end.
    pub(super) starts: Vec<usize>,
    /// The mean of each bin.
    means: Vec<f64>,
    median: f64,
    /// Running sums up to the start of each bin: of weights, of weighted offsets, of weighted squared offsets.
    weight: Vec<f64>,
    offset: Vec<f64>,
    square: Vec<f64>,
}

/// Bins that a fit works on, unless it is told otherwise.
pub(super) const BINS: usize = 1 << 15;

impl Points {
    /// One bin a distinct number, where there are at most `bins` (at least 4) of these. Otherwise at most `bins`
    /// bins, each either of one distinct number or no wider than the range over `bins/2 - 1` and no heavier than the
    /// weight over `bins/4`.
    pub(super) fn new(sample: &Sample, bins: usize) -> Points {
        let starts = match sample.distinct(bins) {
            Some(_) => sample.runs().map(|(run, _)| run.start).collect(),
            None => starts(sample, bins),
        };
        Points::from_starts(sample, starts)
    }

    fn from_starts(sample: &Sample, mut starts: Vec<usize>) -> Points {
        let middle = sample.len() / 2;
        let median = f64::from(sample.values[middle]);
        let anchor = starts.partition_point(|start| *start <= middle) - 1;
        starts.push(sample.len());
        let bins = starts.len() - 1;
        let mut means = Vec::with_capacity(bins);
        let mut terms = [(); 3].map(|()| Vec::with_capacity(bins));
        for bin in starts.windows(2) {
            means.push(sample.mean(bin[0]..bin[1]));
            let (mut weight, mut offset, mut square) = (0.0, 0.0, 0.0);
            for (x, w) in sample.pairs(bin[0]..bin[1]) {
                weight += w;
                offset += w * (x - median);
                square += w * (x - median) * (x - median);
            }
            [weight, offset, square].into_iter().zip(&mut terms).for_each(|(term, terms)| terms.push(term));
        }
        let [weight, offset, square] = terms.map(|terms| running(&terms, anchor));
        Points { starts, means, median, weight, offset, square }
    }

    /// The number of bins.
    pub(super) fn len(&self) -> usize {
        self.means.len()
    }

    /// The squared error of all numbers against the median: what rounding in sums is measured by.
    pub(super) fn spread(&self) -> f64 {
        self.square[self.len()] - self.square[0]
    }

    /// Ascending borders of at most so many runs of bins (and 3), from 0 to the number of bins, each run narrow
    /// and light.
    pub(super) fn coarse_cuts(&self, most: usize) -> Vec<usize> {
        let (first, last) = (self.means[0], self.means[self.len() - 1]);
        let per_width = (most / 2 - 1) as f64 / (last - first);
        let per_weight = (most / 2 - 1) as f64 / (self.weight[self.len()] - self.weight[0]);
        let mut place = (f64::NAN, f64::NAN);
        let mut cuts = Vec::with_capacity(most + 4);
        for (bin, mean) in self.means.iter().enumerate() {
            let here =
                (((mean - first) * per_width).floor(), ((self.weight[bin] - self.weight[0]) * per_weight).floor());
            if here != place {
                cuts.push(bin);
                place = here;
            }
        }
        cuts.push(self.len());
        cuts
    }

    /// The first bin whose mean is above `x`.
    pub(super) fn after(&self, x: f64) -> usize {
        self.means.partition_point(|mean| *mean <= x)
    }

    /// The squared error of the bins `from..to` against their own mean.
    pub(super) fn inertia(&self, from: usize, to: usize) -> f64 {
        let weight = self.weight[to] - self.weight[from];
        let offset = self.offset[to] - self.offset[from];
        // `max` also turns the 0 / 0 of weights that vanish beside others into 0.
        (self.square[to] - self.square[from] - offset * offset / weight).max(0.0)
    }

    /// The squared error of some bins against the nearest of ascending levels.
    pub(super) fn error(&self, bins: Range<usize>, levels: impl IntoIterator<Item = f64>) -> f64 {
        self.cells(bins, levels).map(|(level, cell)| self.error_of(level, cell)).sum()
    }

    /// For the levels `scale * table`: the squared error of all, and the scale that fits best with the levels as they
    /// are taken now.
    pub(super) fn scaled_error(&self, table: &[f64], scale: f64) -> (f64, f64) {
        let (mut error, mut dot, mut norm) = (0.0, 0.0, 0.0);
        let cells = self.cells(0..self.len(), table.iter().map(|entry| scale * entry));
        for (entry, (level, cell)) in table.iter().zip(cells) {
            let weight = self.weight[cell.end] - self.weight[cell.start];
            let sum = self.offset[cell.end] - self.offset[cell.start] + self.median * weight;
            error += self.error_of(level, cell);
            dot += entry * sum;
            norm += entry * entry * weight;
        }
        (error, if norm > 0.0 { dot / norm } else { scale })
    }

    fn error_of(&self, level: f64, cell: Range<usize>) -> f64 {
        let (level, from, to) = (level - self.median, cell.start, cell.end);
        let (weight, offset) = (self.weight[to] - self.weight[from], self.offset[to] - self.offset[from]);
        (self.square[to] - self.square[from] - level * (2.0 * offset - level * weight)).max(0.0)
    }

    /// Each level with the bins to which it is the nearest.
    fn cells(
        &self,
        bins: Range<usize>,
        levels: impl IntoIterator<Item = f64>,
    ) -> impl Iterator<Item = (f64, Range<usize>)> {
        let mut start = bins.start;
        let mut levels = levels.into_iter().peekable();
        std::iter::from_fn(move || {
            let level = levels.next()?;
            let end = match levels.peek() {
                Some(next) => start + self.means[start..bins.end].partition_point(|x| *x <= (level + next) / 2.0),
                None => bins.end,
            };
            let cell = start..end;
            start = end;
            Some((level, cell))
        })
    }
}

/// Running sums, 0 at the start of term `anchor`.
fn running(terms: &[f64], anchor: usize) -> Vec<f64> {
    let mut sums = vec![0.0; terms.len() + 1];
    for i in anchor..terms.len() {
        sums[i + 1] = sums[i] + terms[i];
    }
    for i in (0..anchor).rev() {
        sums[i] = sums[i + 1] - terms[i];
    }
    sums
}

/// Starts of bins, cut where a line of an even grid over the range is passed, and around the number that covers a line
/// of an even grid over the weight.
fn starts(sample: &Sample, bins: usize) -> Vec<usize> {
    let (lowest, total) = (f64::from(sample.values[0]), sample.pairs(0..sample.len()).map(|(_, w)| w).sum::<f64>());
    let per_width = (bins / 2 - 1) as f64 / (sample.last() - lowest);
    let per_weight = (bins / 4) as f64 / total;
    let mut starts = Vec::with_capacity(bins);
    let (mut below, mut bin) = (0.0, (f64::NAN, f64::NAN));
    for (run, weight) in sample.runs() {
        let stripe = ((f64::from(sample.values[run.start]) - lowest) * per_width).floor();
        let portion = (below * per_weight).floor() + 1.0;
        below += weight;
        if bin != (stripe, (below * per_weight).ceil()) {
            starts.push(run.start);
            bin = (stripe, portion);
        }
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sums_over_bins_are_sums_over_their_numbers(
            values in prop::collection::vec(prop_oneof![-1.0f32..1.0, -1e4f32..1e4, Just(0.0), Just(0.5)], 1..200),
            bins in 4usize..64,
        ) {
            let sample = Sample::new(values.iter().copied(), None);
            prop_assert!(sample.values().windows(2).all(|pair| pair[0] <= pair[1]));
            let points = Points::new(&sample, bins);
            prop_assert!(points.len() <= bins.max(4), "{} bins of {}", points.len(), bins);
            let middle = points.starts.partition_point(|start| *start <= sample.len() / 2);
            for from in 0..points.len() {
                for to in from + 1..=points.len() {
                    let range = points.starts[from]..points.starts[to];
                    let direct = sample.error(range.clone(), sample.mean(range));
                    // Rounding is that of the sums between the median's bin and the stretch, both included.
                    let (first, last) = (points.starts[from.min(middle - 1)], points.starts[to.max(middle)]);
                    let rounding = 1e-12 * sample.error(first..last, points.median);
                    prop_assert!((points.inertia(from, to) - direct).abs() <= rounding + 1e-20);
                }
            }
        }

        #[test]
        fn bins_are_narrow_and_light_or_of_one_number(
            values in prop::collection::vec(prop_oneof![-1.0f32..1.0, -30f32..30.0, Just(0.0)], 100..400),
            bins in 8usize..64,
        ) {
            let sample = Sample::new(values.into_iter(), None);
            let points = Points::new(&sample, bins);
            let range = sample.last() - f64::from(sample.values[0]);
            for bin in points.starts.windows(2) {
                let width = f64::from(sample.values[bin[1] - 1]) - f64::from(sample.values[bin[0]]);
                let narrow = width <= range / (bins / 2 - 1) as f64 * 1.000001;
                let light = bin[1] - bin[0] <= sample.len().div_ceil(bins / 4);
                prop_assert!(width == 0.0 || narrow && light, "{width} of {range}, {bin:?}");
            }
        }
    }

    #[test]
    fn an_outlier_does_not_drown_the_rest() {
        let values = (0..1000).map(|i| i as f32 / 1000.0).chain([-1e30, 1e30]);
        let sample = Sample::new(values, None);
        let points = Points::new(&sample, BINS);
        let direct = sample.error(1..1001, sample.mean(1..1001));
        assert!((points.inertia(1, 1001) / direct - 1.0).abs() < 1e-10);
    }

    #[test]
    fn weights_of_zero_are_left_out_unless_all_are() {
        let values = [3.0, 1.0, 2.0];
        assert_eq!(Sample::new(values.into_iter(), Some(&[1.0, 0.0, 2.0])).values(), [2.0, 3.0]);
        assert_eq!(Sample::new(values.into_iter(), Some(&[0.0; 3])).values(), [1.0, 2.0, 3.0]);
    }
}
