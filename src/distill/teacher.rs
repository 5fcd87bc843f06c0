//! Whom a student learns from.

use std::fmt::Debug;

use ndarray::{ArrayBase, ArrayD, ArrayViewD, Axis, Dimension};

use crate::{
    error::{Error, Result},
    nn::{Data, Fingerprint, Network, expect_shape},
    tensor::expect_finite,
};

/// Whom a student learns from: a [`Network`], or what one said before ([`Recorded`]). One of your own, a model that another
/// engine runs say, is used in the same way.
pub trait Teacher: Debug {
    /// What the teacher makes of some samples of the data set: its outputs, and those of these layers, by full name, in this
    /// order. A teacher of whom only the outputs are known says so where layers are asked ([`Answer::without_layers`]).
    ///
    /// # Errors
    /// What goes wrong.
    fn answer(&self, batch: &Batch<'_>, layers: &[String]) -> Result<Answer>;

    /// Whether this teacher can speak of these data, asked before the first step.
    ///
    /// # Errors
    /// What does not fit.
    fn check(&self, data: &Data) -> Result<()> {
        let _ = data;
        Ok(())
    }

    /// A number that tells this teacher from any that answers otherwise, and is the same in every run: what is kept of its
    /// answers is kept under it. A [`Network`] has one of its own ([`Network::fingerprint`]); by default there is none.
    fn fingerprint(&self) -> Option<u64> {
        None
    }
}

/// Samples of a data set.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// Their positions in the data set.
    pub samples: &'a [usize],
    /// Their inputs, row-major, in the same order.
    pub inputs: ArrayViewD<'a, f32>,
}

/// What a teacher makes of a batch.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The outputs.
    pub outputs: ArrayD<f32>,
    /// The outputs of the layers that were asked for.
    pub layers: Vec<ArrayD<f32>>,
}

impl Answer {
    /// Of a teacher of whom only the outputs are known.
    ///
    /// # Errors
    /// [`Error::Conflict`] if layers are asked for.
    pub fn without_layers(outputs: ArrayD<f32>, asked: &[String]) -> Result<Answer> {
        match asked.first() {
            None => Ok(Answer { outputs, layers: vec![] }),
            Some(layer) => Err(Error::Conflict {
                what: format!("the teacher's layer `{layer}` is asked for, but only the teacher's outputs are known"),
                remedy: "give the network itself as teacher, or keep to terms on outputs",
            }),
        }
    }
}

impl Teacher for Network {
    fn answer(&self, batch: &Batch<'_>, layers: &[String]) -> Result<Answer> {
        self.forward_with(&batch.inputs, layers).map(|(outputs, layers)| Answer { outputs, layers })
    }

    fn check(&self, data: &Data) -> Result<()> {
        self.output_shape(data.inputs().shape()).map(|_| ())
    }

    fn fingerprint(&self) -> Option<u64> {
        Some(Network::fingerprint(self))
    }
}

/// Outputs that a teacher gave before, one for each sample of a data set: no teacher is needed any more.
///
/// ```
/// use ndarray::array;
/// use tersor::distill::Recorded;
///
/// let teacher = Recorded::new(array![[2.0, -1.0], [0.5, 3.0]])?; // logits of two samples
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    outputs: ArrayD<f32>,
}

impl Recorded {
    /// Outputs (samples, ..) in the order of the data set.
    ///
    /// # Errors
    /// [`Error::Rank`] for fewer than two axes, [`Error::Empty`], [`Error::NotFinite`].
    pub fn new<S, D>(outputs: ArrayBase<S, D>) -> Result<Recorded>
    where
        S: ndarray::Data<Elem = f32>,
        D: Dimension,
    {
        let outputs = outputs.into_owned().into_dyn();
        let what = "the teacher's outputs";
        if outputs.ndim() < 2 {
            return Err(Error::Rank { what, expected: "2 or more", found: outputs.shape().to_vec() });
        }
        if outputs.is_empty() {
            return Err(Error::Empty { what });
        }
        expect_finite(what, &outputs).map(|()| Recorded { outputs })
    }
}

impl Teacher for Recorded {
    fn answer(&self, batch: &Batch<'_>, layers: &[String]) -> Result<Answer> {
        let known = self.outputs.len_of(Axis(0));
        if let Some(sample) = batch.samples.iter().find(|sample| **sample >= known) {
            let bound = "below the number of samples that the teacher's outputs are of";
            return Err(Error::Setting { setting: "sample", value: *sample as f64, bound });
        }
        Answer::without_layers(self.outputs.select(Axis(0), batch.samples), layers)
    }

    fn check(&self, data: &Data) -> Result<()> {
        let found = self.outputs.shape();
        expect_shape("the teacher's outputs", &[&[data.len()], &found[1..]].concat(), found)
    }

    fn fingerprint(&self) -> Option<u64> {
        Some(Fingerprint::new().array(self.outputs.view()).value())
    }
}
