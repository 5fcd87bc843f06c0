//! x86-64.
//!
//! A kernel type is made by `detect` alone, so a value of it proves that the machine has its instructions.

pub(super) mod avx2;
pub(super) mod avx512;
pub(super) mod avxvnni;

use std::arch::x86_64::*;

use super::kernel::{Lanes, Quad};

/// A quad as the 32-bit number that a broadcast takes.
#[inline(always)]
fn word(quad: Quad) -> i32 {
    i32::from_le_bytes(quad.map(|a| a as u8))
}

/// Stores sixteen lanes from two registers.
#[inline]
#[target_feature(enable = "avx2")]
fn store(lanes: &mut Lanes<i32>, value: [__m256i; 2]) {
    let halves = lanes.as_mut_ptr().cast::<__m256i>();
    // SAFETY: the lanes are 64 bytes.
    unsafe {
        _mm256_storeu_si256(halves, value[0]);
        _mm256_storeu_si256(halves.add(1), value[1]);
    }
}
