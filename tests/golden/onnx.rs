//! `QuantizeLinear` and `DequantizeLinear` as ONNX Runtime computes them: divided, where torch multiplies.

use ndarray::Axis;
use tersor::{
    Quantizer,
    quantize::{Affine, Convention},
};

use crate::{affine::codes, case::family};

#[test]
fn codes_equal_onnx_runtime() {
    let cases = family("onnx");
    assert_eq!(cases.len(), 14);
    for case in cases {
        let codes = codes(&case);
        let scale = || case.input("scale").iter().copied().collect();
        let zero = || case.integers("zero_point").iter().map(|zero| *zero as i32).collect();
        let grid = match (case.number("block_size"), case.number("axis")) {
            (Some(size), _) => Affine::per_group(size as usize, scale(), zero(), codes),
            (None, Some(axis)) => Affine::per_channel(Axis(axis as usize), scale(), zero(), codes),
            (None, None) => {
                let zero = case.number("zero_point").unwrap() as i32;
                Affine::per_tensor(case.number("scale").unwrap() as f32, zero, codes)
            }
        };
        let grid = grid.unwrap().convention(Convention::onnx());
        let q = grid.apply(&case.input("x")).unwrap();
        case.check("y", &q.integers().mapv(f64::from));
        if case.has_output("dq") {
            case.check("dq", &q.dequantize().mapv(f64::from));
        }
    }
}
