//! How many channels of each space go, and which: the least important, the same number of every cell.

use super::spaces::{Space, lcm};
use crate::{
    error::{Error, Result},
    prune::Amount,
};

/// A space that may lose channels, and how much each of them matters.
pub(super) struct Candidate<'a> {
    space: &'a Space,
    importance: Vec<f64>,
    /// Whether a channel stays, however little it matters.
    stays: Vec<bool>,
}

/// What is chosen, in the words of errors.
pub(super) struct Words {
    share: &'static str,
    share_bound: &'static str,
    count: &'static str,
    count_bound: &'static str,
    multiple_bound: &'static str,
}

pub(super) const CHANNELS: Words = Words {
    share: "the share of channels to remove",
    share_bound: "below 1: at least one channel of a layer stays",
    count: "the count of channels to remove",
    count_bound: "so few that a channel of every layer stays; keep leaves layers out",
    multiple_bound: "at most the channels of the widest layer that may lose some (times its groups)",
};

pub(super) const HEADS: Words = Words {
    share: "the share of heads to remove",
    share_bound: "below 1: at least one head of a layer stays",
    count: "the count of heads to remove",
    count_bound: "so few that a head of every layer stays; keep leaves layers out",
    multiple_bound: "1",
};

/// Whether something is to go whatever the numbers are.
pub(super) fn asks(amount: Amount) -> bool {
    match amount {
        Amount::Fraction(fraction) => fraction > 0.0,
        Amount::Count(count) => count > 0,
        Amount::Below(_) => false,
    }
}

/// Channels that go together so that every cell loses one.
struct Step {
    importance: f64,
    channels: Vec<usize>,
}

impl<'a> Candidate<'a> {
    pub(super) fn new(space: &'a Space, importance: Vec<f64>) -> Candidate<'a> {
        Candidate { space, stays: vec![false; importance.len()], importance }
    }

    /// Keeps those of these channels that are its own.
    pub(super) fn keep(&mut self, channels: &[usize]) {
        for channel in channels.iter().filter(|channel| self.space.channels.contains(channel)) {
            self.stays[channel - self.space.channels.start] = true;
        }
    }

    fn count(&self) -> usize {
        self.space.channels.len()
    }

    /// The steps in which the space shrinks, the least important first, down to one channel a cell, or what stays.
    fn steps(&self) -> Vec<Step> {
        let cell = self.count() / self.space.cells;
        let orders: Vec<Vec<usize>> = (0..self.space.cells)
            .map(|index| {
                let all = index * cell..(index + 1) * cell;
                let mut order: Vec<usize> = all.filter(|index| !self.stays[*index]).collect();
                order.sort_by(|a, b| self.importance[*a].total_cmp(&self.importance[*b]));
                order
            })
            .collect();
        let step = |rank: usize| {
            let members = orders.iter().map(|order| order[rank]);
            Step {
                importance: members.clone().map(|index| self.importance[index]).sum::<f64>() / self.space.cells as f64,
                channels: members.map(|index| self.space.channels.start + index).collect(),
            }
        };
        let most = orders.iter().map(Vec::len).min().unwrap_or(0).min(cell - 1);
        (0..most).map(step).collect()
    }

    /// At most so many steps, so that a multiple stays, or all.
    fn rounded(&self, steps: usize, multiple: usize) -> usize {
        let multiple = lcm(self.space.cells, multiple);
        let stay = (self.count() - steps * self.space.cells).checked_next_multiple_of(multiple);
        (self.count() - stay.unwrap_or(self.count()).min(self.count())) / self.space.cells
    }
}

/// The channels that go.
pub(super) fn choose(
    candidates: &[Candidate<'_>],
    amount: Amount,
    across_layers: bool,
    multiple: usize,
    words: &Words,
) -> Result<Vec<usize>> {
    amount.validate()?;
    if let Amount::Fraction(1.0) = amount {
        return Err(Error::Setting { setting: words.share, value: 1.0, bound: words.share_bound });
    }
    if multiple == 0 {
        return Err(Error::Setting { setting: "round_to", value: 0.0, bound: "at least 1" });
    }
    let beyond = |candidate: &Candidate<'_>| lcm(candidate.space.cells, multiple) > candidate.count();
    if asks(amount) && !candidates.is_empty() && candidates.iter().all(beyond) {
        let (value, bound) = (multiple as f64, words.multiple_bound);
        return Err(Error::Setting { setting: "round_to", value, bound });
    }
    let steps: Vec<Vec<Step>> = candidates.iter().map(Candidate::steps).collect();
    let counts = match across_layers {
        true => together(candidates, &steps, amount, words)?,
        false => each(candidates, &steps, amount, words)?,
    };
    let chosen = candidates.iter().zip(steps).zip(counts).flat_map(|((candidate, steps), count)| {
        steps.into_iter().take(candidate.rounded(count, multiple)).flat_map(|step| step.channels)
    });
    Ok(chosen.collect())
}

/// The number of steps of each candidate, for an amount of each.
fn each(candidates: &[Candidate<'_>], steps: &[Vec<Step>], amount: Amount, words: &Words) -> Result<Vec<usize>> {
    let count = |(candidate, steps): (&Candidate<'_>, &Vec<Step>)| {
        let count = candidate.count();
        match (amount, amount.of(count)) {
            (Amount::Count(asked), _) if asked >= count => Err(too_many(asked, words)),
            (_, of) => Ok(match of? {
                Some(channels) => (channels / candidate.space.cells).min(steps.len()),
                None => below(steps, amount),
            }),
        }
    };
    candidates.iter().zip(steps).map(count).collect()
}

/// The number of steps of each candidate, for an amount of all together.
fn together(candidates: &[Candidate<'_>], steps: &[Vec<Step>], amount: Amount, words: &Words) -> Result<Vec<usize>> {
    let all = candidates.iter().map(Candidate::count).sum::<usize>();
    let most = candidates.iter().map(|candidate| candidate.count() - candidate.space.cells).sum::<usize>();
    let mut left = match (amount, amount.of(all)) {
        (Amount::Count(asked), _) if asked > most => return Err(too_many(asked, words)),
        (_, of) => match of? {
            Some(channels) => channels,
            None => return Ok(steps.iter().map(|steps| below(steps, amount)).collect()),
        },
    };
    let mut ranked: Vec<(f64, usize)> = Vec::new();
    for (index, steps) in steps.iter().enumerate() {
        ranked.extend(steps.iter().map(|step| (step.importance, index)));
    }
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut counts = vec![0; candidates.len()];
    for (_, index) in ranked {
        let cells = candidates[index].space.cells;
        if cells <= left {
            left -= cells;
            counts[index] += 1;
        }
    }
    Ok(counts)
}

/// The steps of less importance than a threshold.
fn below(steps: &[Step], amount: Amount) -> usize {
    let Amount::Below(threshold) = amount else { return 0 };
    steps.iter().take_while(|step| step.importance < threshold).count()
}

fn too_many(asked: usize, words: &Words) -> Error {
    Error::Setting { setting: words.count, value: asked as f64, bound: words.count_bound }
}
