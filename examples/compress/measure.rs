//! Averages and times.

use std::time::{Duration, Instant};

use crate::Problem;

/// Times each side is run.
const ROUNDS: usize = 15;

/// Mean and sample standard deviation (0 for a single number).
pub(crate) fn mean_and_sd(numbers: &[f64]) -> (f64, f64) {
    let n = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / n;
    let squares = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
    (mean, (squares / (n - 1.0).max(1.0)).sqrt())
}

/// Milliseconds of the fastest run of each of two, run in turns so that both meet the same machine.
pub(crate) fn race<T>(
    one: impl Fn() -> Result<T, tersor::Error>,
    other: impl Fn() -> Result<T, tersor::Error>,
) -> Result<(f64, f64), Problem> {
    let time = |run: &dyn Fn() -> Result<T, tersor::Error>| -> Result<Duration, Problem> {
        let start = Instant::now();
        std::hint::black_box(run()?);
        Ok(start.elapsed())
    };
    let mut best = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        best = (best.0.min(time(&one)?), best.1.min(time(&other)?));
    }
    Ok((best.0.as_secs_f64() * 1e3, best.1.as_secs_f64() * 1e3))
}
