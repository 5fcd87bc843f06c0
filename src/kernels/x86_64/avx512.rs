//! AVX-512 with VNNI: sixteen outputs times four inputs an instruction, exact.

use std::{arch::x86_64::*, hint::black_box};

use super::{Bytes64, Rows, ends::ends};
use crate::kernels::{
    kernel::{FloatLine, Kernel, LANES, Lanes, Quad, Tile},
    products::{Ending, GridLine, Products},
    quantize::Round,
};

/// AVX-512 F, BW, DQ, VL and VNNI: Intel since Cascade Lake, AMD since Zen 4.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::kernels) struct Avx512Vnni(());

impl Avx512Vnni {
    pub(in crate::kernels) fn detect() -> Option<Avx512Vnni> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        found.then_some(Avx512Vnni(()))
    }
}

impl Kernel for Avx512Vnni {
    /// 24 accumulators, 3 weights and a broadcast fill 28 of the 32 registers.
    const ROWS: usize = 8;
    const LINES: usize = 3;
    const SUMS: usize = 16;
    const FUSED: bool = true;

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        fn run<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        // SAFETY: `self` proves the features.
        unsafe { run(f) }
    }

    #[inline(always)]
    fn tile(self, tile: &Tile, sums: &mut [Lanes<i32>]) {
        // SAFETY: `self` proves the features.
        unsafe { any_rows(tile, Store { sums }) }
    }

    #[inline(always)]
    fn add_scaled(self, products: &Products<i32>, totals: &mut [Lanes<f32>]) {
        // SAFETY: `self` proves the features.
        unsafe { add_scaled(products, totals) }
    }

    #[inline(always)]
    fn finish(self, tile: &Tile, products: &mut Products<i32>, ending: &Ending<f32>, out: &mut [&mut [f32]]) {
        // SAFETY: `self` proves the features.
        unsafe { any_rows(tile, Finish { products, ending, out }) }
    }

    #[inline(always)]
    fn finish_i32(self, tile: &Tile, products: &mut Products<i32>, ending: &Ending<i32>, out: &mut [&mut [i32]]) {
        // SAFETY: `self` proves the features.
        unsafe { any_rows(tile, Finish { products, ending, out }) }
    }

    #[inline(always)]
    fn largest(self, x: &[f32]) -> u32 {
        // SAFETY: `self` proves the features.
        unsafe { largest(x) }
    }

    #[inline(always)]
    fn round(self, round: &Round, x: &[f32], codes: &mut [Quad]) -> i32 {
        // SAFETY: `self` proves the features.
        unsafe {
            match (round.zero, round.lowest) {
                (0, -127) => round_codes::<false>(round, x, codes),
                _ => round_codes::<true>(round, x, codes),
            }
        }
    }

    #[inline(always)]
    fn add_multiple(self, a: f32, x: &FloatLine, sum: &mut FloatLine) {
        // SAFETY: `self` proves the features.
        unsafe { add_multiple(a, x, sum) }
    }

    #[inline(always)]
    fn ends(self, numbers: &[Lanes<f32>]) -> (i32, i32) {
        // SAFETY: `self` proves the features.
        unsafe { ends(numbers) }
    }

    fn spin(self, rounds: usize) -> usize {
        // SAFETY: `self` proves the features.
        unsafe { spin(rounds) }
    }
}

/// What becomes of a tile's sums, while they are in registers.
trait End {
    /// # Safety
    /// The machine has AVX-512 F.
    unsafe fn end<const R: usize, const L: usize>(self, sums: [[__m512i; L]; R]);
}

/// They are stored as they are.
struct Store<'a> {
    sums: &'a mut [Lanes<i32>],
}

/// They are made outputs.
struct Finish<'a, 'p, 'o, T> {
    products: &'a Products<'p, i32>,
    ending: &'a Ending<'a, T>,
    out: &'a mut [&'o mut [T]],
}

impl End for Store<'_> {
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn end<const R: usize, const L: usize>(self, sums: [[__m512i; L]; R]) {
        for (to, sum) in self.sums[..R * L].iter_mut().zip(sums.as_flattened()) {
            store(to, *sum);
        }
    }
}

impl End for Finish<'_, '_, '_, f32> {
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn end<const R: usize, const L: usize>(self, sums: [[__m512i; L]; R]) {
        let Finish { products, ending, out } = self;
        let (row_sums, scales) = (&products.row_sums[..R], &ending.scales[..R]);
        let (grid, offsets) = (&products.grid[..L], &products.offsets[..L]);
        let (totals, out) = (&ending.totals[..R * L], &mut out[..R]);
        let mut bias = [_mm512_setzero_ps(); L];
        for (line, bias) in bias.iter_mut().enumerate() {
            *bias = _mm512_castsi512_ps(load_some(ending.bias.get(line * LANES..).unwrap_or_default()));
        }
        for row in 0..R {
            let mut out = &mut out[row][ending.column..];
            for line in 0..L {
                let sum = product(sums[row][line], row_sums[row], &grid[line], &offsets[line]);
                let total = total(sum, &grid[line], &totals[row * L + line]);
                let ended = _mm512_add_ps(_mm512_mul_ps(total, _mm512_set1_ps(scales[row])), bias[line]);
                out = store_some(out, _mm512_castps_si512(ended));
            }
        }
    }
}

impl End for Finish<'_, '_, '_, i32> {
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn end<const R: usize, const L: usize>(self, sums: [[__m512i; L]; R]) {
        let Finish { products, ending, out } = self;
        let (row_sums, grid, offsets) = (&products.row_sums[..R], &products.grid[..L], &products.offsets[..L]);
        let (totals, out) = (&ending.totals[..R * L], &mut out[..R]);
        let mut bias = [_mm512_setzero_si512(); L];
        for (line, bias) in bias.iter_mut().enumerate() {
            *bias = load_some(ending.bias.get(line * LANES..).unwrap_or_default());
        }
        for row in 0..R {
            let mut out = &mut out[row][ending.column..];
            for line in 0..L {
                let sum = product(sums[row][line], row_sums[row], &grid[line], &offsets[line]);
                let total = _mm512_add_epi32(load(&totals[row * L + line]), sum);
                out = store_some(out, _mm512_add_epi32(total, bias[line]));
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn any_rows(tile: &Tile, end: impl End) {
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
    let mut acc = [[_mm512_setzero_si512(); L]; R];
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

/// A sum without what the zero points add.
#[inline]
#[target_feature(enable = "avx512f")]
fn product(sum: __m512i, row_sum: i32, grid: &GridLine, offset: &Lanes<i32>) -> __m512i {
    let of_zero_w = _mm512_mullo_epi32(load(&grid.zero), _mm512_set1_epi32(row_sum));
    _mm512_sub_epi32(_mm512_sub_epi32(sum, of_zero_w), load(offset))
}

/// The total with one more product.
#[inline]
#[target_feature(enable = "avx512f")]
fn total(product: __m512i, grid: &GridLine, total: &Lanes<f32>) -> __m512 {
    let scaled = _mm512_mul_ps(_mm512_castsi512_ps(load(&grid.scale)), _mm512_cvtepi32_ps(product));
    _mm512_add_ps(_mm512_castsi512_ps(load(total)), scaled)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add_scaled(products: &Products<i32>, totals: &mut [Lanes<f32>]) {
    let Products { sums, row_sums, grid, offsets } = products;
    let rows = sums.chunks_exact(grid.len()).zip(totals.chunks_exact_mut(grid.len()));
    for ((sums, totals), row_sum) in rows.zip(*row_sums) {
        for (((sum, so_far), grid), offset) in sums.iter().zip(totals).zip(*grid).zip(*offsets) {
            let total = total(product(load(sum), *row_sum, grid, offset), grid, so_far);
            store(so_far, _mm512_castps_si512(total));
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn largest(x: &[f32]) -> u32 {
    let magnitude = |x| _mm512_and_si512(x, _mm512_set1_epi32(i32::MAX));
    let mut largest = [_mm512_setzero_si512(); 4];
    let (wide, rest) = x.as_chunks::<{ 4 * LANES }>();
    for wide in wide {
        for (largest, x) in largest.iter_mut().zip(wide.as_chunks::<LANES>().0) {
            *largest = _mm512_max_epu32(*largest, magnitude(load(x)));
        }
    }
    for (largest, x) in largest.iter_mut().zip(rest.chunks(LANES)) {
        *largest = _mm512_max_epu32(*largest, magnitude(load_some(x)));
    }
    let [a, b, c, d] = largest;
    _mm512_reduce_max_epu32(_mm512_max_epu32(_mm512_max_epu32(a, b), _mm512_max_epu32(c, d)))
}

/// Where no scaled number can leave the range, there is no need to `CLAMP`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn round_codes<const CLAMP: bool>(round: &Round, x: &[f32], codes: &mut [Quad]) -> i32 {
    let (low, high) = round.bounds();
    let (low, high) = (_mm512_set1_ps(low), _mm512_set1_ps(high));
    let (factor, zero) = (_mm512_set1_ps(round.factor), _mm512_set1_epi32(round.zero));
    let integers = |x| {
        let scaled = _mm512_mul_ps(x, factor);
        // To the nearest, halves to even, as any program has it that did not say otherwise.
        match CLAMP {
            true => _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(scaled, low), high)), zero),
            false => _mm512_cvtps_epi32(scaled),
        }
    };
    let (wide, rest) = x.as_chunks::<{ 4 * LANES }>();
    let (wide_codes, rest_codes) = codes.as_flattened_mut().split_at_mut(4 * LANES * wide.len());
    // Packing goes by quarters of registers; this sorts them.
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let mut sums = _mm512_setzero_si512();
    for (x, codes) in wide.iter().zip(wide_codes.as_chunks_mut::<{ 4 * LANES }>().0) {
        let mut four = [_mm512_setzero_si512(); 4];
        for (four, x) in four.iter_mut().zip(x.as_chunks::<LANES>().0) {
            *four = integers(_mm512_castsi512_ps(load(x)));
        }
        let [a, b, c, d] = four;
        let bytes = _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
        sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), bytes);
        store(codes, _mm512_permutexvar_epi32(order, bytes));
    }
    for (x, codes) in rest.chunks(LANES).zip(rest_codes.chunks_mut(LANES)) {
        let integers = _mm512_maskz_mov_epi32(first(x.len()), integers(_mm512_castsi512_ps(load_some(x))));
        sums = _mm512_add_epi32(sums, integers);
        // SAFETY: no more bytes than there are codes.
        unsafe { _mm_mask_storeu_epi8(codes.as_mut_ptr(), first(codes.len()), _mm512_cvtepi32_epi8(integers)) };
    }
    _mm512_reduce_add_epi32(sums)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add_multiple(a: f32, x: &FloatLine, sum: &mut FloatLine) {
    let (x, before) = (_mm512_castsi512_ps(load(x)), _mm512_castsi512_ps(load(sum)));
    store(sum, _mm512_castps_si512(_mm512_fmadd_ps(_mm512_set1_ps(a), x, before)));
}

/// Loads a line, or sixteen numbers of 32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load<T: Bytes64>(from: &T) -> __m512i {
    // SAFETY: `T` is 64 bytes.
    unsafe { _mm512_loadu_si512(std::ptr::from_ref(from).cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store<T: Bytes64>(to: &mut T, value: __m512i) {
    // SAFETY: `T` is 64 bytes, and any bytes are a `T`.
    unsafe { _mm512_storeu_si512(std::ptr::from_mut(to).cast(), value) }
}

/// A mask for the first of sixteen.
#[inline(always)]
fn first(count: usize) -> __mmask16 {
    ((1u32 << count.min(LANES)) - 1) as u16
}

/// The first sixteen, zeros for what is not there.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_some<T: Bytes4>(from: &[T]) -> __m512i {
    if from.is_empty() {
        return _mm512_setzero_si512(); // a masked load from nowhere is allowed, but takes hundreds of cycles
    }
    // SAFETY: no more than there are.
    unsafe { _mm512_maskz_loadu_epi32(first(from.len()), from.as_ptr().cast()) }
}

/// As many of sixteen as there is room for; the room that is left.
#[inline]
#[target_feature(enable = "avx512f")]
fn store_some<T: Bytes4>(to: &mut [T], value: __m512i) -> &mut [T] {
    if to.len() >= LANES {
        let (whole, rest) = to.split_at_mut(LANES);
        // SAFETY: sixteen of 32 bits.
        unsafe { _mm512_storeu_si512(whole.as_mut_ptr().cast(), value) };
        rest
    } else {
        // SAFETY: no more than there is room for.
        unsafe { _mm512_mask_storeu_epi32(to.as_mut_ptr().cast(), first(to.len()), value) };
        &mut []
    }
}

/// # Safety
/// A type of 4 bytes for which any bytes are a value.
unsafe trait Bytes4 {}
// SAFETY: 4 bytes.
unsafe impl Bytes4 for f32 {}
// SAFETY: 4 bytes.
unsafe impl Bytes4 for i32 {}

#[target_feature(enable = "avx512f,avx512vnni")]
fn spin(rounds: usize) -> usize {
    let (mut sums, factor) = ([_mm512_setzero_si512(); 16], black_box(_mm512_set1_epi8(1)));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, factor, factor);
        }
    }
    black_box(sums);
    128 * 16 * rounds
}
