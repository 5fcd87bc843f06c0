//! Teachers, terms, and the training that ties them to a student.

use std::{ops::ControlFlow, sync::Arc};

use super::{
    At, Distiller, Ensemble, Schedule, Teacher,
    objective::{Balance, Together},
    projected::at_any_width,
    report::Distilled,
    term::Term,
};
use crate::{
    error::{Error, Result},
    nn::{Callback, Data, Network, Optimizer, Progress, Trainee, Training},
};

/// A training of a student [`Network`] by what teachers make of the same data.
///
/// The loss is `Σ weight · term`, each term a [`Distiller`] on the outputs or on named layers, and the loss of the labels
/// as one more.
///
/// | setting | default | range |
/// |---|---|---|
/// | [`term`](Distillation::term), [`term_at`](Distillation::term_at) | none | any [`Distiller`]; a weight of at least 0, or a [`Schedule`] of it |
/// | [`hard_labels`](Distillation::hard_labels) | 0: labels are not read | at least 0, or a [`Schedule`] |
/// | [`teacher`](Distillation::teacher) | one teacher | any number more |
/// | [`ensemble`](Distillation::ensemble) | the mean of their probabilities | any [`Ensemble`]; for terms on outputs |
/// | [`sample_weights`](Distillation::sample_weights), [`class_weights`](Distillation::class_weights) | all 1 | at least 0 |
/// | [`balanced`](Distillation::balanced) | weights are factors | weights are ratios of gradient norms |
///
/// The student's masks hold as in every training, so a pruned student stays pruned; callbacks prune or quantize it
/// meanwhile. The teachers are not changed, and see each batch without dropout. Trainable parameters of a term, a hint's
/// regressor, are drawn from the training's seed, trained by the same optimizer, and left behind at the end. The same
/// seed gives the same bits, for any number of threads.
///
/// ```
/// use tersor::{Distiller, distill::Distillation, nn::{Adam, Data, Network}};
/// # use ndarray::Array2;
/// # let images = Array2::from_shape_fn((64, 16), |(i, j)| if j % 4 == i % 4 { 1.0 } else { 0.0 });
/// # let data = Data::classes(images, (0..64).map(|i| i % 4))?;
/// # let mut progress = |_: &tersor::nn::Progress| std::ops::ControlFlow::Continue(());
///
/// let teacher = Network::builder(1).linear(16, 32).relu().linear(32, 4).build()?; // trained, one hopes
/// let mut student = Network::builder(2).linear(16, 8).relu().linear(8, 4).build()?;
/// let report = Distillation::from(&teacher)
///     .term(0.9, Distiller::soft_targets(4.0))
///     .hard_labels(0.1)
///     .train(&mut student, &data, &mut Adam::new(1e-3), 4, &mut progress)?;
/// assert_eq!(report.history.losses.len(), 4);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Distillation<'a> {
    pub(super) teachers: Vec<&'a dyn Teacher>,
    pub(super) ensemble: Option<Ensemble>,
    pub(super) sample_weights: Option<Vec<f64>>,
    pub(super) class_weights: Option<Vec<f64>>,
    pub(super) terms: Vec<Term>,
    pub(super) hard_labels: Schedule,
    pub(super) balance: Balance,
}

impl<'a> Distillation<'a> {
    /// Learns from this teacher: a network, recorded outputs, or one of your own.
    #[allow(clippy::should_implement_trait)] // reads as the verb it is; a conversion would take no trait object
    pub fn from(teacher: &'a dyn Teacher) -> Distillation<'a> {
        let (terms, hard_labels, balance) = (vec![], Schedule::constant(0.0), Balance::Factors);
        let (ensemble, sample_weights, class_weights) = (None, None, None);
        Distillation { teachers: vec![teacher], ensemble, sample_weights, class_weights, terms, hard_labels, balance }
    }

    /// Adds a teacher.
    pub fn teacher(mut self, teacher: &'a dyn Teacher) -> Distillation<'a> {
        self.teachers.push(teacher);
        self
    }

    /// Sets how several teachers' outputs are averaged.
    ///
    /// ```
    /// # use tersor::{Distiller, distill::{Average, Distillation, Ensemble}, nn::Network};
    /// # let (one, other) = (Network::builder(1).linear(16, 4).build()?, Network::builder(2).linear(16, 4).build()?);
    /// let distillation = Distillation::from(&one)
    ///     .teacher(&other)
    ///     .ensemble(Ensemble::new(Average::Logits).weights([2.0, 1.0]))
    ///     .term(1.0, Distiller::soft_targets(4.0));
    /// # Ok::<(), tersor::Error>(())
    /// ```
    pub fn ensemble(self, ensemble: Ensemble) -> Distillation<'a> {
        Distillation { ensemble: Some(ensemble), ..self }
    }

    /// Adds a loss on the outputs.
    pub fn term(mut self, weight: impl Into<Schedule>, distiller: impl Distiller + 'static) -> Distillation<'a> {
        let (weight, distiller) = (weight.into(), Arc::new(distiller));
        self.terms.push(Term { weight, distiller, layers: None, teacher: 0 });
        self
    }

    /// Adds a loss between a layer of the student and one of the first teacher, by full name; or between two of each, for
    /// losses that read two (`["0", "2"]`). Within an attention `attn`, `attn.query`, `attn.key` and `attn.value` are
    /// layers too.
    ///
    /// Where the loss needs equal widths and they differ, a trainable projection is put between.
    ///
    /// ```
    /// # use tersor::{Distiller, distill::Distillation, nn::Network};
    /// # let teacher = Network::builder(1).linear(16, 32).relu().linear(32, 4).build()?;
    /// let distillation = Distillation::from(&teacher).term_at("1", "1", 100.0, Distiller::hint());
    /// # Ok::<(), tersor::Error>(())
    /// ```
    pub fn term_at(
        self,
        student: impl Into<At>,
        teacher: impl Into<At>,
        weight: impl Into<Schedule>,
        distiller: impl Distiller + 'static,
    ) -> Distillation<'a> {
        self.term_at_teacher(0, student, teacher, weight, distiller)
    }

    /// As [`term_at`](Distillation::term_at), of another teacher than the first, which is 0.
    pub fn term_at_teacher(
        mut self,
        index: usize,
        student: impl Into<At>,
        teacher: impl Into<At>,
        weight: impl Into<Schedule>,
        distiller: impl Distiller + 'static,
    ) -> Distillation<'a> {
        let distiller = at_any_width(distiller);
        let (weight, layers) = (weight.into(), Some([student.into(), teacher.into()]));
        self.terms.push(Term { weight, distiller, layers, teacher: index });
        self
    }

    /// Sets the weight of the data's own targets: of the training's loss, cross-entropy unless set otherwise.
    pub fn hard_labels(self, weight: impl Into<Schedule>) -> Distillation<'a> {
        Distillation { hard_labels: weight.into(), ..self }
    }

    /// Sets the factor of each sample of the data in terms on the outputs; hard labels have none.
    pub fn sample_weights(self, weights: impl IntoIterator<Item = f64>) -> Distillation<'a> {
        Distillation { sample_weights: Some(weights.into_iter().collect()), ..self }
    }

    /// Sets the factor of each class in terms on the outputs; hard labels have none.
    pub fn class_weights(self, weights: impl IntoIterator<Item = f64>) -> Distillation<'a> {
        Distillation { class_weights: Some(weights.into_iter().collect()), ..self }
    }

    /// Takes the weights for ratios of gradient norms: each part's gradient for the student's parameters, measured at every
    /// `every`-th step at the cost of a backward pass a part, is scaled so that the weighted norms are as the weights. The
    /// first part of positive weight (the labels, then terms in order) keeps its weight as factor. A part whose weight has been 0 so far
    /// is measured when it comes in.
    pub fn balanced(self, every: usize) -> Distillation<'a> {
        Distillation { balance: Balance::Norms { every }, ..self }
    }

    /// Trains the student for so many epochs, with the defaults of [`Training`].
    ///
    /// # Errors
    /// As [`train_with`](Distillation::train_with).
    pub fn train(
        &self,
        student: &mut Network,
        data: &Data,
        optimizer: &mut dyn Optimizer,
        epochs: usize,
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Distilled> {
        self.train_with(&Training::new(epochs), student, data, optimizer, &mut (), progress)
    }

    /// Trains the student as a [`Training`] says, with something that takes part: pruning
    /// ([`Pruning::gradually`](crate::recipe::Pruning::gradually)), quantization, the choice of the best epoch.
    ///
    /// ```
    /// use tersor::{Distiller, distill::Distillation, nn::{Adam, Data, Network, Training}};
    /// # use ndarray::Array2;
    /// # let data = Data::classes(Array2::<f32>::eye(4), [0, 1, 0, 1])?;
    /// # let teacher = Network::builder(1).linear(4, 8).relu().linear(8, 2).build()?;
    /// # let mut student = Network::builder(2).linear(4, 2).build()?;
    ///
    /// let training = Training::new(2).batch_size(2).seed(5);
    /// let go_on = &mut |_: &_| std::ops::ControlFlow::Continue(());
    /// Distillation::from(&teacher)
    ///     .term(1.0, Distiller::logits())
    ///     .train_with(&training, &mut student, &data, &mut Adam::new(1e-3), &mut (), go_on)?;
    /// # Ok::<(), tersor::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Training::train_with`]; before the first step, with the student unchanged, [`Error::Term`] around what a
    /// term finds wrong with the first two samples, [`Error::UnknownName`] for a layer or [`Error::Label`] within it;
    /// [`Error::Setting`] for a weight out of range; [`Error::Shape`] for other than one weight a sample; [`Error::Conflict`]
    /// without any part; and what a teacher says of the data.
    pub fn train_with<C: Callback + ?Sized>(
        &self,
        training: &Training,
        student: &mut Network,
        data: &Data,
        optimizer: &mut dyn Optimizer,
        callback: &mut C,
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Distilled> {
        let mut together = Together::new(self, training);
        let mut trainee = [Trainee { network: student, optimizer, callback: &mut { callback } }];
        let histories = training.descend(&mut trainee, data, &mut together, progress)?;
        Ok(together.report(histories.into_iter().next().expect("one for each trainee")))
    }

    /// Trains students one after the other, the first by this distillation's teacher, each next one by the one before:
    /// with smaller and smaller students the teacher assistants of TAKD (Mirzadeh et al. 2019), with students like the
    /// teacher born-again networks (Furlanello et al. 2018). `optimizer` makes a new one for each; `progress` is told
    /// which student, from 0. Terms at layers are between each student and the one before. For a callback, call
    /// [`train_with`](Distillation::train_with) for each yourself.
    ///
    /// ```
    /// use tersor::{Distiller, distill::Distillation, nn::{Adam, Data, Network, Training}};
    /// # use ndarray::Array2;
    /// # let data = Data::classes(Array2::<f32>::eye(4), [0, 1, 0, 1])?;
    /// # let teacher = Network::builder(1).linear(4, 16).relu().linear(16, 2).build()?;
    ///
    /// let mut assistant = Network::builder(2).linear(4, 8).relu().linear(8, 2).build()?;
    /// let mut student = Network::builder(3).linear(4, 2).build()?;
    /// Distillation::from(&teacher).term(0.9, Distiller::soft_targets(4.0)).hard_labels(0.1).chain(
    ///     &Training::new(2),
    ///     &mut [&mut assistant, &mut student],
    ///     &data,
    ///     || Adam::new(1e-3),
    ///     &mut |_, _| std::ops::ControlFlow::Continue(()),
    /// )?;
    /// # Ok::<(), tersor::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`train_with`](Distillation::train_with); the students before the one at fault are trained then.
    /// [`Error::Conflict`] for several students where a term is at the layers of another teacher than the first.
    pub fn chain<O: Optimizer>(
        &self,
        training: &Training,
        students: &mut [&mut Network],
        data: &Data,
        mut optimizer: impl FnMut() -> O,
        progress: &mut dyn FnMut(usize, &Progress) -> ControlFlow<()>,
    ) -> Result<Vec<Distilled>> {
        if students.is_empty() {
            return Err(Error::Empty { what: "the list of students" });
        }
        if students.len() > 1 && self.terms.iter().any(|term| term.teacher > 0) {
            return Err(Error::Conflict {
                what:
                    "a term of the chain is at the layers of a second teacher, but a student is the next one's only one"
                        .into(),
                remedy: "use term_at, or train the students one by one",
            });
        }
        let mut reports = Vec::with_capacity(students.len());
        for index in 0..students.len() {
            let (before, rest) = students.split_at_mut(index);
            let link = match before.last() {
                Some(teacher) => Distillation { teachers: vec![&**teacher], ensemble: None, ..self.clone() },
                None => self.clone(),
            };
            let progress = &mut |at: &Progress| progress(index, at);
            reports.push(link.train_with(training, rest[0], data, &mut optimizer(), &mut (), progress)?);
        }
        Ok(reports)
    }
}
