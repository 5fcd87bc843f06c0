//! What a scheme may ask of the weights it is given.

use std::borrow::Cow;

use half::{bf16, f16};
use ndarray::{ArrayBase, ArrayD, ArrayViewD, CowArray, Data, Dimension, IxDyn};

use super::{Codes, Grid, Groups, Mask, QuantizedTensor, Statistic};
use crate::{
    error::{Error, Result},
    kernels::{ends::Ends, numbers::Numbers},
};

/// A floating-point type that weights come in: `f32` (borrowed), `f64`, `f16` or `bf16` (converted once).
pub trait Element: Copy + Send + Sync + 'static + seal::Sealed {
    /// The array as `f32`, borrowed where that costs nothing.
    fn as_f32(array: ArrayViewD<'_, Self>) -> CowArray<'_, f32, IxDyn>;

    /// The array as `f64`, exactly; borrowed where that costs nothing.
    fn as_f64(array: ArrayViewD<'_, Self>) -> CowArray<'_, f64, IxDyn>;

    /// The array as it is, if this is a type of 16 bits.
    fn as_halves(array: ArrayViewD<'_, Self>) -> Option<Halves<'_>> {
        let _ = array;
        None
    }
}

mod seal {
    #[allow(unreachable_pub)] // the usual sealing: public by type, out of reach by path
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
    impl Sealed for half::f16 {}
    impl Sealed for half::bf16 {}
}

impl Element for f32 {
    fn as_f32(array: ArrayViewD<'_, f32>) -> CowArray<'_, f32, IxDyn> {
        array.into()
    }

    fn as_f64(array: ArrayViewD<'_, f32>) -> CowArray<'_, f64, IxDyn> {
        array.mapv(f64::from).into()
    }
}

impl Element for f64 {
    fn as_f32(array: ArrayViewD<'_, f64>) -> CowArray<'_, f32, IxDyn> {
        array.mapv(|x| x as f32).into()
    }

    fn as_f64(array: ArrayViewD<'_, f64>) -> CowArray<'_, f64, IxDyn> {
        array.into()
    }
}

impl Element for f16 {
    fn as_f32(array: ArrayViewD<'_, f16>) -> CowArray<'_, f32, IxDyn> {
        array.mapv(f16::to_f32).into()
    }

    fn as_f64(array: ArrayViewD<'_, f16>) -> CowArray<'_, f64, IxDyn> {
        array.mapv(f16::to_f64).into()
    }

    fn as_halves(array: ArrayViewD<'_, f16>) -> Option<Halves<'_>> {
        Some(Halves::F16(array))
    }
}

impl Element for bf16 {
    fn as_f32(array: ArrayViewD<'_, bf16>) -> CowArray<'_, f32, IxDyn> {
        array.mapv(bf16::to_f32).into()
    }

    fn as_f64(array: ArrayViewD<'_, bf16>) -> CowArray<'_, f64, IxDyn> {
        array.mapv(bf16::to_f64).into()
    }

    fn as_halves(array: ArrayViewD<'_, bf16>) -> Option<Halves<'_>> {
        Some(Halves::Bf16(array))
    }
}

/// Numbers of 16 bits as they are stored.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Halves<'a> {
    /// IEEE 754 binary16.
    F16(ArrayViewD<'a, f16>),
    /// bfloat16: the upper half of an `f32`.
    Bf16(ArrayViewD<'a, bf16>),
}

impl Halves<'_> {
    /// The shape, and the numbers if they are in row-major order.
    pub(crate) fn row_major(&self) -> Option<(&[usize], Numbers<'_>)> {
        match self {
            Halves::F16(array) => Some((array.shape(), Numbers::F16(array.as_slice()?))),
            Halves::Bf16(array) => Some((array.shape(), Numbers::Bf16(array.as_slice()?))),
        }
    }
}

/// The argument of [`Quantizer::apply`](crate::Quantizer::apply): any array or view of an [`Element`], of any rank and
/// layout, or one with more to tell ([`Weighted`]).
///
/// The last axis is the one that a product sums over: (out, in) for a linear layer, (out, in/groups, kh, kw) for a
/// convolution.
pub trait Weights {
    /// The numbers, as `f32`.
    fn values(&self) -> CowArray<'_, f32, IxDyn>;

    /// The numbers of [`values`](Weights::values) as they are stored, if that is in 16 bits: schemes that can read them
    /// piece by piece then need no `f32` copy of the whole.
    fn halves(&self) -> Option<Halves<'_>> {
        None
    }

    /// How much an error in each number matters, in the same shape (a squared gradient, say); `None`: all alike.
    fn importance(&self) -> Option<ArrayViewD<'_, f32>> {
        None
    }

    /// What was removed before, in the same shape; `None`: nothing. Pruners remove more; quantizers keep it at zero.
    fn mask(&self) -> Option<&Mask> {
        None
    }

    /// What data told about each number, in the same shape, if it was gathered: see [`Observed`](super::Observed).
    fn statistic(&self, which: Statistic) -> Option<ArrayViewD<'_, f32>> {
        let _ = which;
        None
    }
}

impl<A: Element, S: Data<Elem = A>, D: Dimension> Weights for ArrayBase<S, D> {
    fn values(&self) -> CowArray<'_, f32, IxDyn> {
        A::as_f32(self.view().into_dyn())
    }

    fn halves(&self) -> Option<Halves<'_>> {
        A::as_halves(self.view().into_dyn())
    }
}

/// Weights with the importance of each: schemes that place levels by squared error weigh the error by it.
///
/// Sensitivity-weighted k-means (SqueezeLLM, Kim et al. 2023) takes the squared gradient.
///
/// ```
/// use ndarray::array;
/// use tersor::{Quantizer, tensor::Weighted};
///
/// let weights = array![[0.0_f32, 0.1, 1.0, 1.2]];
/// let importance = array![[1.0_f32, 1.0, 1.0, 1e6]].into_dyn();
/// let q = Quantizer::kmeans(1).apply(&Weighted { weights: &weights, importance: &importance })?;
/// assert!((q.dequantize()[[0, 3]] - 1.2).abs() < 1e-5);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Weighted<'a, W: ?Sized> {
    /// The numbers.
    pub weights: &'a W,
    /// Their importance: the same shape, finite, none negative, not all zero.
    pub importance: &'a ArrayD<f32>,
}

impl<W: Weights + ?Sized> Weights for Weighted<'_, W> {
    fn values(&self) -> CowArray<'_, f32, IxDyn> {
        self.weights.values()
    }

    fn halves(&self) -> Option<Halves<'_>> {
        self.weights.halves()
    }

    fn importance(&self) -> Option<ArrayViewD<'_, f32>> {
        Some(self.importance.view())
    }

    fn mask(&self) -> Option<&Mask> {
        self.weights.mask()
    }

    fn statistic(&self, which: Statistic) -> Option<ArrayViewD<'_, f32>> {
        self.weights.statistic(which)
    }
}

/// Weights checked and laid out for a scheme: row-major, not empty, every number finite, zero where a mask removes.
pub(crate) struct Dense<'a> {
    what: &'static str,
    values: CowArray<'a, f32, IxDyn>,
    mask: Option<Mask>,
    importance: Option<CowArray<'a, f32, IxDyn>>,
}

impl<'a> Dense<'a> {
    pub(crate) fn new(weights: &'a dyn Weights) -> Result<Dense<'a>> {
        Dense::named("the weights", weights)
    }

    /// As [`new`](Dense::new), for numbers that an error should call otherwise.
    pub(crate) fn named(what: &'static str, weights: &'a dyn Weights) -> Result<Dense<'a>> {
        let dense = Dense::unchecked(what, weights)?;
        dense.check_finite().map(|()| dense)
    }

    /// The error that names the first number that is not finite, if there is one.
    pub(crate) fn check_finite(&self) -> Result<()> {
        finite(self.what, self.values())
    }

    /// As [`named`](Dense::named), for a pass that finds on its way whether every number is finite.
    pub(crate) fn unchecked(what: &'static str, weights: &'a dyn Weights) -> Result<Dense<'a>> {
        let mut values = row_major(weights.values());
        if values.is_empty() {
            return Err(Error::Empty { what });
        }
        let mask = weights.mask().cloned();
        if let Some(mask) = &mask {
            if mask.shape() != values.shape() {
                let (expected, found) = (values.shape().to_vec(), mask.shape().to_vec());
                return Err(Error::Shape { what: "the mask", expected, found });
            }
            // Copied only where there is something to remove: pruned tensors hold zeros.
            if !mask.holds_zeros(slice(&values)) {
                mask.apply(&mut values)?;
            }
        }
        let importance = match weights.importance() {
            None => None,
            Some(importance) => {
                let importance = row_major(importance.into());
                if importance.shape() != values.shape() {
                    let (expected, found) = (values.shape().to_vec(), importance.shape().to_vec());
                    return Err(Error::Shape { what: "the importance", expected, found });
                }
                finite("the importance", slice(&importance))?;
                if let Some(negative) = importance.iter().find(|x| **x < 0.0) {
                    let value = f64::from(*negative);
                    return Err(Error::Setting { setting: "importance", value, bound: "0 or above" });
                }
                if importance.iter().all(|x| *x == 0.0) {
                    let bound = "above 0 somewhere; leave it out if all weights matter alike";
                    return Err(Error::Setting { setting: "importance", value: 0.0, bound });
                }
                Some(importance)
            }
        };
        Ok(Dense { what, values, mask, importance })
    }

    pub(crate) fn shape(&self) -> &[usize] {
        self.values.shape()
    }

    /// All numbers, in row-major order.
    pub(crate) fn values(&self) -> &[f32] {
        slice(&self.values)
    }

    /// What was removed before.
    pub(crate) fn mask(&self) -> Option<&Mask> {
        self.mask.as_ref()
    }

    /// Their importance, in the same order.
    pub(crate) fn importance(&self) -> Option<&[f32]> {
        self.importance.as_ref().map(slice)
    }

    /// What a grid is fitted to in one group.
    pub(crate) fn survivors(&self, groups: &Groups, group: usize) -> Survivors<'_> {
        let removed = |mask: &Mask| groups.runs(group).flatten().filter(|index| !mask.is_kept(*index)).count();
        let removed = self.mask().map_or(0, removed);
        let mask = self.mask().filter(|_| removed > 0);
        let gather = |numbers| match mask {
            None => groups.gather(numbers, group),
            Some(mask) => {
                let kept = groups.runs(group).flatten().filter(|index| mask.is_kept(*index));
                let kept: Vec<f32> = kept.map(|index| numbers[index]).collect();
                if kept.is_empty() { vec![0.0].into() } else { kept.into() }
            }
        };
        let (values, importance) = (gather(self.values()), self.importance().map(gather));
        Survivors { values, importance, removed }
    }

    /// What a scheme made of these weights; refused unless all that was removed is still zero.
    pub(crate) fn quantized(&self, codes: Codes, grid: Grid) -> Result<QuantizedTensor> {
        let tensor = QuantizedTensor::new(self.shape(), codes, grid)?;
        let Some(mask) = &self.mask else { return Ok(tensor) };
        let levels = tensor.dequantize();
        match removed(mask, levels.as_slice().unwrap_or_default()).find(|(_, level)| *level != 0.0) {
            None => Ok(tensor),
            Some((index, level)) => Err(Error::Conflict {
                what: format!(
                    "element {index} was removed, but the grid has no level at zero there: it would come back as {level}"
                ),
                remedy: "take a scheme with a level at zero, such as uniform, k-means, nf4 or ternary",
            }),
        }
    }
}

/// The numbers of a group of [`Dense`] that no mask removes (one zero if it removes all), and their importance.
pub(crate) struct Survivors<'a> {
    pub(crate) values: Cow<'a, [f32]>,
    pub(crate) importance: Option<Cow<'a, [f32]>>,
    /// How many a mask removes; if any, 0 must be a level.
    pub(crate) removed: usize,
}

/// What a mask removes, with the positions.
fn removed<'a>(mask: &'a Mask, values: &'a [f32]) -> impl Iterator<Item = (usize, f32)> + 'a {
    values.iter().copied().enumerate().filter(|(index, _)| !mask.is_kept(*index))
}

/// Checks that every number is finite; `what` names the array in the error.
pub(crate) fn finite(what: &'static str, values: &[f32]) -> Result<()> {
    if Ends::of(values).are_finite() {
        return Ok(());
    }
    match values.iter().position(|x| !x.is_finite()) {
        Some(index) => Err(Error::NotFinite { what, index, value: f64::from(values[index]) }),
        None => Ok(()),
    }
}

fn row_major(array: CowArray<'_, f32, IxDyn>) -> CowArray<'_, f32, IxDyn> {
    if array.is_standard_layout() { array } else { array.as_standard_layout().into_owned().into() }
}

fn slice<'a>(row_major: &'a CowArray<'_, f32, IxDyn>) -> &'a [f32] {
    row_major.as_slice().unwrap_or_default()
}
