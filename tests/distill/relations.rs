//! Losses between samples and between positions.

mod bad_input;
mod by_loops;
mod gradients;
mod identities;

use ndarray::{ArrayD, ArrayViewMutD, Axis, IxDyn};
use tersor::{
    Distiller, Signals,
    distill::{Correlation, CorrelationCongruence, Loss, Pkt, RkdAngle, RkdDistance, SimilarityPreserving},
};

use crate::{common::normal, differences::Given};

/// Normal numbers of this shape.
fn random(shape: &[usize], seed: u64) -> ArrayD<f64> {
    let values = normal(1, shape.iter().product(), seed).mapv(f64::from);
    values.into_shape_with_order(IxDyn(shape)).unwrap()
}

fn apply(distiller: &dyn Distiller, student: &ArrayD<f64>, teacher: &ArrayD<f64>) -> Loss {
    distiller.apply(&Signals::new(student, teacher)).unwrap()
}

fn kernels() -> [CorrelationCongruence; 3] {
    let of = |correlation| CorrelationCongruence::new().correlation(correlation);
    [CorrelationCongruence::new(), of(Correlation::Linear), of(Correlation::Gaussian { gamma: 1.5, order: 7 })]
}

fn neighbours() -> CorrelationCongruence {
    CorrelationCongruence::new().correlation(Correlation::Neighbours)
}

/// Those of which the scale of either side is no matter.
fn between_samples() -> Vec<Box<dyn Distiller>> {
    let [a, b, c] = kernels();
    vec![
        Box::new(RkdDistance::new()),
        Box::new(RkdAngle::new()),
        Box::new(SimilarityPreserving::new()),
        Box::new(Pkt::new()),
        Box::new(a),
        Box::new(b),
        Box::new(c),
    ]
}

fn near(found: f64, expected: f64, what: &dyn std::fmt::Debug) {
    assert!((found - expected).abs() <= 1e-12 * (1.0 + expected.abs()), "{what:?}: {found}, by loops {expected}");
}

/// Seven samples, three of which are about so far from another.
fn crowd(gap: f64, seed: u64) -> ArrayD<f64> {
    let (mut samples, moves) = (random(&[7, 3], seed), random(&[7, 3], seed + 100) * gap);
    for near in [2, 3, 5] {
        let moved = &samples.index_axis(Axis(0), 0) + &moves.index_axis(Axis(0), near);
        samples.row_mut_of(near).assign(&moved);
    }
    samples
}

/// Queries (batch, len, ..) and keys (batch, seen, ..), 6 features for the student and 12 for the teacher.
fn transformers(batch: usize, len: usize, seen: usize, seed: u64) -> Given {
    let of = |len, features, seed| random(&[batch, len, features], seed);
    let second = Some([of(seen, 6, seed + 1), of(seen, 12, seed + 2)]);
    Given { second, ..Given::new(of(len, 6, seed + 3), of(len, 12, seed + 4)) }
}

/// A sample of a batch, to be changed.
trait Rows {
    fn row_mut_of(&mut self, row: usize) -> ArrayViewMutD<'_, f64>;
}

impl Rows for ArrayD<f64> {
    fn row_mut_of(&mut self, row: usize) -> ArrayViewMutD<'_, f64> {
        self.index_axis_mut(Axis(0), row)
    }
}
