//! Which part of the numbers a grid covers: the choosers that all affine schemes and observers share.

use super::{CodeRange, entropy, fit::Fit};
use crate::{
    error::{Error, Result},
    kernels::{ends::Ends, parallel},
};

/// Which part of the numbers a grid covers; what lies outside is clipped to its ends.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Range {
    /// All of it. The default: nothing is clipped.
    #[default]
    MinMax,
    /// So many percent of the numbers, above 0 and at most 100 (99.99 is common): of the magnitudes for a symmetric
    /// grid; else half of the rest is cut at each end.
    Percentile(f64),
    /// The range that leaves the least squared error on its grid, found by shrinking both ends together and then each
    /// for itself. Never worse than `MinMax`; weights' [importance](crate::tensor::Weighted) counts.
    Mse,
    /// The range whose quantized histogram loses the least information, by Kullback-Leibler divergence (Migacz 2017).
    /// Made for activations: it needs a population, so under 1,024 numbers it is `MinMax`.
    Entropy,
    /// The analytic optimum for a Gaussian or a Laplacian, whichever the numbers' moments are nearer to (ACIQ, Banner et
    /// al. 2019); 2 to 8 bits.
    Aciq,
}

/// Numbers that a range is chosen for, or the bins of a histogram with their counts as importance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample<'a> {
    pub(super) values: &'a [f32],
    importance: Option<&'a [f32]>,
    pub(super) min: f32,
    pub(super) max: f32,
    /// How many numbers there are.
    population: f64,
    /// Zeros beside the values: none of them is to be fitted, but 0 must be in the range if there are any.
    pub(super) zeros: usize,
}

impl<'a> Sample<'a> {
    pub(super) fn new(values: &'a [f32], importance: Option<&'a [f32]>) -> Self {
        let (min, max) = min_max(values);
        // Numbers of which none matters count alike.
        let importance = importance.filter(|importance| importance.iter().any(|weight| *weight > 0.0));
        Sample { values, importance, min, max, population: values.len() as f64, zeros: 0 }
    }

    /// With the true ends and the true count, where `values` are only bins.
    pub(super) fn of_bins(self, min: f32, max: f32, population: u64) -> Self {
        Sample { min, max, population: population as f64, ..self }
    }

    /// Beside so many numbers that were removed.
    pub(super) fn with_zeros(self, zeros: usize) -> Self {
        let (min, max) = if zeros > 0 { (self.min.min(0.0), self.max.max(0.0)) } else { (self.min, self.max) };
        Sample { min, max, population: self.population + zeros as f64, zeros, ..self }
    }

    pub(super) fn importance(&self, index: usize) -> f64 {
        self.importance.map_or(1.0, |importance| f64::from(importance[index]))
    }

    fn weighted(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.values.iter().enumerate().map(|(i, x)| (f64::from(*x), self.importance(i)))
    }

    /// The value below which so much of the importance lies, with `key` as the order and the value.
    fn quantile(&self, fraction: f64, key: impl Fn(f32) -> f32) -> f32 {
        let mut sorted: Vec<(f32, f64)> =
            self.values.iter().enumerate().map(|(i, x)| (key(*x), self.importance(i))).collect();
        sorted.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let target = fraction * sorted.iter().map(|(_, weight)| weight).sum::<f64>();
        let mut below = 0.0;
        let position = sorted.iter().position(|(_, weight)| {
            below += weight;
            below >= target
        });
        position.or(sorted.len().checked_sub(1)).map_or(0.0, |i| sorted[i].0)
    }
}

/// The least and the largest number; (0, 0) for none.
pub(super) fn min_max(values: &[f32]) -> (f32, f32) {
    Ends::of(values).or_zero()
}

impl Range {
    pub(super) fn validate(self, codes: CodeRange) -> Result<()> {
        match self {
            Range::Percentile(percent) if !(percent > 0.0 && percent <= 100.0) => {
                Err(Error::Setting { setting: "percentile", value: percent, bound: "above 0 and at most 100" })
            }
            Range::Aciq if !(2..=8).contains(&codes.bits()) => {
                Err(Error::Bits { bits: codes.bits(), scheme: "Range::Aciq", allowed: "2 to 8" })
            }
            _ => Ok(()),
        }
    }

    /// The range for these numbers on that grid.
    pub(super) fn choose(self, sample: &Sample<'_>, fit: Fit) -> Result<(f32, f32)> {
        let (min, max) = (sample.min, sample.max);
        let (low, high) = match self {
            Range::MinMax => (min, max),
            Range::Percentile(percent) if fit.symmetric => {
                let a = sample.quantile(percent / 100.0, f32::abs);
                (min.max(-a), max.min(a))
            }
            Range::Percentile(percent) => {
                let cut = (100.0 - percent) / 200.0;
                (sample.quantile(cut, |x| x).max(min), sample.quantile(1.0 - cut, |x| x).min(max))
            }
            Range::Mse => least_squared_error(sample, fit)?,
            Range::Entropy => {
                let a = match sample.population < entropy::POPULATION {
                    true => min.abs().max(max.abs()),
                    false => entropy::threshold(sample, fit.codes),
                };
                (min.max(-a), max.min(a))
            }
            Range::Aciq => aciq(sample, fit),
        };
        Ok(if sample.zeros > 0 { (low.min(0.0), high.max(0.0)) } else { (low, high) })
    }
}

/// Shares of the whole range tried first: by hundredths to a fifth, then in steps of a tenth of themselves to 0.01,
/// for numbers with far outliers.
fn shares() -> Vec<f32> {
    let linear = (0..80).map(|i| 1.0 - i as f32 / 100.0);
    linear.chain((1..=30).map(|i| 0.2 * 0.9f32.powi(i))).collect()
}

fn least_squared_error(sample: &Sample<'_>, fit: Fit) -> Result<(f32, f32)> {
    // A range this wide is refused by the fit itself; a narrower one tried by the search is not.
    fit.step(sample.min, sample.max)?;
    let cost = |(min, max): (f32, f32)| {
        fit.step(min, max).map_or(f64::INFINITY, |step| step.squared_error(sample.values, sample.importance))
    };
    let whole = (sample.min, sample.max);
    let scaled = |share: f32| (whole.0 * share, whole.1 * share);
    let shares = shares();
    let costs = parallel::map(shares.len(), |i| cost(scaled(shares[i])));
    let first = (0..shares.len()).fold(0, |best, i| if costs[i] < costs[best] { i } else { best });
    let (mut best, mut least) = (scaled(shares[first]), costs[first]);
    // From there by halving steps: both ends together, and for an affine grid each for itself.
    let directions: &[(f32, f32)] = match fit.symmetric {
        true => &[(1.0, 1.0), (-1.0, -1.0)],
        false => &[(1.0, 1.0), (-1.0, -1.0), (1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)],
    };
    let mut step = 0.04;
    while step > 0.002 {
        let tried = directions.iter().map(|(low, high)| (best.0 * (1.0 + low * step), best.1 * (1.0 + high * step)));
        let tried: Vec<_> = tried.map(|(min, max)| (min.max(whole.0.min(0.0)), max.min(whole.1.max(0.0)))).collect();
        let costs = parallel::map(tried.len(), |i| cost(tried[i]));
        let next = (0..tried.len()).fold(0, |best, i| if costs[i] < costs[best] { i } else { best });
        if costs[next] < least {
            (best, least) = (tried[next], costs[next]);
        } else {
            step /= 2.0;
        }
    }
    Ok(best)
}

/// Optimal clip in units of the mean absolute deviation (Laplacian) and of the standard deviation (Gaussian), for 2 to 8
/// bits and, for numbers on one side of 0, which use their bits twice as densely, one more (Banner et al. 2019, table
/// in their published code; the last entries continue its slope).
const LAPLACE: [f64; 8] = [2.83, 3.89, 5.03, 6.2, 7.41, 8.64, 9.89, 11.16];
const GAUSS: [f64; 8] = [1.71, 2.15, 2.55, 2.93, 3.28, 3.61, 3.92, 4.21];

fn aciq(sample: &Sample<'_>, fit: Fit) -> (f32, f32) {
    let total: f64 = sample.weighted().map(|(_, w)| w).sum();
    let mean = sample.weighted().map(|(x, w)| x * w).sum::<f64>() / total;
    // Numbers on one side are taken as half of a distribution centred at 0.
    let one_sided = sample.min >= 0.0 || sample.max <= 0.0;
    let centre = if one_sided || fit.symmetric { 0.0 } else { mean };
    let deviation = sample.weighted().map(|(x, w)| (x - centre).abs() * w).sum::<f64>() / total;
    let sigma = (sample.weighted().map(|(x, w)| (x - centre).powi(2) * w).sum::<f64>() / total).sqrt();
    let entry = usize::from(fit.codes.bits()) - 2 + usize::from(one_sided && !fit.symmetric);
    // E|x| / sigma is sqrt(2 / pi) = 0.798 for a Gaussian, sqrt(1 / 2) = 0.707 for a Laplacian.
    let gaussian = deviation > 0.752_5 * sigma;
    let clip = if gaussian { GAUSS[entry] * sigma } else { LAPLACE[entry] * deviation };
    (sample.min.max((centre - clip) as f32), sample.max.min((centre + clip) as f32))
}
