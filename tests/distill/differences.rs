//! Central finite differences in f64, against every gradient that a loss gives.
//!
//! A difference quotient is wrong by its step's square (truncation) and by what rounding leaves of the loss over the step
//! (noise). So several steps are tried, each with its own noise allowed: the exact gradient must agree with one of them.

use ndarray::ArrayD;
use tersor::{Distiller, Signals};

/// What a loss is given, owned, so that a number of it can be moved.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(crate) student: ArrayD<f64>,
    pub(crate) teacher: ArrayD<f64>,
    /// The student's and the teacher's second arrays.
    pub(crate) second: Option<[ArrayD<f64>; 2]>,
    pub(crate) labels: Option<Vec<usize>>,
    pub(crate) sample_weights: Option<Vec<f64>>,
    pub(crate) class_weights: Option<Vec<f64>>,
    pub(crate) progress: f64,
    pub(crate) parameters: Vec<ArrayD<f64>>,
}

impl Given {
    /// One array of each, and nothing else.
    pub(crate) fn new(student: ArrayD<f64>, teacher: ArrayD<f64>) -> Given {
        let (second, labels, sample_weights, class_weights) = (None, None, None, None);
        let (progress, parameters) = (0.0, vec![]);
        Given { student, teacher, second, labels, sample_weights, class_weights, progress, parameters }
    }

    pub(crate) fn signals(&self) -> Signals<'_> {
        let mut signals =
            Signals::new(&self.student, &self.teacher).progress(self.progress).parameters(&self.parameters);
        if let Some([student, teacher]) = &self.second {
            signals = signals.and(student, teacher);
        }
        if let Some(labels) = &self.labels {
            signals = signals.labels(labels);
        }
        if let Some(weights) = &self.sample_weights {
            signals = signals.sample_weights(weights);
        }
        if let Some(weights) = &self.class_weights {
            signals = signals.class_weights(weights);
        }
        signals
    }

    /// The array that a gradient is for.
    fn array(&mut self, of: Of) -> &mut ArrayD<f64> {
        match of {
            Of::Student => &mut self.student,
            Of::Second => &mut self.second.as_mut().expect("a second array")[0],
            Of::Parameter(index) => &mut self.parameters[index],
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Of {
    Student,
    Second,
    Parameter(usize),
}

/// Checks the gradients for the student, its second array and the loss's own parameters, element by element; panics where
/// one is not finite, of another shape, or not what the differences say.
pub(crate) fn check(distiller: &dyn Distiller, given: &Given) {
    let loss = distiller.apply(&given.signals()).unwrap_or_else(|error| panic!("{distiller:?}: {error}"));
    assert!(loss.value.is_finite(), "{distiller:?}: the loss is {} for {given:?}", loss.value);
    assert_eq!(loss.parameters.len(), given.parameters.len(), "{distiller:?}: gradients for its parameters");
    agree(distiller, given, Of::Student, &loss.gradient);
    if let Some([student, _]) = &given.second {
        agree(distiller, given, Of::Second, &loss.second.unwrap_or_else(|| ArrayD::zeros(student.raw_dim())));
    }
    for (index, gradient) in loss.parameters.iter().enumerate() {
        agree(distiller, given, Of::Parameter(index), gradient);
    }
}

fn agree(distiller: &dyn Distiller, given: &Given, of: Of, gradient: &ArrayD<f64>) {
    let array = given.clone().array(of).clone();
    assert_eq!(gradient.shape(), array.shape(), "{distiller:?}: the shape of the gradient for {of:?}");
    let largest = |array: &ArrayD<f64>| array.iter().fold(0f64, |largest, x| largest.max(x.abs()));
    let arrays = [&given.student, &given.teacher].into_iter().chain(given.second.iter().flatten());
    let (steepest, scale) = (largest(gradient), arrays.map(largest).fold(0.0, f64::max));
    let steps = [1e-3, 1e-4, 1e-5, 1e-6, 1e-2, 1e-7];
    let steps = steps.map(|step| step * largest(&array).max(1e-3)).into_iter().chain(steps);
    for (element, exact) in gradient.iter().enumerate() {
        let at = |step: f64| {
            let mut moved = given.clone();
            *moved.array(of).iter_mut().nth(element).expect("as many as the gradient has") += step;
            distiller.apply(&moved.signals()).unwrap().value
        };
        let mut seen = vec![];
        let found = steps.clone().any(|step| {
            let (more, less) = (at(step), at(-step));
            let difference = (more - less) / (2.0 * step);
            let noise = 4.0 * f64::EPSILON * (more.abs() + less.abs() + scale) / step;
            seen.push((step, difference));
            let near = 1e-6 * exact.abs().max(difference.abs()) + 1e-8 * steepest + noise;
            (exact - difference).abs() <= near // false for NaN
        });
        assert!(found, "{distiller:?}: {exact} for element {element} of {of:?}, differences {seen:?}, {given:?}");
    }
}
