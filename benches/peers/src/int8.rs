//! Products of 8-bit weights. Ours is the whole layer, from f32 to f32: it finds the range of each row of inputs, rounds
//! them, multiplies, scales. Theirs is less work: the bare product of inputs that were rounded before, to 32-bit sums.

use std::iter;

use ndarray::{Array2, Axis};
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions, QuantParams};
use rten_tensor::NdTensorView;
use tersor::{PackedWeights, Quantizer};

use crate::{
    Case, Contender, Result, numbers,
    shapes::{INTEGERS, Shape},
    tract, transposed,
};

/// Both are about 0.005 from the exact result.
const TOLERANCE: f64 = 0.03;

/// What stands for zero in their inputs.
const ZERO: u8 = 128;

pub fn cases() -> Vec<Case> {
    let case = |shape @ (m, n, k): Shape| Case {
        name: format!("int8 {m}x{n}x{k}"),
        shape,
        tolerance: TOLERANCE,
        contenders: Box::new(move || contenders(shape)),
    };
    INTEGERS.map(case).into()
}

fn contenders(shape @ (m, n, k): Shape) -> Result<Vec<Contender>> {
    let (x, w) = (numbers(m * k, 1), numbers(n * k, 2));
    let rounded = Rounded::new(shape, &x, &w);
    let mut contenders = vec![ours(shape, x, w)?];
    // For one row, rten takes weights as they are another way than packed ones.
    contenders.extend(iter::once(true).chain((m == 1).then_some(false)).map(|pack| rten(shape, &rounded, pack)));
    contenders.push({
        let x: Vec<i8> = rounded.x.iter().map(|x| x.wrapping_sub(ZERO) as i8).collect();
        let (w, floats) = (&rounded.w, rounded.floats(n));
        tract::product(shape, &x, w, floats)?
    });
    Ok(contenders)
}

fn ours((m, n, k): Shape, x: Vec<f32>, w: Vec<f32>) -> Result<Contender> {
    let (x, w) = (Array2::from_shape_vec((m, k), x)?, Array2::from_shape_vec((n, k), w)?);
    let mut y = Array2::zeros((m, n));
    let weights = PackedWeights::new(&Quantizer::uniform(8).symmetric().per_channel(Axis(0)).apply(&w)?)?;
    Ok(Contender::new(format!("tersor, {}, f32 to f32", weights.kernel()), move |result| {
        weights.matmul_into(&x, &mut y).expect("finite inputs of the right shape");
        if let Some(result) = result {
            *result = y.iter().copied().collect();
        }
    }))
}

/// Inputs with one scale, and weights with a scale an output.
struct Rounded {
    x: Vec<u8>,
    w: Vec<i8>,
    /// Of an output's sums.
    scales: Vec<f32>,
}

impl Rounded {
    fn new((_, _, k): Shape, x: &[f32], w: &[f32]) -> Rounded {
        let scale = |numbers: &[f32]| numbers.iter().fold(f32::MIN_POSITIVE, |most, x| most.max(x.abs())) / 127.0;
        let of_x = scale(x);
        let scales: Vec<f32> = w.chunks(k).map(scale).collect();
        Rounded {
            x: x.iter().map(|x| ((x / of_x).round() + f32::from(ZERO)) as u8).collect(),
            w: w.chunks(k)
                .zip(&scales)
                .flat_map(|(w, scale)| w.iter().map(move |w| (w / scale).round() as i8))
                .collect(),
            scales: scales.iter().map(|of_w| of_x * of_w).collect(),
        }
    }

    /// From sums to numbers.
    fn floats(&self, n: usize) -> impl Fn(&[i32]) -> Vec<f32> + 'static {
        let scales = self.scales.clone();
        move |sums| {
            sums.chunks(n).flat_map(|row| row.iter().zip(&scales).map(|(sum, scale)| *sum as f32 * scale)).collect()
        }
    }
}

fn rten((m, n, k): Shape, rounded: &Rounded, pack: bool) -> Contender {
    let executor = GemmExecutor::<u8, i8, i32>::new();
    let (x, w, floats) = (rounded.x.clone(), rounded.w.clone(), rounded.floats(n));
    let packed = pack.then(|| executor.prepack_b(transposed(&w, n, k)));
    let (zeros, mut y) = (vec![ZERO; m], vec![0; m * n]);
    let name = format!("rten-gemm, {}{}", executor.kernel_name(), if pack { ", packed" } else { "" });
    Contender::new(name, move |result| {
        let a = GemmInputA::Unpacked(NdTensorView::from_data([m, k], &x[..]));
        let b = match &packed {
            Some(w) => GemmInputB::Packed(w),
            None => GemmInputB::Unpacked(transposed(&w, n, k)),
        };
        let a_quant = Some(QuantParams { zero_point: &zeros[..] });
        executor.gemm(&mut y, a, b, GemmOptions { a_quant, ..GemmOptions::default() }).expect("shapes that fit");
        if let Some(result) = result {
            *result = floats(&y);
        }
    })
}
