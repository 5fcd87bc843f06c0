//! Free levels, plainly: `code` = how many of the cuts between ascending levels lie below `x`.
//!
//! A search of `bits` steps without a branch, the same for every table.

/// Fills a table of `2^bits` cuts: entry `i` lies between the levels `i - 1` and `i`, halfway; a tie goes to the lower
/// level. Entry 0 is unused, and what follows the last level is out of reach.
pub(crate) fn nearest_cuts(levels: &[f32], bits: u8) -> Vec<f32> {
    let between = levels.windows(2).map(|pair| at_most((f64::from(pair[0]) + f64::from(pair[1])) / 2.0));
    pad_cuts(between, bits)
}

/// The table of [`nearest_cuts`] from given cuts: a number above cut `i` has code `i + 1` or higher.
pub(crate) fn pad_cuts(between: impl IntoIterator<Item = f32>, bits: u8) -> Vec<f32> {
    let mut cuts = Vec::with_capacity(1 << bits);
    cuts.push(f32::NEG_INFINITY);
    cuts.extend(between);
    cuts.resize(1 << bits, f32::INFINITY);
    cuts
}

/// The largest `f32` that is not above `x`: an `f32` is above it exactly if it is above `x`.
fn at_most(x: f64) -> f32 {
    let nearest = x as f32;
    if f64::from(nearest) > x { nearest.next_down() } else { nearest }
}

/// The code of every value, for a table of `2^bits` cuts.
pub(crate) fn assign(values: &[f32], cuts: &[f32], codes: &mut [u8]) {
    match cuts.len() {
        2 => search::<2>(values, cuts, codes),
        4 => search::<4>(values, cuts, codes),
        8 => search::<8>(values, cuts, codes),
        16 => search::<16>(values, cuts, codes),
        32 => search::<32>(values, cuts, codes),
        64 => search::<64>(values, cuts, codes),
        128 => search::<128>(values, cuts, codes),
        _ => search::<256>(values, cuts, codes),
    }
}

/// `N` is known, so the steps unroll and no index needs a check.
fn search<const N: usize>(values: &[f32], cuts: &[f32], codes: &mut [u8]) {
    let Some(cuts) = cuts.first_chunk::<N>() else { return };
    for (x, code) in values.iter().zip(codes) {
        let (mut below, mut step) = (0, N / 2);
        while step > 0 {
            below |= step * usize::from(*x > cuts[(below | step) % N]);
            step /= 2;
        }
        *code = below as u8;
    }
}

/// `out = scale * table[code]`.
///
/// # Panics
/// If a code is beyond the table.
#[inline(always)]
pub(crate) fn lookup<C: Copy + Into<usize>>(codes: &[C], scale: f32, table: &[f32], out: &mut [f32]) {
    for (code, out) in codes.iter().zip(out) {
        *out = scale * table[(*code).into()];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_code_names_the_nearest_level_and_the_lower_of_two(
            mut levels in prop::collection::vec(-100i32..100, 1..=256),
            values in prop::collection::vec(-250i32..250, 1..50),
        ) {
            levels.sort_unstable();
            levels.dedup();
            let bits = (levels.len().next_power_of_two().trailing_zeros() as u8).max(1);
            let levels: Vec<f32> = levels.into_iter().map(|l| l as f32).collect();
            let values: Vec<f32> = values.into_iter().map(|x| x as f32 / 2.0).collect();
            let mut codes = vec![0; values.len()];
            assign(&values, &nearest_cuts(&levels, bits), &mut codes);
            for (x, code) in values.iter().zip(codes) {
                // `min_by` keeps the first of equals: the lower level.
                let nearest = (0..levels.len()).min_by(|a, b| (x - levels[*a]).abs().total_cmp(&(x - levels[*b]).abs()));
                prop_assert_eq!(Some(usize::from(code)), nearest);
            }
        }
    }

    #[test]
    fn a_cut_between_neighbouring_numbers_keeps_them_apart() {
        let pair = [1.0, 1.0f32.next_up()];
        let mut codes = [9; 2];
        assign(&pair, &nearest_cuts(&pair, 1), &mut codes);
        assert_eq!(codes, [0, 1]);
    }
}
