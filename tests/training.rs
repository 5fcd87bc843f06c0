//! Training on the handwritten digits, held against what PyTorch reaches with the same data, split and settings.

use std::{fs, ops::ControlFlow, path::Path, time::Instant};

use ndarray::Array2;
use tersor::nn::{Adam, Conv2d, Data, Network, Training};

/// (training, test): test is every fifth image; pixels 0 to 16 become 0 to 1.
fn digits() -> (Data, Data) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let pixels = fs::read(folder.join("digits_images_u8_1797x64.bin")).unwrap();
    let labels = fs::read(folder.join("digits_labels_u8_1797.bin")).unwrap();
    let images =
        Array2::from_shape_vec((1797, 64), pixels.iter().map(|pixel| f32::from(*pixel) / 16.0).collect()).unwrap();
    let all = Data::classes(images, labels.into_iter().map(usize::from)).unwrap();
    let (test, train): (Vec<usize>, Vec<usize>) = (0..1797).partition(|i| i % 5 == 0);
    (all.select(&train).unwrap(), all.select(&test).unwrap())
}

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

#[test]
#[ignore = "ten trainings: run it with --release -- --ignored --nocapture"]
fn five_seeds_reach_pytorchs_accuracy() {
    let flat = digits();
    let square = images(&flat);
    type Case<'a> = (&'a str, fn(u64) -> Network, &'a (Data, Data), usize, f64);
    let cases: [Case; 2] = [
        ("dense, 60 epochs", dense, &flat, 60, 96.89),
        ("convolutional, 30 epochs", convolutional, &square, 30, 96.50),
    ];
    for (what, build, data, epochs, torch) in cases {
        let start = Instant::now();
        let found: Vec<f64> = (1..=5).map(|seed| accuracy(build(seed), data, epochs, seed)).collect();
        let seconds = start.elapsed().as_secs_f64() / 5.0;
        let mean = found.iter().sum::<f64>() / 5.0;
        let deviation = (found.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 4.0).sqrt();
        println!("{what}: {mean:.2} +- {deviation:.2} ({found:.2?}), PyTorch {torch}; {seconds:.2} s a training");
        // Two samples of five, each with a deviation below 0.9: three standard errors of their difference.
        assert!((mean - torch).abs() < 1.7);
    }
}
