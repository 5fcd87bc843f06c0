//! Softmax of rows, in log space: finite for any finite logits.

use ndarray::Array2;

/// The least logarithm of a probability. It takes the place of -∞ where the difference of logits is more than f64 holds.
const LEAST: f64 = -1e300;

/// The softmax of rows at a temperature.
#[derive(Debug)]
pub(super) struct Softmax {
    /// The probabilities, row after row.
    pub(super) p: Vec<f64>,
    /// Their logarithms, which are finite.
    pub(super) logs: Vec<f64>,
    classes: usize,
}

impl Softmax {
    /// Of logits, row after row of so many classes.
    pub(super) fn of(logits: &[f64], classes: usize, temperature: f64) -> Softmax {
        let (mut p, mut logs) = (vec![0.0; logits.len()], vec![0.0; logits.len()]);
        let rows = p.chunks_exact_mut(classes).zip(logs.chunks_exact_mut(classes));
        for ((p, logs), logits) in rows.zip(logits.chunks_exact(classes)) {
            let largest = largest(logits.iter().copied());
            let mut sum = 0.0;
            for ((p, log), z) in p.iter_mut().zip(&mut *logs).zip(logits) {
                *log = ((z - largest) / temperature).max(LEAST);
                *p = log.exp();
                sum += *p;
            }
            let log_sum = sum.ln();
            p.iter_mut().for_each(|p| *p /= sum);
            logs.iter_mut().for_each(|log| *log -= log_sum);
        }
        Softmax { p, logs, classes }
    }

    /// Of rows of logits.
    pub(super) fn of_rows(logits: &Array2<f64>, temperature: f64) -> Softmax {
        Softmax::of(logits.as_slice().expect("made row-major"), logits.ncols(), temperature)
    }

    /// A row's probabilities, and their logarithms.
    pub(super) fn row(&self, row: usize) -> [&[f64]; 2] {
        [&self.p, &self.logs].map(|all| &all[row * self.classes..][..self.classes])
    }
}

/// `log softmax(logits / temperature)` of one row.
pub(super) fn log_softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    Softmax::of(logits, logits.len(), temperature).logs
}

/// `log Σ eᶻ`.
pub(super) fn log_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = largest(values.clone());
    largest + values.map(|z| (z - largest).exp()).sum::<f64>().ln()
}

/// The gradient for the logits, given that for their softmax `p` at this temperature: `p (g - Σ p g) / T`.
pub(super) fn softmax_backward(p: &[f64], gradient: impl Fn(usize) -> f64, temperature: f64, out: &mut [f64]) {
    let mean: f64 = p.iter().enumerate().map(|(class, p)| p * gradient(class)).sum();
    for (class, (out, p)) in out.iter_mut().zip(p).enumerate() {
        *out += p * (gradient(class) - mean) / temperature;
    }
}

/// One class's part of the Kullback-Leibler divergence `KL(p ‖ q)`, `p log(p / q) + q - p`: what is added comes to 0 over all
/// classes, and lets no part be below 0.
pub(super) fn divergence([p, log_p]: [f64; 2], [q, log_q]: [f64; 2]) -> f64 {
    p * (log_p - log_q) + q - p
}

fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(f64::NEG_INFINITY, f64::max)
}
