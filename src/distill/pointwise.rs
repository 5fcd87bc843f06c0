//! One linear map at every position: a 1x1 convolution.

use ndarray::{Array2, ArrayD, ArrayView1, ArrayView2, Axis, Ix1, Ix2};

use crate::{
    error::{Error, Result},
    random::Random,
};

/// The most weights that one map is begun with: 2 GiB of them.
const MOST: usize = 1 << 28;

/// `y = W x + b` for each row x, with `W` (outputs, inputs).
#[derive(Debug)]
pub(super) struct Pointwise<'a> {
    weight: ArrayView2<'a, f64>,
    bias: ArrayView1<'a, f64>,
}

impl<'a> Pointwise<'a> {
    /// The shapes of weight and bias.
    pub(super) fn shapes(inputs: usize, outputs: usize) -> [Vec<usize>; 2] {
        [vec![outputs, inputs], vec![outputs]]
    }

    /// Weight and bias uniform in ±1/√inputs, as torch begins `Linear` and `Conv2d`.
    pub(super) fn initial(inputs: usize, outputs: usize, random: &mut Random) -> Result<[ArrayD<f64>; 2]> {
        if inputs.checked_mul(outputs).is_none_or(|weights| weights > MOST) {
            let what = format!("a linear map from {inputs} to {outputs} channels has more than {MOST} weights");
            return Err(Error::Conflict { what, remedy: "choose narrower layers" });
        }
        let bound = (1.0 / (inputs as f64).sqrt()) as f32;
        Ok(Pointwise::shapes(inputs, outputs)
            .map(|shape| ArrayD::from_shape_simple_fn(shape, || f64::from(random.within(bound)))))
    }

    /// Of a weight and a bias, shapes checked.
    pub(super) fn new(parameters: &'a [ArrayD<f64>]) -> Pointwise<'a> {
        Pointwise {
            weight: parameters[0].view().into_dimensionality::<Ix2>().expect("a checked shape"),
            bias: parameters[1].view().into_dimensionality::<Ix1>().expect("a checked shape"),
        }
    }

    pub(super) fn forward(&self, rows: ArrayView2<'_, f64>) -> Array2<f64> {
        rows.dot(&self.weight.t()) + self.bias
    }

    /// The gradients for the rows, and for weight and bias.
    pub(super) fn backward(
        &self,
        rows: ArrayView2<'_, f64>,
        gradient: ArrayView2<'_, f64>,
    ) -> (Array2<f64>, [ArrayD<f64>; 2]) {
        let (weight, bias) = (gradient.t().dot(&rows), gradient.sum_axis(Axis(0)));
        (gradient.dot(&self.weight), [weight.into_dyn(), bias.into_dyn()])
    }
}
