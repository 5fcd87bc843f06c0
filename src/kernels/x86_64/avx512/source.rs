//! What the tile multiplies: codes of every width for all inputs, or of 8 bits for those that are picked.

use std::arch::x86_64::*;

use super::{super::Rows, load};
use crate::kernels::kernel::{Bits, Line, Quad, Tile};

/// What the lines of a panel hold: the inputs and the weights of multiplications.
pub(super) trait Source {
    const BITS: Bits;

    /// How many lines ahead the memory is asked for, where the hardware does not look so far; 0 for not at all.
    fn ahead<const R: usize, const LAST: bool>(tile: &Tile) -> usize;

    /// Adds the products of so many quads, whose lines belong together, to sums that `of` chooses for each part.
    ///
    /// # Safety
    /// The machine has AVX-512 VNNI; `rows` have the quads, and the lines are theirs.
    unsafe fn multiply<const R: usize, const L: usize>(
        rows: &Rows<Quad, R>,
        first: usize,
        quads: usize,
        lines: &[[Line; L]],
        of: impl Fn(usize) -> usize,
        sums: &mut [[[__m512i; L]; R]; 2],
    );
}

/// Unsigned weights of all inputs.
pub(super) struct Dense<const BITS: u32>;

impl<const BITS: u32> Source for Dense<BITS> {
    const BITS: Bits = match BITS {
        2 => Bits::Two,
        4 => Bits::Four,
        _ => Bits::Eight,
    };

    /// A page, where scales are read in between.
    #[inline(always)]
    fn ahead<const R: usize, const LAST: bool>(_: &Tile) -> usize {
        if R == 1 && BITS < 8 && !LAST { 64 } else { 0 }
    }

    #[inline(always)]
    unsafe fn multiply<const R: usize, const L: usize>(
        rows: &Rows<Quad, R>,
        first: usize,
        quads: usize,
        lines: &[[Line; L]],
        of: impl Fn(usize) -> usize,
        sums: &mut [[[__m512i; L]; R]; 2],
    ) {
        for part in 0..quads {
            // SAFETY: the caller's.
            unsafe {
                let mut weights = [_mm512_setzero_si512(); L];
                for (weights, line) in weights.iter_mut().zip(&lines[0]) {
                    *weights = codes::<BITS>(line, part);
                }
                for (row, sums) in sums[of(part)].iter_mut().enumerate() {
                    let a = _mm512_set1_epi32(rows.word(row, first + part));
                    for (sum, weights) in sums.iter_mut().zip(weights) {
                        *sum = _mm512_dpbusd_epi32(*sum, weights, a);
                    }
                }
            }
        }
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

/// Signed weights of those inputs that a shuffle of bytes picks out of two quads, for each of sixteen outputs.
///
/// Multiplications and shuffles have three ports for the two of them (Zen 5), so a tile goes at 1.5 times the speed of the
/// dense one at best, and it does where four shuffles stand together.
pub(super) struct Picked;

impl Source for Picked {
    const BITS: Bits = Bits::Picked;

    /// Several rows take their time with a line.
    #[inline(always)]
    fn ahead<const R: usize, const LAST: bool>(tile: &Tile) -> usize {
        if R > 1 && tile.fresh { 256 } else { 0 }
    }

    #[inline(always)]
    unsafe fn multiply<const R: usize, const L: usize>(
        rows: &Rows<Quad, R>,
        first: usize,
        _: usize,
        lines: &[[Line; L]],
        of: impl Fn(usize) -> usize,
        sums: &mut [[[__m512i; L]; R]; 2],
    ) {
        let Some((picks, weights)) = lines.split_first() else { return };
        // SAFETY: the caller's; two quads for each line of weights.
        unsafe {
            if !weights.is_empty() {
                step::<R, L, 0>(rows, first, picks, &weights[0], &mut sums[of(0)]);
            }
            if weights.len() > 1 {
                step::<R, L, 2>(rows, first + 2, picks, &weights[1], &mut sums[of(1)]);
            }
            if weights.len() > 2 {
                step::<R, L, 4>(rows, first + 4, picks, &weights[2], &mut sums[of(2)]);
            }
            if weights.len() > 3 {
                step::<R, L, 6>(rows, first + 6, picks, &weights[3], &mut sums[of(3)]);
            }
        }
    }
}

/// Two quads: what they pick begins at a bit of each byte.
///
/// # Safety
/// The machine has AVX-512 VNNI; `rows` have the quads.
#[inline(always)]
unsafe fn step<const R: usize, const L: usize, const BIT: u32>(
    rows: &Rows<Quad, R>,
    quad: usize,
    picks: &[Line; L],
    weights: &[Line; L],
    sums: &mut [[__m512i; L]; R],
) {
    // SAFETY: the caller's; a line is as large and as aligned as a register.
    unsafe {
        let mut lines = [[_mm512_setzero_si512(); 2]; L];
        for (line, (picks, weights)) in lines.iter_mut().zip(picks.iter().zip(weights)) {
            // Read once for each step: the sums leave no register in which it could be kept.
            let picks = std::ptr::from_ref(picks).cast::<__m512i>().read_volatile();
            *line = [places(_mm512_srli_epi32::<BIT>(picks)), load(weights)];
        }
        for (pair, sums) in sums.chunks_mut(2).enumerate() {
            let mut picked = [[_mm512_setzero_si512(); L]; 2];
            for (row, picked) in picked.iter_mut().take(sums.len()).enumerate() {
                let a = _mm512_set1_epi64(rows.two_words(2 * pair + row, quad));
                for (picked, [places, _]) in picked.iter_mut().zip(lines) {
                    *picked = _mm512_shuffle_epi8(a, places);
                }
            }
            for (sums, picked) in sums.iter_mut().zip(picked) {
                for ((sum, picked), [_, weights]) in sums.iter_mut().zip(picked).zip(lines) {
                    *sum = _mm512_dpbusd_epi32(*sum, picked, weights);
                }
            }
        }
    }
}

/// The operand of a shuffle: the lowest two bits of each byte, in the second quad for the second half of the slots.
#[inline]
#[target_feature(enable = "avx512f")]
fn places(picks: __m512i) -> __m512i {
    const AND_OR: i32 = 0xea;
    _mm512_ternarylogic_epi32::<AND_OR>(picks, _mm512_set1_epi8(3), _mm512_set1_epi32(0x0404_0000))
}
