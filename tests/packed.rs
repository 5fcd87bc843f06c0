//! Packed weights multiply like the numbers they stand for, on whatever instructions `TERSOR_ISA` pins.

mod common;

use common::normal;
use ndarray::{Array1, Array2, Array4, ArrayD, Axis, Ix2, s};
use proptest::prelude::*;
use tersor::{
    Error, PackedWeights, Quantizer,
    nn::{Conv2d, Layer},
    packed::{Activations, PackedConv2d},
    tensor::QuantizedTensor,
};

fn floats(q: &QuantizedTensor) -> Array2<f64> {
    let outputs = q.shape()[0];
    let flat = q.dequantize().into_shape_with_order((outputs, q.len() / outputs)).unwrap();
    flat.mapv(f64::from)
}

/// Rows rounded as dynamic activations are.
fn rounded(x: &Array2<f32>) -> Array2<f64> {
    let mut rounded = x.mapv(f64::from);
    for (mut row, x) in rounded.rows_mut().into_iter().zip(x.rows()) {
        let scale = (x.fold(0f32, |m, x| m.max(x.abs())) / 127.0).max(f32::MIN_POSITIVE);
        row.iter_mut()
            .zip(x)
            .for_each(|(r, x)| *r = f64::from((x * (1.0 / scale)).round_ties_even()) * f64::from(scale));
    }
    rounded
}

fn assert_close(found: &Array2<f32>, exact: &Array2<f64>, what: &str) {
    let largest = exact.fold(1e-20f64, |m, x| m.max(x.abs()));
    for (found, exact) in found.iter().zip(exact) {
        assert!((f64::from(*found) - exact).abs() <= largest * 1e-5, "{what}: {found}, exactly {exact}");
    }
}

fn schemes() -> Vec<Box<dyn Quantizer>> {
    let mut schemes: Vec<Box<dyn Quantizer>> = Vec::new();
    for bits in 2..=8 {
        schemes.push(Box::new(Quantizer::uniform(bits)));
        schemes.push(Box::new(Quantizer::uniform(bits).symmetric().per_channel(Axis(0))));
        schemes.push(Box::new(Quantizer::uniform(bits).signed_max().per_group(5)));
        schemes.push(Box::new(Quantizer::uniform(bits).per_group(32)));
        schemes.push(Box::new(Quantizer::kmeans(bits).per_channel(Axis(0))));
    }
    schemes.push(Box::new(Quantizer::uniform(1)));
    schemes.push(Box::new(Quantizer::uniform(16)));
    schemes.push(Box::new(Quantizer::uniform(8).per_channel(Axis(1))));
    schemes.push(Box::new(Quantizer::nf4().per_group(16)));
    schemes.push(Box::new(Quantizer::binary().per_channel(Axis(0))));
    schemes
}

#[test]
fn every_scheme_multiplies_like_its_numbers() {
    for (m, n, k, seed) in [(1, 1, 1, 1), (3, 50, 37, 2), (17, 96, 320, 3), (8, 49, 64, 4), (1, 130, 257, 5)] {
        let (w, x) = (normal(n, k, seed), normal(m, k, seed + 100));
        let bias = normal(1, n, seed + 200).row(0).to_owned();
        for scheme in schemes() {
            let q = scheme.apply(&w).unwrap();
            let packed = PackedWeights::new(&q).unwrap().with_bias(bias.clone()).unwrap();
            let inputs = if packed.kernel().contains("int") { rounded(&x) } else { x.mapv(f64::from) };
            let exact = inputs.dot(&floats(&q).t()) + bias.mapv(f64::from);
            assert_close(&packed.matmul(&x).unwrap(), &exact, &format!("{scheme:?} on {}", packed.kernel()));
        }
    }
}

#[test]
fn float_activations_keep_the_inputs_as_they_are() {
    let (w, x) = (normal(20, 70, 1), normal(5, 70, 2));
    let q = Quantizer::uniform(4).per_group(32).apply(&w).unwrap();
    let packed = PackedWeights::with(&q, Activations::Float).unwrap();
    assert!(packed.kernel().starts_with("lookup4-f32"));
    assert_close(&packed.matmul(&x).unwrap(), &x.mapv(f64::from).dot(&floats(&q).t()), "float activations");
}

#[test]
fn a_fixed_grid_rounds_and_clips_the_inputs() {
    let (w, x) = (normal(20, 70, 1), normal(5, 70, 2));
    let q = Quantizer::uniform(8).symmetric().per_channel(Axis(0)).apply(&w).unwrap();
    for (scale, zero_point) in [(0.02f32, 0), (0.01, -128), (0.015, 37)] {
        let packed = PackedWeights::with(&q, Activations::Static { scale, zero_point }).unwrap();
        let on_grid = x.mapv(|x| {
            let code = ((x * (1.0 / scale)).round_ties_even() + zero_point as f32).clamp(-128.0, 127.0);
            f64::from(scale) * f64::from(code - zero_point as f32)
        });
        assert_close(&packed.matmul(&x).unwrap(), &on_grid.dot(&floats(&q).t()), "static activations");
    }
}

#[test]
fn integer_sums_are_exact() {
    let (w, x) = (normal(33, 129, 1), normal(4, 129, 2));
    for scheme in [Quantizer::uniform(8), Quantizer::uniform(5).per_channel(Axis(0))] {
        let q = scheme.apply(&w).unwrap();
        let grid = scheme.fit(&w).unwrap();
        let (scale, zero) = (0.05f32, 3);
        let sums = PackedWeights::with(&q, Activations::Static { scale, zero_point: zero }).unwrap();
        let sums = sums.matmul_i32(&x).unwrap();
        let codes = q.integers().into_dimensionality::<Ix2>().unwrap();
        for ((i, j), sum) in sums.indexed_iter() {
            let zero_w = grid.zero_point()[if grid.zero_point().len() == 1 { 0 } else { j }];
            let expected: i32 = (0..129)
                .map(|k| {
                    let code = ((x[[i, k]] * (1.0 / scale)).round_ties_even() as i32 + zero).clamp(-128, 127);
                    (codes[[j, k]] - zero_w) * (code - zero)
                })
                .sum();
            assert_eq!(*sum, expected);
        }
    }
}

#[test]
fn layouts_do_not_matter() {
    let (w, x) = (normal(24, 40, 1), normal(40, 10, 2));
    for scheme in [Box::new(Quantizer::uniform(8)) as Box<dyn Quantizer>, Box::new(Quantizer::kmeans(4))] {
        let packed = PackedWeights::new(&scheme.apply(&w).unwrap()).unwrap();
        let transposed = packed.matmul(&x.t()).unwrap();
        assert_eq!(transposed, packed.matmul(&x.t().as_standard_layout()).unwrap());
        let mut wide = Array2::zeros((10, 48));
        packed.matmul_into(&x.t(), &mut wide.slice_mut(s![.., ..;2])).unwrap();
        assert_eq!(wide.slice(s![.., ..;2]), transposed);
        assert!(wide.slice(s![.., 1..;2]).iter().all(|y| *y == 0.0));
    }
}

#[test]
fn a_bias_may_have_any_strides() {
    let q = Quantizer::uniform(8).apply(&normal(6, 10, 1)).unwrap();
    let bias = normal(1, 12, 2).row(0).slice_move(s![..;-2]).to_owned();
    let mut reversed = Array1::from_iter(bias.iter().rev().copied());
    reversed.invert_axis(Axis(0));
    let packed = PackedWeights::new(&q).unwrap();
    let x = normal(3, 10, 3);
    let expected = packed.clone().with_bias(bias.clone()).unwrap().matmul(&x).unwrap();
    assert_eq!(packed.clone().with_bias(reversed).unwrap().matmul(&x).unwrap(), expected);
    assert_ne!(packed.matmul(&x).unwrap(), expected);
}

#[test]
fn weights_near_the_end_of_f32_do_not_overflow_on_the_way() {
    let (w, x) = (normal(4, 64, 1) * 1e37, normal(3, 64, 2) * 1e-3);
    for scheme in [Quantizer::uniform(2), Quantizer::uniform(8).symmetric().per_channel(Axis(0))] {
        let q = scheme.apply(&w).unwrap();
        let exact = x.mapv(f64::from).dot(&floats(&q).t());
        assert_close(&PackedWeights::new(&q).unwrap().matmul(&x).unwrap(), &exact, "huge weights");
    }
}

#[cfg(feature = "rayon")]
#[test]
fn threads_do_not_change_a_bit() {
    let (w, x) = (normal(300, 700, 1), normal(130, 700, 2));
    for scheme in [Box::new(Quantizer::uniform(4).per_group(64)) as Box<dyn Quantizer>, Box::new(Quantizer::kmeans(3))]
    {
        let packed = PackedWeights::new(&scheme.apply(&w).unwrap()).unwrap();
        let results: Vec<_> = [1, 2, 3, 4, 7]
            .iter()
            .map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(*threads).build().unwrap();
                pool.install(|| packed.matmul(&x).unwrap())
            })
            .collect();
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

#[test]
fn packed_convolutions_convolve() {
    let cases = [
        ((3, 8, 3), 1, [1, 1], [0, 0], [1, 1]),
        ((4, 6, 3), 2, [2, 1], [1, 2], [1, 1]),
        ((4, 4, 2), 4, [1, 1], [1, 0], [2, 1]),
        ((2, 5, 1), 1, [3, 2], [0, 0], [1, 1]),
    ];
    for ((inputs, outputs, kernel), groups, stride, padding, dilation) in cases {
        let w = normal(outputs, inputs / groups * kernel * kernel, 1);
        let w = w.into_shape_with_order((outputs, inputs / groups, kernel, kernel)).unwrap();
        let bias = normal(1, outputs, 2).row(0).to_owned();
        let x = normal(3, inputs * 9 * 8, 3).into_shape_with_order((3, inputs, 9, 8)).unwrap();
        for scheme in schemes() {
            let Ok(q) = scheme.apply(&w) else { continue };
            let packed = PackedConv2d::new(&q, groups, Activations::Float).unwrap();
            let packed = packed.stride(stride).padding(padding).dilation(dilation).with_bias(bias.clone()).unwrap();
            let weight: Array4<f32> = q.dequantize().into_dimensionality().unwrap();
            let mut conv = Conv2d::from_arrays(weight, Some(bias.clone())).unwrap().groups(groups);
            (conv.stride, conv.padding, conv.dilation) = (stride, padding, dilation);
            let exact: ArrayD<f32> = Layer::Conv2d(conv).forward(&x).unwrap();
            let found = packed.forward(&x).unwrap();
            assert_eq!(found.shape(), exact.shape());
            assert!((&found - &exact).iter().all(|e| e.abs() < 1e-4), "{scheme:?}");
            let int8 = PackedConv2d::new(&q, groups, Activations::Dynamic).unwrap();
            let int8 = int8.stride(stride).padding(padding).dilation(dilation).with_bias(bias.clone()).unwrap();
            let largest = exact.iter().fold(0f32, |m, x| m.max(x.abs()));
            let worst = (int8.forward(&x).unwrap() - &exact).iter().fold(0f32, |m, e| m.max(e.abs()));
            assert!(worst < 0.05 * largest, "{scheme:?} on {}: {worst} of {largest}", int8.kernel());
        }
    }
}

#[test]
fn bad_input_is_an_error_not_a_panic() {
    let q = Quantizer::uniform(8).apply(&normal(6, 10, 1)).unwrap();
    let packed = PackedWeights::new(&q).unwrap();
    assert!(matches!(packed.matmul(&normal(3, 9, 2)), Err(Error::Shape { .. })));
    assert!(matches!(packed.matmul_into(&normal(3, 10, 2), &mut Array2::zeros((3, 7))), Err(Error::Shape { .. })));
    let mut x = normal(3, 10, 2);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        x[[2, 1]] = bad;
        assert!(matches!(packed.matmul(&x), Err(Error::NotFinite { index: 21, .. })));
    }
    assert!(matches!(packed.clone().with_bias(Array1::zeros(5)), Err(Error::Shape { .. })));
    assert!(matches!(packed.clone().with_bias(Array1::from_elem(6, f32::NAN)), Err(Error::NotFinite { .. })));
    assert_eq!(packed.matmul(&Array2::zeros((0, 10))).unwrap().dim(), (0, 6));
    assert_eq!(packed.matmul(&Array2::zeros((2, 10))).unwrap(), Array2::<f32>::zeros((2, 6)));
    for activations in [
        Activations::Static { scale: 0.0, zero_point: 0 },
        Activations::Static { scale: f32::NAN, zero_point: 0 },
        Activations::Static { scale: -1.0, zero_point: 0 },
        Activations::Static { scale: 1e-40, zero_point: 0 },
        Activations::Static { scale: 1.0, zero_point: 128 },
    ] {
        assert!(matches!(PackedWeights::with(&q, activations), Err(Error::Setting { .. })));
    }
    let vector = Quantizer::uniform(8).apply(&Array1::<f32>::ones(4)).unwrap();
    assert!(matches!(PackedWeights::new(&vector), Err(Error::Rank { .. })));
    assert!(matches!(PackedConv2d::new(&q, 1, Activations::Dynamic), Err(Error::Rank { .. })));
    let kernel = Quantizer::uniform(8).apply(&Array4::<f32>::ones((4, 2, 3, 3))).unwrap();
    for groups in [0, 3] {
        assert!(matches!(PackedConv2d::new(&kernel, groups, Activations::Dynamic), Err(Error::Setting { .. })));
    }
    let conv = PackedConv2d::new(&kernel, 1, Activations::Dynamic).unwrap();
    assert!(matches!(conv.forward(&Array4::<f32>::ones((1, 3, 5, 5))), Err(Error::Shape { .. })));
    assert!(matches!(conv.forward(&Array4::<f32>::ones((1, 2, 2, 5))), Err(Error::Setting { .. })));
    assert!(matches!(conv.forward(&normal(3, 3, 1)), Err(Error::Rank { .. })));
    for zero in [[0, 1], [1, 0], [0, 0]] {
        let x = Array4::<f32>::ones((1, 2, 5, 5));
        assert!(matches!(conv.clone().dilation(zero).forward(&x), Err(Error::Setting { .. })));
        assert!(matches!(conv.clone().stride(zero).forward(&x), Err(Error::Setting { .. })));
    }
    for padding in [[1 << 33, 1 << 33], [1 << 62, 1 << 62], [1 << 20, 1 << 20]] {
        let x = Array4::<f32>::ones((1, 2, 5, 5));
        assert!(matches!(conv.clone().padding(padding).forward(&x), Err(Error::Setting { .. })));
    }
    let empty = Array4::<f32>::ones((1, 2, 0, 5));
    assert!(matches!(conv.clone().padding([2, 2]).forward(&empty), Err(Error::Empty { .. })));
    assert!(conv.clone().stride([0, 1]).forward(&Array4::<f32>::ones((1, 2, 5, 5))).is_err());
    assert!(conv.clone().padding([usize::MAX, 1]).forward(&Array4::<f32>::ones((1, 2, 5, 5))).is_err());
    assert!(conv.with_bias(Array1::zeros(3)).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_shape_multiplies(
        m in 0usize..20, n in 1usize..70, k in 1usize..90, bits in 1u8..=8, group in 1usize..100, seed in any::<u64>(),
    ) {
        let (w, x) = (normal(n, k, seed), normal(m, k, !seed));
        let q = Quantizer::uniform(bits).per_group(group).apply(&w).unwrap();
        let packed = PackedWeights::new(&q).unwrap();
        assert_close(&packed.matmul(&x).unwrap(), &rounded(&x).dot(&floats(&q).t()), packed.kernel());
    }
}
