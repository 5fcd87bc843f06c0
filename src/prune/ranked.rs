//! A score, a pattern and an amount: the pruner behind every constructor.

use std::fmt;

use ndarray::Axis;

use super::{
    Amount, Pattern, Pruner, Score, Units,
    pattern::write_pattern,
    score::checked_units,
    select::{Cut, remove_least_of_groups},
};
use crate::{
    error::{Error, Result},
    kernels::least::{self, Living, kept_of_groups},
    tensor::{Dense, Mask, PrunedTensor, Weights, matrix},
};

/// Removes what a [`Score`] ranks least, in units of a [`Pattern`].
///
/// | setting | default | range |
/// |---|---|---|
/// | amount (in the constructor) | - | a fraction 0 to 1, a count, or [`Amount::Below`] |
/// | pattern | single elements | [`structured`](Ranked::structured), [`block`](Ranked::block), [`n_of_m`](Ranked::n_of_m) |
/// | the amount's whole | the tensor | [`of_remaining`](Ranked::of_remaining): what was not removed before |
///
/// Between equal scores the lower index goes first. What was removed before ([`Weights::mask`]) stays removed: it
/// counts towards an amount of the whole, and goes first.
#[derive(Clone, PartialEq)]
pub struct Ranked<S> {
    pub(super) score: S,
    ranking: Ranking,
}

/// How a ranking becomes a mask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranking {
    /// What is removed whole.
    pub pattern: Pattern,
    /// How much.
    pub amount: Amount,
    /// Whether the amount is of what is left, not of the whole.
    pub of_remaining: bool,
}

impl<S: fmt::Debug> fmt::Debug for Ranked<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A score prints as the call that makes it, with `_` for the amount: `random(_, 7)`.
        let score = format!("{:?}", self.score);
        let amount = format!("({:?}", self.ranking.amount);
        if score.contains("(_") {
            f.write_str(&score.replacen("(_", &amount, 1))?
        } else {
            write!(f, "{score}{amount})")?
        }
        write_pattern(self.ranking.pattern, f)?;
        if self.ranking.of_remaining { write!(f, ".of_remaining()") } else { Ok(()) }
    }
}

impl<S: Score> Ranked<S> {
    /// Removes so much of what this score ranks least.
    pub fn new(score: S, amount: impl Into<Amount>) -> Ranked<S> {
        let amount = amount.into();
        Ranked { score, ranking: Ranking { pattern: Pattern::Element, amount, of_remaining: false } }
    }

    /// Removes whole indices along an axis: `Axis(0)` are output channels.
    pub fn structured(self, axis: Axis) -> Ranked<S> {
        self.pattern(Pattern::Structured(axis))
    }

    /// Removes whole blocks of so many rows and columns.
    pub fn block(self, rows: usize, columns: usize) -> Ranked<S> {
        self.pattern(Pattern::Block { rows, columns })
    }

    /// Keeps `n` of every `m` consecutive columns. The pattern fixes the sparsity, `1 - n/m`: another amount is an error.
    pub fn n_of_m(self, n: usize, m: usize) -> Ranked<S> {
        self.pattern(Pattern::NOfM { n, m })
    }

    /// Sets what is removed whole.
    pub fn pattern(mut self, pattern: Pattern) -> Ranked<S> {
        self.ranking.pattern = pattern;
        self
    }

    /// Takes the amount as one of what is left of a tensor pruned before, as PyTorch's iterative pruning does.
    pub fn of_remaining(mut self) -> Ranked<S> {
        self.ranking.of_remaining = true;
        self
    }

    /// Prunes several tensors by one ranking over all of them (global pruning): the amount is of all together.
    ///
    /// # Errors
    /// As [`apply`](Pruner::apply); [`Error::Conflict`] for `N:M`, which decides group by group.
    ///
    /// ```
    /// use ndarray::array;
    /// use tersor::Pruner;
    ///
    /// let (small, large) = (array![0.1_f32, 0.2, 0.3], array![[1.0_f32, 2.0, 3.0]]);
    /// let pruned = Pruner::magnitude(0.5).apply_together(&[&small, &large])?;
    /// assert_eq!((pruned[0].mask().kept(), pruned[1].mask().kept()), (0, 3));
    /// # Ok::<(), tersor::Error>(())
    /// ```
    pub fn apply_together(&self, tensors: &[&dyn Weights]) -> Result<Vec<PrunedTensor>> {
        self.ranking.masks(&self.score, tensors)?.into_iter().zip(tensors).map(|(mask, w)| pruned(*w, mask)).collect()
    }
}

impl<S: Score> Pruner for Ranked<S> {
    fn apply(&self, weights: &dyn Weights) -> Result<PrunedTensor> {
        pruned(weights, self.ranking.mask(&self.score, weights)?)
    }

    fn ranking(&self) -> Option<(&dyn Score, Ranking)> {
        Some((&self.score, self.ranking))
    }
}

fn pruned(weights: &dyn Weights, mask: Mask) -> Result<PrunedTensor> {
    PrunedTensor::new(weights.values().into_owned(), mask)
}

/// A tensor's units, ranked.
struct Candidate {
    units: Units,
    scores: Vec<f64>,
    /// Whether anything of the unit is left.
    alive: Vec<bool>,
    before: Mask,
}

impl Candidate {
    /// The scores of the units of which anything is left.
    fn living(&self) -> impl Iterator<Item = f64> + '_ {
        self.scores.iter().zip(&self.alive).filter(|(_, alive)| **alive).map(|(score, _)| *score)
    }

    /// What was kept before and is not removed by the cut.
    fn mask(self, cut: &mut Cut) -> Mask {
        let Candidate { units, scores, alive: mut kept, before } = self;
        kept.iter_mut().zip(scores).for_each(|(kept, score)| *kept = *kept && !cut.removes(score));
        Mask::build(before.shape(), |index| before.is_kept(index) && kept[units.unit_of(index)])
    }
}

/// An amount, resolved.
enum Removes {
    Least(usize),
    Below(f64),
}

fn living<'a>(dense: &'a Dense<'_>) -> Living<'a> {
    Living { values: dense.values(), alive: dense.mask().map(Mask::words) }
}

impl Ranking {
    /// The mask of one tensor.
    ///
    /// # Errors
    /// As [`Pruner::apply`].
    pub fn mask(&self, score: &dyn Score, weights: &dyn Weights) -> Result<Mask> {
        let Pattern::NOfM { n, m } = self.pattern else { return Ok(self.masks(score, &[weights])?.remove(0)) };
        self.check()?;
        if score.is_magnitude()
            && let Some(mask) = self.magnitudes_of_groups(weights, n, m)?
        {
            return Ok(mask);
        }
        let candidate = self.candidate(score, weights)?;
        self.check_amount(n, m, candidate.before.shape())?;
        let Candidate { scores, alive, before, .. } = candidate;
        let removed = remove_least_of_groups(&scores, &alive, matrix(before.shape()).1, (n, m));
        Ok(Mask::build(before.shape(), |index| !removed[index]))
    }

    /// The masks of several tensors, ranked as one.
    ///
    /// # Errors
    /// As [`Ranked::apply_together`].
    pub fn masks(&self, score: &dyn Score, tensors: &[&dyn Weights]) -> Result<Vec<Mask>> {
        self.check()?;
        if let Pattern::NOfM { .. } = self.pattern {
            return Err(Error::Conflict {
                what: "n_of_m keeps as many in every group, whatever the other tensors hold".into(),
                remedy: "prune tensor by tensor",
            });
        }
        if self.pattern == Pattern::Element && score.is_magnitude() {
            return self.magnitudes(tensors);
        }
        self.cut(tensors.iter().map(|weights| self.candidate(score, *weights)).collect::<Result<_>>()?)
    }

    /// The same with an amount of what is left, of tensors of these shapes and masks, as one of the whole.
    pub(crate) fn of_whole(self, tensors: &[(Vec<usize>, Option<&Mask>)]) -> Result<Ranking> {
        if !self.of_remaining || matches!(self.pattern, Pattern::NOfM { .. }) {
            return Ok(self);
        }
        let (mut total, mut living) = (0, 0);
        for (shape, mask) in tensors {
            let units = self.pattern.units(shape)?;
            let is_kept = |element| mask.is_none_or(|mask| mask.is_kept(element));
            let alive = units.fold(false, |alive, element| *alive |= is_kept(element));
            living += alive.into_iter().filter(|alive| *alive).count();
            total += units.count();
        }
        let amount = self.amount.of(living)?.map_or(self.amount, |count| Amount::Count(total - living + count));
        Ok(Ranking { amount, of_remaining: false, ..self })
    }

    fn check(&self) -> Result<()> {
        self.amount.validate()?;
        self.pattern.validate()
    }

    fn candidate(&self, score: &dyn Score, weights: &dyn Weights) -> Result<Candidate> {
        let dense = Dense::new(weights)?;
        let shape = dense.shape();
        let units = self.pattern.units(shape)?;
        let scores = checked_units(score, weights, &units)?;
        let before = dense.mask().cloned().unwrap_or_else(|| Mask::build(shape, |_| true));
        let alive = units.fold(false, |alive, element| *alive |= before.is_kept(element));
        Ok(Candidate { units, scores, alive, before })
    }

    /// Removes the least of all candidates together.
    fn cut(&self, candidates: Vec<Candidate>) -> Result<Vec<Mask>> {
        let total: usize = candidates.iter().map(|candidate| candidate.scores.len()).sum();
        let mut living: Vec<f64> = candidates.iter().flat_map(Candidate::living).collect();
        let mut cut = match self.removes(living.len(), total)? {
            Removes::Least(count) => Cut::least(&mut living, count),
            Removes::Below(threshold) => Cut::below(threshold),
        };
        drop(living);
        Ok(candidates.into_iter().map(|candidate| candidate.mask(&mut cut)).collect())
    }

    /// What goes of so many units that are left of a total.
    fn removes(&self, living: usize, total: usize) -> Result<Removes> {
        // What is gone counts towards an amount of the whole.
        let (whole, gone) = if self.of_remaining { (living, 0) } else { (total, total - living) };
        Ok(match (self.amount.of(whole)?, self.amount) {
            (None, Amount::Below(threshold)) => Removes::Below(threshold),
            (count, _) => Removes::Least(count.unwrap_or(0).saturating_sub(gone)),
        })
    }

    /// Removes the least elements of all tensors together by magnitude.
    fn magnitudes(&self, tensors: &[&dyn Weights]) -> Result<Vec<Mask>> {
        let dense =
            tensors.iter().map(|weights| Dense::unchecked("the weights", *weights)).collect::<Result<Vec<_>>>()?;
        let living: Vec<Living<'_>> = dense.iter().map(living).collect();
        let left = |dense: &Dense<'_>| dense.mask().map_or(dense.values().len(), Mask::kept);
        let total = dense.iter().map(|dense| dense.values().len()).sum();
        let cut = match self.removes(dense.iter().map(left).sum(), total)? {
            Removes::Least(count) => least::Cut::least(&living, count),
            Removes::Below(threshold) => {
                dense.iter().try_for_each(Dense::check_finite)?;
                Some(least::Cut::below(threshold))
            }
        };
        let Some(mut cut) = cut else {
            dense.iter().try_for_each(Dense::check_finite)?;
            return Err(Error::NotFinite { what: "the weights", index: 0, value: f64::NAN });
        };
        Ok(dense.iter().zip(living).map(|(dense, living)| Mask::from_words(dense.shape(), cut.kept(living))).collect())
    }

    /// Removes the least of every group by magnitude, if groups are of a common size and no row ends within one.
    fn magnitudes_of_groups(&self, weights: &dyn Weights, n: usize, m: usize) -> Result<Option<Mask>> {
        let dense = Dense::new(weights)?;
        self.check_amount(n, m, dense.shape())?;
        let kept = match m {
            _ if !matrix(dense.shape()).1.is_multiple_of(m) => return Ok(None),
            2 => kept_of_groups::<2, 32>(living(&dense), n),
            4 => kept_of_groups::<4, 16>(living(&dense), n),
            8 => kept_of_groups::<8, 8>(living(&dense), n),
            16 => kept_of_groups::<16, 4>(living(&dense), n),
            _ => return Ok(None),
        };
        Ok(Some(Mask::from_words(dense.shape(), kept)))
    }

    /// The amount says what the pattern says.
    fn check_amount(&self, n: usize, m: usize, shape: &[usize]) -> Result<()> {
        let (rows, columns) = matrix(shape);
        let kept = rows * (columns / m * n + (columns % m).min(n));
        let agrees = match self.amount {
            Amount::Fraction(fraction) => (fraction - (1.0 - n as f64 / m as f64)).abs() < 1e-6,
            Amount::Count(count) => count == rows * columns - kept,
            Amount::Below(_) => false,
        };
        if agrees && !self.of_remaining {
            return Ok(());
        }
        let amount = self.amount;
        let asked = if self.of_remaining { format!("{amount:?} of what is left") } else { format!("{amount:?}") };
        Err(Error::Conflict {
            what: format!("{n} of {m} removes {:?}, but {asked} is asked for", 1.0 - n as f64 / m as f64),
            remedy: "ask for what the pattern removes",
        })
    }
}
