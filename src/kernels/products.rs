//! From a kernel's sums to numbers: the zero points taken out, scaled, added up over groups.
//!
//! Weights `w` are unsigned codes with a zero point for each output and group, activations `a` signed codes with one
//! zero point. A group's product is
//!
//! `sum (w - zero_w) (a - zero_a) = sum w a - zero_w * sum a - zero_a * (sum w - inputs * zero_w)`
//!
//! in 32 bits if the product surely fits (what wraps on the way wraps back), else in 64.

use std::{cell::Cell, thread::LocalKey};

use num_traits::{AsPrimitive, WrappingMul, WrappingSub};

use super::kernel::{EXACT_QUADS, Kernel, LANES, Lanes, MAX_LINES, Tile};

/// The grid of one group of sixteen outputs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GridLine {
    pub(super) scale: Lanes<f32>,
    pub(super) zero: Lanes<i32>,
    /// The sum of the group's codes.
    pub(super) code_sum: Lanes<i32>,
}

/// The products of a tile and one group.
pub(super) struct Products<'a, P> {
    /// `[row][line]`: `sum w a`
    pub(super) sums: &'a mut [Lanes<P>],
    /// `[line]`
    pub(super) grid: &'a [GridLine],
    pub(super) shift: Shift<'a, P>,
}

/// What the zero points take from the sums.
#[derive(Clone, Copy)]
pub(super) enum Shift<'a, P> {
    /// `[row]`: `zero_w * sum a`, where all outputs have one zero point and activations none.
    Rows(&'a [P]),
    /// `[row]`: `sum a`; and `[line]`: `zero_a * (sum w - inputs * zero_w)`, of [`GridLine::offset`].
    Lanes(&'a [P], &'a [Lanes<P>]),
}

/// What makes outputs of a tile's products, when those of the last group are there.
pub(super) struct Ending<'a, T> {
    /// `[row][line]`: of the groups before, if there are any.
    pub(super) totals: Option<&'a [Lanes<T>]>,
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

impl GridLine {
    /// What the activations' zero point adds, whatever the row.
    #[inline(always)]
    pub(super) fn offset<P: Integer>(&self, inputs: usize, zero_a: i32) -> Lanes<P> {
        let (inputs, zero_a) = (P::from(inputs as i32), P::from(zero_a));
        let mut offset = [P::from(0); LANES];
        for (offset, (code_sum, zero)) in offset.iter_mut().zip(self.code_sum.iter().zip(self.zero)) {
            *offset = P::from(*code_sum).wrapping_sub(&inputs.wrapping_mul(&zero.into())).wrapping_mul(&zero_a);
        }
        offset
    }
}

impl<P: Integer> Products<'_, P> {
    /// The product of a row and a line.
    #[inline(always)]
    fn product(&self, row: usize, line: usize) -> Lanes<P> {
        let (sums, zero) = (&self.sums[row * self.grid.len() + line], &self.grid[line].zero);
        let mut product = [P::from(0); LANES];
        for lane in 0..LANES {
            product[lane] = match self.shift {
                Shift::Rows(shifts) => sums[lane].wrapping_sub(&shifts[row]),
                Shift::Lanes(row_sums, offsets) => {
                    let of_zero_w = P::from(zero[lane]).wrapping_mul(&row_sums[row]);
                    sums[lane].wrapping_sub(&of_zero_w).wrapping_sub(&offsets[line][lane])
                }
            };
        }
        product
    }

    /// The total of a row and a line, with this group's product.
    #[inline(always)]
    fn total<T: Output>(&self, row: usize, line: usize, totals: Option<&[Lanes<T>]>) -> Lanes<T> {
        let (product, scale) = (self.product(row, line), &self.grid[line].scale);
        let mut total = totals.map_or([T::default(); LANES], |totals| totals[row * self.grid.len() + line]);
        for lane in 0..LANES {
            total[lane] = total[lane].plus(scale[lane], product[lane]);
        }
        total
    }

    /// The rows of the tile.
    #[inline(always)]
    fn rows(&self) -> usize {
        self.sums.len() / self.grid.len()
    }

    /// [`Kernel::add`], plainly, when the sums are there.
    #[inline(always)]
    pub(super) fn add<T: Output>(&self, totals: &mut [Lanes<T>]) {
        for row in 0..self.rows() {
            for line in 0..self.grid.len() {
                totals[row * self.grid.len() + line] = self.total(row, line, Some(totals));
            }
        }
    }

    /// [`Kernel::finish`], plainly, when the sums are there.
    #[inline(always)]
    pub(super) fn finish<T: Output>(&self, ending: &Ending<T>, out: &mut Out<T>) {
        for (row, out_row) in out.out.chunks_mut(out.stride).take(self.rows()).enumerate() {
            let out_row = &mut out_row[..out.columns];
            for (line, out) in out_row.chunks_mut(LANES).enumerate() {
                let total = self.total(row, line, ending.totals);
                let bias = ending.bias.get(line * LANES..).unwrap_or_default();
                let mut ended = [T::default(); LANES];
                ended[..bias.len().min(LANES)].copy_from_slice(&bias[..bias.len().min(LANES)]);
                for lane in 0..LANES {
                    ended[lane] = total[lane].ended(ending.scales[row], ended[lane]);
                }
                out.copy_from_slice(&ended[..out.len()]);
            }
        }
    }
}

/// An integer for products.
pub(super) trait Integer: From<i32> + WrappingMul + WrappingSub + AsPrimitive<f32> + AsPrimitive<i32> {
    /// [`Kernel::add`].
    fn add<K: Kernel, T: Output>(kernel: K, tile: &Tile, products: &mut Products<Self>, totals: &mut [Lanes<T>]);

    /// [`Kernel::finish`], or [`Kernel::finish_i32`].
    fn finish<K: Kernel, T: Output>(
        kernel: K,
        tile: &Tile,
        products: &mut Products<Self>,
        ending: &Ending<T>,
        out: &mut Out<T>,
    );
}

/// For groups of at most [`EXACT_QUADS`] whose products fit.
impl Integer for i32 {
    #[inline(always)]
    fn add<K: Kernel, T: Output>(kernel: K, tile: &Tile, products: &mut Products<i32>, totals: &mut [Lanes<T>]) {
        T::add(kernel, tile, products, totals);
    }

    #[inline(always)]
    fn finish<K: Kernel, T: Output>(
        kernel: K,
        tile: &Tile,
        products: &mut Products<i32>,
        ending: &Ending<T>,
        out: &mut Out<T>,
    ) {
        T::finish(kernel, tile, products, ending, out);
    }
}

/// For any group.
impl Integer for i64 {
    fn add<K: Kernel, T: Output>(kernel: K, tile: &Tile, products: &mut Products<i64>, totals: &mut [Lanes<T>]) {
        sum_in_parts(kernel, tile, products.sums);
        products.add(totals);
    }

    fn finish<K: Kernel, T: Output>(
        kernel: K,
        tile: &Tile,
        products: &mut Products<i64>,
        ending: &Ending<T>,
        out: &mut Out<T>,
    ) {
        sum_in_parts(kernel, tile, products.sums);
        products.finish(ending, out);
    }
}

/// [`Kernel::tile`], as many quads at a time as surely fit.
fn sum_in_parts<K: Kernel>(kernel: K, tile: &Tile, sums: &mut [Lanes<i64>]) {
    sums.fill([0; LANES]);
    let mut partial = [[0; LANES]; MAX_LINES];
    let partial = &mut partial[..sums.len()];
    for (part, panel) in tile.panel.chunks(EXACT_QUADS * tile.lines).enumerate() {
        kernel.tile(&Tile { quads: &tile.quads[part * EXACT_QUADS..], panel, ..*tile }, partial);
        for (sum, partial) in sums.as_flattened_mut().iter_mut().zip(partial.as_flattened()) {
            *sum += i64::from(*partial);
        }
    }
}

/// What products add up to: numbers, or plain integers.
pub(super) trait Output: Copy + Default + Send + Sync {
    fn add<K: Kernel>(kernel: K, tile: &Tile, products: &mut Products<i32>, totals: &mut [Lanes<Self>]);

    fn finish<K: Kernel>(
        kernel: K,
        tile: &Tile,
        products: &mut Products<i32>,
        ending: &Ending<Self>,
        out: &mut Out<Self>,
    );

    /// Calls `f` with so much room, which is kept for the thread's next call.
    fn with_room<R>(length: usize, f: impl FnOnce(&mut [Self]) -> R) -> R;

    /// This total and one more product.
    fn plus<P: Integer>(self, scale_w: f32, product: P) -> Self;

    /// The output that this total comes to.
    fn ended(self, scale_a: f32, bias: Self) -> Self;
}

impl Output for f32 {
    #[inline(always)]
    fn add<K: Kernel>(kernel: K, tile: &Tile, products: &mut Products<i32>, totals: &mut [Lanes<f32>]) {
        kernel.add(tile, products, totals);
    }

    #[inline(always)]
    fn finish<K: Kernel>(
        kernel: K,
        tile: &Tile,
        products: &mut Products<i32>,
        ending: &Ending<f32>,
        out: &mut Out<f32>,
    ) {
        kernel.finish(tile, products, ending, out);
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
    fn add<K: Kernel>(kernel: K, tile: &Tile, products: &mut Products<i32>, totals: &mut [Lanes<i32>]) {
        kernel.tile(tile, products.sums);
        products.add(totals);
    }

    #[inline(always)]
    fn finish<K: Kernel>(
        kernel: K,
        tile: &Tile,
        products: &mut Products<i32>,
        ending: &Ending<i32>,
        out: &mut Out<i32>,
    ) {
        kernel.finish_i32(tile, products, ending, out);
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
