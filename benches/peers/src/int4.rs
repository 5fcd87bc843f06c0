//! Layers of 4-bit weights with a scale for 32 of them, from f32 to f32. Q4K of candle has scales of 6 bits for its groups
//! and a float for 256, and is the format it packs for x86; Q4_0 has a float for 32 and no zero points. rten's are as
//! those of Q4_0; of a single row it rounds the inputs to 8 bits as ours does, of several it multiplies in floats.

use candle_core::{
    Device, Module, Tensor,
    quantized::{GgmlDType, QMatMul, QTensor},
};
use ndarray::Array2;
use rten_gemm::{
    BlockQuantizedGemm, BlockQuantizedMatrix, ComputeMode, GemmExecutor, GemmInputA, GemmInputB, GemmUninitOptions,
};
use rten_tensor::{Contiguous, NdTensorView};
use tersor::{PackedWeights, Quantizer};

use crate::{Case, Contender, Result, numbers};

const SIZE: usize = 4096;
const ROWS: [usize; 4] = [1, 8, 32, 128];
const GROUP: usize = 32;

/// Each is about 0.07 from the exact result.
const TOLERANCE: f64 = 0.15;

pub fn cases() -> Vec<Case> {
    let case = |rows| Case {
        name: format!("int4 {rows}x{SIZE}x{SIZE}"),
        shape: (rows, SIZE, SIZE),
        tolerance: TOLERANCE,
        contenders: Box::new(move || contenders(rows)),
    };
    ROWS.map(case).into()
}

fn contenders(rows: usize) -> Result<Vec<Contender>> {
    let (x, w) = (numbers(rows * SIZE, 1), numbers(SIZE * SIZE, 2));
    Ok(vec![
        ours(rows, &x, &w)?,
        candle(rows, &x, &w, GgmlDType::Q4_0)?,
        candle(rows, &x, &w, GgmlDType::Q4K)?,
        rten(rows, x, &w),
    ])
}

fn ours(rows: usize, x: &[f32], w: &[f32]) -> Result<Contender> {
    let x = Array2::from_shape_vec((rows, SIZE), x.to_vec())?;
    let w = Array2::from_shape_vec((SIZE, SIZE), w.to_vec())?;
    let mut y = Array2::zeros((rows, SIZE));
    let weights = PackedWeights::new(&Quantizer::uniform(4).per_group(GROUP).apply(&w)?)?;
    Ok(Contender::new(format!("tersor, {}, groups of {GROUP}", weights.kernel()), move |result| {
        weights.matmul_into(&x, &mut y).expect("finite inputs of the right shape");
        if let Some(result) = result {
            *result = y.iter().copied().collect();
        }
    }))
}

fn candle(rows: usize, x: &[f32], w: &[f32], kind: GgmlDType) -> Result<Contender> {
    let x = Tensor::from_slice(x, (rows, SIZE), &Device::Cpu)?;
    let w = Tensor::from_slice(w, (SIZE, SIZE), &Device::Cpu)?;
    let weights = QMatMul::from_qtensor(QTensor::quantize(&w, kind)?)?;
    Ok(Contender::new(format!("candle-core, {kind:?}"), move |result| {
        let y = weights.forward(&x).expect("shapes that fit");
        if let Some(result) = result {
            *result = y.flatten_all().and_then(|y| y.to_vec1()).expect("a tensor of floats");
        }
    }))
}

fn rten(rows: usize, x: Vec<f32>, w: &[f32]) -> Contender {
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for group in w.chunks(GROUP) {
        // The number farthest from zero becomes code 0, which stands for -8.
        let farthest = group.iter().fold(0f32, |most, w| if w.abs() > most.abs() { *w } else { most });
        let scale = farthest / -8.0;
        let code = |w: f32| (w / scale + 8.0).round().clamp(0.0, 15.0) as u8;
        codes.extend(group.chunks(2).map(|pair| code(pair[0]) | code(pair[1]) << 4));
        scales.push(scale);
    }
    let (vector, matrix) = (BlockQuantizedGemm::new().with_compute(ComputeMode::Int8), GemmExecutor::<f32>::new());
    let mut y = Vec::with_capacity(rows * SIZE);
    Contender::new("rten-gemm, groups of 32", move |result| {
        let groups = [SIZE, SIZE / GROUP];
        let codes = NdTensorView::from_data([SIZE, SIZE / GROUP, GROUP / 2], &codes[..]);
        let scales = NdTensorView::from_data(groups, &scales[..]);
        let (codes, scales) = (Contiguous::new(codes).expect("row-major"), Contiguous::new(scales).expect("row-major"));
        let w = BlockQuantizedMatrix::new(codes, scales, 4).expect("groups that it knows");
        y.clear();
        let out = &mut y.spare_capacity_mut()[..rows * SIZE];
        let y = match rows {
            1 => vector.batched_gemm_uninit(out, NdTensorView::from_data([1, 1, SIZE], &x[..]), w),
            _ => {
                let x = GemmInputA::Unpacked(NdTensorView::from_data([rows, SIZE], &x[..]));
                matrix.gemm_uninit(out, x, GemmInputB::BlockQuantized(w), GemmUninitOptions::default())
            }
        };
        let y = y.expect("shapes that fit");
        if let Some(result) = result {
            *result = y.to_vec();
        }
    })
}
