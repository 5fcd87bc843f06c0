//! Pruning whole networks: which pruner for which weight, ranked layer by layer or as one.

mod ac_dc;
mod gradual;
mod lottery;
mod movement;
mod observe;
mod rigl;
mod sensitivity;

use std::sync::Arc;

pub use ac_dc::AcDc;
pub use gradual::Gradual;
pub use lottery::{LotteryTicket, Ticket};
pub use movement::Movement;
pub use rigl::RigL;
pub use sensitivity::{Sensitivity, SensitivityRow};

use super::{Inputs, Planned, Recipe, rules::Rules};
use crate::{
    error::{Error, Result},
    nn::{CrossEntropy, Data, Loss, Network},
    prune::{Amount, Pattern, Pruner, Ranking, Schedule},
    report::Sparsity,
    tensor::{Mask, Observed, PrunedTensor, Weights},
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
        if self.quantizes {
            return Err(Error::Conflict {
                what: "a recipe that quantizes cannot prune as well".into(),
                remedy: "prune with one recipe, then quantize with another, which keeps the zeros",
            });
        }
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
        for round in 1..=planned.iter().map(|(_, pruner)| rounds(pruner)).max().unwrap_or(0) {
            let mut observations = Observations::new(network, data, &*self.loss, self.input_shape.as_deref());
            let mut masks = Vec::new();
            for group in self.groups(&planned) {
                let pruner = &group[0].1;
                let of = rounds(pruner);
                if round > of {
                    continue;
                }
                let names: Vec<&str> = group.iter().map(|(name, _)| name.as_str()).collect();
                // Every round keeps the same share of what is left.
                let sparsity = |end: f64| {
                    let end = on_the_way.map_or(end, |on_the_way| on_the_way(end));
                    1.0 - (1.0 - end).powf(round as f64 / of as f64)
                };
                let on_the_way: OnTheWay<'_> = match on_the_way {
                    None if round == of => None,
                    _ => Some(&sparsity),
                };
                masks.extend(self.prune_group(&mut observations, &**pruner, &names, on_the_way)?);
            }
            for (name, pruned) in masks {
                let (values, mask) = pruned.into_parts();
                // What was removed stays so, whatever a pruner written elsewhere says.
                let mask = network.mask(&name)?.map_or(Ok(mask.clone()), |before| before.and(&mask));
                network.set_parameter(&name, &values).map_err(|error| error.in_layer(&name))?;
                network.set_mask(&name, Some(mask.map_err(|error| error.in_layer(&name))?))?;
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
        names: &[&str],
        on_the_way: OnTheWay<'_>,
    ) -> Result<Vec<(String, PrunedTensor)>> {
        let ranking = pruner.ranking();
        let needs = ranking.as_ref().map(|(score, _)| score.needs());
        observations.gather(needs)?;
        let observed: Vec<Observed<'_>> = names.iter().map(|name| observations.of(name)).collect::<Result<Vec<_>>>()?;
        let owned = |name: &str, tensor: PrunedTensor| (name.to_owned(), tensor);
        match ranking {
            Some((score, ranking)) => {
                let ranking = self.ranking_on_the_way(ranking, &observed, on_the_way)?;
                let masks = if self.across_layers {
                    let tensors: Vec<&dyn Weights> = observed.iter().map(|observed| observed as _).collect();
                    ranking.masks(score, &tensors)?
                } else {
                    let mask = |(name, observed): (&&str, &Observed<'_>)| {
                        ranking.mask(score, observed).map_err(|error| error.in_layer(name))
                    };
                    names.iter().zip(&observed).map(mask).collect::<Result<_>>()?
                };
                let values = |(name, mask): (&&str, Mask)| {
                    let values = observations.values(name)?.to_owned();
                    Ok(owned(name, PrunedTensor::new(values, mask)?))
                };
                names.iter().zip(masks).map(values).collect()
            }
            None if self.across_layers => Err(Error::Conflict {
                what: format!("{pruner:?} decides tensor by tensor"),
                remedy: "leave out across_layers, or let it return its score in Pruner::ranking",
            }),
            None => {
                let prune = |(name, observed): (&&str, &Observed<'_>)| {
                    let pruned = pruner.apply(observed).map_err(|error| error.in_layer(name))?;
                    Ok(owned(name, pruned))
                };
                names.iter().zip(&observed).map(prune).collect()
            }
        }
    }

    /// The ranking with an amount on the way to its own; a pattern that fixes its amount keeps it.
    fn ranking_on_the_way(
        &self,
        ranking: Ranking,
        observed: &[Observed<'_>],
        on_the_way: OnTheWay<'_>,
    ) -> Result<Ranking> {
        let Some(on_the_way) = on_the_way.filter(|_| !matches!(ranking.pattern, Pattern::NOfM { .. })) else {
            return Ok(ranking);
        };
        ranking.amount.validate()?;
        let end = match ranking.amount {
            Amount::Fraction(_) | Amount::Count(_) if ranking.of_remaining => None,
            Amount::Fraction(sparsity) => Some(sparsity),
            Amount::Count(count) => {
                let units = |observed: &Observed<'_>| {
                    ranking.pattern.units(observed.values().shape()).map(|units| units.count())
                };
                let all = observed.iter().map(units).sum::<Result<usize>>()?;
                ranking.amount.of(all)?; // no more than there are
                Some(count as f64 / all.max(1) as f64)
            }
            _ => None,
        };
        match end {
            Some(end) => Ok(Ranking { amount: Amount::Fraction(on_the_way(end)), ..ranking }),
            None => Err(Error::Conflict {
                what: format!("{ranking:?} has no amount to be reached in steps"),
                remedy: "give a fraction or a count of the whole",
            }),
        }
    }
}

/// What sparsity to go to on the way to a pruner's own; `None`: all the way.
pub(super) type OnTheWay<'a> = Option<&'a dyn Fn(f64) -> f64>;
