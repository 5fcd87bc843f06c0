//! What a loss is given.

use ndarray::{ArrayBase, ArrayD, ArrayView1, ArrayViewD, CowArray, Data, Dimension, IxDyn};

use super::{Distiller, Loss, Outputs, outputs::as_rows};
use crate::{
    error::{Error, Result},
    nn::{expect_shape, not_negative, share},
    tensor::{Element, expect_finite},
};

/// The argument of [`Distiller::apply`](crate::Distiller::apply): what a student and a teacher made of the same batch.
/// Arrays of any float type and layout, batch axis first; losses compute in `f64`.
///
/// | what | default | read by |
/// |---|---|---|
/// | `and`: a second array of each | none | losses between two layers: [`Fsp`](super::Fsp), [`Attentions`](super::Attentions) |
/// | `labels`: the class of each row | none | [`HardLabels`](super::HardLabels), [`Dkd`](super::Dkd) |
/// | `sample_weights`: a factor for each row | all 1 | losses on outputs |
/// | `class_weights`: a factor for each class | all 1 | losses on outputs |
/// | `progress`: the share of the training that is over | 0 | a [`Schedule`](super::Schedule) within a loss |
/// | `parameters`: the loss's own | none | what has [`parameters`](crate::Distiller::parameters) |
///
/// A row is what the last axis holds: a sample of (batch, classes), a position of (batch, sequence, classes).
///
/// ```
/// use ndarray::array;
/// use tersor::{Distiller, Signals};
///
/// let (student, teacher) = (array![[1.0_f32, 2.0, 3.0]], array![[1.0_f32, 2.0, 4.0]]);
/// let loss = Distiller::soft_targets(1.0).apply(&Signals::new(&student, &teacher))?;
/// assert!((loss.value - 0.0815546794).abs() < 1e-9);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Signals<'a> {
    student: CowArray<'a, f64, IxDyn>,
    teacher: CowArray<'a, f64, IxDyn>,
    second: Option<[CowArray<'a, f64, IxDyn>; 2]>,
    labels: Option<&'a [usize]>,
    sample_weights: Option<&'a [f64]>,
    class_weights: Option<&'a [f64]>,
    progress: f64,
    parameters: &'a [ArrayD<f64>],
}

impl<'a> Signals<'a> {
    /// The student's and the teacher's outputs, or activations of a layer of each.
    pub fn new<A, B, S, T, D, E>(student: &'a ArrayBase<S, D>, teacher: &'a ArrayBase<T, E>) -> Signals<'a>
    where
        A: Element,
        B: Element,
        S: Data<Elem = A>,
        T: Data<Elem = B>,
        D: Dimension,
        E: Dimension,
    {
        Signals {
            student: A::as_f64(student.view().into_dyn()),
            teacher: B::as_f64(teacher.view().into_dyn()),
            second: None,
            labels: None,
            sample_weights: None,
            class_weights: None,
            progress: 0.0,
            parameters: &[],
        }
    }

    /// Adds a second array of each, for losses between two layers.
    pub fn and<A, B, S, T, D, E>(self, student: &'a ArrayBase<S, D>, teacher: &'a ArrayBase<T, E>) -> Signals<'a>
    where
        A: Element,
        B: Element,
        S: Data<Elem = A>,
        T: Data<Elem = B>,
        D: Dimension,
        E: Dimension,
    {
        let second = [A::as_f64(student.view().into_dyn()), B::as_f64(teacher.view().into_dyn())];
        Signals { second: Some(second), ..self }
    }

    /// Sets the class of each row.
    pub fn labels(self, labels: &'a [usize]) -> Signals<'a> {
        Signals { labels: Some(labels), ..self }
    }

    /// Sets the factor of each row's loss.
    pub fn sample_weights(self, weights: &'a [f64]) -> Signals<'a> {
        Signals { sample_weights: Some(weights), ..self }
    }

    /// Sets the factor of each class's share of the loss.
    pub fn class_weights(self, weights: &'a [f64]) -> Signals<'a> {
        Signals { class_weights: Some(weights), ..self }
    }

    /// Sets the share of the training that is over, 0 to 1.
    pub fn progress(self, progress: f64) -> Signals<'a> {
        Signals { progress, ..self }
    }

    /// Sets the loss's own parameters, as many and of the shapes that [`parameters`](crate::Distiller::parameters) says.
    pub fn parameters(self, parameters: &'a [ArrayD<f64>]) -> Signals<'a> {
        Signals { parameters, ..self }
    }

    /// The student's array, every value of it finite.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::NotFinite`]; [`Error::Setting`] for a progress that is no share.
    pub fn student(&self) -> Result<ArrayViewD<'_, f64>> {
        share("progress", self.progress)?; // here, since every loss reads the student
        sound("the student's signal", self.student.view())
    }

    /// The teacher's array, every value of it finite.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::NotFinite`].
    pub fn teacher(&self) -> Result<ArrayViewD<'_, f64>> {
        sound("the teacher's signal", self.teacher.view())
    }

    /// Both arrays, of one shape.
    ///
    /// # Errors
    /// As [`student`](Signals::student); [`Error::Shape`] if they differ.
    pub fn alike(&self) -> Result<[ArrayViewD<'_, f64>; 2]> {
        let (student, teacher) = (self.student()?, self.teacher()?);
        expect_shape("the teacher's signal", student.shape(), teacher.shape())?;
        Ok([student, teacher])
    }

    /// The second arrays, student's and teacher's, every value of them finite.
    ///
    /// # Errors
    /// [`Error::Conflict`] if there are none, [`Error::Empty`], [`Error::NotFinite`].
    pub fn second(&self) -> Result<[ArrayViewD<'_, f64>; 2]> {
        let [student, teacher] = self.second.as_ref().ok_or_else(|| Error::Conflict {
            what: "the loss is between two layers, but the signals are of one".into(),
            remedy: "add those of the other layer with Signals::and",
        })?;
        Ok([
            sound("the student's second signal", student.view())?,
            sound("the teacher's second signal", teacher.view())?,
        ])
    }

    /// Student's and teacher's logits, as rows of classes, with what was said of rows and classes: all of it checked.
    ///
    /// # Errors
    /// As [`alike`](Signals::alike); [`Error::Rank`] without a batch axis, [`Error::Shape`] for other than one label or
    /// weight a row, or one weight a class, [`Error::Label`], [`Error::Setting`] for a weight that is negative, and for weights
    /// whose sum is not finite.
    pub fn outputs(&self) -> Result<Outputs<'_>> {
        let [student, teacher] = self.alike()?;
        let shape = student.shape().to_vec();
        let &[batch, .., classes] = &shape[..] else {
            return Err(Error::Rank { what: "the student's signal", expected: "2 or more", found: shape });
        };
        let (student, teacher) = (as_rows(student, classes), as_rows(teacher, classes));
        let rows = student.nrows();
        if let Some(labels) = self.labels {
            expect_shape("labels", &[rows], &[labels.len()])?;
            if let Some(index) = labels.iter().position(|label| *label >= classes) {
                return Err(Error::Label { label: labels[index], index, classes });
            }
        }
        let of_samples = ["sample_weights", "the sum of sample_weights"];
        let of_classes = ["class_weights", "the sum of class_weights"];
        let weights = [(of_samples, rows, self.sample_weights), (of_classes, classes, self.class_weights)];
        for ([what, sum], len, weights) in weights {
            let Some(weights) = weights else { continue };
            expect_shape(what, &[len], &[weights.len()])?;
            weights.iter().try_for_each(|weight| not_negative(what, *weight))?;
            not_negative(sum, weights.iter().sum())?;
        }
        let (labels, sample_weights, class_weights) = (self.labels, self.sample_weights, self.class_weights);
        Ok(Outputs { student, teacher, labels, sample_weights, class_weights, batch, shape })
    }

    /// The share of the training that is over, 0 to 1.
    pub fn at(&self) -> f64 {
        self.progress
    }

    /// The loss's own parameters, of these shapes.
    ///
    /// # Errors
    /// [`Error::Conflict`] for another number of them, [`Error::Shape`], [`Error::NotFinite`].
    pub fn own<const N: usize>(&self, shapes: [&[usize]; N]) -> Result<[ArrayViewD<'_, f64>; N]> {
        let own = self.own_all(&shapes)?;
        Ok(std::array::from_fn(|index| own[index].view()))
    }

    /// The same of any number.
    pub(super) fn own_all(&self, shapes: &[impl AsRef<[usize]>]) -> Result<&[ArrayD<f64>]> {
        let [own, others] = self.own_first(shapes)?;
        if others.is_empty() { Ok(own) } else { Err(wrong_number(shapes.len(), self.parameters.len())) }
    }

    /// The first of the loss's own parameters, of these shapes and finite, and those that are left.
    pub(super) fn own_first(&self, shapes: &[impl AsRef<[usize]>]) -> Result<[&[ArrayD<f64>]; 2]> {
        let parts = self.parameters.split_at_checked(shapes.len());
        let (first, others) = parts.ok_or_else(|| wrong_number(shapes.len(), self.parameters.len()))?;
        for (parameter, shape) in first.iter().zip(shapes) {
            let what = "a parameter of the loss";
            expect_shape(what, shape.as_ref(), parameter.shape())?;
            sound(what, parameter.view())?;
        }
        Ok([first, others])
    }

    /// The [initial values](Distiller::parameters) of a loss's parameters, for signals of these shapes.
    pub(super) fn initial(&self, loss: &dyn Distiller, seed: u64) -> Result<Vec<(String, ArrayD<f64>)>> {
        let (student, teacher) = (self.student()?, self.teacher()?);
        if self.second.is_none() {
            return loss.parameters(student.shape(), teacher.shape(), seed);
        }
        let [second, of_teacher] = self.second()?;
        let (student, teacher) = ([student.shape(), second.shape()], [teacher.shape(), of_teacher.shape()]);
        loss.parameters_between(student, teacher, seed)
    }

    /// All of the loss's own parameters.
    pub(super) fn given(&self) -> &'a [ArrayD<f64>] {
        self.parameters
    }

    /// The sample weights times other factors of the rows.
    pub(super) fn weighted(&self, factors: ArrayView1<'_, f64>) -> Result<Vec<f64>> {
        let Some(weights) = self.sample_weights else { return Ok(factors.to_vec()) };
        expect_shape("sample_weights", &[factors.len()], &[weights.len()])?;
        Ok(weights.iter().zip(factors).map(|(weight, factor)| weight * factor).collect())
    }

    /// A loss of these signals, if it is finite and its gradients are those of what it was given: one for the student's
    /// signal, for each parameter, and for a second signal none but where there is one.
    pub(super) fn fitting(&self, loss: Loss) -> Result<Loss> {
        if loss.second.is_some() && self.second.is_none() {
            let what = "the loss gave a gradient for a second signal, but the signals have none".into();
            return Err(Error::Conflict { what, remedy: "add one with Signals::and, or leave out Loss::with_second" });
        }
        if loss.parameters.len() != self.parameters.len() {
            return Err(wrong_number(loss.parameters.len(), self.parameters.len()));
        }
        let second = self.second.iter().map(|[student, _]| student.shape()).zip(&loss.second);
        let parameters = self.parameters.iter().map(|parameter| parameter.shape()).zip(&loss.parameters);
        for (expected, gradient) in [(self.student.shape(), &loss.gradient)].into_iter().chain(second).chain(parameters)
        {
            expect_shape("a gradient that the loss gave", expected, gradient.shape())?;
        }
        loss.finite()
    }

    /// The same of the loss that all of these signals are for: where there is a second, it is read.
    pub(super) fn checked(&self, loss: Loss) -> Result<Loss> {
        if self.second.is_some() && loss.second.is_none() {
            let what = "the signals are of two layers, but the loss has a gradient for the first alone".into();
            return Err(Error::Conflict { what, remedy: "give one layer, or add Loss::with_second" });
        }
        self.fitting(loss)
    }

    /// The same signals, not copied.
    pub(super) fn view(&self) -> Signals<'_> {
        self.instead(self.student.view(), self.teacher.view())
    }

    /// The second arrays, if there are any.
    pub(super) fn has_second(&self) -> bool {
        self.second.is_some()
    }

    /// The same signals, but for the second arrays.
    pub(super) fn with_second(self, second: [CowArray<'a, f64, IxDyn>; 2]) -> Signals<'a> {
        Signals { second: Some(second), ..self }
    }

    /// The same signals, but for the first two arrays.
    pub(super) fn instead<'b>(
        &'b self,
        student: impl Into<CowArray<'b, f64, IxDyn>>,
        teacher: impl Into<CowArray<'b, f64, IxDyn>>,
    ) -> Signals<'b> {
        let second = self.second.as_ref().map(|second| second.each_ref().map(|array| array.view().into()));
        Signals { student: student.into(), teacher: teacher.into(), second, ..*self }
    }
}

/// That a loss was given other parameters than it made.
pub(super) fn wrong_number(needed: usize, found: usize) -> Error {
    let what = format!("the loss has {needed} parameters of its own, or gradients for them, but {found} were given");
    Error::Conflict { what, remedy: "give those that Distiller::parameters makes" }
}

/// The array, if it has elements and all are finite.
pub(super) fn sound<'a>(what: &'static str, array: ArrayViewD<'a, f64>) -> Result<ArrayViewD<'a, f64>> {
    if array.is_empty() {
        return Err(Error::Empty { what });
    }
    expect_finite(what, &array)?;
    Ok(array)
}
