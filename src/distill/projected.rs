//! A trainable linear map before a loss, from the student's width to the teacher's.

use std::sync::Arc;

use ndarray::{ArrayD, ArrayViewD, CowArray, IxDyn};

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
/// | `second_projection.weight`, `.bias` | as the second signals' channels | the same |
/// | those of the wrapped loss | | its own, for signals of the teacher's width |
///
/// | setting | default | range |
/// |---|---|---|
/// | `where_needed`: projects where widths differ, and has no parameters where they do not | always projects | |
///
/// A [second](Signals::and) signal is projected by a map of its own. A loss that
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

impl<D: Distiller> Projected<D> {
    /// The widths that a layer is projected from and to, if it is.
    fn ends(&self, student: &[usize], teacher: &[usize]) -> Result<Option<[usize; 2]>> {
        let [inputs, outputs] = widths(student, teacher)?;
        Ok((self.always || inputs != outputs).then_some([inputs, outputs]))
    }

    /// The shape of the student's layer behind its map.
    fn behind(&self, student: &[usize], teacher: &[usize]) -> Result<Vec<usize>> {
        Ok(match self.ends(student, teacher)? {
            Some([_, outputs]) => with_width(student, outputs),
            None => student.to_vec(),
        })
    }

    /// The initial maps of the layers.
    fn initial(&self, layers: &[[&[usize]; 2]], seed: u64) -> Result<Vec<(String, ArrayD<f64>)>> {
        let (mut own, mut random) = (vec![], Random::new(seed));
        for (name, [student, teacher]) in ["projection", "second_projection"].into_iter().zip(layers) {
            if let Some([inputs, outputs]) = self.ends(student, teacher)? {
                let [weight, bias] = Pointwise::initial(inputs, outputs, &mut random)?;
                own.extend([(format!("{name}.weight"), weight), (format!("{name}.bias"), bias)]);
            }
        }
        Ok(own)
    }
}

impl<D: Distiller> Distiller for Projected<D> {
    fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
        let mut layers = vec![[signals.student()?, signals.teacher()?]];
        if signals.has_second() {
            layers.push(signals.second()?);
        }
        let ends = layers.iter().map(|[student, teacher]| self.ends(student.shape(), teacher.shape()));
        let ends = ends.collect::<Result<Vec<_>>>()?;
        let shapes: Vec<_> = ends.iter().flatten().flat_map(|&[from, to]| Pointwise::shapes(from, to)).collect();
        let [own, others] = signals.own_first(&shapes)?;
        let mut maps = own.chunks_exact(2).map(Pointwise::new);
        let sides = layers.iter().zip(&ends).map(|([student, _], ends)| match ends {
            Some(_) => Side::new(maps.next().expect("one for each"), student).map(Some),
            None => Ok(None),
        });
        let sides = sides.collect::<Result<Vec<Option<Side<'_>>>>>()?;

        let projected = |layer: usize| -> [CowArray<'_, f64, IxDyn>; 2] {
            let [student, teacher] = layers[layer].each_ref().map(|array| array.view().into());
            [sides[layer].as_ref().map_or(student, |side| side.forward().into()), teacher]
        };
        let [student, teacher] = projected(0);
        let mut behind = signals.instead(student, teacher).parameters(others);
        if layers.len() == 2 {
            behind = behind.with_second(projected(1));
        }
        let loss = behind.fitting(self.loss.apply(&behind)?)?;

        let mut parameters = vec![];
        let mut back = |layer: usize, gradient: ArrayD<f64>| match &sides[layer] {
            None => gradient,
            Some(side) => {
                let (gradient, own) = side.backward(&gradient);
                parameters.extend(own);
                gradient
            }
        };
        let gradient = back(0, loss.gradient);
        let second = loss.second.map(|gradient| back(1, gradient));
        // A second layer that the loss does not read has a map all the same.
        parameters.extend(own[parameters.len()..].iter().map(|unread| ArrayD::zeros(unread.raw_dim())));
        parameters.extend(loss.parameters);
        Loss { value: loss.value, gradient, second, parameters }.finite()
    }

    fn parameters(&self, student: &[usize], teacher: &[usize], seed: u64) -> Result<Vec<(String, ArrayD<f64>)>> {
        let mut all = self.initial(&[[student, teacher]], seed)?;
        all.extend(self.loss.parameters(&self.behind(student, teacher)?, teacher, derive(seed, 0))?);
        Ok(all)
    }

    fn parameters_between(
        &self,
        student: [&[usize]; 2],
        teacher: [&[usize]; 2],
        seed: u64,
    ) -> Result<Vec<(String, ArrayD<f64>)>> {
        let mut all = self.initial(&[[student[0], teacher[0]], [student[1], teacher[1]]], seed)?;
        let (first, second) = (self.behind(student[0], teacher[0])?, self.behind(student[1], teacher[1])?);
        all.extend(self.loss.parameters_between([&first, &second], teacher, derive(seed, 0))?);
        Ok(all)
    }

    fn temperature(&self, progress: f64) -> f64 {
        self.loss.temperature(progress)
    }

    fn weighs_samples(&self) -> bool {
        self.loss.weighs_samples()
    }
}

/// One of the student's layers and its map.
struct Side<'a> {
    projection: Pointwise<'a>,
    maps: Maps<'a>,
}

impl<'a> Side<'a> {
    fn new(projection: Pointwise<'a>, student: &ArrayViewD<'a, f64>) -> Result<Side<'a>> {
        Ok(Side { projection, maps: Maps::new(STUDENT, student)? })
    }

    fn forward(&self) -> ArrayD<f64> {
        self.maps.rows_to_signal(self.projection.forward(self.maps.rows().view()))
    }

    /// The gradients for the layer, and for weight and bias.
    fn backward(&self, gradient: &ArrayD<f64>) -> (ArrayD<f64>, [ArrayD<f64>; 2]) {
        let slopes = Maps::new(STUDENT, &gradient.view()).expect("of the shape that the layer was projected to");
        let (gradient, own) = self.projection.backward(self.maps.rows().view(), slopes.rows().view());
        (self.maps.rows_to_signal(gradient), own)
    }
}

/// The loss for features of any widths: as it is, or projected where they differ.
pub(super) fn at_any_width(loss: impl Distiller + 'static) -> Arc<dyn Distiller> {
    match loss.compares_channels() {
        true => Arc::new(loss.projected().where_needed()),
        false => Arc::new(loss),
    }
}
