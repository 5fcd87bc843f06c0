//! Attention: PyTorch's outputs and gradients, as `MultiheadAttention` and as `scaled_dot_product_attention`.

use ndarray::{Array1, Array2};
use tersor::nn::{Attention, Mode, Network};

use crate::case::{Case, family};

const PARTS: [&str; 4] = ["query", "key", "value", "output"];

fn attention(case: &Case) -> Attention {
    let weights: [Array2<f32>; 4] =
        PARTS.map(|part| case.input(&format!("{part}.weight")).into_dimensionality().unwrap());
    let biases: Option<[Array1<f32>; 4]> = case
        .has_input("output.bias")
        .then(|| PARTS.map(|part| case.input(&format!("{part}.bias")).into_dimensionality().unwrap()));
    let attention = Attention::from_arrays(case.number("heads").unwrap() as usize, weights, biases).unwrap();
    if case.params["causal"].as_bool().unwrap() { attention.causal() } else { attention }
}

#[test]
fn attention_computes_what_pytorch_does() {
    for case in family("attention") {
        let layer = attention(&case);
        let network = Network::from_layers(vec![("attn".into(), layer.clone().into())]).unwrap();
        let x = case.input("x");
        let trace = network.trace(&x, Mode::Evaluation).unwrap();
        case.check("y", &trace.output().mapv(f64::from));
        assert_eq!(network.forward(&x).unwrap(), trace.output(), "{}: forward and trace differ", case.id);
        let gradients = network.backward(&trace, &case.input("grad_out")).unwrap();
        case.check("grad_x", &gradients.input.mapv(f64::from));
        assert_eq!(gradients.parameters.len(), if case.has_input("output.bias") { 8 } else { 4 });
        for (name, gradient) in &gradients.parameters {
            let own = name.strip_prefix("attn.").unwrap();
            case.check(&format!("grad_{own}"), &gradient.mapv(f64::from));
        }
    }
}
