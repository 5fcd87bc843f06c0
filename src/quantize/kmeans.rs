//! Optimal one-dimensional k-means: by dynamic programming, not from a random start.

use std::{fmt, ops::Range};

use ndarray::{ArrayView1, ArrayViewD, CowArray, IxDyn};

use super::{
    Quantizer,
    codebook::{self, granularity_builders},
    sample::{self, Points, Sample},
    written::write_scheme,
};
use crate::{
    error::{Error, Result},
    kernels::parallel,
    tensor::{Dense, Granularity, QuantizedTensor, Weights},
};

/// Levels of least squared error, `min Σ w (x - level(x))²`: the global optimum, at `2^bits` free levels a group.
///
/// Made by [`Quantizer::kmeans`](crate::Quantizer::kmeans). The weight `w` of a number is its
/// [importance](crate::tensor::Weighted), 1 where none is given. Where there are no more distinct numbers (of weight
/// above 0) than levels, the levels are these numbers. Every number takes its nearest level, the lower of two.
///
/// | setting | default | range |
/// |---|---|---|
/// | `bits` | | 1 to 8 |
/// | [`granularity`](Self::granularity) | `Tensor` | tensor, channel, group of 1 or more |
/// | [`bins`](Self::bins) | 32768 | 1024 or above; [`exact`](Self::exact): no limit |
///
/// # How far from the optimum
/// Up to `bins` distinct numbers a group, the levels are optimal (but for rounding). Beyond, sorted numbers are first
/// cut into bins, and the optimum is taken over the partitions that cut between bins; then Lloyd's steps on the numbers
/// themselves may lower the error further. A bin of more than one distinct number spans at most
/// `h = R / (bins/2 - 1)` of the range `R` and weighs at most `W / (bins/4)` of the total `W` (whole quotients).
///
/// *Bound.* Let `OPT` be the least error of any k levels, `m` the mean of a bin, and `v = Σ w (x - m)²` its inner
/// error, so `v ≤ (its weight) h² / 4`. Take the optimal levels, and send each bin as a whole to the level nearest to
/// its mean: that is a partition which cuts between bins, so the error found is at most its error. A bin whose numbers
/// share one nearest level goes there, at unchanged cost. At most k - 1 bins, of one more distinct number, contain a
/// border between two levels; call them `S`. The distance to the nearest level grows by at most `|x - m|` from `x` to
/// `m`, so by Minkowski's inequality the means of `S` cost at most `(√OPT_S + √V)²`, where `OPT_S` is what the numbers
/// of `S` cost in the optimum and `V = Σ_S v`; inside the bins `V` comes on top. Hence
///
/// ```text
/// inertia ≤ OPT - OPT_S + (√OPT_S + √V)² + V ≤ OPT + 2 √(OPT V) + 2 V,
/// V ≤ (k - 1) W / (bins/4) h² / 4 ≈ 4 (k - 1) W R² / bins³.
/// ```
///
/// For a million normal numbers at 4 bits and the default bins that is within 0.03 % of the optimum; what is lost in
/// fact is far less.
///
/// Time is O(n log n) for the sort and O(k b log b) for b bins, memory O(n + k b).
///
/// # Sources
/// Han, Mao and Dally 2016 (*Deep Compression*) for k-means on weights; Wu 1991 and Grønlund et al. 2017 for the exact
/// one-dimensional solution; Kim et al. 2023 (*SqueezeLLM*) for weights by sensitivity.
///
/// ```
/// use tersor::Quantizer;
///
/// let weights = ndarray::array![[-1.0_f32, -1.1, 0.0, 0.1], [0.9, 1.0, 0.1, 0.0]];
/// let q = Quantizer::kmeans(2).apply(&weights)?;
/// assert_eq!(q.dequantize()[[0, 0]], -1.05);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct KMeans {
    bits: u8,
    granularity: Granularity,
    bins: usize,
}

impl fmt::Debug for KMeans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scheme(
            f,
            format_args!("kmeans({})", self.bits),
            (self.granularity, Granularity::Tensor),
            &[(self.bins == usize::MAX, "exact")],
        )?;
        if self.bins == usize::MAX || self.bins == sample::BINS { Ok(()) } else { write!(f, ".bins({})", self.bins) }
    }
}

const FEWEST_BINS: usize = 1024;

impl KMeans {
    /// One table of `2^bits` levels for the tensor.
    pub fn new(bits: u8) -> KMeans {
        KMeans { bits, granularity: Granularity::Tensor, bins: sample::BINS }
    }

    granularity_builders!();

    /// The number of distinct numbers up to which a group is solved exactly, and of bins otherwise; 1024 or more.
    #[must_use]
    pub fn bins(mut self, bins: usize) -> KMeans {
        self.bins = bins;
        self
    }

    /// Solves every group exactly, whatever its size: O(k n log n) time and 4 k n bytes for n distinct numbers.
    #[must_use]
    pub fn exact(self) -> KMeans {
        self.bins(usize::MAX)
    }
}

impl Quantizer for KMeans {
    fn apply(&self, weights: &dyn Weights) -> Result<QuantizedTensor> {
        codebook::check("Quantizer::kmeans", self.bits, (1..=8, "1 to 8"), self.granularity)?;
        if self.bins < FEWEST_BINS {
            return Err(Error::Setting { setting: "bins", value: self.bins as f64, bound: "1024 or above" });
        }
        codebook::free(&Dense::new(weights)?, self.bits, self.granularity, |group, k| {
            let cells = cells(&group.sample(), k, self.bins);
            cells.into_iter().map(|cell| codebook::narrow(cell.mean)).collect()
        })
    }
}

/// What [`kmeans_1d`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Clusters {
    /// The mean of each cluster, ascending.
    pub centroids: Vec<f64>,
    /// The squared distances of all values to their centroids, weighted and summed.
    pub inertia: f64,
}

/// The k centroids of least inertia for numbers on a line: the exact optimum, in O(k n log n) time and 4 k n bytes for
/// n distinct values.
///
/// `weights` says how much each value counts; `None`: 1 each.
///
/// # Errors
/// [`Error::Clusters`] for k above the number of distinct values (of weight above 0); [`Error::Setting`] for k = 0, for a
/// negative weight, and for weights that are all 0; [`Error::Empty`] without values;
/// [`Error::NotFinite`]; [`Error::Shape`] if there are not as many weights as values.
///
/// ```
/// let found = tersor::quantize::kmeans_1d(&[1.0, 2.0, 10.0, 12.0, 11.0], None, 2)?;
/// assert_eq!((found.centroids, found.inertia), (vec![1.5, 11.0], 2.5));
/// # Ok::<(), tersor::Error>(())
/// ```
pub fn kmeans_1d(values: &[f32], weights: Option<&[f32]>, k: usize) -> Result<Clusters> {
    if k == 0 {
        return Err(Error::Setting { setting: "k", value: 0.0, bound: "1 or above" });
    }
    let line = Line { values, weights };
    let line = Dense::named("the values", &line)?;
    let sample = Sample::new(line.values().iter().copied(), line.importance());
    if let Some(distinct) = sample.distinct(k - 1) {
        return Err(Error::Clusters { k, distinct: distinct.len() });
    }
    let cells = cells(&sample, k, usize::MAX);
    Ok(Clusters {
        centroids: cells.iter().map(|cell| cell.mean).collect(),
        inertia: cells.iter().map(|cell| cell.error).sum(),
    })
}

struct Line<'a> {
    values: &'a [f32],
    weights: Option<&'a [f32]>,
}

impl Weights for Line<'_> {
    fn values(&self) -> CowArray<'_, f32, IxDyn> {
        ArrayView1::from(self.values).into_dyn().into()
    }

    fn importance(&self) -> Option<ArrayViewD<'_, f32>> {
        self.weights.map(|weights| ArrayView1::from(weights).into_dyn())
    }
}

struct Cell {
    mean: f64,
    error: f64,
}

/// At most k cells of least error, ascending.
fn cells(sample: &Sample, k: usize, bins: usize) -> Vec<Cell> {
    if let Some(distinct) = sample.distinct(k) {
        return distinct.into_iter().map(|x| Cell { mean: x.into(), error: 0.0 }).collect();
    }
    let points = Points::new(sample, bins);
    let cuts = partition(&points, k.min(points.len())).into_iter().map(|bin| points.starts[bin]).collect();
    lloyd(sample, cuts)
}

/// Cuts cells anew between their means, until that moves nothing or has been done a few times. No step raises the error.
fn lloyd(sample: &Sample, mut cuts: Vec<usize>) -> Vec<Cell> {
    const STEPS: usize = 8;
    let each = |cuts: &[usize], f: &(dyn Fn(usize) -> f64 + Sync)| parallel::map(cuts.len() - 1, f);
    let means = |cuts: &[usize]| each(cuts, &|i| sample.mean(cuts[i]..cuts[i + 1]));
    let mut centers = means(&cuts);
    for _ in 0..STEPS {
        let between = centers.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0);
        let between = between.map(|middle| sample.values().partition_point(|x| f64::from(*x) <= middle));
        let mut moved = vec![0];
        moved.extend(between);
        moved.push(sample.len());
        if moved == cuts || moved.windows(2).any(|cell| cell[0] >= cell[1]) {
            break;
        }
        cuts = moved;
        centers = means(&cuts);
    }
    let errors = each(&cuts, &|i| sample.error(cuts[i]..cuts[i + 1], centers[i]));
    centers.into_iter().zip(errors).map(|(mean, error)| Cell { mean, error }).collect()
}

/// The k + 1 borders, in bins, of the k cells of least inertia; 1 <= k <= bins.
fn partition(points: &Points, k: usize) -> Vec<usize> {
    match narrow(points, k, sample::BINS) {
        Some(ranges) => best_of(points, &ranges, false),
        None => best_of(points, &anywhere(points.len(), k), true),
    }
}

/// The borders of least inertia of which the j-th lies in range j - 1.
fn best_of(points: &Points, ranges: &[Range<usize>], anywhere: bool) -> Vec<usize> {
    let mut starts = Vec::with_capacity(ranges.len());
    each_row(&|from, to| points.inertia(from, to), ranges, anywhere, |_, row| starts.push(row.to_vec()));
    let mut borders = vec![points.len()];
    for (row, range) in starts.iter().zip(ranges).skip(1).rev() {
        borders.push(row[borders[borders.len() - 1] - range.start] as usize);
    }
    borders.push(0);
    borders.reverse();
    borders
}

/// Where the ends of the cells may lie if nothing more is known: each cell has a bin.
fn anywhere(bins: usize, k: usize) -> Vec<Range<usize>> {
    (1..=k).map(|j| if j == k { bins..bins + 1 } else { j..bins - (k - j) + 1 }).collect()
}

/// For j = 1, 2, .. hands over, for every end that is allowed to j cells, the least inertia and the start of the last.
///
/// `best(j, i)`, the least inertia of the first i bins in j cells, is the least of `best(j - 1, t) + inertia(t, i)` over
/// the start t of the last cell. The best t never falls as i or j grows (the inertia satisfies the quadrangle
/// inequality), which bounds the search on both sides; as j grows, only where ends may lie `anywhere`.
fn each_row(
    inertia: &impl Fn(usize, usize) -> f64,
    ranges: &[Range<usize>],
    anywhere: bool,
    mut found: impl FnMut(&[f64], &[u32]),
) {
    let mut before: Vec<f64> = ranges[0].clone().map(|end| inertia(0, end)).collect();
    let mut earlier = vec![0; before.len()];
    found(&before, &earlier);
    for pair in ranges.windows(2) {
        let (starts, ends) = (pair[0].clone(), pair[1].clone());
        let (best, start) = (vec![f64::INFINITY; ends.len()], vec![0; ends.len()]);
        let mut row = Row {
            inertia,
            first_start: starts.start,
            before: &before,
            earlier: if anywhere { &earlier } else { &[] },
            first_end: ends.start,
            best,
            start,
        };
        row.fill(ends, starts);
        (before, earlier) = (row.best, row.start);
        found(&before, &earlier);
    }
}

struct Row<'a, F> {
    inertia: &'a F,
    /// `best(j - 1, ..)` from here on, and its starts if they bound those of `best(j, ..)`.
    first_start: usize,
    before: &'a [f64],
    earlier: &'a [u32],
    /// `best(j, ..)` and its starts, from here on.
    first_end: usize,
    best: Vec<f64>,
    start: Vec<u32>,
}

impl<F: Fn(usize, usize) -> f64> Row<'_, F> {
    /// Fills the ends `ends`, whose last cells start somewhere in `starts`: the middle one, then both sides of it.
    fn fill(&mut self, ends: Range<usize>, starts: Range<usize>) {
        if ends.is_empty() {
            return;
        }
        let end = ends.start + ends.len() / 2;
        let last = starts.end.min(end).max(starts.start + 1) - 1;
        let earlier = end.checked_sub(self.first_start).and_then(|place| self.earlier.get(place));
        let first = earlier.map_or(0, |start| *start as usize).clamp(starts.start, last);
        let (mut best, mut start) = (f64::INFINITY, first);
        for (t, before) in (first..).zip(&self.before[first - self.first_start..=last - self.first_start]) {
            let inertia = before + (self.inertia)(t, end);
            if inertia < best {
                (best, start) = (inertia, t);
            }
        }
        self.best[end - self.first_end] = best;
        self.start[end - self.first_end] = start as u32;
        self.fill(ends.start..end, starts.start..start + 1);
        self.fill(end + 1..ends.end, start..starts.end);
    }
}

/// Where the ends of the cells of the optimum can lie, if that is known to be a small part of many bins.
///
/// The optimum over few cuts bounds the one over all, from above (`most`) and, as the documentation of [`KMeans`] has it,
/// from below: `OPT >= (sqrt(found - V) - sqrt(V))^2`, with `V` what the k - 1 worst coarse bins hold. This goes for the
/// first numbers in j cells as for the rest in k - j, and either grows with its numbers. So where the j-th cell of the
/// optimum ends in the coarse bin `from..to`, the bounds of the numbers before `from` and of those after `to` are
/// together at most `most`; where they are not, it does not.
fn narrow(points: &Points, k: usize, most_coarse: usize) -> Option<Vec<Range<usize>>> {
    let bins = points.len();
    if k < 2 || bins <= 2 * most_coarse {
        return None;
    }
    let cuts = points.coarse_cuts(most_coarse);
    let coarse = cuts.len() - 1;
    if coarse < 4 * k {
        return None;
    }
    let mut inner: Vec<f64> = cuts.windows(2).map(|bin| points.inertia(bin[0], bin[1])).collect();
    inner.sort_unstable_by(|a, b| b.total_cmp(a));
    let inner: f64 = inner[..k - 1].iter().sum();
    let least = |found: f64| ((found - inner).max(0.0).sqrt() - inner.sqrt()).max(0.0).powi(2);

    let ranges = anywhere(coarse, k);
    let (mut before, mut after) = (Vec::with_capacity(k), Vec::with_capacity(k));
    each_row(&|from, to| points.inertia(cuts[from], cuts[to]), &ranges, true, |best, _| before.push(best.to_vec()));
    let mirrored = |from: usize, to: usize| points.inertia(cuts[coarse - to], cuts[coarse - from]);
    each_row(&mirrored, &ranges, true, |best, _| after.push(best.to_vec()));
    // The bound for so many coarse bins in j cells; beyond the last that was asked for it is no lower.
    let bound = |rows: &[Vec<f64>], j: usize, bins: usize| match bins.checked_sub(j) {
        Some(place) => least(rows[j - 1][place.min(rows[j - 1].len() - 1)]),
        None => 0.0,
    };
    // With more than rounding may have lost.
    let most = before[k - 1][0] * (1.0 + 1e-9) + 1e-11 * points.spread();
    let mut narrowed: Vec<Range<usize>> = Vec::with_capacity(k);
    for j in 1..k {
        let possible = |bin: &usize| bound(&before, j, *bin) + bound(&after, k - j, coarse - bin - 1) <= most;
        let (first, last) = ((0..coarse).find(possible)?, (0..coarse).rfind(possible)?);
        // Each cell has a bin.
        let after_earlier = narrowed.last().map_or(1, |range| range.start + 1);
        narrowed.push(cuts[first].max(after_earlier)..cuts[last + 1] + 1);
    }
    narrowed.push(bins..bins + 1);
    for j in (1..k).rev() {
        narrowed[j - 1].end = narrowed[j - 1].end.min(narrowed[j].end - 1);
    }
    let allowed = narrowed.iter().map(Range::len).sum::<usize>();
    (allowed < bins && narrowed.iter().all(|range| !range.is_empty())).then_some(narrowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The least inertia by trying every partition of few values.
    fn by_trying_all(sample: &Sample, k: usize) -> f64 {
        fn least(sample: &Sample, from: usize, k: usize) -> f64 {
            if k == 1 || from == sample.len() {
                let rest = from..sample.len();
                return if rest.is_empty() { 0.0 } else { sample.error(rest.clone(), sample.mean(rest)) };
            }
            let ends = from + 1..=sample.len();
            let all = ends.map(|to| sample.error(from..to, sample.mean(from..to)) + least(sample, to, k - 1));
            all.fold(f64::INFINITY, f64::min)
        }
        least(sample, 0, k)
    }

    fn inertia(cells: &[Cell]) -> f64 {
        cells.iter().map(|cell| cell.error).sum()
    }

    proptest! {
        #[test]
        fn no_partition_is_better(
            values in prop::collection::vec(prop_oneof![-1.0f32..1.0, -50.0f32..50.0, Just(0.0)], 1..14),
            weights in prop::collection::vec(prop_oneof![0.0f32..2.0, Just(100.0)], 14),
            k in 1usize..6,
        ) {
            let sample = Sample::new(values.iter().copied(), Some(&weights[..values.len()]));
            let (found, least) = (inertia(&cells(&sample, k, usize::MAX)), by_trying_all(&sample, k));
            prop_assert!((found - least).abs() <= 1e-9 * least + 1e-12, "{found} {least}");
        }

        #[test]
        fn what_is_left_out_is_not_the_optimum(
            values in prop::collection::vec(prop_oneof![-1.0f32..1.0, -0.1f32..0.1, -9.0f32..9.0], 300..2000),
            center in -9f32..9.0,
            k in 2usize..9,
            coarse in 40usize..200,
        ) {
            let sample = Sample::new(values.into_iter().map(|x| center + x), None);
            let points = Points::new(&sample, usize::MAX);
            let inertia = |borders: &[usize]| borders.windows(2).map(|cell| points.inertia(cell[0], cell[1])).sum::<f64>();
            let optimum = inertia(&best_of(&points, &anywhere(points.len(), k), true));
            if let Some(ranges) = narrow(&points, k, coarse) {
                let borders = best_of(&points, &ranges, false);
                prop_assert!(borders.windows(2).all(|cell| cell[0] < cell[1]), "{borders:?}");
                prop_assert!((inertia(&borders) - optimum).abs() <= 1e-9 * optimum, "{} {optimum}", inertia(&borders));
            }
        }

        #[test]
        fn bins_cost_no_more_than_the_stated_bound(
            values in prop::collection::vec(prop_oneof![-1.0f32..1.0, -0.1f32..0.1, -9.0f32..9.0], 300..900),
            k in 2usize..20,
            bins in 64usize..256,
        ) {
            let sample = Sample::new(values.iter().copied(), None);
            let optimum = inertia(&cells(&sample, k, usize::MAX));
            let points = Points::new(&sample, bins);
            let borders = partition(&points, k.min(points.len()));
            let binned: f64 = borders.windows(2).map(|cell| points.inertia(cell[0], cell[1])).sum();
            let found = inertia(&cells(&sample, k, bins));

            let mut inner: Vec<f64> = (0..points.len()).map(|i| points.inertia(i, i + 1)).collect();
            inner.sort_by(|a, b| b.total_cmp(a));
            let inner: f64 = inner[..k - 1].iter().sum();
            let range = sample.last() - f64::from(sample.values()[0]);
            let (width, weight) = (range / (bins / 2 - 1) as f64, sample.len() as f64 / (bins / 4) as f64);
            let stated = (k - 1) as f64 * weight * width * width / 4.0;
            prop_assert!(inner <= stated * 1.000001, "{inner} {stated}");

            let slack = 1.0 + 1e-9;
            prop_assert!(optimum <= found * slack && found <= binned * slack, "{optimum} {found} {binned}");
            prop_assert!(binned <= (optimum + 2.0 * (optimum * inner).sqrt() + 2.0 * inner) * slack);
        }
    }

    #[test]
    fn many_bins_are_narrowed_and_outliers_are_not_mistaken() {
        let values = |i: u32| (i.wrapping_mul(0x9E37_79B9) >> 8) as f32 / (1 << 24) as f32;
        let narrowed = |outlier: f32| {
            let numbers = (0..20_000).map(|i| values(i) + values(i + 70_000) + values(i + 200_000)).chain([outlier]);
            let points = Points::new(&Sample::new(numbers, None), usize::MAX);
            narrow(&points, 6, 1 << 10).map(|ranges| {
                let (few, all) = (best_of(&points, &ranges, false), best_of(&points, &anywhere(points.len(), 6), true));
                assert_eq!(few, all);
            })
        };
        assert!(narrowed(1.5).is_some());
        narrowed(30.0);
        narrowed(1e20);
    }

    #[test]
    fn a_cell_of_one_number_has_it_as_its_level() {
        let sample = Sample::new([1e-10, 1e-10, 1.0, 1.1, 1e6].into_iter(), None);
        let means: Vec<f64> = cells(&sample, 3, usize::MAX).iter().map(|cell| cell.mean).collect();
        assert_eq!((means[0] as f32, means[2]), (1e-10, 1e6));
    }
}
