//! What takes part in a training.

use std::fmt::Debug;

use ndarray::ArrayD;

use super::{Network, Progress};
use crate::Result;

/// Takes part in a training ([`Training::train_with`](super::Training::train_with)): adds to the gradients before a step,
/// changes the network after it. Pruning while training, dynamic sparse training and penalties are callbacks.
///
/// An error ends the training with the network as it is.
///
/// ```
/// use ndarray::{Array2, ArrayD};
/// use tersor::{Result, nn::{Callback, Data, Network, Progress, Sgd, Training}};
///
/// /// Adds lambda |w| to the loss.
/// #[derive(Debug)]
/// struct L1(f32);
///
/// impl Callback for L1 {
///     fn before_step(&mut self, _: &Progress, network: &mut Network, gradients: &mut [(String, ArrayD<f32>)]) -> Result<()> {
///         for ((_, w), (_, g)) in network.parameters().into_iter().zip(gradients) {
///             g.zip_mut_with(&w, |g, w| *g += self.0 * w.signum());
///         }
///         Ok(())
///     }
/// }
///
/// let mut network = Network::builder(1).linear(4, 2).build()?;
/// let data = Data::classes(Array2::<f32>::eye(4), [0, 1, 0, 1])?;
/// Training::new(3).train_with(&mut network, &data, &mut Sgd::new(0.1), &mut L1(1e-3), &mut |_| {
///     std::ops::ControlFlow::Continue(())
/// })?;
/// # Ok::<(), tersor::Error>(())
/// ```
pub trait Callback: Debug {
    /// Before the first of `steps` steps.
    ///
    /// # Errors
    /// What does not fit; the training then ends before its first step, and the network is what it was before `start`.
    fn start(&mut self, network: &mut Network, steps: usize) -> Result<()> {
        let _ = (network, steps);
        Ok(())
    }

    /// After the backward pass. The gradients are those of every parameter, named and ordered as
    /// [`Network::parameters`], of masked weights too: what a mask removes is taken out of them only afterwards.
    ///
    /// # Errors
    /// What goes wrong.
    fn before_step(
        &mut self,
        at: &Progress,
        network: &mut Network,
        gradients: &mut [(String, ArrayD<f32>)],
    ) -> Result<()> {
        let _ = (at, network, gradients);
        Ok(())
    }

    /// After the optimizer's step.
    ///
    /// # Errors
    /// What goes wrong.
    fn after_step(&mut self, at: &Progress, network: &mut Network) -> Result<()> {
        let _ = (at, network);
        Ok(())
    }

    /// Whether the training may end early, asked after every epoch.
    fn is_done(&self) -> bool {
        false
    }

    /// After the last step of a training that was neither cancelled nor in error.
    ///
    /// # Errors
    /// What goes wrong.
    fn finish(&mut self, network: &mut Network) -> Result<()> {
        let _ = network;
        Ok(())
    }
}

/// Takes no part.
impl Callback for () {}

impl<C: Callback + ?Sized> Callback for &mut C {
    fn start(&mut self, network: &mut Network, steps: usize) -> Result<()> {
        (**self).start(network, steps)
    }

    fn before_step(
        &mut self,
        at: &Progress,
        network: &mut Network,
        gradients: &mut [(String, ArrayD<f32>)],
    ) -> Result<()> {
        (**self).before_step(at, network, gradients)
    }

    fn after_step(&mut self, at: &Progress, network: &mut Network) -> Result<()> {
        (**self).after_step(at, network)
    }

    fn is_done(&self) -> bool {
        (**self).is_done()
    }

    fn finish(&mut self, network: &mut Network) -> Result<()> {
        (**self).finish(network)
    }
}

/// Each in turn; the training ends early if any of them wants it.
impl Callback for [&mut dyn Callback] {
    fn start(&mut self, network: &mut Network, steps: usize) -> Result<()> {
        self.iter_mut().try_for_each(|callback| callback.start(network, steps))
    }

    fn before_step(
        &mut self,
        at: &Progress,
        network: &mut Network,
        gradients: &mut [(String, ArrayD<f32>)],
    ) -> Result<()> {
        self.iter_mut().try_for_each(|callback| callback.before_step(at, network, gradients))
    }

    fn after_step(&mut self, at: &Progress, network: &mut Network) -> Result<()> {
        self.iter_mut().try_for_each(|callback| callback.after_step(at, network))
    }

    fn is_done(&self) -> bool {
        self.iter().any(|callback| callback.is_done())
    }

    fn finish(&mut self, network: &mut Network) -> Result<()> {
        self.iter_mut().try_for_each(|callback| callback.finish(network))
    }
}
