//! Random numbers whose streams never change: xoshiro256++ (Blackman and Vigna 2019), seeded through splitmix64.

use rand_xoshiro::{
    Xoshiro256PlusPlus,
    rand_core::{Rng, SeedableRng},
};

/// One stream.
#[derive(Debug)]
pub(crate) struct Random(Xoshiro256PlusPlus);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// Uniform in [0, 1), a multiple of 2^-24.
    pub(crate) fn uniform(&mut self) -> f32 {
        (self.0.next_u64() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// Uniform in ±bound.
    pub(crate) fn within(&mut self, bound: f32) -> f32 {
        (2.0 * self.uniform() - 1.0) * bound
    }

    /// Uniform in 0..n by multiplication (Lemire 2019); the bias is below n / 2^64.
    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// Fisher and Yates.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// The seed of stream `index` under `seed` (splitmix64's finalizer), so that no stream depends on another's length.
pub(crate) fn derive(seed: u64, index: usize) -> u64 {
    let mut z = seed.wrapping_add((index as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_fixed_forever() {
        // First output of splitmix64 from state 0, as published with its reference code.
        assert_eq!(derive(0, 0), 0xe220_a839_7b1d_cdaf);
        let mut random = Random::new(1);
        let mut order: Vec<usize> = (0..8).collect();
        random.shuffle(&mut order);
        let drawn: Vec<u32> = (0..3).map(|_| (random.uniform() * 16_777_216.0) as u32).collect();
        // Computed from the published algorithms by a separate program.
        assert_eq!(order, [4, 2, 1, 7, 3, 0, 5, 6]);
        assert_eq!(drawn, [8781477, 1620709, 2253075]);
    }

    #[test]
    fn uniform_numbers_have_the_moments_of_the_uniform_law() {
        let mut random = Random::new(3);
        let drawn: Vec<f64> = (0..100_000).map(|_| f64::from(random.uniform())).collect();
        assert!(drawn.iter().all(|u| (0.0..1.0).contains(u)));
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        let variance = drawn.iter().map(|u| (u - mean) * (u - mean)).sum::<f64>() / drawn.len() as f64;
        // Five standard errors: sqrt(1/12/n) = 9.1e-4, sqrt(1/180/n) = 2.4e-4.
        assert!((mean - 0.5).abs() < 4.6e-3 && (variance - 1.0 / 12.0).abs() < 1.2e-3);
    }

    #[test]
    fn every_permutation_is_equally_likely() {
        let mut random = Random::new(5);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..6000 {
            let mut order = [0, 1, 2];
            random.shuffle(&mut order);
            *counts.entry(order).or_insert(0usize) += 1;
        }
        // 1000 expected of each, standard deviation 29.
        assert!(counts.len() == 6 && counts.values().all(|count| count.abs_diff(1000) < 145), "{counts:?}");
    }
}
