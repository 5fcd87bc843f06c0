//! Counts of numbers in even bins whose width is a power of two.

use super::isa::vectorize;

/// Numbers whose places are found together, before they are counted one by one.
const SOME: usize = 1 << 10;

/// Adds to each count the numbers in its bin: bin `i` of `2^exponent` starts at `(i - bins / 2) * 2^exponent`. All numbers
/// must lie in a bin; there are at most 2^20.
pub(crate) fn count(values: &[f32], exponent: i32, counts: &mut [u64]) {
    let half = (counts.len() / 2) as f32;
    // Exact where it is finite and nothing is lost below: a number is made larger, up to `half`.
    let per_width = libm::exp2f(-exponent as f32);
    if !(-126..=0).contains(&exponent) {
        let (half, per_width) = (f64::from(half), libm::exp2(f64::from(-exponent)));
        return values.iter().for_each(|x| counts[((f64::from(*x) * per_width).floor() + half) as usize] += 1);
    }
    // In turns, so that a number need not wait for the count of the last one in the same bin.
    let mut turns = [vec![0u32; counts.len()], vec![0; counts.len()]];
    let mut places = [0u32; SOME];
    for values in values.chunks(SOME) {
        let places = &mut places[..values.len()];
        vectorize(
            #[inline(always)]
            || {
                /// Beside it f32 counts in ones, in the lowest bits.
                const ONES: f32 = 8_388_608.0;
                for (x, place) in values.iter().zip(&mut *places) {
                    *place = ((x * per_width).floor() + half + ONES).to_bits() & (ONES as u32 - 1);
                }
            },
        );
        let [even, odd] = &mut turns;
        let (pairs, rest) = places.as_chunks::<2>();
        for [a, b] in pairs {
            even[*a as usize] += 1;
            odd[*b as usize] += 1;
        }
        rest.iter().for_each(|place| even[*place as usize] += 1);
    }
    for turn in turns {
        counts.iter_mut().zip(turn).for_each(|(count, more)| *count += u64::from(more));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counts_are_those_of_the_definition(
            places in prop::collection::vec(-127f64..127.0, 0..3000),
            exponent in prop::sample::select(vec![-149, -130, -126, -20, 0, 1, 60]),
        ) {
            let width = libm::exp2(f64::from(exponent));
            let values: Vec<f32> = places.into_iter().map(|place| (place * width) as f32).collect();
            let (mut counts, mut expected) = (vec![1; 256], vec![1; 256]);
            count(&values, exponent, &mut counts);
            values.iter().for_each(|x| expected[((f64::from(*x) / width).floor() + 128.0) as usize] += 1);
            prop_assert_eq!(counts, expected);
        }
    }
}
