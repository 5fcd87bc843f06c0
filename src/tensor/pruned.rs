//! A pruned tensor at rest: values and mask.

use ndarray::{ArrayD, ArrayViewD, CowArray, IxDyn};

use super::{Mask, Weights, weights::finite};
use crate::error::Result;

/// What a [`Pruner`](crate::Pruner) leaves of a tensor: its values, zero where removed, and the mask that says where.
///
/// It holds values and not the mask alone since some pruners move the survivors. A survivor may be zero.
#[derive(Clone, Debug, PartialEq)]
pub struct PrunedTensor {
    values: ArrayD<f32>,
    mask: Mask,
}

impl PrunedTensor {
    /// Joins values and a mask; what the mask removes is set to zero.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the two differ in shape, [`Error::NotFinite`](crate::Error::NotFinite) for NaN or infinities among the survivors.
    ///
    /// ```
    /// use tersor::tensor::{Mask, PrunedTensor};
    ///
    /// let weights = ndarray::array![[3.0_f32, -1.0], [0.5, 2.0]];
    /// let pruned = PrunedTensor::new(weights.into_dyn(), Mask::from_fn(&[2, 2], |i| i != 1)?)?;
    /// assert_eq!(pruned.values(), ndarray::array![[3.0, 0.0], [0.5, 2.0]].into_dyn());
    /// assert_eq!(pruned.sparsity(), 0.25);
    /// # Ok::<(), tersor::Error>(())
    /// ```
    pub fn new(values: ArrayD<f32>, mask: Mask) -> Result<PrunedTensor> {
        mask.expect_shape("the values", values.shape())?;
        let mut values = if values.is_standard_layout() { values } else { values.as_standard_layout().into_owned() };
        mask.apply(&mut values)?;
        finite("the pruned values", values.as_slice().unwrap_or_default())?;
        Ok(PrunedTensor { values, mask })
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        self.values.shape()
    }

    /// The numbers, row-major; zero where removed.
    pub fn values(&self) -> ArrayViewD<'_, f32> {
        self.values.view()
    }

    /// Which elements are kept.
    pub fn mask(&self) -> &Mask {
        &self.mask
    }

    /// The share removed, 0 to 1.
    pub fn sparsity(&self) -> f64 {
        self.mask.sparsity()
    }

    /// The values and the mask.
    pub fn into_parts(self) -> (ArrayD<f32>, Mask) {
        (self.values, self.mask)
    }
}

/// Pruned again, or quantized, it is what it is: what was removed stays removed.
impl Weights for PrunedTensor {
    fn values(&self) -> CowArray<'_, f32, IxDyn> {
        self.values.view().into()
    }

    fn mask(&self) -> Option<&Mask> {
        Some(&self.mask)
    }
}
