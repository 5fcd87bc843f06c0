//! The three products of a layer of floats. Ours adds to what is there, as gradients want it; theirs overwrite.

use std::{iter, rc::Rc};

use candle_core::{Device, Tensor};
use gemm::Parallelism;
use ndarray::Array2;
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions};
use rten_tensor::NdTensorView;
use tersor::{
    Isa, PackedWeights, Pruner,
    float::{Matrix, add_product},
};

use crate::{
    Case, Contender, Result, numbers,
    shapes::{FLOATS, Shape},
    tract, transposed,
};

/// Of the same bits but for the order of sums.
const TOLERANCE: f64 = 1e-5;

/// A matrix, as it is or transposed in memory.
#[derive(Clone)]
struct Factor {
    data: Rc<Vec<f32>>,
    rows: usize,
    columns: usize,
    turned: bool,
}

impl Factor {
    fn new(rows: usize, columns: usize, turned: bool, seed: u64) -> Factor {
        Factor { data: Rc::new(numbers(rows * columns, seed)), rows, columns, turned }
    }

    fn ours(&self) -> Matrix<'_> {
        match self.turned {
            false => Matrix::new(&self.data, self.rows, self.columns),
            true => Matrix::new(&self.data, self.columns, self.rows).transposed(),
        }
    }

    /// From row to row and from column to column.
    fn strides(&self) -> (isize, isize) {
        if self.turned { (1, self.rows as isize) } else { (self.columns as isize, 1) }
    }
}

pub fn cases() -> Vec<Case> {
    FLOATS.into_iter().flat_map(|shape| (0..3).map(move |which| case(shape, which))).collect()
}

fn case((m, n, k): Shape, which: usize) -> Case {
    let (what, shape, turned) =
        [("x w^T", (m, n, k), (false, true)), ("g^T x", (n, k, m), (true, false)), ("g w", (m, k, n), (false, false))]
            [which];
    let contenders = Box::new(move || {
        let (rows, columns, terms) = shape;
        let (a, b) = (Factor::new(rows, terms, turned.0, 1), Factor::new(terms, columns, turned.1, 2));
        let mut contenders = Vec::new();
        if which == 0 {
            contenders.push(packed(&a, &b)?);
        }
        contenders.extend([bare(&a, &b)?, gemm(&a, &b), matrixmultiply(&a, &b)]);
        if which == 0 {
            // For one row, rten takes weights as they are another way than packed ones.
            contenders.extend(iter::once(true).chain((rows == 1).then_some(false)).map(|packed| rten(&a, &b, packed)));
            contenders.extend([candle(&a, &b)?, tract::product(shape, &a.data, &b.data, <[f32]>::to_vec)?]);
        }
        Ok(contenders)
    });
    Case { name: format!("f32 {m}x{n}x{k} {what}"), shape, tolerance: TOLERANCE, contenders }
}

fn packed(a: &Factor, b: &Factor) -> Result<Contender> {
    let x = Array2::from_shape_vec((a.rows, a.columns), a.data.to_vec())?;
    let w = Array2::from_shape_vec((b.columns, b.rows), b.data.to_vec())?;
    let mut y = Array2::zeros((a.rows, b.columns));
    let weights = PackedWeights::new(&Pruner::magnitude(0.0).apply(&w)?)?;
    Ok(Contender::new(format!("tersor, {}", weights.kernel()), move |result| {
        weights.matmul_into(&x, &mut y).expect("shapes that fit");
        if let Some(result) = result {
            *result = y.iter().copied().collect();
        }
    }))
}

/// A product of row-major results, written over and over.
fn into_slice(
    name: &str,
    a: &Factor,
    b: &Factor,
    product: impl Fn(&Factor, &Factor, &mut [f32]) + 'static,
) -> Contender {
    let (a, b, mut c) = (a.clone(), b.clone(), vec![0.0; a.rows * b.columns]);
    Contender::new(name, move |result| {
        product(&a, &b, &mut c);
        if let Some(result) = result {
            result.clone_from(&c);
        }
    })
}

fn bare(a: &Factor, b: &Factor) -> Result<Contender> {
    let isa = Isa::detect()?;
    Ok(into_slice("tersor, add_product", a, b, move |a, b, c| add_product(isa, a.ours(), b.ours(), c)))
}

fn gemm(a: &Factor, b: &Factor) -> Contender {
    let parallelism = match rayon::current_num_threads() {
        1 => Parallelism::None,
        threads => Parallelism::Rayon(threads),
    };
    into_slice("gemm", a, b, move |a, b, c| {
        let (m, n, k, (a_row, a_column), (b_row, b_column)) = (a.rows, b.columns, a.columns, a.strides(), b.strides());
        let (c, a, b) = (c.as_mut_ptr(), a.data.as_ptr(), b.data.as_ptr());
        // SAFETY: the strides stay within the matrices, of which `c` is nobody else's.
        unsafe {
            #[rustfmt::skip]
            gemm::gemm(
                m, n, k, c, 1, n as isize, false, a, a_column, a_row, b, b_column, b_row,
                0.0, 1.0, false, false, false, parallelism,
            );
        }
    })
}

fn matrixmultiply(a: &Factor, b: &Factor) -> Contender {
    into_slice("matrixmultiply", a, b, |a, b, c| {
        let (m, n, k, (a_row, a_column), (b_row, b_column)) = (a.rows, b.columns, a.columns, a.strides(), b.strides());
        let (c, a, b) = (c.as_mut_ptr(), a.data.as_ptr(), b.data.as_ptr());
        // SAFETY: the strides stay within the matrices, of which `c` is nobody else's.
        unsafe {
            matrixmultiply::sgemm(m, k, n, 1.0, a, a_row, a_column, b, b_row, b_column, 0.0, c, n as isize, 1);
        }
    })
}

fn rten(a: &Factor, b: &Factor, pack: bool) -> Contender {
    let executor = GemmExecutor::<f32>::new();
    let packed = pack.then(|| executor.prepack_b(transposed(&b.data, b.columns, b.rows)));
    let name = format!("rten-gemm, {}{}", executor.kernel_name(), if pack { ", packed" } else { "" });
    into_slice(&name, a, b, move |a, b, c| {
        let a = GemmInputA::Unpacked(NdTensorView::from_data([a.rows, a.columns], &a.data[..]));
        let b = match &packed {
            Some(b) => GemmInputB::Packed(b),
            None => GemmInputB::Unpacked(transposed(&b.data, b.columns, b.rows)),
        };
        executor.gemm(c, a, b, GemmOptions::default()).expect("shapes that fit");
    })
}

fn candle(a: &Factor, b: &Factor) -> Result<Contender> {
    let x = Tensor::from_slice(&a.data, (a.rows, a.columns), &Device::Cpu)?;
    let w = Tensor::from_slice(&b.data, (b.columns, b.rows), &Device::Cpu)?.t()?;
    Ok(Contender::new("candle-core", move |result| {
        let y = x.matmul(&w).expect("shapes that fit");
        if let Some(result) = result {
            *result = y.flatten_all().and_then(|y| y.to_vec1()).expect("a tensor of floats");
        }
    }))
}
