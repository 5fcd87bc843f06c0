//! A weighted sum of losses.

use std::sync::Arc;

use ndarray::ArrayD;

use super::{Distiller, Loss, Schedule, Signals, projected::at_any_width, signals::wrong_number};
use crate::{
    error::{Error, Result},
    nn::not_negative,
    random::derive,
};

/// A weighted sum of losses on the same signals, as one loss: the classic `0.9 KD + 0.1 cross-entropy`, say.
///
/// | setting | default | range |
/// |---|---|---|
/// | `term`: a weight and any [`Distiller`], a mix too | none | weight at least 0; a number or a [`Schedule`] |
///
/// Its own [`parameters`](Distiller::parameters) are those of the terms, one term after the other, named `0.weight`, `1.bias`
/// by the position of the term; each term has a seed of its own. Its [`temperature`](Distiller::temperature) is the first
/// that is not 1. A term that [compares channels](Distiller::compares_channels) is [`projected`](Distiller::projected) where
/// widths differ, each by a map of its own: a mix is the sum of its terms.
///
/// ```
/// use ndarray::array;
/// use tersor::{Distiller, Signals, distill::Schedule};
///
/// let mix = Distiller::mix()
///     .term(0.9, Distiller::soft_targets(4.0))
///     .term(Schedule::linear(0.5, 0.1), Distiller::hard_labels());
/// let (student, teacher) = (array![[1.0_f32, 2.0, 3.0]], array![[1.0_f32, 2.0, 4.0]]);
/// let loss = mix.apply(&Signals::new(&student, &teacher).labels(&[2]).progress(1.0))?;
/// assert!((loss.value - (0.9 * 0.1241053348 + 0.1 * 0.4076059645)).abs() < 1e-9);
/// # Ok::<(), tersor::Error>(())
/// ```
///
/// # Errors
/// [`apply`](Distiller::apply) gives [`Error::Empty`] for a mix of nothing, [`Error::Setting`] for a weight below 0,
/// [`Error::Conflict`] for another number of parameters than the terms have, and those of the terms.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Mix {
    terms: Vec<(Schedule, Arc<dyn Distiller>)>,
}

impl Mix {
    /// No term yet.
    pub fn new() -> Mix {
        Mix::default()
    }

    /// Adds a loss, times a weight.
    pub fn term(mut self, weight: impl Into<Schedule>, distiller: impl Distiller + 'static) -> Mix {
        self.terms.push((weight.into(), at_any_width(distiller)));
        self
    }

    /// The parameters of all terms, by their positions.
    fn named(
        &self,
        seed: u64,
        of_term: impl Fn(&dyn Distiller, u64) -> Result<Vec<(String, ArrayD<f64>)>>,
    ) -> Result<Vec<(String, ArrayD<f64>)>> {
        let mut all = vec![];
        for (index, (_, term)) in self.terms.iter().enumerate() {
            let own = of_term(term, derive(seed, index))?;
            all.extend(own.into_iter().map(|(name, array)| (format!("{index}.{name}"), array)));
        }
        Ok(all)
    }

    /// How many of the given parameters belong to each term.
    fn shares(&self, signals: &Signals<'_>) -> Result<Vec<usize>> {
        let given = signals.given().len();
        if given == 0 {
            return Ok(vec![0; self.terms.len()]); // a term that has some says so itself
        }
        let count = |(_, term): &(Schedule, Arc<dyn Distiller>)| Ok(signals.initial(term, 0)?.len());
        let shares = self.terms.iter().map(count).collect::<Result<Vec<usize>>>()?;
        let expected: usize = shares.iter().sum();
        if expected == given {
            return Ok(shares);
        }
        Err(wrong_number(expected, given))
    }
}

impl Distiller for Mix {
    fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
        for (weight, _) in &self.terms {
            weight.check("weight", not_negative)?;
        }
        let (mut losses, mut parameters) = (vec![], vec![]);
        let mut own = signals.given();
        for ((weight, term), share) in self.terms.iter().zip(self.shares(signals)?) {
            let (of_term, rest) = own.split_at(share);
            own = rest;
            let signals = signals.view().parameters(of_term);
            let mut loss = signals.fitting(term.apply(&signals)?)?.scaled(weight.at(signals.at()));
            parameters.append(&mut loss.parameters);
            losses.push(loss);
        }
        let sum = losses.into_iter().reduce(Loss::plus).ok_or(Error::Empty { what: "the mix of losses" })?;
        sum.with_parameters(parameters).finite()
    }

    fn parameters(&self, student: &[usize], teacher: &[usize], seed: u64) -> Result<Vec<(String, ArrayD<f64>)>> {
        self.named(seed, |term, seed| term.parameters(student, teacher, seed))
    }

    fn parameters_between(
        &self,
        student: [&[usize]; 2],
        teacher: [&[usize]; 2],
        seed: u64,
    ) -> Result<Vec<(String, ArrayD<f64>)>> {
        self.named(seed, |term, seed| term.parameters_between(student, teacher, seed))
    }

    fn temperature(&self, progress: f64) -> f64 {
        let mut temperatures = self.terms.iter().map(|(_, term)| term.temperature(progress));
        temperatures.find(|temperature| *temperature != 1.0).unwrap_or(1.0)
    }

    fn weighs_samples(&self) -> bool {
        self.terms.iter().all(|(_, term)| term.weighs_samples())
    }
}
