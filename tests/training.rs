//! Training on the handwritten digits, held against what PyTorch reaches with the same data, split and settings.

mod common;

use std::ops::ControlFlow;

use common::digits;
use tersor::nn::{Adam, Conv2d, Data, Network, Training};

fn as_images(data: &Data, labels: impl IntoIterator<Item = usize>) -> Data {
    let images = data.inputs().clone().into_shape_with_order((data.len(), 1, 8, 8)).unwrap();
    Data::classes(images, labels).unwrap()
}

fn dense(seed: u64) -> Network {
    Network::builder(seed).linear(64, 64).relu().linear(64, 32).relu().linear(32, 10).build().unwrap()
}

fn convolutional(seed: u64) -> Network {
    let convolutions =
        Network::builder(seed).conv2d(Conv2d::new(1, 10, 3)).relu().conv2d(Conv2d::new(10, 20, 3)).relu();
    convolutions.flatten().linear(320, 50).relu().linear(50, 10).build().unwrap()
}

/// Test accuracy in per cent.
fn accuracy(mut network: Network, (train, test): &(Data, Data), epochs: usize, seed: u64) -> f64 {
    let training = Training::new(epochs).batch_size(64).seed(seed);
    training.train(&mut network, train, &mut Adam::new(1e-3), &mut |_| ControlFlow::Continue(())).unwrap();
    100.0 * network.accuracy(test).unwrap()
}

fn images((train, test): &(Data, Data)) -> (Data, Data) {
    let labels = |data: &Data| match data.targets() {
        tersor::nn::Targets::Classes(labels) => labels.clone(),
        other => panic!("labels, not {other:?}"),
    };
    (as_images(train, labels(train)), as_images(test, labels(test)))
}

#[test]
fn a_dense_network_reads_digits() {
    let accuracy = accuracy(dense(1), &digits(), 60, 1);
    assert!(accuracy >= 95.0, "{accuracy} %; PyTorch reaches 96.89 with a deviation of 0.46 between seeds");
}

#[test]
fn a_convolutional_network_reads_digits() {
    let accuracy = accuracy(convolutional(1), &images(&digits()), 10, 1);
    assert!(accuracy >= 90.0, "{accuracy} % after 10 epochs; PyTorch reaches 96.50 after 30");
}
