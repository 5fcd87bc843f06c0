//! A trainable linear map before a loss, from the student's width to the teacher's.

use ndarray::ArrayD;

use super::{
    Distiller, Loss, Signals,
    maps::{Maps, STUDENT, widths, with_width},
    pointwise::Pointwise,
};
use crate::{
    error::Result,
    random::{Random, derive},
};

/// A loss of the student's features brought to the teacher's width: of `W f_s + b` at each position, a 1x1 convolution,
/// trained along with the student (the regressor of FitNets, Romero et al. 2015; the projection of TinyBERT, Jiao et al.
/// 2019). Made by [`Distiller::projected`].
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `projection.weight` W | (teacher's channels, student's) | uniform in ±1/√(student's channels), as torch's `Linear` |
/// | `projection.bias` b | (teacher's channels) | the same |
/// | those of the wrapped loss | | its own, for signals of the teacher's width |
///
/// | setting | default | range |
/// |---|---|---|
/// | `where_needed`: projects where widths differ, and has no parameters where they do not | always projects | |
///
/// The first signal is projected; a [second](Signals::and) stays as it is. A loss that
/// [compares channels](Distiller::compares_channels) may so be given layers of any width.
///
/// ```
/// use ndarray::{Array2, array};
/// use tersor::{Distiller, Signals};
///
/// let (student, teacher) = (array![[1.0, 2.0], [0.5, -1.0]], array![[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]]);
/// let loss = Distiller::cosine().projected();
/// let parameters = loss.parameters(student.shape(), teacher.shape(), 0)?;
/// assert_eq!(parameters[0].1.shape(), [3, 2]);
/// let arrays: Vec<_> = parameters.into_iter().map(|(_, array)| array).collect();
/// let made = loss.apply(&Signals::new(&student, &teacher).parameters(&arrays))?;
/// assert_eq!((made.gradient.shape(), made.parameters[0].shape()), (&[2, 2][..], &[3, 2][..]));
/// # Ok::<(), tersor::Error>(())
/// ```
///
/// # Errors
/// [`apply`](Distiller::apply) gives [`Error::Rank`](crate::Error::Rank) for features of rank other than 2, 3 or 4, those of [`Signals::own`],
/// and those of the wrapped loss.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Projected<D> {
    loss: D,
    always: bool,
}

impl<D> Projected<D> {
    pub(super) fn new(loss: D) -> Projected<D> {
        Projected { loss, always: true }
    }

    /// Applies the loss as it is to features of equal widths.
    ///
    /// ```
    /// use tersor::Distiller;
    ///
    /// let loss = Distiller::cosine().projected().where_needed();
    /// assert_eq!(loss.parameters(&[8, 3], &[8, 5], 0)?.len(), 2);
    /// assert_eq!(loss.parameters(&[8, 5], &[8, 5], 0)?.len(), 0);
    /// # Ok::<(), tersor::Error>(())
    /// ```
    pub fn where_needed(self) -> Projected<D> {
        Projected { always: false, ..self }
    }
}

impl<D: Distiller> Distiller for Projected<D> {
    fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
        let (student, teacher) = (signals.student()?, signals.teacher()?);
        let [inputs, outputs] = widths(student.shape(), teacher.shape())?;
        if inputs == outputs && !self.always {
            return signals.fitting(self.loss.apply(signals)?);
        }
        let [own, others] = signals.own_first(&Pointwise::shapes(inputs, outputs))?;
        let (projection, student) = (Pointwise::new(own), Maps::new(STUDENT, &student)?);

        let rows = student.rows();
        let projected = student.rows_to_signal(projection.forward(&rows));
        let inner = signals.instead(projected, teacher).parameters(others);
        let loss = inner.fitting(self.loss.apply(&inner)?)?;
        let slopes = Maps::new("the gradient of the projected loss", &loss.gradient.view())?.rows();
        let (gradient, own) = projection.backward(&rows, &slopes);
        let parameters = own.into_iter().chain(loss.parameters).collect();
        Loss { gradient: student.rows_to_signal(gradient), parameters, ..loss }.finite()
    }

    fn parameters(&self, student: &[usize], teacher: &[usize], seed: u64) -> Result<Vec<(String, ArrayD<f64>)>> {
        let [inputs, outputs] = widths(student, teacher)?;
        if inputs == outputs && !self.always {
            return self.loss.parameters(student, teacher, seed);
        }
        let own = Pointwise::initial(inputs, outputs, &mut Random::new(seed))?;
        let names = ["projection.weight", "projection.bias"].map(String::from);
        let others = self.loss.parameters(&with_width(student, outputs), teacher, derive(seed, 0))?;
        Ok(names.into_iter().zip(own).chain(others).collect())
    }
}
