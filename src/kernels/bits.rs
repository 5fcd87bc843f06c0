//! A bit a number, 64 to a word, the first number's lowest: how masks are made of numbers and applied to them.

use super::{isa::vectorize, parallel};

/// Words to a piece.
const PIECE: usize = 1 << 11;

/// A word for each 64 numbers: bit `i` is `f(number i)`; bits beyond the last are 0.
pub(crate) fn of(values: &[f32], f: impl Fn(f32) -> bool + Copy + Sync + Send) -> Vec<u64> {
    let mut words = vec![0; values.len().div_ceil(64)];
    parallel::for_each_chunk_mut(&mut words, PIECE, |index, words| {
        let values = &values[64 * PIECE * index..];
        vectorize(
            #[inline(always)]
            || {
                let (whole, rest) = values.as_chunks::<64>();
                for (word, values) in words.iter_mut().zip(whole) {
                    *word = of_64(values, f);
                }
                if let Some(word) = words.get_mut(whole.len()) {
                    *word = rest.iter().enumerate().fold(0, |word, (i, x)| word | u64::from(f(*x)) << i);
                }
            },
        );
    });
    words
}

/// The word of 64 things.
#[inline(always)]
pub(super) fn of_64<T: Copy>(values: &[T; 64], f: impl Fn(T) -> bool) -> u64 {
    let mut bytes = [0u8; 64];
    for (byte, x) in bytes.iter_mut().zip(values) {
        *byte = u8::from(f(*x));
    }
    // Eight bytes of 0 or 1 to eight bits: the product moves byte i's bit to bit 56 + i, and nothing carries.
    const TO_BITS: u64 = 0x0102_0408_1020_4080;
    let (eights, _) = bytes.as_chunks::<8>();
    let mut word = [0u8; 8];
    for (byte, eight) in word.iter_mut().zip(eights) {
        *byte = (u64::from_le_bytes(*eight).wrapping_mul(TO_BITS) >> 56) as u8;
    }
    u64::from_le_bytes(word)
}

/// Sets to zero the numbers whose bit is 0.
pub(crate) fn apply(words: &[u64], values: &mut [f32]) {
    parallel::for_each_chunk_mut(values, 64 * PIECE, |index, values| {
        let words = &words[PIECE * index..];
        vectorize(
            #[inline(always)]
            || apply_piece(words, values),
        );
    });
}

/// The same on this thread, to be inlined where instructions were chosen.
#[inline(always)]
fn apply_piece(words: &[u64], values: &mut [f32]) {
    let (whole, rest) = values.as_chunks_mut::<64>();
    for (word, values) in words.iter().zip(&mut *whole) {
        for (half, values) in [*word as u32, (*word >> 32) as u32].into_iter().zip(values.as_chunks_mut::<32>().0) {
            for (i, x) in values.iter_mut().enumerate() {
                // By bits, not by product: what is removed is 0, whatever it was.
                *x = f32::from_bits(x.to_bits() & (half << (31 - i)).cast_signed().wrapping_shr(31).cast_unsigned());
            }
        }
    }
    if let Some(word) = words.get(whole.len()) {
        rest.iter_mut().enumerate().filter(|(i, _)| word >> i & 1 == 0).for_each(|(_, x)| *x = 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_say_what_each_number_says(values in prop::collection::vec(-9i8..9, 0..300)) {
            let mut values: Vec<f32> = values.into_iter().map(f32::from).collect();
            let words = of(&values, |x| x > 1.0);
            let bit = |i: usize| words[i / 64] >> (i % 64) & 1 != 0;
            prop_assert!((0..64 * words.len()).all(|i| bit(i) == values.get(i).is_some_and(|x| *x > 1.0)));
            let expected: Vec<f32> = values.iter().map(|x| if *x > 1.0 { *x } else { 0.0 }).collect();
            apply(&words, &mut values);
            prop_assert_eq!(values, expected);
        }
    }
}
