//! How a packed layer takes its inputs.

use crate::error::{Error, Result};

/// How a packed product takes its inputs.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Activations {
    /// Rounded to 8 bits while running: each row symmetrically by its own largest magnitude, `scale = max |x| / 127`.
    #[default]
    Dynamic,
    /// Rounded to 8 bits on one grid fixed before: `code = clamp(round(x * (1 / scale)) + zero_point, -128, 127)`, halves to even.
    Static {
        /// Finite, and at least the smallest normal f32.
        scale: f32,
        /// From -128 to 127.
        zero_point: i32,
    },
    /// Kept as f32: the weights are decoded as they are multiplied.
    Float,
}

impl Activations {
    pub(crate) fn validate(&self) -> Result<()> {
        let Activations::Static { scale, zero_point } = self else { return Ok(()) };
        if !(scale.is_normal() && *scale > 0.0) {
            return Err(Error::Setting {
                setting: "scale",
                value: f64::from(*scale),
                bound: "finite and at least 1.2e-38",
            });
        }
        if !(-128..=127).contains(zero_point) {
            let value = f64::from(*zero_point);
            return Err(Error::Setting { setting: "zero_point", value, bound: "from -128 to 127" });
        }
        Ok(())
    }
}
