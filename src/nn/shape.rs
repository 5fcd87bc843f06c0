//! Sizes: pairs of them, what an array may hold, and the checks that the layers share.

use crate::{Error, Result, kernels::im2col::Windows};

/// A size along (height, width): made from one number, for both, or from a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Size2d(
    /// Height, then width.
    pub [usize; 2],
);

impl From<usize> for Size2d {
    fn from(both: usize) -> Size2d {
        Size2d([both, both])
    }
}

impl From<(usize, usize)> for Size2d {
    fn from((height, width): (usize, usize)) -> Size2d {
        Size2d([height, width])
    }
}

impl From<[usize; 2]> for Size2d {
    fn from(pair: [usize; 2]) -> Size2d {
        Size2d(pair)
    }
}

/// Elements of one array at most: 8 GiB of f32. A typing error in a size is an error, not an aborted program.
const MOST: usize = 1 << 31;

/// The number of elements of a shape, at least 1.
pub(super) fn elements(what: &'static str, shape: &[usize]) -> Result<usize> {
    if shape.contains(&0) {
        return Err(Error::Empty { what });
    }
    let count = shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    count.filter(|count| *count <= MOST).ok_or_else(|| Error::Setting {
        setting: what,
        value: shape.iter().map(|size| *size as f64).product(),
        bound: "at most 2^31 elements",
    })
}

pub(super) fn at_least_one(setting: &'static str, value: usize) -> Result<()> {
    if value == 0 { Err(Error::Setting { setting, value: 0.0, bound: "at least 1" }) } else { Ok(()) }
}

pub(crate) fn expect_shape(what: &'static str, expected: &[usize], found: &[usize]) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::Shape { what, expected: expected.to_vec(), found: found.to_vec() })
}

/// (batch, channels, height, width), all of them at least 1.
pub(super) fn expect_images(what: &'static str, found: &[usize]) -> Result<[usize; 4]> {
    let shape = found.try_into().map_err(|_| Error::Rank { what, expected: "4", found: found.to_vec() })?;
    elements(what, found).map(|_| shape)
}

/// How many windows fit, or which size is too small.
pub(super) fn expect_windows(what: &'static str, windows: &Windows) -> Result<[usize; 2]> {
    windows.output().ok_or_else(|| Error::Shape {
        what,
        expected: windows.span().unwrap_or([usize::MAX; 2]).to_vec(),
        found: windows.padded().unwrap_or([usize::MAX; 2]).to_vec(),
    })
}
