//! Optimal one-dimensional k-means: by dynamic programming, not from a random start.

use std::fmt;

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
///
/// `best(j, i)`, the least inertia of the first i bins in j cells, is the least of `best(j - 1, t) + inertia(t, i)` over
/// the start t of the last cell. The best t never falls as i or j grows (the inertia satisfies the quadrangle
/// inequality), which bounds the search on both sides.
fn partition(points: &Points, k: usize) -> Vec<usize> {
    let bins = points.len();
    let first: Vec<f64> = (0..=bins).map(|i| if i == 0 { 0.0 } else { points.inertia(0, i) }).collect();
    let mut row = Row { points, before: first, best: vec![0.0; bins + 1], start: vec![0; bins + 1] };
    let mut starts = Vec::with_capacity(k);
    for cells in 2..=k {
        // Of the last row only the end is asked for.
        let from = if cells == k { bins } else { cells };
        row.fill(from..bins + 1, cells - 1..bins);
        std::mem::swap(&mut row.before, &mut row.best);
        starts.push(row.start.clone());
    }
    let mut borders = vec![bins];
    for starts in starts.iter().rev() {
        borders.push(starts[borders[borders.len() - 1]] as usize);
    }
    borders.push(0);
    borders.reverse();
    borders
}

struct Row<'a> {
    points: &'a Points,
    /// `best(j - 1, ..)`.
    before: Vec<f64>,
    /// `best(j, ..)`.
    best: Vec<f64>,
    /// The starts of the last cells: of j - 1 cells until overwritten, then of j.
    start: Vec<u32>,
}

impl Row<'_> {
    /// Fills the ends `ends`, whose last cells start somewhere in `starts`: the middle one, then both sides of it.
    fn fill(&mut self, ends: std::ops::Range<usize>, starts: std::ops::Range<usize>) {
        if ends.is_empty() {
            return;
        }
        let end = ends.start + ends.len() / 2;
        let last = starts.end.min(end) - 1;
        let first = (self.start[end] as usize).clamp(starts.start, last);
        let (mut best, mut start) = (f64::INFINITY, first);
        for (t, before) in (first..).zip(&self.before[first..=last]) {
            let inertia = before + self.points.inertia(t, end);
            if inertia < best {
                (best, start) = (inertia, t);
            }
        }
        self.best[end] = best;
        self.start[end] = start as u32;
        self.fill(ends.start..end, starts.start..start + 1);
        self.fill(end + 1..ends.end, start..starts.end);
    }
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
    fn a_cell_of_one_number_has_it_as_its_level() {
        let sample = Sample::new([1e-10, 1e-10, 1.0, 1.1, 1e6].into_iter(), None);
        let means: Vec<f64> = cells(&sample, 3, usize::MAX).iter().map(|cell| cell.mean).collect();
        assert_eq!((means[0] as f32, means[2]), (1e-10, 1e6));
    }
}
