//! The loss of a whole data set: its gradient, and its Hessian times a vector.

use ndarray::ArrayD;

use super::{Data, Loss, Mode, Network, shape::expect_shape};
use crate::{Error, Result, tensor::expect_finite};

/// Samples of a batch: bounds the memory that activations take.
const BATCH: usize = 256;

/// Arrays by the names of the parameters that they belong to.
type Named = Vec<(String, ArrayD<f32>)>;

/// The mean loss of a data set, in evaluation mode.
impl Network {
    /// The mean loss.
    ///
    /// # Errors
    /// Those of a forward pass and of the loss.
    pub fn loss(&self, data: &Data, loss: &dyn Loss) -> Result<f64> {
        let mut sum = 0.0;
        self.each_batch(data, loss, |batch, share| {
            let output = self.evaluate(batch.inputs.view())?;
            sum += share * loss.evaluate(output.view(), &batch.targets)?.0;
            Ok(())
        })?;
        Ok(sum)
    }

    /// The gradient of the mean loss for every parameter, named and ordered as [`Network::parameters`]. A masked weight
    /// has one where it is removed too.
    ///
    /// ```
    /// use ndarray::array;
    /// use tersor::nn::{CrossEntropy, Data, Network};
    ///
    /// let network = Network::builder(3).linear(2, 2).build()?;
    /// let data = Data::classes(array![[1.0, 0.0], [0.0, 1.0]], [0, 1])?;
    /// let gradient = network.gradient(&data, &CrossEntropy::new())?;
    /// assert_eq!((gradient[0].0.as_str(), gradient[0].1.shape()), ("0.weight", &[2, 2][..]));
    /// # Ok::<(), tersor::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Network::loss`].
    pub fn gradient(&self, data: &Data, loss: &dyn Loss) -> Result<Named> {
        let mut total = Sum::default();
        self.each_batch(data, loss, |batch, share| {
            let trace = self.run(batch.inputs.clone(), Mode::Evaluation)?;
            let (_, gradient) = loss.evaluate(trace.output(), &batch.targets)?;
            total.add(self.propagate(&trace, gradient, false)?.1, share);
            Ok(())
        })?;
        Ok(total.0)
    }

    /// The Hessian of the mean loss times a vector, exactly (Pearlmutter 1994): how [`gradient`](Network::gradient)
    /// changes as the parameters move along it. The kinks of ReLU and max pooling are nowhere in the way.
    ///
    /// ```
    /// use ndarray::array;
    /// use tersor::nn::{Data, MeanSquaredError, Network};
    ///
    /// // (w · x - t)² has the Hessian 2 x xᵀ.
    /// let network = Network::builder(3).linear_without_bias(2, 1).build()?;
    /// let data = Data::values(array![[1.0, 3.0]], array![[0.0]])?;
    /// let along = vec![("0.weight".to_owned(), array![[1.0, 0.0]].into_dyn())];
    /// assert_eq!(network.hessian_vector(&data, &MeanSquaredError, &along)?[0].1, array![[2.0, 6.0]].into_dyn());
    /// # Ok::<(), tersor::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Network::loss`]; [`Error::UnknownName`], [`Error::Shape`] or [`Error::NotFinite`] for a vector that is not
    /// one of this network's parameters, in their order.
    pub fn hessian_vector(&self, data: &Data, loss: &dyn Loss, vector: &[(String, ArrayD<f32>)]) -> Result<Named> {
        let dot = self.with_parameters(vector)?;
        let mut total = Sum::default();
        self.each_batch(data, loss, |batch, share| {
            let trace = self.run(batch.inputs.clone(), Mode::Evaluation)?;
            let tangent = self.tangent(&dot, &trace, ArrayD::zeros(batch.inputs.raw_dim()))?;
            let (_, gradient) = loss.evaluate(trace.output(), &batch.targets)?;
            let moved = loss.gradient_tangent(trace.output(), tangent.output(), &batch.targets)?;
            expect_shape("tangent of the loss's gradient", gradient.shape(), moved.shape())?;
            total.add(self.backward_tangent(&dot, (&trace, &tangent), (gradient, moved))?.1, share);
            Ok(())
        })?;
        Ok(total.0)
    }

    fn each_batch(&self, data: &Data, loss: &dyn Loss, mut f: impl FnMut(&Data, f64) -> Result<()>) -> Result<()> {
        loss.check(&self.output_shape(data.inputs.shape())?, &data.targets)?;
        for start in (0..data.len()).step_by(BATCH) {
            let samples: Vec<usize> = (start..data.len().min(start + BATCH)).collect();
            f(&data.select(&samples)?, samples.len() as f64 / data.len() as f64)?;
        }
        Ok(())
    }

    /// The same layers with other parameters, no masks applied.
    fn with_parameters(&self, values: &[(String, ArrayD<f32>)]) -> Result<Network> {
        let parameters = self.parameters();
        expect_shape("the list of vectors", &[parameters.len()], &[values.len()])?;
        for ((name, parameter), (found, values)) in parameters.iter().zip(values) {
            if name != found {
                let known = parameters.iter().map(|(name, _)| name.clone()).collect();
                return Err(Error::UnknownName { name: found.clone(), known });
            }
            expect_shape("the vector", parameter.shape(), values.shape())?;
            expect_finite("the vector", values)?;
        }
        let mut changed = self.clone();
        for ((_, mut parameter), (_, values)) in changed.parameters_mut().into_iter().zip(values) {
            parameter.assign(values);
        }
        Ok(changed)
    }
}

/// A weighted sum of named arrays.
#[derive(Default)]
struct Sum(Named);

impl Sum {
    fn add(&mut self, arrays: Named, share: f64) {
        let share = share as f32;
        if self.0.is_empty() {
            self.0 = arrays.into_iter().map(|(name, array)| (name, array * share)).collect();
        } else {
            self.0.iter_mut().zip(arrays).for_each(|((_, sum), (_, array))| sum.scaled_add(share, &array));
        }
    }
}
