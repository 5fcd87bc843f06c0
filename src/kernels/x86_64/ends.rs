//! The ends of short groups: one register, then its halves, where a compiler makes far more of it.

use std::arch::x86_64::*;

use super::avx512::load;
use crate::kernels::kernel::Lanes;

/// [`Kernel::ends`](crate::kernels::kernel::Kernel::ends).
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn ends(numbers: &[Lanes<f32>]) -> (i32, i32) {
    let all_but_sign = _mm512_set1_epi32(i32::MAX);
    let (mut low, mut high) = (all_but_sign, _mm512_set1_epi32(i32::MIN));
    for x in numbers {
        let bits = load(x);
        let key = _mm512_xor_si512(bits, _mm512_and_si512(_mm512_srai_epi32::<31>(bits), all_but_sign));
        (low, high) = (_mm512_min_epi32(low, key), _mm512_max_epi32(high, key));
    }
    (_mm512_reduce_min_epi32(low), _mm512_reduce_max_epi32(high))
}
