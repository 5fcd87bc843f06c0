//! x86-64.
//!
//! A kernel type is made by `detect` alone, so a value of it proves that the machine has its instructions.

pub(super) mod avx2;
pub(super) mod avx512;
pub(super) mod avxvnni;

use std::arch::x86_64::*;

use super::kernel::{Lanes, Quad};

/// `R` rows of one length, which the compiler then knows.
#[inline(always)]
fn cut<'a, const R: usize>(rows: &[&'a [Quad]], quads: usize) -> [&'a [Quad]; R] {
    let mut cut: [&[Quad]; R] = [&[]; R];
    for (cut, row) in cut.iter_mut().zip(rows) {
        *cut = &row[..quads];
    }
    cut
}

/// A quad as the 32-bit number that a broadcast takes.
#[inline(always)]
fn word([a, b, c, d]: Quad) -> i32 {
    i32::from_le_bytes([a as u8, b as u8, c as u8, d as u8])
}

/// Stores eight of sixteen lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn store(lanes: &mut Lanes<i32>, half: usize, eight: __m256i) {
    let lanes = &mut lanes[8 * half..][..8];
    // SAFETY: eight lanes are 32 bytes.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), eight) }
}
