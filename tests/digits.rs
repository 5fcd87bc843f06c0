//! The main job on the shipped digits: train, compress, save, load, run.
#![cfg(feature = "io")]

mod common;

use std::ops::ControlFlow;

use ndarray::Axis;
use tersor::{
    Quantizer, Recipe,
    compressed::Compressed,
    nn::{Adam, Callback, Network, Training},
};

#[test]
fn a_network_keeps_its_accuracy_through_compression_and_files() {
    let (train, test) = common::digits();
    let mut network = Network::builder(1).linear(64, 64).relu().linear(64, 32).relu().linear(32, 10).build().unwrap();
    let training = Training::new(60).batch_size(64).seed(1);
    training.train(&mut network, &train, &mut Adam::new(1e-3), &mut |_| ControlFlow::Continue(())).unwrap();
    let accuracy = network.accuracy(&test).unwrap();
    assert!(accuracy > 0.95, "{accuracy}");

    let int8 = Quantizer::uniform(8).symmetric().per_channel(Axis(0));
    // PyTorch's int8 networks stay within 0.5 points; one image of 360 is 0.28.
    for (what, recipe, most_lost) in [
        ("int8 dynamic", Recipe::new().quantize("*", int8.clone()), 0.005),
        ("int8 static", Recipe::new().quantize("*", int8).static_activations(Quantizer::uniform(8)), 0.006),
        ("4 bits in groups", Recipe::new().quantize("*", Quantizer::uniform(4).per_group(32)), 0.015),
        ("4 bits, k-means", Recipe::new().quantize("*", Quantizer::kmeans(4)), 0.015),
        ("4 bits, adaptive", Recipe::new().quantize("*", Quantizer::adaptive(4)), 0.015),
    ] {
        let compressed = recipe.apply_with(&network, train.inputs()).unwrap();
        let packed = compressed.pack().unwrap();
        let found = packed.accuracy(&test).unwrap();
        assert!(found >= accuracy - most_lost, "{what}: {found}, in floats {accuracy}");

        let file = std::env::temp_dir().join(format!("tersor-digits-{}.safetensors", std::process::id()));
        compressed.save(&file).unwrap();
        let loaded = Compressed::load(&file);
        std::fs::remove_file(&file).unwrap();
        let again = loaded.unwrap().pack().unwrap().forward(test.inputs()).unwrap();
        assert_eq!(again, packed.forward(test.inputs()).unwrap(), "{what}");
    }
}

#[test]
fn few_bits_cost_far_less_when_the_network_is_trained_with_them() {
    let (seen, held_out) = common::digits();
    for (bits, least) in [(2, 0.2), (3, 0.01)] {
        let recipe = Recipe::new().quantize("*", Quantizer::uniform(bits).symmetric().per_channel(Axis(0)));
        let gains = (1..=3).map(|seed| {
            let mut network = Network::builder(seed).linear(64, 32).relu().linear(32, 10).build().unwrap();
            let go_on = &mut |_: &_| ControlFlow::Continue(());
            Training::new(20).train(&mut network, &seen, &mut Adam::new(1e-2), go_on).unwrap();
            // The same fine-tuning, with rounded weights and without; and none.
            let fine_tuned = |callback: &mut dyn Callback| {
                let mut network = network.clone();
                let both = &mut [callback][..];
                let go_on = &mut |_: &_| ControlFlow::Continue(());
                Training::new(10).train_with(&mut network, &seen, &mut Adam::new(1e-3), both, go_on).unwrap();
                network
            };
            let (aware, longer) = (fine_tuned(&mut recipe.clone().while_training()), fine_tuned(&mut ()));
            let [plain, longer, aware] = [&network, &longer, &aware]
                .map(|network| recipe.apply(network).unwrap().to_network().unwrap().accuracy(&held_out).unwrap());
            aware - plain.max(longer)
        });
        let gain = gains.sum::<f64>() / 3.0;
        assert!(gain > least, "{bits} bits gain {gain}");
    }
}
