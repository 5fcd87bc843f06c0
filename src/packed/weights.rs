//! A weight ready to multiply.

use std::ops::Range;

use ndarray::{Array1, Array2, ArrayBase, ArrayD, ArrayView2, ArrayViewMut2, Data, DataMut, Dimension, Ix2, IxDyn};

use super::{
    Activations, AtRest,
    at_rest::{Floats, Whole},
    choose::{Choice, FloatChoice, Integers, choose, choose_floats, float_kernel, integer_kernel, lookup_kernel, pick},
    decoded::Decoded,
    dense,
};
use crate::{
    error::{Error, Result},
    kernels::{
        self, Bits, Depth, Fixed, PackedInt8, PackedLevels, PackedSparse, float::add_product_of_levels, isa::Isa,
    },
    tensor::{Grid, QuantizedTensor},
};

/// A compressed weight packed for the kernel that suits it: `y = x W^T + b`. Made of a
/// [`QuantizedTensor`](crate::QuantizedTensor), a [`PrunedTensor`](crate::PrunedTensor) or a
/// [`SparseTensor`](crate::tensor::SparseTensor).
///
/// | weight | kernel | inputs |
/// |---|---|---|
/// | affine, 5 to 8 bits, a scale (below 1e19) per tensor, output channel or group of inputs | int8 | rounded to 8 bits, [`Activations`] |
/// | of these, at most two of four consecutive inputs not 0 | nm-int8 (AVX-512) | the same |
/// | affine as above of 3 or 4 bits, and of 1 or 2 | int4, int2: codes stay packed in memory | the same |
/// | the same with [`Activations::Float`]; up to 8 bits of one codebook, scaled as above | lookup8, lookup4, lookup2: what codes stand for is looked up in registers | f32 |
/// | a codebook of integers times a power of two, of 8 bits at most | int8, int4, int2 | rounded to 8 bits |
/// | 16 bits, a scale per input, a codebook for each group | decoded | f32 |
/// | pruned floats, sparse enough for it to pay | csr, nm or block, after what the mask allows | f32 |
/// | pruned floats otherwise | dense | f32 |
///
/// Sums of integers are exact: the result is the same bits on every instruction set and any number of threads. f32 sums
/// are the same bits for any number of threads. Sparse quantized weights run on integers, zeros included, but for nm-int8,
/// which leaves them out with the same result: it takes codes that are -128 to 127 from their zero point, as symmetric
/// ones are, and an even number of fours in each group. Narrower codes keep their zeros, which take less memory than
/// places. Where a weight of floats is removed, a sparse kernel does not look at the input: NaN there does not spread.
///
/// ```
/// use ndarray::{Array2, Axis};
/// use tersor::{PackedWeights, Quantizer};
///
/// let w = Array2::from_shape_fn((48, 100), |(i, j)| ((i * 100 + j) as f32).sin());
/// let x = Array2::from_shape_fn((5, 100), |(i, j)| ((i + j * 7) as f32).cos());
/// let packed = PackedWeights::new(&Quantizer::uniform(8).symmetric().per_channel(Axis(0)).apply(&w)?)?;
/// let error = (packed.matmul(&x)? - x.dot(&w.t())).mapv(f32::abs);
/// assert!(error.iter().all(|e| *e < 0.3));
/// println!("{}", packed.kernel()); // such as int8-avx512vnni
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PackedWeights {
    outputs: usize,
    inputs: usize,
    bias: Option<Array1<f32>>,
    packed: Packed,
}

#[derive(Clone, Debug)]
enum Packed {
    Int8 { weights: PackedInt8, depth: Depth, isa: Isa, activations: Activations },
    Lookup(PackedLevels),
    Decoded(Decoded),
    Sparse { weights: PackedSparse, kernel: &'static str },
    Dense(Array2<f32>),
}

impl PackedWeights {
    /// Packs a weight of shape (outputs, ..), its other axes taken together as the inputs; inputs rounded dynamically
    /// where the kernel works on integers.
    ///
    /// # Errors
    /// [`Error::Rank`] for fewer than two axes; [`Error::Isa`] if `TERSOR_ISA` asks for instructions that the machine
    /// lacks.
    ///
    /// ```
    /// use tersor::{PackedWeights, Pruner};
    ///
    /// let w = ndarray::Array2::from_shape_fn((48, 100), |(i, j)| ((i * 100 + j) as f32).sin());
    /// let packed = PackedWeights::new(&Pruner::magnitude(0.9).apply(&w)?)?;
    /// assert!(packed.kernel().starts_with("csr-f32"));
    /// # Ok::<(), tersor::Error>(())
    /// ```
    pub fn new<'a>(weights: impl Into<AtRest<'a>>) -> Result<Self> {
        PackedWeights::with(weights, Activations::Dynamic)
    }

    /// As [`new`](PackedWeights::new), with a choice of how inputs are taken.
    ///
    /// # Errors
    /// As [`new`](PackedWeights::new), and [`Error::Setting`] for a static grid that is not one.
    pub fn with<'a>(weights: impl Into<AtRest<'a>>, activations: Activations) -> Result<Self> {
        let weights = Whole::of(weights.into());
        let outputs = weights.shape().first().copied().unwrap_or(0);
        PackedWeights::rows(&weights, 0..outputs, activations)
    }

    /// Packs some of the outputs.
    pub(super) fn rows(weights: &Whole, rows: Range<usize>, activations: Activations) -> Result<Self> {
        if weights.shape().len() < 2 {
            let found = weights.shape().to_vec();
            return Err(Error::Rank { what: "a weight to be packed", expected: "2 or more", found });
        }
        activations.validate()?;
        let (outputs, inputs) = (rows.len(), weights.shape()[1..].iter().product());
        let packed = match weights {
            Whole::Quantized(weights) => match choose(weights, &activations) {
                Choice::Integer { bits, group_size, integers } => {
                    let packing = Packing::new(weights, rows, group_size)?;
                    packing.integers(bits, &integers, activations)
                }
                Choice::Lookup { bits, group_size } => Packing::new(weights, rows, group_size)?.lookup(bits),
                Choice::Decoded => Packed::Decoded(Decoded::new(weights.clone(), rows, inputs)),
            },
            Whole::Floats(floats) => pruned(floats, rows, inputs)?,
        };
        Ok(PackedWeights { outputs, inputs, bias: None, packed })
    }

    /// Adds a bias to every row of the result; `None` takes it away.
    ///
    /// # Errors
    /// [`Error::Shape`] unless it has one number an output, [`Error::NotFinite`].
    pub fn with_bias(mut self, bias: impl Into<Option<Array1<f32>>>) -> Result<Self> {
        let bias = bias.into();
        if let Some(bias) = &bias {
            if bias.len() != self.outputs {
                let (expected, found) = (vec![self.outputs], vec![bias.len()]);
                return Err(Error::Shape { what: "the bias", expected, found });
            }
            if let Some((index, value)) = bias.iter().enumerate().find(|(_, x)| !x.is_finite()) {
                return Err(Error::NotFinite { what: "the bias", index, value: f64::from(*value) });
            }
        }
        // In one run of memory, whatever the strides it came with.
        self.bias = bias.map(|bias| bias.iter().copied().collect());
        Ok(self)
    }

    /// Columns of the result.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Columns that an input must have.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The kernel that runs: `int8-`, `int4-`, `int2-`, `nm-int8-`, `lookup8-f32-`, `lookup4-f32-`, `lookup2-f32-`, `csr-f32-`,
    /// `nm-f32-` or `block-f32-` and its instruction set, `decoded-f32`, or `dense-f32`.
    pub fn kernel(&self) -> &'static str {
        match &self.packed {
            Packed::Int8 { weights, isa, .. } => integer_kernel(weights.bits(), *isa),
            Packed::Lookup(weights) => lookup_kernel(weights.bits(), weights.isa()),
            Packed::Decoded(_) => "decoded-f32",
            Packed::Sparse { kernel, .. } => kernel,
            Packed::Dense(_) => "dense-f32",
        }
    }

    /// Whether zeros are left out.
    pub(super) fn is_sparse(&self) -> bool {
        matches!(self.packed, Packed::Sparse { .. })
    }

    /// Bytes in memory while running.
    pub fn nbytes(&self) -> usize {
        let weights = match &self.packed {
            Packed::Int8 { weights, .. } => weights.nbytes(),
            Packed::Lookup(weights) => weights.nbytes(),
            Packed::Decoded(decoded) => decoded.nbytes(),
            Packed::Sparse { weights, .. } => weights.nbytes(),
            Packed::Dense(weights) => 4 * weights.len(),
        };
        weights + 4 * self.bias.as_ref().map_or(0, Array1::len)
    }

    /// `x W^T + b`, for `x` of shape (rows, inputs): a result of shape (rows, outputs).
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` has another number of columns; [`Error::NotFinite`] for NaN or an infinity that an integer
    /// kernel would have to round.
    pub fn matmul<S: Data<Elem = f32>>(&self, x: &ArrayBase<S, Ix2>) -> Result<Array2<f32>> {
        let mut y = Array2::zeros((x.nrows(), self.outputs));
        self.run(x.view(), y.view_mut())?;
        Ok(y)
    }

    /// As [`matmul`](PackedWeights::matmul), into an array of shape (rows, outputs).
    ///
    /// # Errors
    /// As [`matmul`](PackedWeights::matmul), and [`Error::Shape`] if `y` has another shape.
    pub fn matmul_into<S, T>(&self, x: &ArrayBase<S, Ix2>, y: &mut ArrayBase<T, Ix2>) -> Result<()>
    where
        S: Data<Elem = f32>,
        T: DataMut<Elem = f32>,
    {
        self.run(x.view(), y.view_mut())
    }

    /// The exact integers `sum (w - zero_w) (a - zero_a)` of the 8-bit codes, before any scale.
    ///
    /// # Errors
    /// As [`matmul`](PackedWeights::matmul); [`Error::Conflict`] if the weight does not run on integers with one scale an
    /// output, or if a sum may not fit 32 bits.
    pub fn matmul_i32<S: Data<Elem = f32>>(&self, x: &ArrayBase<S, Ix2>) -> Result<Array2<i32>> {
        let mut y = Array2::zeros((x.nrows(), self.outputs));
        self.check(x.ncols(), x.nrows(), y.dim())?;
        match &self.packed {
            Packed::Int8 { weights, depth, isa, activations } if depth.groups() <= 1 => {
                let x = x.as_standard_layout();
                let a = weights.suit(round(*isa, x.as_slice().unwrap_or_default(), x.nrows(), *depth, activations)?);
                weights.matmul_i32(&a, y.as_slice_mut().unwrap_or_default())?;
                Ok(y)
            }
            _ => Err(Error::Conflict {
                what: format!("{} has no integer sums with one scale an output", self.kernel()),
                remedy: "take matmul, or quantize per tensor or per channel",
            }),
        }
    }

    /// As [`matmul`](PackedWeights::matmul) over the last axis of an array of any rank.
    pub(crate) fn matmul_last_axis<S, D>(&self, x: &ArrayBase<S, D>) -> Result<ArrayD<f32>>
    where
        S: Data<Elem = f32>,
        D: Dimension,
    {
        let columns = x.shape().last().copied().unwrap_or(0);
        if columns != self.inputs || x.ndim() == 0 {
            let found = x.shape().to_vec();
            return Err(Error::Shape { what: "the input (its last axis)", expected: vec![self.inputs], found });
        }
        let rows = x.shape()[..x.ndim() - 1].iter().product();
        let mut shape = x.shape().to_vec();
        shape[x.ndim() - 1] = self.outputs;
        let x = x.as_standard_layout();
        let flat = ArrayView2::from_shape((rows, columns), x.as_slice().unwrap_or_default());
        let y = self.matmul(&flat.map_err(|_| Error::Empty { what: "the input" })?)?;
        y.into_shape_with_order(IxDyn(&shape)).map_err(|_| Error::Empty { what: "the input" })
    }

    fn check(&self, columns: usize, rows: usize, y: (usize, usize)) -> Result<()> {
        if columns != self.inputs {
            let (expected, found) = (vec![rows, self.inputs], vec![rows, columns]);
            return Err(Error::Shape { what: "the input", expected, found });
        }
        if y != (rows, self.outputs) {
            let (expected, found) = (vec![rows, self.outputs], vec![y.0, y.1]);
            return Err(Error::Shape { what: "the output", expected, found });
        }
        Ok(())
    }

    fn run(&self, x: ArrayView2<'_, f32>, mut y: ArrayViewMut2<'_, f32>) -> Result<()> {
        self.check(x.ncols(), x.nrows(), y.dim())?;
        match &self.packed {
            Packed::Lookup(weights) => {
                let x = x.as_standard_layout();
                row_major(&mut y, |y| {
                    dense::begin(self.bias(), y);
                    add_product_of_levels(x.as_slice().unwrap_or_default(), weights, y);
                });
            }
            Packed::Decoded(decoded) => {
                let x = x.as_standard_layout();
                let x = x.as_slice().unwrap_or_default();
                row_major(&mut y, |y| decoded.matmul(x, self.bias(), y));
            }
            Packed::Dense(weights) => row_major(&mut y, |y| dense::matmul(weights, x, self.bias(), y)),
            Packed::Sparse { weights, .. } => {
                let x = x.as_standard_layout();
                let x = x.as_slice().unwrap_or_default();
                row_major(&mut y, |y| weights.matmul(x, self.bias(), y));
            }
            Packed::Int8 { weights, depth, isa, activations } => {
                let x = x.as_standard_layout();
                let a = weights.suit(round(*isa, x.as_slice().unwrap_or_default(), x.nrows(), *depth, activations)?);
                row_major(&mut y, |y| weights.matmul(&a, self.bias(), y));
            }
        }
        Ok(())
    }

    fn bias(&self) -> Option<&[f32]> {
        self.bias.as_ref().and_then(|bias| bias.as_slice())
    }
}

/// Lets `f` write an array's elements in row-major order, whatever their strides.
fn row_major(y: &mut ArrayViewMut2<'_, f32>, f: impl FnOnce(&mut [f32])) {
    match y.as_slice_mut() {
        Some(y) => f(y),
        None => {
            let mut dense = Array2::zeros(y.dim());
            f(dense.as_slice_mut().unwrap_or_default());
            y.assign(&dense);
        }
    }
}

/// Pruned floats.
fn pruned(floats: &Floats, rows: Range<usize>, inputs: usize) -> Result<Packed> {
    let (first, shape) = (rows.start * inputs, (rows.len(), inputs));
    let values = &floats.values[first..first + rows.len() * inputs];
    let kept = |index: usize| floats.mask.is_kept(first + index);
    let isa = Isa::detect()?;
    Ok(match choose_floats(&floats.mask, &rows) {
        FloatChoice::Sparse { pattern, height } if inputs <= PackedSparse::MOST_INPUTS => Packed::Sparse {
            weights: PackedSparse::new(isa, values, shape, height, kept),
            kernel: float_kernel(pattern, isa),
        },
        _ => Packed::Dense(
            Array2::from_shape_vec(shape, values.to_vec()).map_err(|_| Error::Empty { what: "the weight" })?,
        ),
    })
}

/// Inputs as 8-bit codes.
fn round(isa: Isa, x: &[f32], rows: usize, depth: Depth, activations: &Activations) -> Result<kernels::Activations> {
    match activations {
        Activations::Static { scale, zero_point } => {
            kernels::Activations::fixed(isa, x, rows, depth, Fixed { scale: *scale, zero: *zero_point as i8 })
        }
        Activations::Dynamic | Activations::Float => kernels::Activations::dynamic(isa, x, rows, depth),
    }
}

/// Outputs of a tensor on their way to a kernel that takes packed codes.
struct Packing<'a> {
    isa: Isa,
    grid: &'a Grid,
    codes: Vec<u8>,
    rows: Range<usize>,
    outputs: usize,
    depth: Depth,
}

impl<'a> Packing<'a> {
    fn new(q: &'a QuantizedTensor, rows: Range<usize>, group_size: usize) -> Result<Self> {
        let inputs = q.shape()[1..].iter().product();
        let mut codes = vec![0; rows.len() * inputs];
        q.codes().unpack8(rows.start * inputs, &mut codes);
        let (isa, depth) = (Isa::detect()?, Depth::new(inputs, group_size.max(1))?);
        Ok(Packing { isa, grid: q.grid(), codes, rows, outputs: q.shape()[0], depth })
    }

    /// One of the numbers for an output and a group of its inputs: one for all, one an output, or one a group.
    fn number<T: Copy>(&self, numbers: &[T], output: usize, group: usize) -> Option<T> {
        let index = match numbers.len() {
            1 => 0,
            length if length == self.outputs => self.rows.start + output,
            _ => (self.rows.start + output) * self.depth.groups() + group,
        };
        numbers.get(index).copied()
    }

    /// The scale and the zero point of an affine grid; the scale of a codebook.
    fn scale_and_zero(&self, output: usize, group: usize) -> (f32, i32) {
        match self.grid {
            Grid::Affine { scale, zero_point, lowest, .. } => (
                self.number(scale, output, group).unwrap_or(1.0),
                self.number(zero_point, output, group).unwrap_or(0) - lowest,
            ),
            Grid::Codebook { scale, .. } => (self.number(scale, output, group).unwrap_or(1.0), 0),
        }
    }

    fn integers(mut self, bits: Bits, integers: &Integers, activations: Activations) -> Packed {
        let (unit, shift) = match integers {
            Integers::Codes => (1.0, 0),
            Integers::Levels { unit, codes, zero } => {
                self.codes.iter_mut().for_each(|code| *code = codes[usize::from(*code)]);
                (*unit, i32::from(*zero))
            }
        };
        let grid = |output, group| {
            let (scale, zero) = self.scale_and_zero(output, group);
            (scale * unit, zero + shift)
        };
        let Packing { isa, depth, .. } = self;
        let picked = bits == Bits::Eight && pick(isa, &self.codes, depth, grid);
        let bits = if picked { Bits::Picked } else { bits };
        let mut weights = PackedInt8::new(isa, bits, &self.codes, self.rows.len(), depth, grid);
        if matches!(activations, Activations::Static { zero_point: 1.. | ..=-1, .. }) {
            weights = weights.with_code_sums();
        }
        Packed::Int8 { weights, depth, isa, activations }
    }

    fn lookup(self, bits: Bits) -> Packed {
        let Packing { isa, depth, ref codes, .. } = self;
        Packed::Lookup(match self.grid {
            Grid::Affine { .. } => PackedLevels::affine(isa, bits, codes, self.rows.len(), depth, |output, group| {
                self.scale_and_zero(output, group)
            }),
            Grid::Codebook { levels, .. } => {
                let levels = levels.as_slice().unwrap_or_default();
                PackedLevels::codebook(isa, bits, codes, self.rows.len(), depth, levels, |output, group| {
                    self.scale_and_zero(output, group).0
                })
            }
        })
    }
}
