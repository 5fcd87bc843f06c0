//! Inputs with what the network should make of them.

use ndarray::{ArrayBase, ArrayD, ArrayView1, Axis, Dimension, Ix2, concatenate};

use super::{
    Network,
    dense::row_major,
    shape::{at_least_one, elements, expect_shape},
};
use crate::{Error, Result, random::Random, tensor::expect_finite};

/// Samples of an evaluation batch: bounds the memory that activations take.
const EVALUATION_BATCH: usize = 256;

/// What a network should answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Targets {
    /// A class for each sample, numbered from 0.
    Classes(Vec<usize>),
    /// A whole output for each sample: (batch, ..).
    Values(ArrayD<f32>),
    /// Nothing: a teacher answers.
    Unlabelled,
}

/// A data set, or a batch of one: inputs (samples, ..) and a target for each.
///
/// ```
/// use ndarray::{Array2, array};
/// use tersor::nn::Data;
///
/// let labelled = Data::classes(Array2::<f32>::eye(3), [2, 0, 1])?;
/// assert_eq!((labelled.len(), labelled.inputs().shape()), (3, &[3, 3][..]));
/// let regression = Data::values(Array2::<f32>::eye(2), array![[0.5], [1.5]])?;
/// assert_eq!(regression.len(), 2);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    pub(super) inputs: ArrayD<f32>,
    pub(super) targets: Targets,
}

impl Data {
    /// Inputs of any rank from 2, samples first, with a class label for each sample.
    ///
    /// ```
    /// use ndarray::array;
    /// use tersor::nn::Data;
    ///
    /// let data = Data::classes(array![[0.0, 1.0], [1.0, 0.0]], array![1, 0])?;
    /// assert_eq!(data.len(), 2);
    /// # Ok::<(), tersor::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::Empty`], [`Error::NotFinite`] for the inputs, [`Error::Shape`] if there are not as
    /// many labels as samples. Whether the labels are in range is seen by the loss, which knows the classes.
    pub fn classes<S, D>(inputs: ArrayBase<S, D>, labels: impl IntoIterator<Item = usize>) -> Result<Data>
    where
        S: ndarray::Data<Elem = f32>,
        D: Dimension,
    {
        let labels: Vec<usize> = labels.into_iter().collect();
        let count = labels.len();
        Data::new(inputs, Targets::Classes(labels), vec![count])
    }

    /// Inputs of any rank from 2, samples first, with an output for each sample: regression, or a teacher's logits.
    ///
    /// # Errors
    /// As [`Data::classes`], for the targets too.
    pub fn values<S, D, T, E>(inputs: ArrayBase<S, D>, targets: ArrayBase<T, E>) -> Result<Data>
    where
        S: ndarray::Data<Elem = f32>,
        D: Dimension,
        T: ndarray::Data<Elem = f32>,
        E: Dimension,
    {
        elements("targets", targets.shape())?;
        expect_finite("targets", &targets)?;
        let targets = row_major(targets.into_owned()).into_dyn();
        let shape = targets.shape().to_vec();
        Data::new(inputs, Targets::Values(targets), shape)
    }

    /// Inputs alone, for a [`Distillation`](crate::Distillation) without hard labels.
    ///
    /// # Errors
    /// As [`Data::classes`], for the inputs.
    pub fn unlabelled<S, D>(inputs: ArrayBase<S, D>) -> Result<Data>
    where
        S: ndarray::Data<Elem = f32>,
        D: Dimension,
    {
        let samples = inputs.shape().first().copied().unwrap_or(0);
        Data::new(inputs, Targets::Unlabelled, vec![samples])
    }

    fn new<S, D>(inputs: ArrayBase<S, D>, targets: Targets, targets_shape: Vec<usize>) -> Result<Data>
    where
        S: ndarray::Data<Elem = f32>,
        D: Dimension,
    {
        if inputs.ndim() < 2 {
            return Err(Error::Rank { what: "inputs", expected: "2 or more", found: inputs.shape().to_vec() });
        }
        elements("inputs", inputs.shape())?;
        let samples = inputs.shape()[0];
        if targets_shape.first() != Some(&samples) {
            let expected = std::iter::once(samples).chain(targets_shape.iter().skip(1).copied()).collect();
            return Err(Error::Shape { what: "targets", expected, found: targets_shape });
        }
        expect_finite("inputs", &inputs)?;
        Ok(Data { inputs: row_major(inputs.into_owned()).into_dyn(), targets })
    }

    /// Samples; at least 1.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.inputs.len_of(Axis(0))
    }

    /// The inputs, (samples, ..).
    pub fn inputs(&self) -> &ArrayD<f32> {
        &self.inputs
    }

    /// The targets.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// The samples at these positions, in this order.
    ///
    /// # Errors
    /// [`Error::Empty`] for no samples, [`Error::Setting`] for a position beyond the last.
    pub fn select(&self, samples: &[usize]) -> Result<Data> {
        if samples.is_empty() {
            return Err(Error::Empty { what: "the selection of samples" });
        }
        if let Some(sample) = samples.iter().find(|sample| **sample >= self.len()) {
            let bound = "below the number of samples";
            return Err(Error::Setting { setting: "sample", value: *sample as f64, bound });
        }
        Ok(self.gather(samples))
    }

    fn gather(&self, samples: &[usize]) -> Data {
        let targets = match &self.targets {
            Targets::Classes(labels) => Targets::Classes(samples.iter().map(|sample| labels[*sample]).collect()),
            Targets::Values(values) => Targets::Values(row_major(values.select(Axis(0), samples))),
            Targets::Unlabelled => Targets::Unlabelled,
        };
        Data { inputs: row_major(self.inputs.select(Axis(0), samples)), targets }
    }

    /// All samples in an order drawn from `seed`, in batches; the last may be smaller.
    ///
    /// # Errors
    /// [`Error::Setting`] for a batch size of 0.
    pub fn shuffled_batches(&self, batch_size: usize, seed: u64) -> Result<impl Iterator<Item = Data>> {
        Ok(self.numbered_batches(batch_size, seed)?.map(|(_, batch)| batch))
    }

    /// [`Data::shuffled_batches`], with the positions of the samples.
    pub(super) fn numbered_batches(
        &self,
        batch_size: usize,
        seed: u64,
    ) -> Result<impl Iterator<Item = (Vec<usize>, Data)>> {
        at_least_one("batch_size", batch_size)?;
        let mut order: Vec<usize> = (0..self.len()).collect();
        Random::new(seed).shuffle(&mut order);
        let starts = (0..self.len()).step_by(batch_size);
        Ok(starts.map(move |start| {
            let samples = order[start..self.len().min(start.saturating_add(batch_size))].to_vec();
            let batch = self.gather(&samples);
            (samples, batch)
        }))
    }
}

impl Data {
    /// The share of samples, 0 to 1, whose largest output is that of their class; of equal outputs the first counts.
    ///
    /// # Errors
    /// [`Error::Conflict`] for data without classes, [`Error::Rank`] for outputs that are not (samples, classes),
    /// [`Error::Shape`] for another number of samples, [`Error::Label`].
    pub fn accuracy_of<S, D>(&self, outputs: &ArrayBase<S, D>) -> Result<f64>
    where
        S: ndarray::Data<Elem = f32>,
        D: Dimension,
    {
        let Targets::Classes(labels) = &self.targets else { return Err(no_classes()) };
        let found = outputs.shape().to_vec();
        let outputs = outputs.view().into_dimensionality::<Ix2>();
        let outputs = outputs.map_err(|_| Error::Rank { what: "outputs", expected: "2", found })?;
        expect_shape("outputs", &[labels.len(), outputs.ncols()], outputs.shape())?;
        expect_labels(labels, outputs.ncols())?;
        let answers = outputs.rows().into_iter().map(first_largest);
        Ok(answers.zip(labels).filter(|(answer, label)| answer == *label).count() as f64 / labels.len() as f64)
    }
}

impl Network {
    /// The share of samples, 0 to 1, whose largest output is that of their class; of equal outputs the first counts.
    ///
    /// # Errors
    /// As [`Network::forward`] and [`Data::accuracy_of`].
    pub fn accuracy(&self, data: &Data) -> Result<f64> {
        let batches = data.inputs.axis_chunks_iter(Axis(0), EVALUATION_BATCH);
        let outputs = batches.map(|inputs| self.evaluate(inputs)).collect::<Result<Vec<_>>>()?;
        let views: Vec<_> = outputs.iter().map(|outputs| outputs.view()).collect();
        let found = outputs[0].shape().to_vec();
        match concatenate(Axis(0), &views) {
            Ok(outputs) => data.accuracy_of(&outputs),
            Err(_) => Err(Error::Rank { what: "outputs", expected: "2", found }),
        }
    }
}

/// Every label is a class.
pub(crate) fn expect_labels(labels: &[usize], classes: usize) -> Result<()> {
    match labels.iter().position(|label| *label >= classes) {
        Some(index) => Err(Error::Label { label: labels[index], index, classes }),
        None => Ok(()),
    }
}

/// The error for data whose targets are values where classes are needed.
pub(super) fn no_classes() -> Error {
    Error::Conflict {
        what: "the targets are no class labels, but class labels are needed".into(),
        remedy: "make the data with Data::classes, or train with MeanSquaredError",
    }
}

fn first_largest(row: ArrayView1<'_, f32>) -> usize {
    row.iter().enumerate().fold(0, |best, (i, value)| if *value > row[best] { i } else { best })
}
