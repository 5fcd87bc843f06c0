//! Which layer hurts: each pruned alone.

use std::{fmt, ops::ControlFlow};

use super::observe::Observations;
use crate::{
    error::{Error, Result},
    nn::{Data, Loss, Network, Targets},
    prune::Pruner,
};

/// One measurement of a [`Sensitivity`] scan.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "io", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SensitivityRow {
    /// The weight that was pruned, alone.
    pub name: String,
    /// The share of it that was removed.
    pub sparsity: f64,
    /// The mean loss.
    pub loss: f64,
    /// The share of samples whose largest output is at their label; `None` for data without labels.
    pub accuracy: Option<f64>,
}

/// Loss and accuracy against the sparsity of each weight, the others left as they are. `Display` is a table.
///
/// ```
/// use ndarray::Array2;
/// use tersor::{Pruner, nn::{CrossEntropy, Data, Network}, recipe::Sensitivity};
///
/// let network = Network::builder(1).linear(8, 32).relu().linear(32, 2).build()?;
/// let data = Data::classes(Array2::from_shape_fn((64, 8), |(i, j)| ((i * j) as f32).sin()), (0..64).map(|i| i % 2))?;
/// let pruner = |sparsity: f64| Box::new(Pruner::magnitude(sparsity)) as Box<dyn Pruner>;
/// let scan = Sensitivity::scan(&network, &data, &CrossEntropy::new(), &[0.5, 0.9], &pruner, &mut |_, _| {
///     std::ops::ControlFlow::Continue(())
/// })?;
/// println!("{scan}");
/// assert_eq!(scan.rows.len(), 4); // two weights at two sparsities
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "io", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Sensitivity {
    /// The loss of the network as it is.
    pub loss: f64,
    /// The accuracy of the network as it is.
    pub accuracy: Option<f64>,
    /// Weight by weight, sparsity by sparsity.
    pub rows: Vec<SensitivityRow>,
}

impl Sensitivity {
    /// Prunes each weight that can be pruned to each of these sparsities, by what `pruner` makes of it, and measures the
    /// network on the data. `progress` is told (done, in all) after each measurement.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if `progress` breaks; those of the pruners, of a forward pass and of the loss.
    pub fn scan(
        network: &Network,
        data: &Data,
        loss: &dyn Loss,
        sparsities: &[f64],
        pruner: &dyn Fn(f64) -> Box<dyn Pruner>,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Sensitivity> {
        let measure = |network: &Network| -> Result<(f64, Option<f64>)> {
            let labelled = matches!(data.targets(), Targets::Classes(_));
            Ok((network.loss(data, loss)?, if labelled { Some(network.accuracy(data)?) } else { None }))
        };
        let (names, (whole_loss, accuracy)) = (network.maskable(), measure(network)?);
        let total = names.len() * sparsities.len();
        let mut scan = Sensitivity { loss: whole_loss, accuracy, rows: Vec::with_capacity(total) };
        let mut observations = Observations::new(network, Some(data), loss, None);
        for name in &names {
            for &sparsity in sparsities {
                let pruner = pruner(sparsity);
                observations.gather(pruner.ranking().map(|(score, _)| score.needs()))?;
                let pruned = pruner.apply(&observations.of(name)?).map_err(|error| error.in_layer(name))?;
                let mut changed = network.clone();
                changed.set_mask(name, None)?;
                changed.set_parameter(name, &pruned.values())?;
                let (loss, accuracy) = measure(&changed)?;
                scan.rows.push(SensitivityRow { name: name.clone(), sparsity: pruned.sparsity(), loss, accuracy });
                let done = scan.rows.len();
                if progress(done, total).is_break() {
                    return Err(Error::Cancelled { done, total });
                }
            }
        }
        Ok(scan)
    }

    /// The scan as JSON: an object with `loss`, `accuracy` and `rows`.
    #[cfg(feature = "io")]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

impl fmt::Display for Sensitivity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.name.len()).fold(12, usize::max);
        let line = |f: &mut fmt::Formatter<'_>, name: &str, sparsity: f64, loss: f64, accuracy: Option<f64>| {
            write!(f, "{name:width$}  {:6.2} %  {loss:10.4}", 100.0 * sparsity)?;
            accuracy.map_or(Ok(()), |accuracy| write!(f, "  {:6.2} %", 100.0 * accuracy))
        };
        writeln!(f, "{:width$}  sparsity        loss  accuracy", "weight")?;
        line(f, "as it is", 0.0, self.loss, self.accuracy)?;
        self.rows.iter().try_for_each(|row| {
            writeln!(f)?;
            line(f, &row.name, row.sparsity, row.loss, row.accuracy)
        })
    }
}
