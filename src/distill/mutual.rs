//! Networks that learn from one another.

use std::{ops::ControlFlow, sync::Arc};

use ndarray::ArrayD;

use super::{Distiller, Schedule, Signals, soft_targets::SoftTargets, term::narrow};
use crate::{
    error::{Error, Result},
    nn::{
        self, Callback, Data, History, Mode, Moment, Network, Objective, Optimizer, Pass, Progress, Slopes, Targets,
        Trace, Trainee, Training, expect_labels, expect_shape, not_negative,
    },
};

/// Deep mutual learning (Zhang et al. 2017): networks trained side by side on the same batches, each by the labels and by
/// what the others make of them, `L_i = w · labels + Σ_terms v / (K - 1) · Σ_{j ≠ i} term(i, j)`. All see a batch before any
/// takes its step.
///
/// | setting | default | range |
/// |---|---|---|
/// | [`hard_labels`](Mutual::hard_labels) | 1 | a weight w of at least 0, or a [`Schedule`] |
/// | [`term`](Mutual::term) | weight 1, [`SoftTargets`] at temperature 1 | weights v and losses on outputs, without parameters of their own |
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
    /// Those of the paper if there are none.
    terms: Vec<(Schedule, Arc<dyn Distiller>)>,
}

impl Default for Mutual {
    fn default() -> Mutual {
        Mutual { hard_labels: Schedule::constant(1.0), terms: vec![] }
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

    /// Adds a loss between two networks' outputs; the first takes the place of the paper's.
    pub fn term(mut self, weight: impl Into<Schedule>, distiller: impl Distiller + 'static) -> Mutual {
        self.terms.push((weight.into(), Arc::new(distiller)));
        self
    }

    /// Trains the networks, each by its own optimizer. The loss that `progress` is told is their mean.
    ///
    /// # Errors
    /// As [`train_with`](Mutual::train_with).
    pub fn train(
        &self,
        training: &Training,
        networks: &mut [&mut Network],
        data: &Data,
        optimizers: &mut [&mut dyn Optimizer],
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Vec<History>> {
        let mut nobody = vec![(); networks.len()];
        let mut callbacks: Vec<_> = nobody.iter_mut().map(|nobody| nobody as &mut dyn Callback).collect();
        self.train_with(training, networks, data, optimizers, &mut callbacks, progress)
    }

    /// Trains the networks with something that takes part in the training of each: pruning, rounding, the choice of the best
    /// epoch. The training ends early if any of them wants it.
    ///
    /// # Errors
    /// Those of [`Training::train_with`]; before the first step [`Error::Conflict`] for fewer than two networks,
    /// [`Error::Shape`] for another number of optimizers or callbacks, [`Error::Term`] around what a loss between two finds
    /// wrong.
    pub fn train_with(
        &self,
        training: &Training,
        networks: &mut [&mut Network],
        data: &Data,
        optimizers: &mut [&mut dyn Optimizer],
        callbacks: &mut [&mut dyn Callback],
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Vec<History>> {
        if networks.len() < 2 {
            let what = format!("{} networks cannot learn from one another", networks.len());
            return Err(Error::Conflict { what, remedy: "give at least two" });
        }
        for (what, found) in [("the list of optimizers", optimizers.len()), ("the list of callbacks", callbacks.len())]
        {
            expect_shape(what, &[networks.len()], &[found])?;
        }
        let mut trainees = Vec::with_capacity(networks.len());
        for ((network, optimizer), callback) in networks.iter_mut().zip(optimizers).zip(callbacks) {
            trainees.push(Trainee { network, optimizer: &mut **optimizer, callback: &mut **callback });
        }
        training.descend(&mut trainees, data, &mut Peers { mutual: self, training, labelled: true }, progress)
    }
}

#[derive(Debug)]
struct Peers<'a> {
    mutual: &'a Mutual,
    training: &'a Training,
    /// Whether every label is one of the classes: only then do terms see them.
    labelled: bool,
}

impl Peers<'_> {
    fn terms(&self) -> Vec<(Schedule, Arc<dyn Distiller>)> {
        match &self.mutual.terms[..] {
            [] => vec![(Schedule::constant(1.0), Arc::new(SoftTargets::new(1.0)))],
            terms => terms.to_vec(),
        }
    }

    fn slopes(&self, traces: &[&Trace], own: usize, targets: &Targets, share: f64) -> Result<Slopes> {
        let output = traces[own].output();
        let mut slopes = Slopes { loss: 0.0, output: ArrayD::zeros(output.shape()), layers: vec![] };
        let labels = self.mutual.hard_labels.at(share);
        if labels != 0.0 {
            let (loss, gradient) = self.training.own_loss().evaluate(output.view(), targets)?;
            slopes.loss += labels * loss;
            slopes.output.scaled_add(labels as f32, &gradient);
        }
        for (index, (weight, distiller)) in self.terms().iter().enumerate() {
            let weight = weight.at(share) / (traces.len() - 1) as f64;
            for (_, peer) in traces.iter().enumerate().filter(|(index, _)| *index != own) {
                let peer = peer.output();
                let mut signals = Signals::new(&output, &peer).progress(share);
                if let (Targets::Classes(labels), true) = (targets, self.labelled) {
                    signals = signals.labels(labels);
                }
                let loss = distiller.apply(&signals).and_then(|loss| signals.checked(loss));
                let fault =
                    |error| Error::Term { term: format!("term {index}, between networks"), source: Box::new(error) };
                let loss = loss.map_err(fault)?;
                slopes.loss += weight * loss.value;
                slopes.output += &narrow(&loss.gradient, weight);
            }
        }
        Ok(slopes)
    }
}

impl Objective for Peers<'_> {
    fn check(&mut self, networks: &[&Network], data: &Data) -> Result<()> {
        self.mutual.hard_labels.check("the weight of hard_labels", not_negative)?;
        self.mutual.terms.iter().try_for_each(|(weight, _)| weight.check("the weight of a term", not_negative))?;
        self.labelled = true;
        for network in networks {
            let output = network.output_shape(data.inputs().shape())?;
            if self.mutual.hard_labels.ever_positive() {
                self.training.own_loss().check(&output, data.targets())?;
            }
            if let (Targets::Classes(labels), Some(classes)) = (data.targets(), output.last()) {
                self.labelled &= expect_labels(labels, *classes).is_ok();
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
