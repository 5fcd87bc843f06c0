//! NF4 as bitsandbytes quantizes: two codes a byte, the first in the high nibble.

use ndarray::Array1;
use tersor::{Quantizer, tensor::Grid};

use crate::case::family;

#[test]
fn codes_scales_and_table_are_those_of_bitsandbytes() {
    let cases: Vec<_> = family("lowfloat").into_iter().filter(|case| case.text("type") == "nf4").collect();
    assert_eq!(cases.len(), 1);
    for case in cases {
        let x = case.input("x");
        let q = Quantizer::nf4().per_group(case.number("block_size").unwrap() as usize).apply(&x).unwrap();
        let Grid::Codebook { levels, scale, .. } = q.grid() else { panic!("not a codebook") };
        case.check("code", &levels.row(0).mapv(f64::from).into_dyn());
        // Their scale of a block of zeros is 0; ours is 1, so that it can be divided by.
        let absmax = scale
            .iter()
            .zip(x.rows())
            .map(|(s, block)| if block.iter().all(|x| *x == 0.0) { 0.0 } else { f64::from(*s) });
        case.check("absmax", &absmax.collect::<Array1<f64>>().into_dyn());
        case.check("dq", &q.dequantize().mapv(f64::from));

        let expected = case.output("packed").iter().flat_map(|byte| [*byte as u16 >> 4, *byte as u16 & 15]);
        assert_eq!(q.codes().to_vec(), expected.collect::<Vec<_>>(), "{}", case.id);
    }
}
