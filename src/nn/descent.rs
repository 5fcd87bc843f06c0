//! The loop under every training: batches, what is to be made small, steps.

use std::{fmt::Debug, ops::ControlFlow};

use ndarray::ArrayD;

use super::{
    Callback, Data, History, Mode, Network, Optimizer, Progress, Targets, Trace, Training, inner::Inner,
    shape::at_least_one,
};
use crate::{Error, Result, random::derive};

/// A network in training, with its optimizer and what takes part.
pub(crate) struct Trainee<'a> {
    pub(crate) network: &'a mut Network,
    pub(crate) optimizer: &'a mut dyn Optimizer,
    pub(crate) callback: &'a mut dyn Callback,
}

/// Some samples of a data set.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) targets: Targets,
    /// Where they are in the data set.
    pub(crate) samples: Vec<usize>,
}

/// A moment of a training.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// The step, counted from 0.
    pub(crate) step: usize,
    /// The share of the training that is over.
    pub(crate) share: f64,
    pub(crate) epoch: usize,
}

/// What a network made of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass<'a> {
    pub(crate) network: &'a Network,
    pub(crate) trace: &'a Trace,
}

/// A loss of one network, and its gradients.
#[derive(Debug)]
pub(crate) struct Slopes {
    pub(crate) loss: f64,
    /// For the network's output.
    pub(crate) output: ArrayD<f32>,
    /// For the outputs of layers, by full name.
    pub(crate) layers: Vec<(String, ArrayD<f32>)>,
}

/// What a training makes small: a loss of everything that the networks made of a batch.
pub(crate) trait Objective: Debug {
    /// Whether it fits networks and data; asked before the first step.
    fn check(&mut self, networks: &[&Network], data: &Data) -> Result<()>;

    /// A loss for each network, whose trace starts with the batch's inputs.
    fn evaluate(&mut self, passes: &[Pass<'_>], batch: &Batch, at: &Moment) -> Result<Vec<Slopes>>;

    /// Whether the objective's own parameters are finite.
    fn is_finite(&self) -> bool {
        true
    }

    /// A step of the objective's own parameters, after that of the network they belong to.
    fn step(&mut self, network: usize, optimizer: &mut dyn Optimizer, learning_rate: f64) -> Result<()> {
        let _ = (network, optimizer, learning_rate);
        Ok(())
    }
}

impl Training {
    /// Trains networks side by side on the same batches.
    pub(crate) fn descend(
        &self,
        trainees: &mut [Trainee<'_>],
        data: &Data,
        objective: &mut dyn Objective,
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Vec<History>> {
        at_least_one("epochs", self.epochs)?;
        at_least_one("batch_size", self.batch_size)?;
        self.schedule.check()?;
        objective.check(&trainees.iter().map(|trainee| &*trainee.network).collect::<Vec<_>>(), data)?;

        let batches = data.len().div_ceil(self.batch_size);
        let total = self.epochs.saturating_mul(batches);
        let before: Vec<Network> = trainees.iter().map(|trainee| trainee.network.clone()).collect();
        for Trainee { network, callback, .. } in &mut *trainees {
            if let Err(error) = callback.start(network, total) {
                restore(trainees, before, |network, before| *network = before);
                return Err(error);
            }
        }
        drop(before);
        let mut sound: Vec<Snapshot> = trainees.iter().map(|_| Snapshot::default()).collect();
        let mut histories: Vec<History> = trainees.iter().map(|_| History { losses: vec![] }).collect();
        let mut done = 0;
        for epoch in 0..self.epochs {
            let mut sums = vec![0.0; trainees.len()];
            let order = derive(self.seed, epoch.wrapping_mul(2));
            let dropout = derive(self.seed, epoch.wrapping_mul(2).wrapping_add(1));
            for (batch, (samples, Data { inputs, targets })) in
                data.numbered_batches(self.batch_size, order)?.enumerate()
            {
                let inputs = std::iter::repeat_n(inputs, trainees.len()); // not copied for the last
                let traces = trainees.iter().zip(inputs).enumerate().map(|(index, (trainee, inputs))| {
                    let seed = derive(dropout, batch);
                    let seed = if index == 0 { seed } else { derive(seed, index) };
                    trainee.network.run(inputs, Mode::Training { seed })
                });
                let traces = traces.collect::<Result<Vec<_>>>()?;
                let passes = trainees.iter().zip(&traces);
                let passes: Vec<_> =
                    passes.map(|(trainee, trace)| Pass { network: &*trainee.network, trace }).collect();
                let of_batch = Batch { targets, samples };
                let at = Moment { step: done, share: done as f64 / total as f64, epoch };
                let slopes = objective.evaluate(&passes, &of_batch, &at);
                // What is no longer finite may also be refused by a loss.
                let diverged = match &slopes {
                    Ok(slopes) => slopes.iter().map(|slopes| slopes.loss).find(|loss| !loss.is_finite()),
                    Err(_) => {
                        let finite = objective.is_finite() && traces.iter().all(|trace| trace.is_finite());
                        (!finite).then_some(f64::NAN)
                    }
                };
                if let Some(loss) = diverged {
                    restore(trainees, sound, |network, sound| sound.restore(network));
                    return Err(Error::Diverged { loss, epoch });
                }
                let slopes = slopes?;
                let (mut losses, mut rate) = (0.0, 0.0);
                for (index, (trace, Slopes { loss, output, layers })) in traces.iter().zip(slopes).enumerate() {
                    let Trainee { network, optimizer, callback } = &mut trainees[index];
                    let learning_rate = self.schedule.learning_rate(optimizer.learning_rate(), epoch);
                    sound[index].take(network);
                    let at = Progress { epoch, epochs: self.epochs, batch, batches, loss, learning_rate };
                    let (_, mut gradients) = network.propagate_with(trace, output, &Inner::new(&layers), false)?;
                    callback.before_step(&at, network, &mut gradients)?;
                    network.update(*optimizer, learning_rate, &gradients)?;
                    objective.step(index, *optimizer, learning_rate)?;
                    network.update_statistics(trace)?;
                    callback.after_step(&at, network)?;
                    sums[index] += loss * of_batch.samples.len() as f64;
                    losses += loss;
                    rate = learning_rate;
                }
                done += 1;
                let loss = losses / trainees.len() as f64;
                let at = Progress { epoch, epochs: self.epochs, batch, batches, loss, learning_rate: rate };
                if progress(&at).is_break() {
                    return Err(Error::Cancelled { done, total });
                }
            }
            for (history, sum) in histories.iter_mut().zip(sums) {
                history.losses.push(sum / data.len() as f64);
            }
            if trainees.iter().any(|trainee| trainee.callback.is_done()) {
                break;
            }
        }
        // No forward pass follows the last step, so its result is looked at directly.
        let is_finite =
            |network: &Network| network.state().iter().all(|(_, array)| array.iter().all(|x| x.is_finite()));
        if trainees.iter().any(|trainee| !is_finite(trainee.network)) {
            restore(trainees, sound, |network, sound| sound.restore(network));
            return Err(Error::Diverged { loss: f64::NAN, epoch: histories[0].losses.len() - 1 });
        }
        for Trainee { network, callback, .. } in trainees {
            callback.finish(network)?;
        }
        Ok(histories)
    }
}

/// Puts every network back to its copy.
fn restore<T>(trainees: &mut [Trainee<'_>], copies: Vec<T>, put: impl Fn(&mut Network, T)) {
    trainees.iter_mut().zip(copies).for_each(|(trainee, copy)| put(trainee.network, copy));
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
        network.apply_masks(); // which may have come after the copy
    }
}
