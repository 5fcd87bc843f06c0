//! Checks of settings.

use crate::{Error, Result};

/// `setting` is a finite number above 0.
pub(crate) fn positive(setting: &'static str, value: f64) -> Result<()> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(Error::Setting { setting, value, bound: "above 0 and finite" })
}

/// `setting` is a finite number, at least 0.
pub(crate) fn not_negative(setting: &'static str, value: f64) -> Result<()> {
    if value >= 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(Error::Setting { setting, value, bound: "at least 0 and finite" })
}

/// `setting` is in [0, 1).
pub(super) fn below_one(setting: &'static str, value: f64) -> Result<()> {
    if (0.0..1.0).contains(&value) {
        return Ok(());
    }
    Err(Error::Setting { setting, value, bound: "at least 0 and below 1" })
}

/// `setting` is a share, 0 to 1.
pub(crate) fn share(setting: &'static str, value: f64) -> Result<()> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    Err(Error::Setting { setting, value, bound: "between 0 and 1" })
}
