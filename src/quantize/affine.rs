//! An affine grid with known scales and zero points.

use ndarray::Axis;

use super::{Convention, Quantizer, Quotient, Rounding, ZeroPointAdded, passes::Steps};
use crate::{
    error::{Error, Result},
    kernels::{affine, numbers::Numbers, pack::packed_len},
    tensor::{Codes, Dense, Granularity, Grid, Groups, QuantizedTensor, Weights},
};

/// The integers that codes stand for: `lowest..=highest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeRange {
    bits: u8,
    lowest: i32,
    highest: i32,
}

impl CodeRange {
    /// `0 ..= 2^bits - 1`.
    ///
    /// # Errors
    /// [`Error::Bits`] unless `bits` is 1 to 8, or 16; likewise for the other two.
    pub fn unsigned(bits: u8) -> Result<Self> {
        let highest = Self::count(bits, 1, "unsigned codes", "1 to 8, or 16")? - 1;
        Ok(CodeRange { bits, lowest: 0, highest })
    }

    /// `-2^(bits - 1) ..= 2^(bits - 1) - 1`, two's complement.
    pub fn signed(bits: u8) -> Result<Self> {
        let half = Self::count(bits, 1, "signed codes", "1 to 8, or 16")? / 2;
        Ok(CodeRange { bits, lowest: -half, highest: half - 1 })
    }

    /// `-(2^(bits - 1) - 1) ..= 2^(bits - 1) - 1`: signed, without the most negative code, so that every code has its
    /// opposite. At least 2 bits.
    pub fn narrow(bits: u8) -> Result<Self> {
        let half = Self::count(bits, 2, "symmetric codes", "2 to 8, or 16; for 1 bit use Quantizer::binary")? / 2;
        Ok(CodeRange { bits, lowest: 1 - half, highest: half - 1 })
    }

    fn count(bits: u8, least: u8, scheme: &'static str, allowed: &'static str) -> Result<i32> {
        match bits {
            16 => Ok(1 << 16),
            _ if (least..=8).contains(&bits) => Ok(1 << bits),
            _ => Err(Error::Bits { bits, scheme, allowed }),
        }
    }

    /// The grid of codes on these; zero points that are all 0 are left out.
    pub(super) fn grid(self, scale: Vec<f32>, zero_point: Vec<i32>, granularity: Granularity) -> Grid {
        let any = zero_point.iter().fold(0, |any, zero| any | zero);
        let zero_point = if any == 0 { Vec::new() } else { zero_point };
        Grid::Affine { scale, zero_point, lowest: self.lowest, granularity }
    }

    /// Bits per code.
    pub fn bits(self) -> u8 {
        self.bits
    }

    /// The smallest integer.
    pub fn lowest(self) -> i32 {
        self.lowest
    }

    /// The largest integer.
    pub fn highest(self) -> i32 {
        self.highest
    }
}

/// A quantizer whose scales and zero points were chosen before: by an observer of activations, by training, by another
/// toolkit.
///
/// `code = clamp(round(x / scale) + zero_point, lowest, highest)`, and back `scale * (code - zero_point)`
/// (Jacob et al. 2018).
///
/// | setting | default | range |
/// |---|---|---|
/// | `convention` | [`Convention::default`] | any |
///
/// ```
/// use ndarray::array;
/// use tersor::{Quantizer, quantize::{Affine, CodeRange}};
///
/// let grid = Affine::per_tensor(0.5, 1, CodeRange::signed(8)?)?;
/// let q = grid.apply(&array![0.75_f32, -0.25, 1e10])?;
/// assert_eq!(q.integers(), array![3, 1, 127].into_dyn()); // halves to even, then the zero point, then saturated
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Affine {
    codes: CodeRange,
    scale: Vec<f32>,
    zero_point: Vec<i32>,
    granularity: Granularity,
    convention: Convention,
}

/// Zero points are added to f32 quotients, which count exactly up to here.
const FARTHEST_ZERO: i32 = 1 << 21;

impl Affine {
    /// One scale and zero point for the whole tensor.
    ///
    /// # Errors
    /// [`Error::NotFinite`] or [`Error::Setting`] for a scale that is not finite, or 0, and for a zero point beyond
    /// 2^21 in magnitude.
    pub fn per_tensor(scale: f32, zero_point: i32, codes: CodeRange) -> Result<Self> {
        Affine::new(vec![scale], vec![zero_point], Granularity::Tensor, codes)
    }

    /// One scale and zero point for each index along `axis`; no zero points at all are zeros.
    ///
    /// # Errors
    /// As [`per_tensor`](Affine::per_tensor), and [`Error::Shape`] if there are not as many zero points as scales.
    pub fn per_channel(axis: Axis, scale: Vec<f32>, zero_point: Vec<i32>, codes: CodeRange) -> Result<Self> {
        Affine::new(scale, zero_point, Granularity::Channel(axis), codes)
    }

    /// One scale and zero point for each group of `group_size` consecutive elements of the last axis, row after row; the
    /// last group of a row may be shorter.
    ///
    /// # Errors
    /// As [`per_channel`](Affine::per_channel), and [`Error::GroupSize`] for groups of nothing.
    pub fn per_group(group_size: usize, scale: Vec<f32>, zero_point: Vec<i32>, codes: CodeRange) -> Result<Self> {
        if group_size == 0 {
            return Err(Error::GroupSize { group_size });
        }
        Affine::new(scale, zero_point, Granularity::Group(group_size), codes)
    }

    pub(super) fn new(
        scale: Vec<f32>,
        zero_point: Vec<i32>,
        granularity: Granularity,
        codes: CodeRange,
    ) -> Result<Self> {
        let zero_point = if zero_point.is_empty() { vec![0; scale.len()] } else { zero_point };
        if scale.len() != zero_point.len() {
            let (expected, found) = (vec![scale.len()], vec![zero_point.len()]);
            return Err(Error::Shape { what: "the zero point", expected, found });
        }
        for (index, scale) in scale.iter().enumerate() {
            if !scale.is_finite() {
                return Err(Error::NotFinite { what: "the scale", index, value: f64::from(*scale) });
            }
            if *scale == 0.0 {
                return Err(Error::Setting { setting: "scale", value: 0.0, bound: "different from 0" });
            }
        }
        if let Some(zero) = zero_point.iter().find(|zero| zero.unsigned_abs() > FARTHEST_ZERO.unsigned_abs()) {
            let bound = "between -2^21 and 2^21, where f32 still counts in ones";
            return Err(Error::Setting { setting: "zero_point", value: f64::from(*zero), bound });
        }
        Ok(Affine { codes, scale, zero_point, granularity, convention: Convention::default() })
    }

    /// The grid that a tensor is quantized to, if its levels are evenly spaced.
    pub fn of(tensor: &QuantizedTensor) -> Option<Self> {
        let Grid::Affine { scale, zero_point, lowest, granularity } = tensor.grid() else { return None };
        let ranges = [CodeRange::unsigned, CodeRange::signed, CodeRange::narrow].into_iter();
        let codes = ranges.filter_map(|range| range(tensor.bits()).ok()).find(|codes| codes.lowest == *lowest)?;
        Affine::new(scale.clone(), zero_point.clone(), *granularity, codes).ok()
    }

    /// Sets how codes are computed, where implementations differ.
    pub fn convention(mut self, convention: Convention) -> Self {
        self.convention = convention;
        self
    }

    /// The integers that codes stand for.
    pub fn codes(&self) -> CodeRange {
        self.codes
    }

    /// The scales, one a group.
    pub fn scale(&self) -> &[f32] {
        &self.scale
    }

    /// The zero points, one a group.
    pub fn zero_point(&self) -> &[i32] {
        &self.zero_point
    }

    /// Which elements share a scale.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    pub(super) fn step(&self, group: usize) -> Step {
        Step::new(self.scale[group], self.zero_point[group], self.codes, self.convention)
    }

    /// The groups of a shape, checked against the number of scales.
    pub(super) fn groups(&self, shape: &[usize]) -> Result<Groups> {
        let groups = self.granularity.groups(shape)?;
        if groups.count() != self.scale.len() {
            let (expected, found) = (vec![groups.count()], vec![self.scale.len()]);
            return Err(Error::Shape { what: "the scale", expected, found });
        }
        Ok(groups)
    }

    pub(super) fn encode(&self, weights: &Dense<'_>) -> Result<QuantizedTensor> {
        let groups = self.groups(weights.shape())?;
        let len = weights.values().len();
        let mut bytes = vec![0; packed_len(len, self.codes.bits)];
        let steps = Steps {
            first: 0,
            scale: &self.scale,
            zero: &self.zero_point,
            codes: self.codes,
            convention: self.convention,
        };
        steps.encode(&Numbers::F32(weights.values()), &groups, &mut bytes);
        let codes = Codes::from_packed(self.codes.bits, len, bytes);
        weights.quantized(codes, self.codes.grid(self.scale.clone(), self.zero_point.clone(), self.granularity))
    }
}

impl Quantizer for Affine {
    fn apply(&self, weights: &dyn Weights) -> Result<QuantizedTensor> {
        self.encode(&Dense::new(weights)?)
    }
}

/// One group's way from a number to its code.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) scale: f32,
    pub(super) zero: i32,
    codes: CodeRange,
    convention: Convention,
}

impl Step {
    pub(super) fn new(scale: f32, zero: i32, codes: CodeRange, convention: Convention) -> Self {
        Step { scale, zero, codes, convention }
    }

    /// Calls `f` with the rule `x -> code - zero_point`, as a float, unclamped; one instance of `f` a convention.
    #[inline(always)]
    fn with_rule<R>(self, f: impl WithRule<R>) -> R {
        let (scale, reciprocal) = (self.scale, 1.0 / self.scale);
        let quotient = match self.convention.quotient {
            // A subnormal scale has no finite reciprocal.
            Quotient::Reciprocal if reciprocal.is_finite() => Quotient::Reciprocal,
            _ => Quotient::Divide,
        };
        let zero = match self.convention.zero_point_added {
            ZeroPointAdded::AfterRounding => 0.0,
            ZeroPointAdded::BeforeRounding => self.zero as f32,
        };
        match (quotient, self.convention.rounding) {
            (Quotient::Divide, Rounding::HalfEven) if zero == 0.0 => {
                f.call(move |x| affine::round_half_even(x / scale))
            }
            (Quotient::Reciprocal, Rounding::HalfEven) if zero == 0.0 => {
                f.call(move |x| affine::round_half_even(x * reciprocal))
            }
            (quotient, rounding) => f.call(move |x| {
                let quotient = match quotient {
                    Quotient::Divide => x / scale,
                    Quotient::Reciprocal => x * reciprocal,
                } + zero;
                let rounded = match rounding {
                    Rounding::HalfEven => quotient.round_ties_even(),
                    Rounding::HalfAway => quotient.round(),
                    Rounding::HalfUp => (quotient + 0.5).floor(),
                };
                rounded - zero
            }),
        }
    }

    /// The lowest and highest `code - zero_point`, exact as floats since zero points stay below 2^21.
    pub(super) fn bounds(self) -> (f32, f32) {
        ((self.codes.lowest - self.zero) as f32, (self.codes.highest - self.zero) as f32)
    }

    /// Stored codes, counted from 0.
    #[inline(always)]
    pub(super) fn encode<T: affine::Code>(self, values: &[f32], out: &mut [T]) {
        struct Encode<'a, T> {
            values: &'a [f32],
            bounds: (f32, f32),
            out: &'a mut [T],
        }
        impl<T: affine::Code> WithRule<()> for Encode<'_, T> {
            #[inline(always)]
            fn call(self, rule: impl Fn(f32) -> f32) {
                affine::encode(self.values, rule, self.bounds, self.out);
            }
        }
        self.with_rule(Encode { values, bounds: self.bounds(), out });
    }

    /// Sum of squared errors, each times its importance.
    pub(super) fn squared_error(self, values: &[f32], importance: Option<&[f32]>) -> f64 {
        struct SquaredError<'a> {
            step: Step,
            values: &'a [f32],
            importance: Option<&'a [f32]>,
        }
        impl WithRule<f64> for SquaredError<'_> {
            fn call(self, rule: impl Fn(f32) -> f32) -> f64 {
                let scale = f64::from(self.step.scale);
                affine::squared_error(self.values, self.importance, self.step.scale, rule, self.step.bounds())
                    * scale
                    * scale
            }
        }
        self.with_rule(SquaredError { step: self, values, importance })
    }

    /// For each number: its `code - zero_point`, not yet clamped.
    pub(super) fn levels(self, values: &[f32]) -> Vec<f32> {
        struct Levels<'a>(&'a [f32]);
        impl WithRule<Vec<f32>> for Levels<'_> {
            fn call(self, rule: impl Fn(f32) -> f32) -> Vec<f32> {
                self.0.iter().map(|x| rule(*x)).collect()
            }
        }
        self.with_rule(Levels(values))
    }
}

/// A closure generic over its argument's type, so that each rounding rule is compiled into the loop it drives.
trait WithRule<R> {
    fn call(self, rule: impl Fn(f32) -> f32) -> R;
}
