//! Bad input to every public entry of `tersor::nn` gives the typed error that names it.

use ndarray::{Array1, Array2, Array4, ArrayD, array};
use tersor::{
    Error,
    nn::{
        Adam, AdamW, Attention, AvgPool2d, BatchNorm2d, Builder, Conv2d, Data, Layer, LayerNorm, Linear, MaxPool2d,
        Mode, Network, Optimizer, Sgd, Targets, Update,
    },
};

/// The innermost error, and the layer it is in.
fn unwrapped(error: &Error) -> (&str, &Error) {
    match error {
        Error::Layer { name, source } => (name, source),
        error => ("", error),
    }
}

#[test]
fn a_network_that_cannot_be_is_refused_when_built() {
    type Build = fn(Builder) -> Builder;
    type Fits = fn(&Error) -> bool;
    let setting: Fits = |e| matches!(e, Error::Setting { .. });
    let shape: Fits = |e| matches!(e, Error::Shape { .. });
    let name: Fits = |e| matches!(e, Error::LayerName { .. });
    let empty: Fits = |e| matches!(e, Error::Empty { .. });
    let cases: [(&str, &str, Build, Fits); 43] = [
        ("no layers", "", |b| b, empty),
        ("no inputs", "0", |b| b.linear(0, 3), setting),
        ("no outputs", "1", |b| b.relu().linear(3, 0), setting),
        ("absurd size", "0", |b| b.linear(usize::MAX, 2), setting),
        ("absurd weights", "0", |b| b.linear(1 << 20, 1 << 20), setting),
        ("no heads", "0", |b| b.attention(8, 0), setting),
        ("heads that do not divide", "0", |b| b.attention(8, 3), setting),
        ("heads of nothing", "0", |b| b.layer(Attention::new(8, 2).head_dim(0)), setting),
        ("attention to nothing", "0", |b| b.attention(0, 2), setting),
        ("absurd heads", "0", |b| b.layer(Attention::new(8, usize::MAX).head_dim(2)), setting),
        ("neighbours of attention", "1", |b| b.linear(4, 5).attention(4, 2), shape),
        ("no channels", "0", |b| b.conv2d(Conv2d::new(0, 6, 3)), setting),
        ("no kernel", "0", |b| b.conv2d(Conv2d::new(4, 6, (3, 0))), setting),
        ("no stride", "0", |b| b.conv2d(Conv2d::new(4, 6, 3).stride((0, 1))), setting),
        ("no dilation", "0", |b| b.conv2d(Conv2d::new(4, 6, 3).dilation(0)), setting),
        ("no groups", "0", |b| b.conv2d(Conv2d::new(4, 6, 3).groups(0)), setting),
        ("groups of inputs", "0", |b| b.conv2d(Conv2d::new(4, 6, 3).groups(3)), setting),
        ("groups of outputs", "0", |b| b.conv2d(Conv2d::new(4, 6, 3).groups(4)), setting),
        ("absurd kernel", "0", |b| b.conv2d(Conv2d::new(4, 6, usize::MAX)), setting),
        ("no norm channels", "0", |b| b.batch_norm2d(0), setting),
        ("momentum", "0", |b| b.layer(BatchNorm2d::new(3).momentum(1.5)), setting),
        ("eps", "0", |b| b.layer(BatchNorm2d::new(3).eps(0.0)), setting),
        ("eps that is no number", "0", |b| b.layer(LayerNorm::new(3).eps(f64::NAN)), setting),
        ("no features", "0", |b| b.layer_norm(0), setting),
        ("no axes", "0", |b| b.layer(LayerNorm::over(&[])), |e| matches!(e, Error::Rank { .. })),
        ("no pool", "0", |b| b.max_pool2d(0), setting),
        ("no pool stride", "0", |b| b.avg_pool2d(AvgPool2d::new(2).stride(0)), setting),
        ("absurd pool", "0", |b| b.max_pool2d(MaxPool2d::new(1 << 40).padding(1 << 39)), setting),
        ("pool padding", "0", |b| b.max_pool2d(MaxPool2d::new(3).padding(2)), setting),
        ("dropout of everything", "0", |b| b.dropout(1.0), setting),
        ("negative dropout", "0", |b| b.dropout(-0.1), setting),
        ("dropout that is no number", "0", |b| b.dropout(f64::NAN), setting),
        ("a name twice", "", |b| b.linear(2, 2).named("a").relu().named("a"), name),
        ("a name that is a position", "", |b| b.linear(2, 2).named("1").relu(), name),
        ("an empty name", "", |b| b.linear(2, 2).named(""), name),
        ("a dot in a name", "", |b| b.linear(2, 2).named("a.b"), name),
        ("a name for no layer", "", |b| b.named("a").linear(2, 2), name),
        ("a name for no layer in a branch", "", |b| b.residual(|b| b.named("a").linear(2, 2)), name),
        ("neighbours", "2", |b| b.linear(4, 5).relu().linear(6, 2), shape),
        ("neighbouring channels", "1", |b| b.conv2d(Conv2d::new(4, 6, 3)).batch_norm2d(5), shape),
        ("pooled channels", "3", |b| b.conv2d(Conv2d::new(4, 6, 3)).global_avg_pool2d().flatten().linear(7, 2), shape),
        ("a branch that changes the features", "1", |b| b.linear(4, 4).residual(|b| b.linear(4, 5)), shape),
        ("a branch without layers", "1", |b| b.linear(4, 4).residual(|b| b), empty),
    ];
    for (what, layer, build, fits) in cases {
        let error = build(Network::builder(1)).build().unwrap_err();
        let (found, source) = unwrapped(&error);
        assert!(found == layer && fits(source), "{what}: {error}");
    }
    let inner = Network::builder(1).residual(|b| b.relu().linear(3, 0)).build().unwrap_err();
    assert!(inner.to_string().starts_with("layer `0.1`: out_features of a linear layer = 0"), "{inner}");
}

#[test]
fn arrays_that_do_not_fit_make_no_layer() {
    let (one, two) = (Array1::<f32>::ones(1), Array1::<f32>::ones(2));
    let nan = array![f32::NAN, 0.0];
    let weight = Array2::<f32>::ones((2, 3));
    assert!(matches!(Linear::from_arrays(weight.clone(), Some(one.clone())), Err(Error::Shape { .. })));
    assert!(matches!(Linear::from_arrays(weight.clone(), Some(nan.clone())), Err(Error::NotFinite { index: 0, .. })));
    assert!(matches!(Linear::from_arrays(weight * f32::INFINITY, None), Err(Error::NotFinite { .. })));
    assert!(matches!(Linear::from_arrays(Array2::ones((0, 3)), None), Err(Error::Empty { .. })));
    let four = |weight: Array2<f32>, output: Array2<f32>| [weight.clone(), weight.clone(), weight, output];
    let attention = |heads, weights| Attention::from_arrays(heads, weights, None);
    let (inner, back) = (Array2::<f32>::ones((4, 3)), Array2::<f32>::ones((3, 4)));
    assert!(attention(2, four(inner.clone(), back.clone())).is_ok());
    assert!(matches!(attention(0, four(inner.clone(), back.clone())), Err(Error::Setting { .. })));
    assert!(matches!(attention(3, four(inner.clone(), back.clone())), Err(Error::Setting { .. })));
    assert!(matches!(attention(2, four(inner.clone(), inner.clone())), Err(Error::Shape { .. })));
    assert!(matches!(attention(2, four(back.clone(), inner.clone())), Err(Error::Setting { .. })));
    assert!(matches!(attention(2, four(inner.clone(), &back * f32::NAN)), Err(Error::NotFinite { .. })));
    assert!(matches!(attention(2, four(Array2::ones((0, 3)), back.clone())), Err(Error::Empty { .. })));
    let [query, key, _, output] = four(inner.clone(), back.clone());
    assert!(matches!(attention(2, [query, key, Array2::ones((2, 3)), output]), Err(Error::Shape { .. })));
    let biases = [4, 4, 4, 4].map(Array1::<f32>::zeros);
    let biased = Attention::from_arrays(2, four(inner, back), Some(biases));
    assert!(matches!(biased, Err(Error::Shape { .. })), "the output's bias is of the output's features");
    let kernel = Array4::<f32>::ones((2, 1, 3, 3));
    assert!(matches!(Conv2d::from_arrays(kernel.clone(), Some(one.clone())), Err(Error::Shape { .. })));
    assert!(matches!(Conv2d::from_arrays(Array4::ones((2, 1, 0, 3)), None), Err(Error::Empty { .. })));
    assert!(matches!(Conv2d::from_arrays(kernel * f32::NAN, None), Err(Error::NotFinite { .. })));
    let norm = |weight: &Array1<f32>, var: Array1<f32>| {
        BatchNorm2d::from_arrays(weight.clone(), two.clone(), two.clone(), var)
    };
    assert!(norm(&two, two.clone()).is_ok());
    assert!(matches!(norm(&one, one.clone()), Err(Error::Shape { .. })));
    assert!(matches!(norm(&nan, two.clone()), Err(Error::NotFinite { .. })));
    assert!(matches!(norm(&two, -&two), Err(Error::Setting { value: -1.0, .. })));
    assert!(matches!(norm(&Array1::zeros(0), two.clone()), Err(Error::Empty { .. })));
    let over = |weight: ArrayD<f32>, bias: ArrayD<f32>| LayerNorm::from_arrays(weight, bias);
    assert!(matches!(over(ArrayD::ones(vec![2]), ArrayD::ones(vec![3])), Err(Error::Shape { .. })));
    assert!(matches!(over(ArrayD::ones(vec![]), ArrayD::ones(vec![])), Err(Error::Rank { .. })));
    assert!(matches!(over(ArrayD::ones(vec![0]), ArrayD::ones(vec![0])), Err(Error::Empty { .. })));
    assert!(matches!(over(nan.clone().into_dyn(), two.clone().into_dyn()), Err(Error::NotFinite { .. })));
    let unbuilt = vec![("a".to_owned(), Layer::from(Linear::new(2, 3)))];
    assert!(matches!(Network::from_layers(unbuilt), Err(Error::Layer { .. })), "arrays are drawn by build alone");
}

#[test]
fn inputs_that_do_not_fit_name_the_layer() {
    let build = |build: fn(Builder) -> Builder| build(Network::builder(1)).build().unwrap();
    let dense = build(|b| b.linear(4, 3).named("fc"));
    let images = build(|b| b.conv2d(Conv2d::new(2, 3, 3)).max_pool2d(2).flatten().linear(12, 2));
    let attention = build(|b| b.attention(4, 2));
    let mut padded = Conv2d::from_arrays(Array4::ones((1, 1, 1, 1)), None).unwrap();
    padded.padding = [usize::MAX / 4; 2];
    let padded = Network::from_layers(vec![("0".into(), padded.into())]).unwrap();
    let norm = build(|b| b.layer_norm(4));
    let softmax = build(|b| b.layer(Layer::Softmax { axis: Some(2) }));
    type Fits = fn(&Error) -> bool;
    let shape: Fits = |e| matches!(e, Error::Shape { .. });
    let rank: Fits = |e| matches!(e, Error::Rank { .. });
    let cases: [(&Network, &[usize], &str, Fits); 17] = [
        (&dense, &[5, 3], "fc", shape),
        (&dense, &[4], "fc", rank),
        (&dense, &[0, 4], "fc", |e| matches!(e, Error::Empty { .. })),
        (&dense, &[], "fc", rank),
        (&attention, &[5, 4], "0", rank),
        (&attention, &[5, 4, 4, 4], "0", rank),
        (&attention, &[5, 3, 6], "0", shape),
        (&attention, &[1, 1 << 20, 4], "0", |e| matches!(e, Error::Setting { .. })),
        (&images, &[5, 2, 6], "0", rank),
        (&images, &[5, 3, 6, 6], "0", shape),
        (&images, &[5, 2, 2, 6], "0", shape),
        (&images, &[5, 2, 3, 6], "1", shape),
        (&images, &[5, 2, 8, 8], "3", shape),
        (&padded, &[1, 1, 2, 2], "0", |e| matches!(e, Error::Setting { .. })),
        (&norm, &[4], "0", rank),
        (&norm, &[2, 5], "0", shape),
        (&softmax, &[2, 5], "0", |e| matches!(e, Error::Axis { axis: 2, rank: 2 })),
    ];
    for (network, input, layer, fits) in cases {
        let x = ArrayD::<f32>::zeros(input);
        let errors = [
            network.output_shape(input).unwrap_err(),
            network.forward(&x).unwrap_err(),
            network.trace(&x, Mode::Training { seed: 0 }).unwrap_err(),
        ];
        for error in errors {
            let (found, source) = unwrapped(&error);
            assert!(found == layer && fits(source), "{input:?}: {error}");
        }
    }
    assert!(matches!(dense.output_shape(&[usize::MAX, 4]), Err(Error::Layer { .. })));
    let not_finite = dense.forward(&array![[0.0, 1.0, f32::NAN, 0.0]]);
    assert!(matches!(not_finite, Err(Error::NotFinite { index: 2, .. })));
    let one = build(|b| b.batch_norm2d(1)).trace(&Array4::<f32>::ones((1, 1, 1, 1)), Mode::Training { seed: 0 });
    assert!(matches!(one, Err(Error::Layer { source, .. }) if matches!(*source, Error::Conflict { .. })));
}

#[test]
fn arrays_in_any_memory_order_are_the_same_input() {
    let network = Network::builder(1).linear(3, 4).tanh().linear(4, 2).build().unwrap();
    let x = array![[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]];
    let columns = x.t().as_standard_layout().to_owned();
    let wide = ndarray::concatenate![ndarray::Axis(1), x, x];
    let expected = network.forward(&x).unwrap();
    assert_eq!(network.forward(&columns.t()).unwrap(), expected);
    assert_eq!(network.forward(&wide.slice(ndarray::s![.., ..3])).unwrap(), expected);
    let transposed = Linear::from_arrays(array![[1.0, 2.0], [3.0, 4.0]].reversed_axes(), None).unwrap();
    assert_eq!(Layer::from(transposed).forward(&array![[1.0, 0.0]]).unwrap(), array![[1.0, 2.0]].into_dyn());
}

#[test]
fn names_and_values_that_a_network_does_not_have_are_refused() {
    let mut network = Network::builder(1).linear(2, 3).build().unwrap();
    let before = network.clone();
    assert!(
        matches!(network.parameter("0.wait"), Err(Error::UnknownName { known, .. }) if known == ["0.weight", "0.bias"])
    );
    assert!(matches!(network.layer("fc"), Err(Error::UnknownName { known, .. }) if known == ["0"]));
    let cases = [
        (network.set_parameter("1.bias", &array![0.0]).unwrap_err(), "no layer or parameter is named `1.bias`"),
        (network.set_parameter("0.bias", &array![0.0]).unwrap_err(), "the new parameter has shape [1]"),
        (network.set_parameter("0.bias", &array![0.0, f32::NAN, 0.0]).unwrap_err(), "element 1 of the new parameter"),
        (network.update(&mut Sgd::new(0.1), 0.1, &[]).unwrap_err(), "the list of gradients has shape [0]"),
    ];
    for (error, begins) in cases {
        assert!(error.to_string().starts_with(begins), "{error}");
    }
    let gradient = |name: &str, shape: &[usize]| (name.to_owned(), ArrayD::<f32>::zeros(shape));
    let swapped = [gradient("0.bias", &[3]), gradient("0.weight", &[3, 2])];
    assert!(matches!(network.update(&mut Sgd::new(0.1), 0.1, &swapped), Err(Error::UnknownName { .. })));
    let turned = [gradient("0.weight", &[2, 3]), gradient("0.bias", &[3])];
    assert!(matches!(network.update(&mut Sgd::new(0.1), 0.1, &turned), Err(Error::Shape { .. })));
    assert_eq!(network, before);
}

#[test]
fn data_that_are_none_are_refused() {
    let x = Array2::<f32>::zeros((3, 2));
    assert!(matches!(Data::classes(x.clone(), [0, 1]), Err(Error::Shape { .. })));
    assert!(matches!(Data::classes(x.row(0), [0, 1]), Err(Error::Rank { .. })));
    assert!(matches!(Data::classes(Array2::zeros((0, 2)), []), Err(Error::Empty { .. })));
    assert!(matches!(Data::classes(Array2::zeros((3, 0)), [0; 3]), Err(Error::Empty { .. })));
    assert!(matches!(Data::classes(&x / 0.0, [0; 3]), Err(Error::NotFinite { index: 0, .. })));
    assert!(matches!(Data::values(x.clone(), Array2::zeros((2, 2))), Err(Error::Shape { .. })));
    assert!(matches!(Data::values(x.clone(), array![0.0, f32::INFINITY, 0.0]), Err(Error::NotFinite { index: 1, .. })));
    let data = Data::classes(x.clone(), array![0, 1, 2]).unwrap();
    assert_eq!(data.select(&[2, 0]).unwrap().targets(), &Targets::Classes(vec![2, 0]));
    assert!(matches!(data.select(&[3]), Err(Error::Setting { value: 3.0, .. })));
    assert!(matches!(data.select(&[]), Err(Error::Empty { .. })));
    assert!(matches!(data.shuffled_batches(0, 1).err(), Some(Error::Setting { .. })));
    assert_eq!(data.shuffled_batches(usize::MAX, 1).unwrap().count(), 1);

    let network = Network::builder(1).linear(2, 2).build().unwrap();
    assert!(matches!(network.accuracy(&data), Err(Error::Label { label: 2, index: 2, classes: 2 })));
    let values = Data::values(x.clone(), x.clone()).unwrap();
    assert!(matches!(network.accuracy(&values), Err(Error::Conflict { .. })));
    assert!(matches!(data.accuracy_of(&Array2::<f32>::zeros((2, 3))), Err(Error::Shape { .. })));
    assert!(matches!(data.accuracy_of(&Array1::<f32>::zeros(3)), Err(Error::Rank { .. })));
    // Ties go to the first class.
    assert_eq!(data.accuracy_of(&Array2::<f32>::zeros((3, 3))).unwrap(), 1.0 / 3.0);
}

#[test]
fn an_optimizer_out_of_range_changes_nothing() {
    let optimizers: [(Box<dyn Optimizer>, &str); 13] = [
        (Box::new(Sgd::new(-0.1)), "learning_rate"),
        (Box::new(Sgd::new(0.1).momentum(-1.0)), "momentum"),
        (Box::new(Sgd::new(0.1).momentum(0.9).dampening(f64::INFINITY)), "dampening"),
        (Box::new(Sgd::new(0.1).weight_decay(-1.0)), "weight_decay"),
        (Box::new(Sgd::new(0.1).nesterov()), "momentum"),
        (Box::new(Sgd::new(0.1).momentum(0.9).dampening(0.1).nesterov()), "dampening"),
        (Box::new(Adam::new(f64::NAN)), "learning_rate"),
        (Box::new(Adam::new(0.1).betas(1.0, 0.9)), "the first of betas"),
        (Box::new(Adam::new(0.1).betas(0.9, -0.1)), "the second of betas"),
        (Box::new(Adam::new(0.1).eps(-1.0)), "eps"),
        (Box::new(AdamW::new(0.1).eps(f64::NAN).amsgrad()), "eps"),
        (Box::new(AdamW::new(0.1).weight_decay(-1.0)), "weight_decay"),
        (Box::new(AdamW::new(0.1).betas(2.0, 0.9)), "the first of betas"),
    ];
    for (mut optimizer, named) in optimizers {
        let (rate, mut values) = (optimizer.learning_rate(), [1.0f32]);
        let error = optimizer
            .step(rate, &mut [Update { name: "w", values: &mut values, gradient: &[1.0], mask: None }])
            .unwrap_err();
        assert!(matches!(error, Error::Setting { setting, .. } if setting == named), "{error}");
        assert_eq!(values, [1.0]);
    }
}

#[test]
fn settings_spoiled_after_building_are_errors_at_the_next_pass() {
    let x = Array4::<f32>::ones((1, 4, 6, 6));
    let spoil: [fn(&mut Attention); 3] = [|attn| attn.heads = 0, |attn| attn.heads = 4, |attn| attn.head_dim = 0];
    for spoil in spoil {
        let mut network = Network::builder(1).attention(4, 2).build().unwrap();
        for (_, layer) in network.layers_mut() {
            if let Layer::Attention(attention) = layer {
                spoil(attention);
                assert!(attention.head_outputs(&ArrayD::<f32>::ones(vec![1, 2, 4])).is_err());
            }
        }
        assert!(network.forward(&ArrayD::<f32>::ones(vec![1, 2, 4])).is_err());
    }
    let spoil: [fn(&mut Conv2d); 5] = [
        |conv| conv.dilation = [0, 1],
        |conv| conv.stride = [1, 0],
        |conv| conv.groups = 0,
        |conv| conv.groups = 3,
        |conv| conv.padding = [usize::MAX, usize::MAX],
    ];
    for spoil in spoil {
        let mut network = Network::builder(1).conv2d(Conv2d::new(4, 4, 3)).build().unwrap();
        for (_, layer) in network.layers_mut() {
            if let Layer::Conv2d(conv) = layer {
                spoil(conv);
            }
        }
        assert!(network.forward(&x).is_err());
    }
}
