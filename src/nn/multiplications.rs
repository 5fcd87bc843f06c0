//! How much arithmetic a forward pass is.

use super::{Layer, Network};
use crate::{Result, tensor::Mask};

/// The multiplications of one layer's weight in a forward pass.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Multiplications {
    /// The weight's full name.
    pub name: String,
    /// With every weight.
    pub dense: usize,
    /// With those that the mask keeps, or that are not zero if there is none.
    pub kept: usize,
}

impl Network {
    /// The multiplications of every weight that can be masked, for a batch of this shape; normalizations, activations
    /// and what attention does between its four products are not counted.
    ///
    /// ```
    /// use tersor::nn::{Conv2d, Network};
    ///
    /// let network = Network::builder(1).conv2d(Conv2d::new(1, 10, 3)).relu().flatten().linear(360, 10).build()?;
    /// let counts = network.multiplications(&[1, 1, 8, 8])?;
    /// assert_eq!(counts[0].dense, 6 * 6 * 10 * 9);
    /// assert_eq!(counts[1].kept, 3600);
    /// # Ok::<(), tersor::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Layer`](crate::Error::Layer) for a shape that a layer does not take.
    pub fn multiplications(&self, input_shape: &[usize]) -> Result<Vec<Multiplications>> {
        self.output_shape(input_shape)?;
        let mut counts = Vec::new();
        self.count(input_shape.to_vec(), "", &mut counts)?;
        Ok(counts)
    }

    fn count(&self, mut shape: Vec<usize>, prefix: &str, counts: &mut Vec<Multiplications>) -> Result<()> {
        for (name, layer) in &self.layers {
            let name = format!("{prefix}{name}");
            let output = layer.output_shape(&shape)?;
            match layer {
                Layer::Residual(residual) => residual.branch().count(shape, &format!("{name}."), counts)?,
                _ => counts.extend(layer.mask_slots().into_iter().filter_map(|(own, mask)| {
                    let (_, _, weight) = layer.arrays().into_iter().find(|(array, ..)| *array == own)?;
                    // Every weight meets each position of the output once.
                    let channels = if let Layer::Conv2d(_) = layer { output[1] } else { output[output.len() - 1] };
                    let positions = output.iter().product::<usize>() / channels;
                    let nonzero = || weight.iter().filter(|w| **w != 0.0).count();
                    let kept = mask.as_ref().map_or_else(nonzero, Mask::kept);
                    let name = format!("{name}.{own}");
                    Some(Multiplications { name, dense: weight.len() * positions, kept: kept * positions })
                })),
            }
            shape = output;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Attention, Conv2d};

    #[test]
    fn the_tutorials_network_has_the_multiplications_counted_by_hand() {
        let mut network = Network::builder(1)
            .conv2d(Conv2d::new(1, 10, 3))
            .relu()
            .conv2d(Conv2d::new(10, 20, 3))
            .relu()
            .flatten()
            .linear(320, 50)
            .relu()
            .linear(50, 10)
            .build()
            .unwrap();
        let dense = |network: &Network| -> Vec<usize> {
            network.multiplications(&[1, 1, 8, 8]).unwrap().iter().map(|count| count.dense).collect()
        };
        assert_eq!(dense(&network), [36 * 90, 16 * 1800, 16000, 500]);
        network.set_mask("2.weight", Some(Mask::from_fn(&[20, 10, 3, 3], |i| i < 7).unwrap())).unwrap();
        let counts = network.multiplications(&[2, 1, 8, 8]).unwrap();
        assert_eq!((counts[1].name.as_str(), counts[1].dense, counts[1].kept), ("2.weight", 2 * 16 * 1800, 2 * 16 * 7));
        assert!(network.multiplications(&[1, 1, 8]).is_err());
    }

    #[test]
    fn groups_branches_and_sequences_count() {
        let network =
            Network::builder(1).residual(|b| b.conv2d(Conv2d::new(4, 4, 3).groups(4).padding(1))).build().unwrap();
        let counts = network.multiplications(&[1, 4, 5, 5]).unwrap();
        assert_eq!((counts[0].name.as_str(), counts[0].dense), ("0.0.weight", 25 * 36));
        let network = Network::builder(1).linear(3, 2).build().unwrap();
        assert_eq!(network.multiplications(&[2, 7, 3]).unwrap()[0].dense, 2 * 7 * 6);
        // Heads narrower than the features: each of the four weights meets each position once.
        let attention = Attention::new(6, 1).head_dim(2);
        let counts = Network::builder(1).layer(attention).build().unwrap().multiplications(&[3, 5, 6]).unwrap();
        assert_eq!(counts.iter().map(|count| count.dense).collect::<Vec<_>>(), [3 * 5 * 12; 4]);
    }
}
