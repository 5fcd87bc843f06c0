//! Evenly spaced levels.

use std::fmt;

use super::{
    Affine, CodeRange, Convention, Quantizer, Range, SymmetricScale, codebook::granularity_builders, fit::Fit, passes,
    range::Sample, written::write_scheme,
};
use crate::{
    error::Result,
    kernels::{numbers::Numbers, pack::packed_len, parallel},
    tensor::{Codes, Dense, Granularity, QuantizedTensor, Survivors, Weights},
};

/// Uniform quantization: evenly spaced levels over a range found in the weights (Jacob et al. 2018; Krishnamoorthi 2018).
///
/// `code = clamp(round(x / scale) + zero_point)`, and back `scale * (code - zero_point)`. Zero is a level, always. Of
/// pruned weights the range is found in the survivors.
///
/// | setting | default | range |
/// |---|---|---|
/// | `bits` (in the constructor) | - | 1 to 8, or 16; symmetric: from 2 |
/// | mapping | affine: the whole range to 0 ..= 2^bits - 1 | [`symmetric`](Uniform::symmetric), [`full_range`](Uniform::full_range), [`signed_max`](Uniform::signed_max) |
/// | granularity | the whole tensor | [`per_channel`](Uniform::per_channel), [`per_group`](Uniform::per_group) |
/// | [`range`](Uniform::range) | [`Range::MinMax`] | see [`Range`] |
/// | [`convention`](Uniform::convention) | [`Convention::default`] | see [`Convention`] |
///
/// ```
/// use ndarray::{Array2, Axis};
/// use tersor::{Quantizer, quantize::Range};
///
/// let weights = Array2::from_shape_fn((16, 64), |(i, j)| ((i * 64 + j) as f32 * 0.37).sin());
/// let q = Quantizer::uniform(8).apply(&weights)?;
/// assert_eq!(q.nbytes(), 16 * 64 + 4 + 1); // a byte a weight, a scale, a zero point
/// let q = Quantizer::uniform(4).symmetric().per_group(32).range(Range::Mse).apply(&weights)?;
/// assert_eq!(q.bits_per_weight(), 5.0); // 4, and a scale of 32 bits for 32 weights
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Uniform {
    bits: u8,
    symmetric: bool,
    codes: Option<CodeRange>,
    full_range: bool,
    granularity: Granularity,
    range: Range,
    convention: Convention,
}

impl fmt::Debug for Uniform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = Convention { symmetric_scale: SymmetricScale::default(), ..self.convention };
        let signed_max = self.full_range && self.convention.symmetric_scale == SymmetricScale::SignedMax;
        let options = [
            (self.symmetric && !self.full_range, "symmetric"),
            (self.full_range && !signed_max, "full_range"),
            (signed_max, "signed_max"),
        ];
        write_scheme(f, format_args!("uniform({})", self.bits), (self.granularity, Granularity::Tensor), &options)?;
        if let Some(codes) = self.codes {
            write!(f, ".codes({}..={})", codes.lowest(), codes.highest())?;
        }
        if self.range != Range::MinMax {
            write!(f, ".range({:?})", self.range)?;
        }
        let told = if signed_max { plain } else { self.convention };
        if told == Convention::default() { Ok(()) } else { write!(f, ".convention({:?})", self.convention) }
    }
}

impl Uniform {
    /// The whole range to `0 ..= 2^bits - 1`, one scale for the tensor.
    pub fn new(bits: u8) -> Self {
        Uniform {
            bits,
            symmetric: false,
            codes: None,
            full_range: false,
            granularity: Granularity::Tensor,
            range: Range::MinMax,
            convention: Convention::default(),
        }
    }

    /// Zero in the middle: codes `-(2^(bits-1) - 1) ..= 2^(bits-1) - 1`, no zero point.
    ///
    /// The most negative code is left out so that every code has its opposite; [`full_range`](Uniform::full_range)
    /// takes it in.
    pub fn symmetric(mut self) -> Self {
        self.symmetric = true;
        self
    }

    /// Symmetric, with the most negative code too: `scale = a / (2^bits - 1) * 2`, as torch and torchao have it.
    pub fn full_range(mut self) -> Self {
        self.symmetric = true;
        self.full_range = true;
        self
    }

    /// Symmetric, the weight of largest magnitude exactly on the most negative code, its sign kept in the scale: a fifth
    /// less squared error than [`symmetric`](Uniform::symmetric) at 4 bits, at the same cost (ggml's Q4_0, NNCF).
    pub fn signed_max(mut self) -> Self {
        self.convention.symmetric_scale = SymmetricScale::SignedMax;
        self.full_range()
    }

    /// The integers that codes stand for, where the mapping's own do not serve.
    pub fn codes(mut self, codes: CodeRange) -> Self {
        self.bits = codes.bits();
        self.codes = Some(codes);
        self
    }

    granularity_builders!();

    /// Sets which part of the numbers the levels cover.
    pub fn range(mut self, range: Range) -> Self {
        self.range = range;
        self
    }

    /// Sets the conventions in which implementations differ. The mapping is set by the methods above, before or after;
    /// the scale of a symmetric grid is `convention.symmetric_scale`.
    pub fn convention(mut self, convention: Convention) -> Self {
        self.convention = convention;
        self
    }

    /// The grid that [`apply`](Quantizer::apply) puts the weights on, without the codes.
    ///
    /// # Errors
    /// As [`apply`](Quantizer::apply).
    pub fn fit(&self, weights: &dyn Weights) -> Result<Affine> {
        self.fit_dense(&Dense::new(weights)?)
    }

    /// As [`apply`](Quantizer::apply), with the codes in the memory of those of a tensor that is no longer needed: new
    /// memory takes longer to get than to fill.
    ///
    /// # Errors
    /// As [`apply`](Quantizer::apply).
    ///
    /// ```
    /// use ndarray::array;
    /// use tersor::Quantizer;
    ///
    /// let scheme = Quantizer::uniform(8);
    /// let first = scheme.apply(&array![0.0_f32, 0.5, 1.0])?;
    /// let second = scheme.apply_reusing(&array![0.0_f32, 1.0, 2.0], first.clone())?;
    /// assert_eq!(second.codes(), first.codes());
    /// # Ok::<(), tersor::Error>(())
    /// ```
    pub fn apply_reusing(&self, weights: &dyn Weights, memory: QuantizedTensor) -> Result<QuantizedTensor> {
        self.apply_in(weights, memory.into_memory())
    }

    fn apply_in(&self, weights: &dyn Weights, memory: Vec<u8>) -> Result<QuantizedTensor> {
        let fit = self.rule()?;
        let is_plain = self.range == Range::MinMax && weights.mask().is_none();
        if is_plain
            && weights.importance().is_none()
            && let Some(halves) = weights.halves()
            && let Some((shape, numbers)) = halves.row_major()
            && numbers.len() > 0
        {
            return match self.encode(fit, shape, &numbers, memory)? {
                Some(tensor) => Ok(tensor),
                // The error that names the number.
                None => Dense::new(weights).and_then(|dense| self.fit_dense(&dense)?.encode(&dense)),
            };
        }
        let dense = Dense::unchecked("the weights", weights)?;
        if is_plain && let Some(tensor) = self.encode(fit, dense.shape(), &Numbers::F32(dense.values()), memory)? {
            return Ok(tensor);
        }
        dense.check_finite()?;
        self.fit_dense(&dense)?.encode(&dense)
    }

    /// On the grid of the least and the largest number of each group; nothing if some number is not finite.
    fn encode(
        &self,
        fit: Fit,
        shape: &[usize],
        numbers: &Numbers<'_>,
        memory: Vec<u8>,
    ) -> Result<Option<QuantizedTensor>> {
        let groups = self.granularity.groups(shape)?;
        let bytes = packed_len(numbers.len(), fit.codes.bits());
        let mut memory = if memory.capacity() < bytes { vec![0; bytes] } else { memory };
        memory.resize(bytes, 0);
        let Some((scale, zero)) = passes::fit_and_encode(fit, numbers, &groups, &mut memory)? else { return Ok(None) };
        let codes = Codes::from_packed(fit.codes.bits(), numbers.len(), memory);
        QuantizedTensor::new(shape, codes, fit.codes.grid(scale, zero, self.granularity)).map(Some)
    }

    fn fit_dense(&self, weights: &Dense<'_>) -> Result<Affine> {
        let fit = self.rule()?;
        let groups = self.granularity.groups(weights.shape())?;
        let steps = parallel::map(groups.count(), |group| {
            let Survivors { values, importance, removed } = weights.survivors(&groups, group);
            let sample = Sample::new(&values, importance.as_deref()).with_zeros(removed);
            let (min, max) = self.range.choose(&sample, fit)?;
            fit.step(min, max).map(|step| (step.scale, step.zero))
        });
        let (scale, zero_point) = steps.into_iter().collect::<Result<Vec<_>>>()?.into_iter().unzip();
        Ok(Affine::new(scale, zero_point, self.granularity, fit.codes)?.convention(self.convention))
    }

    /// How a range becomes a grid; fails on bits that the mapping does not have, and on settings of the range.
    pub(super) fn rule(&self) -> Result<Fit> {
        let codes = match self.codes {
            Some(codes) => codes,
            None if !self.symmetric => CodeRange::unsigned(self.bits)?,
            None if self.full_range => CodeRange::narrow(self.bits).and(CodeRange::signed(self.bits))?,
            None => CodeRange::narrow(self.bits)?,
        };
        self.range.validate(codes)?;
        Ok(Fit { codes, symmetric: self.symmetric, convention: self.convention })
    }

    pub(super) fn range_chooser(&self) -> Range {
        self.range
    }

    pub(crate) fn conventions(&self) -> Convention {
        self.convention
    }

    pub(crate) fn grouping(&self) -> Granularity {
        self.granularity
    }
}

impl Quantizer for Uniform {
    fn apply(&self, weights: &dyn Weights) -> Result<QuantizedTensor> {
        self.apply_in(weights, Vec::new())
    }
}
