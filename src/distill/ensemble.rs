//! Several teachers as one.

use ndarray::{Array1, Array2, ArrayBase, ArrayD, ArrayView1, CowArray, Data, Dimension, IxDyn};

use super::{
    Distiller, Loss, Signals,
    outputs::as_rows,
    signals::sound,
    softmax::{log_softmax, log_sum_exp},
};
use crate::{
    error::{Error, Result},
    nn::{expect_shape, not_negative, positive},
    tensor::Element,
};

/// Several teachers, averaged: of logits, of probabilities, or of the losses against each.
///
/// | setting | default | range |
/// |---|---|---|
/// | `weights`: how much each teacher counts | all the same | at least 0, not all 0; as many as teachers |
/// | `by_entropy`: row by row, by how sure each teacher is | not | |
///
/// Weights are relative: they are divided by their sum, so `[5.0, 3.0, 2.0]` are `[0.5, 0.3, 0.2]`.
///
/// With `by_entropy` teacher k of K has in each row the weight `(1 - exp(H_k) / Σ_j exp(H_j)) / (K - 1)`, times its own of
/// `weights`, where `H` is the entropy of `softmax(z / T)` at the loss's temperature: the surer, the more. That is the form of
/// confidence-aware distillation (CA-MKD, Zhang et al. 2022) with the entropy in place of the cross-entropy with labels, which
/// then need not be known. One teacher has weight 1, however unsure.
///
/// ```
/// use ndarray::array;
/// use tersor::{Distiller, Signals, distill::{Average, Ensemble}};
///
/// let student = array![[0.0_f32, 1.0]];
/// let teachers = [array![[0.0_f32, 2.0]], array![[1.0, 0.0]]];
/// let ensemble = Ensemble::new(Average::Probabilities).weights([2.0, 1.0]);
/// let signals = Signals::new(&student, &teachers[0]); // whose teacher gives way to the ensemble
/// let loss = ensemble.apply(&Distiller::soft_targets(4.0), &signals, &teachers)?;
/// assert!(loss.gradient[[0, 1]] > 0.0); // the second teacher holds the first back
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Ensemble {
    average: Average,
    weights: Option<Vec<f64>>,
    by_entropy: bool,
}

/// What of several teachers is averaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Average {
    /// Their logits: `Σ w z`.
    Logits,
    /// Their probabilities at the loss's temperature, `Σ w softmax(z / T)`, as the logits that give them.
    Probabilities,
    /// The losses against each, with their gradients. Weights of rows go through the sample weights, so the loss must be one
    /// that [weighs samples](Distiller::weighs_samples).
    /// Of a loss that is linear in the teacher's probabilities (forward soft targets) the gradient is that of
    /// `Probabilities`, and the value larger by what teachers differ among themselves.
    Losses,
}

impl Ensemble {
    /// All teachers count the same.
    pub fn new(average: Average) -> Ensemble {
        Ensemble { average, weights: None, by_entropy: false }
    }

    /// Sets how much each teacher counts.
    pub fn weights(self, weights: impl IntoIterator<Item = f64>) -> Ensemble {
        Ensemble { weights: Some(weights.into_iter().collect()), ..self }
    }

    /// Lets teachers count in each row by how sure they are there.
    pub fn by_entropy(self) -> Ensemble {
        Ensemble { by_entropy: true, ..self }
    }

    /// The loss of a student against these teachers. The signals say all the rest: student, labels, weights, progress,
    /// parameters; their own teacher is not read, nor is a second array averaged.
    ///
    /// # Errors
    /// As [`combine`](Ensemble::combine), but for averaged losses, which need teachers of one shape only by entropy, and then
    /// more than one only of a loss that [weighs samples](Distiller::weighs_samples) ([`Error::Conflict`]); those of the loss.
    pub fn apply<A, S, D>(
        &self,
        distiller: &dyn Distiller,
        signals: &Signals<'_>,
        teachers: &[ArrayBase<S, D>],
    ) -> Result<Loss>
    where
        A: Element,
        S: Data<Elem = A>,
        D: Dimension,
    {
        let teachers = sound_teachers(teachers)?;
        let student = signals.student()?;
        let temperature = distiller.temperature(signals.at());
        if self.average != Average::Losses {
            let signals = signals.instead(student, self.combined(&teachers, temperature)?);
            return signals.checked(distiller.apply(&signals)?);
        }
        let weights = self.relative_weights(teachers.len())?;
        if self.by_entropy && teachers.len() > 1 && !distiller.weighs_samples() {
            let what = "teachers count row by row, but the loss does not weigh its rows one by one".into();
            let remedy = "average logits or probabilities, or leave out Ensemble::by_entropy; a loss of your own that \
                          multiplies rows by sample weights says so by Distiller::weighs_samples";
            return Err(Error::Conflict { what, remedy });
        }
        let shares = if self.by_entropy { Some(self.shares(&all_rows(&teachers)?, temperature)?) } else { None };
        let against = |(index, teacher): (usize, &CowArray<'_, f64, IxDyn>)| {
            let signals = signals.instead(student.view(), teacher.view());
            let loss = match &shares {
                None => distiller.apply(&signals)?.scaled(weights[index]),
                Some(shares) => {
                    let by_row = signals.weighted(shares.row(index))?;
                    distiller.apply(&signals.view().sample_weights(&by_row))?
                }
            };
            signals.checked(loss)
        };
        let losses = teachers.iter().enumerate().map(against).collect::<Result<Vec<Loss>>>()?;
        Ok(losses.into_iter().reduce(Loss::plus).expect("at least one teacher"))
    }

    /// The logits that stand for all teachers, for a trainer that keeps one array: `Σ w z`, or `T log Σ w softmax(z / T)`,
    /// whose softmax at T is the mean of the probabilities, shifted to the mean level of the teachers' logits. A row is what
    /// the last axis holds.
    ///
    /// # Errors
    /// [`Error::Empty`] for no teacher, or arrays of nothing, [`Error::NotFinite`], [`Error::Rank`] for an array without axes,
    /// [`Error::Shape`] for arrays that differ in shape and for another number of weights than of teachers,
    /// [`Error::Setting`] for a weight below 0, weights that are all 0, or a temperature that is not above 0,
    /// [`Error::Conflict`] for averaged losses, which no logits stand for.
    pub fn combine<A, S, D>(&self, teachers: &[ArrayBase<S, D>], temperature: f64) -> Result<ArrayD<f64>>
    where
        A: Element,
        S: Data<Elem = A>,
        D: Dimension,
    {
        self.combined(&sound_teachers(teachers)?, temperature)
    }

    fn combined(&self, teachers: &[CowArray<'_, f64, IxDyn>], temperature: f64) -> Result<ArrayD<f64>> {
        let rows = all_rows(teachers)?;
        let shares = self.shares(&rows, temperature)?;
        let mut combined = Array2::zeros(rows[0].dim());
        for (row, mut combined) in combined.rows_mut().into_iter().enumerate() {
            let shared = || rows.iter().map(|logits| logits.row(row)).zip(shares.column(row));
            match self.average {
                Average::Logits => shared().for_each(|(logits, share)| combined.scaled_add(*share, &logits)),
                Average::Probabilities => {
                    let p: Vec<Array1<f64>> = shared()
                        .map(|(logits, share)| Array1::from(log_softmax(&logits.to_vec(), temperature)) + share.ln())
                        .collect();
                    combined.indexed_iter_mut().for_each(|(class, combined)| {
                        *combined = temperature * log_sum_exp(p.iter().map(|p| p[class]));
                    });
                    let mean = |row: ArrayView1<'_, f64>| row.sum() / row.len() as f64;
                    let level: f64 = shared().map(|(logits, share)| share * mean(logits)).sum();
                    combined += level - mean(combined.view());
                }
                Average::Losses => {
                    let remedy = "use Ensemble::apply, or average logits or probabilities";
                    return Err(Error::Conflict { what: "no logits stand for averaged losses".into(), remedy });
                }
            }
        }
        Ok(combined.into_shape_with_order(teachers[0].shape()).expect("as many elements"))
    }

    /// The weights, one a teacher, of sum 1.
    fn relative_weights(&self, teachers: usize) -> Result<Array1<f64>> {
        let weights = self.weights.clone().map_or(Array1::ones(teachers), Array1::from);
        expect_shape("weights", &[teachers], &[weights.len()])?;
        weights.iter().try_for_each(|weight| not_negative("weights", *weight))?;
        let sum = weights.sum();
        positive("the sum of the weights", sum)?;
        Ok(weights / sum)
    }

    /// How much each teacher counts in each row, (teachers, rows): of sum 1 in every row.
    fn shares(&self, teachers: &[Array2<f64>], temperature: f64) -> Result<Array2<f64>> {
        positive("temperature", temperature)?;
        let weights = self.relative_weights(teachers.len())?;
        let mut shares = Array2::from_shape_fn((teachers.len(), teachers[0].nrows()), |(teacher, _)| weights[teacher]);
        if self.by_entropy && teachers.len() > 1 {
            let doubt = |(teacher, row): (usize, usize)| {
                let p = log_softmax(&teachers[teacher].row(row).to_vec(), temperature);
                (-p.iter().map(|p| p.exp() * p).sum::<f64>()).exp()
            };
            let doubts = Array2::from_shape_fn(shares.dim(), doubt);
            for (mut shares, doubts) in shares.columns_mut().into_iter().zip(doubts.columns()) {
                shares *= &(1.0 - &doubts / doubts.sum());
                shares /= shares.sum(); // (K - 1) / K where teachers have the same weights
            }
        }
        Ok(shares)
    }
}

/// At least one teacher, in f64, every number finite.
fn sound_teachers<'a, A, S, D>(teachers: &'a [ArrayBase<S, D>]) -> Result<Vec<CowArray<'a, f64, IxDyn>>>
where
    A: Element,
    S: Data<Elem = A>,
    D: Dimension,
{
    if teachers.is_empty() {
        return Err(Error::Empty { what: "the list of teachers" });
    }
    let in_f64 = |teacher: &'a ArrayBase<S, D>| {
        let teacher = A::as_f64(teacher.view().into_dyn());
        sound("a teacher's signal", teacher.view())?;
        Ok(teacher)
    };
    teachers.iter().map(in_f64).collect()
}

/// Arrays of one shape as rows of classes.
fn all_rows(teachers: &[CowArray<'_, f64, IxDyn>]) -> Result<Vec<Array2<f64>>> {
    let what = "a teacher's signal";
    let shape = teachers[0].shape();
    let &[.., classes] = shape else { return Err(Error::Rank { what, expected: "1 or more", found: vec![] }) };
    let rows = |teacher: &CowArray<'_, f64, IxDyn>| {
        expect_shape(what, shape, teacher.shape()).map(|()| as_rows(teacher.view(), classes))
    };
    teachers.iter().map(rows).collect()
}
