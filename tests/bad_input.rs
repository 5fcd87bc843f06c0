//! Bad input to every public entry of `quantize` and `tensor`: the typed error that names it, never a panic.
//! (`nn`, `packed` and `compressed` have tables of their own beside their tests.)

use ndarray::{Array1, Array2, ArrayD, Axis, IxDyn, arr0, array};
use tersor::{
    Error, Quantizer,
    quantize::{
        Affine, CodeRange, Range,
        observe::{Histogram, MinMax, MovingAverage, Observer},
    },
    tensor::{Checkpoint, Codes, FloatType, Granularity, Grid, QuantizedTensor, Stored, Weighted},
};

/// Every built-in scheme at a granularity.
fn schemes(granularity: Granularity) -> Vec<Box<dyn Quantizer>> {
    vec![
        Box::new(Quantizer::uniform(4).granularity(granularity)),
        Box::new(Quantizer::uniform(8).symmetric().granularity(granularity)),
        Box::new(Quantizer::uniform(3).signed_max().granularity(granularity).range(Range::Mse)),
        Box::new(Quantizer::uniform(16).granularity(granularity).range(Range::Percentile(99.0))),
        Box::new(Quantizer::uniform(4).granularity(granularity).range(Range::Entropy)),
        Box::new(Quantizer::uniform(4).granularity(granularity).range(Range::Aciq)),
        Box::new(Quantizer::kmeans(3).granularity(granularity)),
        Box::new(Quantizer::kmeans(3).exact().granularity(granularity)),
        Box::new(Quantizer::quantile(3).granularity(granularity)),
        Box::new(Quantizer::power_of_two(4).granularity(granularity)),
        Box::new(Quantizer::additive_power_of_two(4).granularity(granularity)),
        Box::new(Quantizer::piecewise(4).granularity(granularity)),
        Box::new(Quantizer::nf4().granularity(granularity)),
        Box::new(Quantizer::ternary().granularity(granularity)),
        Box::new(Quantizer::binary().granularity(granularity)),
    ]
}

fn every_scheme() -> Vec<Box<dyn Quantizer>> {
    let mut schemes = schemes(Granularity::Tensor);
    schemes.push(Box::new(Quantizer::adaptive(4)));
    schemes.push(Box::new(Affine::per_tensor(0.1, 3, CodeRange::signed(8).unwrap()).unwrap()));
    schemes
}

#[test]
fn weights_that_are_not_numbers_are_named() {
    for scheme in every_scheme() {
        for (bad, word) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
            let mut w = Array2::<f32>::ones((4, 5));
            w[[2, 1]] = bad;
            let error = scheme.apply(&w).unwrap_err();
            assert!(matches!(error, Error::NotFinite { index: 11, .. }), "{scheme:?}: {error}");
            assert!(error.to_string().contains(word), "{error}");
        }
        // Too large for f32, though not for f64.
        assert!(matches!(scheme.apply(&array![1.0f64, 1e300]), Err(Error::NotFinite { index: 1, .. })), "{scheme:?}");
    }
}

#[test]
fn empty_weights_are_refused_whatever_their_shape() {
    for scheme in every_scheme() {
        for shape in [vec![0], vec![0, 4], vec![4, 0], vec![2, 0, 3]] {
            let empty = ArrayD::<f32>::zeros(IxDyn(&shape));
            assert!(matches!(scheme.apply(&empty), Err(Error::Empty { .. })), "{scheme:?} {shape:?}");
        }
    }
}

#[test]
fn groups_and_axes_that_do_not_exist_are_named() {
    let w = Array2::<f32>::ones((4, 6));
    for scheme in schemes(Granularity::Group(0)) {
        assert!(matches!(scheme.apply(&w), Err(Error::GroupSize { group_size: 0 })), "{scheme:?}");
    }
    for scheme in schemes(Granularity::Channel(Axis(2))) {
        assert!(matches!(scheme.apply(&w), Err(Error::Axis { axis: 2, rank: 2 })), "{scheme:?}");
    }
}

#[test]
fn bits_that_a_scheme_does_not_have_are_named() {
    let w = Array2::<f32>::ones((4, 6));
    let refused: Vec<(Box<dyn Quantizer>, u8)> = vec![
        (Box::new(Quantizer::uniform(0)), 0),
        (Box::new(Quantizer::uniform(9)), 9),
        (Box::new(Quantizer::uniform(15)), 15),
        (Box::new(Quantizer::uniform(255)), 255),
        (Box::new(Quantizer::uniform(1).symmetric()), 1),
        (Box::new(Quantizer::uniform(1).signed_max()), 1),
        (Box::new(Quantizer::uniform(16).range(Range::Aciq)), 16),
        (Box::new(Quantizer::uniform(1).range(Range::Aciq)), 1),
        (Box::new(Quantizer::kmeans(0)), 0),
        (Box::new(Quantizer::kmeans(9)), 9),
        (Box::new(Quantizer::quantile(0)), 0),
        (Box::new(Quantizer::quantile(16)), 16),
        (Box::new(Quantizer::power_of_two(1)), 1),
        (Box::new(Quantizer::power_of_two(9)), 9),
        (Box::new(Quantizer::additive_power_of_two(1)), 1),
        (Box::new(Quantizer::additive_power_of_two(9)), 9),
        (Box::new(Quantizer::piecewise(0)), 0),
        (Box::new(Quantizer::piecewise(9)), 9),
        (Box::new(Quantizer::adaptive(0)), 0),
        (Box::new(Quantizer::adaptive(16)), 16),
    ];
    for (scheme, given) in refused {
        let error = scheme.apply(&w).unwrap_err();
        assert!(matches!(error, Error::Bits { bits, .. } if bits == given), "{scheme:?}: {error}");
        assert!(error.to_string().contains(&given.to_string()), "{error}");
    }
    for bits in [0, 9, 15, 17] {
        assert!(matches!(CodeRange::unsigned(bits), Err(Error::Bits { .. })));
        assert!(matches!(CodeRange::signed(bits), Err(Error::Bits { .. })));
        assert!(matches!(CodeRange::narrow(bits), Err(Error::Bits { .. })));
        assert!(matches!(Codes::pack(bits, &[]), Err(Error::Bits { .. })));
    }
    assert!(matches!(CodeRange::narrow(1), Err(Error::Bits { .. })));
}

#[test]
fn settings_out_of_range_are_named() {
    let w = Array2::<f32>::ones((4, 6));
    for percent in [0.0, -1.0, 100.1, f64::NAN] {
        let error = Quantizer::uniform(8).range(Range::Percentile(percent)).apply(&w).unwrap_err();
        assert!(matches!(error, Error::Setting { setting: "percentile", .. }), "{error}");
    }
    for budget in [3.9, f64::NAN, f64::NEG_INFINITY] {
        assert!(matches!(Quantizer::adaptive(4).budget(budget).apply(&w), Err(Error::Setting { .. })));
    }
    let codes = CodeRange::signed(8).unwrap();
    assert!(matches!(Affine::per_tensor(0.0, 0, codes), Err(Error::Setting { setting: "scale", .. })));
    assert!(matches!(Affine::per_tensor(f32::NAN, 0, codes), Err(Error::NotFinite { .. })));
    assert!(matches!(Affine::per_tensor(1.0, i32::MIN, codes), Err(Error::Setting { setting: "zero_point", .. })));
    assert!(matches!(Affine::per_channel(Axis(0), vec![1.0; 2], vec![0], codes), Err(Error::Shape { .. })));
    let three = Affine::per_channel(Axis(0), vec![1.0; 3], vec![0; 3], codes).unwrap();
    assert!(matches!(three.apply(&w), Err(Error::Shape { .. })));
    let one = Affine::per_tensor(1.0, 0, codes).unwrap();
    assert!(matches!(one.straight_through(&w, &Array2::<f32>::ones((4, 5))), Err(Error::Shape { .. })));
    assert!(matches!(one.learned_step(&w, &Array1::<f32>::ones(24), 1.0), Err(Error::Shape { .. })));
    assert!(matches!(one.fake_quantize(&array![f32::NAN]), Err(Error::NotFinite { .. })));
    assert!(matches!(Affine::lsq(&array![f32::INFINITY], codes), Err(Error::NotFinite { .. })));
}

#[test]
fn importance_must_fit_the_weights() {
    let w = array![[1.0f32, 2.0], [3.0, 4.0]];
    let with = |importance: ArrayD<f32>| Quantizer::kmeans(1).apply(&Weighted { weights: &w, importance: &importance });
    assert!(matches!(with(ArrayD::ones(IxDyn(&[4]))), Err(Error::Shape { .. })));
    assert!(matches!(with(ArrayD::from_elem(IxDyn(&[2, 2]), f32::NAN)), Err(Error::NotFinite { .. })));
    assert!(matches!(with(ArrayD::from_elem(IxDyn(&[2, 2]), -1.0)), Err(Error::Setting { .. })));
    assert!(matches!(with(ArrayD::zeros(IxDyn(&[2, 2]))), Err(Error::Setting { .. })));
    assert!(with(ArrayD::ones(IxDyn(&[2, 2]))).is_ok());
}

#[test]
fn extreme_weights_stay_finite_or_are_refused() {
    let cases = [
        vec![f32::MAX, f32::MIN],
        vec![f32::MAX; 3],
        vec![f32::MIN_POSITIVE, -f32::MIN_POSITIVE],
        vec![1e-45, -1e-45, 0.0],
        vec![1e-45; 4],
        vec![0.0; 5],
        vec![-0.0; 2],
        vec![7.0],
        vec![1e38, 1e-38, -1e-38],
        (0..2000).map(|i| if i == 0 { 3e38 } else { i as f32 }).collect(),
    ];
    for granularity in [Granularity::Tensor, Granularity::Group(2)] {
        for scheme in schemes(granularity).into_iter().chain([Box::new(Quantizer::adaptive(4)) as Box<dyn Quantizer>]) {
            for values in &cases {
                let w = Array1::from(values.clone());
                match scheme.apply(&w) {
                    Ok(q) => {
                        let back = q.dequantize();
                        assert!(back.iter().all(|x| x.is_finite()), "{scheme:?} of {w}: {back}");
                        if values.iter().all(|x| *x == 0.0) {
                            assert!(back.iter().all(|x| x.abs() < 1e-30), "{scheme:?} of {w}: {back}");
                        }
                    }
                    Err(error) => {
                        assert!(matches!(error, Error::Setting { setting: "range", .. }), "{scheme:?}: {error}")
                    }
                }
            }
        }
    }
}

#[test]
fn a_scalar_is_a_tensor_of_rank_zero() {
    for scheme in every_scheme() {
        let q = scheme.apply(&arr0(0.5f32)).unwrap();
        assert!(q.shape().is_empty() && q.dequantize().len() == 1, "{scheme:?}");
    }
}

#[test]
fn observers_refuse_what_they_cannot_use() {
    let batch = array![[1.0f32, 2.0], [3.0, 4.0]];
    let uniform = Quantizer::uniform(8);
    let observers: [fn() -> Box<dyn Observer>; 3] =
        [|| Box::new(MinMax::new()), || Box::new(MovingAverage::new(0.1)), || Box::new(Histogram::new())];
    for new in observers {
        let mut observer = new();
        assert!(matches!(observer.fit(&uniform), Err(Error::Empty { .. })));
        observer.observe(&batch).unwrap();
        let before = format!("{observer:?}");
        assert!(matches!(observer.observe(&array![f32::NAN]), Err(Error::NotFinite { .. })));
        assert!(matches!(observer.observe(&Array1::<f32>::zeros(0)), Err(Error::Empty { .. })));
        assert_eq!(format!("{observer:?}"), before, "a refused batch changes nothing");
        assert!(matches!(observer.fit(&Quantizer::uniform(9)), Err(Error::Bits { .. })));
    }
    let mut channels = MinMax::per_channel(Axis(1));
    channels.observe(&batch).unwrap();
    assert!(matches!(channels.observe(&Array2::<f32>::ones((2, 3))), Err(Error::Shape { .. })));
    assert!(matches!(channels.observe(&Array1::<f32>::ones(3)), Err(Error::Axis { axis: 1, rank: 1 })));
    assert!(matches!(channels.fit(&uniform.clone().range(Range::Mse)), Err(Error::Conflict { .. })));
    assert!(matches!(channels.merge(&MinMax::per_channel(Axis(1))), Ok(())));
    assert!(matches!(channels.merge(&MinMax::per_channel(Axis(0))), Err(Error::Conflict { .. })));
    assert!(matches!(MinMax::new().merge(&channels), Err(Error::Conflict { .. })));
    let mut averages = MovingAverage::per_channel(0.1, Axis(1));
    assert!(matches!(averages.merge(&MovingAverage::new(0.1)), Err(Error::Conflict { .. })));
    for constant in [0.0, -0.5, 1.5, f64::NAN] {
        assert!(matches!(MovingAverage::new(constant).observe(&batch), Err(Error::Setting { .. })));
    }
    let mut one = MovingAverage::new(0.1);
    one.observe(&batch).unwrap();
    let mut other = MovingAverage::new(0.2);
    other.observe(&batch).unwrap();
    assert!(matches!(one.merge(&other), Err(Error::Setting { .. })));
    let mut far = MovingAverage::new(1.0);
    far.observe(&array![-3e38f32]).unwrap();
    far.observe(&array![3e38f32]).unwrap();
    assert_eq!(far.ends(), [(3e38, 3e38)]);
    for bins in [0, 3, 128, 1 << 21] {
        assert!(matches!(Histogram::with_bins(bins).observe(&batch), Err(Error::Setting { setting: "bins", .. })));
    }
    assert!(matches!(Histogram::new().merge(&Histogram::with_bins(256)), Err(Error::Setting { .. })));
}

#[test]
fn a_tensor_is_checked_when_it_is_made() {
    let codes = |n: usize| Codes::pack(2, &vec![1; n]).unwrap();
    let affine =
        |scale: Vec<f32>, zero_point: Vec<i32>, granularity| Grid::Affine { scale, zero_point, lowest: 0, granularity };
    let tensor = Granularity::Tensor;
    let table = |levels: Array2<f32>, scale: Vec<f32>, granularity| Grid::Codebook { levels, scale, granularity };
    let refused = [
        ("codes", codes(5), affine(vec![1.0], vec![], tensor)),
        ("scales", codes(6), affine(vec![1.0, 1.0], vec![], tensor)),
        ("no scale", codes(6), affine(vec![], vec![], tensor)),
        ("zero points", codes(6), affine(vec![1.0], vec![0, 0], tensor)),
        ("scale 0", codes(6), affine(vec![0.0], vec![], tensor)),
        ("scale NaN", codes(6), affine(vec![f32::NAN], vec![], tensor)),
        ("zero point", codes(6), affine(vec![1.0], vec![i32::MAX], tensor)),
        ("axis", codes(6), affine(vec![1.0], vec![], Granularity::Channel(Axis(2)))),
        ("group", codes(6), affine(vec![1.0], vec![], Granularity::Group(0))),
        ("groups", codes(6), affine(vec![1.0; 3], vec![], Granularity::Group(2))),
        ("table too long", codes(6), table(Array2::zeros((1, 5)), vec![], tensor)),
        ("no table", codes(6), table(Array2::zeros((1, 0)), vec![], tensor)),
        ("tables", codes(6), table(Array2::zeros((3, 4)), vec![], Granularity::Channel(Axis(0)))),
        ("code beyond", codes(6), table(Array2::zeros((1, 1)), vec![], tensor)),
        ("level", codes(6), table(array![[0.0, f32::INFINITY]], vec![], tensor)),
        ("table scale", codes(6), table(array![[0.0, 1.0]], vec![0.0], tensor)),
    ];
    for (what, codes, grid) in refused {
        assert!(QuantizedTensor::new(&[2, 3], codes, grid).is_err(), "{what}");
    }
    assert!(QuantizedTensor::new(&[usize::MAX, 3], codes(6), affine(vec![1.0], vec![], tensor)).is_err());
    assert!(QuantizedTensor::new(&[2, 3], codes(6), affine(vec![1.0], vec![], tensor)).is_ok());
    let byte = || Codes::pack(8, &[255]).unwrap();
    assert!(matches!(
        QuantizedTensor::new(&[1], byte(), affine(vec![3e38], vec![], tensor)),
        Err(Error::Setting { setting: "level", .. })
    ));
    assert!(matches!(
        QuantizedTensor::new(&[1], Codes::pack(1, &[1]).unwrap(), table(array![[0.0, 3e38]], vec![10.0], tensor)),
        Err(Error::Setting { setting: "level", .. })
    ));
    for uncountable in [[0, usize::MAX], [usize::MAX, 0]] {
        let grid = affine(vec![1.0], vec![], tensor);
        assert!(matches!(QuantizedTensor::new(&uncountable, codes(0), grid), Err(Error::Shape { .. })));
    }
    assert!(matches!(Codes::pack(2, &[4]), Err(Error::Setting { setting: "code", .. })));
    assert!(matches!(Codes::from_bytes(3, 5, vec![0; 3]), Err(Error::Shape { .. })));
    assert!(matches!(Codes::from_bytes(16, usize::MAX, vec![0; 3]), Err(Error::Shape { .. })));
    assert!(matches!(Codes::from_bytes(0, 5, vec![]), Err(Error::Bits { .. })));
    let q = QuantizedTensor::new(&[2, 3], codes(6), affine(vec![1.0], vec![], tensor)).unwrap();
    assert!(matches!(q.distortion(&Array1::<f32>::ones(6)), Err(Error::Shape { .. })));
    assert!(matches!(q.distortion(&Array2::from_elem((2, 3), f32::NAN)), Err(Error::NotFinite { .. })));
}

#[test]
fn a_checkpoint_names_what_it_lacks() {
    let mut checkpoint = Checkpoint::new();
    checkpoint.insert("w", Stored::Float(ArrayD::ones(IxDyn(&[2])), FloatType::F16));
    checkpoint.insert("ids", Stored::Raw { dtype: "I64".into(), shape: vec![0], bytes: vec![] });
    let error = checkpoint.tensor("v").unwrap_err();
    assert!(matches!(&error, Error::UnknownName { name, known } if name == "v" && known.len() == 2), "{error}");
    assert!(matches!(checkpoint.floats("ids"), Err(Error::Conflict { .. })));
    assert_eq!((checkpoint.nbytes(), checkpoint.nbytes_f32()), (4, 8));
}

#[test]
fn a_group_of_which_no_number_matters_counts_alike() {
    let w = Array2::from_shape_fn((2, 2000), |(i, j)| ((i * 2000 + j) as f32).sin());
    let mut importance = Array2::<f32>::ones((2, 2000));
    importance.row_mut(0).fill(0.0);
    let importance = importance.into_dyn();
    for range in [Range::MinMax, Range::Mse, Range::Percentile(90.0), Range::Entropy, Range::Aciq] {
        let scheme = Quantizer::uniform(4).per_channel(Axis(0)).range(range);
        let weighted = scheme.apply(&Weighted { weights: &w, importance: &importance }).unwrap();
        assert_eq!(weighted, scheme.apply(&w).unwrap(), "{range:?}");
    }
}

#[test]
fn a_histogram_counts_numbers_not_bins() {
    // A thousandth of the range holds all but one number: few bins, a large population.
    let x = Array1::from_iter((0..100_000).map(|i| ((i as f32) * 0.37).sin()).chain([1000.0]));
    let scheme = Quantizer::uniform(8).symmetric().range(Range::Entropy);
    let mut histogram = Histogram::new();
    histogram.observe(&x).unwrap();
    let (bins, values) = (histogram.fit(&scheme).unwrap().scale()[0], scheme.fit(&x).unwrap().scale()[0]);
    assert!(bins < 0.5 * 1000.0 / 127.0 && values < 0.5 * 1000.0 / 127.0, "{bins} {values}");
}
