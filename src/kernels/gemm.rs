//! The blocked integer product: five loops around a kernel, as in BLIS (Van Zee and van de Geijn, 2015).
//!
//! An output is `scale_a * (sum over groups of scale_w * product) + bias`, added up in the order of the groups with one
//! rounding an operation, so neither the instruction set nor the number of threads changes a bit.
//!
//! Panels are read from the second-level cache, where a row block of activations lies too; a tile goes down the whole
//! depth of a group, so sums stay in registers and no partial results are stored.
//!
//! Threads share rows, or, where there are too few, panels; small products stay on one.

use std::ops::Range;

use super::{
    isa::Job,
    kernel::{Aligned, EXACT_QUADS, Kernel, LANES, MAX_LINES, Tile},
    panels::PackedInt8,
    parallel,
    products::{Integer, Out, Output, Products},
    quantize::Activations,
};
use crate::error::{Error, Result};

/// Bytes of activations in a row block: a quarter of the usual second-level cache.
const ROW_BLOCK: usize = 1 << 18;

/// Multiplications that are worth a piece of their own (some 30 microseconds).
const PIECE: usize = 1 << 24;

/// Rows for which reading the weights takes as long as multiplying by them, and the least in a piece of rows.
const ROWS_TO_READ: usize = 16;

/// Pieces for each thread: so many that a thread which is taken away leaves little.
const PIECES: usize = 4;

impl PackedInt8 {
    /// `out = activations * weights^T + bias`, row-major, m by n.
    ///
    /// # Panics
    /// If the depths differ, `bias` or `out` have the wrong length, or code sums lack.
    pub(crate) fn matmul(&self, activations: &Activations, bias: Option<&[f32]>, out: &mut [f32]) {
        self.product(activations, bias, out);
    }

    /// The integers `sum (w - zero_w) (a - zero_a)`, row-major, m by n: what [`PackedInt8::matmul`] scales if there is
    /// one group.
    ///
    /// # Errors
    /// [`Error::Conflict`] if k and the zero points are so large that a sum may not fit 32 bits.
    ///
    /// # Panics
    /// If the depths differ, `out` has the wrong length, or code sums lack.
    pub(crate) fn matmul_i32(&self, activations: &Activations, out: &mut [i32]) -> Result<()> {
        if !fits_i32(self.depth().k(), self.reach(), activations.reach()) {
            let (k, reach) = (self.depth().k(), self.reach());
            let what = format!("k = {k} products of weights up to {reach} from their zero point may exceed 32 bits");
            return Err(Error::Conflict { what, remedy: "take the f32 product" });
        }
        self.product(activations, None, out);
        Ok(())
    }

    fn product<T: Output>(&self, activations: &Activations, bias: Option<&[T]>, out: &mut [T]) {
        assert_eq!(activations.depth(), self.depth());
        assert_eq!(activations.is_unsigned(), self.picks());
        assert!(activations.zero() == 0 || self.has_code_sums());
        assert_eq!(out.len(), activations.m() * self.n());
        if self.depth().k() == 0 {
            let bias = |column: usize| bias.map_or(T::default(), |bias| bias[column]);
            out.iter_mut().enumerate().for_each(|(i, out)| *out = T::default().ended(1.0, bias(i % self.n())));
        } else if !out.is_empty() {
            self.isa().run(Product { weights: self, activations, bias, out });
        }
    }
}

/// Whether a sum of `k` products of factors up to `w` and `a` fits an `i32`, and with it all that leads there: what
/// wraps on the way wraps back.
fn fits_i32(k: usize, w: u32, a: u32) -> bool {
    k as u128 * u128::from(w) * u128::from(a) <= i32::MAX as u128
}

struct Product<'a, T> {
    weights: &'a PackedInt8,
    activations: &'a Activations,
    bias: Option<&'a [T]>,
    out: &'a mut [T],
}

impl<T: Output> Job for Product<'_, T> {
    type Output = ();

    fn run<K: Kernel>(self, kernel: K) {
        let Product { weights, activations, bias, out } = self;
        let (m, n, depth) = (activations.m(), weights.n(), weights.depth());
        let exact = fits_i32(depth.group_size(), weights.reach(), activations.reach())
            && depth.group_size().div_ceil(4) <= EXACT_QUADS;
        let bias = bias.unwrap_or_default();
        let run = |piece: Piece<T>| {
            kernel.vectorize(
                #[inline(always)]
                || match exact {
                    true => piece.run::<K, i32>(kernel, weights, activations, bias),
                    false => piece.run::<K, i64>(kernel, weights, activations, bias),
                },
            );
        };
        let panels = 0..weights.panels();
        let work = m.max(ROWS_TO_READ).saturating_mul(n).saturating_mul(depth.k());
        let pieces = (work / PIECE).min(PIECES * parallel::threads());
        if parallel::threads() == 1 || pieces < 2 {
            run(Piece { rows: 0..m, panels, out, stride: n });
        } else if m >= ROWS_TO_READ * parallel::threads() {
            let rows = m.div_ceil(pieces).max(ROWS_TO_READ).next_multiple_of(K::ROWS);
            let piece = Piece { rows: 0..m, panels, out, stride: n };
            parallel::divide(piece, m.div_ceil(rows), |piece, pieces| piece.halve_rows(pieces * rows), run);
        } else {
            // Whole panels one after the other, as far as outputs of several rows would not lie together.
            let each = panels.len().div_ceil(pieces);
            let pieces = panels.len().div_ceil(each);
            let columns = each * weights.in_panel();
            let divide = |out: &mut [T]| {
                parallel::divide(
                    Piece { rows: 0..m, panels, out, stride: n },
                    pieces,
                    |piece, pieces| piece.halve_panels(pieces * each, pieces * columns * m),
                    |piece| run(Piece { stride: piece.out.len() / m, ..piece }),
                );
            };
            if m == 1 {
                return divide(out);
            }
            T::with_room(m * n, |room| {
                divide(room);
                for (piece, room) in room.chunks(m * columns).enumerate() {
                    let width = room.len() / m;
                    for (out, room) in out.chunks_exact_mut(n).zip(room.chunks_exact(width)) {
                        out[piece * columns..][..width].copy_from_slice(room);
                    }
                }
            });
        }
    }
}

/// The part of the output where some rows meet some panels.
struct Piece<'a, T> {
    rows: Range<usize>,
    panels: Range<usize>,
    /// Its rows are `stride` apart.
    out: &'a mut [T],
    stride: usize,
}

impl<'a, T: Output> Piece<'a, T> {
    fn halve_rows(self, rows: usize) -> (Self, Self) {
        let middle = self.rows.start + rows;
        let (first, second) = self.out.split_at_mut(rows * self.stride);
        let panels = self.panels.clone();
        let first = Piece { rows: self.rows.start..middle, panels, out: first, stride: self.stride };
        (first, Piece { rows: middle..self.rows.end, out: second, ..self })
    }

    fn halve_panels(self, panels: usize, outputs: usize) -> (Self, Self) {
        let middle = self.panels.start + panels;
        let (first, second) = self.out.split_at_mut(outputs);
        let rows = self.rows.clone();
        let first = Piece { rows, panels: self.panels.start..middle, out: first, stride: self.stride };
        (first, Piece { panels: middle..self.panels.end, out: second, ..self })
    }

    #[inline(always)]
    fn run<K: Kernel, P: Integer>(self, kernel: K, weights: &PackedInt8, activations: &Activations, bias: &[T]) {
        let Piece { rows, panels, out, stride } = self;
        let depth = weights.depth();
        let Aligned(sums) = &mut Aligned([[P::from(0); LANES]; MAX_LINES]);
        let Aligned(totals) = &mut Aligned([[T::default(); LANES]; MAX_LINES]);

        let rows_of_tile = match depth.groups() {
            2.. => K::GROUPED_ROWS,
            _ if weights.picks() => K::PICKED_ROWS,
            _ => K::ROWS,
        };

        // LOOP 5 and 4 were the threads': rows here are cut again, into blocks that stay in the cache.
        let block = (ROW_BLOCK / (4 * depth.quads())).max(1).next_multiple_of(rows_of_tile);
        for block in rows.clone().step_by(block).map(|start| start..rows.end.min(start + block)) {
            // LOOP 3 over panels: the weights of one stay near.
            for panel in panels.clone() {
                let first_output = panel * weights.in_panel();
                let column = first_output - panels.start * weights.in_panel();
                let width = weights.width(panel);
                let columns = weights.columns(panel);
                let bias = bias.get(first_output..first_output + columns).unwrap_or_default();
                // LOOP 2 over tiles of rows; the kernel goes down the depth of each, LOOP 1.
                for first in block.clone().step_by(rows_of_tile) {
                    let tile_rows = first..block.end.min(first + rows_of_tile);
                    let lines = tile_rows.len() * width;
                    let tile = Tile {
                        quads: activations.quads(tile_rows.clone()),
                        stride: depth.quads(),
                        rows: tile_rows.len(),
                        groups: depth.groups(),
                        group: depth.group_size().div_ceil(4),
                        panel: weights.lines(panel),
                        lines: width,
                        bits: weights.bits(),
                        fresh: first == block.start,
                    };
                    let mut products = Products {
                        sums: &mut sums[..lines],
                        totals: &mut totals[..lines],
                        grid: weights.grid(panel),
                        row_sums: activations.sums(tile_rows.clone()),
                        zero_a: activations.zero(),
                        scales: activations.scales(tile_rows),
                        bias,
                    };
                    let out = &mut out[(first - rows.start) * stride + column..];
                    P::finish(kernel, &tile, &mut products, &mut Out { out, stride, columns });
                }
            }
        }
    }
}
