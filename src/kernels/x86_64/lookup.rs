//! Levels looked up by permutations of a table in registers.

use std::arch::x86_64::*;

use super::float::Vector;

/// A register of floats that codes can be turned into.
///
/// # Safety
/// As of [`Vector`].
pub(super) trait Lookup: Vector {
    /// Codes in 32 bits each.
    type Codes: Copy;
    type Table: Copy;

    /// As many codes as there are lanes.
    unsafe fn codes(from: *const i32) -> Self::Codes;
    unsafe fn shifted(codes: Self::Codes, by: usize) -> Self::Codes;
    unsafe fn table(levels: &[f32; 16]) -> Self::Table;
    /// By the lowest 4 bits, of which 2 count for a table of four levels four times.
    unsafe fn look<const BITS: usize>(table: Self::Table, codes: Self::Codes) -> Self;
    /// By the lowest 8 bits.
    unsafe fn gather(levels: &[f32; 256], codes: Self::Codes) -> Self;
    /// The lowest 8 bits as a number.
    unsafe fn number(codes: Self::Codes) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
}

impl Lookup for __m512 {
    type Codes = __m512i;
    type Table = __m512;

    #[inline(always)]
    unsafe fn codes(from: *const i32) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn shifted(codes: __m512i, by: usize) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_srl_epi32(codes, _mm_cvtsi32_si128(by as i32)) }
    }

    #[inline(always)]
    unsafe fn table(levels: &[f32; 16]) -> __m512 {
        // SAFETY: sixteen floats; else the caller's.
        unsafe { _mm512_loadu_ps(levels.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn look<const BITS: usize>(table: __m512, codes: __m512i) -> Self {
        // SAFETY: the caller's.
        unsafe { _mm512_permutexvar_ps(codes, table) }
    }

    #[inline(always)]
    unsafe fn gather(levels: &[f32; 256], codes: __m512i) -> Self {
        // SAFETY: indices below 256; else the caller's.
        unsafe { _mm512_i32gather_ps::<4>(_mm512_and_si512(codes, _mm512_set1_epi32(255)), levels.as_ptr().cast()) }
    }

    #[inline(always)]
    unsafe fn number(codes: __m512i) -> Self {
        // SAFETY: the caller's.
        unsafe { _mm512_cvtepi32_ps(_mm512_and_si512(codes, _mm512_set1_epi32(255))) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the caller's.
        unsafe { _mm512_sub_ps(self, other) }
    }
}

impl Lookup for __m256 {
    type Codes = __m256i;
    type Table = [__m256; 2];

    #[inline(always)]
    unsafe fn codes(from: *const i32) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn shifted(codes: __m256i, by: usize) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_srl_epi32(codes, _mm_cvtsi32_si128(by as i32)) }
    }

    #[inline(always)]
    unsafe fn table(levels: &[f32; 16]) -> [__m256; 2] {
        // SAFETY: two times eight floats; else the caller's.
        unsafe { [_mm256_loadu_ps(levels.as_ptr()), _mm256_loadu_ps(levels.as_ptr().add(8))] }
    }

    #[inline(always)]
    unsafe fn look<const BITS: usize>(table: [__m256; 2], codes: __m256i) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let low = _mm256_permutevar8x32_ps(table[0], codes);
            if BITS == 2 {
                return low;
            }
            // The fourth bit, where a sign would be, says which half of the table it is.
            let high = _mm256_permutevar8x32_ps(table[1], codes);
            _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(codes)))
        }
    }

    #[inline(always)]
    unsafe fn gather(levels: &[f32; 256], codes: __m256i) -> Self {
        // SAFETY: indices below 256; else the caller's.
        unsafe { _mm256_i32gather_ps::<4>(levels.as_ptr(), _mm256_and_si256(codes, _mm256_set1_epi32(255))) }
    }

    #[inline(always)]
    unsafe fn number(codes: __m256i) -> Self {
        // SAFETY: the caller's.
        unsafe { _mm256_cvtepi32_ps(_mm256_and_si256(codes, _mm256_set1_epi32(255))) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the caller's.
        unsafe { _mm256_sub_ps(self, other) }
    }
}
