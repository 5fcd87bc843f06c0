//! Channels removed from networks: on random trees, and rule by rule with numbers worked out by hand.

mod attention;
mod bad_input;
mod choice;
mod heads;
mod rules;
mod trees;

use ndarray::ArrayD;
use tersor::nn::Network;

/// The largest difference between two arrays, relative to the largest of the first.
fn relative_error(expected: &ArrayD<f32>, found: &ArrayD<f32>) -> f32 {
    let largest = |values: &ArrayD<f32>| values.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    largest(&(expected - found)) / largest(expected)
}

/// The shape of an array of the network.
fn shape<'a>(network: &'a Network, name: &str) -> &'a [usize] {
    let found = network.state().into_iter().find(|(full, _)| full == name);
    found.unwrap_or_else(|| panic!("no {name}")).1.shape().to_vec().leak()
}
