//! Masks of a network's weights: what was pruned stays zero, in training too.

use super::{Network, layer::Layer, shape::expect_shape};
use crate::{Error, Result, tensor::Mask};

/// Pruned weights. A layer whose weight has a mask keeps zero what the mask removes: every step of an optimizer
/// ([`Network::update`], so every training) masks the gradient first, the optimizer's state and the weight after.
impl Network {
    /// The masks that there are, by the full name of the weight, in order.
    ///
    /// ```
    /// use tersor::{Pruner, nn::Network};
    ///
    /// let mut network = Network::builder(7).linear(8, 4).relu().linear(4, 2).build()?;
    /// let pruned = Pruner::magnitude(0.75).apply(&network.parameter("0.weight")?)?;
    /// network.set_mask("0.weight", Some(pruned.mask().clone()))?;
    /// assert_eq!(network.masks()[0].0, "0.weight");
    /// assert_eq!(network.parameter("0.weight")?, pruned.values());
    /// # Ok::<(), tersor::Error>(())
    /// ```
    pub fn masks(&self) -> Vec<(String, &Mask)> {
        let mut found = Vec::new();
        for (name, layer) in self.walk() {
            found.extend(
                layer
                    .mask_slots()
                    .into_iter()
                    .filter_map(|(own, mask)| Some((format!("{name}.{own}"), mask.as_ref()?))),
            );
        }
        found
    }

    /// The mask of the weight of this full name, if it has one.
    ///
    /// # Errors
    /// [`Error::UnknownName`] unless it is a weight that can be masked; the error lists those.
    pub fn mask(&self, name: &str) -> Result<Option<&Mask>> {
        let mut known = Vec::new();
        for (layer_name, layer) in self.walk() {
            for (own, mask) in layer.mask_slots() {
                let full = format!("{layer_name}.{own}");
                if full == name {
                    return Ok(mask.as_ref());
                }
                known.push(full);
            }
        }
        Err(Error::UnknownName { name: name.to_owned(), known })
    }

    /// Names of the weights that can be masked (and so pruned), in order.
    pub fn maskable(&self) -> Vec<String> {
        let names = |(name, layer): (String, &Layer)| -> Vec<String> {
            layer.mask_slots().into_iter().map(|(own, _)| format!("{name}.{own}")).collect()
        };
        self.walk().into_iter().flat_map(names).collect()
    }

    /// Sets or takes away the mask of the weight of this full name; what it removes becomes zero.
    ///
    /// # Errors
    /// [`Error::UnknownName`] unless it is a weight that can be masked, [`Error::Shape`] for a mask of another shape.
    /// The network is then unchanged.
    pub fn set_mask(&mut self, name: &str, mask: Option<Mask>) -> Result<()> {
        self.mask(name)?;
        if let Some(mask) = &mask {
            expect_shape("the mask", self.parameter(name)?.shape(), mask.shape())?;
        }
        self.put_mask(name, &mask);
        self.apply_masks();
        Ok(())
    }

    fn put_mask(&mut self, name: &str, mask: &Option<Mask>) {
        for (own, layer) in &mut self.layers {
            let Some(rest) = name.strip_prefix(&*own).and_then(|rest| rest.strip_prefix('.')) else { continue };
            match layer {
                Layer::Residual(residual) => residual.branch_mut().put_mask(rest, mask),
                layer => {
                    for (slot, place) in layer.mask_slots_mut() {
                        if slot == rest {
                            place.clone_from(mask);
                        }
                    }
                }
            }
        }
    }

    /// Sets to zero what the masks remove. [`set_parameter`](Network::set_parameter), [`set_mask`](Network::set_mask) and
    /// every step of an optimizer do so; who writes through [`parameters_mut`](Network::parameters_mut) or
    /// [`layers_mut`](Network::layers_mut) calls it afterwards.
    ///
    /// ```
    /// use tersor::{Mask, nn::Network};
    ///
    /// let mut network = Network::builder(7).linear(3, 2).build()?;
    /// network.set_mask("0.weight", Some(Mask::from_fn(&[2, 3], |i| i < 2)?))?;
    /// network.parameters_mut().into_iter().for_each(|(_, mut values)| values.fill(1.0));
    /// network.apply_masks();
    /// assert_eq!(network.parameter("0.weight")?.sum(), 2.0);
    /// # Ok::<(), tersor::Error>(())
    /// ```
    pub fn apply_masks(&mut self) {
        let masks: Vec<(String, Mask)> = self.masks().into_iter().map(|(name, mask)| (name, mask.clone())).collect();
        for (name, mut values) in self.parameters_mut() {
            if let Some((_, mask)) = masks.iter().find(|(masked, _)| *masked == name) {
                mask.apply_to_slice(values.as_slice_mut().expect("row-major"));
            }
        }
    }
}

impl Layer {
    /// The layer's own weights that can be masked, by name, with their masks; those of a residual branch belong to its
    /// layers.
    pub(super) fn mask_slots(&self) -> Vec<(&'static str, &Option<Mask>)> {
        match self {
            Layer::Linear(linear) => vec![("weight", &linear.mask)],
            Layer::Conv2d(conv) => vec![("weight", &conv.mask)],
            Layer::Attention(attention) => attention.mask_slots(),
            _ => vec![],
        }
    }

    /// [`Layer::mask_slots`], to be changed.
    pub(super) fn mask_slots_mut(&mut self) -> Vec<(&'static str, &mut Option<Mask>)> {
        match self {
            Layer::Linear(linear) => vec![("weight", &mut linear.mask)],
            Layer::Conv2d(conv) => vec![("weight", &mut conv.mask)],
            Layer::Attention(attention) => attention.mask_slots_mut(),
            _ => vec![],
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use crate::{
        nn::{Adam, Data, Network, Optimizer, Sgd, Training},
        tensor::Mask,
    };

    fn network() -> Network {
        Network::builder(5).residual(|branch| branch.linear(6, 6).tanh()).named("block").linear(6, 3).build().unwrap()
    }

    #[test]
    fn what_is_masked_stays_zero_under_every_optimizer() {
        let data = Data::classes(
            Array2::from_shape_fn((30, 6), |(i, j)| ((i * 7 + j * 3) % 11) as f32 / 11.0),
            (0..30).map(|i| i % 3),
        )
        .unwrap();
        let optimizers: [Box<dyn Optimizer>; 3] = [
            Box::new(Adam::new(1e-2)),
            Box::new(Sgd::new(0.1).momentum(0.9).nesterov()),
            Box::new(Adam::new(1e-2).weight_decay(0.1).amsgrad()),
        ];
        for mut optimizer in optimizers {
            let mut network = network();
            // The optimizer has moments of every weight before some are removed.
            let training = Training::new(2).batch_size(8);
            let silent = &mut |_: &crate::nn::Progress| std::ops::ControlFlow::Continue(());
            training.train(&mut network, &data, &mut *optimizer, silent).unwrap();
            let mask = Mask::from_fn(&[6, 6], |i| i % 3 == 0).unwrap();
            network.set_mask("block.0.weight", Some(mask.clone())).unwrap();
            let before = network.clone();
            training.train(&mut network, &data, &mut *optimizer, silent).unwrap();
            let weight = network.parameter("block.0.weight").unwrap();
            assert_eq!(Mask::of_nonzeros(&weight), mask);
            assert!(
                mask.positions().all(|i| weight.as_slice().unwrap()[i]
                    != before.parameter("block.0.weight").unwrap().as_slice().unwrap()[i])
            );
        }
    }

    #[test]
    fn masks_are_named_as_their_weights() {
        let mut network = network();
        assert_eq!(network.maskable(), ["block.0.weight", "1.weight"]);
        assert!(network.masks().is_empty() && network.mask("1.weight").unwrap().is_none());
        assert!(network.mask("1.bias").unwrap_err().to_string().contains("block.0.weight"));
        assert!(network.set_mask("1.weight", Some(Mask::ones(&[6, 3]).unwrap())).is_err());
        network.set_mask("1.weight", Some(Mask::from_fn(&[3, 6], |i| i != 4).unwrap())).unwrap();
        assert_eq!(network.parameter("1.weight").unwrap()[[0, 4]], 0.0);
        network.set_parameter("1.weight", &Array2::ones((3, 6))).unwrap();
        assert_eq!(network.parameter("1.weight").unwrap().sum(), 17.0, "new values are masked too");
        network.set_mask("1.weight", None).unwrap();
        assert!(network.masks().is_empty());
    }
}
