//! Losses between samples: values and gradients of relational distillation (Park et al.) and of similarity preservation
//! (Tung and Mori).

use ndarray::arr0;
use tersor::{
    Distiller, Signals,
    distill::{RkdAngle, RkdDistance, SimilarityPreserving},
};

use crate::case::family;

#[test]
fn losses_between_samples_are_pytorchs() {
    let mut seen = 0;
    for case in family("distill") {
        let distiller: Box<dyn Distiller> = match case.op.as_str() {
            "rkd_distance" => Box::new(RkdDistance::new()),
            "rkd_angle" => Box::new(RkdAngle::new()),
            "sp_loss" => Box::new(SimilarityPreserving::new()),
            _ => continue,
        };
        let loss = distiller.apply(&Signals::new(&case.input("student"), &case.input("teacher"))).unwrap();
        case.check("loss", &arr0(loss.value).into_dyn());
        case.check("grad_0", &loss.gradient);
        seen += 1;
    }
    assert_eq!(seen, 3);
}
