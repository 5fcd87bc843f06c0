//! What turns gradients into steps.

use std::{collections::HashMap, fmt::Debug};

use crate::{Result, tensor::Mask};

/// One parameter in a step: its values, to be changed, and their gradient, both row-major and equally long.
#[derive(Debug)]
pub struct Update<'a> {
    /// The parameter's full name, under which an optimizer may keep state.
    pub name: &'a str,
    /// The values.
    pub values: &'a mut [f32],
    /// The gradient of the loss; zero where the mask removes.
    pub gradient: &'a [f32],
    /// What of a pruned parameter is kept. The rest is zero before and after the step, whatever the optimizer does; its
    /// state should be zero there as well, so that a weight that comes back starts anew.
    pub mask: Option<&'a Mask>,
}

impl Update<'_> {
    /// Forgets the state of what is removed.
    pub(super) fn mask_state(mask: Option<&Mask>, state: &mut [f32]) {
        if let Some(mask) = mask {
            mask.apply_to_slice(state);
        }
    }
}

/// An optimizer. One written outside this crate is used exactly as those within.
///
/// ```
/// use tersor::{Result, nn::{Optimizer, Update}};
///
/// /// Steps by the sign of the gradient.
/// #[derive(Debug)]
/// struct Signs(f64);
///
/// impl Optimizer for Signs {
///     fn learning_rate(&self) -> f64 {
///         self.0
///     }
///
///     fn step(&mut self, learning_rate: f64, parameters: &mut [Update<'_>]) -> Result<()> {
///         for update in parameters {
///             for (w, g) in update.values.iter_mut().zip(update.gradient) {
///                 *w -= learning_rate as f32 * if *g == 0.0 { 0.0 } else { g.signum() };
///             }
///         }
///         Ok(())
///     }
/// }
/// # let mut values = [1.0];
/// # Signs(0.5).step(0.5, &mut [Update { name: "w", values: &mut values, gradient: &[7.0], mask: None }])?;
/// # assert_eq!(values, [0.5]);
/// # Ok::<(), tersor::Error>(())
/// ```
pub trait Optimizer: Debug + Send {
    /// The learning rate it was made with, from which a [`Schedule`](super::Schedule) starts.
    fn learning_rate(&self) -> f64;

    /// Changes the values by one step at this learning rate.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) for settings out of range; nothing is changed then.
    fn step(&mut self, learning_rate: f64, parameters: &mut [Update<'_>]) -> Result<()>;
}

/// State of each parameter by name, with the parameter's length. A parameter whose length changed starts anew.
pub(super) type States<T> = HashMap<String, (usize, T)>;

/// The state of a parameter, made where there is none; allocates only then.
pub(super) fn state_of<'a, T>(states: &'a mut States<T>, name: &str, len: usize, new: impl FnOnce() -> T) -> &'a mut T {
    if states.get(name).is_none_or(|(had, _)| *had != len) {
        states.insert(name.to_owned(), (len, new()));
    }
    &mut states.get_mut(name).expect("just inserted").1
}
