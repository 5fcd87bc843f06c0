//! Stochastic gradient descent.

use super::{
    optimizer::{Optimizer, States, Update, state_of},
    settings::not_negative,
};
use crate::{Error, Result};

/// Stochastic gradient descent with momentum, as PyTorch computes it.
///
/// `g = gradient + weight_decay · w`; with momentum `b = momentum · b + (1 - dampening) · g` (the first time `b = g`), and
/// then `g = b`, or `g = g + momentum · b` if Nesterov's; `w = w - learning_rate · g`.
///
/// | setting | default | range |
/// |---|---|---|
/// | `momentum` | 0 | at least 0 |
/// | `dampening` | 0 | at least 0; 0 with `nesterov` |
/// | `nesterov` | off | needs momentum |
/// | `weight_decay` | 0 | at least 0 |
///
/// ```
/// use tersor::nn::{Optimizer, Sgd, Update};
///
/// let (mut sgd, mut values) = (Sgd::new(0.5).momentum(0.5), [1.0]);
/// for _ in 0..2 {
///     sgd.step(0.5, &mut [Update { name: "w", values: &mut values, gradient: &[1.0], mask: None }])?;
/// }
/// assert_eq!(values, [1.0 - 0.5 - 0.75]);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sgd {
    learning_rate: f64,
    momentum: f64,
    dampening: f64,
    nesterov: bool,
    weight_decay: f64,
    buffers: States<Vec<f32>>,
}

impl Sgd {
    /// Plain gradient descent at this learning rate.
    pub fn new(learning_rate: f64) -> Sgd {
        let buffers = States::new();
        Sgd { learning_rate, momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0, buffers }
    }

    /// Sets the share of the last step that the next one repeats.
    pub fn momentum(self, momentum: f64) -> Sgd {
        Sgd { momentum, ..self }
    }

    /// Sets what the gradient loses on its way into the momentum.
    pub fn dampening(self, dampening: f64) -> Sgd {
        Sgd { dampening, ..self }
    }

    /// Looks one step ahead (Nesterov 1983, in the form of Sutskever et al. 2013).
    pub fn nesterov(self) -> Sgd {
        Sgd { nesterov: true, ..self }
    }

    /// Sets the L2 penalty.
    pub fn weight_decay(self, weight_decay: f64) -> Sgd {
        Sgd { weight_decay, ..self }
    }

    fn check(&self, learning_rate: f64) -> Result<()> {
        not_negative("learning_rate", learning_rate)?;
        not_negative("momentum", self.momentum)?;
        not_negative("dampening", self.dampening)?;
        not_negative("weight_decay", self.weight_decay)?;
        if self.nesterov && self.momentum == 0.0 {
            return Err(Error::Setting { setting: "momentum", value: 0.0, bound: "above 0 with nesterov" });
        }
        if self.nesterov && self.dampening != 0.0 {
            return Err(Error::Setting { setting: "dampening", value: self.dampening, bound: "0 with nesterov" });
        }
        Ok(())
    }
}

impl Optimizer for Sgd {
    fn learning_rate(&self) -> f64 {
        self.learning_rate
    }

    fn step(&mut self, learning_rate: f64, parameters: &mut [Update<'_>]) -> Result<()> {
        self.check(learning_rate)?;
        let (rate, decay) = (learning_rate as f32, self.weight_decay as f32);
        let (momentum, share) = (self.momentum as f32, (1.0 - self.dampening) as f32);
        for Update { name, values, gradient, mask } in parameters {
            let pairs = values.iter_mut().zip(*gradient);
            if momentum == 0.0 {
                pairs.for_each(|(w, g)| *w -= rate * (g + decay * *w));
                continue;
            }
            let mut first = false;
            let buffer = state_of(&mut self.buffers, name, gradient.len(), || {
                first = true;
                vec![0.0; gradient.len()]
            });
            Update::mask_state(*mask, buffer);
            // The buffer is still 0 the first time, so only the share differs.
            let share = if first { 1.0 } else { share };
            for ((w, g), b) in pairs.zip(buffer) {
                let g = g + decay * *w;
                *b = momentum * *b + share * g;
                *w -= rate * if self.nesterov { g + momentum * *b } else { *b };
            }
        }
        Ok(())
    }
}
