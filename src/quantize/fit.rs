//! From a range to a scale and a zero point.

use super::{CodeRange, Convention, SymmetricScale, UnsignedZero, ZeroInRange, affine::Step};
use crate::error::{Error, Result};

/// How a range becomes a scale and a zero point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fit {
    pub(super) codes: CodeRange,
    pub(super) symmetric: bool,
    pub(super) convention: Convention,
}

impl Fit {
    /// The step whose grid covers `min..=max`.
    ///
    /// Affine: `scale = (max - min) / (highest - lowest)`, `zero_point = clamp(lowest - round(min / scale))`, the
    /// range widened to hold 0. Symmetric: [`SymmetricScale`], zero in the middle.
    pub(super) fn step(self, min: f32, max: f32) -> Result<Step> {
        let (scale, zero) = self.grid(min, max);
        if !self.has_finite_levels(scale, zero) {
            let bound = "so narrow that its levels are finite in f32; scale the values down";
            return Err(Error::Setting { setting: "range", value: f64::from(max) - f64::from(min), bound });
        }
        Ok(Step::new(scale, zero, self.codes, self.convention))
    }

    /// Whether it is symmetric, if it is one of the two usual ones.
    pub(super) fn usual(self) -> Option<bool> {
        (self == self.with_usual(self.symmetric)).then_some(self.symmetric)
    }

    /// With the choices of the usual one: where they are known to the compiler, a loop over groups is vectorized.
    #[inline(always)]
    pub(super) fn with_usual(self, symmetric: bool) -> Fit {
        let (symmetric_scale, zero_in_range) = (SymmetricScale::HalfSpan, ZeroInRange::Always);
        Fit { symmetric, convention: Convention { symmetric_scale, zero_in_range, ..self.convention }, ..self }
    }

    /// Its scale and zero point, whatever they are.
    #[inline(always)]
    pub(super) fn grid(self, min: f32, max: f32) -> (f32, i32) {
        if self.symmetric { self.symmetric(min, max) } else { self.affine(min, max) }
    }

    #[inline(always)]
    pub(super) fn has_finite_levels(self, scale: f32, zero: i32) -> bool {
        let (low, high) = Step::new(scale, zero, self.codes, self.convention).bounds();
        (scale * low).is_finite() & (scale * high).is_finite()
    }

    #[inline(always)]
    fn affine(self, min: f32, max: f32) -> (f32, i32) {
        let (lowest, highest) = (self.codes.lowest(), self.codes.highest());
        let scale_of = |min: f32, max: f32| {
            // In f64, since a range may be twice as wide as f32 is high.
            let span = f64::from(max) - f64::from(min);
            ((span / f64::from(highest - lowest)) as f32).max(self.convention.smallest_scale)
        };
        if self.convention.zero_in_range == ZeroInRange::AsFound {
            let scale = scale_of(min, max);
            let zero = f64::from(lowest) - f64::from((min / scale).round_ties_even());
            // Where the range is too narrow for its distance from 0, f32 could not tell its codes apart.
            if zero.abs() < f64::from(1 << 20) {
                return (scale, zero as i32);
            }
        }
        let (min, max) = (min.min(0.0), max.max(0.0));
        let scale = scale_of(min, max);
        let zero = f64::from(lowest) - f64::from((min / scale).round_ties_even());
        (scale, zero.clamp(f64::from(lowest), f64::from(highest)) as i32)
    }

    #[inline(always)]
    fn symmetric(self, min: f32, max: f32) -> (f32, i32) {
        let (lowest, highest) = (self.codes.lowest(), self.codes.highest());
        let zero = match (lowest < 0, self.convention.unsigned_zero) {
            (true, _) => 0,
            (false, UnsignedZero::Upper) => (lowest + highest + 1) / 2,
            (false, UnsignedZero::Lower) => (lowest + highest) / 2,
        };
        // The widest levels on either side; a grid with nothing above 0 (1 bit) counts as reaching 1 there.
        let (below, above) = (f64::from(lowest - zero), f64::from(highest - zero));
        let (min, max) = (f64::from(min), f64::from(max));
        let largest = min.abs().max(max.abs());
        let scale = match self.convention.symmetric_scale {
            SymmetricScale::HalfSpan => largest / ((above - below) / 2.0),
            SymmetricScale::Highest => largest / above.max(1.0),
            SymmetricScale::SignedMax if min.abs() >= max => min / below,
            SymmetricScale::SignedMax => max / below,
            SymmetricScale::NoClipping => (min / below).max(max / above.max(1.0)),
        } as f32;
        let smallest = self.convention.smallest_scale;
        (if scale.abs() < smallest { smallest } else { scale }, zero)
    }
}
