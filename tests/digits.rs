//! The main job on the shipped digits: train, compress, save, load, run.
#![cfg(feature = "io")]

mod common;

use std::ops::ControlFlow;

use ndarray::Axis;
use tersor::{
    Quantizer, Recipe,
    compressed::Compressed,
    nn::{Adam, Network, Training},
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
