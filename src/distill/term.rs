//! One loss of a distillation: where it looks, and how much it weighs.

use std::sync::Arc;

use ndarray::{ArrayD, ArrayViewD};

use super::{Distiller, Loss, Schedule};
use crate::{
    error::{Error, Result},
    nn::{Optimizer, Trace, Update},
};

/// The layers that a term looks at: one, by name, or two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At(Vec<String>);

impl From<&str> for At {
    fn from(layer: &str) -> At {
        At(vec![layer.to_owned()])
    }
}

impl From<[&str; 2]> for At {
    fn from(layers: [&str; 2]) -> At {
        At(layers.map(str::to_owned).to_vec())
    }
}

#[derive(Clone, Debug)]
pub(super) struct Term {
    pub(super) weight: Schedule,
    pub(super) distiller: Arc<dyn Distiller>,
    /// The student's layers and the teacher's; none for a term on outputs.
    pub(super) layers: Option<[At; 2]>,
    /// Which teacher's layers.
    pub(super) teacher: usize,
}

/// A loss's own parameters, as an optimizer trains them.
#[derive(Debug, Default)]
pub(super) struct Own {
    names: Vec<String>,
    values: Vec<ArrayD<f32>>,
    gradients: Vec<ArrayD<f32>>,
}

impl Own {
    pub(super) fn new(term: usize, parameters: Vec<(String, ArrayD<f64>)>) -> Own {
        let names = parameters.iter().map(|(name, _)| format!("term {term}.{name}")).collect();
        let values: Vec<_> = parameters.into_iter().map(|(_, values)| values.mapv(|x| x as f32)).collect();
        Own { names, gradients: values.iter().map(|values| ArrayD::zeros(values.shape())).collect(), values }
    }

    pub(super) fn is_finite(&self) -> bool {
        self.values.iter().flatten().all(|x| x.is_finite())
    }

    pub(super) fn values(&self) -> Vec<ArrayD<f64>> {
        self.values.iter().map(|values| values.mapv(f64::from)).collect()
    }

    pub(super) fn set_gradients(&mut self, gradients: &[ArrayD<f64>], factor: f64) {
        self.gradients = gradients.iter().map(|gradient| narrow(gradient, factor)).collect();
    }

    pub(super) fn step(&mut self, optimizer: &mut dyn Optimizer, learning_rate: f64) -> Result<()> {
        if self.values.is_empty() {
            return Ok(());
        }
        let arrays = self.values.iter_mut().zip(&self.gradients);
        let mut updates: Vec<_> = arrays
            .zip(&self.names)
            .map(|((values, gradient), name)| Update {
                name,
                values: values.as_slice_mut().expect("row-major"),
                gradient: gradient.as_slice().expect("row-major"),
                mask: None,
            })
            .collect();
        optimizer.step(learning_rate, &mut updates)
    }
}

impl Term {
    /// Which it is and where, for errors and reports.
    pub(super) fn name(&self, index: usize) -> String {
        match &self.layers {
            None => format!("term {index}, on the outputs"),
            Some([At(student), At(teacher)]) => {
                format!("term {index}, at {} against {}", student.join(", "), teacher.join(", "))
            }
        }
    }

    /// The teacher's layers that it reads.
    pub(super) fn of_teacher(&self) -> &[String] {
        self.layers.as_ref().map_or(&[], |[_, At(layers)]| layers)
    }

    /// The arrays that it reads of the student and of the teacher, of whom `layers` are those of
    /// [`of_teacher`](Term::of_teacher), paired.
    pub(super) fn pairs<'a>(
        &self,
        student: &'a Trace,
        outputs: &'a ArrayD<f32>,
        layers: &'a [ArrayD<f32>],
    ) -> Result<Vec<[ArrayViewD<'a, f32>; 2]>> {
        let Some([At(of_student), At(of_teacher)]) = &self.layers else {
            return Ok(vec![[student.output(), outputs.view()]]);
        };
        if of_student.len() != of_teacher.len() {
            let what =
                format!("{} layers of the student against {} of the teacher", of_student.len(), of_teacher.len());
            return Err(Error::Conflict { what, remedy: "name as many of each" });
        }
        let pairs = of_student.iter().zip(layers);
        pairs.map(|(of_student, of_teacher)| Ok([student.output_of(of_student)?, of_teacher.view()])).collect()
    }

    /// Gradients by the full names of the student's layers.
    pub(super) fn by_layer(&self, loss: &Loss, factor: f64) -> Vec<(String, ArrayD<f32>)> {
        let Some([At(layers), _]) = &self.layers else { return vec![] };
        let gradients = std::iter::once(&loss.gradient).chain(&loss.second);
        layers.iter().zip(gradients).map(|(layer, gradient)| (layer.clone(), narrow(gradient, factor))).collect()
    }
}

/// `factor` times an array, as f32.
pub(super) fn narrow(array: &ArrayD<f64>, factor: f64) -> ArrayD<f32> {
    array.as_standard_layout().mapv(|x| (factor * x) as f32)
}
