//! Uniform quantization against known distortions and exact identities.

mod common;

use approx::assert_relative_eq;
use common::{mse, normal, normal_quantiles};
use ndarray::{Array1, Array2, Axis, array};
use proptest::prelude::*;
use tersor::{
    Quantizer,
    quantize::{CodeRange, Convention, Range, SymmetricScale, Uniform, ZeroInRange},
    tensor::{Granularity, Weighted, Weights},
};

fn distortion(scheme: &dyn Quantizer, x: &dyn Weights) -> f64 {
    let q = scheme.apply(x).unwrap();
    mse(x.values().iter().copied(), q.dequantize())
}

#[test]
fn the_least_squares_range_reaches_the_optimum_of_the_normal_distribution() {
    let x = normal_quantiles(1 << 18);
    // The sample ends at 4.6 sigma; from 7 bits on, what lies beyond is part of the distortion.
    let close = |bits: u8, found: f64, optimum: f64| {
        let tolerance = if bits < 7 { 2e-3 } else { 2e-2 };
        assert!((found / optimum - 1.0).abs() < tolerance, "{bits} bits: {found}, optimum {optimum}");
    };
    // Optimal steps with zero on the grid: (bits, full range, narrow).
    let table = [
        (2, 0.149431065, 0.190174039),
        (3, 0.040638247, 0.046859974),
        (4, 0.011864038, 0.012889386),
        (8, 0.0000877069, 0.000088308),
    ];
    for (bits, full, narrow) in table {
        for (scheme, optimum) in
            [(Quantizer::uniform(bits).full_range(), full), (Quantizer::uniform(bits).symmetric(), narrow)]
        {
            let found = distortion(&scheme.range(Range::Mse), &x);
            close(bits, found, optimum);
        }
    }
    for (bits, optimum) in [(5, 0.003525959), (6, 0.001042853), (7, 0.000304579)] {
        let found = distortion(&Quantizer::uniform(bits).full_range().range(Range::Mse), &x);
        close(bits, found, optimum);
    }
}

#[test]
fn absmax_groups_of_normal_numbers_have_their_known_distortion() {
    let x = normal(1 << 13, 256, 1);
    let narrow = |bits| Quantizer::uniform(bits).symmetric();
    let torch = |bits| Quantizer::uniform(bits).full_range();
    let table: [(&str, Uniform, [f64; 4]); 8] = [
        ("int8 narrow", narrow(8), [2.9e-5, 3.5e-5, 4.2e-5, 4.8e-5]),
        ("int4 narrow", narrow(4), [0.009406, 0.011594, 0.013737, 0.015924]),
        ("int4 torch", torch(4), [0.008980, 0.010576, 0.012243, 0.014027]),
        ("int4 signed-max", Quantizer::uniform(4).signed_max(), [0.007379, 0.009014, 0.010623, 0.012261]),
        ("int4 affine", Quantizer::uniform(4), [0.006516, 0.008298, 0.010093, 0.011933]),
        ("int3 affine", Quantizer::uniform(3), [0.029895, 0.038098, 0.046356, 0.054823]),
        ("int2 affine", Quantizer::uniform(2), [0.164757, 0.208910, 0.252516, 0.296712]),
        ("int2 signed-max", Quantizer::uniform(2).signed_max(), [0.130879, 0.155671, 0.179355, 0.203425]),
    ];
    for (name, scheme, expected) in table {
        for (size, expected) in [32, 64, 128, 256].into_iter().zip(expected) {
            let found = distortion(&scheme.clone().per_group(size), &x);
            // The 8-bit figures are known to two digits.
            let tolerance = if expected < 1e-3 { 0.02 } else { 0.01 };
            assert!((found / expected - 1.0).abs() < tolerance, "{name} g{size}: {found}, expected {expected}");
        }
    }
}

#[test]
fn every_range_covers_what_it_says() {
    let x = Array1::from_iter((-500..500).map(|i| i as f32 / 100.0).chain([1000.0]));
    let ends = |scheme: Uniform| {
        let grid = scheme.fit(&x).unwrap();
        let (scale, zero) = (grid.scale()[0], grid.zero_point()[0]);
        (scale * (grid.codes().lowest() - zero) as f32, scale * (grid.codes().highest() - zero) as f32)
    };
    let (low, high) = ends(Quantizer::uniform(8).range(Range::Percentile(99.8)));
    assert!((low + 5.0).abs() < 0.05 && (high - 5.0).abs() < 0.05, "{low} {high}");
    let (low, high) = ends(Quantizer::uniform(8).symmetric().range(Range::Percentile(99.8)));
    assert!((low + 5.0).abs() < 0.05 && (high - 5.0).abs() < 0.05, "{low} {high}");
    let (low, high) = ends(Quantizer::uniform(8));
    assert!((high - 1000.0).abs() < 4.0 && (-8.0..=0.0).contains(&low), "{low} {high}");
}

#[test]
fn clipping_choosers_beat_the_whole_range_on_normal_numbers_at_four_bits() {
    let x = normal_quantiles(1 << 14);
    for symmetric in [false, true] {
        let scheme = |range| {
            let scheme = Quantizer::uniform(4).range(range);
            if symmetric { scheme.symmetric() } else { scheme }
        };
        let whole = distortion(&scheme(Range::MinMax), &x);
        let best = distortion(&scheme(Range::Mse), &x);
        for range in [Range::Aciq, Range::Percentile(99.0), Range::Entropy] {
            let found = distortion(&scheme(range), &x);
            assert!(best <= found * 1.0001 && found < whole, "{range:?}: {best} <= {found} < {whole}");
        }
    }
}

#[test]
fn aciq_knows_a_laplacian_from_a_gaussian() {
    let laplace = Array1::from_iter((0..4000).map(|i| {
        let p = (i as f32 + 0.5) / 4000.0;
        if p < 0.5 { (2.0 * p).ln() } else { -(2.0 - 2.0 * p).ln() }
    }));
    let scale = Quantizer::uniform(4).symmetric().range(Range::Aciq).fit(&laplace).unwrap().scale()[0];
    assert!((scale * 7.0 / 5.03 - 1.0).abs() < 0.01, "mean deviation 1, clip 5.03: {}", scale * 7.0);
    let scale = Quantizer::uniform(4).symmetric().range(Range::Aciq).fit(&normal_quantiles(4000)).unwrap().scale()[0];
    assert!((scale * 7.0 / 2.55 - 1.0).abs() < 0.01, "sigma 1, clip 2.55: {}", scale * 7.0);
}

#[test]
fn the_signed_extreme_falls_on_the_lowest_code_exactly() {
    for w in [array![0.3f32, -0.9, 0.5], array![0.3f32, 0.9, -0.5]] {
        let q = Quantizer::uniform(4).signed_max().apply(&w).unwrap();
        assert_eq!(q.integers()[1], -8);
        assert_eq!(q.dequantize()[1], w[1]);
    }
}

#[test]
fn sixteen_bits_are_nearly_exact() {
    let x = normal(64, 64, 3);
    for scheme in [Quantizer::uniform(16), Quantizer::uniform(16).symmetric().per_channel(Axis(0))] {
        let q = scheme.apply(&x).unwrap();
        assert!(distortion(&scheme, &x) < 2e-9);
        assert_eq!(q.codes().as_bytes().len(), 2 * 64 * 64);
    }
}

#[test]
fn importance_moves_the_least_squares_range() {
    let w = Array1::from_iter((0..1000).map(|i| i as f32 / 1000.0).chain([10.0]));
    let mut importance = Array1::ones(w.len()).into_dyn();
    let scheme = Quantizer::uniform(4).range(Range::Mse);
    let clipped = scheme.apply(&w).unwrap().dequantize()[1000];
    importance[[1000]] = 1e5;
    let kept = scheme.apply(&Weighted { weights: &w, importance: &importance }).unwrap().dequantize()[1000];
    assert!((kept - 10.0).abs() < 0.1 && clipped < 8.0, "{clipped} {kept}");
}

#[test]
fn a_range_without_zero_is_finer_where_the_convention_allows_it() {
    let w = Array1::linspace(5.0f32, 6.0, 100);
    let convention = Convention { zero_in_range: ZeroInRange::AsFound, ..Convention::default() };
    let q = Quantizer::uniform(4).convention(convention).apply(&w).unwrap();
    assert!(mse(w.clone(), q.dequantize()) < (1.0f64 / 15.0).powi(2) / 11.0);
    assert!(distortion(&Quantizer::uniform(4), &w) > 0.01);
}

#[test]
fn highest_and_half_span_scales_differ_as_named() {
    let w = array![-1.0f32, 0.5];
    let scale = |symmetric_scale| {
        let convention = Convention { symmetric_scale, ..Convention::default() };
        Quantizer::uniform(4).full_range().convention(convention).fit(&w).unwrap().scale()[0]
    };
    assert_relative_eq!(scale(SymmetricScale::HalfSpan), 1.0 / 7.5);
    assert_relative_eq!(scale(SymmetricScale::Highest), 1.0 / 7.0);
    assert_relative_eq!(scale(SymmetricScale::NoClipping), 1.0 / 8.0);
    assert_relative_eq!(scale(SymmetricScale::SignedMax), 1.0 / 8.0);
}

fn scheme() -> impl Strategy<Value = Uniform> {
    let bits = prop_oneof![2u8..=8, Just(16u8)];
    (bits, 0..4, 0..3, 1usize..10, prop::sample::select(vec![Range::MinMax, Range::Mse])).prop_map(
        |(bits, mapping, granularity, size, range)| {
            let scheme = Quantizer::uniform(bits).range(range);
            let scheme: Uniform = match mapping {
                0 => scheme,
                1 => scheme.symmetric(),
                2 => scheme.full_range(),
                _ => scheme.signed_max(),
            };
            match granularity {
                0 => scheme,
                1 => scheme.per_channel(Axis(size % 2)),
                _ => scheme.per_group(size),
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn quantizing_what_is_on_the_grid_changes_nothing(
        scheme in scheme(), rows in 1usize..6, cols in 1usize..20, seed in any::<u64>(), exponent in -30i32..30,
    ) {
        let w = normal(rows, cols, seed) * 10f32.powi(exponent);
        let grid = scheme.fit(&w).unwrap();
        let once = grid.apply(&w).unwrap();
        let twice = grid.apply(&once.dequantize()).unwrap();
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn nothing_within_the_range_is_off_by_more_than_half_a_step(
        scheme in scheme(), rows in 1usize..6, cols in 1usize..20, seed in any::<u64>(),
    ) {
        let w = normal(rows, cols, seed);
        let q = scheme.apply(&w).unwrap();
        let (grid, back) = (scheme.fit(&w).unwrap(), q.dequantize());
        let widest = grid.scale().iter().fold(0f32, |m, s| m.max(s.abs()));
        // The ends of a grid may lie half a step inside the range (a zero point is an integer), never more.
        let clipped = format!("{scheme:?}").contains("Mse");
        let bound = widest * if clipped { f32::INFINITY } else { 1.0001 };
        for (x, y) in w.iter().zip(&back) {
            prop_assert!((x - y).abs() <= bound, "{x} became {y} with steps of {widest}");
        }
        prop_assert_eq!(q.nbytes() >= w.len() * usize::from(q.bits()) / 8, true);
    }

    #[test]
    fn zeros_stay_zeros(scheme in scheme(), cols in 2usize..40, seed in any::<u64>()) {
        let mut w: Array2<f32> = normal(3, cols, seed);
        w.column_mut(1).fill(0.0);
        prop_assert!(scheme.apply(&w).unwrap().dequantize().index_axis(Axis(1), 1).iter().all(|x| *x == 0.0));
    }
}

#[test]
fn explicit_codes_are_used() {
    let w = array![-1.28f32, 0.0, 1.27];
    let q = Quantizer::uniform(8).codes(CodeRange::signed(8).unwrap()).apply(&w).unwrap();
    assert_eq!(q.integers(), array![-128, 0, 127].into_dyn());
}

proptest! {
    #[test]
    fn grids_and_codes_made_together_are_those_made_one_after_the_other(
        (rows, columns) in prop_oneof![(1usize..9, 1usize..700), (1usize..300, 1usize..40), Just((3, 140_001))],
        granularity in prop_oneof![
            Just(Granularity::Tensor),
            (0usize..2).prop_map(|axis| Granularity::Channel(Axis(axis))),
            prop::sample::select(vec![1usize, 7, 16, 32, 64, 100, 4096]).prop_map(Granularity::Group),
        ],
        bits in prop::sample::select(vec![2u8, 3, 4, 5, 6, 7, 8, 16]),
        symmetric in any::<bool>(),
        torch in any::<bool>(),
        seed in any::<u32>(),
    ) {
        let number = |i: usize| ((i as u32 ^ seed).wrapping_mul(0x9E37_79B9) >> 8) as f32 / (1 << 22) as f32 - 1.5;
        let weights = Array2::from_shape_fn((rows, columns), |(i, j)| number(i * columns + j));
        let scheme = Quantizer::uniform(bits).granularity(granularity);
        let scheme = if symmetric { scheme.symmetric() } else { scheme };
        let scheme = if torch { scheme.convention(Convention::torch()) } else { scheme };
        let q = scheme.apply(&weights).unwrap();
        prop_assert_eq!(&q, &scheme.fit(&weights).unwrap().apply(&weights).unwrap());

        let mut levels = Array2::from_elem((columns, rows), f32::NAN);
        q.dequantize_into(&mut levels.view_mut().reversed_axes()).unwrap();
        prop_assert_eq!(levels.reversed_axes().into_dyn(), q.dequantize());
        prop_assert!(q.dequantize_into(&mut Array2::zeros((rows + 1, columns))).is_err());
        let other = scheme.apply_reusing(&weights.mapv(|x| -x), q.clone()).unwrap();
        prop_assert_eq!(&scheme.apply_reusing(&weights, other).unwrap(), &q);

        let (halves, brains) = (weights.mapv(half::f16::from_f32), weights.mapv(half::bf16::from_f32));
        prop_assert_eq!(scheme.apply(&halves).unwrap(), scheme.apply(&halves.mapv(f32::from)).unwrap());
        prop_assert_eq!(scheme.apply(&brains).unwrap(), scheme.apply(&brains.mapv(f32::from)).unwrap());
        prop_assert_eq!(scheme.apply(&halves.t()).unwrap(), scheme.apply(&weights.mapv(half::f16::from_f32).mapv(f32::from).t()).unwrap());
        let place = seed as usize % weights.len();
        for bad in [f32::NAN, f32::INFINITY] {
            let wrong = |x: &Array2<f32>| {
                let mut x = x.clone();
                x.as_slice_mut().unwrap()[place] = bad;
                x
            };
            let named = |error: tersor::Error| matches!(error, tersor::Error::NotFinite { index, .. } if index == place);
            prop_assert!(named(scheme.apply(&wrong(&weights)).unwrap_err()));
            prop_assert!(named(scheme.apply(&wrong(&weights).mapv(half::bf16::from_f32)).unwrap_err()));
        }
    }
}
