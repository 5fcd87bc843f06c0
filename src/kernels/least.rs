//! The numbers of least magnitude, exactly, in two passes over memory: one finds where to cut, one makes the mask.
//!
//! A sample says between which two magnitudes the cut surely lies (five deviations to either side). The first pass counts
//! what is below them and keeps the few numbers between; among these the cut is selected. Where the sample was wrong, all
//! numbers on the cut's side are selected from.
//!
//! Magnitudes are compared as the bits of `|x|`, which are in the same order.

use super::{bits, isa::vectorize, parallel};

/// Numbers, and the words of those that count; `None`: all do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Living<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) alive: Option<&'a [u64]>,
}

/// Where numbers are cut: what is below goes, and of what equals it the first so many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cut {
    threshold: u32,
    ties: usize,
}

/// The bits of `|x|`; below the sign of any that does not count.
const MAGNITUDE: u32 = i32::MAX as u32;
/// The key of what does not count.
const DEAD: u32 = u32::MAX;
/// Numbers to a piece.
const PIECE: usize = 1 << 16;
/// Numbers in the sample.
const SAMPLE: usize = 1 << 15;

impl Cut {
    /// What is below a magnitude goes; none if that is NaN.
    pub(crate) fn below(magnitude: f64) -> Cut {
        let nearest = magnitude as f32;
        // The least f32 that is not below it.
        let bound = if f64::from(nearest) < magnitude { nearest.next_up() } else { nearest };
        Cut { threshold: if bound > 0.0 { bound.to_bits() } else { 0 }, ties: 0 }
    }

    /// The least `count` of all that count go (all of them, if there are fewer), ties by the lower index; `None` if one
    /// of the numbers, counting or not, is not finite.
    pub(crate) fn least(tensors: &[Living<'_>], count: usize) -> Option<Cut> {
        let guess = Guess::new(tensors, count);
        let pieces: Vec<Living<'_>> = tensors.iter().flat_map(|tensor| tensor.pieces()).collect();
        let found = parallel::map(pieces.len(), |index| {
            vectorize(
                #[inline(always)]
                || pieces[index].count(guess),
            )
        });
        if found.iter().any(|found| !found.finite) {
            return None;
        }
        let sum = |f: fn(&Counted) -> usize| found.iter().map(f).sum::<usize>();
        let (below, to_low) = (sum(|found| found.below), sum(|found| found.to_low));
        let to_high = sum(|found| found.to_high);
        // Of `below` numbers below a threshold and `to` up to it.
        let cut = |threshold, below, to| match count == to {
            true => Cut { threshold: threshold + 1, ties: 0 },
            false => Cut { threshold, ties: count - below },
        };
        let select = |mut keys: Vec<u32>, before: usize| {
            let (lower, threshold, higher) = keys.select_nth_unstable(count - before - 1);
            let below = before + lower.iter().filter(|key| *key < threshold).count();
            let to = count + higher.iter().filter(|key| *key == threshold).count();
            cut(*threshold, below, to)
        };
        Some(if count == 0 {
            Cut { threshold: 0, ties: 0 }
        } else if count > to_high || count <= below {
            // The guess was wrong, or asked for more than there is.
            let keys: Vec<u32> = tensors.iter().flat_map(Living::keys).filter(|key| *key != DEAD).collect();
            if count > keys.len() { Cut { threshold: DEAD, ties: 0 } } else { select(keys, 0) }
        } else if count <= to_low {
            cut(guess.low, below, to_low)
        } else {
            let between: Vec<u32> = found.into_iter().flat_map(|found| found.between).collect();
            let before_high = to_low + between.len();
            if count <= before_high { select(between, to_low) } else { cut(guess.high, before_high, to_high) }
        })
    }

    /// The words of what stays of a tensor. Asked about tensors in order, it removes ties in order.
    pub(crate) fn kept(&mut self, tensor: Living<'_>) -> Vec<u64> {
        let threshold = self.threshold;
        let mut words = bits::of(tensor.values, move |x| x.to_bits() & MAGNITUDE >= threshold);
        if let Some(alive) = tensor.alive {
            words.iter_mut().zip(alive).for_each(|(word, alive)| *word &= alive);
        }
        for (word, values) in words.iter_mut().zip(tensor.values.chunks(64)) {
            if self.ties == 0 {
                break;
            }
            let mut equal = 0;
            for (i, x) in values.iter().enumerate() {
                equal |= u64::from(x.to_bits() & MAGNITUDE == threshold) << i;
            }
            equal &= *word;
            while equal != 0 && self.ties > 0 {
                *word &= !(equal & equal.wrapping_neg());
                equal &= equal - 1;
                self.ties -= 1;
            }
        }
        words
    }
}

/// Two magnitudes between which a cut is expected, both included.
#[derive(Clone, Copy)]
struct Guess {
    low: u32,
    high: u32,
}

impl Guess {
    fn new(tensors: &[Living<'_>], count: usize) -> Guess {
        let total: usize = tensors.iter().map(|tensor| tensor.values.len()).sum();
        let stride = total.div_ceil(SAMPLE).max(1);
        let mut sample = Vec::with_capacity(total.min(SAMPLE));
        let mut living = 0;
        for tensor in tensors {
            living +=
                tensor.alive.map_or(tensor.values.len(), |alive| alive.iter().map(|w| w.count_ones() as usize).sum());
            // One of every few, at a place that follows no pattern of rows.
            let places = (0..tensor.values.len()).step_by(stride).enumerate();
            let places = places.map(|(i, start)| start + (i.wrapping_mul(0x9E37_79B9) >> 12) % stride);
            sample.extend(
                places.filter(|at| *at < tensor.values.len()).map(|at| tensor.key(at)).filter(|key| *key != DEAD),
            );
        }
        if sample.is_empty() || living == 0 {
            return Guess { low: 0, high: 0 };
        }
        let share = count.min(living) as f64 / living as f64;
        let n = sample.len() as f64;
        let slack = 5.0 * (share * (1.0 - share) * n).sqrt() + 2.0;
        let mut at = |rank: f64| {
            let rank = rank.clamp(0.0, n - 1.0) as usize;
            *sample.select_nth_unstable(rank).1
        };
        // At the ends a sample says little, and there is little beyond.
        let low = if share * n < 2.0 * slack { 0 } else { at(share * n - slack) };
        let high = if (1.0 - share) * n < 2.0 * slack { MAGNITUDE } else { at(share * n + slack) };
        Guess { low, high }
    }
}

/// What the first pass finds in a piece.
struct Counted {
    finite: bool,
    /// Magnitudes below the guess, up to its lower end, and up to its higher end.
    below: usize,
    to_low: usize,
    to_high: usize,
    /// Those strictly within.
    between: Vec<u32>,
}

impl<'a> Living<'a> {
    fn pieces(&self) -> impl Iterator<Item = Living<'a>> + use<'a> {
        let alive = self.alive;
        self.values
            .chunks(PIECE)
            .enumerate()
            .map(move |(index, values)| Living { values, alive: alive.map(|alive| &alive[PIECE / 64 * index..]) })
    }

    fn key(&self, at: usize) -> u32 {
        match self.alive {
            Some(alive) if alive[at / 64] >> (at % 64) & 1 == 0 => DEAD,
            _ => self.values[at].to_bits() & MAGNITUDE,
        }
    }

    fn keys(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.values.len()).map(|at| self.key(at))
    }

    #[inline(always)]
    fn count(self, Guess { low, high }: Guess) -> Counted {
        let mut sums = [[0i32; 16]; 3];
        let mut largest = [0i32; 16];
        let mut between = Vec::with_capacity(PIECE / 16);
        let (after, width) = (low.wrapping_add(1), high.saturating_sub(low).saturating_sub(1));
        for (index, values) in self.values.chunks(64).enumerate() {
            let mut keys = [DEAD; 64];
            match values.first_chunk::<64>() {
                Some(values) => keys.iter_mut().zip(values).for_each(|(key, x)| *key = x.to_bits() & MAGNITUDE),
                None => keys.iter_mut().zip(values).for_each(|(key, x)| *key = x.to_bits() & MAGNITUDE),
            }
            for keys in keys.as_chunks::<16>().0 {
                for i in 0..16 {
                    // What fills up the last block is -1 here.
                    largest[i] = largest[i].max(keys[i] as i32);
                }
            }
            if let Some(alive) = self.alive {
                bury(&mut keys, alive[index]);
            }
            for keys in keys.as_chunks::<16>().0 {
                for i in 0..16 {
                    sums[0][i] += i32::from(keys[i] < low);
                    sums[1][i] += i32::from(keys[i] <= low);
                    sums[2][i] += i32::from(keys[i] <= high);
                }
            }
            let mut within = bits::of_64(&keys, |key| key.wrapping_sub(after) < width);
            while within != 0 {
                between.push(keys[within.trailing_zeros() as usize]);
                within &= within - 1;
            }
        }
        let [below, to_low, to_high] = sums.map(|sums| sums.iter().map(|sum| *sum as usize).sum());
        let finite = largest.iter().all(|largest| *largest < f32::INFINITY.to_bits() as i32);
        Counted { finite, below, to_low, to_high, between }
    }
}

/// Marks what does not count.
#[inline(always)]
fn bury(keys: &mut [u32; 64], alive: u64) {
    for (half, keys) in [alive as u32, (alive >> 32) as u32].into_iter().zip(keys.as_chunks_mut::<32>().0) {
        for (i, key) in keys.iter_mut().enumerate() {
            *key |= (!half << (31 - i)).cast_signed().wrapping_shr(31).cast_unsigned();
        }
    }
}

/// The words of what stays if of every `M` consecutive numbers the least go until `n` stay, ties by the lower index; what
/// does not count goes first. `M * G` is 64, and `M` divides the length.
pub(crate) fn kept_of_groups<const M: usize, const G: usize>(tensor: Living<'_>, n: usize) -> Vec<u64> {
    let values = tensor.values;
    let mut words = vec![0; values.len().div_ceil(64)];
    parallel::for_each_chunk_mut(&mut words, PIECE / 64, |index, words| {
        let values = &values[PIECE * index..];
        let alive = tensor.alive.map(|alive| &alive[PIECE / 64 * index..]);
        vectorize(
            #[inline(always)]
            || {
                let (whole, rest) = values.as_chunks::<64>();
                let mut last = [0.0; 64];
                last[..rest.len()].copy_from_slice(rest);
                for (index, word) in words.iter_mut().enumerate() {
                    let values = whole.get(index).unwrap_or(&last);
                    *word = best_of_64::<M, G>(values, n, alive.map(|alive| alive[index]));
                }
            },
        );
    });
    if let Some(word) = words.last_mut() {
        *word &= u64::MAX >> ((64 - values.len() % 64) % 64);
    }
    words
}

#[inline(always)]
fn best_of_64<const M: usize, const G: usize>(values: &[f32; 64], n: usize, alive: Option<u64>) -> u64 {
    // One more than the magnitude; 0 for what does not count.
    let mut keys = [0i32; 64];
    for (key, x) in keys.iter_mut().zip(values) {
        *key = (x.to_bits() & MAGNITUDE) as i32 + 1;
    }
    if let Some(alive) = alive {
        keys.iter_mut().enumerate().for_each(|(i, key)| *key *= (alive >> i & 1) as i32);
    }
    // Place by place, so that the same place of all groups is compared at once.
    let mut columns = [[0i32; G]; M];
    for (place, column) in columns.iter_mut().enumerate() {
        for (group, key) in column.iter_mut().enumerate() {
            *key = keys[M * group + place];
        }
    }
    // The bits of each group.
    let mut kept = [0u32; G];
    for (place, column) in columns.iter().enumerate() {
        let mut ranks = [0i32; G];
        for (other, others) in columns.iter().enumerate() {
            for ((rank, own), other_key) in ranks.iter_mut().zip(column).zip(others) {
                *rank += i32::from(if other < place { other_key <= own } else { other_key < own });
            }
        }
        for (kept, rank) in kept.iter_mut().zip(ranks) {
            *kept |= u32::from(rank >= (M - n) as i32) << place;
        }
    }
    let word = kept.iter().enumerate().fold(0, |word, (group, kept)| word | u64::from(*kept) << (M * group));
    word & alive.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbers() -> impl Strategy<Value = Vec<f32>> {
        let number =
            prop_oneof![4 => -1.0f32..1.0, 1 => Just(0.0), 1 => Just(-0.5), 1 => Just(0.5), 1 => -1e-42f32..1e30];
        prop::collection::vec(number, 1..400)
    }

    /// What stays, by a stable sort.
    fn by_sorting(values: &[f32], alive: &[bool], count: usize) -> Vec<bool> {
        let mut order: Vec<usize> = (0..values.len()).filter(|i| alive[*i]).collect();
        order.sort_by(|a, b| values[*a].abs().total_cmp(&values[*b].abs()));
        let mut kept = alive.to_vec();
        order.into_iter().take(count).for_each(|i| kept[i] = false);
        kept
    }

    fn words(bits: &[bool]) -> Vec<u64> {
        bits.chunks(64).map(|bits| bits.iter().enumerate().fold(0, |w, (i, bit)| w | u64::from(*bit) << i)).collect()
    }

    proptest! {
        #[test]
        fn a_cut_removes_what_a_stable_sort_puts_first(
            values in numbers(), seed in any::<u64>(), share in 0.0..1.2f64, all in any::<bool>(), split in 0.0..1.0f64,
        ) {
            let alive: Vec<bool> = (0..values.len()).map(|i| all || seed >> (i % 61) & 1 != 0).collect();
            let count = (share * values.len() as f64) as usize;
            let expected = by_sorting(&values, &alive, count);
            let split = (split * values.len() as f64) as usize;
            let (head, tail) = (words(&alive[..split]), words(&alive[split..]));
            let tensors = [(&values[..split], &head), (&values[split..], &tail)]
                .map(|(values, alive)| Living { values, alive: (!all).then_some(alive) });
            let mut cut = Cut::least(&tensors, count).unwrap();
            prop_assert_eq!(cut.kept(tensors[0]), words(&expected[..split]));
            prop_assert_eq!(cut.kept(tensors[1]), words(&expected[split..]));
        }

        #[test]
        fn groups_keep_what_a_stable_sort_puts_last(values in numbers(), seed in any::<u64>(), n in 0usize..=4) {
            let values = &values[..values.len() / 4 * 4];
            let alive: Vec<bool> = (0..values.len()).map(|i| seed >> (i % 61) & 1 != 0).collect();
            for alive in [alive, vec![true; values.len()]] {
                let groups = values.chunks(4).zip(alive.chunks(4));
                let expected: Vec<bool> = groups
                    .flat_map(|(x, alive)| by_sorting(x, alive, alive.iter().filter(|a| **a).count().saturating_sub(n)))
                    .collect();
                let alive = words(&alive);
                let tensor = Living { values, alive: Some(&alive) };
                prop_assert_eq!(kept_of_groups::<4, 16>(tensor, n), words(&expected));
            }
        }

        #[test]
        fn what_is_below_a_number_goes(values in numbers(), threshold in -1.0f64..2.0) {
            let kept: Vec<bool> = values.iter().map(|x| f64::from(x.abs()) >= threshold).collect();
            let tensor = Living { values: &values, alive: None };
            prop_assert_eq!(Cut::below(threshold).kept(tensor), words(&kept));
        }
    }

    #[test]
    fn large_tensors_are_cut_where_a_sort_cuts_them() {
        let noise = |i: usize| ((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32;
        let of = |f: &dyn Fn(usize) -> f32| (0..200_000).map(f).collect::<Vec<f32>>();
        let sorted = of(&|i| i as f32);
        let periodic = of(&|i| if i % 7 == 0 { noise(i) } else { -3.0 });
        let few = of(&|i| (noise(i) as usize % 3) as f32);
        for values in [of(&noise), sorted, periodic, few] {
            for count in [0, 1, 2, 1000, 28_571, 100_000, 199_990, 199_999, 200_000] {
                let tensor = Living { values: &values, alive: None };
                let kept = Cut::least(&[tensor], count).unwrap().kept(tensor);
                assert_eq!(kept, words(&by_sorting(&values, &vec![true; values.len()], count)), "{count}");
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_found() {
        for wrong in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = vec![1.0; 100];
            values[77] = wrong;
            assert_eq!(Cut::least(&[Living { values: &values, alive: None }], 3), None);
        }
    }
}
