//! Optimizers' trajectories and learning-rate schedules: PyTorch's.

use ndarray::{Array1, ArrayD, Axis};
use tersor::nn::{Adam, AdamW, Optimizer, Schedule, Sgd, Update};

use crate::case::{Case, family};

fn optimizer(case: &Case) -> Box<dyn Optimizer> {
    let rate = case.number("lr").unwrap();
    let decay = case.number("weight_decay");
    let is_on = |key: &str| case.params[key].as_bool().unwrap_or(false);
    let name = case.id.trim_start_matches("optim/");
    if name.starts_with("sgd") {
        let sgd = Sgd::new(rate).momentum(case.number("momentum").unwrap_or(0.0));
        let sgd = sgd.dampening(case.number("dampening").unwrap_or(0.0)).weight_decay(decay.unwrap_or(0.0));
        return Box::new(if is_on("nesterov") { sgd.nesterov() } else { sgd });
    }
    let betas = case.params["betas"].as_array().map(|betas| (betas[0].as_f64().unwrap(), betas[1].as_f64().unwrap()));
    let known = ["lr", "weight_decay", "betas", "eps", "amsgrad"];
    assert!(case.params.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())), "{}", case.id);
    if name.starts_with("adamw") {
        let adam = AdamW::new(rate);
        return Box::new(if let Some(decay) = decay { adam.weight_decay(decay) } else { adam });
    }
    assert!(name.starts_with("adam"), "{}: no such optimizer", case.id);
    let adam = Adam::new(rate).weight_decay(decay.unwrap_or(0.0)).eps(case.number("eps").unwrap_or(1e-8));
    let adam = if let Some((first, second)) = betas { adam.betas(first, second) } else { adam };
    Box::new(if is_on("amsgrad") { adam.amsgrad() } else { adam })
}

fn check_optimizer(case: &Case) {
    let mut optimizer = optimizer(case);
    let rate = optimizer.learning_rate();
    let mut values = case.input("p0");
    let mut trajectory: Vec<ArrayD<f64>> = Vec::new();
    for gradient in case.input("grads").outer_iter() {
        let (values_slice, gradient) = (values.as_slice_mut().unwrap(), gradient.to_slice().unwrap());
        optimizer.step(rate, &mut [Update { name: "0.weight", values: values_slice, gradient, mask: None }]).unwrap();
        trajectory.push(values.mapv(f64::from));
    }
    let views: Vec<_> = trajectory.iter().map(|values| values.view()).collect();
    case.check("trajectory", &ndarray::stack(Axis(0), &views).unwrap());
}

fn check_schedule(case: &Case) {
    let number = |key: &str| case.number(key).unwrap();
    let schedule = match case.id.as_str() {
        "optim/lr_step" => Schedule::Step { every: number("step_size") as usize, factor: number("gamma") },
        "optim/lr_cosine" => Schedule::Cosine { epochs: number("T_max") as usize, minimum: number("eta_min") },
        "optim/lr_exp" => Schedule::Exponential { factor: number("gamma") },
        other => panic!("no such schedule: {other}"),
    };
    let rates = (0..case.output("lr").len()).map(|epoch| schedule.learning_rate(number("lr0"), epoch));
    case.check("lr", &Array1::from_iter(rates).into_dyn());
}

#[test]
fn every_optimizer_and_schedule_goes_where_pytorch_goes() {
    for case in family("optim") {
        match case.op.as_str() {
            "optimizer" => check_optimizer(&case),
            "lr_schedule" => check_schedule(&case),
            other => panic!("{}: no such operation: {other}", case.id),
        }
    }
}
