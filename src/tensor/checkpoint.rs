//! Named tensors at rest: what a file of weights holds.

use std::collections::BTreeMap;

use ndarray::ArrayD;

use super::{PrunedTensor, QuantizedTensor, SparseTensor};
use crate::error::{Error, Result};

/// The type in which float numbers are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FloatType {
    /// 32 bits.
    #[default]
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    BF16,
}

impl FloatType {
    /// Bytes a number.
    pub fn width(self) -> usize {
        match self {
            FloatType::F32 => 4,
            FloatType::F16 | FloatType::BF16 => 2,
        }
    }
}

/// One tensor of a [`Checkpoint`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Stored {
    /// Float numbers, and the type in which they are stored.
    Float(ArrayD<f32>, FloatType),
    /// Codes and their grid.
    Quantized(QuantizedTensor),
    /// What is left of a pruned tensor, in floats or codes.
    Sparse(SparseTensor),
    /// Anything else that a file held (integers, say), passed on untouched.
    Raw {
        /// The type's name in the safetensors format (`I64`, `BOOL`).
        dtype: String,
        /// The shape.
        shape: Vec<usize>,
        /// The contents, little-endian.
        bytes: Vec<u8>,
    },
}

impl Stored {
    /// The shape of the tensor.
    pub fn shape(&self) -> &[usize] {
        match self {
            Stored::Float(values, _) => values.shape(),
            Stored::Quantized(q) => q.shape(),
            Stored::Sparse(sparse) => sparse.shape(),
            Stored::Raw { shape, .. } => shape,
        }
    }

    /// Bytes at rest.
    pub fn nbytes(&self) -> usize {
        match self {
            Stored::Float(values, float) => values.len() * float.width(),
            Stored::Quantized(q) => q.nbytes(),
            Stored::Sparse(sparse) => sparse.nbytes(),
            Stored::Raw { bytes, .. } => bytes.len(),
        }
    }

    /// What stands in its place once it is quantized: of a sparse tensor what is left, so that it keeps its mask; the codes
    /// alone do not tell what was removed from what became zero. A mask that removes nothing is none.
    pub(crate) fn to_quantized(&self, tensor: QuantizedTensor) -> Result<Stored> {
        match self {
            Stored::Sparse(sparse) if sparse.sparsity() > 0.0 => {
                Ok(SparseTensor::from_quantized(&tensor, sparse.mask())?.into())
            }
            _ => Ok(tensor.into()),
        }
    }

    /// What stands in its place once it is pruned: what is left, if it was sparse before or takes fewer bytes so.
    pub(crate) fn to_pruned(&self, tensor: PrunedTensor) -> Result<Stored> {
        let sparse = tensor.to_sparse()?;
        Ok(match self {
            Stored::Float(_, float) if sparse.nbytes() >= self.nbytes() => Stored::Float(tensor.into_parts().0, *float),
            _ => sparse.into(),
        })
    }

    /// The numbers it stands for; `None` where it holds no floats.
    pub fn to_floats(&self) -> Option<ArrayD<f32>> {
        match self {
            Stored::Float(values, _) => Some(values.clone()),
            Stored::Quantized(q) => Some(q.dequantize()),
            Stored::Sparse(sparse) => Some(sparse.to_dense()),
            Stored::Raw { .. } => None,
        }
    }
}

impl<D: ndarray::Dimension> From<ndarray::Array<f32, D>> for Stored {
    fn from(values: ndarray::Array<f32, D>) -> Self {
        Stored::Float(values.into_dyn(), FloatType::F32)
    }
}

impl From<QuantizedTensor> for Stored {
    fn from(q: QuantizedTensor) -> Self {
        Stored::Quantized(q)
    }
}

impl From<SparseTensor> for Stored {
    fn from(sparse: SparseTensor) -> Self {
        Stored::Sparse(sparse)
    }
}

/// Named tensors, in the order of their names.
///
/// ```
/// use tersor::{Quantizer, tensor::Checkpoint};
///
/// let mut checkpoint = Checkpoint::new();
/// checkpoint.insert("fc.weight", ndarray::Array2::<f32>::eye(8));
/// let q = Quantizer::uniform(4).apply(&checkpoint.floats("fc.weight")?)?;
/// checkpoint.insert("fc.weight", q);
/// assert_eq!(checkpoint.nbytes(), 8 * 8 / 2 + 4);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checkpoint {
    tensors: BTreeMap<String, Stored>,
}

impl Checkpoint {
    /// One without tensors.
    pub fn new() -> Self {
        Checkpoint::default()
    }

    /// Adds a tensor, or replaces the one of that name and returns it.
    pub fn insert(&mut self, name: impl Into<String>, tensor: impl Into<Stored>) -> Option<Stored> {
        self.tensors.insert(name.into(), tensor.into())
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// [`Error::UnknownName`], with the names that exist.
    pub fn tensor(&self, name: &str) -> Result<&Stored> {
        self.tensors
            .get(name)
            .ok_or_else(|| Error::UnknownName { name: name.to_owned(), known: self.tensors.keys().cloned().collect() })
    }

    /// The numbers of the tensor of that name.
    ///
    /// # Errors
    /// As [`tensor`](Checkpoint::tensor), and [`Error::Conflict`] if it does not hold floats.
    pub fn floats(&self, name: &str) -> Result<ArrayD<f32>> {
        let tensor = self.tensor(name)?;
        tensor.to_floats().ok_or_else(|| Error::Conflict {
            what: format!("tensor `{name}` does not hold floats"),
            remedy: "leave it as it is",
        })
    }

    /// Names and tensors, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Stored)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Bytes at rest of all tensors.
    pub fn nbytes(&self) -> usize {
        self.tensors.values().map(Stored::nbytes).sum()
    }

    /// Bytes that the same tensors take as f32; what holds no floats counts as it is.
    pub fn nbytes_f32(&self) -> usize {
        let bytes = |tensor: &Stored| match tensor {
            Stored::Raw { bytes, .. } => bytes.len(),
            floats => 4 * floats.shape().iter().product::<usize>(),
        };
        self.tensors.values().map(bytes).sum()
    }
}
