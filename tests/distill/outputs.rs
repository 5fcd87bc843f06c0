//! Losses on outputs.

use ndarray::array;
use tersor::Distiller;

use crate::differences::{Given, check};

#[test]
fn gradients_are_those_of_finite_differences() {
    let given = Given::new(
        array![[0.1, 2.0, -1.0], [3.0, 0.0, 0.5]].into_dyn(),
        array![[1.0, 1.0, 0.0], [2.0, -2.0, 0.0]].into_dyn(),
    );
    check(&tersor::distill::SoftTargets::new(4.0), &given);
    check(&tersor::distill::Logits::new(), &given);
    let _ = <tersor::distill::Logits as Distiller>::logits();
}
