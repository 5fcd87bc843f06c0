//! Which channels are chosen.

use ndarray::{Array1, Array2, Array4, ArrayD, Axis, array};
use tersor::{
    Channels, Result, Weights,
    nn::{BatchNorm2d, Conv2d, Layer, Linear, Network},
    prune::{Amount, Score, Taylor},
    removal::{Reduce, Selection},
    tensor::Statistic,
};

/// A network of neurons whose rows have these norms, layer by layer, and an output of one.
fn of_norms(norms: &[&[f32]]) -> Network {
    let mut inputs = 1;
    let mut layers: Vec<(String, Layer)> = Vec::new();
    for norms in norms.iter().chain([&&[1.0f32][..]]) {
        // Each row's norm is in one of its elements, so that its power mean is that over √inputs.
        let scale = (inputs as f32).sqrt();
        let weight = Array2::from_shape_fn((norms.len(), inputs), |(i, j)| if j == 0 { norms[i] * scale } else { 0.0 });
        layers.push((layers.len().to_string(), Linear::from_arrays(weight, None).unwrap().into()));
        inputs = norms.len();
    }
    Network::from_layers(layers).unwrap()
}

fn chosen(channels: Channels, network: &Network) -> Vec<(String, Vec<usize>)> {
    channels.select(network).unwrap().layers().map(|(name, channels)| (name.to_owned(), channels)).collect()
}

fn layers(expected: &[(&str, &[usize])]) -> Vec<(String, Vec<usize>)> {
    expected.iter().map(|(name, channels)| ((*name).to_owned(), channels.to_vec())).collect()
}

#[test]
fn the_least_go_first_and_of_equal_ones_the_first() {
    let network = of_norms(&[&[3.0, 1.0, 2.0, 1.0, 5.0], &[1.0; 4]]);
    assert_eq!(chosen(Channels::l2(0.5), &network), layers(&[("0", &[1, 3]), ("1", &[0, 1])])); // half of 5 is 2
    assert_eq!(chosen(Channels::l1(3), &network), layers(&[("0", &[1, 2, 3]), ("1", &[0, 1, 2])]));
    assert_eq!(chosen(Channels::l2(Amount::Below(1.5)), &network), layers(&[("0", &[1, 3]), ("1", &[0, 1, 2])]));
    assert_eq!(chosen(Channels::norm(f64::INFINITY, 1), &network), layers(&[("0", &[1]), ("1", &[0])]));
    assert_eq!(chosen(Channels::l2(0.95), &of_norms(&[&[1.0, 2.0]])), layers(&[("0", &[0])]), "one stays");
    assert!(chosen(Channels::l2(0.0), &network).is_empty());
}

#[test]
fn across_layers_all_are_ranked_as_one_and_none_is_emptied() {
    let network = of_norms(&[&[3.0, 4.0, 5.0, 6.0], &[1.0, 2.0, 1.5]]);
    let across = |amount: Amount| chosen(Channels::l2(amount).across_layers(), &network);
    assert_eq!(across(Amount::Count(2)), layers(&[("1", &[0, 2])]));
    assert_eq!(across(Amount::Fraction(0.5)), layers(&[("0", &[0, 1]), ("1", &[0, 2])])); // half of 7 is 4
    assert_eq!(across(Amount::Fraction(0.99)), layers(&[("0", &[0, 1, 2]), ("1", &[0, 2])]));
    assert_eq!(across(Amount::Below(3.5)), layers(&[("0", &[0]), ("1", &[0, 2])]));
}

#[test]
fn what_stays_is_rounded_up_to_a_multiple_or_to_all() {
    let network = of_norms(&[&(0..20).map(|i| i as f32 + 1.0).collect::<Vec<_>>(), &[1.0, 2.0, 3.0]]);
    for (amount, stays) in [(0.1, 20), (0.2, 16), (0.5, 16), (0.6, 8), (0.95, 8)] {
        let removed = chosen(Channels::l2(amount).round_to(8), &network);
        assert_eq!(removed, if stays == 20 { vec![] } else { layers(&[("0", &(0..20 - stays).collect::<Vec<_>>())]) });
    }
    let network = Network::builder(1)
        .conv2d(Conv2d::new(1, 24, 1))
        .conv2d(Conv2d::new(24, 3, 1).groups(3))
        .conv2d(Conv2d::new(3, 1, 1))
        .build()
        .unwrap();
    let removed = Channels::l2(0.3).round_to(8).remove(&network).unwrap();
    // 24 - 6 of 3 equal groups of 8s: a multiple of 24.
    assert_eq!(removed.parameter("0.weight").unwrap().shape()[0], 24);
    let removed = Channels::l2(0.3).round_to(4).remove(&network).unwrap();
    assert_eq!(removed.parameter("0.weight").unwrap().shape()[0], 24);
    let removed = Channels::l2(0.5).round_to(4).remove(&network).unwrap();
    assert_eq!(removed.parameter("0.weight").unwrap().shape()[0], 12);
}

#[test]
fn globs_say_where() {
    let network = Network::builder(1)
        .linear(4, 8)
        .named("in")
        .residual(|b| b.linear(8, 6).named("up").relu().linear(6, 8).named("down"))
        .named("block")
        .linear(8, 8)
        .named("last")
        .linear(8, 3)
        .named("head")
        .build()
        .unwrap();
    let names = |channels: Channels| -> Vec<String> {
        channels.select(&network).unwrap().layers().map(|(name, _)| name.to_owned()).collect()
    };
    assert_eq!(names(Channels::l2(0.5)), ["in", "block.up", "block.down", "last"]);
    assert_eq!(names(Channels::l2(0.5).only("block.*")), ["in", "block.up", "block.down"]);
    assert_eq!(names(Channels::l2(0.5).only("block.up").only("la?t")), ["block.up", "last"]);
    assert_eq!(names(Channels::l2(0.5).keep("in")), ["block.up", "last"]);
    assert_eq!(names(Channels::l2(0.5).only("block.*").keep("block.down").keep("head")), ["block.up"]);
}

#[test]
fn coupled_rows_count_by_their_mean_or_their_largest() {
    let norms = |rows: [f32; 3]| {
        Linear::from_arrays(Array2::from_shape_fn((3, 3), |(i, j)| if i == j { rows[i] } else { 0.0 }), None).unwrap()
    };
    let branch = Network::from_layers(vec![("0".into(), norms([6.0, 4.0, 2.0]).into())]).unwrap();
    let network = Network::from_layers(vec![
        ("0".into(), norms([1.0, 4.0, 7.0]).into()),
        ("1".into(), tersor::nn::Residual::new(branch).into()),
        ("2".into(), norms([1.0; 3]).into()),
    ])
    .unwrap();
    // Means 3.5, 4, 4.5; largest 6, 4, 7.
    let first = |reduce: Reduce| chosen(Channels::l2(1).reduce(reduce), &network)[0].1.clone();
    assert_eq!((first(Reduce::Mean), first(Reduce::Max)), (vec![0], vec![1]));
}

#[test]
fn slimming_ranks_by_the_batch_normalization_that_follows() {
    let norm = |weight: [f32; 4]| {
        let one = Array1::ones(4);
        BatchNorm2d::from_arrays(Array1::from(weight.to_vec()), Array1::zeros(4), Array1::zeros(4), one).unwrap()
    };
    let conv = |seed: u64| Conv2d::new(if seed == 0 { 1 } else { 4 }, 4, 1);
    let network = Network::builder(5)
        .conv2d(conv(0))
        .layer(norm([0.5, -0.1, -2.0, 0.2]))
        .conv2d(conv(1))
        .relu()
        .conv2d(conv(2))
        .layer(norm([0.05, 3.0, 1.0, 2.0]))
        .relu()
        .conv2d(Conv2d::new(4, 2, 1))
        .build()
        .unwrap();
    assert_eq!(chosen(Channels::slimming(0.5), &network), layers(&[("0", &[1, 3]), ("4", &[0, 2])]));
    assert_eq!(chosen(Channels::slimming(0.25).across_layers(), &network), layers(&[("0", &[1]), ("4", &[0])]));
    let plain = Network::builder(5).conv2d(conv(0)).conv2d(conv(1)).build().unwrap();
    assert!(matches!(Channels::slimming(0.5).select(&plain), Err(tersor::Error::Conflict { .. })));
}

#[test]
fn random_choices_follow_from_the_seed() {
    let network = of_norms(&[&[1.0; 40], &[1.0; 40]]);
    let draw = |seed: u64| chosen(Channels::random(0.5, seed), &network);
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
    assert_ne!(draw(7)[0].1, draw(7)[1].1, "each layer is drawn for itself");
    assert!(draw(7).iter().all(|(_, channels)| channels.len() == 20));
}

#[test]
fn any_score_ranks_channels_and_is_told_what_it_needs() {
    /// Keeps rows that end in a large number.
    #[derive(Debug)]
    struct Last;
    impl Score for Last {
        fn elements(&self, weights: &dyn Weights) -> Result<ArrayD<f32>> {
            let values = weights.values().into_owned();
            let last = values.shape()[1] - 1;
            Ok(ArrayD::from_shape_fn(values.raw_dim(), |index| if index[1] == last { values[&index] } else { 0.0 }))
        }
    }
    let weight = array![[1.0, 0.1], [0.0, 0.9], [5.0, 0.5]];
    let network = Network::from_layers(vec![
        ("0".into(), Linear::from_arrays(weight, None).unwrap().into()),
        ("1".into(), Linear::from_arrays(Array2::ones((1, 3)), None).unwrap().into()),
    ])
    .unwrap();
    assert_eq!(chosen(Channels::by(Last, 2), &network), layers(&[("0", &[0, 2])]));
    let gradients = [("0.weight".to_owned(), array![[1.0f32, 1.0], [0.0, 0.0], [0.01, 0.01]])];
    let taylor = Channels::by(Taylor, 2).with(Statistic::Gradient, &gradients);
    assert_eq!(chosen(taylor, &network), layers(&[("0", &[1, 2])])); // 1.1, 0, 0.055
    assert!(matches!(Channels::by(Taylor, 1).select(&network), Err(tersor::Error::Layer { name, .. }) if name == "0"));
}

#[test]
fn what_is_masked_whole_goes_first() {
    let mut network = of_norms(&[&[3.0, 1.0, 2.0, 4.0]]);
    let mask = tersor::Mask::from_fn(&[4, 1], |row| row != 3).unwrap();
    network.set_mask("0.weight", Some(mask)).unwrap();
    for seed in 0..8 {
        assert_eq!(chosen(Channels::random(1, seed), &network), layers(&[("0", &[3])]));
    }
    assert_eq!(chosen(Channels::l2(2), &network), layers(&[("0", &[1, 3])]));
}

#[test]
fn a_selection_says_what_it_holds() {
    let network = of_norms(&[&[3.0, 1.0, 2.0, 4.0], &[1.0, 2.0]]);
    let chosen = Channels::l2(0.5).select(&network).unwrap();
    assert_eq!(chosen.to_string(), "`0`: 1, 2\n`1`: 0");
    assert_eq!(chosen, Selection::new().channels("0", [2, 1]).channels("1", [0]).channels("0", [1]));
    assert!(format!("{chosen:?}").contains("drop_biases: false"));
    assert!(Selection::new().is_empty() && !chosen.is_empty() && Selection::new().channels("0", []).is_empty());
    let x = Array4::<f32>::ones((1, 1, 1, 1)).remove_axis(Axis(2)).remove_axis(Axis(2));
    assert!(chosen.remove(&network).unwrap().forward(&x).is_ok());
}
