//! Bad input gives the typed error that names it, and nothing half-done.

use ndarray::{Array2, ArrayD};
use tersor::{
    Channels, Error, Result, Weights,
    nn::{Absent, Conv2d, Layer, LayerNorm, Network},
    prune::{Amount, Score, Taylor},
    removal::{Heads, Selection},
    tensor::Statistic,
};

fn network() -> Network {
    Network::builder(2).linear(4, 6).relu().linear(6, 5).named("middle").relu().linear(5, 2).build().unwrap()
}

#[test]
fn amounts_that_leave_nothing_or_are_none() {
    let network = network();
    let setting = |channels: Channels| match channels.select(&network) {
        Err(Error::Setting { setting, .. }) => setting,
        other => panic!("{other:?}"),
    };
    for amount in [1.0, 1.5, -0.1, f64::NAN, f64::INFINITY] {
        for channels in [Channels::l2(amount), Channels::random(amount, 1), Channels::l1(amount).across_layers()] {
            setting(channels);
        }
    }
    for count in [5, 6, usize::MAX] {
        setting(Channels::l2(count));
    }
    assert_eq!(setting(Channels::l2(10).across_layers()), "the count of channels to remove");
    assert!(Channels::l2(9).across_layers().remove(&network).is_ok());
    assert!(Channels::l2(4).remove(&network).is_ok());
    setting(Channels::l2(Amount::Below(f64::NAN)));
    assert_eq!(setting(Channels::l2(0.5).round_to(0)), "round_to");
    for multiple in [7, usize::MAX] {
        assert_eq!(setting(Channels::l2(0.5).round_to(multiple)), "round_to");
        assert!(Channels::l2(0.0).round_to(multiple).select(&network).unwrap().is_empty());
    }
    assert!(Channels::l2(0.5).round_to(6).select(&network).unwrap().is_empty(), "a layer of 6 may keep 6");
    for p in [0.0, f64::NAN] {
        assert!(matches!(Channels::norm(p, 0.5).select(&network), Err(Error::Layer { name, .. }) if name == "0"));
    }
}

#[test]
fn globs_that_match_nothing() {
    for channels in
        [Channels::l2(0.5).only("conv*"), Channels::zeros().keep("*").keep("conv?"), Channels::l2(0.5).keep("1")]
    {
        match channels.select(&network()) {
            Err(Error::Pattern { known, .. }) => assert_eq!(known, ["0", "middle", "4"]),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn choices_that_cannot_go_say_why() {
    let refusal = |channels: Channels, network: &Network| channels.remove(network).unwrap_err();
    match refusal(Channels::l2(0.5).only("4"), &network()) {
        Error::Layer { name, source } => {
            assert!(name == "4" && source.to_string().contains("the network's outputs"), "{source}");
        }
        other => panic!("{other}"),
    }
    assert!(
        matches!(refusal(Channels::zeros().only("0").only("4.weight"), &network()), Error::Layer { name, .. } if name == "4")
    );
    assert!(Channels::l2(0.5).only("*").remove(&network()).is_ok(), "some of them can");
    let single = Network::builder(1).linear(4, 3).build().unwrap();
    let pinned = Network::builder(1).residual(|b| b.linear(4, 4)).linear(4, 2).build().unwrap();
    for (network, why) in [(single, "outputs"), (pinned, "residual `0`")] {
        for channels in
            [Channels::l2(0.5), Channels::l1(1), Channels::random(0.1, 1), Channels::l2(0.5).where_possible()]
        {
            let error = refusal(channels, &network);
            assert!(matches!(error, Error::Conflict { .. }) && error.to_string().contains(why), "{error}");
        }
        // Nothing is asked for, or nothing is found.
        for channels in [Channels::l2(0.0), Channels::l2(0), Channels::zeros(), Channels::l2(Amount::Below(1.0))] {
            assert_eq!(channels.remove(&network).unwrap(), network);
        }
    }
    let kept = refusal(Channels::l2(0.5).keep("*"), &network());
    assert!(matches!(kept, Error::Conflict { .. }) && kept.to_string().contains("keep"), "{kept}");
    let attention = Network::builder(1).attention(8, 2).named("attn").build().unwrap();
    assert!(matches!(Heads::l2(0.5).keep("attn").select(&attention), Err(Error::Conflict { .. })));
    match Heads::l2(2).select(&attention) {
        Err(Error::Setting { setting, bound, .. }) => assert!(setting.contains("heads") && bound.contains("head of")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn layers_are_named_as_their_weights_are() {
    let network = network();
    let chosen = |channels: Channels| channels.select(&network).unwrap();
    assert_eq!(chosen(Channels::l2(0.5).only("middle.weight")), chosen(Channels::l2(0.5).only("middle")));
    assert_eq!(chosen(Channels::l2(0.5).keep("0.weight")), chosen(Channels::l2(0.5).keep("0")));
}

#[test]
fn scores_say_what_they_were_not_told_and_how_to_tell_them() {
    let network = network();
    match Channels::by(Taylor, 0.5).select(&network) {
        Err(Error::Layer { name, source }) => {
            let message = source.to_string();
            assert!(name == "0" && matches!(*source, Error::NeedsCalibration { .. }));
            assert!(message.contains("`with(Statistic::Gradient") && !message.contains("Observed"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    let told = [("0.wieght".to_owned(), Array2::<f32>::zeros((6, 4)))];
    let unknown = Channels::by(Taylor, 0.5).with(Statistic::Gradient, &told).select(&network);
    assert!(matches!(unknown, Err(Error::UnknownName { name, .. }) if name == "0.wieght"));
    let attention = Network::builder(1).attention(8, 2).build().unwrap();
    let unknown = Heads::by(Taylor, 0.5).with(Statistic::Gradient, &told).select(&attention);
    assert!(matches!(unknown, Err(Error::UnknownName { name, .. }) if name == "0.wieght"));
}

#[test]
fn choices_of_what_is_not_there() {
    let network = network();
    for chosen in [Selection::new().channels("fc", [0]), Selection::new().channels("1", [0])] {
        assert!(
            matches!(chosen.remove(&network), Err(Error::UnknownName { known, .. }) if known == ["0", "middle", "4"])
        );
        assert!(chosen.mask(&network).is_err());
    }
    for channel in [5, usize::MAX] {
        match Selection::new().channels("middle", [0, channel]).remove(&network) {
            Err(Error::Layer { name, source }) => {
                assert!(name == "middle" && matches!(*source, Error::Setting { value, .. } if value == channel as f64));
            }
            other => panic!("{other:?}"),
        }
    }
    match Selection::new().channels("0", 0..6).remove(&network) {
        Err(Error::Layer { name, source }) => {
            assert!(name == "0" && source.to_string().contains("all of its 6"), "{source}")
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        Selection::new().channels("4", []).remove(&network).unwrap(),
        network,
        "no channel of a layer that stays"
    );
}

#[test]
fn scores_that_are_none() {
    #[derive(Debug)]
    struct Broken(fn(&mut ArrayD<f32>));
    impl Score for Broken {
        fn elements(&self, weights: &dyn Weights) -> Result<ArrayD<f32>> {
            let mut values = weights.values().into_owned();
            (self.0)(&mut values);
            Ok(values)
        }
    }
    let breaks: [fn(&mut ArrayD<f32>); 2] =
        [|values| values.fill(f32::NAN), |values| *values = Array2::zeros((1, 1)).into_dyn()];
    for broken in breaks {
        match Channels::by(Broken(broken), 0.5).select(&network()) {
            Err(Error::Layer { name, .. }) => assert_eq!(name, "0"),
            other => panic!("{other:?}"),
        }
    }
    let infinite = Channels::by(Broken(|values| values.fill(f32::INFINITY)), 0.5);
    assert_eq!(infinite.select(&network()).unwrap().layers().count(), 2);
}

#[test]
fn networks_spoiled_after_building() {
    let spoil: [fn(&mut Conv2d); 3] = [|conv| conv.groups = 0, |conv| conv.groups = 3, |conv| conv.stride = [0, 1]];
    for spoil in spoil {
        let mut network =
            Network::builder(1).conv2d(Conv2d::new(4, 4, 1)).conv2d(Conv2d::new(4, 4, 1)).build().unwrap();
        let Layer::Conv2d(conv) = network.layers_mut().nth(1).unwrap().1 else { panic!("a convolution") };
        spoil(conv);
        assert!(matches!(Channels::l2(0.5).remove(&network), Err(Error::Layer { name, .. }) if name == "1"));
        assert!(matches!(Selection::new().remove(&network), Err(Error::Layer { name, .. }) if name == "1"));
    }
    // A network that no input fits: 7 is no multiple of 3 channels.
    let network = Network::builder(1).conv2d(Conv2d::new(1, 3, 1)).flatten().linear(7, 2).linear(2, 1).build().unwrap();
    match Selection::new().channels("0", [0]).remove(&network) {
        Err(Error::Layer { source, .. }) => {
            assert!(source.to_string().contains("`2` cannot be told apart"), "{source}")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn constants_beyond_f32_are_an_error_of_their_layer() {
    let mut network = Network::builder(1)
        .residual(|b| b.relu())
        .linear(2, 3)
        .linear(3, 3)
        .layer_norm(3)
        .linear(3, 1)
        .build()
        .unwrap();
    network.set_parameter("1.bias", &ndarray::Array1::from_elem(3, f32::MAX)).unwrap();
    network.set_parameter("2.weight", &Array2::from_elem((3, 3), 2.0)).unwrap();
    match Selection::new().channels("1", [0]).remove(&network) {
        Err(Error::Layer { name, source }) => assert!(name == "2" && matches!(*source, Error::NotFinite { .. })),
        other => panic!("{other:?}"),
    }
}

#[test]
fn absent_features_have_finite_moments() {
    let norm = |count, mean, squares| {
        let layer = Layer::from(
            LayerNorm::from_arrays(ArrayD::ones(vec![2]), ArrayD::zeros(vec![2])).unwrap().absent(Absent {
                count,
                mean,
                squares,
            }),
        );
        Network::from_layers(vec![("0".into(), layer)])
    };
    assert!(norm(0, 0.0, 0.0).is_ok() && norm(3, -1.0, 2.0).is_ok());
    for (count, mean, squares) in [
        (0, 1.0, 0.0),
        (0, 0.0, 1.0),
        (1, f64::NAN, 0.0),
        (1, f64::INFINITY, 0.0),
        (2, 0.0, -1.0),
        (2, 0.0, f64::NAN),
        (2, 0.0, f64::INFINITY),
    ] {
        assert!(
            matches!(norm(count, mean, squares), Err(Error::Layer { name, source }) if name == "0" && matches!(*source, Error::Setting { .. }))
        );
    }
    let huge = norm(usize::MAX, 1.0, 0.0).unwrap();
    assert!(huge.forward(&Array2::ones((1, 2))).unwrap().iter().all(|x| x.is_finite()));
}
