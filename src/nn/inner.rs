//! Gradients that enter a backward pass within the network.

use ndarray::ArrayD;

/// Gradients of a loss for outputs of layers, by full name, as the layers of one network of the tree see them.
#[derive(Clone, Debug, Default)]
pub(super) struct Inner<'a> {
    gradients: &'a [(String, ArrayD<f32>)],
    /// What the full names of this network's layers start with.
    prefix: String,
}

impl<'a> Inner<'a> {
    /// Of the whole network.
    pub(super) fn new(gradients: &'a [(String, ArrayD<f32>)]) -> Inner<'a> {
        Inner { gradients, prefix: String::new() }
    }

    /// What is within this layer.
    pub(super) fn within(&self, layer: &str) -> Inner<'a> {
        let prefix = if self.gradients.is_empty() { String::new() } else { format!("{}{layer}.", self.prefix) };
        Inner { gradients: self.gradients, prefix }
    }

    /// Adds what there is for the output of this layer.
    pub(super) fn add_to(&self, layer: &str, gradient: &mut ArrayD<f32>) {
        for (name, inner) in self.gradients {
            if name.strip_prefix(&self.prefix) == Some(layer) {
                *gradient += inner;
            }
        }
    }
}
