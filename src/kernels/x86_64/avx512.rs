//! AVX-512 with VNNI: sixteen outputs times four inputs an instruction, exact.

use std::{arch::x86_64::*, hint::black_box};

use super::{Bytes4, Bytes64, Rows};
use crate::kernels::{
    grid::Zeros,
    kernel::{Bits, FloatLine, Kernel, LANES, Lanes, Line, Quad, Stretch, Tile},
    products::{Out, Output, Products},
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
    /// 12 accumulators, 12 totals, 3 weights, a mask and a broadcast fill 29.
    const GROUPED_ROWS: usize = 4;
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
    fn tile(self, tile: &Tile, stretch: &Stretch, sums: &mut [Lanes<i32>]) {
        // SAFETY: `self` proves the features.
        unsafe { any_bits(tile, Store { stretch, sums }) }
    }

    #[inline(always)]
    fn finish(self, tile: &Tile, products: &mut Products<i32, f32>, out: &mut Out<f32>) {
        // SAFETY: `self` proves the features.
        unsafe { any_bits(tile, Finish { products, out }) }
    }

    #[inline(always)]
    fn finish_i32(self, tile: &Tile, products: &mut Products<i32, i32>, out: &mut Out<i32>) {
        // SAFETY: `self` proves the features.
        unsafe { any_bits(tile, Finish { products, out }) }
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

    fn spin(self, rounds: usize) -> usize {
        // SAFETY: `self` proves the features.
        unsafe { spin(rounds) }
    }
}

/// What becomes of a tile's sums, in registers from start to end: inlined by force, which a function with features of
/// its own cannot be.
trait End {
    /// # Safety
    /// The machine has AVX-512 VNNI.
    unsafe fn run<const R: usize, const L: usize, const BITS: u32>(self, tile: &Tile);
}

/// Those of a stretch are stored as they are.
struct Store<'a> {
    stretch: &'a Stretch,
    sums: &'a mut [Lanes<i32>],
}

/// Those of all groups are made outputs.
struct Finish<'a, 'p, 'o, T> {
    products: &'a mut Products<'p, i32, T>,
    out: &'a mut Out<'o, T>,
}

impl End for Store<'_> {
    #[inline(always)]
    unsafe fn run<const R: usize, const L: usize, const BITS: u32>(self, tile: &Tile) {
        // SAFETY: the caller has the features.
        unsafe {
            let mut sums = [[_mm512_setzero_si512(); L]; R];
            multiply::<R, L, BITS, true>(tile, self.stretch, &mut sums);
            for (to, sum) in self.sums[..R * L].iter_mut().zip(sums.as_flattened()) {
                store(to, *sum);
            }
        }
    }
}

impl<T: Number> End for Finish<'_, '_, '_, T> {
    #[inline(always)]
    unsafe fn run<const R: usize, const L: usize, const BITS: u32>(self, tile: &Tile) {
        // SAFETY: the caller has the features.
        unsafe {
            let last = tile.groups - 1;
            let row_sums = Rows::new(self.products.row_sums, tile.groups, tile.groups);
            let mut totals = [[_mm512_setzero_si512(); L]; R];
            for group in 0..last {
                let products = self.products::<R, L, BITS, false>(tile, group, row_sums);
                let scales = self.scales::<L>(group);
                for (totals, products) in totals.iter_mut().zip(products) {
                    for ((total, product), scale) in totals.iter_mut().zip(products).zip(scales) {
                        *total = T::add(*total, scale, product);
                    }
                }
            }
            let products = self.products::<R, L, BITS, true>(tile, last, row_sums);
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
}

impl<T: Number> Finish<'_, '_, '_, T> {
    /// The products of a group. What zero points take is taken before there are sums.
    ///
    /// # Safety
    /// The machine has AVX-512 VNNI; `row_sums` have the group.
    #[inline(always)]
    unsafe fn products<const R: usize, const L: usize, const BITS: u32, const LAST: bool>(
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
            multiply::<R, L, BITS, LAST>(tile, &tile.stretch(group), &mut sums);
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
trait Number: Bytes4 + Output {
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
fn any_bits(tile: &Tile, end: impl End) {
    match tile.bits {
        Bits::Two => any_lines::<2>(tile, end),
        Bits::Four => any_lines::<4>(tile, end),
        Bits::Eight => any_lines::<8>(tile, end),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn any_lines<const BITS: u32>(tile: &Tile, end: impl End) {
    match tile.lines {
        1 => any_rows::<1, BITS>(tile, end),
        2 => any_rows::<2, BITS>(tile, end),
        _ => any_rows::<3, BITS>(tile, end),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn any_rows<const L: usize, const BITS: u32>(tile: &Tile, end: impl End) {
    match tile.rows {
        1 => tile_of::<1, L, BITS>(tile, end),
        2 => tile_of::<2, L, BITS>(tile, end),
        3 => tile_of::<3, L, BITS>(tile, end),
        4 => tile_of::<4, L, BITS>(tile, end),
        5 => tile_of::<5, L, BITS>(tile, end),
        6 => tile_of::<6, L, BITS>(tile, end),
        7 => tile_of::<7, L, BITS>(tile, end),
        _ => tile_of::<8, L, BITS>(tile, end),
    }
}

#[inline(never)] // one copy of each, with all registers to itself
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn tile_of<const R: usize, const L: usize, const BITS: u32>(tile: &Tile, end: impl End) {
    // SAFETY: this function has the features.
    unsafe { end.run::<R, L, BITS>(tile) }
}

/// Adds the products of a stretch to the sums.
///
/// # Safety
/// The machine has AVX-512 VNNI.
#[inline(always)]
unsafe fn multiply<const R: usize, const L: usize, const BITS: u32, const LAST: bool>(
    tile: &Tile,
    stretch: &Stretch,
    sums: &mut [[__m512i; L]; R],
) {
    let (rows, in_line) = (Rows::<_, R>::of(tile, stretch), 8 / BITS as usize);
    let panel = &tile.panel.as_chunks::<L>().0[stretch.place..][..rows.length.div_ceil(in_line)];
    // Few sums would wait for themselves: every second quad has its own.
    let chains = if R <= 2 && BITS < 8 { 2 } else { 1 };
    // SAFETY: the caller has the features.
    let mut chained = unsafe { [*sums, [[_mm512_setzero_si512(); L]; R]] };
    for (index, lines) in panel.iter().enumerate() {
        if R == 1 && BITS < 8 && !LAST {
            prefetch(lines);
        }
        for (part, quad) in (index * in_line..rows.length).take(in_line).enumerate() {
            // SAFETY: the caller has the features; rows are those of the tile, and quads are compared with theirs.
            unsafe {
                let mut weights = [_mm512_setzero_si512(); L];
                for (weights, line) in weights.iter_mut().zip(lines) {
                    *weights = codes::<BITS>(line, part);
                }
                for (row, sums) in chained[part % chains].iter_mut().enumerate() {
                    let a = _mm512_set1_epi32(rows.word(row, quad));
                    for (sum, weights) in sums.iter_mut().zip(weights) {
                        *sum = _mm512_dpbusd_epi32(*sum, weights, a);
                    }
                }
            }
        }
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

/// Asks for the lines a page further on: where scales are read in between, the hardware does not look so far.
#[inline(always)]
fn prefetch(lines: &[Line]) {
    for line in lines {
        // SAFETY: a prefetch may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).wrapping_add(64).cast()) }
    }
}

/// The codes of one of the quads in a line.
///
/// # Safety
/// The machine has AVX-512 F.
#[inline(always)]
unsafe fn codes<const BITS: u32>(line: &Line, part: usize) -> __m512i {
    // SAFETY: the caller has the features; a line is as large and as aligned as a register.
    unsafe {
        if BITS == 8 {
            return load(line);
        }
        // Read once for each part: the sums leave no register in which it could be kept.
        let packed = std::ptr::from_ref(line).cast::<__m512i>().read_volatile();
        let above = _mm512_srl_epi32(packed, _mm_cvtsi32_si128((part * BITS as usize) as i32));
        _mm512_and_si512(above, _mm512_set1_epi8((1 << BITS) - 1))
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
        let integers = _mm512_maskz_mov_epi32(first_of(x.len()), integers(_mm512_castsi512_ps(load_some(x))));
        sums = _mm512_add_epi32(sums, integers);
        // SAFETY: no more bytes than there are codes.
        unsafe { _mm_mask_storeu_epi8(codes.as_mut_ptr(), first_of(codes.len()), _mm512_cvtepi32_epi8(integers)) };
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
fn load<T: Bytes64>(from: &T) -> __m512i {
    // SAFETY: `T` is 64 bytes.
    unsafe { _mm512_loadu_si512(std::ptr::from_ref(from).cast()) }
}

/// Sixteen bytes as numbers of 32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
fn widen(bytes: &Lanes<u8>) -> __m512i {
    // SAFETY: sixteen bytes.
    _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store<T: Bytes64>(to: &mut T, value: __m512i) {
    // SAFETY: `T` is 64 bytes, and any bytes are a `T`.
    unsafe { _mm512_storeu_si512(std::ptr::from_mut(to).cast(), value) }
}

/// A mask for the first of sixteen.
#[inline(always)]
fn first_of(count: usize) -> __mmask16 {
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
    unsafe { _mm512_maskz_loadu_epi32(first_of(from.len()), from.as_ptr().cast()) }
}

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
