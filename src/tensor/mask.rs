//! Which elements of a tensor are kept: one bit each.

use std::{fmt, ops::Range, sync::Arc};

use ndarray::{ArrayBase, ArrayD, Data, DataMut, Dimension, IxDyn};

use super::granularity::{elements, is_countable};
use crate::{
    error::{Error, Result},
    kernels::bits,
};

/// Which elements of a tensor are kept (true) and which are removed (false), as a bitset in row-major order.
///
/// Cloning is cheap: the bits are shared.
///
/// ```
/// use ndarray::array;
/// use tersor::tensor::Mask;
///
/// let weights = array![[0.5_f32, 0.0, -2.0], [0.0, 0.0, 1.0]];
/// let mask = Mask::of_nonzeros(&weights);
/// assert_eq!((mask.kept(), mask.len(), mask.sparsity(), mask.nbytes()), (3, 6, 0.5, 1));
/// let mut other = array![[1.0_f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
/// mask.apply(&mut other)?;
/// assert_eq!(other, array![[1.0, 0.0, 3.0], [0.0, 0.0, 6.0]]);
/// assert_eq!(mask.and(&Mask::from_fn(&[2, 3], |index| index < 3)?)?.kept(), 2);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Mask {
    shape: Arc<[usize]>,
    /// Bit `i % 64` of word `i / 64` is element `i`; bits beyond the last element are 0.
    words: Arc<[u64]>,
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mask({:?}, {} of {} kept)", self.shape, self.kept(), self.len())
    }
}

impl Mask {
    /// A mask of this shape that keeps element `i` (row-major) where `keep(i)`.
    ///
    /// # Errors
    /// [`Error::Shape`] for a shape of more elements than can be counted.
    pub fn from_fn(shape: &[usize], keep: impl FnMut(usize) -> bool) -> Result<Mask> {
        if !is_countable(shape) {
            return Err(Error::Shape { what: "the mask", expected: vec![isize::MAX as usize], found: shape.to_vec() });
        }
        Ok(Mask::build(shape, keep))
    }

    /// A mask that keeps every element of an array of this shape.
    ///
    /// # Errors
    /// As [`from_fn`](Mask::from_fn).
    pub fn ones(shape: &[usize]) -> Result<Mask> {
        Mask::from_fn(shape, |_| true)
    }

    /// A mask that keeps what is not zero.
    pub fn of_nonzeros<S: Data<Elem = f32>, D: Dimension>(values: &ArrayBase<S, D>) -> Mask {
        match values.as_slice() {
            Some(slice) => Mask::from_words(values.shape(), bits::of(slice, |x| x != 0.0)),
            None => {
                let mut each = values.iter();
                Mask::build(values.shape(), |_| each.next().is_some_and(|x| *x != 0.0))
            }
        }
    }

    /// Of a shape that an array has, so that it is countable.
    pub(crate) fn build(shape: &[usize], mut keep: impl FnMut(usize) -> bool) -> Mask {
        let len = elements(shape);
        let mut word = |word: usize| {
            let elements = 64 * word..(64 * word + 64).min(len);
            elements.fold(0u64, |bits, index| bits | u64::from(keep(index)) << (index % 64))
        };
        let words = (0..len.div_ceil(64)).map(&mut word).collect();
        Mask { shape: shape.into(), words }
    }

    /// The shape of the tensor.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Elements, kept or not.
    pub fn len(&self) -> usize {
        elements(&self.shape)
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements kept.
    pub fn kept(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The share removed, 0 to 1; 0 for a tensor without elements.
    pub fn sparsity(&self) -> f64 {
        if self.is_empty() { 0.0 } else { 1.0 - self.kept() as f64 / self.len() as f64 }
    }

    /// Bytes at rest: a bit an element.
    pub fn nbytes(&self) -> usize {
        self.len().div_ceil(8)
    }

    /// Whether element `index`, counted row-major, is kept; false beyond the last.
    pub fn is_kept(&self, index: usize) -> bool {
        self.words.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 != 0)
    }

    /// Whether each element is kept, in row-major order.
    pub fn iter(&self) -> impl Iterator<Item = bool> + '_ {
        (0..self.len()).map(|index| self.is_kept(index))
    }

    /// The positions (row-major) of the elements kept, ascending.
    pub fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(index, &word)| {
            let clear_lowest = |bits: &u64| Some(bits & (bits - 1)).filter(|bits| *bits != 0);
            std::iter::successors(Some(word).filter(|bits| *bits != 0), clear_lowest)
                .map(move |bits| 64 * index + bits.trailing_zeros() as usize)
        })
    }

    /// Elements kept in a range of them.
    pub(crate) fn kept_in(&self, range: Range<usize>) -> usize {
        let (first, last) = (range.start / 64, range.end / 64);
        // Bits from the start on, and those before the end.
        let (from, before) = (u64::MAX << (range.start % 64), !(u64::MAX << (range.end % 64)));
        let word = |index: usize| self.words.get(index).copied().unwrap_or(0);
        let ones = |bits: u64| bits.count_ones() as usize;
        if first == last {
            return ones(word(first) & from & before);
        }
        let between = self.words[first + 1..last].iter().map(|word| ones(*word)).sum::<usize>();
        ones(word(first) & from) + between + ones(word(last) & before)
    }

    /// Of as many words as a countable shape needs, bits beyond the last element 0.
    pub(crate) fn from_words(shape: &[usize], words: Vec<u64>) -> Mask {
        debug_assert_eq!(words.len(), elements(shape).div_ceil(64));
        Mask { shape: shape.into(), words: words.into() }
    }

    /// The bits, the first element's lowest, in as few bytes as hold them.
    #[cfg(feature = "io")]
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(self.nbytes());
        bytes
    }

    /// The bits, the first element's lowest; those beyond the last are 0.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// The mask as an array of its shape.
    pub fn to_array(&self) -> ArrayD<bool> {
        ArrayD::from_shape_vec(IxDyn(&self.shape), self.iter().collect()).expect("as many elements as the shape says")
    }

    /// Sets the removed elements of an array to zero.
    ///
    /// # Errors
    /// [`Error::Shape`] for an array of another shape.
    pub fn apply<S: DataMut<Elem = f32>, D: Dimension>(&self, values: &mut ArrayBase<S, D>) -> Result<()> {
        self.expect_shape("the array to be masked", values.shape())?;
        match values.as_slice_mut() {
            Some(values) => self.apply_to_slice(values),
            None => values.iter_mut().zip(self.iter()).for_each(|(x, kept)| *x = if kept { *x } else { 0.0 }),
        }
        Ok(())
    }

    /// As [`apply`](Mask::apply), of row-major elements as many as the mask has.
    pub(crate) fn apply_to_slice(&self, values: &mut [f32]) {
        bits::apply(&self.words, values);
    }

    /// Whether all that it removes is zero in row-major elements, as many as the mask has.
    pub(crate) fn holds_zeros(&self, values: &[f32]) -> bool {
        bits::of(values, |x| x != 0.0).iter().zip(&*self.words).all(|(nonzero, kept)| nonzero & !kept == 0)
    }

    /// What both keep.
    ///
    /// # Errors
    /// [`Error::Shape`] for a mask of another shape.
    pub fn and(&self, other: &Mask) -> Result<Mask> {
        self.combine(other, |a, b| a & b)
    }

    /// What either keeps.
    ///
    /// # Errors
    /// [`Error::Shape`] for a mask of another shape.
    pub fn or(&self, other: &Mask) -> Result<Mask> {
        self.combine(other, |a, b| a | b)
    }

    fn combine(&self, other: &Mask, f: impl Fn(u64, u64) -> u64) -> Result<Mask> {
        self.expect_shape("the other mask", &other.shape)?;
        let words = self.words.iter().zip(&*other.words).map(|(a, b)| f(*a, *b)).collect();
        Ok(Mask { shape: self.shape.clone(), words })
    }

    pub(crate) fn expect_shape(&self, what: &'static str, found: &[usize]) -> Result<()> {
        if *self.shape == *found {
            return Ok(());
        }
        Err(Error::Shape { what, expected: self.shape.to_vec(), found: found.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, array};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_mask_says_the_same_in_every_way(
            kept in prop::collection::vec(any::<bool>(), 0..300),
            other in prop::collection::vec(any::<bool>(), 300),
        ) {
            let (shape, other) = ([kept.len()], &other[..kept.len()]);
            let mask = Mask::from_fn(&shape, |i| kept[i]).unwrap();
            let second = Mask::from_fn(&shape, |i| other[i]).unwrap();
            prop_assert_eq!(mask.iter().collect::<Vec<_>>(), kept.clone());
            prop_assert_eq!(mask.kept(), kept.iter().filter(|kept| **kept).count());
            let positions: Vec<_> = (0..kept.len()).filter(|i| kept[*i]).collect();
            prop_assert_eq!(mask.positions().collect::<Vec<_>>(), positions);
            let both = mask.and(&second).unwrap().iter().collect::<Vec<_>>();
            prop_assert_eq!(both, kept.iter().zip(other).map(|(a, b)| a & b).collect::<Vec<_>>());
            let either = mask.or(&second).unwrap().iter().collect::<Vec<_>>();
            prop_assert_eq!(either, kept.iter().zip(other).map(|(a, b)| a | b).collect::<Vec<_>>());
            let mut values = ndarray::Array1::from_elem(kept.len(), f32::NAN);
            mask.apply(&mut values).unwrap();
            let masked = values.iter().zip(&kept).all(|(x, kept)| if *kept { x.is_nan() } else { *x == 0.0 });
            prop_assert!(masked);
            prop_assert_eq!(&Mask::of_nonzeros(&values), &mask);
            for start in 0..=kept.len() {
                let end = start + (kept.len() - start) * (start % 4) / 3;
                let expected = kept[start..end].iter().filter(|kept| **kept).count();
                prop_assert_eq!(mask.kept_in(start..end), expected);
            }
        }
    }

    #[test]
    fn strides_do_not_matter() {
        let values = array![[1.0_f32, 0.0, 3.0], [0.0, 5.0, 0.0]];
        let mask = Mask::of_nonzeros(&values.t());
        assert_eq!(mask.to_array(), array![[true, false], [false, true], [true, false]].into_dyn());
        let mut ones = Array2::<f32>::ones((2, 3));
        mask.apply(&mut ones.view_mut().reversed_axes()).unwrap();
        assert_eq!(ones, array![[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]);
        assert!(mask.apply(&mut ones).is_err() && Mask::ones(&[usize::MAX, 3]).is_err());
    }
}
