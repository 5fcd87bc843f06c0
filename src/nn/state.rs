//! A network's arrays by name.

use std::collections::HashMap;

use ndarray::{ArrayBase, ArrayD, ArrayViewD, ArrayViewMutD, Data, Dimension};

use super::{
    Network, Optimizer, Update,
    layer::{Layer, Role},
    shape::expect_shape,
};
use crate::{
    Error, Result,
    tensor::{Mask, expect_finite},
};

impl Network {
    /// Everything that gradients train, by full name, in order.
    pub fn parameters(&self) -> Vec<(String, ArrayViewD<'_, f32>)> {
        self.arrays().into_iter().filter(|(_, role, _)| *role == Role::Parameter).map(|(n, _, a)| (n, a)).collect()
    }

    /// [`Network::parameters`], to be changed. Nothing is masked here: what is written where a [mask](Network::masks)
    /// removes counts in a forward pass until [`apply_masks`](Network::apply_masks) or the next step of an optimizer, and
    /// such a network cannot be compressed or saved.
    pub fn parameters_mut(&mut self) -> Vec<(String, ArrayViewMutD<'_, f32>)> {
        self.arrays_mut().into_iter().filter(|(_, role, _)| *role == Role::Parameter).map(|(n, _, a)| (n, a)).collect()
    }

    /// Numbers that gradients train.
    pub fn parameter_count(&self) -> usize {
        self.parameters().iter().map(|(_, values)| values.len()).sum()
    }

    /// Parameters and running statistics by full name, in order: what a file must hold.
    pub fn state(&self) -> Vec<(String, ArrayViewD<'_, f32>)> {
        self.arrays().into_iter().map(|(name, _, array)| (name, array)).collect()
    }

    /// The parameter or running statistic of this full name.
    ///
    /// # Errors
    /// [`Error::UnknownName`], which lists the names.
    pub fn parameter(&self, name: &str) -> Result<ArrayViewD<'_, f32>> {
        let found = self.state().into_iter().find(|(full, _)| full == name);
        found.map(|(_, array)| array).ok_or_else(|| self.unknown(name))
    }

    /// Replaces the parameter or running statistic of this full name by values of the same shape; what a mask of it
    /// removes stays zero.
    ///
    /// # Errors
    /// [`Error::UnknownName`], [`Error::Shape`], [`Error::NotFinite`]; the network is then unchanged.
    pub fn set_parameter<S, D>(&mut self, name: &str, values: &ArrayBase<S, D>) -> Result<()>
    where
        S: Data<Elem = f32>,
        D: Dimension,
    {
        let expected = self.parameter(name)?.shape().to_vec();
        expect_shape("the new parameter", &expected, values.shape())?;
        expect_finite("the new parameter", values)?;
        for (full, _, mut array) in self.arrays_mut() {
            if full == name {
                array.assign(&values.view().into_dyn());
            }
        }
        self.apply_masks();
        Ok(())
    }

    /// One step of an optimizer. Where a weight has a mask, gradient and result are zero where it removes.
    ///
    /// # Errors
    /// [`Error::UnknownName`] or [`Error::Shape`] for gradients that are not this network's, in its order, and what
    /// the optimizer finds wrong with its settings; the network is then unchanged.
    pub fn update(
        &mut self,
        optimizer: &mut dyn Optimizer,
        learning_rate: f64,
        gradients: &[(String, ArrayD<f32>)],
    ) -> Result<()> {
        let parameters = self.parameters();
        expect_shape("the list of gradients", &[parameters.len()], &[gradients.len()])?;
        for ((name, parameter), (found, gradient)) in parameters.iter().zip(gradients) {
            if name != found {
                return Err(self.unknown(found));
            }
            expect_shape("the gradient", parameter.shape(), gradient.shape())?;
        }
        let masks: HashMap<String, Mask> = self.masks().into_iter().map(|(name, mask)| (name, mask.clone())).collect();
        let gradients: Vec<_> = gradients
            .iter()
            .map(|(name, gradient)| match masks.get(name) {
                Some(mask) => {
                    let mut gradient = gradient.as_standard_layout().into_owned();
                    mask.apply_to_slice(gradient.as_slice_mut().expect("row-major"));
                    gradient.into()
                }
                None => gradient.as_standard_layout(),
            })
            .collect();
        let mut parameters = self.parameters_mut();
        let pairs = parameters.iter_mut().zip(&gradients);
        let mut updates: Vec<_> = pairs
            .map(|((name, values), gradient)| Update {
                values: values.as_slice_mut().expect("row-major"),
                gradient: gradient.as_slice().expect("row-major"),
                mask: masks.get(name.as_str()),
                name,
            })
            .collect();
        optimizer.step(learning_rate, &mut updates)?;
        for Update { values, mask, .. } in updates {
            if let Some(mask) = mask {
                mask.apply_to_slice(values);
            }
        }
        Ok(())
    }

    fn arrays(&self) -> Vec<(String, Role, ArrayViewD<'_, f32>)> {
        let mut found = Vec::new();
        for (name, layer) in &self.layers {
            let own: Vec<(String, Role, ArrayViewD<'_, f32>)> = match layer {
                Layer::Residual(residual) => residual.branch().arrays(),
                _ => layer.arrays().into_iter().map(|(own, role, array)| (own.to_owned(), role, array)).collect(),
            };
            found.extend(own.into_iter().map(|(own, role, array)| (format!("{name}.{own}"), role, array)));
        }
        found
    }

    pub(super) fn arrays_mut(&mut self) -> Vec<(String, Role, ArrayViewMutD<'_, f32>)> {
        let mut found = Vec::new();
        for (name, layer) in &mut self.layers {
            let own: Vec<(String, Role, ArrayViewMutD<'_, f32>)> = match layer {
                Layer::Residual(residual) => residual.branch_mut().arrays_mut(),
                _ => layer.arrays_mut().into_iter().map(|(own, role, array)| (own.to_owned(), role, array)).collect(),
            };
            found.extend(own.into_iter().map(|(own, role, array)| (format!("{name}.{own}"), role, array)));
        }
        found
    }

    fn unknown(&self, name: &str) -> Error {
        let known = self.state().into_iter().map(|(known, _)| known).collect();
        Error::UnknownName { name: name.to_owned(), known }
    }
}
