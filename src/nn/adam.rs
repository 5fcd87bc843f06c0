//! Adam, and Adam with decoupled weight decay.

use super::{
    optimizer::{Optimizer, States, Update, state_of},
    settings::{below_one, not_negative},
};
use crate::Result;

/// Adam (Kingma and Ba 2015), as PyTorch computes it.
///
/// `g = gradient + weight_decay · w`; `m = β₁ m + (1 - β₁) g`; `v = β₂ v + (1 - β₂) g²`;
/// `w = w - learning_rate · m / (1 - β₁ᵗ) / (√(v / (1 - β₂ᵗ)) + eps)`; with AMSGrad the largest `v` so far.
///
/// | setting | default | range |
/// |---|---|---|
/// | `betas` | 0.9, 0.999 | at least 0, below 1 |
/// | `eps` | 1e-8 | at least 0 |
/// | `weight_decay` | 0 | at least 0 |
/// | `amsgrad` | off | |
///
/// ```
/// use tersor::nn::{Adam, Optimizer, Update};
///
/// let (mut adam, mut values) = (Adam::new(0.1).betas(0.9, 0.99), [1.0, 1.0]);
/// adam.step(0.1, &mut [Update { name: "w", values: &mut values, gradient: &[3.0, -0.5], mask: None }])?;
/// assert!((values[0] - 0.9).abs() < 1e-6 && (values[1] - 1.1).abs() < 1e-6); // the first step is the sign's
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Adam {
    learning_rate: f64,
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
    amsgrad: bool,
    decoupled: bool,
    states: States<Moments>,
}

/// Adam with decoupled weight decay (Loshchilov and Hutter 2019): `w = w - learning_rate · weight_decay · w` first, and a
/// gradient without the penalty. Otherwise as [`Adam`].
///
/// | setting | default | range |
/// |---|---|---|
/// | `betas` | 0.9, 0.999 | at least 0, below 1 |
/// | `eps` | 1e-8 | at least 0 |
/// | `weight_decay` | 0.01 | at least 0 |
/// | `amsgrad` | off | |
///
/// ```
/// use tersor::nn::{AdamW, Optimizer, Update};
///
/// let (mut adam, mut values) = (AdamW::new(0.1).weight_decay(0.5), [1.0]);
/// adam.step(0.1, &mut [Update { name: "w", values: &mut values, gradient: &[0.0], mask: None }])?;
/// assert_eq!(values, [0.95]);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct AdamW(Adam);

#[derive(Clone, Debug)]
struct Moments {
    steps: i32,
    first: Vec<f32>,
    second: Vec<f32>,
    /// The largest second moments; empty without AMSGrad.
    largest: Vec<f32>,
}

impl Adam {
    /// Adam at this learning rate.
    pub fn new(learning_rate: f64) -> Adam {
        let (betas, eps, states) = ((0.9, 0.999), 1e-8, States::new());
        Adam { learning_rate, betas, eps, weight_decay: 0.0, amsgrad: false, decoupled: false, states }
    }

    /// Sets the decay of the first and of the second moment.
    pub fn betas(self, first: f64, second: f64) -> Adam {
        Adam { betas: (first, second), ..self }
    }

    /// Sets what keeps the divisor from 0.
    pub fn eps(self, eps: f64) -> Adam {
        Adam { eps, ..self }
    }

    /// Sets the L2 penalty.
    pub fn weight_decay(self, weight_decay: f64) -> Adam {
        Adam { weight_decay, ..self }
    }

    /// Divides by the largest second moment so far (Reddi et al. 2018).
    pub fn amsgrad(self) -> Adam {
        Adam { amsgrad: true, ..self }
    }

    fn check(&self, learning_rate: f64) -> Result<()> {
        not_negative("learning_rate", learning_rate)?;
        below_one("the first of betas", self.betas.0)?;
        below_one("the second of betas", self.betas.1)?;
        not_negative("eps", self.eps)?;
        not_negative("weight_decay", self.weight_decay)
    }
}

impl Optimizer for Adam {
    fn learning_rate(&self) -> f64 {
        self.learning_rate
    }

    fn step(&mut self, learning_rate: f64, parameters: &mut [Update<'_>]) -> Result<()> {
        self.check(learning_rate)?;
        let (new1, beta2, new2) = ((1.0 - self.betas.0) as f32, self.betas.1 as f32, (1.0 - self.betas.1) as f32);
        let decay = if self.decoupled { 0.0 } else { self.weight_decay as f32 };
        let shrink = if self.decoupled { (1.0 - learning_rate * self.weight_decay) as f32 } else { 1.0 };
        let eps = self.eps as f32;
        for Update { name, values, gradient, mask } in parameters {
            let len = gradient.len();
            let moments = state_of(&mut self.states, name, len, || Moments {
                steps: 0,
                first: vec![0.0; len],
                second: vec![0.0; len],
                largest: vec![0.0; if self.amsgrad { len } else { 0 }],
            });
            for state in [&mut moments.first, &mut moments.second, &mut moments.largest] {
                Update::mask_state(*mask, state);
            }
            moments.steps = moments.steps.saturating_add(1);
            let rate = (learning_rate / (1.0 - self.betas.0.powi(moments.steps))) as f32;
            let root = (1.0 - self.betas.1.powi(moments.steps)).sqrt() as f32;
            let states = moments.first.iter_mut().zip(&mut moments.second);
            let each = values.iter_mut().zip(*gradient).zip(states).map(|((w, g), (m, v))| {
                *w *= shrink;
                let g = g + decay * *w;
                *m += new1 * (g - *m);
                *v = beta2 * *v + new2 * g * g;
                (w, *m, *v)
            });
            if self.amsgrad {
                for ((w, m, v), largest) in each.zip(&mut moments.largest) {
                    *largest = largest.max(v);
                    *w -= rate * m / (largest.sqrt() / root + eps);
                }
            } else {
                each.for_each(|(w, m, v)| *w -= rate * m / (v.sqrt() / root + eps));
            }
        }
        Ok(())
    }
}

impl AdamW {
    /// AdamW at this learning rate.
    pub fn new(learning_rate: f64) -> AdamW {
        AdamW(Adam { weight_decay: 0.01, decoupled: true, ..Adam::new(learning_rate) })
    }

    /// Sets the decay of the first and of the second moment.
    pub fn betas(self, first: f64, second: f64) -> AdamW {
        AdamW(self.0.betas(first, second))
    }

    /// Sets what keeps the divisor from 0.
    pub fn eps(self, eps: f64) -> AdamW {
        AdamW(self.0.eps(eps))
    }

    /// Sets the share of a weight that it loses in each step, at learning rate 1.
    pub fn weight_decay(self, weight_decay: f64) -> AdamW {
        AdamW(self.0.weight_decay(weight_decay))
    }

    /// Divides by the largest second moment so far (Reddi et al. 2018).
    pub fn amsgrad(self) -> AdamW {
        AdamW(self.0.amsgrad())
    }
}

impl Optimizer for AdamW {
    fn learning_rate(&self) -> f64 {
        self.0.learning_rate()
    }

    fn step(&mut self, learning_rate: f64, parameters: &mut [Update<'_>]) -> Result<()> {
        self.0.step(learning_rate, parameters)
    }
}
