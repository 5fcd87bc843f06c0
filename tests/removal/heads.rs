//! Attention heads: removed and masked networks agree, and bad choices are named.

use ndarray::{Array3, ArrayD};
use proptest::prelude::*;
use tersor::{
    Error, Mask, Pruner, Recipe,
    nn::{Attention, CrossEntropy, Data, Network},
    prune::Taylor,
    removal::{HeadSelection, Heads},
    tensor::Statistic,
};

/// Blocks of a transformer, with biases that are not zero.
fn network(seed: u64, heads: usize, head_dim: usize, causal: bool, biased: bool) -> Network {
    let attention = || {
        let attention = Attention::new(6, heads).head_dim(head_dim);
        let attention = if causal { attention.causal() } else { attention };
        if biased { attention } else { attention.without_bias() }
    };
    let block = |b: tersor::nn::Builder| {
        b.residual(|b| b.layer_norm(6).layer(attention()).named("attn"))
            .residual(|b| b.layer_norm(6).linear(6, 9).gelu().linear(9, 6))
    };
    let mut network = block(block(Network::builder(seed))).linear(6, 3).build().unwrap();
    for (name, mut values) in network.parameters_mut() {
        let shift = name.len() as f32;
        values.iter_mut().enumerate().for_each(|(i, x)| *x += 0.3 * (i as f32 * 1.7 + shift).sin());
    }
    network
}

fn inputs(batch: usize, sequence: usize) -> Array3<f32> {
    Array3::from_shape_fn((batch, sequence, 6), |(n, i, j)| ((n * 31 + i * 7 + j * 3) as f32).sin())
}

fn distance(a: &ArrayD<f32>, b: &ArrayD<f32>) -> f32 {
    (a - b).iter().fold(0.0, |most: f32, e| most.max(e.abs()))
}

proptest! {
    #[test]
    fn removed_and_masked_networks_agree(
        seed in any::<u64>(), heads in 2usize..5, head_dim in 1usize..4, causal in any::<bool>(), biased in any::<bool>(),
        gone in prop::collection::vec(prop::collection::btree_set(0usize..5, 0..4), 2), sequence in 1usize..5,
    ) {
        let whole = network(seed, heads, head_dim, causal, biased);
        let chosen = ["0.attn", "2.attn"].into_iter().zip(gone).fold(HeadSelection::new(), |chosen, (layer, gone)| {
            chosen.heads(layer, gone.into_iter().filter(|head| *head + 1 < heads))
        });
        let (masked, smaller) = (chosen.mask(&whole).unwrap(), chosen.remove(&whole).unwrap());
        let x = inputs(2, sequence);
        let expected = masked.forward(&x).unwrap();
        prop_assert!(distance(&expected, &smaller.forward(&x).unwrap()) < 1e-4);
        let left: usize = chosen.layers().map(|(_, gone)| heads - gone.len()).sum();
        let rows = |name: &str| smaller.parameter(name).unwrap().shape()[0];
        prop_assert_eq!(rows("0.attn.query.weight") + rows("2.attn.query.weight"), left * head_dim);
        prop_assert_eq!(HeadSelection::new().heads("0.attn", []).remove(&smaller).unwrap(), smaller);
    }
}

#[test]
fn a_silenced_heads_values_count_once() {
    // By hand: with query and key zero, every position is looked at alike; without its values a head gives their bias.
    let whole = network(1, 2, 2, false, true);
    let mut silent = whole.clone();
    let keep = |i: usize| i / 6 >= 2;
    silent.set_mask("0.attn.value.weight", Some(Mask::from_fn(&[4, 6], keep).unwrap())).unwrap();
    let smaller = HeadSelection::new().heads("0.attn", [0]).remove(&whole).unwrap();
    let x = inputs(3, 4);
    assert!(distance(&silent.forward(&x).unwrap(), &smaller.forward(&x).unwrap()) < 1e-5);
}

#[test]
fn the_least_heads_go_and_names_choose_layers() {
    let mut whole = network(1, 3, 2, false, true);
    // The second head of the first layer is tiny.
    for part in ["query", "key", "value", "output"] {
        let name = format!("0.attn.{part}.weight");
        let mut weight = whole.parameter(&name).unwrap().to_owned();
        for index in 2..4 {
            weight.index_axis_mut(ndarray::Axis(usize::from(part == "output")), index).mapv_inplace(|w| w * 1e-3);
        }
        whole.set_parameter(&name, &weight).unwrap();
    }
    let chosen = Heads::l2(1).only("0.*").select(&whole).unwrap();
    assert_eq!(chosen.to_string(), "`0.attn`: 1");
    let across = Heads::l1(1).across_layers().select(&whole).unwrap();
    assert_eq!(across.layers().map(|(_, gone)| gone).collect::<Vec<_>>(), [vec![1], vec![]]);
    let kept = Heads::l2(0.4).keep("0.attn").select(&whole).unwrap();
    assert_eq!(
        kept.layers().map(|(name, gone)| (name.to_owned(), gone.len())).collect::<Vec<_>>(),
        [("2.attn".into(), 1)]
    );
    // By the gradient of a loss.
    let data = Data::classes(inputs(4, 1), [0, 1, 2, 0]).unwrap();
    let flat = Network::builder(2).attention(6, 3).named("attn").flatten().linear(6, 3).build().unwrap();
    let gradient = flat.gradient(&data, &CrossEntropy::new()).unwrap();
    let smaller = Heads::by(Taylor, 2).with(Statistic::Gradient, &gradient).remove(&flat).unwrap();
    assert_eq!(smaller.parameter("attn.query.weight").unwrap().shape(), [2, 6]);
    assert!(matches!(Heads::by(Taylor, 2).remove(&flat), Err(Error::Layer { .. })), "no gradients");
}

#[test]
fn silenced_heads_go_first_and_silencing_them_again_changes_nothing() {
    let whole = network(1, 3, 2, false, true);
    let chosen = HeadSelection::new().heads("0.attn", [2]).heads("2.attn", [0]);
    let masked = chosen.mask(&whole).unwrap();
    assert_eq!(chosen.mask(&masked).unwrap(), masked);
    assert_eq!(Heads::l1(1).select(&masked).unwrap(), chosen);
    // Removed from the silenced network they take nothing along, and no more than from the whole one.
    let (smaller, again) = (chosen.remove(&masked).unwrap(), chosen.remove(&whole).unwrap());
    let x = inputs(2, 4);
    assert!(distance(&masked.forward(&x).unwrap(), &smaller.forward(&x).unwrap()) < 1e-5);
    let arrays = |network: &Network| -> Vec<(String, ArrayD<f32>)> {
        network.state().into_iter().map(|(name, values)| (name, values.to_owned())).collect()
    };
    assert_eq!(arrays(&smaller), arrays(&again));
}

#[test]
fn earlier_masks_are_cut() {
    let mut whole = network(1, 3, 2, false, true);
    Recipe::new().prune("*", Pruner::magnitude(0.5)).apply(&mut whole).unwrap();
    let chosen = HeadSelection::new().heads("2.attn", [1]);
    let smaller = chosen.remove(&whole).unwrap();
    assert_eq!(smaller.masks().len(), whole.masks().len());
    let x = inputs(2, 3);
    assert!(distance(&chosen.mask(&whole).unwrap().forward(&x).unwrap(), &smaller.forward(&x).unwrap()) < 1e-4);
    let weight = smaller.parameter("2.attn.key.weight").unwrap();
    let mask = smaller.mask("2.attn.key.weight").unwrap().unwrap();
    assert!(mask.len() == 24 && mask.iter().zip(weight).all(|(kept, w)| kept || *w == 0.0));
}

#[test]
fn bad_choices_are_named() {
    let whole = network(1, 2, 2, false, true);
    let refuses = |result: Result<Network, Error>, text: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(text), "{error} should say {text}");
    };
    refuses(Heads::l2(1.0).remove(&whole), "1");
    refuses(Heads::l2(2).remove(&whole), "2");
    refuses(Heads::l2(f64::NAN).remove(&whole), "NaN");
    refuses(Heads::l2(0.5).only("x").remove(&whole), "`x`");
    refuses(HeadSelection::new().heads("0.attn", [2]).remove(&whole), "0.attn");
    refuses(HeadSelection::new().heads("0.attn", [0, 1]).remove(&whole), "all of its 2 heads");
    refuses(HeadSelection::new().heads("4", [0]).remove(&whole), "2.attn");
    let mut spoiled = Network::builder(1).attention(4, 2).named("attn").build().unwrap();
    *spoiled.layers_mut().next().unwrap().1 = Attention::new(4, usize::MAX).into();
    refuses(Heads::l2(0.5).remove(&spoiled), "attn");
    refuses(HeadSelection::new().heads("attn", [0]).mask(&spoiled), "attn");
    refuses(HeadSelection::new().heads("attn", []).remove(&spoiled), "attn");
    let plain = Network::builder(1).linear(2, 2).build().unwrap();
    refuses(Heads::l2(0.5).remove(&plain), "no attention");
}
