//! The AVX-512 tile: its sums stay in registers from what the zero points take to the outputs.

use std::arch::x86_64::*;

use super::{
    super::{Bytes64, Rows},
    Bytes4, first_of, load, load_some, store,
};
use crate::kernels::{
    kernel::{LANES, Lanes, Tile},
    products::{Ending, Out, Products, Shift},
};

/// What a tile's sums start from and what becomes of them, in registers both: inlined by force, which a function with
/// features of its own cannot be.
pub(super) trait End {
    /// # Safety
    /// The machine has AVX-512 F.
    unsafe fn start<const R: usize, const L: usize>(&self) -> [[__m512i; L]; R];

    /// # Safety
    /// The machine has AVX-512 F.
    unsafe fn end<const R: usize, const L: usize>(self, sums: [[__m512i; L]; R]);
}

/// They are stored as they are.
pub(super) struct Store<'a> {
    pub(super) sums: &'a mut [Lanes<i32>],
}

/// They are added to the totals.
pub(super) struct Add<'a, 'p> {
    pub(super) products: &'a Products<'p, i32>,
    pub(super) totals: &'a mut [Lanes<f32>],
}

/// They are made outputs.
pub(super) struct Finish<'a, 'p, 'o, T> {
    pub(super) products: &'a Products<'p, i32>,
    pub(super) ending: &'a Ending<'a, T>,
    pub(super) out: &'a mut Out<'o, T>,
}

impl End for Store<'_> {
    #[inline(always)]
    unsafe fn start<const R: usize, const L: usize>(&self) -> [[__m512i; L]; R] {
        // SAFETY: the caller has the features.
        unsafe { [[_mm512_setzero_si512(); L]; R] }
    }

    #[inline(always)]
    unsafe fn end<const R: usize, const L: usize>(self, sums: [[__m512i; L]; R]) {
        // SAFETY: the caller has the features.
        unsafe {
            for (to, sum) in self.sums[..R * L].iter_mut().zip(sums.as_flattened()) {
                store(to, *sum);
            }
        }
    }
}

impl End for Add<'_, '_> {
    #[inline(always)]
    unsafe fn start<const R: usize, const L: usize>(&self) -> [[__m512i; L]; R] {
        // SAFETY: the caller has the features.
        unsafe { shifted(self.products) }
    }

    #[inline(always)]
    unsafe fn end<const R: usize, const L: usize>(self, products: [[__m512i; L]; R]) {
        // SAFETY: the caller has the features.
        unsafe {
            let totals = self.totals[..R * L].as_chunks_mut::<L>().0;
            let scales = scales::<L>(self.products);
            for (totals, products) in totals.iter_mut().zip(products) {
                for ((total, product), scale) in totals.iter_mut().zip(products).zip(scales) {
                    store(total, f32::add(load(total), scale, product));
                }
            }
        }
    }
}

impl<T: Number> End for Finish<'_, '_, '_, T>
where
    Lanes<T>: Bytes64,
{
    #[inline(always)]
    unsafe fn start<const R: usize, const L: usize>(&self) -> [[__m512i; L]; R] {
        // SAFETY: the caller has the features.
        unsafe { shifted(self.products) }
    }

    #[inline(always)]
    unsafe fn end<const R: usize, const L: usize>(self, products: [[__m512i; L]; R]) {
        // SAFETY: the caller has the features.
        unsafe {
            let (scales_a, scales, bias) =
                (&self.ending.scales[..R], scales::<L>(self.products), bias::<_, L>(self.ending));
            let totals = self.ending.totals.map(|totals| totals[..R * L].as_chunks::<L>().0);
            let mut out = Places::<T, R, L>::new(self.out);
            for (row, products) in products.into_iter().enumerate() {
                for (line, product) in products.into_iter().enumerate() {
                    let before = match totals {
                        Some(totals) => load(&totals[row][line]),
                        None => _mm512_setzero_si512(),
                    };
                    let total = T::add(before, scales[line], product);
                    out.put(row, line, T::end(total, scales_a[row], bias[line]));
                }
            }
        }
    }
}

/// What outputs are: `Output`, sixteen at a time, their bits in a register whatever they mean.
trait Number: Bytes4 {
    /// A total and one more product.
    ///
    /// # Safety
    /// The machine has AVX-512 F.
    unsafe fn add(total: __m512i, scale_w: __m512, product: __m512i) -> __m512i;

    /// The outputs that totals come to.
    ///
    /// # Safety
    /// The machine has AVX-512 F.
    unsafe fn end(total: __m512i, scale_a: f32, bias: __m512i) -> __m512i;
}

impl Number for f32 {
    #[inline(always)]
    unsafe fn add(total: __m512i, scale_w: __m512, product: __m512i) -> __m512i {
        // SAFETY: the caller has the features.
        unsafe {
            let total = _mm512_fmadd_ps(scale_w, _mm512_cvtepi32_ps(product), _mm512_castsi512_ps(total));
            _mm512_castps_si512(total)
        }
    }

    #[inline(always)]
    unsafe fn end(total: __m512i, scale_a: f32, bias: __m512i) -> __m512i {
        // SAFETY: the caller has the features.
        unsafe {
            let (total, bias) = (_mm512_castsi512_ps(total), _mm512_castsi512_ps(bias));
            _mm512_castps_si512(_mm512_fmadd_ps(total, _mm512_set1_ps(scale_a), bias))
        }
    }
}

impl Number for i32 {
    #[inline(always)]
    unsafe fn add(total: __m512i, _: __m512, product: __m512i) -> __m512i {
        // SAFETY: the caller has the features.
        unsafe { _mm512_add_epi32(total, product) }
    }

    #[inline(always)]
    unsafe fn end(total: __m512i, _: f32, bias: __m512i) -> __m512i {
        // SAFETY: the caller has the features.
        unsafe { _mm512_add_epi32(total, bias) }
    }
}

/// What the zero points take, taken before there are sums.
///
/// # Safety
/// The machine has AVX-512 F.
#[inline(always)]
unsafe fn shifted<const R: usize, const L: usize>(products: &Products<i32>) -> [[__m512i; L]; R] {
    // SAFETY: the caller has the features.
    unsafe {
        let mut starts = [[_mm512_setzero_si512(); L]; R];
        match products.shift {
            Shift::Rows(shifts) => {
                for (starts, shift) in starts.iter_mut().zip(&shifts[..R]) {
                    *starts = [_mm512_set1_epi32(shift.wrapping_neg()); L];
                }
            }
            Shift::Lanes(row_sums, offsets) => {
                let (grid, offsets) = (&products.grid[..L], &offsets[..L]);
                for (starts, row_sum) in starts.iter_mut().zip(&row_sums[..R]) {
                    let row_sum = _mm512_set1_epi32(row_sum.wrapping_neg());
                    for (line, start) in starts.iter_mut().enumerate() {
                        let of_zero_w = _mm512_mullo_epi32(load(&grid[line].zero), row_sum);
                        *start = _mm512_sub_epi32(of_zero_w, load(&offsets[line]));
                    }
                }
            }
        }
        starts
    }
}

/// The scales of a group's weights.
///
/// # Safety
/// The machine has AVX-512 F.
#[inline(always)]
unsafe fn scales<const L: usize>(products: &Products<i32>) -> [__m512; L] {
    // SAFETY: the caller has the features.
    unsafe {
        let mut scales = [_mm512_setzero_ps(); L];
        for (scale, grid) in scales.iter_mut().zip(&products.grid[..L]) {
            *scale = _mm512_castsi512_ps(load(&grid.scale));
        }
        scales
    }
}

/// The bias of a tile's outputs, 0 where it ends.
///
/// # Safety
/// The machine has AVX-512 F.
#[inline(always)]
unsafe fn bias<T: Bytes4, const L: usize>(ending: &Ending<T>) -> [__m512i; L] {
    // SAFETY: the caller has the features.
    unsafe {
        let mut bias = [_mm512_setzero_si512(); L];
        for (bias, some) in bias.iter_mut().zip(ending.bias.chunks(LANES)) {
            *bias = load_some(some);
        }
        bias
    }
}

/// Where the outputs of a tile of `R` rows and `L` lines go, checked once.
struct Places<'a, T, const R: usize, const L: usize> {
    out: &'a mut [T],
    stride: usize,
    columns: usize,
}

impl<'a, T: Bytes4, const R: usize, const L: usize> Places<'a, T, R, L> {
    /// # Panics
    /// If there is less room.
    #[inline(always)]
    fn new(out: &'a mut Out<T>) -> Self {
        let (stride, columns) = (out.stride, out.columns.min(L * LANES));
        assert!((R - 1) * stride + columns <= out.out.len());
        Places { out: &mut *out.out, stride, columns }
    }

    /// As many of sixteen numbers as there are columns for.
    ///
    /// # Safety
    /// The machine has AVX-512 F; `row < R`, `line < L`.
    #[inline(always)]
    unsafe fn put(&mut self, row: usize, line: usize, value: __m512i) {
        debug_assert!(row < R && line < L);
        let first = line * LANES;
        // SAFETY: `new` has checked `columns` places from `row * stride` on, and no more are written.
        unsafe {
            let to = self.out.as_mut_ptr().wrapping_add(row * self.stride + first);
            match first + LANES <= self.columns {
                true => _mm512_storeu_si512(to.cast(), value),
                false => _mm512_mask_storeu_epi32(to.cast(), first_of(self.columns.saturating_sub(first)), value),
            }
        }
    }
}

/// The tile, of whatever lines and rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn any_rows(tile: &Tile, end: impl End) {
    match tile.lines {
        1 => any_of_rows::<1>(tile, end),
        2 => any_of_rows::<2>(tile, end),
        _ => any_of_rows::<3>(tile, end),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn any_of_rows<const L: usize>(tile: &Tile, end: impl End) {
    match tile.rows {
        1 => tile_of::<1, L>(tile, end),
        2 => tile_of::<2, L>(tile, end),
        3 => tile_of::<3, L>(tile, end),
        4 => tile_of::<4, L>(tile, end),
        5 => tile_of::<5, L>(tile, end),
        6 => tile_of::<6, L>(tile, end),
        7 => tile_of::<7, L>(tile, end),
        _ => tile_of::<8, L>(tile, end),
    }
}

#[inline(never)] // one copy of each, with all registers to itself
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn tile_of<const R: usize, const L: usize>(tile: &Tile, end: impl End) {
    let panel = tile.panel.as_chunks::<L>().0;
    let rows = Rows::<R>::new(tile, panel.len());
    // SAFETY: this function has the features.
    let mut acc = unsafe { end.start::<R, L>() };
    for (quad, lines) in panel.iter().enumerate() {
        let mut weights = [_mm512_setzero_si512(); L];
        for (weights, line) in weights.iter_mut().zip(lines) {
            *weights = load(line);
        }
        for (row, acc) in acc.iter_mut().enumerate() {
            // SAFETY: a row of the tile, and as many quads as the rows were made with.
            let a = _mm512_set1_epi32(unsafe { rows.word(row, quad) });
            for (acc, weights) in acc.iter_mut().zip(weights) {
                *acc = _mm512_dpbusd_epi32(*acc, weights, a);
            }
        }
    }
    // SAFETY: this function has the features.
    unsafe { end.end(acc) }
}
