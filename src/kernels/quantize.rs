//! Activations to 8-bit codes, row by row, in the layout that the kernels read.
//!
//! `code = clamp(round_half_even(x * (1 / scale)) + zero)`, the same bits on every instruction set.

use std::{
    cell::Cell,
    mem,
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
};

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
    zero: i32,
    /// Whether codes are 128 more than said, from 0 to 255.
    unsigned: bool,
    buffers: Buffers,
}

/// What grows with the activations; each vector is at least as long as it has to be.
#[derive(Clone, Debug, Default)]
struct Buffers {
    /// Row after row of the depth's quads.
    codes: Vec<Quad>,
    /// `[row]`
    scales: Vec<f32>,
    /// `[row][group]`
    sums: Vec<i32>,
}

/// Buffers above this size are not kept for the next activations.
const SPARE: usize = 1 << 26;

thread_local! {
    /// The buffers of the thread's last activations: fresh memory would cost more than what is written there.
    static LAST: Cell<Buffers> = Cell::default();
}

impl Buffers {
    fn take(quads: usize, rows: usize, groups: usize) -> Buffers {
        let mut buffers = LAST.take();
        buffers.codes.resize(quads.max(buffers.codes.len()), [0; 4]);
        buffers.scales.resize(rows.max(buffers.scales.len()), 1.0);
        buffers.sums.resize((rows * groups).max(buffers.sums.len()), 0);
        buffers
    }
}

impl Drop for Activations {
    fn drop(&mut self) {
        if size_of_val(&*self.buffers.codes) <= SPARE {
            // On a thread that ends there is nothing to keep them for.
            let _ = LAST.try_with(|last| last.set(mem::take(&mut self.buffers)));
        }
    }
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
        let mut activations = Activations {
            m,
            depth,
            zero: grid.map_or(0, |grid| grid.zero.into()),
            unsigned: false,
            buffers: Buffers::take(m * depth.quads(), m, depth.groups()),
        };
        if x.is_empty() {
            activations.buffers.scales[..m].fill(1.0); // of rows without inputs
        }
        let finite = x.is_empty() || isa.run(Quantize { x, grid, activations: &mut activations });
        match finite.then_some(activations) {
            Some(activations) => Ok(activations),
            None => {
                let index = x.iter().position(|x| !x.is_finite()).unwrap_or(0);
                Err(Error::NotFinite { what: "the input", index, value: x[index].into() })
            }
        }
    }

    /// The same numbers in codes from 0 to 255, for weights whose inputs are picked.
    pub(super) fn unsigned(mut self, isa: Isa) -> Activations {
        struct Flip<'a>(&'a mut [Quad]);
        impl Job for Flip<'_> {
            type Output = ();

            fn run<K: Kernel>(self, kernel: K) {
                kernel.vectorize(
                    #[inline(always)]
                    || self.0.as_flattened_mut().iter_mut().for_each(|code| *code ^= -128),
                );
            }
        }
        if !self.unsigned {
            isa.run(Flip(&mut self.buffers.codes[..self.m * self.depth.quads()]));
        }
        self.unsigned = true;
        self
    }

    /// Whether codes are from 0 to 255.
    pub(super) fn is_unsigned(&self) -> bool {
        self.unsigned
    }

    /// The number of rows.
    pub(crate) fn m(&self) -> usize {
        self.m
    }

    pub(super) fn depth(&self) -> Depth {
        self.depth
    }

    /// That of the codes as they are read, unsigned or not.
    pub(super) fn zero(&self) -> i32 {
        self.zero + if self.unsigned { 128 } else { 0 }
    }

    /// The largest `|code - zero|`.
    pub(super) fn reach(&self) -> u32 {
        128 + self.zero.unsigned_abs()
    }

    /// The scales of some rows.
    #[inline(always)]
    pub(super) fn scales(&self, rows: Range<usize>) -> &[f32] {
        &self.buffers.scales[rows]
    }

    /// The codes of some rows.
    #[inline(always)]
    pub(super) fn quads(&self, rows: Range<usize>) -> &[Quad] {
        let stride = self.depth.quads();
        &self.buffers.codes[rows.start * stride..rows.end * stride]
    }

    /// `sum (zero - code)` of each group, row after row.
    #[inline(always)]
    pub(super) fn sums(&self, rows: Range<usize>) -> &[i32] {
        &self.buffers.sums[rows.start * self.depth.groups()..rows.end * self.depth.groups()]
    }
}

/// Elements that are worth a piece of their own (some 30 microseconds).
const PIECE: usize = 1 << 18;

/// Elements that stay in the first-level cache, beside their codes.
const IN_CACHE: usize = 1 << 13;

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
        let (k, groups, stride) = (activations.depth.k(), activations.depth.groups(), activations.depth.quads());
        let rows = PIECE.div_ceil(k);
        let (m, Buffers { codes, scales, sums }) = (activations.m, &mut activations.buffers);
        let (codes, scales, sums) = (&mut codes[..m * stride], &mut scales[..m], &mut sums[..m * groups]);
        let whole = Piece { depth: activations.depth, grid, x, codes, scales, sums };
        let finite = AtomicBool::new(true);
        parallel::divide(
            whole,
            m.div_ceil(rows),
            |piece, pieces| piece.halve(pieces * rows),
            |piece| {
                kernel.vectorize(
                    #[inline(always)]
                    || finite.fetch_and(piece.run(kernel), Ordering::Relaxed),
                );
            },
        );
        finite.into_inner()
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
}

impl Piece<'_> {
    fn halve(self, rows: usize) -> (Self, Self) {
        let (x, x_rest) = self.x.split_at(rows * self.depth.k());
        let (codes, codes_rest) = self.codes.split_at_mut(rows * self.depth.quads());
        let (scales, scales_rest) = self.scales.split_at_mut(rows);
        let (sums, sums_rest) = self.sums.split_at_mut(rows * self.depth.groups());
        let (depth, grid) = (self.depth, self.grid);
        let rest = Piece { depth, grid, x: x_rest, codes: codes_rest, scales: scales_rest, sums: sums_rest };
        (Piece { depth, grid, x, codes, scales, sums }, rest)
    }

    /// False if a number is not finite.
    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> bool {
        /// Rows whose scales are found before the first is rounded, which would wait for its scale.
        const TOGETHER: usize = 8;
        /// The least group that fills registers by itself.
        const LONG: usize = 64;
        let (k, stride, groups) = (self.depth.k(), self.depth.quads(), self.depth.groups());
        let at_once = self.depth.group_size() < LONG && self.depth.group_size().is_multiple_of(4);
        // As many as stay in the nearest cache.
        let together = (IN_CACHE / k).clamp(1, TOGETHER);
        let rows = self.x.chunks(together * k).zip(self.codes.chunks_mut(together * stride));
        let places = self.scales.chunks_mut(together).zip(self.sums.chunks_mut(together * groups));
        let mut finite = true;
        for ((x, codes), (scales, sums)) in rows.zip(places) {
            for (x, scale) in x.chunks_exact(k).zip(&mut *scales) {
                let largest = f32::from_bits(kernel.largest(x));
                finite &= largest.is_finite();
                *scale = match self.grid {
                    Some(grid) => grid.scale,
                    // The bound keeps the reciprocal finite for rows of zeros and subnormals.
                    None => (largest / 127.0).max(f32::MIN_POSITIVE),
                };
            }
            let (zero, lowest) = self.grid.map_or((0, -127), |grid| (grid.zero.into(), -128));
            let rows = x.chunks_exact(k).zip(codes.chunks_exact_mut(stride));
            for ((x, codes), (scale, sums)) in rows.zip(scales.iter().zip(sums.chunks_exact_mut(groups))) {
                let round = Round { factor: 1.0 / *scale, zero, lowest };
                if at_once {
                    kernel.round(&round, x, codes);
                }
                for (group, sum) in sums.iter_mut().enumerate() {
                    let (inputs, quads) = self.depth.group(group);
                    let (zeros, codes) = (inputs.len() as i32 * zero, &mut codes[quads]);
                    let codes = if at_once { sum_of(codes) } else { kernel.round(&round, &x[inputs], codes) };
                    *sum = zeros.wrapping_sub(codes); // what comes of NaN may be any number
                }
            }
        }
        finite
    }
}

/// The sum of codes, vectorized for short groups.
#[inline(always)]
fn sum_of(codes: &[Quad]) -> i32 {
    let (eights, rest) = codes.as_chunks::<8>();
    let sum = |codes: &[Quad]| codes.as_flattened().iter().map(|code| i32::from(*code)).sum::<i32>();
    eights.iter().map(|eight| sum(eight)).sum::<i32>() + sum(rest)
}

/// The bits of the largest magnitude, plainly.
#[inline(always)]
pub(super) fn largest(x: &[f32]) -> u32 {
    // Signed, since more instruction sets compare these.
    x.iter().fold(0, |largest, x| largest.max(x.abs().to_bits() as i32)) as u32
}

/// How a row is rounded: `code = clamp(round_half_even(x * factor) + zero, lowest, 127)`.
pub(super) struct Round {
    pub(super) factor: f32,
    pub(super) zero: i32,
    pub(super) lowest: i32,
}

impl Round {
    /// The bounds of a number before its zero point is added; as integers, they may come before rounding.
    #[inline(always)]
    pub(super) fn bounds(&self) -> (f32, f32) {
        ((self.lowest - self.zero) as f32, (127 - self.zero) as f32)
    }

    /// [`Kernel::round`], plainly.
    #[inline(always)]
    pub(super) fn round(&self, x: &[f32], codes: &mut [Quad]) -> i32 {
        // Adding 1.5 * 2^23 leaves the integer nearest to a small number in the low bits, ties to even.
        const MAGIC: f32 = 12_582_912.0;
        let zero = self.zero - MAGIC.to_bits() as i32;
        let (low, high) = self.bounds();
        let (codes, padding) = codes.as_flattened_mut().split_at_mut(x.len());
        padding.fill(0);
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
