//! Softmax of a row, in log space: finite for any finite logits.

/// The least logarithm of a probability. It takes the place of -∞ where the difference of logits is more than f64 holds.
const LEAST: f64 = -1e300;

/// `log softmax(logits / temperature)`.
pub(super) fn log_softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    let largest = largest(logits.iter().copied());
    let shifted = logits.iter().map(|z| ((z - largest) / temperature).max(LEAST));
    let log_sum = shifted.clone().map(f64::exp).sum::<f64>().ln();
    shifted.map(|z| z - log_sum).collect()
}

/// `log Σ eᶻ`.
pub(super) fn log_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = largest(values.clone());
    largest + values.map(|z| (z - largest).exp()).sum::<f64>().ln()
}

/// `softmax(logits / temperature)`.
pub(super) fn softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    log_softmax(logits, temperature).into_iter().map(f64::exp).collect()
}

/// The gradient for the logits, given that for their softmax `p` at this temperature: `p (g - Σ p g) / T`.
pub(super) fn softmax_backward(p: &[f64], gradient: impl Fn(usize) -> f64, temperature: f64, out: &mut [f64]) {
    let mean: f64 = p.iter().enumerate().map(|(class, p)| p * gradient(class)).sum();
    for (class, (out, p)) in out.iter_mut().zip(p).enumerate() {
        *out += p * (gradient(class) - mean) / temperature;
    }
}

fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(f64::NEG_INFINITY, f64::max)
}
