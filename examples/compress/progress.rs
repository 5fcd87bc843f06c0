//! What the user sees while it works: bars on stderr (invisible where that is no terminal), lines on stdout.

use std::{
    fmt::Display,
    io::{self, Write},
};

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of so many steps.
pub(crate) fn bar(doing: &'static str, steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:>12} {bar:40} {pos} of {len}, {eta} left");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(steps as u64).with_style(style).with_prefix(doing)
}

/// Prints a line. A reader that has seen enough (`| head`) does not end the work.
pub(crate) fn say(text: impl Display) {
    writeln!(io::stdout(), "{text}").ok();
}
