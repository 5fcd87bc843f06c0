//! What is left of a pruned tensor, at rest.

use std::fmt;

use ndarray::{ArrayD, IxDyn};

use super::{Codes, Grid, Mask, PrunedTensor, QuantizedTensor, SparseLayout, weights::finite};
use crate::error::{Error, Result};

/// A tensor of which only the survivors are stored: where they are, in a [`SparseLayout`], and their values, floats or
/// the codes of a quantized tensor. All else is zero.
///
/// ```
/// use ndarray::Array2;
/// use tersor::{PackedWeights, Pruner, Quantizer, tensor::{SparseLayout, SparseTensor}};
///
/// let weights = Array2::from_shape_fn((64, 128), |(i, j)| ((i * 128 + j) as f32).sin());
/// let pruned = Pruner::magnitude(0.9).apply(&weights)?;
/// let sparse = pruned.to_sparse()?; // the smallest layout
/// assert_eq!((sparse.layout(), sparse.nbytes()), (SparseLayout::Bitmask, 819 * 4 + 64 * 128 / 8));
/// assert_eq!(sparse.to_pruned(), pruned);
/// let csr = pruned.to_sparse_as(SparseLayout::Csr)?; // or the one asked for
/// assert_eq!(csr.nbytes(), 819 * (4 + 2) + 65 * 4);
///
/// let q = Quantizer::uniform(8).apply(&pruned)?; // zeros stay zeros
/// let both = SparseTensor::from_quantized(&q, pruned.mask())?;
/// assert_eq!(both.nbytes(), 819 + 64 * 128 / 8 + 4 + 1);
/// assert_eq!(both.to_dense(), q.dequantize());
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SparseTensor {
    mask: Mask,
    layout: SparseLayout,
    values: SparseValues,
}

/// The values of a [`SparseTensor`]'s survivors, in row-major order.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SparseValues {
    /// As they are.
    Floats(Vec<f32>),
    /// Codes, and what they stand for: the grid is that of the whole tensor, so that an element's scale does not depend
    /// on which others are left.
    Codes {
        /// One a survivor.
        codes: Codes,
        /// Of the whole tensor; it has a level at zero wherever something is removed.
        grid: Grid,
    },
}

impl SparseTensor {
    /// Joins a mask, the layout in which it is stored, and the survivors' values.
    ///
    /// # Errors
    /// [`Error::Conflict`] for a layout that does not fit the mask, or a grid without a zero; [`Error::Shape`] for another
    /// number of values than the mask keeps; those of [`QuantizedTensor::new`]; [`Error::NotFinite`].
    pub fn new(mask: Mask, layout: SparseLayout, values: SparseValues) -> Result<SparseTensor> {
        layout.validate(&mask)?;
        let (kept, found) = match &values {
            SparseValues::Floats(values) => {
                finite("the sparse values", values)?;
                (mask.kept(), values.len())
            }
            SparseValues::Codes { codes, .. } => (mask.kept(), codes.len()),
        };
        if kept != found {
            return Err(Error::Shape { what: "the sparse values", expected: vec![kept], found: vec![found] });
        }
        let tensor = SparseTensor { mask, layout, values };
        if let SparseValues::Codes { .. } = tensor.values {
            tensor.dense_codes()?;
        }
        Ok(tensor)
    }

    /// The survivors of a quantized tensor, in the smallest layout.
    ///
    /// # Errors
    /// [`Error::Shape`] for a mask of another shape; [`Error::Conflict`] if something that the mask removes is not zero.
    pub fn from_quantized(tensor: &QuantizedTensor, mask: &Mask) -> Result<SparseTensor> {
        mask.expect_shape("the quantized tensor", tensor.shape())?;
        let lost = |(i, x): (usize, &f32)| (*x != 0.0 && !mask.is_kept(i)).then_some((i, *x));
        if let Some((index, value)) = tensor.dequantize().iter().enumerate().find_map(lost) {
            return Err(Error::Conflict {
                what: format!("element {index} is removed by the mask, but {value} in the quantized tensor"),
                remedy: "quantize the pruned tensor, or take its own mask",
            });
        }
        let all = tensor.codes().to_vec();
        let codes = of_width(tensor.bits(), mask.positions().map(|i| all[i]).collect())?;
        let values = SparseValues::Codes { codes, grid: tensor.grid().clone() };
        SparseTensor::new(mask.clone(), SparseLayout::smallest(mask), values)
    }

    /// The shape of the whole tensor.
    pub fn shape(&self) -> &[usize] {
        self.mask.shape()
    }

    /// Which elements are left.
    pub fn mask(&self) -> &Mask {
        &self.mask
    }

    /// How it is stored where they are.
    pub fn layout(&self) -> SparseLayout {
        self.layout
    }

    /// The survivors' values, in row-major order.
    pub fn values(&self) -> &SparseValues {
        &self.values
    }

    /// The share removed.
    pub fn sparsity(&self) -> f64 {
        self.mask.sparsity()
    }

    /// Bytes at rest, as saved: places, values, and scales, zero points and codebooks if there are any.
    pub fn nbytes(&self) -> usize {
        let values = match &self.values {
            SparseValues::Floats(values) => 4 * values.len(),
            SparseValues::Codes { codes, grid } => codes.as_bytes().len() + grid.nbytes(codes.bits()),
        };
        self.layout.nbytes(&self.mask) + values
    }

    /// Bits at rest per element of the whole tensor.
    pub fn bits_per_weight(&self) -> f64 {
        self.nbytes() as f64 * 8.0 / self.mask.len().max(1) as f64
    }

    /// The whole tensor, zeros included.
    pub fn to_dense(&self) -> ArrayD<f32> {
        match &self.values {
            SparseValues::Floats(values) => {
                let mut dense = vec![0.0; self.mask.len()];
                self.mask.positions().zip(values).for_each(|(i, x)| dense[i] = *x);
                ArrayD::from_shape_vec(IxDyn(self.shape()), dense).expect("as many elements as the mask")
            }
            SparseValues::Codes { .. } => self.to_quantized().expect("made of codes, checked").dequantize(),
        }
    }

    /// The values and the mask.
    pub fn to_pruned(&self) -> PrunedTensor {
        PrunedTensor::new(self.to_dense(), self.mask.clone()).expect("the mask's own shape, and finite")
    }

    /// The whole tensor, quantized; `None` if the values are floats.
    pub fn to_quantized(&self) -> Option<QuantizedTensor> {
        let SparseValues::Codes { .. } = self.values else { return None };
        self.dense_codes().ok()
    }

    /// The quantized tensor with the code of zero wherever something is removed; an error for floats, or where a grid has
    /// none.
    fn dense_codes(&self) -> Result<QuantizedTensor> {
        let conflict = |what: String| Error::Conflict { what, remedy: "store the tensor dense" };
        let SparseValues::Codes { codes, grid } = &self.values else {
            return Err(conflict("a sparse tensor of floats has no codes".into()));
        };
        let groups = grid.granularity().groups(self.shape())?;
        let mut zeros: Vec<Option<Option<u16>>> = vec![None; groups.count()];
        let (survivors, mut next) = (codes.to_vec(), 0);
        let mut dense = vec![0; self.mask.len()];
        for (group, piece) in groups.segments(0..self.mask.len()) {
            for index in piece {
                dense[index] = if self.mask.is_kept(index) {
                    next += 1;
                    survivors[next - 1]
                } else {
                    let zero = *zeros[group].get_or_insert_with(|| grid.code_of_zero(group, codes.bits()));
                    zero.ok_or_else(|| conflict(format!("the grid of group {group} has no zero for what is removed")))?
                };
            }
        }
        QuantizedTensor::new(self.shape(), of_width(codes.bits(), dense)?, grid.clone())
    }
}

/// Packs codes of either kind.
fn of_width(bits: u8, codes: Vec<u16>) -> Result<Codes> {
    match bits {
        16 => Ok(Codes::pack16(&codes)),
        bits => Codes::pack(bits, &codes.into_iter().map(|code| code as u8).collect::<Vec<_>>()),
    }
}

impl fmt::Display for SparseTensor {
    /// In words: `csr, 10.0 % kept`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {:.1} % kept", self.layout, 100.0 * (1.0 - self.sparsity()))?;
        match &self.values {
            SparseValues::Floats(_) => Ok(()),
            SparseValues::Codes { grid, .. } => write!(f, ", {grid}"),
        }
    }
}

impl PrunedTensor {
    /// Its survivors, in the layout that takes the fewest bytes.
    ///
    /// # Errors
    /// None: a layout is always found.
    pub fn to_sparse(&self) -> Result<SparseTensor> {
        self.to_sparse_as(SparseLayout::smallest(self.mask()))
    }

    /// Its survivors, in this layout.
    ///
    /// # Errors
    /// [`Error::Conflict`] for a layout that does not fit the mask; [`Error::Setting`] for one that is none.
    pub fn to_sparse_as(&self, layout: SparseLayout) -> Result<SparseTensor> {
        let values = self.values();
        let values = values.as_slice().unwrap_or_default();
        let kept = self.mask().positions().map(|i| values[i]).collect();
        SparseTensor::new(self.mask().clone(), layout, SparseValues::Floats(kept))
    }
}
