//! Distributions and data that the tests share.
#![allow(dead_code)] // each test binary takes its part

use std::{fs, path::Path};

use ndarray::{Array1, Array2, ArrayD};
use rand_xoshiro::{
    Xoshiro256PlusPlus,
    rand_core::{Rng, SeedableRng},
};
use tersor::{
    Weights,
    nn::Data,
    tensor::{Observed, Statistic},
};

/// Standard normal numbers from a seed (Box and Muller 1958).
pub(crate) fn normal(rows: usize, cols: usize, seed: u64) -> Array2<f32> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut uniform = move || ((rng.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    Array2::from_shape_simple_fn((rows, cols), || {
        ((-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()) as f32
    })
}

/// [`normal`], as a vector.
pub(crate) fn normal_line(len: usize, seed: u64) -> Array1<f32> {
    normal(1, len, seed).row(0).to_owned()
}

/// Weights of which data told the same numbers as every statistic.
pub(crate) fn observed<'a>(weights: &'a dyn Weights, statistic: &'a ArrayD<f32>) -> Observed<'a> {
    use Statistic::{Gradient, HessianGradient, Movement, SynapticFlow};
    let all = [Gradient, HessianGradient, SynapticFlow, Movement];
    all.into_iter().fold(Observed::new(weights), |observed, which| observed.with(which, statistic))
}

/// The normal distribution without chance: the quantiles of `n` equal shares of its mass.
pub(crate) fn normal_quantiles(n: usize) -> Array1<f32> {
    Array1::from_shape_fn(n, |i| normal_quantile((i as f64 + 0.5) / n as f64) as f32)
}

/// The inverse of the normal distribution function, by Newton's method from a logistic guess.
pub(crate) fn normal_quantile(p: f64) -> f64 {
    let mut x = (p / (1.0 - p)).ln() / 1.702;
    for _ in 0..60 {
        let density = (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
        let step = (libm::erfc(-x / std::f64::consts::SQRT_2) / 2.0 - p) / density;
        x -= step.clamp(-1.0, 1.0);
        if step.abs() < 1e-14 {
            break;
        }
    }
    x
}

/// Mean squared error between an array and its quantized self.
pub(crate) fn mse(exact: impl IntoIterator<Item = f32>, found: impl IntoIterator<Item = f32>) -> f64 {
    let (mut sum, mut count) = (0.0, 0usize);
    for (exact, found) in exact.into_iter().zip(found) {
        sum += (f64::from(exact) - f64::from(found)).powi(2);
        count += 1;
    }
    sum / count as f64
}

/// The shipped digits as (training, test): test is every fifth image; pixels 0 to 16 become 0 to 1.
pub(crate) fn digits() -> (Data, Data) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let pixels = fs::read(folder.join("digits_images_u8_1797x64.bin")).unwrap();
    let labels = fs::read(folder.join("digits_labels_u8_1797.bin")).unwrap();
    let images = Array1::from_iter(pixels.iter().map(|pixel| f32::from(*pixel) / 16.0));
    let images = images.into_shape_with_order((1797, 64)).unwrap();
    let all = Data::classes(images, labels.into_iter().map(usize::from)).unwrap();
    let (test, train): (Vec<usize>, Vec<usize>) = (0..1797).partition(|i| i % 5 == 0);
    (all.select(&train).unwrap(), all.select(&test).unwrap())
}
