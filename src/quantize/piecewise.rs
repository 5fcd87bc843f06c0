//! The range cut into intervals, each with its own step (PWLQ).

use std::fmt;

use super::{
    Quantizer,
    codebook::{self, Group, granularity_builders},
    sample::{BINS, Points},
    written::write_scheme,
};
use crate::{
    error::{Error, Result},
    tensor::{Dense, Granularity, QuantizedTensor, Weights},
};

/// Levels evenly spaced inside each of a few intervals: fine steps for the many numbers about 0, coarse ones for the
/// tails.
///
/// Made by [`Quantizer::piecewise`](crate::Quantizer::piecewise). Magnitudes are cut at breakpoints
/// `0 = p_0 < p_1 < .. < p_n = m`. Of the `2^(bits-1) - 1` levels above 0 each piece has an equal share `c` (the inner
/// ones one more where that does not divide), `p_(i-1) + j (p_i - p_(i-1)) / c` for `j = 1 .. c`; negative levels mirror
/// them, and 0 is a level. So every breakpoint is a level, and with 2 pieces the parts are those of the paper, which gives
/// sign, region and `bits - 2` bits within it. Magnitudes beyond m go to m. Every number takes its nearest level, the
/// lower of two.
///
/// By default breakpoints and m are those of least squared error, weighted by the
/// [importance](crate::tensor::Weighted), that a search finds: dynamic programming over a grid in quarter octaves down
/// from `max|w|`, then each breakpoint moved to and fro by ever smaller steps.
///
/// | setting | default | range |
/// |---|---|---|
/// | `bits` | | 2 to 8 (at 2 there is one magnitude, and so one piece) |
/// | [`granularity`](Self::granularity) | `Tensor` | tensor, channel, group of 1 or more |
/// | [`pieces`](Self::pieces) | 2 | 1 to 8; a piece without a level is left out |
/// | [`absmax`](Self::absmax) | least squared error | `m = max|w|`, as in the paper |
/// | [`normal_breakpoint`](Self::normal_breakpoint) | least squared error | the paper's `p` for normal numbers, `m = max|w|` |
///
/// # Source
/// Fang et al. 2020 (*Post-Training Piecewise Linear Quantization for Deep Neural Networks*), non-overlapping regions.
///
/// ```
/// use tersor::Quantizer;
///
/// let weights = ndarray::array![0.0_f32, 0.1, -0.2, 0.3, -0.4, 1.4, 2.4, -3.4];
/// let q = Quantizer::piecewise(4).apply(&weights)?;
/// let error = (&weights.into_dyn() - &q.dequantize()).mapv(f32::abs);
/// assert!(error.iter().all(|error| *error < 0.01));
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Piecewise {
    bits: u8,
    granularity: Granularity,
    pieces: usize,
    ends: Ends,
}

impl fmt::Debug for Piecewise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = [(self.ends == Ends::Absmax, "absmax"), (self.ends == Ends::Normal, "normal_breakpoint")];
        write_scheme(f, format_args!("piecewise({})", self.bits), (self.granularity, Granularity::Tensor), &options)?;
        if self.pieces == 2 { Ok(()) } else { write!(f, ".pieces({})", self.pieces) }
    }
}

/// How the ends of the pieces are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ends {
    LeastError,
    /// The last end is the largest magnitude.
    Absmax,
    /// So is it, and the breakpoint is that for normal numbers.
    Normal,
}

impl Piecewise {
    /// Two pieces, one table for the tensor.
    pub fn new(bits: u8) -> Piecewise {
        Piecewise { bits, granularity: Granularity::Tensor, pieces: 2, ends: Ends::LeastError }
    }

    granularity_builders!();

    /// Cuts magnitudes into so many pieces, 1 to 8.
    #[must_use]
    pub fn pieces(mut self, pieces: usize) -> Piecewise {
        self.pieces = pieces;
        self
    }

    /// Makes the largest magnitude the last level, and searches only the breakpoints between.
    #[must_use]
    pub fn absmax(mut self) -> Piecewise {
        self.ends = Ends::Absmax;
        self
    }

    /// Takes the paper's fit for normal numbers, `p = σ ln(0.8614 m / σ + 0.6079)` with `m = max|w|`; for 2 pieces.
    #[must_use]
    pub fn normal_breakpoint(mut self) -> Piecewise {
        self.ends = Ends::Normal;
        self
    }

    fn levels(&self, group: &Group<'_>, counts: &[usize]) -> Vec<f32> {
        let largest = f64::from(group.largest_magnitude());
        if largest == 0.0 {
            return vec![0.0];
        }
        let points = || Points::new(&group.magnitudes(), BINS);
        let ends = match self.ends {
            Ends::LeastError => best_ends(&points(), counts, largest, false),
            Ends::Absmax => best_ends(&points(), counts, largest, true),
            Ends::Normal if counts.len() == 1 => vec![largest],
            Ends::Normal => vec![normal_breakpoint(group, largest), largest],
        };
        let magnitudes: Vec<f32> = levels(&ends, counts).skip(1).map(codebook::narrow).collect();
        codebook::mirrored(&magnitudes)
    }
}

impl Quantizer for Piecewise {
    fn apply(&self, weights: &dyn Weights) -> Result<QuantizedTensor> {
        codebook::check("Quantizer::piecewise", self.bits, (2..=8, "2 to 8"), self.granularity)?;
        if !(1..=8).contains(&self.pieces) {
            return Err(Error::Setting { setting: "pieces", value: self.pieces as f64, bound: "1 to 8" });
        }
        if self.ends == Ends::Normal && self.pieces != 2 {
            let what = format!("normal_breakpoint gives one breakpoint, but pieces = {}", self.pieces);
            return Err(Error::Conflict { what, remedy: "use 2 pieces, or absmax()" });
        }
        let magnitudes = (1 << (self.bits - 1)) - 1;
        let counts: Vec<usize> = (0..self.pieces.min(magnitudes))
            .map(|piece| magnitudes / self.pieces + usize::from(piece < magnitudes % self.pieces))
            .collect();
        codebook::free(&Dense::new(weights)?, self.bits, self.granularity, |group, _| self.levels(group, &counts))
    }
}

/// The levels from 0 on: every piece cut into so many equal steps.
fn levels<'a>(ends: &'a [f64], counts: &'a [usize]) -> impl Iterator<Item = f64> + 'a {
    let starts = std::iter::once(&0.0).chain(ends);
    let pieces = starts.zip(ends).zip(counts);
    std::iter::once(0.0).chain(pieces.flat_map(|((start, end), count)| steps(*start, *end, *count).skip(1)))
}

/// Both ends of a piece, and the levels between.
fn steps(start: f64, end: f64, count: usize) -> impl Iterator<Item = f64> {
    (0..=count).map(move |j| if j == count { end } else { start + (end - start) * j as f64 / count as f64 })
}

/// Ends of pieces of least squared error over magnitudes; with `whole`, the last is the largest magnitude.
fn best_ends(points: &Points, counts: &[usize], largest: f64, whole: bool) -> Vec<f64> {
    let mut ends = ends_on_grid(points, counts, largest, whole);
    let error_of = |ends: &[f64]| points.error(0..points.len(), levels(ends, counts));
    let mut error = error_of(&ends);
    let moving = ends.len() - usize::from(whole);
    const HALVINGS: i32 = 7;
    const ROUNDS: usize = 8;
    for halving in 0..HALVINGS {
        let step = libm::exp2(0.125 * libm::exp2(f64::from(-halving)));
        for _ in 0..ROUNDS {
            let before = error;
            for i in 0..moving {
                for factor in [step, 1.0 / step] {
                    let mut moved = ends.clone();
                    moved[i] *= factor;
                    let ordered = moved.windows(2).all(|pair| pair[0] < pair[1]) && moved[moving - 1] <= largest;
                    let found = if ordered { error_of(&moved) } else { f64::INFINITY };
                    if found < error {
                        (ends, error) = (moved, found);
                    }
                }
            }
            if error == before {
                break;
            }
        }
    }
    ends
}

/// The best ends among `largest * 2^(-i/4)`.
///
/// The ends of a piece are levels, so its error does not depend on other pieces: the least error up to an end is the
/// least over the piece's start of the error up to there and of the piece.
fn ends_on_grid(points: &Points, counts: &[usize], largest: f64, whole: bool) -> Vec<f64> {
    const GRID: usize = 40;
    let grid: Vec<f64> = (0..GRID).rev().map(|i| largest * libm::exp2(i as f64 / -4.0)).collect();
    let after: Vec<usize> = grid.iter().map(|end| points.after(*end)).collect();
    let piece = |from: Option<usize>, to: usize, count: usize| {
        let (start, first) = from.map_or((0.0, 0), |from| (grid[from], after[from]));
        points.error(first..after[to], steps(start, grid[to], count))
    };
    let mut errors: Vec<f64> = (0..GRID).map(|end| piece(None, end, counts[0])).collect();
    let mut starts = Vec::new();
    for count in &counts[1..] {
        let last = |end: usize| {
            let each = (0..end).map(|start| (errors[start] + piece(Some(start), end, *count), start));
            each.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((f64::INFINITY, 0))
        };
        let row: Vec<(f64, usize)> = (0..GRID).map(last).collect();
        errors = row.iter().map(|(error, _)| *error).collect();
        starts.push(row.into_iter().map(|(_, start)| start).collect::<Vec<_>>());
    }
    let beyond = |end: usize| points.error(after[end]..points.len(), [grid[end]]);
    let total = |end: &usize| errors[*end] + beyond(*end);
    let any = if whole { GRID - 1..GRID } else { 0..GRID };
    let mut end = any.min_by(|a, b| total(a).total_cmp(&total(b))).unwrap_or(GRID - 1);
    let mut ends = vec![grid[end]];
    for starts in starts.iter().rev() {
        end = starts[end];
        ends.push(grid[end]);
    }
    ends.reverse();
    ends
}

fn normal_breakpoint(group: &Group<'_>, largest: f64) -> f64 {
    let mean = group.mean(|x| x);
    let deviation = group.mean(|x| (x - mean) * (x - mean)).sqrt();
    let breakpoint = deviation * libm::log(0.8614 * largest / deviation + 0.6079);
    // A group of equal numbers has no deviation.
    if breakpoint > 0.0 && breakpoint < largest { breakpoint } else { largest / 2.0 }
}
