//! What can be packed.

use std::sync::Arc;

use crate::tensor::{Mask, PrunedTensor, QuantizedTensor, SparseTensor, SparseValues};

/// A tensor at rest that [`PackedWeights`](super::PackedWeights) takes; a reference to any of them becomes one.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum AtRest<'a> {
    /// Codes and their grid.
    Quantized(&'a QuantizedTensor),
    /// Values and a mask.
    Pruned(&'a PrunedTensor),
    /// What is left of one.
    Sparse(&'a SparseTensor),
}

impl<'a> From<&'a QuantizedTensor> for AtRest<'a> {
    fn from(tensor: &'a QuantizedTensor) -> AtRest<'a> {
        AtRest::Quantized(tensor)
    }
}

impl<'a> From<&'a PrunedTensor> for AtRest<'a> {
    fn from(tensor: &'a PrunedTensor) -> AtRest<'a> {
        AtRest::Pruned(tensor)
    }
}

impl<'a> From<&'a SparseTensor> for AtRest<'a> {
    fn from(tensor: &'a SparseTensor) -> AtRest<'a> {
        AtRest::Sparse(tensor)
    }
}

/// A whole weight, of which groups of outputs are packed.
pub(super) enum Whole {
    Quantized(Arc<QuantizedTensor>),
    Floats(Floats),
}

/// A pruned weight in floats.
pub(super) struct Floats {
    shape: Vec<usize>,
    pub(super) values: Vec<f32>,
    pub(super) mask: Mask,
}

impl Whole {
    pub(super) fn of(tensor: AtRest<'_>) -> Whole {
        match tensor {
            AtRest::Quantized(tensor) => Whole::Quantized(Arc::new(tensor.clone())),
            AtRest::Pruned(tensor) => Whole::floats(tensor),
            AtRest::Sparse(tensor) => match (tensor.values(), tensor.to_quantized()) {
                (SparseValues::Codes { .. }, Some(quantized)) => Whole::Quantized(Arc::new(quantized)),
                _ => Whole::floats(&tensor.to_pruned()),
            },
        }
    }

    fn floats(tensor: &PrunedTensor) -> Whole {
        let (shape, values) = (tensor.shape().to_vec(), tensor.values().iter().copied().collect());
        Whole::Floats(Floats { shape, values, mask: tensor.mask().clone() })
    }

    pub(super) fn shape(&self) -> &[usize] {
        match self {
            Whole::Quantized(tensor) => tensor.shape(),
            Whole::Floats(floats) => &floats.shape,
        }
    }
}
