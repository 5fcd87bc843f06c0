//! Distillation without `nn`: a softmax regression written by hand over `ndarray` takes its loss and gradient from a
//! [`Distiller`], as any other framework would. The teacher could come from anywhere too: only its logits are used.

use std::{fs, ops::ControlFlow, path::Path};

use ndarray::{Array1, Array2, Axis, s};
use tersor::{
    Distiller, Signals,
    nn::{Adam, Data, Network, Training},
};

type Problem = Box<dyn std::error::Error>;

/// `z = x W + b`.
struct Regression {
    weight: Array2<f32>,
    bias: Array1<f32>,
}

impl Regression {
    fn logits(&self, x: &Array2<f32>) -> Array2<f32> {
        x.dot(&self.weight) + &self.bias
    }

    /// Gradient descent on whatever the loss says of the logits.
    fn fit(x: &Array2<f32>, loss: impl Fn(&Array2<f32>) -> tersor::Result<Array2<f32>>) -> tersor::Result<Regression> {
        let mut model = Regression { weight: Array2::zeros((x.ncols(), 10)), bias: Array1::zeros(10) };
        for _ in 0..400 {
            let gradient = loss(&model.logits(x))?;
            model.weight.scaled_add(-0.5, &x.t().dot(&gradient));
            model.bias.scaled_add(-0.5, &gradient.sum_axis(Axis(0)));
        }
        Ok(model)
    }

    fn accuracy(&self, data: &Data) -> Result<f64, Problem> {
        let x = data.inputs().to_shape((data.len(), self.weight.nrows()))?.to_owned();
        Ok(100.0 * data.accuracy_of(&self.logits(&x))?)
    }
}

fn main() -> Result<(), Problem> {
    let (train, test) = digits()?;
    let mut teacher = Network::builder(1).linear(64, 128).relu().linear(128, 10).build()?;
    let go_on = &mut |_: &_| ControlFlow::Continue(());
    Training::new(30).train(&mut teacher, &train, &mut Adam::new(2e-3), go_on)?;
    println!("teacher 64-128-10, all labels      {:6.2} %", 100.0 * teacher.accuracy(&test)?);

    let x = train.inputs().to_shape((train.len(), 64))?.to_owned();
    let teacher_logits = teacher.forward(&x)?;
    let few = x.slice(s![..100, ..]).to_owned();
    let tersor::nn::Targets::Classes(labels) = train.targets() else { return Err("digits have labels".into()) };

    let alone = Regression::fit(&few, |logits| {
        let signals = Signals::new(logits, logits).labels(&labels[..100]);
        gradient(Distiller::hard_labels().apply(&signals)?)
    })?;
    println!("regression, 100 labels             {:6.2} %", alone.accuracy(&test)?);
    let taught = Regression::fit(&x, |logits| {
        gradient(Distiller::soft_targets(4.0).apply(&Signals::new(logits, &teacher_logits))?)
    })?;
    println!("regression, the teacher, no labels {:6.2} %", taught.accuracy(&test)?);
    let both = Distiller::mix().term(0.9, Distiller::soft_targets(4.0)).term(0.1, Distiller::hard_labels());
    let mixed =
        Regression::fit(&x, |logits| gradient(both.apply(&Signals::new(logits, &teacher_logits).labels(labels))?))?;
    println!("regression, both, all labels       {:6.2} %", mixed.accuracy(&test)?);
    Ok(())
}

/// Losses compute in f64; this framework is of f32.
fn gradient(loss: tersor::distill::Loss) -> tersor::Result<Array2<f32>> {
    Ok(loss.gradient.mapv(|slope| slope as f32).into_dimensionality().expect("as many axes as the logits"))
}

/// The digits that come with the repository; every fifth is held out.
fn digits() -> Result<(Data, Data), Problem> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let pixels = fs::read(folder.join("digits_images_u8_1797x64.bin"))?;
    let labels = fs::read(folder.join("digits_labels_u8_1797.bin"))?;
    let images = Array2::from_shape_vec((labels.len(), 64), pixels.iter().map(|p| f32::from(*p) / 16.0).collect())?;
    let all = Data::classes(images, labels.into_iter().map(usize::from))?;
    let (test, train): (Vec<_>, Vec<_>) = (0..all.len()).partition(|i| i % 5 == 0);
    Ok((all.select(&train)?, all.select(&test)?))
}
