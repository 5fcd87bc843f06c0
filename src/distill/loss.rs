//! What a loss gives.

use ndarray::ArrayD;

use crate::{
    error::{Error, Result},
    tensor::expect_finite,
};

/// A loss's value and its exact gradients, in `f64`.
///
/// ```
/// use ndarray::array;
/// use tersor::{Distiller, Signals};
///
/// let loss = Distiller::logits().apply(&Signals::new(&array![[1.0, 2.0]], &array![[0.0, 2.0]]))?;
/// assert_eq!((loss.value, loss.gradient), (0.5, array![[1.0, 0.0]].into_dyn()));
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Loss {
    /// The loss.
    pub value: f64,
    /// Its gradient for the student's signal, in that one's shape.
    pub gradient: ArrayD<f64>,
    /// Its gradient for the student's second signal, if there is one.
    pub second: Option<ArrayD<f64>>,
    /// Its gradient for each of the loss's own parameters.
    pub parameters: Vec<ArrayD<f64>>,
}

impl Loss {
    /// A loss of one signal, without parameters.
    pub fn new(value: f64, gradient: ArrayD<f64>) -> Loss {
        Loss { value, gradient, second: None, parameters: vec![] }
    }

    /// Adds the gradient for the second signal.
    #[must_use]
    pub fn with_second(self, second: ArrayD<f64>) -> Loss {
        Loss { second: Some(second), ..self }
    }

    /// Adds the gradients for the loss's own parameters.
    #[must_use]
    pub fn with_parameters(self, parameters: Vec<ArrayD<f64>>) -> Loss {
        Loss { parameters, ..self }
    }

    /// The loss times a factor.
    #[must_use]
    pub fn scaled(mut self, factor: f64) -> Loss {
        self.value *= factor;
        let arrays = std::iter::once(&mut self.gradient).chain(&mut self.second).chain(&mut self.parameters);
        arrays.for_each(|array| *array *= factor);
        self
    }

    /// The loss, if neither it nor a gradient overflowed.
    ///
    /// # Errors
    /// [`Error::NotFinite`].
    pub(super) fn finite(self) -> Result<Loss> {
        if !self.value.is_finite() {
            return Err(Error::NotFinite { what: "the loss", index: 0, value: self.value });
        }
        let gradients = std::iter::once(&self.gradient).chain(&self.second).chain(&self.parameters);
        gradients.into_iter().try_for_each(|gradient| expect_finite("a gradient of the loss", gradient))?;
        Ok(self)
    }

    /// The sum with another loss of the same signals and parameters.
    pub(super) fn plus(mut self, other: Loss) -> Loss {
        self.value += other.value;
        self.gradient += &other.gradient;
        self.second = match (self.second, other.second) {
            (Some(mine), Some(others)) => Some(mine + others),
            (mine, others) => mine.or(others),
        };
        self.parameters.iter_mut().zip(&other.parameters).for_each(|(mine, others)| *mine += others);
        self
    }
}
