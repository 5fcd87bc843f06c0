//! Trainings by a teacher: the same steps as by hand, whatever the teacher is; masks, chains, peers, bad input.

use std::ops::ControlFlow;

use ndarray::{Array2, Array3, ArrayD, Axis};
use tersor::{
    Distillation, Distiller, Error, Pruner, Recipe, Result, Signals,
    distill::{Answer, Average, Batch, Ensemble, Loss, Mutual, Recorded, Schedule, Teacher},
    nn::{
        Adam, BestEpoch, Callback, CrossEntropy, Data, MeanSquaredError, Mode, Network, Optimizer, Progress, Sgd,
        Training,
    },
};

fn go_on(_: &Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn inputs() -> Array2<f32> {
    Array2::from_shape_fn((50, 6), |(i, j)| (((i * 7 + j * 13) % 17) as f32 / 8.0 - 1.0) * (1.0 + (i % 3) as f32 / 4.0))
}

fn data() -> Data {
    let labels = inputs().rows().into_iter().map(|row| usize::from(row.sum() > 0.0)).collect::<Vec<_>>();
    Data::classes(inputs(), labels).unwrap()
}

fn teacher() -> Network {
    let mut network = Network::builder(1).linear(6, 16).tanh().linear(16, 8).tanh().linear(8, 2).build().unwrap();
    Training::new(20).train(&mut network, &data(), &mut Adam::new(1e-2), &mut go_on).unwrap();
    network
}

fn student(seed: u64) -> Network {
    Network::builder(seed).linear(6, 8).tanh().linear(8, 2).build().unwrap()
}

fn training() -> Training {
    Training::new(3).batch_size(16).seed(5)
}

fn distil(distillation: &Distillation<'_>, student: &mut Network) -> Result<tersor::distill::Distilled> {
    distillation.train_with(&training(), student, &data(), &mut Sgd::new(0.1), &mut (), &mut go_on)
}

#[test]
fn logits_alone_are_a_regression_on_the_teachers_outputs() {
    let teacher = teacher();
    let (mut distilled, mut fitted) = (student(2), student(2));
    let report = distil(&Distillation::from(&teacher).term(1.0, Distiller::logits()), &mut distilled).unwrap();
    let outputs = Data::values(inputs(), teacher.forward(&inputs()).unwrap()).unwrap();
    let history =
        training().loss(MeanSquaredError).train(&mut fitted, &outputs, &mut Sgd::new(0.1), &mut go_on).unwrap();
    for ((name, a), (_, b)) in distilled.state().into_iter().zip(fitted.state()) {
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6), "{name}");
    }
    for (a, b) in report.history.losses.iter().zip(&history.losses) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
    assert_eq!(report.parts[0].losses.len(), 3);
    assert!((report.parts[0].losses[2] - report.history.losses[2]).abs() < 1e-12);
}

#[test]
fn a_step_is_the_weighted_sum_of_its_parts() {
    let (teacher, data) = (teacher(), data());
    let mut distilled = student(2);
    let distillation = Distillation::from(&teacher)
        .term(0.9, Distiller::soft_targets(4.0))
        .term_at("1", "3", 2.0, Distiller::logits()) // both have eight features
        .hard_labels(0.1);
    let one = Training::new(1).batch_size(50);
    distillation.train_with(&one, &mut distilled, &data, &mut Sgd::new(0.5), &mut (), &mut go_on).unwrap();

    let mut by_hand = student(2);
    let trace = by_hand.trace(data.inputs(), Mode::Evaluation).unwrap();
    let of_teacher = teacher.trace(data.inputs(), Mode::Evaluation).unwrap();
    let soft = Distiller::soft_targets(4.0).apply(&Signals::new(&trace.output(), &of_teacher.output())).unwrap();
    let (student_hidden, teacher_hidden) = (trace.output_of("1").unwrap(), of_teacher.output_of("3").unwrap());
    let hidden = Distiller::logits().apply(&Signals::new(&student_hidden, &teacher_hidden)).unwrap();
    use tersor::nn::Loss as _;
    let (_, hard) = CrossEntropy::new().evaluate(trace.output(), data.targets()).unwrap();
    let output = hard.mapv(|g| 0.1 * f64::from(g)) + soft.gradient * 0.9;
    let narrow = |array: ArrayD<f64>| array.mapv(|x| x as f32);
    let gradients =
        by_hand.backward_with(&trace, &narrow(output), &[("1".into(), narrow(hidden.gradient * 2.0))]).unwrap();
    by_hand.update(&mut Sgd::new(0.5), 0.5, &gradients.parameters).unwrap();
    for ((name, a), (_, b)) in distilled.state().into_iter().zip(by_hand.state()) {
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6), "{name}");
    }
}

#[test]
fn gradients_that_enter_within_the_network_are_those_of_the_whole_loss() {
    // sum(r y) + sum(s h) of a layer h in a residual, against central differences.
    let build = || {
        let network = Network::builder(3).linear(3, 4).tanh();
        network
            .residual(|b| b.linear(4, 4).named("inner").tanh().linear(4, 4))
            .named("block")
            .linear(4, 2)
            .build()
            .unwrap()
    };
    let network = build();
    let x = Array2::from_shape_fn((5, 3), |(i, j)| (i as f32 - 2.0) / 3.0 + j as f32 / 4.0);
    let trace = network.trace(&x, Mode::Evaluation).unwrap();
    let weights = |array: &ArrayD<f32>, step: f32| {
        let mut index = 0.0;
        array.mapv(|_| {
            index += step;
            f32::sin(index)
        })
    };
    let r = weights(&trace.output().to_owned(), 1.3);
    let layers = ["block.inner", "block.1", "block", "0"];
    let inner: Vec<_> = layers
        .iter()
        .zip([0.7, 1.1, 1.9, 2.3])
        .map(|(name, step)| ((*name).to_owned(), weights(&trace.output_of(name).unwrap().to_owned(), step)))
        .collect();
    let gradients = network.backward_with(&trace, &r, &inner).unwrap();
    let loss = |network: &Network| -> f64 {
        let trace = network.trace(&x, Mode::Evaluation).unwrap();
        let dot = |a: ndarray::ArrayViewD<'_, f32>, b: &ArrayD<f32>| -> f64 {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        dot(trace.output(), &r) + inner.iter().map(|(name, s)| dot(trace.output_of(name).unwrap(), s)).sum::<f64>()
    };
    for (name, gradient) in &gradients.parameters {
        for (index, slope) in gradient.iter().enumerate() {
            let at = |by: f32| {
                let mut moved = build();
                let mut values = moved.parameter(name).unwrap().to_owned();
                values.as_slice_mut().unwrap()[index] += by;
                moved.set_parameter(name, &values).unwrap();
                loss(&moved)
            };
            let step = 1.0 / 64.0;
            let quotient = (8.0 * (at(step) - at(-step)) - (at(2.0 * step) - at(-2.0 * step))) / f64::from(12.0 * step);
            assert!((quotient - f64::from(*slope)).abs() < 2e-3, "{name}[{index}]: {slope}, {quotient}");
        }
    }
    let wrong = [("block.7".to_owned(), r.clone())];
    assert!(matches!(network.backward_with(&trace, &r, &wrong), Err(Error::UnknownName { .. })));
    let wrong = [("0".to_owned(), r.clone())];
    assert!(matches!(network.backward_with(&trace, &r, &wrong), Err(Error::Layer { .. })));
}

#[test]
fn whatever_says_the_same_teaches_the_same() {
    /// A teacher that another engine runs.
    #[derive(Debug)]
    struct Foreign(Network);

    impl Teacher for Foreign {
        fn answer(&self, batch: &Batch<'_>, layers: &[String]) -> Result<Answer> {
            Answer::without_layers(self.0.forward(&batch.inputs)?, layers)
        }
    }

    let teacher = teacher();
    let recorded = Recorded::new(teacher.forward(&inputs()).unwrap()).unwrap();
    let foreign = Foreign(teacher.clone());
    let by = |teacher: &dyn Teacher| {
        let mut student = student(2);
        let distillation = Distillation::from(teacher).term(0.7, Distiller::soft_targets(2.0)).hard_labels(0.3);
        distil(&distillation, &mut student).unwrap();
        student
    };
    let by_network = by(&teacher);
    // The products of a batch and of all samples at once may differ in the last bit.
    for other in [by(&recorded), by(&foreign)] {
        for ((name, a), (_, b)) in by_network.state().into_iter().zip(other.state()) {
            assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6), "{name}");
        }
    }
    let mut student = student(2);
    let at_layer = Distillation::from(&recorded).term_at("1", "3", 1.0, Distiller::logits());
    assert!(matches!(distil(&at_layer, &mut student), Err(Error::Term { .. })), "outputs have no layers");
}

#[test]
fn a_student_that_is_its_teacher_stays_where_it_is() {
    let teacher = teacher();
    let mut student = teacher.clone();
    let distillation = Distillation::from(&teacher)
        .term(1.0, Distiller::soft_targets(4.0))
        .term(1.0, Distiller::logits())
        .term_at("3", "3", 1.0, Distiller::logits());
    let report = distil(&distillation, &mut student).unwrap();
    for ((name, a), (_, b)) in student.state().into_iter().zip(teacher.state()) {
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6), "{name}");
    }
    assert!(report.history.losses.iter().all(|loss| loss.abs() < 1e-9), "{:?}", report.history.losses);
}

#[test]
fn a_pruned_student_stays_pruned() {
    let teacher = teacher();
    let mut student = student(2);
    Recipe::new().prune("*", Pruner::magnitude(0.5)).apply(&mut student).unwrap();
    let masks: Vec<_> = student.masks().into_iter().map(|(_, mask)| mask.clone()).collect();
    let before = student.clone();
    distil(&Distillation::from(&teacher).term(1.0, Distiller::soft_targets(2.0)), &mut student).unwrap();
    assert!(student != before, "it learned");
    assert_eq!(student.masks().into_iter().map(|(_, mask)| mask.clone()).collect::<Vec<_>>(), masks);
    let zeros = |network: &Network| network.parameter("0.weight").unwrap().iter().filter(|w| **w == 0.0).count();
    assert_eq!((zeros(&student), zeros(&before)), (24, 24));
}

#[test]
fn weights_follow_their_schedules() {
    let teacher = teacher();
    let distillation = Distillation::from(&teacher)
        .term(Schedule::linear(0.0, 3.0), Distiller::logits())
        .hard_labels(Schedule::cosine(1.0, 0.0));
    let report = distil(&distillation, &mut student(2)).unwrap();
    let [labels, logits] = &report.parts[..] else { panic!("two parts") };
    assert_eq!((labels.name.as_str(), logits.name.as_str()), ("labels", "term 0, on the outputs"));
    for (found, expected) in logits.factors.iter().zip([1.0, 2.0, 3.0]) {
        assert!((found - expected).abs() < 1e-9);
    }
    for (found, expected) in labels.factors.iter().zip([0.75, 0.25, 0.0]) {
        assert!((found - expected).abs() < 1e-9);
    }
}

#[test]
fn balanced_terms_have_gradients_in_the_ratio_of_their_weights() {
    let (teacher, data) = (teacher(), data());
    let distillation = Distillation::from(&teacher)
        .term(1.0, Distiller::soft_targets(4.0))
        .term_at("1", "3", 0.5, Distiller::logits())
        .balanced(1);
    let one = Training::new(1).batch_size(50);
    let report =
        distillation.train_with(&one, &mut student(2), &data, &mut Sgd::new(0.5), &mut (), &mut go_on).unwrap();
    // The gradient norms of each part by itself, by hand.
    let network = student(2);
    let trace = network.trace(data.inputs(), Mode::Evaluation).unwrap();
    let of_teacher = teacher.trace(data.inputs(), Mode::Evaluation).unwrap();
    let narrow = |loss: Loss| loss.gradient.mapv(|x| x as f32);
    let norm = |output: &ArrayD<f32>, layers: &[(String, ArrayD<f32>)]| -> f64 {
        let gradients = network.backward_with(&trace, output, layers).unwrap().parameters;
        gradients.iter().flat_map(|(_, g)| g).map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt()
    };
    let soft = Distiller::soft_targets(4.0).apply(&Signals::new(&trace.output(), &of_teacher.output())).unwrap();
    let (student_hidden, teacher_hidden) = (trace.output_of("1").unwrap(), of_teacher.output_of("3").unwrap());
    let hidden = Distiller::logits().apply(&Signals::new(&student_hidden, &teacher_hidden)).unwrap();
    let zeros = ArrayD::zeros(trace.output().shape());
    let (first, second) = (norm(&narrow(soft), &[]), norm(&zeros, &[("1".into(), narrow(hidden))]));
    let [outputs, at] = &report.parts[..] else { panic!("two parts") };
    assert_eq!(outputs.factors, [1.0]);
    assert!((at.factors[0] * second / (outputs.factors[0] * first) - 0.5).abs() < 1e-5);
}

#[test]
fn a_chain_is_one_distillation_after_the_other() {
    let (teacher, data) = (teacher(), data());
    fn terms(teacher: &Network) -> Distillation<'_> {
        Distillation::from(teacher).term(0.9, Distiller::soft_targets(4.0)).hard_labels(0.1)
    }
    let (mut assistant, mut last) = (student(2), student(3));
    let mut seen = vec![];
    let reports = terms(&teacher)
        .chain(&training(), &mut [&mut assistant, &mut last], &data, || Sgd::new(0.1), &mut |index, at| {
            seen.push((index, at.step()));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((reports.len(), seen.len(), seen[0], seen[23]), (2, 24, (0, 0), (1, 11)));
    let (mut by_hand, mut last_by_hand) = (student(2), student(3));
    distil(&terms(&teacher), &mut by_hand).unwrap();
    distil(&terms(&by_hand), &mut last_by_hand).unwrap();
    assert_eq!((&assistant, &last), (&by_hand, &last_by_hand));
    let nobody =
        terms(&teacher).chain(&training(), &mut [], &data, || Sgd::new(0.1), &mut |_, _| ControlFlow::Continue(()));
    assert!(matches!(nobody, Err(Error::Empty { .. })));
    let (mut one, mut other) = (student(2), student(3));
    let of_another = terms(&teacher).teacher(&last).term_at_teacher(1, "1", "1", 1.0, Distiller::logits());
    let mut both = [&mut one, &mut other];
    let chained =
        of_another.chain(&training(), &mut both, &data, || Sgd::new(0.1), &mut |_, _| ControlFlow::Continue(()));
    assert!(matches!(chained, Err(Error::Conflict { .. })) && one == student(2));
}

#[test]
fn peers_see_a_batch_before_any_of_them_steps() {
    let data = data();
    let (mut one, mut other) = (student(2), student(3));
    let step = Training::new(1).batch_size(50);
    let (mut first, mut second) = (Sgd::new(0.5), Sgd::new(0.5));
    let mut optimizers: [&mut dyn Optimizer; 2] = [&mut first, &mut second];
    let histories =
        Mutual::new().train(&step, &mut [&mut one, &mut other], &data, &mut optimizers, &mut go_on).unwrap();
    let (one_before, other_before) = (student(2), student(3));
    for (network, peer, trained, history) in
        [(&one_before, &other_before, &one, &histories[0]), (&other_before, &one_before, &other, &histories[1])]
    {
        use tersor::nn::Loss as _;
        let trace = network.trace(data.inputs(), Mode::Evaluation).unwrap();
        let of_peer = peer.forward(data.inputs()).unwrap();
        let kl = Distiller::soft_targets(1.0).apply(&Signals::new(&trace.output(), &of_peer)).unwrap();
        let (hard, gradient) = CrossEntropy::new().evaluate(trace.output(), data.targets()).unwrap();
        assert!((history.losses[0] - (hard + kl.value)).abs() < 1e-6);
        let gradients = network.backward(&trace, &(gradient + kl.gradient.mapv(|x| x as f32))).unwrap();
        let mut by_hand = network.clone();
        by_hand.update(&mut Sgd::new(0.5), 0.5, &gradients.parameters).unwrap();
        for ((name, a), (_, b)) in trained.state().into_iter().zip(by_hand.state()) {
            assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6), "{name}");
        }
    }
}

#[test]
fn a_loss_of_ones_own_is_used_as_ours_are() {
    /// The mean absolute difference.
    #[derive(Debug)]
    struct Absolute;

    impl Distiller for Absolute {
        fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
            let [student, teacher] = signals.alike()?;
            let (difference, count) = (&student - &teacher, student.len() as f64);
            let value = difference.iter().map(|x| x.abs()).sum::<f64>() / count;
            Ok(Loss::new(value, difference.mapv(|x| if x == 0.0 { 0.0 } else { x.signum() / count })))
        }
    }

    let teacher = teacher();
    let distillation = Distillation::from(&teacher).term(1.0, Absolute).term_at("1", "3", 1.0, Absolute);
    let training = Training::new(30).batch_size(16);
    let mut student = student(2);
    let report =
        distillation.train_with(&training, &mut student, &data(), &mut Adam::new(1e-2), &mut (), &mut go_on).unwrap();
    let losses = &report.history.losses;
    assert!(losses[29] < 0.5 * losses[0], "{losses:?}");
}

#[test]
fn several_teachers_are_what_their_ensemble_says() {
    let (one, other) = (teacher(), student(7));
    let ensemble = || Ensemble::new(Average::Logits).weights([3.0, 1.0]);
    let logits = [one.forward(&inputs()).unwrap(), other.forward(&inputs()).unwrap()];
    let combined = Recorded::new(ensemble().combine(&logits, 4.0).unwrap().mapv(|z| z as f32)).unwrap();
    let soft = |distillation: Distillation<'_>| {
        let mut student = student(2);
        distil(&distillation.term(0.9, Distiller::soft_targets(4.0)).hard_labels(0.1), &mut student).unwrap();
        student
    };
    let by_both = soft(Distillation::from(&one).teacher(&other).ensemble(ensemble()));
    let by_combined = soft(Distillation::from(&combined));
    for ((name, a), (_, b)) in by_both.state().into_iter().zip(by_combined.state()) {
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5), "{name}");
    }
    assert_ne!(by_both, soft(Distillation::from(&one)));
}

#[test]
fn layers_of_other_widths_get_a_projection_that_is_trained() {
    let teacher = teacher();
    let training = Training::new(60).batch_size(25);
    let losses = |distiller: Box<dyn Distiller>| {
        let mut student = student(2);
        let distillation = Distillation::from(&teacher).term_at("1", "1", 1.0, distiller);
        let mut adam = Adam::new(1e-2);
        distillation
            .train_with(&training, &mut student, &data(), &mut adam, &mut (), &mut go_on)
            .unwrap()
            .history
            .losses
    };
    // Eight features of the student against sixteen of the teacher.
    for distiller in [Box::new(Distiller::hint()) as Box<dyn Distiller>, Box::new(Distiller::cosine())] {
        let name = format!("{distiller:?}");
        let losses = losses(distiller);
        assert!(losses[59] < 0.25 * losses[0], "{name}: {losses:?}");
    }
}

#[test]
fn a_transformer_learns_the_relations_of_another() {
    let x = Array3::from_shape_fn((24, 5, 8), |(i, j, k)| ((i * 40 + j * 8 + k) as f32 * 0.7).sin());
    let build = |seed, features, heads| {
        let network = Network::builder(seed).linear(8, features);
        let network =
            network.residual(|b| b.layer_norm(features).attention(features, heads).named("attn")).named("block");
        network.flatten().linear(5 * features, 3).build().unwrap()
    };
    let teacher = build(1, 16, 4);
    let data = Data::unlabelled(x).unwrap();
    let distil = |add: for<'a> fn(Distillation<'a>) -> Distillation<'a>| {
        let mut student = build(2, 8, 4);
        let training = Training::new(60).batch_size(24);
        let distillation = add(Distillation::from(&teacher));
        let history =
            distillation.train_with(&training, &mut student, &data, &mut Adam::new(1e-2), &mut (), &mut go_on);
        (student, history.unwrap().history.losses)
    };
    const PARTS: [&str; 3] = ["block.attn.query", "block.attn.key", "block.attn.value"];
    fn v2(distillation: Distillation<'_>) -> Distillation<'_> {
        PARTS.into_iter().fold(distillation, |all, part| all.term_at(part, part, 1.0, Distiller::relations(2)))
    }
    fn heads(distillation: Distillation<'_>) -> Distillation<'_> {
        let both = [PARTS[0], PARTS[1]];
        distillation.term_at(both, both, 1.0, Distiller::attentions(4))
    }
    for (what, (student, losses)) in [("MiniLMv2", distil(v2)), ("MiniLM", distil(heads))] {
        assert!(losses[59] < 0.3 * losses[0], "{what}: {losses:?}");
        // Nothing after the attention has a gradient.
        assert_eq!(student.parameter("3.weight").unwrap(), build(2, 8, 4).parameter("3.weight").unwrap(), "{what}");
    }
}

#[test]
fn a_foreign_teacher_may_know_its_layers() {
    #[derive(Debug)]
    struct Foreign(Network, usize);

    impl Teacher for Foreign {
        fn answer(&self, batch: &Batch<'_>, layers: &[String]) -> Result<Answer> {
            let (outputs, mut found) = self.0.forward_with(&batch.inputs, layers)?;
            found.truncate(self.1);
            Ok(Answer { outputs, layers: found })
        }
    }

    let by = |teacher: &dyn Teacher| {
        let mut student = student(2);
        let distillation = Distillation::from(teacher).term_at("1", "3", 1.0, Distiller::logits()).term_at(
            "1",
            "1",
            1.0,
            Distiller::similarity_preserving(),
        );
        distil(&distillation, &mut student).map(|_| student)
    };
    assert_eq!(by(&Foreign(teacher(), 9)).unwrap(), by(&teacher()).unwrap());
    assert!(matches!(by(&Foreign(teacher(), 1)), Err(Error::Shape { .. })));
}

#[test]
fn two_layers_of_other_widths_are_both_projected() {
    let teacher = teacher();
    let mut student = student(2);
    let distillation = Distillation::from(&teacher).term_at(["0", "1"], ["0", "1"], 1.0, Distiller::fsp()); // 8 against 16, twice
    let training = Training::new(60).batch_size(25);
    let mut adam = Adam::new(1e-2);
    let report = distillation.train_with(&training, &mut student, &data(), &mut adam, &mut (), &mut go_on).unwrap();
    let losses = report.history.losses;
    assert!(losses[59] < 0.25 * losses[0], "{losses:?}");
}

#[test]
fn labels_are_not_needed_where_they_have_no_weight() {
    let teacher = teacher();
    let unlabelled = Data::unlabelled(inputs()).unwrap();
    let soft = || Distillation::from(&teacher).term(1.0, Distiller::soft_targets(2.0));
    let run = |distillation: Distillation<'_>| {
        distillation.train_with(&training(), &mut student(2), &unlabelled, &mut Sgd::new(0.1), &mut (), &mut go_on)
    };
    assert!(run(soft()).is_ok());
    assert!(matches!(run(soft().hard_labels(0.1)), Err(Error::Conflict { .. })));
    assert!(matches!(student(2).accuracy(&unlabelled), Err(Error::Conflict { .. })));
}

#[cfg(feature = "rayon")]
#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let teacher = teacher();
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut student = student(2);
            let distillation = Distillation::from(&teacher)
                .term(0.9, Distiller::soft_targets(4.0))
                .term_at("1", "3", 1.0, Distiller::logits())
                .hard_labels(0.1);
            distil(&distillation, &mut student).unwrap();
            student
                .state()
                .iter()
                .flat_map(|(_, array)| array.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
                .collect::<Vec<_>>()
        })
    };
    let one = with(1);
    for threads in [2, 3, 7] {
        assert!(with(threads) == one, "{threads} threads");
    }
}

#[test]
fn bad_input_is_an_error_before_the_first_step() {
    let (teacher, initial) = (teacher(), student(2));
    let soft = || Distillation::from(&teacher).term(1.0, Distiller::soft_targets(2.0));
    let three = Recorded::new(Array2::zeros((50, 3))).unwrap();
    let short = Recorded::new(Array2::zeros((49, 2))).unwrap();
    let narrow = Network::builder(1).linear(5, 2).build().unwrap();
    type Case<'a> = (&'static str, Distillation<'a>, fn(&Error) -> bool);
    let cases: Vec<Case<'_>> = vec![
        ("no term", Distillation::from(&teacher), |e| matches!(e, Error::Conflict { .. })),
        (
            "a temperature",
            Distillation::from(&teacher).term(1.0, Distiller::soft_targets(0.0)),
            |e| matches!(e, Error::Term { source, .. } if matches!(**source, Error::Setting { setting: "temperature", .. })),
        ),
        (
            "a weight",
            soft().term(-1.0, Distiller::logits()),
            |e| matches!(e, Error::Term { source, .. } if matches!(**source, Error::Setting { .. })),
        ),
        ("the labels' weight", soft().hard_labels(f64::NAN), |e| matches!(e, Error::Setting { .. })),
        ("the measure", soft().balanced(0), |e| matches!(e, Error::Setting { .. })),
        (
            "a student's layer",
            soft().term_at("9", "1", 1.0, Distiller::logits()),
            |e| matches!(e, Error::Term { source, .. } if matches!(&**source, Error::UnknownName { known, .. } if known.len() == 3)),
        ),
        (
            "a teacher's layer",
            soft().term_at("1", "9", 1.0, Distiller::logits()),
            |e| matches!(e, Error::Term { source, .. } if matches!(&**source, Error::UnknownName { known, .. } if known.len() == 5)),
        ),
        (
            "a teacher",
            soft().term_at_teacher(1, "1", "1", 1.0, Distiller::logits()),
            |e| matches!(e, Error::Term { source, .. } if matches!(**source, Error::Setting { setting: "teacher", .. })),
        ),
        (
            "one layer against two",
            soft().term_at("1", ["1", "3"], 1.0, Distiller::logits()),
            |e| matches!(e, Error::Term { source, .. } if matches!(**source, Error::Conflict { .. })),
        ),
        (
            "other classes",
            Distillation::from(&three).term(1.0, Distiller::logits()),
            |e| matches!(e, Error::Term { source, .. } if matches!(**source, Error::Shape { .. })),
        ),
        ("too few outputs", Distillation::from(&short).term(1.0, Distiller::logits()), |e| {
            matches!(e, Error::Shape { .. })
        }),
        ("another input", Distillation::from(&narrow).term(1.0, Distiller::logits()), |e| {
            matches!(e, Error::Layer { .. })
        }),
    ];
    for (what, distillation, fits) in cases {
        let mut student = initial.clone();
        let mut steps = 0;
        let result = distillation.train(&mut student, &data(), &mut Sgd::new(0.1), 1, &mut |_| {
            steps += 1;
            ControlFlow::Continue(())
        });
        let error = result.err().unwrap_or_else(|| panic!("{what}: no error"));
        assert!(fits(&error), "{what}: {error:?}");
        assert!(student == initial && steps == 0, "{what}");
    }
    for outputs in [ArrayD::zeros(vec![3]), ArrayD::zeros(vec![0, 2]), ArrayD::from_elem(vec![1, 2], f32::NAN)] {
        assert!(Recorded::new(outputs).is_err());
    }
    let mut lonely = initial.clone();
    let alone = Mutual::new().train(&training(), &mut [&mut lonely], &data(), &mut [&mut Sgd::new(0.1)], &mut go_on);
    assert!(matches!(alone, Err(Error::Conflict { .. })));
    let (mut one, mut other) = (initial.clone(), narrow.clone());
    let mut two: [&mut dyn Optimizer; 2] = [&mut Sgd::new(0.1), &mut Sgd::new(0.1)];
    let peers = Mutual::new().train(&training(), &mut [&mut one, &mut other], &data(), &mut two[..1], &mut go_on);
    assert!(matches!(peers, Err(Error::Shape { .. })));
    let peers = Mutual::new().train(&training(), &mut [&mut one, &mut other], &data(), &mut two, &mut go_on);
    assert!(matches!(peers, Err(Error::Layer { .. })));
    assert!(one == initial && other == narrow);
}

/// A loss whose gradient is not what it should be.
#[derive(Debug)]
struct Careless(fn(Loss) -> Loss);

impl Distiller for Careless {
    fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
        Distiller::logits().apply(signals).map(self.0)
    }
}

#[test]
fn a_careless_loss_is_an_error_before_the_first_step() {
    let (teacher, initial) = (teacher(), student(2));
    let faults: [fn(Loss) -> Loss; 5] = [
        |loss| Loss::new(loss.value, ArrayD::zeros(vec![3, 3, 3])),
        |loss| Loss::new(loss.value, ArrayD::zeros(vec![1])),
        |loss| Loss::new(loss.value, loss.gradient.slice_axis(Axis(1), (..1).into()).to_owned()),
        |loss| loss.with_parameters(vec![ArrayD::zeros(vec![1])]),
        |loss| loss.with_second(ArrayD::zeros(vec![1])),
    ];
    for fault in faults {
        let mut student = initial.clone();
        let on_outputs = Distillation::from(&teacher).term(1.0, Careless(fault));
        let at_layers = Distillation::from(&teacher).term_at("1", "3", 1.0, Careless(fault));
        let (one, other) = (teacher.clone(), initial.clone());
        let several = Distillation::from(&one).teacher(&other).term(1.0, Careless(fault));
        for distillation in [on_outputs, at_layers, several] {
            assert!(matches!(distil(&distillation, &mut student), Err(Error::Term { .. })), "{distillation:?}");
        }
        let mut peer = self::student(3);
        let mut optimizers: [&mut dyn Optimizer; 2] = [&mut Sgd::new(0.1), &mut Sgd::new(0.1)];
        let mutual = Mutual::new().term(1.0, Careless(fault));
        let result = mutual.train(&training(), &mut [&mut student, &mut peer], &data(), &mut optimizers, &mut go_on);
        assert!(matches!(result, Err(Error::Term { .. })));
        assert_eq!(student, initial);
    }
}

#[test]
fn a_distillation_that_diverges_leaves_a_finite_student() {
    let teacher = teacher();
    let parts: [for<'a> fn(Distillation<'a>) -> Distillation<'a>; 3] = [
        |distillation| distillation.term_at("1", "3", 1e30, Distiller::logits()),
        |distillation| distillation.term_at("1", "1", 1e20, Distiller::hint()),
        |distillation| distillation.term(1e30, Distiller::logits()),
    ];
    for part in parts {
        let mut student = Network::builder(2).linear(6, 8).relu().linear(8, 2).build().unwrap();
        let distillation = part(Distillation::from(&teacher).term(0.9, Distiller::soft_targets(4.0)).hard_labels(0.1));
        let mut sgd = Sgd::new(1.0).momentum(0.9);
        let result = distillation.train(&mut student, &data(), &mut sgd, 50, &mut go_on);
        assert!(matches!(result, Err(Error::Diverged { .. })), "{result:?}");
        assert!(student.state().iter().all(|(_, array)| array.iter().all(|x| x.is_finite())));
    }
}

#[test]
fn labels_are_checked_before_the_first_step_where_they_are_read() {
    let (teacher, initial) = (teacher(), student(2));
    let labels = (0..50).map(|i| if i == 33 { 2 } else { i % 2 });
    let data = Data::classes(inputs(), labels).unwrap();
    let run = |distillation: Distillation<'_>| {
        let mut student = initial.clone();
        let result = distillation.train_with(&training(), &mut student, &data, &mut Sgd::new(0.1), &mut (), &mut go_on);
        (result, student)
    };
    let soft = || Distillation::from(&teacher).term(1.0, Distiller::soft_targets(2.0));
    assert!(run(soft()).0.is_ok(), "nobody reads them");
    let reads: [Distillation<'_>; 2] =
        [soft().term(1.0, Distiller::dkd()), soft().term(1.0, Distiller::mix().term(1.0, Distiller::hard_labels()))];
    for distillation in reads {
        let (result, student) = run(distillation);
        let Err(Error::Term { source, .. }) = result else { panic!("{result:?}") };
        assert!(matches!(*source, Error::Label { label: 2, index: 33, classes: 2 }), "{source}");
        assert_eq!(student, initial);
    }
    assert!(matches!(run(soft().hard_labels(0.1)).0, Err(Error::Label { label: 2, index: 33, classes: 2 })));
}

#[test]
fn samples_and_classes_weigh_what_they_are_said_to() {
    let teacher = teacher();
    let soft = || Distillation::from(&teacher).term(1.0, Distiller::soft_targets(2.0));
    let after = |distillation: Distillation<'_>| {
        let mut student = student(2);
        distil(&distillation, &mut student).map(|_| student)
    };
    assert_eq!(after(soft().sample_weights([1.0; 50]).class_weights([1.0; 2])).unwrap(), after(soft()).unwrap());
    assert_eq!(after(soft().sample_weights([0.0; 50])).unwrap(), student(2));
    assert_ne!(after(soft().class_weights([1.0, 3.0])).unwrap(), after(soft()).unwrap());
    // Each sample has its own weight, wherever the batches take it: only the last ten teach.
    let last: Vec<usize> = (40..50).collect();
    let weights = (0..50).map(|sample| if sample < 40 { 0.0 } else { 5.0 });
    let (mut weighted, mut alone) = (student(2), student(2));
    let one = |samples| Training::new(1).batch_size(samples);
    let some = data().select(&last).unwrap();
    soft()
        .sample_weights(weights)
        .train_with(&one(50), &mut weighted, &data(), &mut Sgd::new(0.1), &mut (), &mut go_on)
        .unwrap();
    soft().train_with(&one(10), &mut alone, &some, &mut Sgd::new(0.1), &mut (), &mut go_on).unwrap();
    for ((name, a), (_, b)) in weighted.state().into_iter().zip(alone.state()) {
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6), "{name}");
    }
    assert!(matches!(after(soft().sample_weights([1.0; 49])), Err(Error::Shape { what: "sample_weights", .. })));
    assert!(matches!(after(soft().sample_weights([-1.0; 50])), Err(Error::Setting { .. })));
    assert!(matches!(after(soft().class_weights([1.0; 3])), Err(Error::Term { .. })));
}

#[test]
fn a_part_is_told_of_the_steps_for_which_it_had_a_weight() {
    let teacher = teacher();
    // From the middle of the only epoch on; nothing moves.
    let late = Schedule::linear(0.0, 2.0).over(0.5, 0.5);
    let run = |distillation: Distillation<'_>| {
        let one = Training::new(1).batch_size(5);
        let same = data().select(&[7; 50]).unwrap();
        distillation.train_with(&one, &mut student(2), &same, &mut Sgd::new(0.0), &mut (), &mut go_on).unwrap().parts
    };
    let soft = || Distillation::from(&teacher).term(1.0, Distiller::soft_targets(2.0));
    let always = run(soft().term(2.0, Distiller::logits()));
    let later = run(soft().term(late, Distiller::logits()).hard_labels(Schedule::linear(1.0, 0.0)));
    assert!((later[2].losses[0] - always[1].losses[0]).abs() < 1e-9 && later[2].factors == [2.0]);
    assert_eq!((later[0].name.as_str(), later.len()), ("labels", 3), "trained on, though its weight ends at 0");
    assert_eq!((later[1].name.as_str(), later[2].name.as_str()), ("term 0, on the outputs", "term 1, on the outputs"));
    // A part is balanced as soon as it comes in.
    let always = run(soft().term(2.0, Distiller::logits()).balanced(1));
    let later = run(soft().term(late, Distiller::logits()).balanced(100));
    assert!(later[1].factors != [2.0] && (later[1].factors[0] - always[1].factors[0]).abs() < 1e-9);
}

#[test]
fn peers_have_callbacks_of_their_own() {
    let (mut one, mut other, data) = (student(2), student(3), data());
    let mut optimizers: [&mut dyn Optimizer; 2] = [&mut Sgd::new(0.1), &mut Sgd::new(0.1)];
    let mut best = BestEpoch::new(&data);
    let mut gradual = Recipe::new().prune("*", Pruner::magnitude(0.5)).gradually(tersor::prune::Schedule::cubic());
    let mutual = Mutual::new().term(0.5, Distiller::soft_targets(1.0)).term(0.5, Distiller::logits());
    let mut callbacks: [&mut dyn Callback; 2] = [&mut gradual, &mut best];
    let mut networks = [&mut one, &mut other];
    mutual.train_with(&training(), &mut networks, &data, &mut optimizers, &mut callbacks, &mut go_on).unwrap();
    assert_eq!((one.masks().len(), other.masks().len(), best.history().len()), (2, 0, 3));
    assert_eq!(other.accuracy(&data).unwrap(), best.best().unwrap().1);
    let mut optimizers: [&mut dyn Optimizer; 2] = [&mut Sgd::new(0.1), &mut Sgd::new(0.1)];
    let none = mutual.train_with(&training(), &mut [&mut one, &mut other], &data, &mut optimizers, &mut [], &mut go_on);
    assert!(matches!(none, Err(Error::Shape { .. })));
}

#[test]
fn a_cancelled_distillation_keeps_the_steps_it_did() {
    let teacher = teacher();
    let mut student = student(2);
    let soft = Distillation::from(&teacher).term(1.0, Distiller::soft_targets(2.0));
    let result = soft.train(&mut student, &data(), &mut Sgd::new(0.1), 5, &mut |_| ControlFlow::Break(()));
    assert!(matches!(result, Err(Error::Cancelled { done: 1, total: 5 })));
    assert_eq!(inputs().len_of(Axis(0)), 50);
}
