//! Distillation losses on outputs, as torch and the papers' authors have them: values and gradients.

use ndarray::{ArrayD, Axis, arr0};
use tersor::{
    Distiller, Signals,
    distill::{Average, Ensemble, Loss},
    nn::{self, Targets},
};

use crate::case::{Case, family};

fn check(case: &Case, loss: &Loss) {
    case.check("loss", &arr0(loss.value).into_dyn());
    case.check("grad_0", &loss.gradient);
}

#[test]
fn losses_on_outputs_are_those_of_the_references() {
    let mut run = [
        ("kd_loss", 0),
        ("kd_mix", 0),
        ("mse_logits", 0),
        ("cross_entropy", 0),
        ("dkd_loss", 0),
        ("multi_teacher_kd", 0),
    ];
    for case in family("distill") {
        let Some((_, count)) = run.iter_mut().find(|(op, _)| *op == case.op) else { continue };
        *count += 1;
        let temperature = case.number("temperature").unwrap_or(1.0);
        let labels: Vec<usize> = match case.has_input("labels") {
            true => case.integers("labels").into_iter().map(|label| label as usize).collect(),
            false => vec![],
        };
        let apply = |distiller: &dyn Distiller| {
            let (student, teacher) = (case.input("student"), case.input("teacher"));
            let signals = Signals::new(&student, &teacher);
            let labelled = if labels.is_empty() { signals } else { signals.labels(&labels) };
            check(&case, &distiller.apply(&labelled).unwrap());
        };
        match case.op.as_str() {
            "kd_loss" => apply(&Distiller::soft_targets(temperature)),
            "kd_mix" => {
                let alpha = case.number("alpha").unwrap();
                let soft = Distiller::mix().term(alpha, Distiller::soft_targets(temperature));
                apply(&soft.term(1.0 - alpha, Distiller::hard_labels()));
            }
            "mse_logits" => apply(&Distiller::logits()),
            "dkd_loss" => {
                let [alpha, beta] = ["alpha", "beta"].map(|key| case.number(key).unwrap());
                apply(&Distiller::dkd().alpha(alpha).beta(beta).temperature(temperature));
            }
            "cross_entropy" => cross_entropy(&case, &labels),
            "multi_teacher_kd" => several_teachers(&case, temperature),
            other => panic!("{}: nothing runs {other}", case.id),
        }
    }
    let all = [
        ("kd_loss", 12),
        ("kd_mix", 15),
        ("mse_logits", 3),
        ("cross_entropy", 9),
        ("dkd_loss", 7),
        ("multi_teacher_kd", 6),
    ];
    assert_eq!(run, all);
}

/// Here and in [`nn`], which training without a teacher uses.
fn cross_entropy(case: &Case, labels: &[usize]) {
    let (logits, smoothing) = (case.input("logits"), case.number("label_smoothing").unwrap());
    let loss =
        Distiller::hard_labels().label_smoothing(smoothing).apply(&Signals::new(&logits, &logits).labels(labels));
    check(case, loss.as_ref().unwrap());
    let of_training = nn::CrossEntropy::new().label_smoothing(smoothing);
    let (value, gradient) =
        nn::Loss::evaluate(&of_training, logits.view(), &Targets::Classes(labels.to_vec())).unwrap();
    check(case, &Loss::new(value, gradient.mapv(f64::from)));
}

fn several_teachers(case: &Case, temperature: f64) {
    let (student, teachers) = (case.input("student"), case.input("teachers"));
    let teachers: Vec<ArrayD<f32>> = teachers.axis_iter(Axis(0)).map(|teacher| teacher.to_owned()).collect();
    assert_eq!(teachers.len(), 3);
    let ensemble = match case.text("average") {
        "probabilities" => Ensemble::new(Average::Probabilities),
        "logits" => Ensemble::new(Average::Logits),
        "losses" => {
            let weights = case.params["weights"].as_array().unwrap().iter().map(|weight| weight.as_f64().unwrap());
            Ensemble::new(Average::Losses).weights(weights)
        }
        other => panic!("{}: an average of {other}", case.id),
    };
    let soft_targets = Distiller::soft_targets(temperature);
    check(case, &ensemble.apply(&soft_targets, &Signals::new(&student, &student), &teachers).unwrap());
    if case.text("average") != "losses" {
        let combined = ensemble.combine(&teachers, temperature).unwrap();
        check(case, &soft_targets.apply(&Signals::new(&student, &combined)).unwrap());
    }
}
