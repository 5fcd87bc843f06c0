//! The check that numbers are finite.

use ndarray::{ArrayBase, Data, Dimension};
use num_traits::Float;

use crate::error::{Error, Result};

/// Every value is finite; `what` names the array in the error.
pub(crate) fn expect_finite<A, S, D>(what: &'static str, array: &ArrayBase<S, D>) -> Result<()>
where
    A: Float + Into<f64>,
    S: Data<Elem = A>,
    D: Dimension,
{
    // A block at a time without a branch, which vectorizes; the search runs only when there is something to be found, or
    // no one slice.
    let sound = match array.as_slice_memory_order() {
        Some(values) => values.chunks(1024).all(|block| block.iter().fold(true, |sound, v| sound & v.is_finite())),
        None => false,
    };
    if sound {
        return Ok(());
    }
    match array.iter().enumerate().find(|(_, value)| !value.is_finite()) {
        Some((index, value)) => Err(Error::NotFinite { what, index, value: (*value).into() }),
        None => Ok(()),
    }
}
