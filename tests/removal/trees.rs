//! Random trees of layers, random choices of channels: masked and removed networks agree.

use std::cell::Cell;

use ndarray::{ArrayD, IxDyn};
use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseResult, TestRunner},
};
use rand_xoshiro::{
    Xoshiro256PlusPlus,
    rand_core::{Rng, SeedableRng},
};
use tersor::{
    Channels, Error,
    nn::{Attention, AvgPool2d, Builder, Conv2d, Layer, LayerNorm, MaxPool2d, Network},
    removal::Selection,
};

/// Random numbers from a seed.
struct Dice(Xoshiro256PlusPlus);

impl Dice {
    fn new(seed: u64) -> Dice {
        Dice(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// Below `n`.
    fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n as u64) as usize
    }

    fn of<T: Clone>(&mut self, options: &[T]) -> T {
        options[self.below(options.len())].clone()
    }

    /// Once in `n` times.
    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn within(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * (self.0.next_u64() >> 40) as f32 / (1u32 << 24) as f32
    }
}

/// The shape of activations, without the batch.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Images(usize, usize, usize),
    Features(usize),
    Tokens(usize, usize),
}

impl At {
    fn shape(self) -> Vec<usize> {
        match self {
            At::Images(channels, height, width) => vec![3, channels, height, width],
            At::Features(features) => vec![3, features],
            At::Tokens(tokens, features) => vec![3, tokens, features],
        }
    }

    fn flat(self) -> At {
        At::Features(self.shape()[1..].iter().product())
    }
}

fn activation(b: Builder, dice: &mut Dice) -> Builder {
    let layer = [Builder::relu, Builder::gelu, Builder::gelu_tanh, Builder::silu, Builder::sigmoid, Builder::tanh];
    dice.of(&layer)(b)
}

fn conv(dice: &mut Dice, channels: usize, out: Option<usize>, same: bool) -> Conv2d {
    let mut groups: Vec<usize> = (1..=channels).filter(|g| channels.is_multiple_of(*g)).collect();
    groups.push(1);
    let groups = dice.of(&groups).min(out.unwrap_or(usize::MAX));
    let groups = if out.is_some_and(|out| !out.is_multiple_of(groups)) { 1 } else { groups };
    let out = out.unwrap_or_else(|| groups * (1 + dice.below(3)));
    let kernel = dice.of(&[1, 1, 3]);
    let padding = if same {
        kernel / 2
    } else if dice.one_in(4) {
        1
    } else {
        0
    };
    let conv = Conv2d::new(channels, out, kernel).groups(groups).padding(padding);
    let conv = if same { conv } else { conv.stride(dice.of(&[1, 1, 2])) };
    if dice.one_in(4) { conv.without_bias() } else { conv }
}

fn linear(b: Builder, dice: &mut Dice, inputs: usize, outputs: usize) -> Builder {
    if dice.one_in(4) { b.linear_without_bias(inputs, outputs) } else { b.linear(inputs, outputs) }
}

fn attention(b: Builder, dice: &mut Dice, features: usize) -> Builder {
    let attention = Attention::new(features, 1 + dice.below(2)).head_dim(1 + dice.below(3));
    let attention = if dice.one_in(3) { attention.causal() } else { attention };
    b.layer(if dice.one_in(4) { attention.without_bias() } else { attention })
}

/// One more layer that keeps the shape.
fn same(b: Builder, dice: &mut Dice, at: At, depth: usize) -> Builder {
    let choice = dice.below(if depth < 2 { 10 } else { 7 });
    match (at, choice) {
        (_, 0..=2) => activation(b, dice),
        (_, 3) => b.dropout(0.5),
        (At::Images(c, ..), 4 | 5) => b.batch_norm2d(c),
        (At::Images(c, h, w), 6) if h.min(w) > 2 => {
            let conv = conv(dice, c, Some(c), true);
            b.conv2d(conv)
        }
        (At::Images(..), 6) => b.max_pool2d(MaxPool2d::new(1)),
        (At::Features(f) | At::Tokens(_, f), 4 | 5) => b.layer(LayerNorm::new(f).eps(0.1)),
        (At::Features(_), 6) => b.flatten(),
        (At::Tokens(_, f), 6) if dice.one_in(2) => attention(b, dice, f),
        (At::Tokens(_, f), 6) => linear(b, dice, f, f),
        _ => b.residual(|b| branch(b, dice, at, depth + 1)),
    }
}

fn branch(mut b: Builder, dice: &mut Dice, at: At, depth: usize) -> Builder {
    for _ in 0..dice.below(2) {
        b = same(b, dice, at, depth);
    }
    let inner = match at {
        At::Images(c, h, w) if h.min(w) > 2 => {
            let wide = conv(dice, c, None, true);
            let channels = wide.out_channels();
            b = b.conv2d(wide);
            At::Images(channels, h, w)
        }
        At::Images(c, h, w) => {
            let channels = 1 + dice.below(6);
            b = b.conv2d(Conv2d::new(c, channels, 1));
            At::Images(channels, h, w)
        }
        At::Features(f) => {
            let features = 2 + dice.below(6);
            b = linear(b, dice, f, features);
            At::Features(features)
        }
        At::Tokens(t, f) => {
            let features = 2 + dice.below(6);
            b = linear(b, dice, f, features);
            At::Tokens(t, features)
        }
    };
    for _ in 0..dice.below(3) {
        b = same(b, dice, inner, depth);
    }
    b = match (at, inner) {
        (At::Images(c, ..), At::Images(channels, ..)) => b.conv2d(Conv2d::new(channels, c, 1)),
        (At::Features(f) | At::Tokens(_, f), At::Features(g) | At::Tokens(_, g)) => linear(b, dice, g, f),
        _ => b,
    };
    for _ in 0..dice.below(2) {
        b = same(b, dice, at, depth);
    }
    b
}

/// One more layer of any kind.
fn changing(b: Builder, dice: &mut Dice, at: At) -> (Builder, At) {
    if dice.below(2) == 0 {
        return (same(b, dice, at, 0), at);
    }
    match (at, dice.below(8)) {
        (At::Images(c, h, w), 0) => (b.max_pool2d(MaxPool2d::new(2).padding(1)), At::Images(c, h / 2 + 1, w / 2 + 1)),
        (At::Images(c, h, w), 1) if h.min(w) > 1 => {
            let padding = dice.below(2);
            let size = |n: usize| (n + 2 * padding - 2) / 2 + 1;
            (b.avg_pool2d(AvgPool2d::new(2).padding(padding)), At::Images(c, size(h), size(w)))
        }
        (At::Images(c, ..), 2) => (b.global_avg_pool2d(), At::Images(c, 1, 1)),
        (At::Images(..) | At::Tokens(..), 3) => (b.flatten(), at.flat()),
        (At::Images(c, h, w), 4) if dice.one_in(4) => (b.linear(w, 3), At::Images(c, h, 3)),
        (At::Images(_, h, w), 5) if dice.one_in(4) => (b.layer(LayerNorm::over(&[h, w]).eps(0.1)), at),
        (_, 6) if dice.one_in(6) => (b.layer(Layer::Softmax { axis: Some(1) }), at),
        (At::Images(c, h, w), _) => {
            let conv = conv(dice, c, None, false);
            let size = |n: usize, axis: usize| {
                let padded = n + 2 * conv.padding[axis];
                padded.checked_sub(conv.kernel()[axis]).map(|left| left / conv.stride[axis] + 1)
            };
            match (size(h, 0), size(w, 1)) {
                (Some(h), Some(w)) => (b.conv2d(conv.clone()), At::Images(conv.out_channels(), h, w)),
                _ => (b, at),
            }
        }
        (At::Features(f), _) => {
            let features = 2 + dice.below(7);
            (linear(b, dice, f, features), At::Features(features))
        }
        (At::Tokens(t, f), _) => {
            let features = 2 + dice.below(7);
            (linear(b, dice, f, features), At::Tokens(t, features))
        }
    }
}

/// A network with random arrays, running statistics included, and an input.
fn tree(dice: &mut Dice, size: usize) -> (Network, ArrayD<f32>) {
    let tokens = [At::Tokens(2, 5), At::Tokens(4, 6)];
    let mut at = dice.of(&[&[At::Images(2, 6, 5), At::Images(4, 5, 5), At::Features(6)], &tokens[..]].concat());
    let input = at.shape();
    let mut b = Network::builder(dice.below(1000) as u64);
    if !dice.one_in(8) {
        (b, at) = match at {
            At::Images(c, h, w) => (b.conv2d(Conv2d::new(c, 6, 1)), At::Images(6, h, w)),
            At::Features(f) => (b.linear(f, 8), At::Features(8)),
            At::Tokens(t, f) => (b.linear(f, 6), At::Tokens(t, 6)),
        };
    }
    b = activation(b, dice);
    for _ in 0..size {
        (b, at) = changing(b, dice, at);
    }
    if !dice.one_in(4) {
        (b, at) = (b.flatten(), at.flat());
        b = b.linear(at.shape()[1], 3);
    }
    let mut network = b.build().unwrap();
    let state: Vec<(String, ArrayD<f32>)> =
        network.state().into_iter().map(|(name, values)| (name, values.to_owned())).collect();
    for (name, mut values) in state {
        let own = name.rsplit('.').next().unwrap();
        let vector = values.ndim() == 1;
        values.mapv_inplace(|value| match own {
            "running_var" => dice.within(0.5, 1.5),
            "running_mean" => dice.within(-0.5, 0.5),
            "weight" if vector => dice.within(-1.5, 1.5),
            "bias" if vector => dice.within(-0.5, 0.5),
            _ => 1.5 * value,
        });
        network.set_parameter(&name, &values).unwrap();
    }
    (network, ArrayD::from_shape_simple_fn(IxDyn(&input), || dice.within(-1.0, 1.0)))
}

/// Of a few layers, a few channels.
fn by_hand(dice: &mut Dice, network: &Network) -> Selection {
    let mut chosen = Selection::new();
    let makes_channels = |weight: &String| !["query", "key", "value"].contains(&weight.rsplit('.').nth(1).unwrap());
    for weight in network.maskable().into_iter().filter(makes_channels) {
        if dice.one_in(3) {
            let outputs = network.parameter(&weight).unwrap().shape()[0];
            let channels: Vec<usize> = (0..outputs).filter(|_| dice.one_in(3)).collect();
            chosen = chosen.channels(weight.strip_suffix(".weight").unwrap(), channels);
        }
    }
    if dice.one_in(2) { chosen.drop_biases() } else { chosen }
}

fn automatic(dice: &mut Dice, network: &Network) -> Selection {
    selected(&channels(dice), network)
}

fn possible(dice: &mut Dice, network: &Network) -> Selection {
    selected(&channels(dice).where_possible(), network)
}

/// Nothing of a network of which nothing can go.
fn selected(channels: &Channels, network: &Network) -> Selection {
    match channels.select(network) {
        Err(Error::Conflict { what, .. }) if what.contains("no channel of any layer can go") => Selection::new(),
        Err(Error::Setting { setting: "round_to", .. }) => Selection::new(),
        chosen => chosen.unwrap(),
    }
}

fn channels(dice: &mut Dice) -> Channels {
    let amount = f64::from(dice.within(0.0, 0.95));
    let mut channels = Channels::random(amount, dice.below(100) as u64);
    if dice.one_in(2) {
        channels = channels.across_layers();
    }
    if dice.one_in(2) {
        channels = channels.drop_biases();
    }
    if dice.one_in(4) {
        channels = channels.round_to(2);
    }
    channels
}

/// What holds of every choice that can be removed.
fn holds(network: &Network, chosen: &Selection, x: &ArrayD<f32>, removed: &Network) -> TestCaseResult {
    let masked = chosen.mask(network).unwrap();
    for (layer, channels) in chosen.layers() {
        let weight = masked.parameter(&format!("{layer}.weight")).unwrap();
        prop_assert!(channels.iter().all(|c| weight.outer_iter().nth(*c).unwrap().iter().all(|w| *w == 0.0)));
    }
    for ((name, before), (_, after)) in network.state().into_iter().zip(masked.state()) {
        let zeroed = before.iter().zip(&after).all(|(before, after)| before == after || *after == 0.0);
        prop_assert!(zeroed, "{name}: masking only sets to zero");
    }
    prop_assert_eq!(network.output_shape(x.shape()).unwrap(), removed.output_shape(x.shape()).unwrap());
    let (expected, found) = (masked.forward(x).unwrap(), removed.forward(x).unwrap());
    let largest = expected.iter().fold(1e-2f32, |largest, y| largest.max(y.abs()));
    let worst = (&expected - &found).iter().fold(0.0f32, |worst, e| worst.max(e.abs()));
    prop_assert!(worst <= 3e-5 * largest, "{} of {}\n{}\n{:#?}", worst, largest, chosen, network);
    if chosen.is_empty() {
        prop_assert_eq!(removed, network);
    } else {
        // Biases may come, for what constants give.
        let weights = |network: &Network| -> usize {
            network.maskable().iter().map(|name| network.parameter(name).unwrap().len()).sum()
        };
        prop_assert!(weights(removed) < weights(network));
    }
    prop_assert_eq!(&Selection::new().remove(removed).unwrap(), removed);
    let names = |network: &Network| network.walk().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    prop_assert_eq!(names(network), names(removed));
    Ok(())
}

/// Runs a property on random trees, each with a choice; returns how often there was something to remove, and how often
/// that could not be.
fn on_trees(
    choose: impl Fn(&mut Dice, &Network) -> Selection,
    refused: impl Fn(&Network, &Error) -> bool,
) -> (usize, usize) {
    let (removals, refusals) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(Config { cases: 400, ..Config::with_source_file(file!()) });
    let result = runner.run(&(any::<u64>(), 0usize..9), |(seed, size)| {
        let mut dice = Dice::new(seed);
        let (network, x) = tree(&mut dice, size);
        let chosen = choose(&mut dice, &network);
        match chosen.remove(&network) {
            Ok(removed) => {
                removals.set(removals.get() + usize::from(!chosen.is_empty()));
                holds(&network, &chosen, &x, &removed)
            }
            Err(error) => {
                refusals.set(refusals.get() + 1);
                prop_assert!(refused(&network, &error), "{}\n{}", error, chosen);
                Ok(())
            }
        }
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    (removals.get(), refusals.get())
}

#[test]
fn masked_and_removed_networks_agree_and_what_cannot_be_removed_names_its_layer() {
    let counts = on_trees(by_hand, |network, error| match error {
        Error::Layer { name, source } => {
            let layer = name.strip_suffix(".output").unwrap_or(name);
            network.layer(layer).is_ok() && matches!(**source, Error::Conflict { .. })
        }
        _ => false,
    });
    assert!(counts.0 > 80 && counts.1 > 80, "{counts:?}");
}

#[test]
fn what_is_chosen_automatically_is_refused_only_beside_padding() {
    let counts = on_trees(automatic, |_, error| error.to_string().contains("pads with zeros"));
    assert!(counts.0 > 200 && counts.1 > 5, "{counts:?}");
}

#[test]
fn what_is_chosen_where_possible_is_never_refused() {
    let counts = on_trees(possible, |_, _| false);
    assert!(counts.0 > 200, "{counts:?}");
}

#[test]
fn taking_zeros_away_changes_nothing_and_leaves_none() {
    let mut runner = TestRunner::new(Config { cases: 200, ..Config::with_source_file(file!()) });
    let removals = Cell::new(0);
    let result = runner.run(&(any::<u64>(), 0usize..9), |(seed, size)| {
        let mut dice = Dice::new(seed);
        let (network, x) = tree(&mut dice, size);
        let network = automatic(&mut dice, &network).mask(&network).unwrap();
        let Ok(smaller) = Channels::zeros().remove(&network) else { return Ok(()) };
        let chosen = Channels::zeros().select(&network).unwrap();
        removals.set(removals.get() + usize::from(!chosen.is_empty()));
        prop_assert!(Channels::zeros().select(&smaller).unwrap().is_empty());
        let (expected, found) = (network.forward(&x).unwrap(), smaller.forward(&x).unwrap());
        let largest = expected.iter().fold(1e-2f32, |largest, y| largest.max(y.abs()));
        let worst = (&expected - &found).iter().fold(0.0f32, |worst, e| worst.max(e.abs()));
        prop_assert!(worst <= 3e-5 * largest, "{} of {}", worst, largest);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    assert!(removals.get() > 50, "{}", removals.get());
}
