//! Schemes in words: `Debug` shows the code that makes one, `uniform(4).symmetric().per_group(32)`, defaults left out.

use std::fmt;

use crate::tensor::Granularity;

/// Writes a constructor call, the granularity unless it is the default, and the options that are set.
pub(super) fn write_scheme(
    f: &mut fmt::Formatter<'_>,
    constructor: fmt::Arguments<'_>,
    (granularity, default): (Granularity, Granularity),
    options: &[(bool, &str)],
) -> fmt::Result {
    f.write_fmt(constructor)?;
    options.iter().filter(|(set, _)| *set).try_for_each(|(_, option)| write!(f, ".{option}()"))?;
    match granularity {
        _ if granularity == default => Ok(()),
        Granularity::Tensor => write!(f, ".per_tensor()"),
        Granularity::Channel(axis) => write!(f, ".per_channel(Axis({}))", axis.index()),
        Granularity::Group(size) => write!(f, ".per_group({size})"),
    }
}
