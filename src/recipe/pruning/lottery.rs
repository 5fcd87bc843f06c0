//! Lottery tickets.

use std::ops::ControlFlow;

use super::{Planned, Pruning};
use crate::{
    error::{Error, Result},
    nn::{Callback, Data, History, Network, Optimizer, Progress, Training},
    prune::{Amount, Pruner, Random, Ranked},
    random::derive,
};

/// The search for lottery tickets (Frankle and Carbin 2019): train, prune, put the weights that are left back to what they
/// were at the start, and again. Made by [`Pruning::lottery_ticket`], from a pruning whose amount is
/// [of what remains](crate::prune::Ranked::of_remaining).
///
/// | setting | default | |
/// |---|---|---|
/// | [`rewind_to`](LotteryTicket::rewind_to) | 0: the initial weights | the weights after so many steps (Frankle et al. 2020) |
///
/// ```
/// use ndarray::Array2;
/// use tersor::{Pruner, Recipe, nn::{Adam, Data, Network, Training}};
///
/// let network = Network::builder(1).linear(8, 32).relu().linear(32, 2).build()?;
/// let data = Data::classes(Array2::from_shape_fn((64, 8), |(i, j)| ((i * j) as f32).sin()), (0..64).map(|i| i % 2))?;
/// let search = Recipe::new().prune("*", Pruner::magnitude(0.2).of_remaining()).across_layers().lottery_ticket(3);
/// let tickets = search.run(&network, &Training::new(2), &data, &mut || Box::new(Adam::new(1e-3)), &mut |_| {
///     std::ops::ControlFlow::Continue(())
/// })?;
/// let kept: Vec<usize> = tickets.iter().map(|ticket| ticket.kept()).collect();
/// assert_eq!(kept, [320, 256, 205, 164]); // 0.8 of what was left, each time
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct LotteryTicket {
    pruning: Pruning,
    rounds: usize,
    rewind: usize,
}

/// What a round of the search found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Ticket {
    /// The ticket: early weights, pruned. That of the first round is the whole network.
    pub initial: Network,
    /// The ticket after its training.
    pub trained: Network,
    /// That training.
    pub history: History,
}

impl Ticket {
    /// The weights that are kept, of those that can be pruned.
    pub fn kept(&self) -> usize {
        let whole = |name: &String| self.initial.parameter(name).map_or(0, |weight| weight.len());
        let kept = |name: &String| match self.initial.mask(name) {
            Ok(Some(mask)) => mask.kept(),
            _ => whole(name),
        };
        self.initial.maskable().iter().map(kept).sum()
    }

    /// The same masks on other weights, such as a new initialization: the first control of the paper.
    ///
    /// # Errors
    /// [`Error::UnknownName`] or [`Error::Shape`] for a network of other layers.
    pub fn on(&self, network: &Network) -> Result<Network> {
        let mut masked = network.clone();
        for (name, mask) in self.initial.masks() {
            masked.set_mask(&name, Some(mask.clone()))?;
        }
        Ok(masked)
    }

    /// The same weights before pruning, with random masks that keep as many of each layer: the second control. `whole`
    /// is the network with those weights.
    ///
    /// # Errors
    /// As [`on`](Ticket::on).
    pub fn shuffled(&self, whole: &Network, seed: u64) -> Result<Network> {
        let mut masked = whole.clone();
        for (index, (name, mask)) in self.initial.masks().into_iter().enumerate() {
            let random = Ranked::new(Random::new(derive(seed, index)), mask.len() - mask.kept());
            let pruned = random.apply(&whole.parameter(&name)?)?;
            masked.set_mask(&name, Some(pruned.mask().clone()))?;
        }
        Ok(masked)
    }
}

impl Pruning {
    /// Searches for lottery tickets in so many rounds of pruning.
    pub fn lottery_ticket(self, rounds: usize) -> LotteryTicket {
        LotteryTicket { pruning: self, rounds, rewind: 0 }
    }
}

impl LotteryTicket {
    /// Rewinds to the weights after so many steps of the first training.
    pub fn rewind_to(self, steps: usize) -> LotteryTicket {
        LotteryTicket { rewind: steps, ..self }
    }

    /// Runs the search from a network's weights: a ticket for the whole network, and one for each round. Every training
    /// has an optimizer of its own. If `progress` (of each training for itself) breaks, the tickets found so far are
    /// returned.
    ///
    /// # Errors
    /// Those of the pruning and of the trainings; [`Error::Setting`] for a rewind beyond the end of the training;
    /// [`Error::Conflict`] for several rounds of an amount of the whole, which are all the same;
    /// [`Error::Cancelled`] in the first training.
    pub fn run(
        &self,
        network: &Network,
        training: &Training,
        data: &Data,
        optimizer: &mut dyn FnMut() -> Box<dyn Optimizer>,
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Vec<Ticket>> {
        self.expect_progress(network)?;
        let mut train = |initial: &Network| -> Result<(Network, History, Option<Network>)> {
            let (mut trained, mut early) = (initial.clone(), Early { step: self.rewind, network: None });
            let history = training.train_with(&mut trained, data, &mut *optimizer(), &mut early, progress)?;
            Ok((trained, history, early.network))
        };
        let (trained, history, early) = train(network).map_err(|error| match error {
            Error::Cancelled { done, total } => Error::Cancelled { done, total: total * (self.rounds + 1) },
            error => error,
        })?;
        let early = early.unwrap_or_else(|| trained.clone()); // which steps beyond the training were refused before
        let mut tickets = vec![Ticket { initial: network.clone(), trained, history }];
        for _ in 0..self.rounds {
            let mut pruned = tickets[tickets.len() - 1].trained.clone();
            self.pruning.prune_to(&mut pruned, Some(data), None)?;
            let mut initial = early.clone();
            for (name, mask) in pruned.masks() {
                initial.set_mask(&name, Some(mask.clone()))?;
            }
            match train(&initial) {
                Ok((trained, history, _)) => tickets.push(Ticket { initial, trained, history }),
                Err(Error::Cancelled { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(tickets)
    }

    /// Every round removes something more: a share of the whole would be gone after the first.
    fn expect_progress(&self, network: &Network) -> Result<()> {
        for Planned { name, scheme, .. } in self.pruning.dry_run(network)? {
            let Some(scheme) = scheme.filter(|_| self.rounds > 1) else { continue };
            let ranking = scheme.ranking().map(|(_, ranking)| ranking);
            if ranking.is_some_and(|ranking| !ranking.of_remaining && !matches!(ranking.amount, Amount::Below(_))) {
                return Err(Error::Conflict {
                    what: format!("{scheme:?} removes the same share of the whole in each of {} rounds", self.rounds),
                    remedy: "say of_remaining, so that each round removes its share of what is left",
                }
                .in_layer(&name));
            }
        }
        Ok(())
    }
}

/// Keeps the network as it was after so many steps.
#[derive(Debug)]
struct Early {
    step: usize,
    network: Option<Network>,
}

impl Callback for Early {
    fn start(&mut self, network: &mut Network, steps: usize) -> Result<()> {
        if self.step > steps {
            let (setting, value) = ("the step to rewind to", self.step as f64);
            return Err(Error::Setting { setting, value, bound: "within the training" });
        }
        self.network = (self.step == 0).then(|| network.clone());
        Ok(())
    }

    fn after_step(&mut self, at: &Progress, network: &mut Network) -> Result<()> {
        if at.step() + 1 == self.step {
            self.network = Some(network.clone());
        }
        Ok(())
    }
}
