//! What scores read: gathered once for all weights, when the first asks.

use std::collections::BTreeMap;

use ndarray::{ArrayD, ArrayViewD};

use crate::{
    error::{Error, Result},
    nn::{Data, Loss, Network},
    tensor::{Mask, Observed, PrunedTensor, Statistic, Weights},
};

/// Weights and masks, and the statistics gathered of the network that they are of.
pub(super) struct Observations<'a> {
    /// None for weights of which only the numbers are known.
    network: Option<&'a Network>,
    data: Option<&'a Data>,
    loss: &'a dyn Loss,
    input_shape: Option<&'a [usize]>,
    weights: BTreeMap<String, ArrayViewD<'a, f32>>,
    masks: BTreeMap<String, &'a Mask>,
    statistics: BTreeMap<Statistic, BTreeMap<String, ArrayD<f32>>>,
}

impl<'a> Observations<'a> {
    pub(super) fn new(
        network: &'a Network,
        data: Option<&'a Data>,
        loss: &'a dyn Loss,
        input_shape: Option<&'a [usize]>,
    ) -> Observations<'a> {
        let (weights, masks) = (network.parameters().into_iter().collect(), network.masks().into_iter().collect());
        let network = Some(network);
        Observations { network, data, loss, input_shape, weights, masks, statistics: BTreeMap::new() }
    }

    /// Of tensors without a network.
    pub(super) fn of_tensors(tensors: &'a BTreeMap<String, PrunedTensor>, loss: &'a dyn Loss) -> Observations<'a> {
        let weights = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.values())).collect();
        let masks = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.mask())).collect();
        let statistics = BTreeMap::new();
        Observations { network: None, data: None, loss, input_shape: None, weights, masks, statistics }
    }

    /// Gathers what a score needs. A pruner that does not tell (`None`) gets the gradients if there is data.
    pub(super) fn gather(&mut self, needs: Option<Option<Statistic>>) -> Result<()> {
        let which = match (needs, self.data) {
            (None, Some(_)) => Statistic::Gradient,
            (Some(Some(which)), _) => which,
            _ => return Ok(()),
        };
        if self.statistics.contains_key(&which) {
            return Ok(());
        }
        let Some(network) = self.network else {
            return Err(Error::Conflict {
                what: format!("this score reads {}, which no checkpoint tells", which.name()),
                remedy: "prune by the numbers alone, as magnitude, lamp and fpgm do, or prune a network",
            });
        };
        let gathered = match (which, self.data) {
            (Statistic::Gradient, Some(data)) => network.gradient(data, self.loss)?,
            (Statistic::HessianGradient, Some(data)) => {
                // In the space of the weights that are left.
                let mut gradient = network.gradient(data, self.loss)?;
                for (name, mask) in network.masks() {
                    let own = gradient.iter_mut().find(|(parameter, _)| *parameter == name);
                    own.map_or(Ok(()), |(_, gradient)| mask.apply(gradient))?;
                }
                network.hessian_vector(data, self.loss, &gradient)?
            }
            (Statistic::SynapticFlow, data) => match self.input_shape.or(data.map(|data| data.inputs().shape())) {
                Some(shape) => network.synaptic_flow(shape)?,
                None => {
                    return Err(Error::Conflict {
                        what: "synaptic flow needs the shape of the inputs".into(),
                        remedy: "set input_shape, or give data with apply_with",
                    });
                }
            },
            (Statistic::Movement, _) => {
                return Err(Error::Conflict {
                    what: "Pruner::movement reads what only a training tells".into(),
                    remedy: "train with recipe::Movement",
                });
            }
            // Without data the score itself says what it needs.
            _ => return Ok(()),
        };
        self.statistics.insert(which, gathered.into_iter().collect());
        Ok(())
    }

    /// The weights of this name.
    pub(super) fn values(&self, name: &str) -> Result<&ArrayViewD<'a, f32>> {
        let unknown = || Error::UnknownName { name: name.to_owned(), known: self.weights.keys().cloned().collect() };
        self.weights.get(name).ok_or_else(unknown)
    }

    /// The weights of this name with their mask and all that was gathered of them.
    pub(super) fn of(&self, name: &str) -> Result<Observed<'_>> {
        let weights: &dyn Weights = self.values(name)?;
        let observed = match self.masks.get(name) {
            Some(mask) => Observed::new(weights).masked(mask),
            None => Observed::new(weights),
        };
        let gathered = self.statistics.iter().filter_map(|(which, arrays)| Some((*which, arrays.get(name)?)));
        Ok(gathered.fold(observed, |observed, (which, array)| observed.with(which, array)))
    }
}
