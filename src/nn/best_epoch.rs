//! The epoch that held-out data found best.

use super::{Callback, CrossEntropy, Data, Loss, Network, Progress};
use crate::{Error, Result};

/// Measures a network on held-out data after every epoch of a training, and puts the best epoch's network back when the
/// training ends: its parameters, running statistics and masks. Of equal epochs the earlier counts.
///
/// | setting | default | range |
/// |---|---|---|
/// | [`loss`](BestEpoch::loss) | the largest accuracy, of classes | the least mean of a loss instead |
/// | [`from_epoch`](BestEpoch::from_epoch) | 0 | below the training's epochs |
/// | [`patience`](BestEpoch::patience) | all epochs are trained | at least 1 |
///
/// Among several callbacks it belongs last: it measures what the others leave of a step. Where they prune, the best epoch
/// brings its own masks back, so let only epochs count that are pruned as much as they shall be
/// ([`from_epoch`](BestEpoch::from_epoch)): the first ones are often the most accurate.
///
/// A training that is cancelled or in error does not put anything back; [`network`](BestEpoch::network) has the best epoch
/// all the same.
///
/// ```
/// use ndarray::Array2;
/// use tersor::nn::{Adam, BestEpoch, Data, Network, Training};
///
/// let mut network = Network::builder(1).linear(8, 32).relu().linear(32, 2).build()?;
/// let data = Data::classes(Array2::from_shape_fn((90, 8), |(i, j)| ((i * j) as f32).sin()), (0..90).map(|i| i % 2))?;
/// let (seen, held_out) = (data.select(&Vec::from_iter(0..60))?, data.select(&Vec::from_iter(60..90))?);
/// let mut best = BestEpoch::new(&held_out);
/// Training::new(10).train_with(&mut network, &seen, &mut Adam::new(1e-2), &mut best, &mut |_| {
///     std::ops::ControlFlow::Continue(())
/// })?;
/// let (epoch, accuracy) = best.best().unwrap();
/// assert_eq!(best.history()[epoch], accuracy);
/// assert_eq!(network.accuracy(&held_out)?, accuracy);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct BestEpoch<'a> {
    held_out: &'a Data,
    /// Accuracy if there is none.
    loss: Option<Box<dyn Loss>>,
    from_epoch: usize,
    patience: Option<usize>,
    history: Vec<f64>,
    best: Option<Best>,
}

#[derive(Debug)]
struct Best {
    epoch: usize,
    measure: f64,
    network: Network,
}

impl<'a> BestEpoch<'a> {
    /// Looks for the largest accuracy on these data.
    pub fn new(held_out: &'a Data) -> BestEpoch<'a> {
        BestEpoch { held_out, loss: None, from_epoch: 0, patience: None, history: Vec::new(), best: None }
    }

    /// Looks for the least mean of a loss instead. A mean that is not a number is never the best.
    pub fn loss(self, loss: impl Loss + 'static) -> BestEpoch<'a> {
        BestEpoch { loss: Some(Box::new(loss)), ..self }
    }

    /// Lets only this epoch, counted from 0, and later ones be the best; all are measured.
    pub fn from_epoch(self, epoch: usize) -> BestEpoch<'a> {
        BestEpoch { from_epoch: epoch, ..self }
    }

    /// Ends the training once so many epochs in a row were no better than the best (early stopping, Prechelt 1998).
    pub fn patience(self, epochs: usize) -> BestEpoch<'a> {
        BestEpoch { patience: Some(epochs), ..self }
    }

    /// The best epoch, counted from 0, and its accuracy or loss; `None` as long as no epoch counted.
    pub fn best(&self) -> Option<(usize, f64)> {
        self.best.as_ref().map(|best| (best.epoch, best.measure))
    }

    /// The network after the best epoch.
    pub fn network(&self) -> Option<&Network> {
        self.best.as_ref().map(|best| &best.network)
    }

    /// The accuracy or loss after every epoch measured.
    pub fn history(&self) -> &[f64] {
        &self.history
    }

    fn measure(&self, network: &Network) -> Result<f64> {
        match &self.loss {
            Some(loss) => network.loss(self.held_out, &**loss),
            None => network.accuracy(self.held_out),
        }
    }

    fn is_better(&self, measure: f64, than: f64) -> bool {
        if self.loss.is_some() { measure < than } else { measure > than }
    }
}

impl Callback for BestEpoch<'_> {
    fn start(&mut self, network: &mut Network, _: usize) -> Result<()> {
        if self.patience == Some(0) {
            return Err(Error::Setting { setting: "patience", value: 0.0, bound: "at least 1" });
        }
        let outputs = network.output_shape(self.held_out.inputs.shape())?;
        match &self.loss {
            Some(loss) => loss.check(&outputs, &self.held_out.targets)?,
            // Which asks for what an accuracy needs: two axes, and labels that are classes.
            None => CrossEntropy::new().check(&outputs, &self.held_out.targets)?,
        }
        (self.history, self.best) = (Vec::new(), None);
        Ok(())
    }

    fn before_step(&mut self, at: &Progress, _: &mut Network, _: &mut [(String, ndarray::ArrayD<f32>)]) -> Result<()> {
        // Seen before the first step, though not yet at the start, which is told the steps alone.
        if self.from_epoch >= at.epochs {
            let (setting, value) = ("from_epoch", self.from_epoch as f64);
            return Err(Error::Setting { setting, value, bound: "below the epochs of the training" });
        }
        Ok(())
    }

    fn after_step(&mut self, at: &Progress, network: &mut Network) -> Result<()> {
        if at.batch + 1 < at.batches {
            return Ok(());
        }
        let (epoch, measure) = (at.epoch, self.measure(network)?);
        self.history.push(measure);
        let better = self.best().map_or(!measure.is_nan(), |(_, best)| self.is_better(measure, best));
        if epoch >= self.from_epoch && better {
            self.best = Some(Best { epoch, measure, network: network.clone() });
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        let since = |best: &Best| self.history.len() - 1 - best.epoch;
        self.best.as_ref().zip(self.patience).is_some_and(|(best, patience)| since(best) >= patience)
    }

    fn finish(&mut self, network: &mut Network) -> Result<()> {
        if let Some(best) = &self.best {
            network.clone_from(&best.network);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use ndarray::{Array2, ArrayD, ArrayViewD};

    use super::*;
    use crate::{
        nn::{MeanSquaredError, Sgd, Targets, Training},
        tensor::Mask,
    };

    fn go_on(_: &Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn data() -> Data {
        Data::classes(Array2::from_shape_fn((10, 3), |(i, j)| ((i + 2 * j) as f32).sin()), (0..10).map(|i| i % 2))
            .unwrap()
    }

    fn network() -> Network {
        Network::builder(1).linear(3, 2).build().unwrap()
    }

    /// A measure that is written down: the loss after epoch `e` is `losses[e]`.
    #[derive(Debug)]
    struct Written(Vec<f64>);

    /// Sets the bias to the epoch, so that the outputs of zero inputs tell it, and masks ever more.
    #[derive(Debug)]
    struct Marks;

    impl Loss for Written {
        fn check(&self, _: &[usize], _: &Targets) -> Result<()> {
            Ok(())
        }

        fn evaluate(&self, outputs: ArrayViewD<'_, f32>, _: &Targets) -> Result<(f64, ArrayD<f32>)> {
            Ok((self.0[outputs[[0, 0]] as usize], outputs.to_owned()))
        }
    }

    impl Callback for Marks {
        fn after_step(&mut self, at: &Progress, network: &mut Network) -> Result<()> {
            network.set_parameter("0.bias", &ndarray::array![at.epoch as f32, 0.0])?;
            network.set_mask("0.weight", Some(Mask::from_fn(&[2, 3], |i| i >= at.epoch)?))
        }
    }

    /// Trains while the losses on held-out data are these; the best epoch, and the one that the network is of.
    fn with_losses(losses: &[f64], settings: impl Fn(BestEpoch<'_>) -> BestEpoch<'_>) -> (Option<usize>, usize, usize) {
        let zeros = Data::values(Array2::zeros((3, 3)), Array2::zeros((3, 2))).unwrap();
        let mut best = settings(BestEpoch::new(&zeros).loss(Written(losses.to_vec())));
        let mut network = network();
        let mut both: [&mut dyn Callback; 2] = [&mut Marks, &mut best];
        let training = Training::new(losses.len()).batch_size(4);
        training.train_with(&mut network, &data(), &mut Sgd::new(0.1), &mut both[..], &mut go_on).unwrap();
        let left = network.parameter("0.bias").unwrap()[[0]] as usize;
        let mask = network.mask("0.weight").unwrap().unwrap();
        assert_eq!(mask.kept(), 6 - left, "masks come back with the epoch");
        assert!(best.history().iter().zip(losses).all(|(found, loss)| found.to_bits() == loss.to_bits()));
        (best.best().map(|(epoch, _)| epoch), left, best.history().len())
    }

    #[test]
    fn the_earliest_of_the_best_epochs_comes_back() {
        assert_eq!(with_losses(&[3.0, 1.0, 2.0, 1.0, 4.0], |best| best), (Some(1), 1, 5));
        assert_eq!(with_losses(&[1.0, 1.0, 0.5], |best| best), (Some(2), 2, 3));
        assert_eq!(with_losses(&[1.0, 2.0, 1.5, 1.5], |best| best.from_epoch(1)), (Some(2), 2, 4));
        assert_eq!(with_losses(&[f64::NAN, 2.0, f64::NAN], |best| best), (Some(1), 1, 3));
        assert_eq!(with_losses(&[f64::NAN, f64::NAN], |best| best), (None, 1, 2), "left as trained");
    }

    #[test]
    fn patience_is_early_stopping() {
        let losses = [3.0, 2.0, 2.5, 2.5, 1.0];
        assert_eq!(with_losses(&losses, |best| best.patience(2)), (Some(1), 1, 4), "later epochs do not count");
        assert_eq!(with_losses(&losses, |best| best.patience(3)), (Some(4), 4, 5));
        assert_eq!(with_losses(&losses, |best| best.patience(1).from_epoch(2)), (Some(2), 2, 4));
    }

    #[test]
    fn accuracy_and_state_are_those_of_the_epoch_by_hand() {
        let data = data();
        let mut best = BestEpoch::new(&data);
        let (mut trained, mut sgd) = (network(), Sgd::new(2.0));
        let training = |epochs| Training::new(epochs).batch_size(3).seed(4);
        training(6).train_with(&mut trained, &data, &mut sgd, &mut best, &mut go_on).unwrap();
        let after = |epochs| {
            let mut network = network();
            training(epochs).train(&mut network, &data, &mut Sgd::new(2.0), &mut go_on).unwrap();
            network
        };
        let accuracies: Vec<f64> = (1..=6).map(|epochs| after(epochs).accuracy(&data).unwrap()).collect();
        assert_eq!(best.history(), accuracies);
        let (epoch, accuracy) = best.best().unwrap();
        assert!(accuracies.iter().all(|other| *other <= accuracy) && accuracies[..epoch].iter().all(|a| *a < accuracy));
        assert_eq!(trained, after(epoch + 1));
        // The same callback serves a second training from the beginning, and has the best of a cancelled one.
        let stop = &mut |at: &Progress| if at.step() == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let cancelled = training(6).train_with(&mut network(), &data, &mut Sgd::new(2.0), &mut best, stop);
        assert!(matches!(cancelled, Err(Error::Cancelled { done: 6, .. })));
        assert_eq!((best.history().len(), best.network().is_some()), (1, true));
    }

    #[test]
    fn the_mean_loss_is_that_of_one_whole_batch() {
        let inputs = Array2::from_shape_fn((700, 3), |(i, j)| ((i * 3 + j) as f32).cos());
        let data = Data::values(inputs, Array2::ones((700, 2))).unwrap();
        let network = network();
        let outputs = network.forward(data.inputs()).unwrap();
        let (whole, _) = MeanSquaredError.evaluate(outputs.view(), data.targets()).unwrap();
        assert!((network.loss(&data, &MeanSquaredError).unwrap() - whole).abs() < 1e-12 * whole);
    }

    #[test]
    fn what_does_not_fit_is_an_error_before_the_first_step() {
        let data = data();
        let wide = Data::classes(Array2::zeros((4, 5)), [0; 4]).unwrap();
        let label = Data::classes(Array2::zeros((2, 3)), [0, 2]).unwrap();
        let values = Data::values(Array2::zeros((2, 3)), Array2::zeros((2, 2))).unwrap();
        let cases: [(BestEpoch<'_>, &str); 6] = [
            (BestEpoch::new(&wide), "layer `0`"),
            (BestEpoch::new(&label), "label 2"),
            (BestEpoch::new(&values), "class labels are needed"),
            (BestEpoch::new(&data).loss(MeanSquaredError), "targets"),
            (BestEpoch::new(&data).patience(0), "patience = 0"),
            (BestEpoch::new(&data).from_epoch(2), "from_epoch = 2"),
        ];
        for (mut best, text) in cases {
            let (mut trained, training) = (network(), Training::new(2));
            let error = training
                .train_with(&mut trained, &data, &mut Sgd::new(0.1), &mut best, &mut |_| panic!("a step was taken"))
                .unwrap_err();
            assert!(error.to_string().contains(text), "{error} should say {text}");
            assert_eq!(trained, network(), "{text}");
        }
    }
}
