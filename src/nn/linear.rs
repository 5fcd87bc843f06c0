//! `y = x Wᵀ + b`.

use ndarray::{Array1, Array2, ArrayD, ArrayView1, ArrayView2, ArrayViewD};

use super::{
    dense::{array, row_major, slice},
    layer::{Backward, OwnArray, OwnArrayMut, Role},
    product::{add_product, matrix},
    shape::{at_least_one, elements, expect_shape},
};
use crate::{
    Error, Result,
    random::Random,
    tensor::{Mask, expect_finite},
};

/// A fully connected layer, `y = x Wᵀ + b` along the last axis of `x`; `W` is (out, in), `b` is (out).
///
/// Initial values are those of PyTorch: weight and bias uniform in ±1/√in.
///
/// ```
/// use ndarray::array;
/// use tersor::nn::{Layer, Linear};
///
/// let linear = Layer::from(Linear::from_arrays(array![[1.0, 2.0], [0.0, -1.0]], Some(array![0.5, 0.0]))?);
/// assert_eq!(linear.forward(&array![[1.0, 1.0]])?, array![[3.5, -1.0]].into_dyn());
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    in_features: usize,
    out_features: usize,
    weight: Array2<f32>,
    bias: Option<Array1<f32>>,
    /// What of the weight is kept; the rest is zero and stays so in training.
    pub(super) mask: Option<Mask>,
}

impl Linear {
    /// A layer with a bias; its arrays are drawn when the network is built.
    pub fn new(in_features: usize, out_features: usize) -> Linear {
        Linear { in_features, out_features, weight: Array2::zeros((0, 0)), bias: Some(Array1::zeros(0)), mask: None }
    }

    /// Takes the bias away.
    pub fn without_bias(self) -> Linear {
        Linear { bias: None, ..self }
    }

    /// A trained layer.
    ///
    /// # Errors
    /// [`Error::Empty`] for a weight without elements, [`Error::Shape`] for a bias of another length than the
    /// weight's rows, [`Error::NotFinite`].
    pub fn from_arrays(weight: Array2<f32>, bias: Option<Array1<f32>>) -> Result<Linear> {
        let (out_features, in_features) = weight.dim();
        elements("weight of a linear layer", weight.shape())?;
        expect_finite("weight of a linear layer", &weight)?;
        if let Some(bias) = &bias {
            expect_finite("bias of a linear layer", bias)?;
        }
        let linear =
            Linear { in_features, out_features, weight: row_major(weight), bias: bias.map(row_major), mask: None };
        linear.check().map(|()| linear)
    }

    /// Features of an input.
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// Features of an output.
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// The weight, (out, in).
    pub fn weight(&self) -> ArrayView2<'_, f32> {
        self.weight.view()
    }

    /// The bias, (out).
    pub fn bias(&self) -> Option<ArrayView1<'_, f32>> {
        self.bias.as_ref().map(|bias| bias.view())
    }

    pub(super) fn initialize(&mut self, random: &mut Random) -> Result<()> {
        at_least_one("in_features of a linear layer", self.in_features)?;
        at_least_one("out_features of a linear layer", self.out_features)?;
        let shape = (self.out_features, self.in_features);
        elements("weight of a linear layer", &[shape.0, shape.1])?;
        if self.weight.is_empty() {
            let bound = 1.0 / (self.in_features as f32).sqrt();
            self.weight = Array2::from_shape_simple_fn(shape, || random.within(bound));
            self.bias = self.bias.take().map(|_| Array1::from_shape_simple_fn(shape.0, || random.within(bound)));
        }
        Ok(())
    }

    pub(super) fn check(&self) -> Result<()> {
        expect_shape("weight of a linear layer", &[self.out_features, self.in_features], self.weight.shape())?;
        match &self.bias {
            Some(bias) => expect_shape("bias of a linear layer", &[self.out_features], bias.shape()),
            None => Ok(()),
        }
    }

    pub(super) fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        let what = "input of a linear layer";
        let Some((features, batch)) = input.split_last().filter(|(_, batch)| !batch.is_empty()) else {
            return Err(Error::Rank { what, expected: "2 or more", found: input.to_vec() });
        };
        if *features != self.in_features {
            let expected = [batch, &[self.in_features]].concat();
            return Err(Error::Shape { what, expected, found: input.to_vec() });
        }
        Ok([batch, &[self.out_features]].concat())
    }

    pub(super) fn forward(&self, x: ArrayViewD<'_, f32>, shape: &[usize]) -> ArrayD<f32> {
        let x = matrix(slice(&x), self.in_features);
        let mut y = match &self.bias {
            Some(bias) => bias.to_vec().repeat(x.nrows()),
            None => vec![0.0; x.nrows() * self.out_features],
        };
        add_product(x, self.weight.t(), &mut y);
        array(shape, y)
    }

    /// `dW = dyᵀ x`, `db = Σ dy`, `dx = dy W`.
    pub(super) fn backward(&self, x: ArrayViewD<'_, f32>, dy: ArrayD<f32>, wants_input: bool) -> Backward {
        let (shape, x) = (x.shape().to_vec(), matrix(slice(&x), self.in_features));
        let dy_view = dy.view();
        let dy = matrix(slice(&dy_view), self.out_features);
        let mut dw = vec![0.0; self.weight.len()];
        add_product(dy.t(), x, &mut dw);
        let mut parameters = vec![("weight".into(), array(self.weight.shape(), dw))];
        if self.bias.is_some() {
            let mut db = Array1::zeros(self.out_features);
            dy.rows().into_iter().for_each(|row| db += &row);
            parameters.push(("bias".into(), db.into_dyn()));
        }
        let dx = wants_input.then(|| {
            let mut dx = vec![0.0; x.len()];
            add_product(dy, self.weight.view(), &mut dx);
            array(&shape, dx)
        });
        (dx, parameters)
    }

    pub(super) fn arrays(&self) -> Vec<OwnArray<'_>> {
        let weight = ("weight", Role::Parameter, self.weight.view().into_dyn());
        let bias = self.bias.as_ref().map(|bias| ("bias", Role::Parameter, bias.view().into_dyn()));
        [Some(weight), bias].into_iter().flatten().collect()
    }

    pub(super) fn arrays_mut(&mut self) -> Vec<OwnArrayMut<'_>> {
        let weight = ("weight", Role::Parameter, self.weight.view_mut().into_dyn());
        let bias = self.bias.as_mut().map(|bias| ("bias", Role::Parameter, bias.view_mut().into_dyn()));
        [Some(weight), bias].into_iter().flatten().collect()
    }
}
