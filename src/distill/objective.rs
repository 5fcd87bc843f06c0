//! What a distillation makes small, step by step.

use ndarray::{ArrayD, ArrayViewD};

use super::{
    Answer, Average, Batch, Distillation, Ensemble, Loss, Signals,
    report::{Distilled, Part},
    term::{Own, narrow},
};
use crate::{
    error::{Error, Result},
    nn::{
        self, Data, History, Mode, Moment, Network, Objective, Optimizer, Pass, Slopes, Targets, Trace, Training,
        expect_labels, expect_shape, not_negative,
    },
    random::derive,
};

/// How weights become factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Balance {
    /// They are factors.
    Factors,
    /// They are ratios of gradient norms, measured at every so many steps.
    Norms { every: usize },
}

/// The labels and the terms of a distillation.
#[derive(Debug)]
pub(super) struct Together<'a> {
    distillation: &'a Distillation<'a>,
    training: &'a Training,
    /// The layers of each teacher that its terms read, in their order; and where among them each term's begin.
    asked: Vec<Vec<String>>,
    offsets: Vec<usize>,
    own: Vec<Own>,
    /// Whether every label is one of the classes: only then do terms see them.
    labelled: bool,
    /// Of each part, by what its weight is multiplied, and whether that was measured.
    scales: Vec<f64>,
    measured: Vec<bool>,
    parts: Vec<Part>,
    /// Of the epoch so far: each part's loss summed over the samples for which it had a weight, and these.
    sums: Vec<(f64, usize)>,
    epoch: usize,
}

/// A part's loss and its gradients, not yet weighed.
struct Share {
    loss: f64,
    output: Option<ArrayD<f32>>,
    layers: Vec<(String, ArrayD<f32>)>,
    own: Vec<ArrayD<f64>>,
}

impl<'a> Together<'a> {
    pub(super) fn new(distillation: &'a Distillation<'a>, training: &'a Training) -> Together<'a> {
        let terms = distillation.terms.iter().enumerate().map(|(index, term)| term.name(index));
        let names = std::iter::once("labels".to_owned()).chain(terms);
        let parts: Vec<_> = names.map(|name| Part { name, losses: vec![], factors: vec![] }).collect();
        let mut asked = vec![vec![]; distillation.teachers.len()];
        let offsets = distillation.terms.iter().map(|term| {
            // No such teacher: `check` says so.
            let Some(asked) = asked.get_mut(term.teacher) else { return 0 };
            let offset = asked.len();
            asked.extend_from_slice(term.of_teacher());
            offset
        });
        let offsets = offsets.collect();
        Together {
            distillation,
            training,
            asked,
            offsets,
            own: vec![],
            labelled: false,
            scales: vec![1.0; parts.len()],
            measured: vec![false; parts.len()],
            sums: vec![(0.0, 0); parts.len()],
            parts,
            epoch: 0,
        }
    }

    pub(super) fn report(mut self, history: History) -> Distilled {
        self.close_epoch(1.0);
        if !self.distillation.hard_labels.ever_positive() {
            self.parts.remove(0);
        }
        Distilled { history, parts: self.parts }
    }

    /// The weights of all parts, the labels first.
    fn weights(&self, share: f64) -> Vec<f64> {
        let schedules = std::iter::once(&self.distillation.hard_labels);
        schedules
            .chain(self.distillation.terms.iter().map(|term| &term.weight))
            .map(|weight| weight.at(share))
            .collect()
    }

    fn close_epoch(&mut self, share: f64) {
        let weights = self.weights(share);
        for (index, part) in self.parts.iter_mut().enumerate() {
            let (sum, samples) = std::mem::take(&mut self.sums[index]);
            part.losses.push(sum / samples as f64);
            part.factors.push(weights[index] * self.scales[index]);
        }
    }

    /// What each teacher makes of a batch: its outputs and the layers that its terms read, in their order.
    fn answers(&self, batch: &Batch<'_>) -> Result<Vec<Answer>> {
        let answers = self.distillation.teachers.iter().zip(&self.asked).map(|(teacher, asked)| {
            let answer = teacher.answer(batch, asked)?;
            let what = "the list of layers that a teacher answered with";
            expect_shape(what, &[asked.len()], &[answer.layers.len()]).map(|()| answer)
        });
        answers.collect()
    }

    /// The parts of positive weight.
    fn shares(
        &self,
        trace: &Trace,
        batch: &nn::Batch,
        answers: &[Answer],
        weights: &[f64],
        progress: f64,
    ) -> Result<Vec<Option<Share>>> {
        let of_labels = || {
            let (loss, output) = self.training.own_loss().evaluate(trace.output(), &batch.targets)?;
            Ok(Share { loss, output: Some(output), layers: vec![], own: vec![] })
        };
        let of_term = |index: usize| {
            let term = &self.distillation.terms[index];
            let own = self.own[index].values();
            let loss =
                self.term(index, trace, batch, answers, progress, &own).map_err(|error| self.fault(index, error))?;
            let output = term.layers.is_none().then(|| narrow(&loss.gradient, 1.0));
            Ok(Share { loss: loss.value, output, layers: term.by_layer(&loss, 1.0), own: loss.parameters })
        };
        let parts = weights.iter().enumerate();
        parts
            .map(|(index, weight)| match index.checked_sub(1) {
                _ if *weight == 0.0 => Ok(None),
                None => of_labels().map(Some),
                Some(term) => of_term(term).map(Some),
            })
            .collect()
    }

    /// The arrays that a term reads.
    fn pairs<'b>(
        &self,
        index: usize,
        trace: &'b Trace,
        answers: &'b [Answer],
    ) -> Result<Vec<[ArrayViewD<'b, f32>; 2]>> {
        let term = &self.distillation.terms[index];
        let Answer { outputs, layers } = &answers[term.teacher];
        term.pairs(trace, outputs, &layers[self.offsets[index]..])
    }

    fn term(
        &self,
        index: usize,
        trace: &Trace,
        batch: &nn::Batch,
        answers: &[Answer],
        progress: f64,
        own: &[ArrayD<f64>],
    ) -> Result<Loss> {
        let term = &self.distillation.terms[index];
        let pairs = self.pairs(index, trace, answers)?;
        let mut signals = signals(&pairs).progress(progress).parameters(own);
        if let (Targets::Classes(labels), true) = (&batch.targets, self.labelled) {
            signals = signals.labels(labels);
        }
        if term.layers.is_some() {
            return signals.checked(term.distiller.apply(&signals)?);
        }
        // A row has the weight of its sample.
        let rows = pairs[0][0].len() / pairs[0][0].shape().last().copied().unwrap_or(1).max(1);
        let weights: Option<Vec<f64>> = self.distillation.sample_weights.as_ref().map(|weights| {
            let of_samples = batch.samples.iter().map(|sample| weights[*sample]);
            of_samples.flat_map(|weight| std::iter::repeat_n(weight, rows / batch.samples.len())).collect()
        });
        if let Some(weights) = &weights {
            signals = signals.sample_weights(weights);
        }
        if let Some(weights) = &self.distillation.class_weights {
            signals = signals.class_weights(weights);
        }
        if let (None, 1) = (&self.distillation.ensemble, answers.len()) {
            return signals.checked(term.distiller.apply(&signals)?);
        }
        let outputs: Vec<_> = answers.iter().map(|answer| answer.outputs.view()).collect();
        let mean = Ensemble::new(Average::Probabilities);
        let ensemble = self.distillation.ensemble.as_ref().unwrap_or(&mean);
        signals.checked(ensemble.apply(&term.distiller, &signals, &outputs)?)
    }

    /// An error, told as a term's.
    fn fault(&self, term: usize, error: Error) -> Error {
        Error::Term { term: self.distillation.terms[term].name(term), source: Box::new(error) }
    }

    /// Scales the parts so that their weighted gradient norms are as the weights, by the first part's norm. A part without
    /// gradient keeps its scale.
    fn measure(&mut self, pass: &Pass<'_>, shares: &[Option<Share>]) -> Result<()> {
        let mut first = None;
        for (index, share) in shares.iter().enumerate() {
            let Some(share) = share else { continue };
            self.measured[index] = true;
            let output = share.output.clone().unwrap_or_else(|| ArrayD::zeros(pass.trace.output().shape()));
            let gradients = pass.network.backward_with(pass.trace, &output, &share.layers)?.parameters;
            let squares = gradients.iter().flat_map(|(_, gradient)| gradient).map(|g| f64::from(*g).powi(2));
            let norm = squares.sum::<f64>().sqrt();
            let first = *first.get_or_insert(norm);
            if first > 0.0 && norm > 0.0 && (first / norm).is_finite() {
                self.scales[index] = first / norm;
            }
        }
        Ok(())
    }
}

/// What a loss is given of one pair of arrays, or two.
fn signals<'a>(pairs: &'a [[ArrayViewD<'_, f32>; 2]]) -> Signals<'a> {
    let signals = Signals::new(&pairs[0][0], &pairs[0][1]);
    match pairs.get(1) {
        Some([student, teacher]) => signals.and(student, teacher),
        None => signals,
    }
}

impl Objective for Together<'_> {
    fn check(&mut self, networks: &[&Network], data: &Data) -> Result<()> {
        let Distillation { teachers, terms, hard_labels, balance, sample_weights, .. } = self.distillation;
        hard_labels.check("the weight of hard_labels", not_negative)?;
        if let Balance::Norms { every: 0 } = balance {
            return Err(Error::Setting { setting: "every", value: 0.0, bound: "at least 1" });
        }
        if terms.is_empty() {
            return Err(Error::Conflict {
                what: "the distillation has no term".into(),
                remedy: "add one with Distillation::term, or train without a teacher",
            });
        }
        teachers.iter().try_for_each(|teacher| teacher.check(data))?;
        let network = networks[0];
        let output = network.output_shape(data.inputs().shape())?;
        if hard_labels.ever_positive() {
            if let Targets::Unlabelled = data.targets() {
                return Err(Error::Conflict {
                    what: "the data have no labels, but hard_labels has a weight".into(),
                    remedy: "make the data with Data::classes, or leave hard_labels out",
                });
            }
            self.training.own_loss().check(&output, data.targets())?;
        }
        if !hard_labels.ever_positive() && terms.iter().all(|term| !term.weight.ever_positive()) {
            return Err(Error::Conflict {
                what: "every weight of the distillation is 0".into(),
                remedy: "give a term, or hard_labels, a weight above 0",
            });
        }
        for weight in sample_weights.iter().flatten() {
            not_negative("a sample weight", *weight)?;
        }
        if let Some(weights) = sample_weights {
            expect_shape("sample_weights", &[data.len()], &[weights.len()])?;
        }
        let wrong_label = match (data.targets(), output.last()) {
            (Targets::Classes(labels), Some(classes)) => expect_labels(labels, *classes).err(),
            _ => None,
        };
        self.labelled = wrong_label.is_none();

        // The first two samples show what does not fit, before any step.
        let few: Vec<usize> = (0..data.len().min(2)).collect();
        let batch = data.select(&few)?;
        let trace = network.trace(batch.inputs(), Mode::Evaluation)?;
        let of_teachers = Batch { samples: &few, inputs: batch.inputs().view() };
        for (index, term) in terms.iter().enumerate() {
            let asked = match teachers.get(term.teacher) {
                Some(teacher) => teacher.answer(&of_teachers, term.of_teacher()),
                None => {
                    let bound = "the index of a teacher";
                    Err(Error::Setting { setting: "teacher", value: term.teacher as f64, bound })
                }
            };
            asked.map_err(|error| self.fault(index, error))?;
        }
        let answers = self.answers(&of_teachers)?;
        let of_batch = nn::Batch { targets: batch.targets().clone(), samples: few.clone() };
        for (index, term) in terms.iter().enumerate() {
            let of_term = || {
                term.weight.check("the weight of a term", not_negative)?;
                let pairs = self.pairs(index, &trace, &answers)?;
                let seed = derive(derive(self.training.own_seed(), usize::MAX), index);
                let own = Own::new(index, signals(&pairs).initial(&*term.distiller, seed)?);
                self.term(index, &trace, &of_batch, &answers, 0.0, &own.values())?;
                Ok(own)
            };
            match (of_term(), &wrong_label) {
                (Ok(own), _) => self.own.push(own),
                // What fails without labels may be in need of them.
                (Err(Error::Conflict { .. }), Some(Error::Label { label, index: at, classes })) => {
                    let wrong = Error::Label { label: *label, index: *at, classes: *classes };
                    return Err(self.fault(index, wrong));
                }
                (Err(error), _) => return Err(self.fault(index, error)),
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, passes: &[Pass<'_>], batch: &nn::Batch, at: &Moment) -> Result<Vec<Slopes>> {
        if at.epoch > self.epoch {
            self.close_epoch(at.share);
            self.epoch = at.epoch;
        }
        let pass = &passes[0];
        let weights = self.weights(at.share);
        let answers = self.answers(&Batch { samples: &batch.samples, inputs: pass.trace.input() })?;
        let shares = self.shares(pass.trace, batch, &answers, &weights, at.share)?;
        if let Balance::Norms { every } = self.distillation.balance
            && (at.step.is_multiple_of(every)
                || shares.iter().zip(&self.measured).any(|(share, measured)| share.is_some() && !measured))
        {
            self.measure(pass, &shares)?;
        }
        let (mut loss, mut output) = (0.0, ArrayD::zeros(pass.trace.output().shape()));
        let mut layers = vec![];
        for (index, share) in shares.into_iter().enumerate() {
            let Some(share) = share else { continue };
            let factor = weights[index] * self.scales[index];
            loss += factor * share.loss;
            self.sums[index].0 += share.loss * batch.samples.len() as f64;
            self.sums[index].1 += batch.samples.len();
            if let Some(gradient) = share.output {
                output.scaled_add(factor as f32, &gradient);
            }
            layers.extend(share.layers.into_iter().map(|(name, gradient)| (name, gradient * factor as f32)));
            if let Some(term) = index.checked_sub(1) {
                self.own[term].set_gradients(&share.own, factor);
            }
        }
        Ok(vec![Slopes { loss, output, layers }])
    }

    fn is_finite(&self) -> bool {
        self.own.iter().all(Own::is_finite)
    }

    fn step(&mut self, _: usize, optimizer: &mut dyn Optimizer, learning_rate: f64) -> Result<()> {
        self.own.iter_mut().try_for_each(|own| own.step(optimizer, learning_rate))
    }
}
