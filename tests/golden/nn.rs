//! Layers and a whole step of a network: PyTorch's outputs and gradients.

use ndarray::{Array, ArrayD, Dimension, arr1};
use tersor::nn::{
    AvgPool2d, BatchNorm2d, Conv2d, CrossEntropy, GeluForm, Layer, LayerNorm, Linear, Loss, MaxPool2d, Mode, Network,
    Targets,
};

use crate::case::{Case, family};

fn input<D: Dimension>(case: &Case, role: &str) -> Array<f32, D> {
    case.input(role).into_dimensionality().unwrap()
}

fn bias(case: &Case) -> Option<ndarray::Array1<f32>> {
    case.has_input("bias").then(|| input(case, "bias"))
}

fn size(case: &Case, key: &str) -> usize {
    case.number(key).unwrap() as usize
}

fn batch_norm(case: &Case, mean: ArrayD<f32>, var: ArrayD<f32>) -> Layer {
    let vector = |array: ArrayD<f32>| array.into_dimensionality().unwrap();
    let norm = BatchNorm2d::from_arrays(input(case, "weight"), input(case, "bias"), vector(mean), vector(var)).unwrap();
    norm.eps(case.number("eps").unwrap()).momentum(case.number("momentum").unwrap_or(0.1)).into()
}

/// The layer that a case is about, and the mode that it runs in.
fn layer(case: &Case) -> (Layer, Mode) {
    let layer = match case.op.as_str() {
        "linear" => Linear::from_arrays(input(case, "weight"), bias(case)).unwrap().into(),
        "conv2d" => {
            let conv = Conv2d::from_arrays(input(case, "weight"), bias(case)).unwrap();
            let conv = conv.stride(size(case, "stride")).padding(size(case, "padding"));
            conv.groups(size(case, "groups")).dilation(size(case, "dilation")).into()
        }
        "relu" => Layer::Relu,
        "gelu" => match case.text("approximate") {
            "none" => Layer::Gelu(GeluForm::Erf),
            "tanh" => Layer::Gelu(GeluForm::Tanh),
            other => panic!("GELU of form {other}"),
        },
        "sigmoid" => Layer::Sigmoid,
        "tanh" => Layer::Tanh,
        "silu" => Layer::Silu,
        "softmax" => Layer::Softmax { axis: Some(size(case, "dim")) },
        "log_softmax" => Layer::LogSoftmax { axis: Some(size(case, "dim")) },
        "layernorm" => {
            let norm = LayerNorm::from_arrays(case.input("weight"), case.input("bias")).unwrap();
            norm.eps(case.number("eps").unwrap()).into()
        }
        "batchnorm2d_eval" => batch_norm(case, case.input("running_mean"), case.input("running_var")),
        "batchnorm2d_train" => {
            let zeros = case.input("bias") * 0.0;
            return (batch_norm(case, zeros.clone(), zeros), Mode::Training { seed: 0 });
        }
        "maxpool2d" => {
            let pool = MaxPool2d::new(size(case, "kernel"));
            pool.stride(size(case, "stride")).padding(size(case, "padding")).into()
        }
        "avgpool2d" => {
            assert_eq!(case.params["count_include_pad"], true);
            let pool = AvgPool2d::new(size(case, "kernel"));
            pool.stride(size(case, "stride")).padding(size(case, "padding")).into()
        }
        "global_avgpool2d" => Layer::GlobalAvgPool2d,
        other => panic!("{}: no such layer: {other}", case.id),
    };
    (layer, Mode::Evaluation)
}

fn check_layer(case: &Case) {
    let (layer, mode) = layer(case);
    let network = Network::from_layers(vec![("layer".into(), layer.clone())]).unwrap();
    let x = case.input("x");
    let trace = network.trace(&x, mode).unwrap();
    case.check("y", &trace.output().mapv(f64::from));
    if mode == Mode::Evaluation {
        assert_eq!(network.forward(&x).unwrap(), trace.output(), "{}: forward and trace differ", case.id);
        assert_eq!(layer.forward(&x).unwrap(), trace.output(), "{}: layer and network differ", case.id);
    }
    assert_eq!(network.output_shape(x.shape()).unwrap(), trace.output().shape());
    let gradients = network.backward(&trace, &case.input("grad_out")).unwrap();
    case.check("grad_x", &gradients.input.mapv(f64::from));
    for (role, name) in [("grad_weight", "layer.weight"), ("grad_bias", "layer.bias")] {
        let found = gradients.parameters.iter().find(|(found, _)| found == name);
        assert_eq!(case.has_output(role), found.is_some(), "{}: {role}", case.id);
        if let Some((_, gradient)) = found {
            case.check(role, &gradient.mapv(f64::from));
        }
    }
}

fn check_network(case: &Case) {
    assert_eq!(case.text("net"), "conv(1,3,3)-relu-flatten-linear(108,5), cross entropy");
    let network = Network::from_layers(vec![
        ("0".into(), Conv2d::from_arrays(input(case, "p0"), Some(input(case, "p1"))).unwrap().into()),
        ("1".into(), Layer::Relu),
        ("2".into(), Layer::Flatten),
        ("3".into(), Linear::from_arrays(input(case, "p2"), Some(input(case, "p3"))).unwrap().into()),
    ])
    .unwrap();
    let trace = network.trace(&case.input("x"), Mode::Training { seed: 0 }).unwrap();
    let labels = case.integers("labels").into_iter().map(|label| label as usize).collect();
    let (loss, gradient) = CrossEntropy::new().evaluate(trace.output(), &Targets::Classes(labels)).unwrap();
    case.check("loss", &arr1(&[loss]).into_dyn());
    let gradients = network.backward(&trace, &gradient).unwrap();
    let names: Vec<_> = gradients.parameters.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["0.weight", "0.bias", "3.weight", "3.bias"]);
    for (i, (_, gradient)) in gradients.parameters.iter().enumerate() {
        case.check(&format!("grad_p{i}"), &gradient.mapv(f64::from));
    }
}

#[test]
fn every_layer_computes_what_pytorch_does() {
    for case in family("nn") {
        if case.op == "cnn_loss_grad" { check_network(&case) } else { check_layer(&case) }
    }
}
