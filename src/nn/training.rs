//! The training loop.

use std::ops::ControlFlow;

use super::{
    Callback, CrossEntropy, Data, Loss, Network, Optimizer, Schedule,
    descent::{Batch, Moment, Objective, Pass, Slopes, Trainee},
};
use crate::Result;

/// A training: batches in a new random order every epoch, the loss's gradient, a step of the optimizer.
///
/// | setting | default | range |
/// |---|---|---|
/// | `batch_size` | 64 | at least 1; the last batch of an epoch may be smaller |
/// | `seed` | 0 | decides the order of samples and the dropout |
/// | `loss` | [`CrossEntropy`] | any [`Loss`] |
/// | `schedule` | [`Schedule::Constant`] | |
///
/// The same network, data, settings and seed give the same bits, whatever the number of threads.
///
/// ```
/// use tersor::nn::{Adam, Data, Network, Training};
/// # use ndarray::Array2;
/// # let labels: Vec<usize> = (0..64).map(|i| i % 10).collect();
/// # let images = Array2::from_shape_fn((64, 784), |(i, j)| if j % 10 == i % 10 { 1.0 } else { 0.0 });
/// # let images = images.view();
///
/// let mut network = Network::builder(7)
///     .linear(784, 64).relu().linear(64, 32).relu().linear(32, 10)
///     .build()?;
/// let data = Data::classes(images, labels)?;
/// let history = Training::new(40)
///     .batch_size(64).seed(1)
///     .train(&mut network, &data, &mut Adam::new(1e-3), &mut |p| {
///         println!("epoch {} of {}, batch {} of {}: {}", p.epoch, p.epochs, p.batch, p.batches, p.loss);
///         std::ops::ControlFlow::Continue(())
///     })?;
/// let logits = network.forward(&images)?;
/// let accuracy = network.accuracy(&data)?;
/// # assert_eq!((history.losses.len(), logits.shape(), accuracy), (40, &[64, 10][..], 1.0));
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct Training {
    pub(super) epochs: usize,
    pub(super) batch_size: usize,
    pub(super) seed: u64,
    loss: Box<dyn Loss>,
    pub(super) schedule: Schedule,
}

/// Where a training stands, after a step.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// The epoch, counted from 0.
    pub epoch: usize,
    /// Epochs in all.
    pub epochs: usize,
    /// The batch within the epoch, counted from 0.
    pub batch: usize,
    /// Batches of an epoch.
    pub batches: usize,
    /// The loss of this batch, before the step.
    pub loss: f64,
    /// The learning rate of this epoch.
    pub learning_rate: f64,
}

/// What a training went through.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct History {
    /// The mean loss of every epoch's samples, each seen before its step.
    pub losses: Vec<f64>,
}

impl Training {
    /// A training of so many epochs, at least 1.
    pub fn new(epochs: usize) -> Training {
        let (loss, schedule) = (Box::new(CrossEntropy::new()), Schedule::Constant);
        Training { epochs, batch_size: 64, seed: 0, loss, schedule }
    }

    /// Sets the samples of a step.
    pub fn batch_size(self, batch_size: usize) -> Training {
        Training { batch_size, ..self }
    }

    /// Sets what the order of samples and the dropout are drawn from.
    pub fn seed(self, seed: u64) -> Training {
        Training { seed, ..self }
    }

    /// Sets the loss.
    pub fn loss(self, loss: impl Loss + 'static) -> Training {
        Training { loss: Box::new(loss), ..self }
    }

    /// Sets how the learning rate changes.
    pub fn schedule(self, schedule: Schedule) -> Training {
        Training { schedule, ..self }
    }

    /// Trains the network, calling `progress` after every step.
    ///
    /// An optimizer keeps its state, so that a second training goes on where the first ended.
    ///
    /// # Errors
    /// Before the first step, with the network unchanged: [`Error::Setting`](crate::Error::Setting) for settings out of range, and whatever
    /// shows that the data do not fit the network or the loss ([`Error::Layer`](crate::Error::Layer), [`Error::Label`](crate::Error::Label), [`Error::Shape`](crate::Error::Shape)).
    ///
    /// [`Error::Cancelled`](crate::Error::Cancelled) if `progress` breaks: an error, not a short history, so that `?` keeps a half-trained
    /// network from being taken for a trained one. The network is as of the last step, and every loss was reported.
    ///
    /// [`Error::Diverged`](crate::Error::Diverged) if the loss is not finite, or the parameters are not after the last step. The network is put
    /// back to what it was when the loss was last finite; the optimizer's state is not.
    pub fn train(
        &self,
        network: &mut Network,
        data: &Data,
        optimizer: &mut dyn Optimizer,
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<History> {
        self.train_with(network, data, optimizer, &mut (), progress)
    }

    /// As [`train`](Training::train), with something that takes part in it.
    ///
    /// ```
    /// # use ndarray::Array2;
    /// use tersor::nn::{Adam, Callback, Data, Network, Training};
    /// # let data = Data::classes(Array2::<f32>::eye(4), [0, 1, 0, 1])?;
    /// # let mut network = Network::builder(1).linear(4, 2).build()?;
    /// # let (mut first, mut second) = ((), ());
    /// let mut both: [&mut dyn Callback; 2] = [&mut first, &mut second];
    /// let go_on = &mut |_: &_| std::ops::ControlFlow::Continue(());
    /// Training::new(2).train_with(&mut network, &data, &mut Adam::new(1e-3), &mut both[..], go_on)?;
    /// # Ok::<(), tersor::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`train`](Training::train), and those of the callback.
    pub fn train_with<C: Callback + ?Sized>(
        &self,
        network: &mut Network,
        data: &Data,
        optimizer: &mut dyn Optimizer,
        callback: &mut C,
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<History> {
        let mut objective = Plain(self.loss.as_ref());
        let mut trainee = [Trainee { network, optimizer, callback: &mut { callback } }];
        let history = self.descend(&mut trainee, data, &mut objective, progress)?;
        Ok(history.into_iter().next().expect("one for each trainee"))
    }

    /// What the order of samples is drawn from.
    pub(crate) fn own_seed(&self) -> u64 {
        self.seed
    }

    /// The loss.
    pub(crate) fn own_loss(&self) -> &dyn Loss {
        self.loss.as_ref()
    }
}

impl Progress {
    /// The step within the training, counted from 0.
    pub fn step(&self) -> usize {
        self.epoch * self.batches + self.batch
    }

    /// Steps in all.
    pub fn steps(&self) -> usize {
        self.epochs * self.batches
    }
}

/// The loss of the outputs alone.
#[derive(Debug)]
struct Plain<'a>(&'a dyn Loss);

impl Objective for Plain<'_> {
    fn check(&mut self, networks: &[&Network], data: &Data) -> Result<()> {
        networks
            .iter()
            .try_for_each(|network| self.0.check(&network.output_shape(data.inputs().shape())?, data.targets()))
    }

    fn evaluate(&mut self, passes: &[Pass<'_>], batch: &Batch, _: &Moment) -> Result<Vec<Slopes>> {
        let of_pass = |pass: &Pass<'_>| {
            let (loss, output) = self.0.evaluate(pass.trace.output(), &batch.targets)?;
            Ok(Slopes { loss, output, layers: vec![] })
        };
        passes.iter().map(of_pass).collect()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2, Array4, ArrayD, ArrayViewD, ShapeBuilder, array, s};

    use super::*;
    use crate::{
        Error,
        nn::{Adam, Builder, Conv2d, MeanSquaredError, Mode, Sgd, Targets, Update},
        random::derive,
    };

    fn silent(_: &Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn exclusive_or() -> Data {
        Data::classes(array![[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [0, 1, 1, 0]).unwrap()
    }

    fn small(seed: u64) -> Network {
        Network::builder(seed).linear(2, 16).tanh().linear(16, 2).build().unwrap()
    }

    #[test]
    fn exclusive_or_is_learned() {
        let (mut network, data) = (small(1), exclusive_or());
        let history = Training::new(400).train(&mut network, &data, &mut Adam::new(1e-2), &mut silent).unwrap();
        assert!(history.losses[0] > 0.5 && history.losses[399] < 0.01, "{:?}", &history.losses[390..]);
        assert_eq!(network.accuracy(&data).unwrap(), 1.0);
    }

    #[test]
    fn a_linear_map_is_recovered() {
        let x = Array2::from_shape_fn((64, 3), |(i, j)| ((i * (2 * j + 3)) % 17) as f32 / 8.0 - 1.0);
        let (weight, bias) = (array![[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], array![0.5, -1.0]);
        let y = x.dot(&weight.t()) + &bias;
        let mut network = Network::builder(2).linear(3, 2).build().unwrap();
        let training = Training::new(200).batch_size(16).loss(MeanSquaredError);
        let mut sgd = Sgd::new(0.1).momentum(0.9);
        training.train(&mut network, &Data::values(x, y).unwrap(), &mut sgd, &mut silent).unwrap();
        let error =
            |name: &str, expected: ndarray::ArrayD<f32>| (&network.parameter(name).unwrap() - &expected).mapv(f32::abs);
        assert!(
            error("0.weight", weight.into_dyn()).iter().chain(&error("0.bias", bias.into_dyn())).all(|e| *e < 1e-4)
        );
    }

    #[test]
    fn a_cancelled_training_keeps_the_steps_it_did() {
        let data =
            Data::classes(Array2::from_shape_fn((10, 2), |(i, j)| (i + j) as f32 / 10.0), (0..10).map(|i| i % 2))
                .unwrap();
        let (mut network, mut seen) = (small(1), Vec::new());
        let training = Training::new(5).batch_size(4).seed(9);
        let cancelled = training.train(&mut network, &data, &mut Sgd::new(0.1), &mut |p| {
            seen.push(p.loss);
            if seen.len() == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(cancelled, Err(Error::Cancelled { done: 4, total: 15 })));

        // The same four steps by hand.
        let (mut by_hand, mut losses, mut sgd) = (small(1), Vec::new(), Sgd::new(0.1));
        for epoch in 0..2 {
            let batches = data.shuffled_batches(4, derive(9, 2 * epoch)).unwrap();
            for batch in batches.take(if epoch == 0 { 3 } else { 1 }) {
                let trace = by_hand.trace(batch.inputs(), Mode::Evaluation).unwrap();
                let (loss, gradient) = CrossEntropy::new().evaluate(trace.output(), batch.targets()).unwrap();
                let gradients = by_hand.backward(&trace, &gradient).unwrap();
                by_hand.update(&mut sgd, 0.1, &gradients.parameters).unwrap();
                losses.push(loss);
            }
        }
        assert_eq!((seen, network), (losses, by_hand));
    }

    #[test]
    fn a_diverged_training_goes_back_to_the_last_finite_loss() {
        let data = Data::values(array![[1.0, 2.0], [3.0, -4.0]], array![[1.0, 0.0], [0.0, 1.0]]).unwrap();
        let initial = Network::builder(1).linear(2, 2).build().unwrap();
        let train = |epochs, rate| {
            let mut network = initial.clone();
            let training = Training::new(epochs).batch_size(2).loss(MeanSquaredError);
            let result = training.train(&mut network, &data, &mut Sgd::new(rate), &mut silent);
            (result, network)
        };
        // The first step leaves finite parameters but an infinite loss.
        let (result, network) = train(3, 5e37);
        assert!(matches!(result, Err(Error::Diverged { epoch: 1, .. })), "{result:?}");
        assert_eq!(network, initial);
        // No forward pass follows the last step: its infinite parameters are seen all the same.
        let (result, network) = train(1, 1e300);
        assert!(matches!(result, Err(Error::Diverged { epoch: 0, .. })), "{result:?}");
        assert_eq!(network, initial);
    }

    #[test]
    fn nothing_is_changed_by_data_or_settings_that_do_not_fit() {
        let (initial, data) = (small(1), exclusive_or());
        let labels = Data::classes(data.inputs().clone(), [0, 1, 2, 0]).unwrap();
        let wide = Data::classes(Array2::zeros((4, 3)), [0; 4]).unwrap();
        let values = Data::values(data.inputs().clone(), Array2::zeros((4, 2))).unwrap();
        let flat = Schedule::Step { every: 0, factor: 0.5 };
        let smooth = CrossEntropy::new().label_smoothing(-0.1);
        type Fits = fn(&Error) -> bool;
        let setting: Fits = |error| matches!(error, Error::Setting { .. });
        let cases: [(&str, Training, &Data, Sgd, Fits); 9] = [
            ("a label", Training::new(1), &labels, Sgd::new(0.1), |e| {
                matches!(e, Error::Label { label: 2, index: 2, classes: 2 })
            }),
            (
                "features",
                Training::new(1),
                &wide,
                Sgd::new(0.1),
                |e| matches!(e, Error::Layer { name, .. } if name == "0"),
            ),
            ("targets", Training::new(1), &values, Sgd::new(0.1), |e| matches!(e, Error::Conflict { .. })),
            ("epochs", Training::new(0), &data, Sgd::new(0.1), setting),
            ("batch size", Training::new(1).batch_size(0), &data, Sgd::new(0.1), setting),
            ("schedule", Training::new(1).schedule(flat), &data, Sgd::new(0.1), setting),
            ("smoothing", Training::new(1).loss(smooth), &data, Sgd::new(0.1), setting),
            ("rate", Training::new(1), &data, Sgd::new(f64::NAN), setting),
            ("nesterov", Training::new(1), &data, Sgd::new(0.1).nesterov(), setting),
        ];
        for (what, training, data, mut sgd, fits) in cases {
            let mut network = initial.clone();
            let error = training.train(&mut network, data, &mut sgd, &mut silent).unwrap_err();
            assert!(fits(&error) && network == initial, "{what}: {error}");
        }
    }

    #[test]
    fn the_schedule_sets_the_rate_of_every_epoch() {
        let mut rates = Vec::new();
        let training = Training::new(4).batch_size(3).schedule(Schedule::Step { every: 2, factor: 0.5 });
        training
            .train(&mut small(1), &exclusive_or(), &mut Sgd::new(0.5), &mut |p| {
                rates.push((p.epoch, p.batch, p.batches, p.learning_rate));
                ControlFlow::Continue(())
            })
            .unwrap();
        let expected: Vec<_> = (0..8).map(|i| (i / 2, i % 2, 2, if i < 4 { 0.5 } else { 0.25 })).collect();
        assert_eq!(rates, expected);
    }

    #[test]
    fn a_parameter_of_a_new_length_starts_anew() {
        let mut adam = Adam::new(0.1);
        let mut step = |values: &mut [f32]| {
            let gradient = vec![1.0; values.len()];
            adam.step(0.1, &mut [Update { name: "w", values, gradient: &gradient, mask: None }]).unwrap();
        };
        let (mut three, mut two) = ([0.0; 3], [0.0; 2]);
        step(&mut three);
        step(&mut two);
        // Adam's first step is the learning rate, whatever the gradient.
        assert!(three.iter().chain(&two).all(|w| (w + 0.1).abs() < 1e-6));
    }

    /// A loss written by a user, whose gradient is neither row-major nor all of its memory.
    #[derive(Debug)]
    struct Sum;

    impl Loss for Sum {
        fn check(&self, _: &[usize], _: &Targets) -> Result<()> {
            Ok(())
        }

        fn evaluate(&self, outputs: ArrayViewD<'_, f32>, _: &Targets) -> Result<(f64, ArrayD<f32>)> {
            let columns = Array2::ones((outputs.shape()[1] + 1, outputs.shape()[0]).f());
            let gradient = columns.slice_move(s![1.., ..]).reversed_axes().into_dyn();
            Ok((outputs.iter().map(|y| f64::from(*y)).sum(), gradient))
        }
    }

    #[test]
    fn a_gradient_in_any_memory_order_is_taken() {
        for last in
            [|b: Builder| b.flatten(), |b: Builder| b.softmax(), |b: Builder| b.relu(), |b: Builder| b.dropout(0.5)]
        {
            let mut network = last(Network::builder(1).linear(2, 3)).build().unwrap();
            let training = Training::new(1).loss(Sum);
            training.train(&mut network, &exclusive_or(), &mut Sgd::new(0.1), &mut silent).unwrap();
        }
    }

    /// Every kind of pass that is shared out among threads, at sizes that make several pieces of each.
    fn train_a_convolutional_network() -> (Network, History, f64) {
        let images = Array4::from_shape_fn((96, 1, 28, 28), |(n, _, y, x)| ((n * 7 + y * x) % 11) as f32 / 11.0);
        let data = Data::classes(images, Array1::from_shape_fn(96, |n| n % 10)).unwrap();
        let mut network = Network::builder(3)
            .conv2d(Conv2d::new(1, 4, 3).padding(1))
            .batch_norm2d(4)
            .relu()
            .residual(|b| b.conv2d(Conv2d::new(4, 4, 3).padding(1).groups(2)).silu().dropout(0.2))
            .max_pool2d(2)
            .flatten()
            .layer_norm(784)
            .linear(784, 128)
            .gelu()
            .linear(128, 10)
            .build()
            .unwrap();
        let training = Training::new(2).batch_size(40).seed(5);
        let history = training.train(&mut network, &data, &mut Adam::new(1e-3), &mut silent).unwrap();
        let accuracy = network.accuracy(&data).unwrap();
        (network, history, accuracy)
    }

    #[cfg(feature = "rayon")]
    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let (network, history, accuracy) = pool.install(train_a_convolutional_network);
            let bits: Vec<u32> = network
                .state()
                .iter()
                .flat_map(|(_, array)| array.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
                .collect();
            (bits, history.losses.iter().map(|loss| loss.to_bits()).collect::<Vec<_>>(), accuracy.to_bits())
        };
        let one = with(1);
        for threads in [2, 3, 7] {
            assert!(with(threads) == one, "{threads} threads");
        }
    }

    #[test]
    fn a_convolutional_network_learns() {
        let (_, history, _) = train_a_convolutional_network();
        assert!(history.losses[1] < history.losses[0], "{:?}", history.losses);
    }
}
