//! The blocked integer product: five loops around a kernel, as in BLIS (Van Zee and van de Geijn, 2015).
//!
//! An output is `scale_a * (sum over groups of scale_w * product) + bias`, added up in the order of the groups with one
//! rounding an operation, so neither the instruction set nor the number of threads changes a bit.
//!
//! Panels are read from the second-level cache, where a row block of activations lies too; a tile goes down the whole
//! depth of a group, so sums stay in registers and no partial results are stored.

use std::ops::Range;

use super::{
    isa::Job,
    kernel::{EXACT_QUADS, Kernel, LANES, MAX_LINES, MAX_ROWS, Tile},
    panels::PackedInt8,
    parallel,
    products::{Ending, Integer, Output, Products},
    quantize::Activations,
};
use crate::error::{Error, Result};

/// Bytes of activations in a row block: a quarter of the usual second-level cache.
const ROW_BLOCK: usize = 1 << 18;

/// Multiplications that are worth a piece of their own (some 50 microseconds).
const PIECE: usize = 1 << 25;

/// Rows for which reading the weights takes as long as multiplying by them.
const ROWS_TO_READ: usize = 16;

impl PackedInt8 {
    /// `out = activations * weights^T + bias`, row-major, m by n.
    ///
    /// # Panics
    /// If the depths differ, or `bias` or `out` have the wrong length.
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
    /// If the depths differ, or `out` has the wrong length.
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
        let columns_in_panel = K::LINES * LANES;

        // Row blocks of equal size, a multiple of the tile, that stay in the cache; then as many panels as make a
        // piece worth its start.
        let blocks = m.div_ceil((ROW_BLOCK / (4 * depth.quads().max(1))).max(K::ROWS));
        let rows = m.div_ceil(blocks).next_multiple_of(K::ROWS);
        let work = rows.max(ROWS_TO_READ) * columns_in_panel * 4 * depth.quads().max(1);
        let panels = PIECE.div_ceil(work).min(weights.panels());

        // LOOP 5 over row blocks and LOOP 4 over blocks of panels, in any order, on any thread.
        let mut pieces: Vec<Piece<T>> = Vec::new();
        for (block, out) in out.chunks_mut(rows * n).enumerate() {
            let first = pieces.len();
            let starts = (0..weights.panels()).step_by(panels);
            pieces.extend(starts.map(|panel| Piece {
                row: block * rows,
                panels: panel..(panel + panels).min(weights.panels()),
                out: Vec::with_capacity(rows),
            }));
            for row in out.chunks_mut(n) {
                let parts = row.chunks_mut(panels * columns_in_panel);
                pieces[first..].iter_mut().zip(parts).for_each(|(piece, part)| piece.out.push(part));
            }
        }
        let bias = bias.unwrap_or_default();
        let exact = fits_i32(depth.group_size(), weights.reach(), activations.reach())
            && depth.group_size().div_ceil(4) <= EXACT_QUADS;
        parallel::for_each_chunk_mut(&mut pieces, 1, |_, pieces| {
            for piece in pieces {
                kernel.vectorize(
                    #[inline(always)]
                    || match exact {
                        true => piece.run::<K, i32>(kernel, weights, activations, bias),
                        false => piece.run::<K, i64>(kernel, weights, activations, bias),
                    },
                );
            }
        });
    }
}

/// The part of the output where a row block meets a block of panels.
struct Piece<'a, T> {
    row: usize,
    panels: Range<usize>,
    /// A slice for each row.
    out: Vec<&'a mut [T]>,
}

impl<T: Output> Piece<'_, T> {
    #[inline(always)]
    fn run<K: Kernel, P: Integer>(&mut self, kernel: K, weights: &PackedInt8, activations: &Activations, bias: &[T]) {
        let (depth, groups) = (weights.depth(), weights.depth().groups());
        let mut sums = [[P::from(0); LANES]; MAX_LINES];
        let mut offsets = [[P::from(0); LANES]; MAX_LINES];
        let mut totals = [[T::default(); LANES]; MAX_LINES];
        // LOOP 3 over panels: the weights of one stay near.
        for panel in self.panels.clone() {
            let column = (panel - self.panels.start) * K::LINES * LANES;
            let width = weights.width(panel);
            let bias = bias.get(panel * K::LINES * LANES..).unwrap_or_default();
            // LOOP 2 over tiles of rows.
            for (tile, out) in self.out.chunks_mut(K::ROWS).enumerate() {
                let first = self.row + tile * K::ROWS;
                let quads_of_rows = activations.quads(first..first + out.len());
                let sums = &mut sums[..out.len() * width];
                let totals = &mut totals[..sums.len()];
                if groups > 1 {
                    totals.fill([T::default(); LANES]);
                }
                // LOOP 1 over the groups of the depth; the kernel goes down each.
                for group in 0..groups {
                    let (inputs, quads) = depth.group(group);
                    let tile = Tile {
                        quads: &quads_of_rows[quads.start..],
                        stride: depth.quads(),
                        rows: out.len(),
                        panel: weights.lines(panel, quads),
                        lines: width,
                    };
                    let mut row_sums = [P::from(0); MAX_ROWS];
                    for (row_sum, index) in row_sums.iter_mut().zip(first..first + out.len()) {
                        *row_sum = activations.row_sum(index, group).into();
                    }
                    let grid = weights.grid(panel, group);
                    if activations.zero() != 0 {
                        for (offset, grid) in offsets.iter_mut().zip(grid) {
                            *offset = grid.offset(inputs.len(), activations.zero());
                        }
                    }
                    let row_sums = &row_sums[..out.len()];
                    let mut products = Products { sums, row_sums, grid, offsets: &offsets };
                    if group + 1 < groups {
                        P::tile(kernel, &tile, products.sums);
                        T::add(kernel, &products, totals);
                    } else {
                        let scales = activations.scales(first..first + out.len());
                        let ending = Ending { totals, scales, bias, column };
                        P::finish(kernel, &tile, &mut products, &ending, out);
                    }
                }
            }
        }
    }
}
