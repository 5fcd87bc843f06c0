//! From a kernel's sums to numbers: the zero points taken out, scaled, added up over groups.
//!
//! Weights `w` are unsigned codes with a zero point for each output and group, activations `a` signed codes with one
//! zero point. A group's product is
//!
//! `sum (w - zero_w) (a - zero_a) = sum w a - zero_w * sum a - zero_a * (sum w - inputs * zero_w)`
//!
//! in 32 bits if the product surely fits (what wraps on the way wraps back), else in 64.

use num_traits::{AsPrimitive, WrappingMul, WrappingSub};

use super::kernel::{EXACT_QUADS, Kernel, LANES, Lanes, Line, MAX_LINES, Quad};

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
    pub(super) sums: &'a [Lanes<P>],
    /// `[row]`: `sum a`
    pub(super) row_sums: &'a [P],
    /// `[line]`
    pub(super) grid: &'a [GridLine],
    /// `[line]`: `zero_a * (sum w - inputs * zero_w)`, of [`GridLine::offset`]
    pub(super) offsets: &'a [Lanes<P>],
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
    /// Calls `add` with each total, its scale and its product.
    #[inline(always)]
    fn add<T>(&self, totals: &mut [Lanes<T>], add: impl Fn(&mut T, f32, P)) {
        let lines = self.grid.len();
        let rows = self.sums.chunks_exact(lines).zip(totals.chunks_exact_mut(lines));
        for ((sums, totals), row_sum) in rows.zip(self.row_sums) {
            let lines = sums.iter().zip(totals).zip(self.grid.iter().zip(self.offsets));
            for ((sums, totals), (grid, offset)) in lines {
                for (lane, total) in totals.iter_mut().enumerate() {
                    let of_zero_w = P::from(grid.zero[lane]).wrapping_mul(row_sum);
                    let product = sums[lane].wrapping_sub(&of_zero_w).wrapping_sub(&offset[lane]);
                    add(total, grid.scale[lane], product);
                }
            }
        }
    }

    /// [`Kernel::add_scaled`], plainly.
    #[inline(always)]
    pub(super) fn add_scaled(&self, totals: &mut [Lanes<f32>]) {
        self.add(totals, |total, scale, product| *total += scale * AsPrimitive::<f32>::as_(product));
    }
}

/// An integer for products.
pub(super) trait Integer: From<i32> + WrappingMul + WrappingSub + AsPrimitive<f32> + AsPrimitive<i32> {
    /// [`Kernel::tile`].
    fn tile<K: Kernel>(kernel: K, rows: &[&[Quad]], first: usize, panel: &[Line], sums: &mut [Lanes<Self>]);

    /// [`Kernel::add_scaled`].
    fn add_scaled<K: Kernel>(kernel: K, products: &Products<Self>, totals: &mut [Lanes<f32>]);
}

/// For groups of at most [`EXACT_QUADS`] whose products fit.
impl Integer for i32 {
    #[inline(always)]
    fn tile<K: Kernel>(kernel: K, rows: &[&[Quad]], first: usize, panel: &[Line], sums: &mut [Lanes<i32>]) {
        kernel.tile(rows, first, panel, sums);
    }

    #[inline(always)]
    fn add_scaled<K: Kernel>(kernel: K, products: &Products<i32>, totals: &mut [Lanes<f32>]) {
        kernel.add_scaled(products, totals);
    }
}

/// For any group.
impl Integer for i64 {
    fn tile<K: Kernel>(kernel: K, rows: &[&[Quad]], first: usize, panel: &[Line], sums: &mut [Lanes<i64>]) {
        sums.fill([0; LANES]);
        let lines = sums.len() / rows.len();
        let mut partial = [[0; LANES]; MAX_LINES];
        let partial = &mut partial[..sums.len()];
        for (part, panel) in panel.chunks(EXACT_QUADS * lines).enumerate() {
            kernel.tile(rows, first + part * EXACT_QUADS, panel, partial);
            for (sum, partial) in sums.as_flattened_mut().iter_mut().zip(partial.as_flattened()) {
                *sum += i64::from(*partial);
            }
        }
    }

    fn add_scaled<K: Kernel>(_: K, products: &Products<i64>, totals: &mut [Lanes<f32>]) {
        products.add_scaled(totals);
    }
}

/// What products add up to: numbers, or plain integers.
pub(super) trait Output: Copy + Default + Send + Sync {
    fn add<K: Kernel, P: Integer>(kernel: K, products: &Products<P>, totals: &mut [Lanes<Self>]);

    fn finish(total: Self, scale_a: f32, bias: Self) -> Self;
}

impl Output for f32 {
    #[inline(always)]
    fn add<K: Kernel, P: Integer>(kernel: K, products: &Products<P>, totals: &mut [Lanes<f32>]) {
        P::add_scaled(kernel, products, totals);
    }

    #[inline(always)]
    fn finish(total: f32, scale_a: f32, bias: f32) -> f32 {
        total * scale_a + bias
    }
}

impl Output for i32 {
    #[inline(always)]
    fn add<K: Kernel, P: Integer>(_: K, products: &Products<P>, totals: &mut [Lanes<i32>]) {
        products.add(totals, |total, _, product| *total = total.wrapping_add(product.as_()));
    }

    #[inline(always)]
    fn finish(total: i32, _: f32, _: i32) -> i32 {
        total
    }
}
