//! Losses on features: values and gradients of attention transfer (Zagoruyko and Komodakis, the authors' mean) and of hints
//! (Romero et al.) in PyTorch, regressor included.

use ndarray::{ArrayD, arr0};
use tersor::{
    Distiller, Signals,
    distill::{Attention, Hint},
};

use crate::case::family;

#[test]
fn losses_on_features_are_pytorchs() {
    let mut seen = 0;
    for case in family("distill") {
        if !["attention_transfer", "fitnet_hint"].contains(&case.op.as_str()) {
            continue;
        }
        seen += 1;
        let (student, teacher) = (case.input("student"), case.input("teacher"));
        let signals = Signals::new(&student, &teacher);
        let loss = if case.op == "attention_transfer" {
            assert_eq!(case.number("p"), Some(2.0), "{}", case.id);
            Attention::new().apply(&signals).unwrap()
        } else {
            // A 1x1 convolution's weight is (out, in, 1, 1), and has no bias here.
            let regressor = case.input("regressor").mapv(f64::from);
            let (outputs, inputs) = (regressor.shape()[0], regressor.shape()[1]);
            let bias = case.has_input("bias").then(|| case.input("bias").mapv(f64::from));
            let weight = regressor.to_shape(vec![outputs, inputs]).unwrap().into_owned();
            let own = [weight, bias.unwrap_or_else(|| ArrayD::zeros(vec![outputs]))];
            let loss = Hint::new().apply(&signals.parameters(&own)).unwrap();
            case.check("grad_1", &loss.parameters[0].to_shape(regressor.shape()).unwrap().into_owned());
            if case.has_output("grad_2") {
                case.check("grad_2", &loss.parameters[1]);
            }
            loss
        };
        case.check("loss", &arr0(loss.value).into_dyn());
        case.check("grad_0", &loss.gradient);
    }
    assert_eq!(seen, 3);
}
