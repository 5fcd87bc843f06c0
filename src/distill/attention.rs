//! Attention transfer: where the features are large.

use ndarray::{Array2, Array3, Axis, Zip};

use super::{
    Distiller, Loss, Signals,
    maps::Maps,
    units::{SMALLEST, Units, sum_of_squares},
};
use crate::error::{Error, Result};

/// Attention transfer (Zagoruyko and Komodakis 2017). A sample's attention map is how large its features are at each
/// position, `a = mean over channels |F|^p`, and `q = a / ‖a‖`; the loss is the mean over batch and positions of
/// `(q_s - q_t)²`, as in the authors' code. Widths may differ; images of different size are [pooled](super#features) first.
///
/// | setting | default | range |
/// |---|---|---|
/// | `power` p | 2 | 1 to 100 |
/// | `paper`: the mean over the batch of `‖q_s - q_t‖`, as in the paper | as in the code | |
///
/// The default is that of RepDistiller and mdistiller (weight 1000), `paper` is torchdistill's `mode="paper"`. Neither
/// changes when features are scaled. A sample of all-zero features has the map 0 and gets no gradient, and neither does in
/// the paper's form one whose maps are equal. The features of a dense layer, (batch, features), are themselves positions, of
/// one channel: as many of the student's as of the teacher's.
///
/// ```
/// use ndarray::array;
/// use tersor::{Distiller, Signals};
///
/// let (student, teacher) = (array![[[3.0], [4.0]]], array![[[2.0, 0.0], [0.0, 1.0]]]); // (batch, sequence, features)
/// let signals = Signals::new(&student, &teacher);
/// let (q_s, q_t) = ([9.0 / 337_f64.sqrt(), 16.0 / 337_f64.sqrt()], [4.0 / 17_f64.sqrt(), 1.0 / 17_f64.sqrt()]);
/// let squares = (q_s[0] - q_t[0]).powi(2) + (q_s[1] - q_t[1]).powi(2);
/// assert!((Distiller::attention().apply(&signals)?.value - squares / 2.0).abs() < 1e-12);
/// assert!((Distiller::attention().paper().apply(&signals)?.value - squares.sqrt()).abs() < 1e-12);
/// # Ok::<(), tersor::Error>(())
/// ```
///
/// # Errors
/// [`apply`](Distiller::apply) gives [`Error::Setting`] for the power, [`Error::Rank`] for features of rank other than 2, 3
/// or 4, [`Error::Conflict`] for features of two kinds, [`Error::Shape`] for batches or sequences of different length.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Attention {
    power: u32,
    paper: bool,
}

impl Default for Attention {
    fn default() -> Attention {
        Attention { power: 2, paper: false }
    }
}

impl Attention {
    /// Of squares, as in the authors' code.
    pub fn new() -> Attention {
        Attention::default()
    }

    /// Sets the power p: the higher, the more a map is about its largest features.
    pub fn power(self, power: u32) -> Attention {
        Attention { power, ..self }
    }

    /// Takes the norm of each sample's difference instead of the mean square.
    pub fn paper(self) -> Attention {
        Attention { paper: true, ..self }
    }
}

impl Distiller for Attention {
    fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
        if !(1..=100).contains(&self.power) {
            let value = f64::from(self.power);
            return Err(Error::Setting { setting: "power", value, bound: "between 1 and 100" });
        }
        let [student, teacher] = [signals.student()?, signals.teacher()?];
        if student.ndim() == 2 && teacher.ndim() == 2 {
            // Features of one position: each is a position of one channel.
            let [student, teacher] = signals.alike()?;
            let as_maps = signals.instead(student.insert_axis(Axis(2)), teacher.insert_axis(Axis(2)));
            let loss = self.apply(&as_maps)?;
            return Ok(Loss { gradient: loss.gradient.remove_axis(Axis(2)), ..loss });
        }
        let power = self.power as i32;
        let [student, teacher] = Maps::of(signals)?;
        let [s, t] = [&student, &teacher].map(|maps| Attended::of(maps.values.to_owned(), power));
        let mut difference = &s.map.rows - &t.map.rows;
        let (batch, elements) = (difference.nrows() as f64, difference.len() as f64);
        let value = if self.paper {
            let norms = difference.rows_mut().into_iter().map(|mut row| {
                let norm = row.dot(&row).sqrt();
                row /= if norm > 0.0 { norm * batch } else { 1.0 };
                norm
            });
            norms.sum::<f64>() / batch
        } else {
            let sum = sum_of_squares(&difference);
            difference *= 2.0 / elements;
            sum / elements
        };
        signals.fitting(Loss::new(value, student.to_signal(s.backward(difference, power))))
    }
}

/// The attention map of each sample, and what the way back needs.
struct Attended {
    /// (batch, positions).
    map: Units,
    /// The features divided by each sample's largest, which no map depends on.
    features: Array3<f64>,
    /// What they were multiplied by, 0 for zero features.
    scales: Vec<f64>,
}

impl Attended {
    fn of(mut features: Array3<f64>, power: i32) -> Attended {
        let scales = features.outer_iter_mut().map(|mut sample| {
            let largest = sample.fold(0.0_f64, |largest, x| largest.max(x.abs()));
            let scale = if largest > SMALLEST { 1.0 / largest } else { 0.0 };
            sample *= scale;
            scale
        });
        let scales = scales.collect();
        let energy = features.mapv(|x| to_power(x.abs(), power)).mean_axis(Axis(1)).expect("at least one channel");
        Attended { map: Units::of(energy), features, scales }
    }

    /// The gradient for the features, given that for the maps.
    fn backward(self, gradient: Array2<f64>, power: i32) -> Array3<f64> {
        let Attended { map, mut features, scales } = self;
        let gradient = map.backward(gradient);
        let share = f64::from(power) / features.len_of(Axis(1)) as f64;
        for ((mut sample, slopes), scale) in features.outer_iter_mut().zip(gradient.outer_iter()).zip(scales) {
            for mut channel in sample.outer_iter_mut() {
                Zip::from(&mut channel).and(&slopes).for_each(|x, slope| {
                    // |x|^p has no slope at 0, be p 1 or more.
                    let rise = if *x == 0.0 { 0.0 } else { to_power(x.abs(), power - 1).copysign(*x) };
                    *x = slope * share * scale * rise;
                });
            }
        }
        features
    }
}

/// `x^p`, fast where it is mostly used.
fn to_power(x: f64, p: i32) -> f64 {
    match p {
        0 => 1.0,
        1 => x,
        2 => x * x,
        p => x.powi(p),
    }
}
