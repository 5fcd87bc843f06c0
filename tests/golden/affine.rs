//! Quantization with given scales, fake quantization, learned steps, groups.

use ndarray::{ArrayD, Axis, arr1};
use tersor::{
    Quantizer,
    quantize::{Affine, CodeRange, Convention, SymmetricScale, Uniform},
    tensor::Grid,
};

use crate::case::{Case, family};

/// The code range of a case, found among those that the crate has.
pub(crate) fn codes(case: &Case) -> CodeRange {
    let (low, high) = (case.number("qmin").unwrap() as i32, case.number("qmax").unwrap() as i32);
    let all = (1..=8).flat_map(|bits| [CodeRange::signed(bits), CodeRange::unsigned(bits), CodeRange::narrow(bits)]);
    let mut fitting = all.flatten().filter(|codes| codes.lowest() == low && codes.highest() == high);
    fitting.next().unwrap_or_else(|| panic!("{}: no codes {low}..={high}", case.id))
}

fn grid(case: &Case) -> Affine {
    let codes = codes(case);
    let grid = if case.has_input("scale") {
        let zero = case.integers("zero_point").iter().map(|z| *z as i32).collect();
        let axis = Axis(case.number("axis").unwrap() as usize);
        Affine::per_channel(axis, case.input("scale").iter().copied().collect(), zero, codes)
    } else {
        Affine::per_tensor(case.number("scale").unwrap() as f32, case.number("zero_point").unwrap() as i32, codes)
    };
    grid.unwrap().convention(Convention::torch())
}

fn wide(array: ArrayD<f32>) -> ArrayD<f64> {
    array.mapv(f64::from)
}

#[test]
fn codes_equal_torch() {
    let mut ran = 0;
    for case in family("affine").iter().filter(|case| case.op.starts_with("quantize_per_")) {
        let q = grid(case).apply(&case.input("x")).unwrap();
        case.check("q", &q.integers().mapv(f64::from));
        if case.has_output("dq") {
            case.check("dq", &wide(q.dequantize()));
        }
        // The stored vectors come from torch's own arithmetic, so near ties too must agree to the bit.
        assert_eq!(q.integers().mapv(f64::from), *case.output("q"), "{}", case.id);
        ran += 1;
    }
    assert_eq!(ran, 24);
}

#[test]
fn fake_quantization_and_its_gradients_equal_torch() {
    let mut ran = 0;
    for case in family("affine").iter().filter(|case| case.op.starts_with("fake_quantize")) {
        let (grid, x, gradient) = (grid(case), case.input("x"), case.input("grad_out"));
        case.check("y", &wide(grid.fake_quantize(&x).unwrap()));
        case.check("grad_x", &wide(grid.straight_through(&x, &gradient).unwrap()));
        if case.op == "fake_quantize_learnable" {
            let factor = case.number("grad_factor").unwrap() as f32;
            let learned = grid.learned_step(&x, &gradient, factor).unwrap();
            case.check("grad_scale", &wide(arr1(&learned.scale).into_dyn()));
            case.check("grad_zero_point", &wide(arr1(&learned.zero_point).into_dyn()));
        }
        ran += 1;
    }
    assert_eq!(ran, 20);
}

#[test]
fn group_scales_equal_torchao() {
    let mut ran = 0;
    for case in family("affine").iter().filter(|case| case.op == "quantize_block") {
        let mut convention = Convention::torch();
        let mut scheme = Uniform::new(8).codes(codes(case));
        match case.text("mapping") {
            "ASYMMETRIC" => {}
            "SYMMETRIC" => scheme = scheme.symmetric(),
            "SYMMETRIC_NO_CLIPPING_ERR" => {
                convention.symmetric_scale = SymmetricScale::NoClipping;
                scheme = scheme.symmetric();
            }
            other => panic!("{}: mapping {other}", case.id),
        }
        let scheme = scheme.per_group(case.number("group_size").unwrap() as usize).convention(convention);
        let q = scheme.apply(&case.input("x")).unwrap();
        let Grid::Affine { scale, zero_point, .. } = q.grid() else { panic!("{}: not affine", case.id) };
        let shape = case.output("scale").raw_dim();
        let zeros = if zero_point.is_empty() { vec![0; scale.len()] } else { zero_point.clone() };
        case.check(
            "scale",
            &ArrayD::from_shape_vec(shape.clone(), scale.iter().map(|s| f64::from(*s)).collect()).unwrap(),
        );
        case.check(
            "zero_point",
            &ArrayD::from_shape_vec(shape, zeros.iter().map(|z| f64::from(*z)).collect()).unwrap(),
        );
        case.check("q", &q.integers().mapv(f64::from));
        case.check("dq", &wide(q.dequantize()));
        ran += 1;
    }
    assert_eq!(ran, 7);
}
