//! Activations to 8-bit codes, row by row, in the layout that the kernels read.
//!
//! `code = clamp(round_half_even(x * (1 / scale)) + zero)`, the same bits on every instruction set.

use super::{
    depth::Depth,
    isa::{Isa, Job},
    kernel::{Kernel, Quad},
    parallel,
};
use crate::error::{Error, Result};

/// A matrix of `m` rows of activations in 8-bit codes: `x = scale * (code - zero)`, codes -128 to 127.
#[derive(Clone, Debug)]
pub(crate) struct Activations {
    m: usize,
    depth: Depth,
    /// Row after row of `stride` quads.
    codes: Vec<Quad>,
    stride: usize,
    /// `[row]`
    scales: Vec<f32>,
    /// `[row][group]`
    sums: Vec<i32>,
    zero: i32,
}

/// The grid of activations that was fixed by calibration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fixed {
    /// Above 0, finite, and not subnormal.
    pub(crate) scale: f32,
    /// For codes -128 to 127; where codes count from 0 to 255, their zero point less 128.
    pub(crate) zero: i8,
}

impl Activations {
    /// Each row symmetric with a scale of its own, `max |x| / 127`: codes -127 to 127, zero 0.
    ///
    /// # Errors
    /// [`Error::NotFinite`] names the first NaN or infinity.
    ///
    /// # Panics
    /// If `x` is not m by k.
    pub(crate) fn dynamic(isa: Isa, x: &[f32], m: usize, depth: Depth) -> Result<Activations> {
        Activations::new(isa, x, m, depth, None)
    }

    /// All rows on a given grid; what lies beyond its range takes the nearest code.
    ///
    /// # Errors
    /// [`Error::Setting`] for an unusable scale, and as [`Activations::dynamic`].
    ///
    /// # Panics
    /// If `x` is not m by k.
    pub(crate) fn fixed(isa: Isa, x: &[f32], m: usize, depth: Depth, grid: Fixed) -> Result<Activations> {
        if !grid.scale.is_normal() || grid.scale < 0.0 {
            let bound = "finite and at least 1.2e-38";
            return Err(Error::Setting { setting: "activation scale", value: grid.scale.into(), bound });
        }
        Activations::new(isa, x, m, depth, Some(grid))
    }

    fn new(isa: Isa, x: &[f32], m: usize, depth: Depth, grid: Option<Fixed>) -> Result<Activations> {
        assert_eq!(x.len(), m * depth.k());
        let stride = depth.quads();
        let mut activations = Activations {
            m,
            depth,
            codes: vec![[0; 4]; m * stride],
            stride,
            scales: vec![1.0; m],
            sums: vec![0; m * depth.groups()],
            zero: grid.map_or(0, |grid| grid.zero.into()),
        };
        let finite = x.is_empty() || isa.run(Quantize { x, grid, activations: &mut activations });
        match finite.then_some(activations) {
            Some(activations) => Ok(activations),
            None => {
                let index = x.iter().position(|x| !x.is_finite()).unwrap_or(0);
                Err(Error::NotFinite { what: "the input", index, value: x[index].into() })
            }
        }
    }

    /// The number of rows.
    pub(crate) fn m(&self) -> usize {
        self.m
    }

    pub(super) fn depth(&self) -> Depth {
        self.depth
    }

    pub(super) fn zero(&self) -> i32 {
        self.zero
    }

    /// The largest `|code - zero|`.
    pub(super) fn reach(&self) -> u32 {
        128 + self.zero.unsigned_abs()
    }

    #[inline(always)]
    pub(super) fn scale(&self, row: usize) -> f32 {
        self.scales[row]
    }

    /// The codes of a row.
    #[inline(always)]
    pub(super) fn quads(&self, row: usize) -> &[Quad] {
        &self.codes[row * self.stride..][..self.stride]
    }

    /// The sum of a group's codes in a row.
    #[inline(always)]
    pub(super) fn row_sum(&self, row: usize, group: usize) -> i32 {
        self.sums[row * self.depth.groups() + group]
    }
}

/// Elements that are worth a piece of their own (some 30 microseconds).
const PIECE: usize = 1 << 18;

/// Fills in the codes, scales and sums; false if a number is not finite.
struct Quantize<'a> {
    x: &'a [f32],
    grid: Option<Fixed>,
    activations: &'a mut Activations,
}

impl Job for Quantize<'_> {
    type Output = bool;

    fn run<K: Kernel>(self, kernel: K) -> bool {
        let Quantize { x, grid, activations } = self;
        let (k, groups, stride) = (activations.depth.k(), activations.depth.groups(), activations.stride);
        let rows = PIECE.div_ceil(k);
        let codes = activations.codes.chunks_mut(rows * stride);
        let scales = activations.scales.chunks_mut(rows);
        let sums = activations.sums.chunks_mut(rows * groups);
        let parts = x.chunks(rows * k).zip(codes).zip(scales).zip(sums);
        let mut pieces: Vec<Piece> = parts
            .map(|(((x, codes), scales), sums)| Piece {
                depth: activations.depth,
                grid,
                x,
                codes,
                scales,
                sums,
                finite: true,
            })
            .collect();
        parallel::for_each_chunk_mut(&mut pieces, 1, |_, pieces| {
            pieces.iter_mut().for_each(|piece| {
                kernel.vectorize(
                    #[inline(always)]
                    || piece.run(),
                );
            });
        });
        pieces.iter().all(|piece| piece.finite)
    }
}

/// Some rows.
struct Piece<'a> {
    depth: Depth,
    grid: Option<Fixed>,
    x: &'a [f32],
    codes: &'a mut [Quad],
    scales: &'a mut [f32],
    sums: &'a mut [i32],
    finite: bool,
}

impl Piece<'_> {
    #[inline(always)]
    fn run(&mut self) {
        let stride = self.codes.len() / self.scales.len();
        let rows = self.x.chunks_exact(self.depth.k()).zip(self.codes.chunks_exact_mut(stride));
        let places = self.scales.iter_mut().zip(self.sums.chunks_exact_mut(self.depth.groups()));
        for ((x, codes), (scale, sums)) in rows.zip(places) {
            // As integers, magnitudes are in order, and NaN and infinity above all finite ones.
            let largest = x.iter().fold(0, |largest, x| largest.max(x.abs().to_bits() as i32));
            self.finite &= largest < f32::INFINITY.to_bits() as i32;
            let (zero, lowest) = self.grid.map_or((0, -127), |grid| (grid.zero.into(), -128));
            *scale = match self.grid {
                Some(grid) => grid.scale,
                // The bound keeps the reciprocal finite for rows of zeros and subnormals.
                None => (f32::from_bits(largest as u32) / 127.0).max(f32::MIN_POSITIVE),
            };
            let round = Round { factor: 1.0 / *scale, zero, lowest };
            for (group, sum) in sums.iter_mut().enumerate() {
                let (inputs, quads) = self.depth.group(group);
                *sum = round.quantize(&x[inputs], codes[quads].as_flattened_mut());
            }
        }
    }
}

struct Round {
    factor: f32,
    zero: i32,
    lowest: i32,
}

impl Round {
    /// Writes a code for each number and returns their sum.
    #[inline(always)]
    fn quantize(&self, x: &[f32], codes: &mut [i8]) -> i32 {
        // Adding 1.5 * 2^23 leaves the integer nearest to a small number in the low bits, ties to even.
        const MAGIC: f32 = 12_582_912.0;
        let zero = self.zero - MAGIC.to_bits() as i32;
        let (low, high) = ((self.lowest - self.zero) as f32, (127 - self.zero) as f32);
        let mut sum = 0;
        for (x, code) in x.iter().zip(codes) {
            let scaled = x * self.factor;
            // Comparisons instead of `clamp`, which checks its bounds, or `max`, which looks for NaN.
            let above = if scaled > low { scaled } else { low };
            let inside = if above < high { above } else { high };
            let integer = (inside + MAGIC).to_bits() as i32 + zero;
            *code = integer as i8;
            sum += integer;
        }
        sum
    }
}
