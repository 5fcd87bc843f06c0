//! From a kernel's sums to numbers: the zero points taken out, scaled, added up over groups.
//!
//! Weights `w` are unsigned codes with a zero point for each output and group, activations `a` signed codes with one
//! zero point. A group's product is
//!
//! `sum (w - zero_w) (a - zero_a) = sum w a + zero_w * sum (zero_a - a) - zero_a * sum w`
//!
//! in 32 bits if the product surely fits (what wraps on the way wraps back), else in 64.

use std::{cell::Cell, thread::LocalKey};

use num_traits::{AsPrimitive, WrappingAdd, WrappingMul, WrappingSub};

use super::{
    grid::PanelGrid,
    kernel::{EXACT_QUADS, FloatLine, Kernel, LANES, Lanes, MAX_LINES, Stretch, Tile},
};

/// What makes outputs of a tile's sums.
pub(super) struct Products<'a, P, T> {
    /// `[row][line]`: room that need not be used.
    pub(super) sums: &'a mut [Lanes<P>],
    pub(super) totals: &'a mut [Lanes<T>],
    pub(super) grid: PanelGrid<'a>,
    /// `[row][group]`: `sum (zero_a - a)`
    pub(super) row_sums: &'a [i32],
    pub(super) zero_a: i32,
    /// `[row]`: the scales of activations
    pub(super) scales: &'a [f32],
    /// From the tile's first output on; 0 where it ends.
    pub(super) bias: &'a [T],
}

/// Where the outputs of a tile go.
pub(super) struct Out<'a, T> {
    /// From the tile's first output on: rows `stride` apart.
    pub(super) out: &'a mut [T],
    pub(super) stride: usize,
    /// Outputs in a row, at least one in the last line.
    pub(super) columns: usize,
}

impl<P: Integer, T: Output> Products<'_, P, T> {
    /// The product of a row, a group and a line.
    #[inline(always)]
    fn product(&self, tile: &Tile, row: usize, group: usize, line: usize) -> Lanes<P> {
        let row_sum = P::from(self.row_sums[row * tile.groups + group]);
        let zeros = self.grid.zeros(group * tile.lines + line);
        let mut product = self.sums[row * tile.lines + line];
        for (product, zero) in product.iter_mut().zip(zeros) {
            *product = product.wrapping_add(&P::from(zero).wrapping_mul(&row_sum));
        }
        if self.zero_a != 0 {
            let zero_a = P::from(self.zero_a);
            for (product, code_sum) in product.iter_mut().zip(self.grid.code_sums[group * tile.lines + line]) {
                *product = product.wrapping_sub(&P::from(code_sum).wrapping_mul(&zero_a));
            }
        }
        product
    }

    /// [`Kernel::finish`], plainly; `sum` is [`Kernel::tile`] for a group.
    #[inline(always)]
    pub(super) fn finish(&mut self, tile: &Tile, mut sum: impl FnMut(&Stretch, &mut [Lanes<P>]), out: &mut Out<T>) {
        self.totals.fill([T::default(); LANES]);
        for group in 0..tile.groups {
            sum(&tile.stretch(group), self.sums);
            for row in 0..tile.rows {
                for line in 0..tile.lines {
                    let product = self.product(tile, row, group, line);
                    let FloatLine(scales) = &self.grid.scales[group * tile.lines + line];
                    let total = &mut self.totals[row * tile.lines + line];
                    for lane in 0..LANES {
                        total[lane] = total[lane].plus(scales[lane], product[lane]);
                    }
                }
            }
        }
        for (row, out_row) in out.out.chunks_mut(out.stride).take(tile.rows).enumerate() {
            let out_row = &mut out_row[..out.columns];
            for (line, out) in out_row.chunks_mut(LANES).enumerate() {
                let total = &self.totals[row * tile.lines + line];
                let bias = self.bias.get(line * LANES..).unwrap_or_default();
                let mut ended = [T::default(); LANES];
                ended[..bias.len().min(LANES)].copy_from_slice(&bias[..bias.len().min(LANES)]);
                for lane in 0..LANES {
                    ended[lane] = total[lane].ended(self.scales[row], ended[lane]);
                }
                out.copy_from_slice(&ended[..out.len()]);
            }
        }
    }
}

/// An integer for products.
pub(super) trait Integer:
    From<i32> + WrappingAdd + WrappingMul + WrappingSub + AsPrimitive<f32> + AsPrimitive<i32>
{
    /// [`Kernel::finish`], or [`Kernel::finish_i32`].
    fn finish<K: Kernel, T: Output>(kernel: K, tile: &Tile, products: &mut Products<Self, T>, out: &mut Out<T>);
}

/// For groups of at most [`EXACT_QUADS`] whose products fit.
impl Integer for i32 {
    #[inline(always)]
    fn finish<K: Kernel, T: Output>(kernel: K, tile: &Tile, products: &mut Products<i32, T>, out: &mut Out<T>) {
        T::finish(kernel, tile, products, out);
    }
}

/// For any group.
impl Integer for i64 {
    fn finish<K: Kernel, T: Output>(kernel: K, tile: &Tile, products: &mut Products<i64, T>, out: &mut Out<T>) {
        products.finish(tile, |stretch, sums| sum_in_parts(kernel, tile, stretch, sums), out);
    }
}

/// [`Kernel::tile`], as many quads at a time as surely fit.
fn sum_in_parts<K: Kernel>(kernel: K, tile: &Tile, stretch: &Stretch, sums: &mut [Lanes<i64>]) {
    sums.fill([0; LANES]);
    let mut partial = [[0; LANES]; MAX_LINES];
    let partial = &mut partial[..sums.len()];
    for done in (0..stretch.quads).step_by(EXACT_QUADS) {
        let (first, place) = (stretch.first + done, stretch.place + tile.bits.lines(done));
        let quads = EXACT_QUADS.min(stretch.quads - done);
        kernel.tile(tile, &Stretch { first, quads, place }, partial);
        for (sum, partial) in sums.as_flattened_mut().iter_mut().zip(partial.as_flattened()) {
            *sum += i64::from(*partial);
        }
    }
}

/// What products add up to: numbers, or plain integers.
pub(super) trait Output: Copy + Default + Send + Sync {
    /// [`Kernel::finish`], or [`Kernel::finish_i32`].
    fn finish<K: Kernel>(kernel: K, tile: &Tile, products: &mut Products<i32, Self>, out: &mut Out<Self>);

    /// Calls `f` with so much room, which is kept for the thread's next call.
    fn with_room<R>(length: usize, f: impl FnOnce(&mut [Self]) -> R) -> R;

    /// This total and one more product.
    fn plus<P: Integer>(self, scale_w: f32, product: P) -> Self;

    /// The output that this total comes to.
    fn ended(self, scale_a: f32, bias: Self) -> Self;
}

impl Output for f32 {
    #[inline(always)]
    fn finish<K: Kernel>(kernel: K, tile: &Tile, products: &mut Products<i32, f32>, out: &mut Out<f32>) {
        kernel.finish(tile, products, out);
    }

    fn with_room<R>(length: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
        thread_local!(static ROOM: Cell<Vec<f32>> = const { Cell::new(Vec::new()) });
        with_room(&ROOM, length, f)
    }

    #[inline(always)]
    fn plus<P: Integer>(self, scale_w: f32, product: P) -> f32 {
        scale_w.mul_add(product.as_(), self)
    }

    #[inline(always)]
    fn ended(self, scale_a: f32, bias: f32) -> f32 {
        self.mul_add(scale_a, bias)
    }
}

impl Output for i32 {
    #[inline(always)]
    fn finish<K: Kernel>(kernel: K, tile: &Tile, products: &mut Products<i32, i32>, out: &mut Out<i32>) {
        kernel.finish_i32(tile, products, out);
    }

    fn with_room<R>(length: usize, f: impl FnOnce(&mut [i32]) -> R) -> R {
        thread_local!(static ROOM: Cell<Vec<i32>> = const { Cell::new(Vec::new()) });
        with_room(&ROOM, length, f)
    }

    #[inline(always)]
    fn plus<P: Integer>(self, _: f32, product: P) -> i32 {
        self.wrapping_add(product.as_())
    }

    #[inline(always)]
    fn ended(self, _: f32, bias: i32) -> i32 {
        self.wrapping_add(bias)
    }
}

fn with_room<T: Copy + Default, R>(
    room: &'static LocalKey<Cell<Vec<T>>>,
    length: usize,
    f: impl FnOnce(&mut [T]) -> R,
) -> R {
    let mut kept = room.take();
    kept.resize(length.max(kept.len()), T::default());
    let result = f(&mut kept[..length]);
    room.set(kept);
    result
}
