//! Networks that learn from one another.

use std::{ops::ControlFlow, sync::Arc};

use ndarray::ArrayD;

use super::{Distiller, Schedule, Signals, settings::not_negative, soft_targets::SoftTargets, term::narrow};
use crate::{
    error::{Error, Result},
    nn::{
        self, Callback, Data, History, Mode, Moment, Network, Objective, Optimizer, Pass, Progress, Slopes, Targets,
        Trace, Trainee, Training,
    },
};

/// Deep mutual learning (Zhang et al. 2017): networks trained side by side on the same batches, each by the labels and by
/// what the others make of them, `L_i = w · labels + v / (K - 1) · Σ_{j ≠ i} term(i, j)`. All see a batch before any takes
/// its step.
///
/// | setting | default | range |
/// |---|---|---|
/// | [`hard_labels`](Mutual::hard_labels) | 1 | a weight w of at least 0, or a [`Schedule`] |
/// | [`term`](Mutual::term) | 1, [`SoftTargets`] at temperature 1 | a weight v and any loss on outputs |
///
/// ```
/// use tersor::{distill::Mutual, nn::{Adam, Data, Network, Optimizer, Training}};
/// # use ndarray::Array2;
/// # let data = Data::classes(Array2::<f32>::eye(4), [0, 1, 0, 1])?;
///
/// let mut wide = Network::builder(1).linear(4, 16).relu().linear(16, 2).build()?;
/// let mut narrow = Network::builder(2).linear(4, 4).relu().linear(4, 2).build()?;
/// let histories = Mutual::new().train(
///     &Training::new(3),
///     &mut [&mut wide, &mut narrow],
///     &data,
///     &mut [&mut Adam::new(1e-3), &mut Adam::new(1e-3)],
///     &mut |_| std::ops::ControlFlow::Continue(()),
/// )?;
/// assert_eq!(histories.len(), 2);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Mutual {
    hard_labels: Schedule,
    weight: Schedule,
    distiller: Arc<dyn Distiller>,
}

impl Default for Mutual {
    fn default() -> Mutual {
        let distiller = Arc::new(SoftTargets::new(1.0));
        Mutual { hard_labels: Schedule::constant(1.0), weight: Schedule::constant(1.0), distiller }
    }
}

impl Mutual {
    /// As in the paper: labels, and soft targets at temperature 1, of the same weight.
    pub fn new() -> Mutual {
        Mutual::default()
    }

    /// Sets the weight of the data's own targets.
    pub fn hard_labels(self, weight: impl Into<Schedule>) -> Mutual {
        Mutual { hard_labels: weight.into(), ..self }
    }

    /// Sets the loss between two networks, and its weight.
    pub fn term(self, weight: impl Into<Schedule>, distiller: impl Distiller + 'static) -> Mutual {
        Mutual { weight: weight.into(), distiller: Arc::new(distiller), ..self }
    }

    /// Trains the networks, each by its own optimizer. The loss that `progress` is told is their mean.
    ///
    /// # Errors
    /// Those of [`Training::train_with`]; before the first step [`Error::Conflict`] for fewer than two networks,
    /// [`Error::Shape`] for another number of optimizers, [`Error::Term`] around what the loss between two finds wrong.
    pub fn train(
        &self,
        training: &Training,
        networks: &mut [&mut Network],
        data: &Data,
        optimizers: &mut [&mut dyn Optimizer],
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Vec<History>> {
        if networks.len() < 2 {
            let what = format!("{} networks cannot learn from one another", networks.len());
            return Err(Error::Conflict { what, remedy: "give at least two" });
        }
        if networks.len() != optimizers.len() {
            let (expected, found) = (vec![networks.len()], vec![optimizers.len()]);
            return Err(Error::Shape { what: "the list of optimizers", expected, found });
        }
        let mut nobody: Vec<()> = vec![(); networks.len()];
        let pairs = networks.iter_mut().zip(optimizers).zip(&mut nobody);
        let trainee = |((network, optimizer), callback)| {
            let (network, optimizer): (&mut &mut Network, &mut &mut dyn Optimizer) = (network, optimizer);
            Trainee { network, optimizer: *optimizer, callback: callback as &mut dyn Callback }
        };
        let mut trainees: Vec<Trainee<'_>> = pairs.map(trainee).collect();
        training.descend(&mut trainees, data, &mut Peers { mutual: self, training }, progress)
    }
}

#[derive(Debug)]
struct Peers<'a> {
    mutual: &'a Mutual,
    training: &'a Training,
}

impl Peers<'_> {
    fn slopes(&self, traces: &[&Trace], own: usize, targets: &Targets, share: f64) -> Result<Slopes> {
        let output = traces[own].output();
        let mut slopes = Slopes { loss: 0.0, output: ArrayD::zeros(output.shape()), layers: vec![] };
        let labels = self.mutual.hard_labels.at(share);
        if labels != 0.0 {
            let (loss, gradient) = self.training.own_loss().evaluate(output.view(), targets)?;
            slopes.loss += labels * loss;
            slopes.output.scaled_add(labels as f32, &gradient);
        }
        let weight = self.mutual.weight.at(share) / (traces.len() - 1) as f64;
        for (_, peer) in traces.iter().enumerate().filter(|(index, _)| *index != own) {
            let peer = peer.output();
            let mut signals = Signals::new(&output, &peer).progress(share);
            if let Targets::Classes(labels) = targets {
                signals = signals.labels(labels);
            }
            let loss = self.mutual.distiller.apply(&signals);
            let loss =
                loss.map_err(|error| Error::Term { term: "between networks".into(), source: Box::new(error) })?;
            slopes.loss += weight * loss.value;
            slopes.output += &narrow(&loss.gradient, weight);
        }
        Ok(slopes)
    }
}

impl Objective for Peers<'_> {
    fn check(&mut self, networks: &[&Network], data: &Data) -> Result<()> {
        self.mutual.hard_labels.check("the weight of hard_labels", not_negative)?;
        self.mutual.weight.check("the weight of a term", not_negative)?;
        for network in networks {
            let output = network.output_shape(data.inputs().shape())?;
            if self.mutual.hard_labels.ever_positive() {
                self.training.own_loss().check(&output, data.targets())?;
            }
        }
        let few = data.select(&(0..data.len().min(2)).collect::<Vec<_>>())?;
        let traces = networks.iter().map(|network| network.trace(few.inputs(), Mode::Evaluation));
        let traces = traces.collect::<Result<Vec<_>>>()?;
        let traces: Vec<_> = traces.iter().collect();
        (0..traces.len()).try_for_each(|own| self.slopes(&traces, own, few.targets(), 0.0).map(|_| ()))
    }

    fn evaluate(&mut self, passes: &[Pass<'_>], batch: &nn::Batch, at: &Moment) -> Result<Vec<Slopes>> {
        let traces: Vec<_> = passes.iter().map(|pass| pass.trace).collect();
        (0..traces.len()).map(|own| self.slopes(&traces, own, &batch.targets, at.share)).collect()
    }
}
