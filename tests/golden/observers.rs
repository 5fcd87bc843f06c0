//! Ranges of activations and the grids fitted to them.

use ndarray::{ArrayD, ArrayView, Axis, IxDyn, arr1};
use tersor::{
    Quantizer,
    quantize::{
        Affine, Convention, Quotient, Range, Uniform, UnsignedZero,
        observe::{Histogram, MinMax, MovingAverage, Observer},
    },
};

use crate::{
    affine::codes,
    case::{Case, family},
};

fn scheme(case: &Case) -> Uniform {
    // torch's scales; the family's codes were computed from them by division.
    let mut convention = Convention { quotient: Quotient::Divide, ..Convention::torch() };
    // torch takes the lower middle where the code range was given explicitly, as for its 4-bit cases.
    if case.text("dtype").ends_with("4bit") {
        convention.unsigned_zero = UnsignedZero::Lower;
    }
    let scheme = Uniform::new(8).codes(codes(case)).convention(convention);
    if case.text("qscheme") == "symmetric" { scheme.symmetric() } else { scheme }
}

fn check_grid(case: &Case, ends: &[(f32, f32)], grid: &Affine) {
    let array = |values: Vec<f64>| {
        if values.len() == 1 { ArrayD::from_elem(IxDyn(&[]), values[0]) } else { arr1(&values).into_dyn() }
    };
    case.check("min", &array(ends.iter().map(|e| f64::from(e.0)).collect()));
    case.check("max", &array(ends.iter().map(|e| f64::from(e.1)).collect()));
    case.check("scale", &array(grid.scale().iter().map(|s| f64::from(*s)).collect()));
    case.check("zero_point", &array(grid.zero_point().iter().map(|z| f64::from(*z)).collect()));
}

/// The rows of `batches`, one a batch.
fn batches(case: &Case) -> Vec<ArrayD<f32>> {
    case.input("batches").axis_iter(Axis(0)).map(|batch| batch.to_owned()).collect()
}

#[test]
fn min_max_grids_equal_torch() {
    let (mut ran, mut refused) = (0, 0);
    for case in family("observers").iter().filter(|case| case.op == "observer_minmax") {
        let x = case.input("x");
        let mut observer = MinMax::new();
        if x.iter().any(|x| !x.is_finite()) {
            // torch's scale becomes NaN or infinite in silence; here the batch is refused.
            assert!(case.note.contains("not finite"), "{}", case.id);
            assert!(observer.observe(&x).is_err(), "{}", case.id);
            refused += 1;
            continue;
        }
        observer.observe(&x).unwrap();
        let grid = observer.fit(&scheme(case)).unwrap();
        if case.note.contains("not finite") {
            // torch overflows on a range wider than f32 is high; computed in f64 it has a finite scale.
            let (min, max) = observer.ends()[0];
            let (low, high) = (case.number("qmin").unwrap(), case.number("qmax").unwrap());
            let expected = ((f64::from(max) - f64::from(min)) / (high - low)) as f32;
            assert_eq!(grid.scale()[0], expected, "{}", case.id);
            assert!(grid.apply(&x).unwrap().dequantize().iter().all(|x| x.is_finite()), "{}", case.id);
            refused += 1;
            continue;
        }
        check_grid(case, observer.ends(), &grid);
        let q = scheme(case).apply(&x).unwrap();
        case.check("q", &q.integers().mapv(f64::from));
        ran += 1;
    }
    assert_eq!(ran + refused, 100);
    assert!(ran >= 80, "{ran} compared, {refused} refused");
}

#[test]
fn moving_averages_equal_torch() {
    let mut ran = 0;
    for case in family("observers").iter().filter(|case| case.op == "observer_moving_average") {
        let mut observer = MovingAverage::new(case.number("averaging_constant").unwrap());
        batches(case).iter().for_each(|batch| observer.observe(batch).unwrap());
        check_grid(case, observer.ends(), &observer.fit(&scheme(case)).unwrap());
        ran += 1;
    }
    assert_eq!(ran, 8);
}

#[test]
fn channels_equal_torch() {
    let mut ran = 0;
    for case in family("observers").iter().filter(|case| case.op == "observer_per_channel") {
        let mut observer = MinMax::per_channel(Axis(case.number("axis").unwrap() as usize));
        observer.observe(&case.input("x")).unwrap();
        check_grid(case, observer.ends(), &observer.fit(&scheme(case)).unwrap());
        ran += 1;
    }
    assert_eq!(ran, 16);
}

#[test]
fn the_histograms_least_squares_range_is_no_worse_than_torchs() {
    let mut ran = 0;
    for case in family("observers").iter().filter(|case| case.op == "observer_histogram") {
        let mut observer = Histogram::new();
        let mut all = Vec::new();
        for role in ["batch0", "batch1"].into_iter().filter(|role| case.has_input(role)) {
            observer.observe(&case.input(role)).unwrap();
            all.extend(case.input(role));
        }
        let grid = observer.fit(&scheme(case).range(Range::Mse)).unwrap();
        let back = grid.fake_quantize(&ArrayView::from(&all)).unwrap();
        let mse = all.iter().zip(&back).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>() / all.len() as f64;
        let torch = case.output("mse").iter().next().unwrap();
        assert!(mse <= torch * 1.05, "{}: {mse}, torch {torch}", case.id);
        ran += 1;
    }
    assert_eq!(ran, 12);
}
