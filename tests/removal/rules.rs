//! What each kind of layer does with a channel that goes, in numbers.

use ndarray::{Array1, Array2, Array4, ArrayD, Axis, IxDyn, array};
use tersor::{
    Channels, Error, Mask, Pruner,
    nn::{Absent, AvgPool2d, BatchNorm2d, Builder, Conv2d, GeluForm, Layer, LayerNorm, Linear, MaxPool2d, Network},
    removal::Selection,
};

use super::{relative_error, shape};

fn network(layers: Vec<Layer>) -> Network {
    let named = layers.into_iter().enumerate().map(|(index, layer)| (index.to_string(), layer));
    Network::from_layers(named.collect()).unwrap()
}

fn conv(weight: Array4<f32>, bias: Option<Array1<f32>>) -> Conv2d {
    Conv2d::from_arrays(weight, bias).unwrap()
}

fn linear(weight: Array2<f32>, bias: Option<Array1<f32>>) -> Layer {
    Linear::from_arrays(weight, bias).unwrap().into()
}

/// Numbers that repeat nowhere near.
fn numbers(shape: &[usize]) -> ArrayD<f32> {
    let mut next = 0.3f32;
    ArrayD::from_shape_simple_fn(IxDyn(shape), || {
        next = (next * 7.77 + 0.123).fract();
        2.0 * next - 1.0
    })
}

/// A network whose arrays are all drawn, biases and running statistics included.
fn drawn(build: impl FnOnce(Builder) -> Builder) -> Network {
    let mut network = build(Network::builder(3)).build().unwrap();
    let shapes: Vec<_> = network.state().into_iter().map(|(name, values)| (name, values.shape().to_vec())).collect();
    for (index, (name, shape)) in shapes.into_iter().enumerate() {
        let values = numbers(&[&[index + 1], &shape[..]].concat()).index_axis(Axis(0), index).to_owned();
        let values = if name.ends_with("running_var") { values.mapv(|x| x.abs() + 0.5) } else { values };
        network.set_parameter(&name, &values).unwrap();
    }
    network
}

/// Masked and removed networks agree on this input; the removed one.
fn agrees(network: &Network, chosen: &Selection, x: &ArrayD<f32>) -> Network {
    let (masked, removed) = (chosen.mask(network).unwrap(), chosen.remove(network).unwrap());
    let error = relative_error(&masked.forward(x).unwrap(), &removed.forward(x).unwrap());
    assert!(error < 1e-5, "{error}: {chosen}");
    removed
}

/// The layer and the message of an error about a layer.
fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> (String, String) {
    match result {
        Err(Error::Layer { name, source }) => {
            assert!(matches!(*source, Error::Conflict { .. }), "{source}");
            (name, source.to_string())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_neurons_constant_goes_through_the_activation_into_the_next_bias() {
    let first = linear(array![[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], Some(array![0.5, -2.0, 1.5]));
    for (activation, constant) in [
        (Layer::Relu, 1.5),
        (Layer::Tanh, 1.5f32.tanh()),
        (Layer::Sigmoid, 1.0 / (1.0 + (-1.5f32).exp())),
        (Layer::Silu, 1.5 / (1.0 + (-1.5f32).exp())),
        (Layer::Gelu(GeluForm::Erf), 1.5 * 0.933_192_8),
    ] {
        let second = linear(array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], None);
        let network = network(vec![first.clone(), activation, second]);
        let removed = Selection::new().channels("0", [2]).remove(&network).unwrap();
        assert_eq!(removed.parameter("0.weight").unwrap(), array![[1.0, 2.0], [3.0, 4.0]].into_dyn());
        assert_eq!(removed.parameter("0.bias").unwrap(), array![0.5, -2.0].into_dyn());
        assert_eq!(removed.parameter("2.weight").unwrap(), array![[1.0, 2.0], [4.0, 5.0]].into_dyn());
        // There was no bias; now there is one.
        let bias = removed.parameter("2.bias").unwrap().to_owned();
        assert!((bias - array![3.0 * constant, 6.0 * constant].into_dyn()).iter().all(|e| e.abs() < 1e-5));
        // Without the constant, none is needed.
        let dropped = Selection::new().channels("0", [2]).drop_biases().remove(&network).unwrap();
        assert_eq!(dropped.parameter("2.bias").is_ok(), matches!(network.layer("1").unwrap(), Layer::Sigmoid));
    }
}

#[test]
fn batch_normalization_makes_another_constant_of_a_constant() {
    let norm = |weight: [f32; 2], bias: [f32; 2], mean: [f32; 2], var: [f32; 2]| {
        let [weight, bias, mean, var] = [weight, bias, mean, var].map(|values| Array1::from(values.to_vec()));
        BatchNorm2d::from_arrays(weight, bias, mean, var).unwrap().eps(1.0)
    };
    let network = network(vec![
        conv(Array4::ones((2, 1, 1, 1)), Some(array![0.25, 2.0])).into(),
        norm([1.0, 3.0], [0.0, -1.0], [0.0, 1.0], [1.0, 8.0]).into(),
        conv(Array4::from_shape_vec((1, 2, 2, 2), vec![1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 3.0, 4.0]).unwrap(), None).into(),
    ]);
    let removed = Selection::new().channels("0", [1]).remove(&network).unwrap();
    assert!(removed.parameter("2.bias").is_err(), "the constant is 3 (2 - 1) / √(8 + 1) - 1 = 0");
    assert_eq!(removed.parameter("1.running_mean").unwrap(), array![0.0].into_dyn());
    let removed = Selection::new().channels("0", [0]).remove(&network).unwrap();
    // 1 (0.25 - 0) / √(1 + 1), read by four weights of 1.
    assert!((removed.parameter("2.bias").unwrap()[[0]] - 4.0 * 0.25 / 2.0f32.sqrt()).abs() < 1e-6);
    assert_eq!(removed.parameter("1.weight").unwrap(), array![3.0].into_dyn());
}

#[test]
fn the_two_sides_of_a_residual_go_together_and_their_constants_add_up() {
    let branch = network(vec![linear(array![[1.0, 0.0], [0.0, 1.0]], Some(array![10.0, 20.0]))]);
    let network = network(vec![
        linear(array![[1.0], [2.0]], Some(array![3.0, 4.0])),
        tersor::nn::Residual::new(branch).into(),
        linear(array![[100.0, 1000.0]], Some(array![7.0])),
    ]);
    for chosen in [Selection::new().channels("0", [1]), Selection::new().channels("1.0", [1])] {
        let removed = agrees(&network, &chosen, &array![[0.5], [2.0]].into_dyn());
        assert_eq!(removed.parameter("1.0.weight").unwrap(), array![[1.0]].into_dyn());
        // 4 of the input and 20 of the branch.
        assert_eq!(removed.parameter("2.bias").unwrap(), array![7.0 + 1000.0 * 24.0].into_dyn());
    }
    let masked = Selection::new().channels("0", [1]).mask(&network).unwrap();
    let masks: Vec<_> = masked.masks().into_iter().map(|(name, mask)| (name, mask.to_array())).collect();
    assert_eq!(masks.len(), 2);
    assert_eq!(masks[1], ("1.0.weight".to_owned(), array![[true, true], [false, false]].into_dyn()));
}

#[test]
fn layer_normalization_remembers_the_constants_of_absent_features() {
    let network =
        drawn(|b| b.linear(4, 6).gelu().layer_norm(6).residual(|b| b.linear(6, 6).tanh()).layer_norm(6).linear(6, 2));
    let removed = agrees(&network, &Selection::new().channels("0", [0, 4]), &numbers(&[5, 4]));
    let Layer::LayerNorm(norm) = removed.layer("2").unwrap() else { panic!("a layer normalization") };
    let constants = network.layers().nth(1).unwrap().1.forward(&network.parameter("0.bias").unwrap()).unwrap();
    let [a, b] = [0, 4].map(|index| f64::from(constants[[index]]));
    let Absent { count, mean, squares } = norm.absent;
    assert_eq!(count, 2);
    assert!((mean - (a + b) / 2.0).abs() < 1e-12 && (squares - (a - b) * (a - b) / 2.0).abs() < 1e-12);
    // Removed one after the other or at once, they are remembered alike.
    let network = drawn(|b| b.linear(4, 6).gelu().layer_norm(6).linear(6, 2));
    let removed = Selection::new().channels("0", [0, 4]).remove(&network).unwrap();
    let twice = Selection::new().channels("0", [1]).remove(&removed).unwrap();
    let once = Selection::new().channels("0", [0, 2, 4]).remove(&network).unwrap();
    let x = numbers(&[5, 4]);
    assert!(relative_error(&once.forward(&x).unwrap(), &twice.forward(&x).unwrap()) < 1e-6);
}

#[test]
fn a_constant_beside_zero_padding_is_refused_unless_it_is_zero() {
    let padded = |bias: f32, activation: fn(Builder) -> Builder| {
        let mut network = drawn(|b| {
            activation(b.conv2d(Conv2d::new(1, 4, 3).padding(1)))
                .dropout(0.1)
                .conv2d(Conv2d::new(4, 3, 3).padding(1))
                .named("reader")
                .flatten()
                .linear(3 * 5 * 5, 2)
        });
        network.set_parameter("0.bias", &Array1::from_elem(4, bias)).unwrap();
        network
    };
    let (chosen, x) = (Selection::new().channels("0", [1, 3]), numbers(&[2, 1, 5, 5]));
    let positive = padded(0.5, Builder::relu);
    let (layer, message) = refusal(chosen.remove(&positive));
    assert!(layer == "reader" && message.contains("0.5") && message.contains("drop_biases"), "{layer}: {message}");
    assert!(message.contains("`0` (channel 1)"), "who makes it: {message}");
    agrees(&positive, &chosen.clone().drop_biases(), &x);
    agrees(&padded(-0.5, Builder::relu), &chosen, &x);
    let sigmoid = padded(0.0, Builder::sigmoid);
    assert_eq!(refusal(chosen.clone().drop_biases().remove(&sigmoid)).0, "reader");
    // Where no weight reads the constant, there is nothing to make up for.
    let mut blind = positive.clone();
    let mut weight = blind.parameter("reader.weight").unwrap().to_owned();
    weight.slice_each_axis_mut(|axis| (if axis.axis == Axis(1) { 1..2 } else { 0..axis.len }).into()).fill(0.0);
    blind.set_parameter("reader.weight", &weight).unwrap();
    agrees(&blind, &Selection::new().channels("0", [1]), &x);
    // Producers may pad: a filter of zeros gives its bias everywhere. So may a depthwise one.
    let depthwise = drawn(|b| {
        b.conv2d(Conv2d::new(1, 4, 3).padding(2))
            .conv2d(Conv2d::new(4, 4, 3).padding(1).groups(4))
            .conv2d(Conv2d::new(4, 2, 2))
    });
    agrees(&depthwise, &chosen, &x);
    assert_eq!(refusal(Channels::l2(0.5).remove(&positive)).0, "reader");
    assert!(Channels::zeros().keep("0").keep("reader").remove(&positive).unwrap() == positive);
}

#[test]
fn what_can_go_goes_where_possible_and_the_rest_stays() {
    // Channels 0, 1, 2 and 4 are least; what 1 and 4 give is not zero.
    let mut network = drawn(|b| {
        b.conv2d(Conv2d::new(1, 6, 3))
            .residual(|b| b.relu().conv2d(Conv2d::new(6, 6, 1)).named("other"))
            .relu()
            .conv2d(Conv2d::new(6, 4, 3).padding(1))
            .relu()
            .conv2d(Conv2d::new(4, 2, 3))
    });
    let mut weight = network.parameter("0.weight").unwrap().to_owned();
    for channel in [0, 1, 2, 4] {
        weight.index_axis_mut(Axis(0), channel).mapv_inplace(|w| w * 1e-3);
    }
    network.set_parameter("0.weight", &weight).unwrap();
    network.set_parameter("0.bias", &array![0.0, 0.25, 0.0, 0.0, 0.0, 0.0]).unwrap();
    network.set_parameter("1.other.bias", &array![0.0, 0.0, 0.0, 0.0, 0.5, 0.0]).unwrap();
    let (layer, message) = refusal(Channels::l2(4).only("0").remove(&network));
    assert!(layer == "3" && message.contains("`0` (channel 1) and `1.other` (channel 1)"), "{layer}: {message}");
    let first = |channels: Channels| channels.only("0").select(&network).unwrap().layers().next().unwrap().1;
    let l2 = |count: usize| Channels::l2(count).reduce(tersor::removal::Reduce::Max).where_possible();
    assert!(!first(l2(2)).contains(&1) && !first(l2(2)).contains(&4) && first(l2(2)).len() == 2);
    assert_eq!(first(l2(5)), [0, 2, 3, 5], "as many as there are");
    assert_eq!(first(l2(5).round_to(4)), first(l2(2)), "four stay, not two");
    let smaller = agrees(&network, &l2(4).only("0").select(&network).unwrap(), &numbers(&[2, 1, 6, 6]));
    assert_eq!(shape(&smaller, "0.weight"), [2, 1, 3, 3]);
    let all: Vec<usize> =
        Channels::l2(0.5).where_possible().select(&network).unwrap().layers().map(|l| l.1.len()).collect();
    assert_eq!(all, [3, 3, 2]);
    assert_eq!(first(Channels::l2(4).across_layers().where_possible()).len(), 4);

    // A channel whose weights are zero but whose bias is not keeps the others from nothing.
    let zero = Selection::new().channels("0", [0, 1, 2]).mask(&network).unwrap();
    let mut weight = zero.parameter("1.other.weight").unwrap().to_owned();
    (0..3).for_each(|channel| weight.index_axis_mut(Axis(0), channel).fill(0.0));
    let mut zero = zero;
    zero.set_parameter("1.other.weight", &weight).unwrap();
    assert_eq!(refusal(Channels::zeros().remove(&zero)).0, "3");
    let smaller = Channels::zeros().where_possible().remove(&zero).unwrap();
    assert_eq!(shape(&smaller, "0.weight"), [4, 1, 3, 3]);
    let x = numbers(&[2, 1, 6, 6]);
    assert!(relative_error(&smaller.forward(&x).unwrap(), &zero.forward(&x).unwrap()) < 1e-5);
}

#[test]
fn pooling_keeps_a_constant_but_the_mean_beside_padding_does_not() {
    let pooled = |pool: Layer| drawn(|b| b.conv2d(Conv2d::new(1, 4, 2)).layer(pool).conv2d(Conv2d::new(4, 2, 2)));
    let (chosen, x) = (Selection::new().channels("0", [0]), numbers(&[2, 1, 7, 7]));
    agrees(&pooled(MaxPool2d::new(3).stride(2).padding(1).into()), &chosen, &x);
    agrees(&pooled(AvgPool2d::new(2).into()), &chosen, &x);
    let mean = pooled(AvgPool2d::new(3).stride(2).padding(1).into());
    assert_eq!(refusal(chosen.remove(&mean)).0, "1");
    agrees(&mean, &chosen.clone().drop_biases(), &x);
    let global = drawn(|b| b.conv2d(Conv2d::new(1, 4, 2)).global_avg_pool2d().flatten().linear(4, 2));
    agrees(&global, &chosen, &x);
}

#[test]
fn a_flattened_channel_is_as_many_columns_as_it_has_pixels() {
    let network = drawn(|b| b.conv2d(Conv2d::new(1, 3, 2)).relu().flatten().dropout(0.2).flatten().linear(3 * 4, 2));
    let removed = agrees(&network, &Selection::new().channels("0", [1]), &numbers(&[2, 1, 3, 3]));
    let (before, after) = (network.parameter("5.weight").unwrap(), removed.parameter("5.weight").unwrap());
    let columns = [0, 1, 2, 3, 8, 9, 10, 11];
    assert_eq!(after, before.select(Axis(1), &columns));
    // Rows of tokens flatten the other way: each token has every feature.
    let network = drawn(|b| b.linear(2, 3).flatten().linear(3 * 4, 2));
    let removed = agrees(&network, &Selection::new().channels("0", [1]), &numbers(&[2, 4, 2]));
    let (before, after) = (network.parameter("2.weight").unwrap(), removed.parameter("2.weight").unwrap());
    assert_eq!(after, before.select(Axis(1), &[0, 2, 3, 5, 6, 8, 9, 11]));
}

#[test]
fn a_residual_after_flattening_couples_a_channel_with_all_its_pixels() {
    let network = drawn(|b| {
        b.conv2d(Conv2d::new(1, 3, 2))
            .flatten()
            .residual(|b| b.linear(12, 5).relu().linear(5, 12))
            .layer_norm(12)
            .linear(12, 2)
    });
    let chosen = Selection::new().channels("2.2", [5]);
    let removed = agrees(&network, &chosen, &numbers(&[2, 1, 3, 3]));
    assert_eq!((shape(&removed, "0.weight"), shape(&removed, "2.2.weight")), (&[2, 1, 2, 2][..], &[8, 5][..]));
    let whole = Channels::l2(1).only("0").select(&network).unwrap();
    assert_eq!(
        whole.layers().map(|(name, channels)| (name.to_owned(), channels.len())).collect::<Vec<_>>(),
        [("0".to_owned(), 1), ("2.2".to_owned(), 4)]
    );
}

#[test]
fn groups_keep_equally_many_of_their_channels() {
    let network = drawn(|b| {
        b.conv2d(Conv2d::new(2, 8, 1))
            .conv2d(Conv2d::new(8, 12, 1).groups(2))
            .named("grouped")
            .conv2d(Conv2d::new(12, 2, 1))
    });
    let x = numbers(&[2, 2, 3, 3]);
    let (layer, message) = refusal(Selection::new().channels("0", [0, 1, 5]).remove(&network));
    assert!(layer == "grouped" && message.contains("[2, 3]"), "{layer}: {message}");
    assert_eq!(refusal(Selection::new().channels("grouped", [0, 6, 7]).mask(&network)).0, "grouped");
    assert_eq!(refusal(Selection::new().channels("0", [0, 1, 2, 3]).remove(&network)).0, "grouped");
    let removed = agrees(&network, &Selection::new().channels("0", [0, 1, 5, 6]), &x);
    assert_eq!(shape(&removed, "grouped.weight"), [12, 2, 1, 1]);
    let chosen = Channels::l1(0.4).select(&network).unwrap();
    for (name, channels) in chosen.layers() {
        let half = shape(&network, &format!("{name}.weight"))[0] / 2;
        let first = channels.iter().filter(|channel| **channel < half).count();
        assert_eq!(2 * first, channels.len(), "{chosen}");
    }
    let removed = agrees(&network, &chosen, &x);
    assert_eq!((shape(&removed, "0.weight")[0], shape(&removed, "grouped.weight")), (6, &[8, 3, 1, 1][..]));
}

#[test]
fn a_depthwise_convolution_passes_its_channels_on_several_times() {
    let network = drawn(|b| {
        b.conv2d(Conv2d::new(1, 4, 1))
            .conv2d(Conv2d::new(4, 8, 2).groups(4))
            .named("depthwise")
            .batch_norm2d(8)
            .conv2d(Conv2d::new(8, 2, 1))
    });
    for chosen in [Selection::new().channels("0", [1, 2]), Selection::new().channels("depthwise", [3, 4])] {
        let removed = agrees(&network, &chosen, &numbers(&[2, 1, 3, 3]));
        let Layer::Conv2d(depthwise) = removed.layer("depthwise").unwrap() else { panic!("a convolution") };
        assert_eq!((depthwise.groups, depthwise.in_channels(), depthwise.out_channels()), (2, 2, 4));
    }
    // Two groups of four would cut the second pair in halves.
    let cut = drawn(|b| {
        b.conv2d(Conv2d::new(1, 3, 1))
            .conv2d(Conv2d::new(3, 6, 1).groups(3))
            .conv2d(Conv2d::new(6, 4, 1).groups(2))
            .named("cutter")
            .conv2d(Conv2d::new(4, 2, 1))
    });
    let (layer, message) = refusal(Selection::new().channels("0", [1]).remove(&cut));
    assert!(layer == "0" && message.contains("cutter"), "{message}");
}

#[test]
fn channels_that_cannot_go_say_why() {
    let pinned = |network: Network, layer: &str, reason: &str| {
        let (name, message) = refusal(Selection::new().channels(layer, [0]).remove(&network));
        assert!(name == layer && message.contains(reason), "{name}: {message}");
        let (name, message) = refusal(Channels::l2(0.5).only(layer).select(&network));
        assert!(name == layer && message.contains(reason), "{name}: {message}");
        let others = Channels::l2(0.5).select(&network);
        assert!(others.map_or(true, |chosen| chosen.layers().all(|(name, _)| name != layer)));
    };
    pinned(drawn(|b| b.linear(3, 4).relu().linear(4, 2)), "2", "network's outputs");
    pinned(drawn(|b| b.residual(|b| b.linear(3, 3)).linear(3, 2)), "0.0", "network's input");
    pinned(
        drawn(|b| b.linear(3, 3).residual(|b| b.linear(3, 3).residual(|b| b.linear(3, 3)))),
        "0",
        "network's outputs",
    );
    pinned(drawn(|b| b.linear(3, 4).softmax().linear(4, 2)), "0", "softmax `1`");
    pinned(
        drawn(|b| b.conv2d(Conv2d::new(1, 4, 1)).linear(3, 2).conv2d(Conv2d::new(4, 1, 1))),
        "0",
        "width of its images",
    );
    pinned(drawn(|b| b.conv2d(Conv2d::new(1, 4, 1)).linear(3, 2).conv2d(Conv2d::new(4, 1, 1))), "1", "width of images");
    pinned(drawn(|b| b.linear(3, 4).conv2d(Conv2d::new(1, 4, 1))), "0", "`1` convolves over them");
    pinned(drawn(|b| b.linear(3, 4).batch_norm2d(2).linear(4, 1)), "0", "`1` normalizes over them");
    pinned(drawn(|b| b.linear(3, 4).max_pool2d(2).linear(2, 1)), "0", "`1` pools over them");
    let images =
        drawn(|b| b.conv2d(Conv2d::new(1, 4, 1)).layer(LayerNorm::over(&[4, 3, 3])).conv2d(Conv2d::new(4, 1, 1)));
    pinned(images, "0", "`1` normalizes more");
    pinned(drawn(|b| b.conv2d(Conv2d::new(2, 4, 1).groups(2)).conv2d(Conv2d::new(4, 1, 1))), "0", "one that stays");
}

#[test]
fn masks_of_what_stays_stay() {
    let mut network = drawn(|b| b.linear(4, 6).relu().linear(6, 5).relu().linear(5, 2));
    for name in ["0.weight", "2.weight"] {
        let pruned = Pruner::magnitude(0.5).apply(&network.parameter(name).unwrap()).unwrap();
        network.set_mask(name, Some(pruned.mask().clone())).unwrap();
    }
    let removed = agrees(&network, &Selection::new().channels("0", [1, 2]), &numbers(&[3, 4]));
    let sliced = |name: &str, axis: usize| {
        let kept = network.mask(name).unwrap().unwrap().to_array().select(Axis(axis), &[0, 3, 4, 5]);
        Mask::of_nonzeros(&kept.mapv(|kept| f32::from(u8::from(kept))))
    };
    assert_eq!(removed.mask("0.weight").unwrap(), Some(&sliced("0.weight", 0)));
    assert_eq!(removed.mask("2.weight").unwrap(), Some(&sliced("2.weight", 1)));
    assert_eq!(removed.masks().len(), 2, "a layer without a mask gets none");
}

#[test]
fn what_structured_pruning_made_zero_goes() {
    let mut network = drawn(|b| {
        b.conv2d(Conv2d::new(1, 8, 3))
            .batch_norm2d(8)
            .relu()
            .conv2d(Conv2d::new(8, 6, 3))
            .relu()
            .flatten()
            .linear(6 * 16, 10)
    });
    for name in ["0.weight", "3.weight"] {
        let pruner = Pruner::magnitude(0.5).structured(Axis(0));
        let pruned = pruner.apply(&network.parameter(name).unwrap()).unwrap();
        network.set_mask(name, Some(pruned.mask().clone())).unwrap();
    }
    let smaller = Channels::zeros().remove(&network).unwrap();
    assert_eq!((shape(&smaller, "0.weight"), shape(&smaller, "3.weight")), (&[4, 1, 3, 3][..], &[3, 4, 3, 3][..]));
    assert!(smaller.masks().is_empty(), "the masks removed whole channels, which are gone");
    let x = numbers(&[3, 1, 8, 8]);
    assert!(relative_error(&network.forward(&x).unwrap(), &smaller.forward(&x).unwrap()) < 1e-5);
    assert_eq!(Channels::zeros().remove(&smaller).unwrap(), smaller);
}

#[test]
fn a_row_that_reads_nothing_but_zero_channels_goes_with_them() {
    let network = network(vec![
        linear(array![[0.0, 0.0], [1.0, 1.0], [2.0, -1.0]], Some(array![5.0, 0.0, 0.0])),
        linear(array![[3.0, 0.0, 0.0], [1.0, 2.0, 3.0]], Some(array![1.0, 0.0])),
        linear(array![[10.0, 20.0]], None),
    ]);
    let smaller = Channels::zeros().remove(&network).unwrap();
    assert_eq!((shape(&smaller, "0.weight"), shape(&smaller, "1.weight")), (&[2, 2][..], &[1, 2][..]));
    assert_eq!(smaller.parameter("1.bias").unwrap(), array![5.0].into_dyn());
    assert_eq!(smaller.parameter("2.bias").unwrap(), array![160.0].into_dyn()); // 10 (1 + 3 · 5)
    // All zero: one stays all the same.
    let nothing = self::network(vec![linear(Array2::zeros((3, 2)), None), linear(Array2::ones((2, 3)), None)]);
    assert_eq!(shape(&Channels::zeros().remove(&nothing).unwrap(), "1.weight"), [2, 1]);
    // Normalized by a weight that is not zero, a zero channel is no constant.
    let normalized = drawn(|b| b.linear(3, 4).layer_norm(4).linear(4, 2));
    let zeroed = Selection::new().channels("0", [2]).mask(&normalized).unwrap();
    assert!(!Channels::zeros().select(&zeroed).unwrap().is_empty());
    let mut weighed = zeroed.clone();
    weighed.set_parameter("1.weight", &Array1::ones(4)).unwrap();
    assert!(Channels::zeros().select(&weighed).unwrap().is_empty());
}

#[test]
fn multiplications_fall_by_both_factors() {
    let network = drawn(|b| {
        b.conv2d(Conv2d::new(1, 10, 3))
            .relu()
            .conv2d(Conv2d::new(10, 20, 3))
            .relu()
            .flatten()
            .linear(320, 50)
            .relu()
            .linear(50, 10)
    });
    let removed = Channels::l2(0.5).remove(&network).unwrap();
    let shapes = ["0.weight", "2.weight", "5.weight", "7.weight"].map(|name| shape(&removed, name));
    assert_eq!(shapes, [&[5, 1, 3, 3][..], &[10, 5, 3, 3], &[25, 160], &[10, 25]]);
    assert_eq!(removed.output_shape(&[7, 1, 8, 8]).unwrap(), [7, 10]);
}

#[cfg(feature = "io")]
#[test]
fn a_smaller_network_is_saved_and_loaded_without_the_code_that_made_it() {
    let network = drawn(|b| {
        b.conv2d(Conv2d::new(2, 6, 3))
            .batch_norm2d(6)
            .silu()
            .conv2d(Conv2d::new(6, 6, 2).groups(6))
            .flatten()
            .linear(24, 7)
            .layer_norm(7)
            .linear(7, 3)
            .named("head")
    });
    let removed = agrees(&network, &Channels::l2(0.4).select(&network).unwrap(), &numbers(&[2, 2, 5, 5]));
    let path = std::env::temp_dir().join(format!("tersor-{}-removed.safetensors", std::process::id()));
    removed.save(&path).unwrap();
    let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
    assert!(text.contains("absent"));
    assert_eq!(Network::load(&path).unwrap(), removed);
    // A plain layer normalization is written as before there was any removal, and read so.
    network.save(&path).unwrap();
    let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
    assert!(text.contains("layer_norm") && !text.contains("absent"));
    assert_eq!(Network::load(&path).unwrap(), network);
    std::fs::remove_file(path).unwrap();
}
