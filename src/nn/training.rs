//! The training loop.

use std::ops::ControlFlow;

use super::{CrossEntropy, Data, Loss, Mode, Network, Optimizer, Schedule, random::derive, shape::at_least_one};
use crate::{Error, Result};

/// A training: batches in a new random order every epoch, the loss's gradient, a step of the optimizer.
///
/// | setting | default | range |
/// |---|---|---|
/// | `batch_size` | 64 | at least 1; the last batch of an epoch may be smaller |
/// | `seed` | 0 | decides the order of samples and the dropout |
/// | `loss` | [`CrossEntropy`] | any [`Loss`] |
/// | `schedule` | [`Schedule::Constant`] | |
///
/// The same network, data, settings and seed give the same bits, whatever the number of threads.
///
/// ```
/// use tersor::nn::{Adam, Data, Network, Training};
/// # use ndarray::Array2;
/// # let labels: Vec<usize> = (0..64).map(|i| i % 10).collect();
/// # let images = Array2::from_shape_fn((64, 784), |(i, j)| if j % 10 == i % 10 { 1.0 } else { 0.0 });
/// # let images = images.view();
///
/// let mut network = Network::builder(7)
///     .linear(784, 64).relu().linear(64, 32).relu().linear(32, 10)
///     .build()?;
/// let data = Data::classes(images, labels)?;
/// let history = Training::new(40)
///     .batch_size(64).seed(1)
///     .train(&mut network, &data, &mut Adam::new(1e-3), &mut |p| {
///         println!("epoch {} of {}, batch {} of {}: {}", p.epoch, p.epochs, p.batch, p.batches, p.loss);
///         std::ops::ControlFlow::Continue(())
///     })?;
/// let logits = network.forward(&images)?;
/// let accuracy = network.accuracy(&data)?;
/// # assert_eq!((history.losses.len(), logits.shape(), accuracy), (40, &[64, 10][..], 1.0));
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct Training {
    epochs: usize,
    batch_size: usize,
    seed: u64,
    loss: Box<dyn Loss>,
    schedule: Schedule,
}

/// Where a training stands, after a step.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// The epoch, counted from 0.
    pub epoch: usize,
    /// Epochs in all.
    pub epochs: usize,
    /// The batch within the epoch, counted from 0.
    pub batch: usize,
    /// Batches of an epoch.
    pub batches: usize,
    /// The loss of this batch, before the step.
    pub loss: f64,
    /// The learning rate of this epoch.
    pub learning_rate: f64,
}

/// What a training went through.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct History {
    /// The mean loss of every epoch's samples, each seen before its step.
    pub losses: Vec<f64>,
}

impl Training {
    /// A training of so many epochs, at least 1.
    pub fn new(epochs: usize) -> Training {
        let (loss, schedule) = (Box::new(CrossEntropy::new()), Schedule::Constant);
        Training { epochs, batch_size: 64, seed: 0, loss, schedule }
    }

    /// Sets the samples of a step.
    pub fn batch_size(self, batch_size: usize) -> Training {
        Training { batch_size, ..self }
    }

    /// Sets what the order of samples and the dropout are drawn from.
    pub fn seed(self, seed: u64) -> Training {
        Training { seed, ..self }
    }

    /// Sets the loss.
    pub fn loss(self, loss: impl Loss + 'static) -> Training {
        Training { loss: Box::new(loss), ..self }
    }

    /// Sets how the learning rate changes.
    pub fn schedule(self, schedule: Schedule) -> Training {
        Training { schedule, ..self }
    }

    /// Trains the network, calling `progress` after every step.
    ///
    /// An optimizer keeps its state, so that a second training goes on where the first ended.
    ///
    /// # Errors
    /// Before the first step, with the network unchanged: [`Error::Setting`] for settings out of range, and whatever
    /// shows that the data do not fit the network or the loss ([`Error::Layer`], [`Error::Label`], [`Error::Shape`]).
    ///
    /// [`Error::Cancelled`] if `progress` breaks: an error, not a short history, so that `?` keeps a half-trained
    /// network from being taken for a trained one. The network is as of the last step, and every loss was reported.
    ///
    /// [`Error::Diverged`] if the loss is not finite, or the parameters are not after the last step. The network is put
    /// back to what it was when the loss was last finite; the optimizer's state is not.
    pub fn train(
        &self,
        network: &mut Network,
        data: &Data,
        optimizer: &mut dyn Optimizer,
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<History> {
        at_least_one("epochs", self.epochs)?;
        at_least_one("batch_size", self.batch_size)?;
        self.schedule.check()?;
        self.loss.check(&network.output_shape(data.inputs.shape())?, &data.targets)?;

        let batches = data.len().div_ceil(self.batch_size);
        let total = self.epochs.saturating_mul(batches);
        let mut sound = Snapshot::default();
        let mut losses = Vec::new();
        let mut done = 0;
        for epoch in 0..self.epochs {
            let learning_rate = self.schedule.learning_rate(optimizer.learning_rate(), epoch);
            let mut sum = 0.0;
            let order = derive(self.seed, epoch.wrapping_mul(2));
            let dropout = derive(self.seed, epoch.wrapping_mul(2).wrapping_add(1));
            for (batch, Data { inputs, targets }) in data.shuffled_batches(self.batch_size, order)?.enumerate() {
                let samples = inputs.shape()[0];
                let trace = network.run(inputs, Mode::Training { seed: derive(dropout, batch) })?;
                let (loss, gradient) = self.loss.evaluate(trace.output(), &targets)?;
                if !loss.is_finite() {
                    sound.restore(network);
                    return Err(Error::Diverged { loss, epoch });
                }
                sound.take(network);
                let (_, gradients) = network.propagate(&trace, gradient, false)?;
                network.update(optimizer, learning_rate, &gradients)?;
                network.update_statistics(&trace)?;
                done += 1;
                sum += loss * samples as f64;
                let (epochs, batches) = (self.epochs, batches);
                if progress(&Progress { epoch, epochs, batch, batches, loss, learning_rate }).is_break() {
                    return Err(Error::Cancelled { done, total });
                }
            }
            losses.push(sum / data.len() as f64);
        }
        // No forward pass follows the last step, so its result is looked at directly.
        if network.state().iter().any(|(_, array)| array.iter().any(|value| !value.is_finite())) {
            sound.restore(network);
            return Err(Error::Diverged { loss: f64::NAN, epoch: self.epochs - 1 });
        }
        Ok(History { losses })
    }
}

/// A copy of a network's state, in memory that is used again.
#[derive(Default)]
struct Snapshot(Vec<f32>);

impl Snapshot {
    fn take(&mut self, network: &Network) {
        self.0.clear();
        network.state().iter().for_each(|(_, array)| self.0.extend(array.iter()));
    }

    /// Does nothing if none was taken.
    fn restore(&self, network: &mut Network) {
        let mut values = self.0.iter();
        for (_, _, mut array) in network.arrays_mut() {
            array.iter_mut().zip(values.by_ref()).for_each(|(to, from)| *to = *from);
        }
    }
}
