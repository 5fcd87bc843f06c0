//! Pruning whole networks: which pruner for which weight, ranked layer by layer or as one.

mod ac_dc;
mod gradual;
mod lottery;
mod movement;
mod observe;
mod rigl;
mod sensitivity;

use std::{collections::BTreeMap, sync::Arc};

pub use ac_dc::AcDc;
pub use gradual::Gradual;
pub use lottery::{LotteryTicket, Ticket};
pub use movement::Movement;
pub use rigl::RigL;
pub use sensitivity::{Sensitivity, SensitivityRow};

use super::{Inputs, Planned, Recipe, float_matrices, rules::Rules};
use crate::{
    error::{Error, Result},
    nn::{CrossEntropy, Data, Loss, Network},
    prune::{Amount, Pattern, Pruner, Ranking, Schedule, Score},
    report::Sparsity,
    tensor::{Checkpoint, Mask, Observed, PrunedTensor, Stored, Weights},
};
use observe::Observations;

/// Pruners by the names of weights, applied to a network in place: its weights get masks, and keep them through any
/// training. Made by [`Recipe::prune`].
///
/// Patterns are globs, as in [`Recipe`], over [`Network::maskable`]; what the recipe keeps is kept. Pruned weights are
/// pruned further: what a mask removed stays so, and counts towards the amount.
///
/// | setting | default | |
/// |---|---|---|
/// | [`across_layers`](Pruning::across_layers) | each weight for itself | one ranking over all weights of a rule |
/// | [`loss`](Pruning::loss) | [`CrossEntropy`] | whose gradients the scores that read some get |
/// | [`input_shape`](Pruning::input_shape) | that of the data | for synaptic flow, which needs no data |
///
/// ```
/// use ndarray::Array2;
/// use tersor::{Pruner, Recipe, nn::{Data, Network}};
///
/// let mut network = Network::builder(1).linear(64, 32).relu().linear(32, 10).build()?;
/// let data = Data::classes(Array2::from_shape_fn((50, 64), |(i, j)| ((i * j) as f32).sin()), (0..50).map(|i| i % 10))?;
/// let report = Recipe::new().prune("*", Pruner::taylor(0.6)).across_layers().apply_with(&mut network, &data)?;
/// println!("{report}");
/// assert!((report.sparsity() - 0.6).abs() < 1e-3);
/// assert_eq!(network.masks().len(), 2);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Pruning {
    rules: Rules<dyn Pruner>,
    across_layers: bool,
    loss: Arc<dyn Loss>,
    input_shape: Option<Vec<usize>>,
    /// Begun by a recipe that quantizes.
    quantizes: bool,
}

impl Pruning {
    pub(super) fn new(recipe: Recipe) -> Pruning {
        let mut rules = Rules::default();
        recipe.rules.kept().for_each(|pattern| rules.push(pattern, None));
        Pruning {
            rules,
            across_layers: false,
            loss: Arc::new(CrossEntropy::new()),
            input_shape: None,
            quantizes: recipe.rules.do_something() || !matches!(recipe.activations, Inputs::Dynamic),
        }
    }

    /// Prunes the weights whose names match.
    pub fn prune(mut self, pattern: impl Into<String>, pruner: impl Pruner + 'static) -> Pruning {
        self.rules.push(pattern, Some(Arc::new(pruner)));
        self
    }

    /// Leaves the weights whose names match as they are, whatever an earlier pattern says.
    pub fn keep(mut self, pattern: impl Into<String>) -> Pruning {
        self.rules.push(pattern, None);
        self
    }

    /// Ranks all weights of a rule as one (global pruning), so that layers get the sparsity that suits them: the amount
    /// is of all together.
    pub fn across_layers(self) -> Pruning {
        Pruning { across_layers: true, ..self }
    }

    /// Sets the loss whose gradients scores read.
    pub fn loss(self, loss: impl Loss + 'static) -> Pruning {
        Pruning { loss: Arc::new(loss), ..self }
    }

    /// Sets the shape of a batch of inputs, for scores that need no data but a shape.
    pub fn input_shape(self, shape: &[usize]) -> Pruning {
        Pruning { input_shape: Some(shape.to_vec()), ..self }
    }

    /// What would be done to each weight, in order; nothing is computed.
    ///
    /// # Errors
    /// [`Error::Pattern`] for a pattern that matches nothing, [`Error::Conflict`] for a recipe that quantizes too.
    pub fn dry_run(&self, network: &Network) -> Result<Vec<Planned<dyn Pruner>>> {
        self.only_prunes()?;
        let planned = self.rules.choose(network.maskable())?.into_iter().map(|(name, scheme)| {
            let shape = network.parameter(&name)?.shape().to_vec();
            Ok(Planned { name, shape, scheme })
        });
        planned.collect()
    }

    /// Prunes a network by scores that need no data. The report counts multiplications, of one sample, if
    /// [`input_shape`](Pruning::input_shape) is set.
    ///
    /// # Errors
    /// As [`dry_run`](Pruning::dry_run); [`Error::Layer`] with what a pruner refuses, and where; [`Error::Conflict`] for
    /// pruners that cannot be ranked across layers; [`Error::NeedsCalibration`]. The network is unchanged then.
    pub fn apply(&self, network: &mut Network) -> Result<Sparsity> {
        self.run(network, None)
    }

    /// Prunes a network; scores that read gradients get those of the mean loss of this data, in evaluation mode.
    ///
    /// # Errors
    /// As [`apply`](Pruning::apply), and those of a forward pass and of the loss.
    pub fn apply_with(&self, network: &mut Network, data: &Data) -> Result<Sparsity> {
        self.run(network, Some(data))
    }

    /// Prunes step by step while a network trains: a callback for
    /// [`Training::train_with`](crate::nn::Training::train_with).
    pub fn gradually(self, schedule: Schedule) -> Gradual {
        Gradual::new(self, schedule)
    }

    /// Alternates between pruned and dense phases while a network trains (AC/DC): a callback for
    /// [`Training::train_with`](crate::nn::Training::train_with).
    pub fn alternating(self) -> AcDc {
        AcDc::new(self)
    }

    /// Prunes the float tensors (sparse ones included) of a checkpoint that have at least two axes and a matching name, by
    /// scores of the numbers alone; the others stay. What is left of a tensor is stored sparse where that takes fewer bytes
    /// than all of it with its zeros.
    ///
    /// ```
    /// use tersor::{Pruner, Quantizer, Recipe, tensor::Checkpoint};
    ///
    /// let mut checkpoint = Checkpoint::new();
    /// checkpoint.insert("fc.weight", ndarray::Array2::from_shape_fn((64, 64), |(i, j)| ((i * 64 + j) as f32).sin()));
    /// checkpoint.insert("fc.bias", ndarray::Array1::<f32>::zeros(64));
    /// let pruned = Recipe::new().prune("*", Pruner::magnitude(0.9)).apply_to_checkpoint(&checkpoint)?;
    /// assert!(pruned.nbytes() * 6 < checkpoint.nbytes());
    /// let quantized = Recipe::new().quantize("*", Quantizer::uniform(4)).apply_to_checkpoint(&pruned)?;
    /// assert!(quantized.nbytes() * 16 < checkpoint.nbytes()); // its zeros stay zeros
    /// # Ok::<(), tersor::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`apply`](Pruning::apply); [`Error::Conflict`] for a score that reads more than the numbers.
    pub fn apply_to_checkpoint(&self, checkpoint: &Checkpoint) -> Result<Checkpoint> {
        self.only_prunes()?;
        let chosen = self.rules.choose(float_matrices(checkpoint))?.into_iter();
        let chosen: Vec<(String, Arc<dyn Pruner>)> = chosen.filter_map(|(name, rule)| Some((name, rule?))).collect();
        let tensor = |(name, _): &(String, Arc<dyn Pruner>)| {
            let tensor = match checkpoint.tensor(name)? {
                Stored::Sparse(sparse) => sparse.to_pruned(),
                _ => {
                    let values = checkpoint.floats(name)?;
                    let whole = Mask::ones(values.shape())?;
                    PrunedTensor::new(values, whole).map_err(|error| error.in_layer(name))?
                }
            };
            Ok((name.clone(), tensor))
        };
        let tensors: BTreeMap<String, PrunedTensor> = chosen.iter().map(tensor).collect::<Result<_>>()?;
        let mut observations = Observations::of_tensors(&tensors, &*self.loss);
        let mut pruned = checkpoint.clone();
        for group in self.groups(&chosen) {
            let names: Vec<String> = group.iter().map(|(name, _)| name.clone()).collect();
            let pruner = &*group[0].1;
            let ranking = pruner.ranking().map(|(_, ranking)| ranking);
            for (name, tensor) in self.prune_group(&mut observations, pruner, ranking, &names)? {
                let tensor = within(tensor, Some(tensors[&name].mask())).map_err(|error| error.in_layer(&name))?;
                let stored = checkpoint.tensor(&name)?.to_pruned(tensor)?;
                pruned.insert(name, stored);
            }
        }
        Ok(pruned)
    }

    fn only_prunes(&self) -> Result<()> {
        if self.quantizes {
            return Err(Error::Conflict {
                what: "a recipe that quantizes cannot prune as well".into(),
                remedy: "prune with one recipe, then quantize with another, which keeps the zeros",
            });
        }
        Ok(())
    }

    fn run(&self, network: &mut Network, data: Option<&Data>) -> Result<Sparsity> {
        let mut pruned = network.clone();
        self.prune_to(&mut pruned, data, None)?;
        let report = match self.input_shape.as_deref().or(data.map(|data| data.inputs().shape())) {
            Some([_, sample @ ..]) => Sparsity::new(&pruned, &[&[1], sample].concat())?,
            _ => Sparsity::of_weights(&pruned)?,
        };
        *network = pruned;
        Ok(report)
    }

    /// Prunes in as many rounds as the scores want: to the pruners' amounts, or to what `on_the_way` makes of them as
    /// fractions. On an error the network may be half done.
    pub(super) fn prune_to(&self, network: &mut Network, data: Option<&Data>, on_the_way: OnTheWay<'_>) -> Result<()> {
        let mut planned: Vec<(String, Arc<dyn Pruner>)> = Vec::new();
        for Planned { name, scheme, .. } in self.dry_run(network)? {
            planned.extend(scheme.map(|pruner| (name, pruner)));
        }
        let rounds = |pruner: &Arc<dyn Pruner>| pruner.ranking().map_or(1, |(score, _)| score.rounds());
        if planned.iter().any(|(_, pruner)| rounds(pruner) == 0) {
            return Err(Error::Setting { setting: "rounds", value: 0.0, bound: "at least 1" });
        }
        let groups = self.groups(&planned);
        let names =
            |group: &[&(String, Arc<dyn Pruner>)]| group.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let ranking = |group: &Vec<&(String, Arc<dyn Pruner>)>| {
            let ranking = group[0].1.ranking().map(|(_, ranking)| ranking);
            // What is left is what is left before the first round.
            let in_rounds = rounds(&group[0].1) > 1 && on_the_way.is_none();
            ranking
                .map(|ranking| if in_rounds { of_whole(ranking, network, &names(group)) } else { Ok(ranking) })
                .transpose()
        };
        let rankings: Vec<Option<Ranking>> = groups.iter().map(ranking).collect::<Result<_>>()?;
        for round in 1..=planned.iter().map(|(_, pruner)| rounds(pruner)).max().unwrap_or(0) {
            let mut observations = Observations::new(network, data, &*self.loss, self.input_shape.as_deref());
            let mut masks = Vec::new();
            for (group, ranking) in groups.iter().zip(&rankings) {
                let pruner = &group[0].1;
                let of = rounds(pruner);
                if round > of {
                    continue;
                }
                // Every round keeps the same share of what is left.
                let sparsity = |end: f64| {
                    let end = on_the_way.map_or(end, |on_the_way| on_the_way(end));
                    1.0 - (1.0 - end).powf(round as f64 / of as f64)
                };
                let names = names(group);
                let ranking = match ranking {
                    Some(ranking) if on_the_way.is_some() || round < of => {
                        Some(ranking_on_the_way(*ranking, network, &names, &sparsity)?)
                    }
                    ranking => *ranking,
                };
                masks.extend(self.prune_group(&mut observations, &**pruner, ranking, &names)?);
            }
            for (name, pruned) in masks {
                let pruned = within(pruned, network.mask(&name)?).map_err(|error| error.in_layer(&name))?;
                let (values, mask) = pruned.into_parts();
                network.set_parameter(&name, &values).map_err(|error| error.in_layer(&name))?;
                network.set_mask(&name, Some(mask))?;
            }
        }
        Ok(())
    }

    /// Weights that are ranked together: all of a rule across layers, otherwise each.
    fn groups<'a>(&self, planned: &'a [(String, Arc<dyn Pruner>)]) -> Vec<Vec<&'a (String, Arc<dyn Pruner>)>> {
        let mut groups: Vec<Vec<&(String, Arc<dyn Pruner>)>> = Vec::new();
        for entry in planned {
            let same = |group: &&mut Vec<&(String, Arc<dyn Pruner>)>| Arc::ptr_eq(&group[0].1, &entry.1);
            match groups.iter_mut().find(same).filter(|_| self.across_layers) {
                Some(group) => group.push(entry),
                None => groups.push(vec![entry]),
            }
        }
        groups
    }

    fn prune_group(
        &self,
        observations: &mut Observations<'_>,
        pruner: &dyn Pruner,
        ranking: Option<Ranking>,
        names: &[String],
    ) -> Result<Vec<(String, PrunedTensor)>> {
        let score = pruner.ranking().map(|(score, _)| score);
        observations.gather(score.map(Score::needs))?;
        let observed: Vec<Observed<'_>> = names.iter().map(|name| observations.of(name)).collect::<Result<Vec<_>>>()?;
        match score.zip(ranking) {
            Some((score, ranking)) => {
                let masks = if self.across_layers {
                    let tensors: Vec<&dyn Weights> = observed.iter().map(|observed| observed as _).collect();
                    ranking.masks(score, &tensors)?
                } else {
                    let mask = |(name, observed): (&String, &Observed<'_>)| {
                        ranking.mask(score, observed).map_err(|error| error.in_layer(name))
                    };
                    names.iter().zip(&observed).map(mask).collect::<Result<_>>()?
                };
                let values = |(name, mask): (&String, Mask)| {
                    let values = observations.values(name)?.to_owned();
                    Ok((name.clone(), PrunedTensor::new(values, mask)?))
                };
                names.iter().zip(masks).map(values).collect()
            }
            None if self.across_layers => Err(Error::Conflict {
                what: format!("{pruner:?} decides tensor by tensor"),
                remedy: "leave out across_layers, or let it return its score in Pruner::ranking",
            }),
            None => {
                let prune = |(name, observed): (&String, &Observed<'_>)| {
                    let pruned = pruner.apply(observed).map_err(|error| error.in_layer(name))?;
                    Ok((name.clone(), pruned))
                };
                names.iter().zip(&observed).map(prune).collect()
            }
        }
    }
}

/// The events of a plan, which is in order, that are due before this step.
fn due(plan: &[(usize, f64)], step: usize) -> &[(usize, f64)] {
    &plan[plan.partition_point(|(at, _)| *at < step)..plan.partition_point(|(at, _)| *at <= step)]
}

/// The tensor without what was removed before: it stays so, whatever a pruner written elsewhere says.
fn within(pruned: PrunedTensor, before: Option<&Mask>) -> Result<PrunedTensor> {
    let Some(before) = before else { return Ok(pruned) };
    let (values, mask) = pruned.into_parts();
    PrunedTensor::new(values, before.and(&mask)?)
}

/// The ranking with an amount of what is left as one of the whole, which means the same in every round.
fn of_whole(ranking: Ranking, network: &Network, names: &[String]) -> Result<Ranking> {
    let tensor = |name: &String| Ok((network.parameter(name)?.shape().to_vec(), network.mask(name)?));
    let tensors: Vec<(Vec<usize>, Option<&Mask>)> = names.iter().map(tensor).collect::<Result<_>>()?;
    ranking.of_whole(&tensors)
}

/// The ranking with an amount on the way to its own; a pattern that fixes its amount keeps it.
fn ranking_on_the_way(
    ranking: Ranking,
    network: &Network,
    names: &[String],
    on_the_way: &dyn Fn(f64) -> f64,
) -> Result<Ranking> {
    if let Pattern::NOfM { .. } = ranking.pattern {
        return Ok(ranking);
    }
    let of = |ranking: Ranking| -> Result<Ranking> {
        ranking.amount.validate()?;
        let end = match ranking.amount {
            Amount::Fraction(_) | Amount::Count(_) if ranking.of_remaining => Err("an amount of what is left"),
            Amount::Fraction(sparsity) => Ok(sparsity),
            Amount::Count(count) => {
                let units = |name: &String| Ok(ranking.pattern.units(network.parameter(name)?.shape())?.count());
                let all = names.iter().map(units).sum::<Result<usize>>()?;
                ranking.amount.of(all)?; // no more than there are
                Ok(count as f64 / all.max(1) as f64)
            }
            _ => Err("a threshold"),
        };
        let end = end.map_err(|what| Error::Conflict {
            what: format!(
                "{what} ({:?}) cannot be reached in steps, each of which changes what it is of",
                ranking.amount
            ),
            remedy: "give a fraction or a count of the whole",
        })?;
        Ok(Ranking { amount: Amount::Fraction(on_the_way(end)), ..ranking })
    };
    of(ranking).map_err(|error| if let [name] = names { error.in_layer(name) } else { error })
}

/// What sparsity to go to on the way to a pruner's own; `None`: all the way.
pub(super) type OnTheWay<'a> = Option<&'a dyn Fn(f64) -> f64>;
