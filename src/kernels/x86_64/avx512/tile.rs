//! The tile of the integer product: sixteen outputs times four inputs an instruction, one body for all widths of codes.

use std::arch::x86_64::*;

use super::{
    super::{Bytes4, Rows},
    first_of, load, load_some,
    source::{Dense, Picked, Source},
    store, widen,
};
use crate::kernels::{
    grid::Zeros,
    kernel::{Bits, LANES, Lanes, Line, Stretch, Tile},
    products::{Out, Output, Products},
};

/// What becomes of a tile's sums, in registers from start to end: inlined by force, which a function with features of
/// its own cannot be.
pub(super) trait End {
    /// # Safety
    /// The machine has AVX-512 VNNI.
    unsafe fn run<const R: usize, const L: usize, S: Source>(self, tile: &Tile);
}

/// Those of a stretch are stored as they are.
pub(super) struct Store<'a> {
    pub(super) stretch: &'a Stretch,
    pub(super) sums: &'a mut [Lanes<i32>],
}

/// Those of all groups are made outputs.
pub(super) struct Finish<'a, 'p, 'o, T> {
    pub(super) products: &'a mut Products<'p, i32, T>,
    pub(super) out: &'a mut Out<'o, T>,
}

impl End for Store<'_> {
    #[inline(always)]
    unsafe fn run<const R: usize, const L: usize, S: Source>(self, tile: &Tile) {
        // SAFETY: the caller has the features.
        unsafe {
            let mut sums = [[_mm512_setzero_si512(); L]; R];
            multiply::<R, L, S, true>(tile, self.stretch, &mut sums);
            for (to, sum) in self.sums[..R * L].iter_mut().zip(sums.as_flattened()) {
                store(to, *sum);
            }
        }
    }
}

impl<T: Number> End for Finish<'_, '_, '_, T> {
    #[inline(always)]
    unsafe fn run<const R: usize, const L: usize, S: Source>(self, tile: &Tile) {
        // SAFETY: the caller has the features.
        unsafe {
            let row_sums = Rows::new(self.products.row_sums, tile.groups, tile.groups);
            let mut totals = [[_mm512_setzero_si512(); L]; R];
            // Two ends, so that the compiler sees the totals of a single group to be 0: else they go through memory.
            if tile.groups > 1 {
                for group in 0..tile.groups - 1 {
                    let products = self.products::<R, L, S, false>(tile, group, row_sums);
                    let scales = self.scales::<L>(group);
                    for (totals, products) in totals.iter_mut().zip(products) {
                        for ((total, product), scale) in totals.iter_mut().zip(products).zip(scales) {
                            *total = T::add(*total, scale, product);
                        }
                    }
                }
                self.end::<R, L, S>(tile, row_sums, totals);
            } else {
                self.end::<R, L, S>(tile, row_sums, totals);
            }
        }
    }
}

impl<T: Number> Finish<'_, '_, '_, T> {
    /// The last group, and outputs.
    ///
    /// # Safety
    /// The machine has AVX-512 VNNI.
    #[inline(always)]
    unsafe fn end<const R: usize, const L: usize, S: Source>(
        self,
        tile: &Tile,
        row_sums: Rows<i32, R>,
        totals: [[__m512i; L]; R],
    ) {
        // SAFETY: the caller has the features.
        unsafe {
            let last = tile.groups - 1;
            let products = self.products::<R, L, S, true>(tile, last, row_sums);
            let (scales_a, scales, bias) = (&self.products.scales[..R], self.scales::<L>(last), self.bias::<L>());
            let mut out = Places::<T, R, L>::new(self.out);
            for (row, products) in products.into_iter().enumerate() {
                for (line, product) in products.into_iter().enumerate() {
                    let total = T::add(totals[row][line], scales[line], product);
                    out.put(row, line, T::end(total, scales_a[row], bias[line]));
                }
            }
        }
    }

    /// The products of a group. What zero points take is taken before there are sums.
    ///
    /// # Safety
    /// The machine has AVX-512 VNNI; `row_sums` have the group.
    #[inline(always)]
    unsafe fn products<const R: usize, const L: usize, S: Source, const LAST: bool>(
        &self,
        tile: &Tile,
        group: usize,
        row_sums: Rows<i32, R>,
    ) -> [[__m512i; L]; R] {
        // SAFETY: the caller has the features.
        unsafe {
            let grid = &self.products.grid;
            let row_sum = |row: usize| _mm512_set1_epi32(row_sums.at(row, group));
            let mut sums = [[_mm512_setzero_si512(); L]; R];
            if let Zeros::One(zero) = grid.zeros {
                let zero = _mm512_set1_epi32(zero);
                for (row, sums) in sums.iter_mut().enumerate() {
                    *sums = [_mm512_mullo_epi32(zero, row_sum(row)); L];
                }
            } else {
                let mut zeros = [_mm512_setzero_si512(); L];
                for (line, to) in zeros.iter_mut().enumerate() {
                    *to = match grid.zeros {
                        Zeros::One(zero) => _mm512_set1_epi32(zero),
                        Zeros::Bytes(bytes) => widen(&bytes.as_chunks::<L>().0[group][line]),
                        Zeros::Words(words) => load(&words.as_chunks::<L>().0[group][line]),
                    };
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let row_sum = row_sum(row);
                    for (sum, zeros) in sums.iter_mut().zip(zeros) {
                        *sum = _mm512_mullo_epi32(zeros, row_sum);
                    }
                }
            }
            if self.products.zero_a != 0 {
                let zero_a = _mm512_set1_epi32(self.products.zero_a);
                for line in 0..L {
                    let offset = _mm512_mullo_epi32(load(&grid.code_sums.as_chunks::<L>().0[group][line]), zero_a);
                    for sums in &mut sums {
                        sums[line] = _mm512_sub_epi32(sums[line], offset);
                    }
                }
            }
            multiply::<R, L, S, LAST>(tile, &tile.stretch(group), &mut sums);
            sums
        }
    }

    /// # Safety
    /// The machine has AVX-512 F.
    #[inline(always)]
    unsafe fn scales<const L: usize>(&self, group: usize) -> [__m512i; L] {
        // SAFETY: the caller has the features.
        unsafe {
            let mut scales = [_mm512_setzero_si512(); L];
            for (scale, line) in scales.iter_mut().zip(&self.products.grid.scales.as_chunks::<L>().0[group]) {
                *scale = load(line);
            }
            scales
        }
    }

    /// # Safety
    /// The machine has AVX-512 F.
    #[inline(always)]
    unsafe fn bias<const L: usize>(&self) -> [__m512i; L] {
        // SAFETY: the caller has the features.
        unsafe {
            let mut bias = [_mm512_setzero_si512(); L];
            for (bias, some) in bias.iter_mut().zip(self.products.bias.chunks(LANES)) {
                *bias = load_some(some);
            }
            bias
        }
    }
}

/// What sixteen products add up to.
pub(super) trait Number: Bytes4 + Output {
    /// # Safety
    /// The machine has AVX-512 F.
    unsafe fn add(total: __m512i, scale_w: __m512i, product: __m512i) -> __m512i;

    /// # Safety
    /// The machine has AVX-512 F.
    unsafe fn end(total: __m512i, scale_a: f32, bias: __m512i) -> __m512i;
}

impl Number for f32 {
    #[inline(always)]
    unsafe fn add(total: __m512i, scale_w: __m512i, product: __m512i) -> __m512i {
        // SAFETY: the caller has the features.
        unsafe {
            let (total, scale_w) = (_mm512_castsi512_ps(total), _mm512_castsi512_ps(scale_w));
            _mm512_castps_si512(_mm512_fmadd_ps(scale_w, _mm512_cvtepi32_ps(product), total))
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
    unsafe fn add(total: __m512i, _: __m512i, product: __m512i) -> __m512i {
        // SAFETY: the caller has the features.
        unsafe { _mm512_add_epi32(total, product) }
    }

    #[inline(always)]
    unsafe fn end(total: __m512i, _: f32, bias: __m512i) -> __m512i {
        // SAFETY: the caller has the features.
        unsafe { _mm512_add_epi32(total, bias) }
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

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn run(tile: &Tile, end: impl End) {
    match tile.bits {
        Bits::Two => any_lines::<Dense<2>>(tile, end),
        Bits::Four => any_lines::<Dense<4>>(tile, end),
        Bits::Eight => any_lines::<Dense<8>>(tile, end),
        Bits::Picked => match tile.lines {
            1 => any_rows::<1, Picked>(tile, end),
            _ => any_rows::<2, Picked>(tile, end),
        },
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn any_lines<S: Source>(tile: &Tile, end: impl End) {
    match tile.lines {
        1 => any_rows::<1, S>(tile, end),
        2 => any_rows::<2, S>(tile, end),
        _ => any_rows::<3, S>(tile, end),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn any_rows<const L: usize, S: Source>(tile: &Tile, end: impl End) {
    match tile.rows {
        1 => tile_of::<1, L, S>(tile, end),
        2 => tile_of::<2, L, S>(tile, end),
        3 => tile_of::<3, L, S>(tile, end),
        4 => tile_of::<4, L, S>(tile, end),
        5 => tile_of::<5, L, S>(tile, end),
        6 => tile_of::<6, L, S>(tile, end),
        7 => tile_of::<7, L, S>(tile, end),
        _ => tile_of::<8, L, S>(tile, end),
    }
}

#[inline(never)] // one copy of each, with all registers to itself
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn tile_of<const R: usize, const L: usize, S: Source>(tile: &Tile, end: impl End) {
    // SAFETY: this function has the features.
    unsafe { end.run::<R, L, S>(tile) }
}

/// Adds the products of a stretch to the sums; whether it is the last decides what is worth asking the memory for.
///
/// # Safety
/// The machine has AVX-512 VNNI.
#[inline(always)]
unsafe fn multiply<const R: usize, const L: usize, S: Source, const LAST: bool>(
    tile: &Tile,
    stretch: &Stretch,
    sums: &mut [[__m512i; L]; R],
) {
    let rows = Rows::<_, R>::of(tile, stretch);
    let panel = &tile.panel.as_chunks::<L>().0[stretch.place..][..S::BITS.lines(rows.length)];
    let (together, quads) = S::BITS.chunk();
    // Few sums would wait for themselves: every second step has its own.
    let chains = if R <= 2 && S::BITS != Bits::Eight { 2 } else { 1 };
    // SAFETY: the caller has the features.
    let mut chained = unsafe { [*sums, [[_mm512_setzero_si512(); L]; R]] };
    // All but the last have as many quads as there is room for, which makes one straight piece of code of each.
    let (whole, rest) = panel.split_at(rows.length / quads * together);
    for (index, lines) in whole.chunks_exact(together).enumerate() {
        let ahead = S::ahead::<R, LAST>(tile);
        if ahead > 0 {
            prefetch(lines.as_ptr().cast(), ahead, together * L);
        }
        // SAFETY: the caller has the features; rows have these quads.
        unsafe { S::multiply(&rows, index * quads, quads, lines, |part| part % chains, &mut chained) };
    }
    if !rest.is_empty() {
        let last = rows.length % quads;
        // SAFETY: the caller has the features; rows have these quads.
        unsafe { S::multiply(&rows, rows.length - last, last, rest, |part| part % chains, &mut chained) };
    }
    *sums = chained[0];
    if chains > 1 {
        for (sums, others) in sums.iter_mut().zip(chained[1]) {
            for (sum, other) in sums.iter_mut().zip(others) {
                // SAFETY: the caller has the features.
                *sum = unsafe { _mm512_add_epi32(*sum, other) };
            }
        }
    }
}

/// Asks for some lines, so many further on.
#[inline(always)]
fn prefetch(from: *const Line, ahead: usize, lines: usize) {
    for line in 0..lines {
        // SAFETY: a prefetch may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(ahead + line).cast()) }
    }
}
