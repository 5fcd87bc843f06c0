//! The schemes with a codebook against optimal quantizers, theorems and awkward input.
//! One file, since all its tests run over the same lists of schemes.

mod common;

use common::{mse, normal, normal_quantiles};
use ndarray::{Array, Array1, Array2, ArrayD, Axis, array};
use proptest::prelude::*;
use tersor::{
    Error, QuantizedTensor, Quantizer,
    quantize::kmeans_1d,
    tensor::{Granularity, Grid, Weighted, Weights},
};

/// A distribution as numbers of known weight: the mean of each narrow cell, its mass, and the variance inside all cells.
struct Distribution {
    values: Vec<f32>,
    masses: Vec<f32>,
    inside: f64,
}

impl Distribution {
    /// Cells of width `h` up to `end` on both sides; `mass` and `mean * mass` of the cell from a to b, both above 0.
    fn symmetric(h: f64, end: f64, mass: impl Fn(f64, f64) -> f64, moment: impl Fn(f64, f64) -> f64) -> Distribution {
        let cells = (0..(end / h) as usize).map(|i| (i as f64 * h, (i + 1) as f64 * h));
        let half: Vec<(f64, f64)> = cells.map(|(a, b)| (moment(a, b) / mass(a, b), mass(a, b))).collect();
        let both = half.iter().rev().map(|(x, m)| (-x, *m)).chain(half.iter().copied());
        let (values, masses) = both.map(|(x, m)| (x as f32, m as f32)).unzip();
        Distribution { values, masses, inside: h * h / 12.0 }
    }

    fn normal(h: f64) -> Distribution {
        let above = |x: f64| libm::erfc(x / std::f64::consts::SQRT_2) / 2.0;
        let density = |x: f64| (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
        Distribution::symmetric(h, 9.0, |a, b| above(a) - above(b), |a, b| density(a) - density(b))
    }

    /// Of variance 1.
    fn laplace(h: f64) -> Distribution {
        let rate = std::f64::consts::SQRT_2;
        let above = move |x: f64| (-rate * x).exp() / 2.0;
        let moment = move |x: f64| (x + 1.0 / rate) * above(x);
        Distribution::symmetric(h, 18.0, move |a, b| above(a) - above(b), move |a, b| moment(a) - moment(b))
    }

    /// The squared error of a scheme, that inside the cells included.
    fn distortion(&self, scheme: &dyn Quantizer) -> (f64, QuantizedTensor) {
        let (values, importance) =
            (Array1::from(self.values.clone()), ArrayD::from(Array1::from(self.masses.clone()).into_dyn()));
        let q = scheme.apply(&Weighted { weights: &values, importance: &importance }).unwrap();
        let (mut sum, mut mass) = (0.0, 0.0);
        for ((x, y), m) in self.values.iter().zip(q.dequantize()).zip(&self.masses) {
            sum += f64::from(*m) * (f64::from(*x) - f64::from(y)).powi(2);
            mass += f64::from(*m);
        }
        (sum / mass + self.inside, q)
    }
}

fn close(found: f64, expected: f64, tolerance: f64, what: &str) {
    assert!((found / expected - 1.0).abs() <= tolerance, "{what}: {found}, expected {expected}");
}

/// Max 1960 and Lloyd 1982, computed anew to twelve digits.
const LLOYD_MAX_NORMAL: [(usize, f64); 8] = [
    (2, 0.363380227632),
    (4, 0.117481847829),
    (8, 0.034547760789),
    (16, 0.009501008008),
    (32, 0.002504668356),
    (64, 0.000644239665),
    (128, 0.000163478230),
    (256, 0.0000411850829),
];

#[test]
fn kmeans_reaches_the_lloyd_max_distortion_of_normal_numbers() {
    let normal = Distribution::normal(1.0 / 2048.0);
    let mass: f64 = normal.masses.iter().map(|m| f64::from(*m)).sum();
    for (k, optimum) in LLOYD_MAX_NORMAL {
        let found = kmeans_1d(&normal.values, Some(&normal.masses), k).unwrap();
        // A border between levels may stand half a cell off, of about 8 / k between levels.
        let tolerance = 1e-6 + (k as f64 / 8.0 / 2048.0).powi(2);
        close(found.inertia / mass + normal.inside, optimum, tolerance, &format!("{k} levels"));
    }
}

#[test]
fn kmeans_finds_the_lloyd_max_levels_of_normal_numbers() {
    let normal = Distribution::normal(1.0 / 2048.0);
    let tables: [&[f64]; 4] = [
        &[0.797884561],
        &[0.452780035, 1.51041761],
        &[0.245094179, 0.756005281, 1.34390928, 2.1519457],
        &[0.12839503, 0.388048299, 0.656759119, 0.942340456, 1.2562312, 1.61804639, 2.06901723, 2.73258957],
    ];
    for positive in tables {
        let found = kmeans_1d(&normal.values, Some(&normal.masses), 2 * positive.len()).unwrap();
        let expected = positive.iter().rev().map(|x| -x).chain(positive.iter().copied());
        for (found, expected) in found.centroids.iter().zip(expected) {
            assert!((found - expected).abs() < 1.0 / 2048.0, "{found} {expected}");
        }
    }
}

#[test]
fn kmeans_reaches_the_lloyd_max_distortion_of_laplacian_numbers() {
    let laplace = Distribution::laplace(1.0 / 1024.0);
    for (bits, optimum) in (1..).zip([0.5, 0.176194881, 0.054475988, 0.015372527, 0.004102180, 0.001060952]) {
        let tolerance = 1e-6 + (f64::from(1u8 << bits) / 8.0 / 1024.0).powi(2);
        close(
            laplace.distortion(&Quantizer::kmeans(bits).exact()).0,
            optimum,
            tolerance,
            &format!("{bits} bits, exact"),
        );
        close(laplace.distortion(&Quantizer::kmeans(bits)).0, optimum, tolerance, &format!("{bits} bits, bins"));
    }
}

#[test]
fn ternary_and_binary_reach_their_constants_on_normal_numbers() {
    let normal = Distribution::normal(1.0 / 8192.0);
    let scale = |q: &QuantizedTensor| match q.grid() {
        Grid::Codebook { scale, .. } => f64::from(scale[0]),
        _ => panic!("not a codebook"),
    };
    let cases: [(Box<dyn Quantizer>, f64, f64); 3] = [
        (Box::new(Quantizer::ternary()), 1.2240064, 0.190174039),
        (Box::new(Quantizer::ternary().twn()), 1.1841607, 0.1916248),
        (Box::new(Quantizer::binary()), 0.7978845608, 0.363380227632),
    ];
    for (scheme, alpha, distortion) in cases {
        let (found, q) = normal.distortion(&*scheme);
        close(found, distortion, 3e-5, &format!("{scheme:?}"));
        close(scale(&q), alpha, 1e-4, &format!("{scheme:?}"));
    }
    // About its mean a shifted distribution is as before; about 0 it is not.
    let shifted = normal_quantiles(1 << 16) + 3.0;
    let centered = Quantizer::binary().centered().apply(&shifted).unwrap();
    close(mse(shifted.iter().copied(), centered.dequantize()), 0.363380, 1e-3, "centered");
}

#[test]
fn nf4_groups_of_normal_numbers_have_their_known_distortion() {
    let x = normal(1 << 13, 256, 3);
    for (size, known) in [(32, 0.007614), (64, 0.008456), (128, 0.009127), (256, 0.009730)] {
        let found = mse(x.iter().copied(), Quantizer::nf4().per_group(size).apply(&x).unwrap().dequantize());
        close(found, known, 5e-3, &format!("groups of {size}"));
    }
    assert_eq!(Quantizer::nf4().apply(&x).unwrap().bits_per_weight(), 4.5 + 16.0 * 32.0 / x.len() as f64);
}

#[test]
fn piecewise_lies_between_kmeans_and_uniform() {
    let x = normal(256, 256, 4);
    let error = |scheme: &dyn Quantizer| mse(x.iter().copied(), scheme.apply(&x).unwrap().dequantize());
    for bits in 3..=8 {
        let (kmeans, uniform) = (error(&Quantizer::kmeans(bits)), uniform_error(&x, bits));
        let best = error(&Quantizer::piecewise(bits));
        let whole = error(&Quantizer::piecewise(bits).absmax());
        let fitted = error(&Quantizer::piecewise(bits).normal_breakpoint());
        assert!(kmeans < best && best <= whole && whole <= fitted, "{bits}: {kmeans} {best} {whole} {fitted}");
        assert!(fitted < uniform || bits == 3, "{bits}: {fitted} {uniform}");
        let three = error(&Quantizer::piecewise(bits).pieces(3));
        let one = error(&Quantizer::piecewise(bits).pieces(1));
        assert!(kmeans < three && three < one && best < one, "{bits}: {three} {best} {one}");
    }
    // One magnitude: nothing is left to cut.
    let ternary = error(&Quantizer::ternary());
    close(error(&Quantizer::piecewise(2)), ternary, 1e-4, "2 bits");
}

/// Evenly spaced levels from the least to the greatest number.
fn uniform_error(x: &Array2<f32>, bits: u8) -> f64 {
    let (low, high) = x.iter().fold((f32::MAX, f32::MIN), |(low, high), x| (low.min(*x), high.max(*x)));
    let step = (high - low) / ((1 << bits) - 1) as f32;
    mse(x.iter().copied(), x.iter().map(|x| low + step * ((x - low) / step).round()).collect::<Vec<_>>())
}

#[test]
fn levels_of_a_power_of_two_are_powers_of_two() {
    let x = normal(32, 64, 5);
    for bits in 2..=8 {
        for scheme in [Quantizer::power_of_two(bits), Quantizer::power_of_two(bits).absmax().per_group(16)] {
            let values = scheme.apply(&x).unwrap().dequantize();
            assert!(values.iter().all(|y| *y == 0.0 || y.abs().log2().fract() == 0.0), "{scheme:?}");
        }
    }
    // The largest of 0.76 * 4 has 4 as its nearest power of two, that of 0.74 * 4 has 2.
    for (largest, level) in [(3.04f32, 4.0), (2.96, 2.0)] {
        let q = Quantizer::power_of_two(4).absmax().apply(&array![largest, 0.1, -0.3]).unwrap();
        assert_eq!(q.dequantize()[0], level);
    }
}

#[test]
fn a_chosen_scale_is_no_worse_than_that_of_the_largest() {
    let heavy = normal(64, 64, 6).mapv(|x| x * x * x);
    let error = |scheme: &dyn Quantizer| mse(heavy.iter().copied(), scheme.apply(&heavy).unwrap().dequantize());
    for bits in 2..=8 {
        let shifts = Quantizer::power_of_two(bits);
        assert!(error(&shifts) <= error(&shifts.clone().absmax()), "{bits}");
        assert!(error(&shifts.clone().float_scale()) <= error(&shifts.clone().float_scale().absmax()), "{bits}");
        let sums = Quantizer::additive_power_of_two(bits);
        assert!(error(&sums) <= error(&sums.clone().absmax()), "{bits}");
    }
    // Sums of shifts resolve the ends that shifts alone leave coarse.
    assert!(error(&Quantizer::additive_power_of_two(6)) < error(&Quantizer::power_of_two(6).float_scale()));
}

#[test]
fn quantile_uses_every_code_alike() {
    let x = normal_quantiles(1 << 12);
    for bits in 1..=8u8 {
        let mut used = vec![0usize; 1 << bits];
        Quantizer::quantile(bits)
            .apply(&x)
            .unwrap()
            .codes()
            .to_vec()
            .iter()
            .for_each(|code| used[usize::from(*code)] += 1);
        // The nearest level is not quite the cell: its borders lie halfway between means.
        let share = x.len() >> bits;
        let inner = &used[1..used.len() - 1];
        assert!(inner.iter().all(|n| n.abs_diff(share) <= 1 + share / 4), "{bits}: {used:?}");
    }
    let skewed = array![0.0_f32, 1.0, 5.0, 10.0, 11.0, 18.0];
    let values =
        |scheme: tersor::quantize::Quantile| scheme.apply(&skewed).unwrap().dequantize().into_raw_vec_and_offset().0;
    assert_eq!(values(Quantizer::quantile(1)), [2.0, 2.0, 2.0, 13.0, 13.0, 13.0]);
    assert_eq!(values(Quantizer::quantile(1).median()), [1.0, 1.0, 1.0, 11.0, 11.0, 11.0]);
}

type Schemes = Vec<(u8, Box<dyn Quantizer>)>;

/// Every scheme and option, with its bits.
fn every_scheme(granularity: Granularity) -> Schemes {
    let mut schemes = with_zero(granularity);
    schemes.extend(without_zero(granularity));
    schemes.extend(with_own_cuts(granularity));
    schemes
}

/// The schemes that promise a level 0, and take the nearest level.
fn with_zero(granularity: Granularity) -> Schemes {
    let mut schemes: Schemes = vec![
        (4, Box::new(Quantizer::nf4().granularity(granularity))),
        (2, Box::new(Quantizer::ternary().granularity(granularity))),
    ];
    for bits in [2, 3, 4, 8] {
        let shifts = Quantizer::power_of_two(bits).granularity(granularity);
        let sums = Quantizer::additive_power_of_two(bits).granularity(granularity);
        let pieces = Quantizer::piecewise(bits).granularity(granularity);
        schemes.push((bits, Box::new(shifts.clone())));
        schemes.push((bits, Box::new(shifts.clone().absmax())));
        schemes.push((bits, Box::new(shifts.float_scale())));
        schemes.push((bits, Box::new(sums.clone())));
        schemes.push((bits, Box::new(sums.absmax())));
        schemes.push((bits, Box::new(pieces.clone())));
        schemes.push((bits, Box::new(pieces.clone().absmax())));
        schemes.push((bits, Box::new(pieces.clone().pieces(4))));
        schemes.push((bits, Box::new(pieces.normal_breakpoint())));
    }
    schemes
}

/// The others that take the nearest level.
fn without_zero(granularity: Granularity) -> Schemes {
    let mut schemes: Schemes = vec![(1, Box::new(Quantizer::binary().centered().granularity(granularity)))];
    for bits in [1, 2, 3, 4, 8] {
        let quantile = Quantizer::quantile(bits).granularity(granularity);
        schemes.push((bits, Box::new(Quantizer::kmeans(bits).granularity(granularity))));
        schemes.push((bits, Box::new(quantile.clone())));
        schemes.push((bits, Box::new(quantile.median())));
    }
    schemes
}

/// The schemes whose rule is not the nearest level.
fn with_own_cuts(granularity: Granularity) -> Schemes {
    vec![
        (2, Box::new(Quantizer::ternary().twn().granularity(granularity))),
        (1, Box::new(Quantizer::binary().granularity(granularity))),
    ]
}

/// The levels of every group, as numbers.
fn levels(q: &QuantizedTensor) -> Vec<Vec<f32>> {
    let Grid::Codebook { levels, scale, .. } = q.grid() else { panic!("not a codebook") };
    let groups = levels.nrows().max(scale.len());
    let scale = |group: usize| scale.get(group).copied().unwrap_or(1.0);
    let table = |group: usize| levels.row(group.min(levels.nrows() - 1));
    (0..groups).map(|group| table(group).iter().map(|level| scale(group) * level).collect()).collect()
}

fn numbers() -> impl Strategy<Value = Vec<f32>> {
    let number = prop_oneof![3 => -1.0f32..1.0, 1 => -20.0f32..20.0, 1 => Just(0.0), 1 => Just(0.5)];
    prop::collection::vec(number, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn kmeans_is_as_good_as_any_scheme_of_as_many_bits(
        values in numbers(),
        importance in prop::collection::vec(0.01f32..3.0, 80),
        weighted: bool,
    ) {
        let cols = values.len();
        let w = Array2::from_shape_vec((1, cols), values).unwrap();
        let importance = Array::from(importance[..cols].to_vec()).into_shape_with_order((1, cols)).unwrap().into_dyn();
        for granularity in [Granularity::Tensor, Granularity::Channel(Axis(0)), Granularity::Group(16)] {
            let error = |scheme: &dyn Quantizer| {
                let weighted_w = Weighted { weights: &w, importance: &importance };
                let q = scheme.apply(if weighted { &weighted_w as &dyn Weights } else { &w }).unwrap().dequantize();
                let weight = |i: usize| if weighted { f64::from(importance[[0, i]]) } else { 1.0 };
                w.iter().zip(&q).enumerate().map(|(i, (x, y))| weight(i) * (f64::from(*x) - f64::from(*y)).powi(2)).sum::<f64>()
            };
            for (bits, scheme) in every_scheme(granularity) {
                let (found, kmeans) = (error(&*scheme), error(&Quantizer::kmeans(bits).granularity(granularity)));
                prop_assert!(kmeans <= found * (1.0 + 1e-5) + 1e-10, "{kmeans} {found} {scheme:?}");
            }
        }
    }

    #[test]
    fn every_number_becomes_its_nearest_level(values in numbers(), columns in 1usize..9) {
        let rows = values.len().div_ceil(columns);
        let mut values = values;
        values.resize(rows * columns, 0.25);
        let w = Array2::from_shape_vec((rows, columns), values).unwrap();
        for (own_cuts, schemes) in [(false, with_zero as fn(_) -> _), (false, without_zero), (true, with_own_cuts)] {
            for (_, scheme) in schemes(Granularity::Channel(Axis(1))) {
                let q = scheme.apply(&w).unwrap();
                let (levels, back) = (levels(&q), q.dequantize());
                for ((i, j), x) in w.indexed_iter() {
                    let distance = |level: f32| (f64::from(level) - f64::from(*x)).abs();
                    let y = back[[i, j]];
                    prop_assert!(levels[j].contains(&y));
                    let nearest = levels[j].iter().map(|level| distance(*level)).fold(f64::MAX, f64::min);
                    prop_assert!(own_cuts || distance(y) <= nearest * (1.0 + 1e-12), "{x} -> {y} {levels:?} {scheme:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_quantized_stays_as_it_is(values in numbers(), size in 1usize..20) {
        let w = Array1::from(values);
        for granularity in [Granularity::Tensor, Granularity::Group(size)] {
            let mut schemes: Vec<Box<dyn Quantizer>> = vec![
                Box::new(Quantizer::nf4().granularity(granularity)),
                Box::new(Quantizer::ternary().granularity(granularity)),
                Box::new(Quantizer::ternary().twn().granularity(granularity)),
                Box::new(Quantizer::binary().granularity(granularity)),
                Box::new(Quantizer::power_of_two(3).absmax().granularity(granularity)),
            ];
            for bits in 1..=8 {
                schemes.push(Box::new(Quantizer::kmeans(bits).granularity(granularity)));
                schemes.push(Box::new(Quantizer::quantile(bits).granularity(granularity)));
            }
            for scheme in schemes {
                let once = scheme.apply(&w).unwrap().dequantize();
                let twice = scheme.apply(&once).unwrap().dequantize();
                prop_assert_eq!(once, twice, "{:?}", scheme);
            }
        }
    }

    #[test]
    fn a_weight_counts_like_so_many_copies(
        values in prop::collection::vec(-4.0f32..4.0, 1..30),
        copies in prop::collection::vec(0usize..4, 30),
        k in 1usize..6,
    ) {
        let copies = &copies[..values.len()];
        prop_assume!(copies.iter().any(|n| *n > 0));
        let repeated: Vec<f32> = values.iter().zip(copies).flat_map(|(x, n)| std::iter::repeat_n(*x, *n)).collect();
        let weights: Vec<f32> = copies.iter().map(|n| *n as f32).collect();
        let (weighted, repeated) = match (kmeans_1d(&values, Some(&weights), k), kmeans_1d(&repeated, None, k)) {
            (Ok(weighted), Ok(repeated)) => (weighted, repeated),
            (weighted, repeated) => {
                prop_assert!(weighted.is_err() && repeated.is_err());
                return Ok(());
            }
        };
        prop_assert!((weighted.inertia - repeated.inertia).abs() <= 1e-9 * (1.0 + repeated.inertia));
        prop_assert_eq!(weighted.centroids.len(), repeated.centroids.len());
    }
}

#[test]
fn scaling_by_a_power_of_two_scales_the_levels() {
    let w = normal(8, 32, 7);
    // From where squares vanish in f32 to where they overflow.
    for power in [-100i32, -70, 70, 120] {
        let factor = 2f32.powi(power);
        for (_, scheme) in every_scheme(Granularity::Tensor) {
            let (q, scaled) = (scheme.apply(&w).unwrap(), scheme.apply(&(&w * factor)).unwrap());
            let expected = q.dequantize().mapv(|x| f64::from(x) * f64::from(factor));
            let most = f64::from(factor);
            for (found, expected) in scaled.dequantize().iter().zip(&expected) {
                assert!((f64::from(*found) - expected).abs() <= 1e-6 * most, "{found} {expected} {power} {scheme:?}");
            }
        }
    }
}

#[test]
fn awkward_tensors_come_back_finite_and_close() {
    let tensors: [(&str, Vec<f32>); 11] = [
        ("one", vec![0.7]),
        ("zero", vec![0.0]),
        ("zeros", vec![0.0, -0.0, 0.0]),
        ("equal", vec![-2.5; 9]),
        ("two values", vec![1.0, -3.0, 1.0, 1.0]),
        ("tiny", vec![1e-30, -2e-30, 3e-30, 0.0]),
        ("subnormal", vec![1e-45, -3e-45, 1e-40]),
        ("huge", vec![1e30, -2e30, 3e30, 0.0]),
        ("largest", vec![f32::MAX, f32::MIN, 0.0, f32::MAX / 3.0]),
        ("all scales", vec![f32::MAX, 1.0, 1e-45, -1e-20, -1e20]),
        ("outlier", (0..300).map(|i| if i == 7 { 1e20 } else { (i as f32).sin() }).collect()),
    ];
    for (what, values) in tensors {
        let w = Array1::from(values.clone());
        let largest = w.iter().fold(0.0, |m: f32, x| m.max(x.abs()));
        for granularity in [Granularity::Tensor, Granularity::Group(2)] {
            for (_, scheme) in every_scheme(granularity) {
                let q = scheme.apply(&w).unwrap();
                for (x, y) in w.iter().zip(q.dequantize()) {
                    let error = (f64::from(*x) - f64::from(y)).abs();
                    assert!(
                        y.is_finite() && error <= f64::from(largest) * 1.0001 + 2e-45,
                        "{what}: {x} {y} {scheme:?}"
                    );
                }
            }
        }
        let distinct = values.iter().map(|x| (x + 0.0).to_bits()).collect::<std::collections::BTreeSet<_>>().len();
        if distinct <= 16 {
            for scheme in [&Quantizer::kmeans(4) as &dyn Quantizer, &Quantizer::quantile(4)] {
                assert_eq!(scheme.apply(&w).unwrap().dequantize(), w.clone().into_dyn(), "{what}: {scheme:?}");
            }
        }
    }
}

#[test]
fn an_outlier_takes_one_level_and_leaves_the_others() {
    let mut values: Vec<f32> = normal(1, 1000, 8).into_iter().collect();
    let without = kmeans_1d(&values, None, 15).unwrap();
    values.push(1e30);
    let with = kmeans_1d(&values, None, 16).unwrap();
    close(with.inertia, without.inertia, 1e-9, "inertia");
    assert_eq!(with.centroids.last(), Some(&f64::from(1e30f32)));
}

#[test]
fn zero_is_a_level_wherever_it_is_promised() {
    let w = normal(16, 16, 9);
    for (_, scheme) in with_zero(Granularity::Tensor) {
        assert!(levels(&scheme.apply(&w).unwrap())[0].contains(&0.0), "{scheme:?}");
    }
}

#[test]
fn fewer_levels_where_there_are_fewer_numbers() {
    let w = array![[1.0_f32, 2.0, 3.0, 1.0], [5.0, 5.0, 5.0, 5.0]];
    let q = Quantizer::kmeans(4).per_channel(Axis(0)).apply(&w).unwrap();
    assert_eq!(levels(&q), [[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]); // the shorter table repeats its last level
    assert_eq!(q.dequantize(), w.into_dyn());
    let found = kmeans_1d(&[3.0, 3.0, 1.0], None, 2).unwrap();
    assert_eq!((found.centroids, found.inertia), (vec![1.0, 3.0], 0.0));
    let error = kmeans_1d(&[3.0, 3.0, 1.0], Some(&[1.0, 1.0, 0.0]), 2).unwrap_err();
    assert!(matches!(error, Error::Clusters { k: 2, distinct: 1 }), "{error}");
}

#[test]
fn a_group_without_importance_counts_alike() {
    let w = array![[0.0_f32, 1.0, 4.0, 6.0], [0.0, 1.0, 4.0, 6.0]];
    let importance = array![[0.0_f32, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]].into_dyn();
    for (_, scheme) in every_scheme(Granularity::Channel(Axis(0))) {
        let q = scheme.apply(&Weighted { weights: &w, importance: &importance }).unwrap().dequantize();
        assert_eq!(q.index_axis(Axis(0), 0), q.index_axis(Axis(0), 1), "{scheme:?}");
    }
}

#[cfg(feature = "rayon")]
#[test]
fn the_number_of_threads_changes_no_bit() {
    let w = normal(20, 300, 10);
    let importance = normal(20, 300, 11).mapv(|x| x * x).into_dyn();
    for granularity in [Granularity::Tensor, Granularity::Channel(Axis(0)), Granularity::Channel(Axis(1))] {
        for (_, scheme) in every_scheme(granularity) {
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| scheme.apply(&Weighted { weights: &w, importance: &importance }).unwrap())
            };
            assert_eq!(run(1), run(3), "{scheme:?}");
        }
    }
}

#[test]
fn bad_settings_and_weights_get_the_error_that_names_them() {
    let w = normal(4, 6, 12);
    let message = |scheme: &dyn Quantizer, weights: &dyn Weights| scheme.apply(weights).unwrap_err().to_string();

    let of_bits: [fn(u8) -> Box<dyn Quantizer>; 5] = [
        |bits| Box::new(Quantizer::kmeans(bits)),
        |bits| Box::new(Quantizer::quantile(bits)),
        |bits| Box::new(Quantizer::piecewise(bits)),
        |bits| Box::new(Quantizer::power_of_two(bits)),
        |bits| Box::new(Quantizer::additive_power_of_two(bits)),
    ];
    for scheme in of_bits {
        for bits in [0, 9, 255] {
            assert!(matches!(scheme(bits).apply(&w), Err(Error::Bits { bits: found, .. }) if found == bits));
            assert!(message(&*scheme(bits), &w).contains(&format!("bits = {bits}")));
        }
    }
    for scheme in &of_bits[2..] {
        assert!(message(&*scheme(1), &w).contains("takes 2 to 8"));
    }

    let (mut nan, mut infinite) = (w.clone(), w.clone());
    (nan[[1, 2]], infinite[[0, 3]]) = (f32::NAN, f32::NEG_INFINITY);
    for (_, scheme) in every_scheme(Granularity::Tensor) {
        assert!(matches!(scheme.apply(&nan), Err(Error::NotFinite { index: 8, .. })), "{scheme:?}");
        assert!(matches!(scheme.apply(&infinite), Err(Error::NotFinite { index: 3, .. })), "{scheme:?}");
        assert!(matches!(scheme.apply(&Array2::<f32>::zeros((0, 4))), Err(Error::Empty { .. })), "{scheme:?}");
        assert!(matches!(scheme.apply(&array![1e300_f64]), Err(Error::NotFinite { .. })), "{scheme:?}");
        let importances = [Array2::ones((6, 4)), Array2::from_elem((4, 6), -1.0), Array2::zeros((4, 6)), nan.clone()];
        let errors = importances
            .map(|importance| scheme.apply(&Weighted { weights: &w, importance: &importance.into_dyn() }).unwrap_err());
        use Error::{NotFinite, Setting, Shape};
        assert!(
            matches!(errors, [Shape { .. }, Setting { .. }, Setting { .. }, NotFinite { index: 8, .. }]),
            "{errors:?}"
        );
    }
    for (_, scheme) in every_scheme(Granularity::Group(0)) {
        // Settings come first: the weights are not looked at.
        assert!(matches!(scheme.apply(&nan), Err(Error::GroupSize { group_size: 0 })), "{scheme:?}");
    }
    for (_, scheme) in every_scheme(Granularity::Channel(Axis(2))) {
        assert!(matches!(scheme.apply(&w), Err(Error::Axis { axis: 2, rank: 2 })), "{scheme:?}");
    }

    let settings: [(Box<dyn Quantizer>, &str); 5] = [
        (Box::new(Quantizer::kmeans(4).bins(0)), "bins = 0"),
        (Box::new(Quantizer::kmeans(4).bins(1023)), "bins = 1023"),
        (Box::new(Quantizer::piecewise(4).pieces(0)), "pieces = 0"),
        (Box::new(Quantizer::piecewise(4).pieces(9)), "pieces = 9"),
        (Box::new(Quantizer::piecewise(4).pieces(3).normal_breakpoint()), "pieces = 3"),
    ];
    for (scheme, named) in settings {
        assert!(message(&*scheme, &nan).contains(named), "{scheme:?}");
    }

    assert!(matches!(kmeans_1d(&[1.0], None, 0), Err(Error::Setting { setting: "k", .. })));
    assert!(matches!(kmeans_1d(&[], None, 2), Err(Error::Empty { .. })));
    assert!(matches!(kmeans_1d(&[1.0, f32::NAN], None, 2), Err(Error::NotFinite { index: 1, .. })));
    assert!(matches!(kmeans_1d(&[1.0, 2.0], Some(&[1.0]), 2), Err(Error::Shape { .. })));
    assert!(matches!(kmeans_1d(&[1.0, 2.0], Some(&[1.0, -1.0]), 2), Err(Error::Setting { .. })));
    assert!(matches!(kmeans_1d(&[1.0, 2.0], Some(&[0.0, 0.0]), 2), Err(Error::Setting { .. })));
}
