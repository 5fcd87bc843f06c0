//! A branch added to its input.

use ndarray::{ArrayD, ArrayViewD};

use super::{
    Network,
    inner::Inner,
    layer::Backward,
    shape::expect_shape,
    trace::{Mode, Trace},
};
use crate::Result;

/// A residual block (He et al. 2016), `y = x + branch(x)`: the branch is a network of its own, so networks are trees.
///
/// ```
/// use ndarray::array;
/// use tersor::nn::{Layer, Linear, Network, Residual};
///
/// let branch = Network::from_layers(vec![("scale".into(), Linear::from_arrays(array![[2.0]], None)?.into())])?;
/// assert_eq!(Layer::from(Residual::new(branch)).forward(&array![[5.0]])?, array![[15.0]].into_dyn());
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Residual {
    branch: Network,
}

impl Residual {
    /// Adds this branch to its input.
    pub fn new(branch: Network) -> Residual {
        Residual { branch }
    }

    /// The branch.
    pub fn branch(&self) -> &Network {
        &self.branch
    }

    /// The branch, to be changed.
    pub fn branch_mut(&mut self) -> &mut Network {
        &mut self.branch
    }

    pub(super) fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        let output = self.branch.output_shape(input)?;
        expect_shape("output of a residual branch", input, &output).map(|()| output)
    }

    pub(super) fn forward(&self, x: ArrayViewD<'_, f32>) -> Result<ArrayD<f32>> {
        Ok(self.branch.evaluate(x.view())? + &x)
    }

    pub(super) fn trace(&self, x: ArrayViewD<'_, f32>, mode: Mode) -> Result<(ArrayD<f32>, Trace)> {
        let trace = self.branch.run(x.to_owned(), mode)?;
        Ok((&trace.output() + &x, trace))
    }

    /// `dx = dy + branch'(dy)`.
    pub(super) fn backward(
        &self,
        trace: &Trace,
        dy: ArrayD<f32>,
        inner: &Inner<'_>,
        wants_input: bool,
    ) -> Result<Backward> {
        let through = wants_input.then(|| dy.clone());
        let (dx, parameters) = self.branch.propagate_with(trace, dy, inner, wants_input)?;
        Ok((through.zip(dx).map(|(through, dx)| through + dx), parameters))
    }
}
