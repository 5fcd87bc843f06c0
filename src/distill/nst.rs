//! Neuron selectivity transfer: the distribution of what channels respond to.

use ndarray::{Array2, Array3, ArrayView2};

use super::{Distiller, Loss, Signals, maps::Maps, units::Units};
use crate::{error::Result, nn::positive};

/// Neuron selectivity transfer (Huang and Wang 2017): each channel's map, divided by its length, is one sample of where the
/// network's neurons respond, and the loss is the squared maximum mean discrepancy of the two sets of samples,
///
/// `mean k(s, s') + mean k(t, t') - 2 mean k(s, t)` over all pairs of channels, averaged over the batch.
///
/// It sees channels as a set: widths may differ, and no order of them matters. Images of different size are
/// [pooled](super#features). Unchanged when a channel is scaled by a positive number; a channel of zeros is at right angles
/// to every other, itself included, and gets no gradient.
///
/// | setting | default | range |
/// |---|---|---|
/// | `kernel` k | [`Kernel::Polynomial`] | |
///
/// The default is the authors' best and RepDistiller's (weight 50).
///
/// ```
/// use ndarray::array;
/// use tersor::{Distiller, Signals};
///
/// // The teacher's two channels are at right angles; the student's one is as the first. (batch, sequence, features)
/// let (student, teacher) = (array![[[2.0], [0.0]]], array![[[3.0, 0.0], [0.0, 1.0]]]);
/// let loss = Distiller::nst().apply(&Signals::new(&student, &teacher))?;
/// assert!((loss.value - (1.0 + 0.5 - 2.0 * 0.5)).abs() < 1e-12);
/// # Ok::<(), tersor::Error>(())
/// ```
///
/// # Errors
/// [`apply`](Distiller::apply) gives [`Error::Setting`](crate::Error::Setting) for the kernel,
/// [`Error::Rank`](crate::Error::Rank) for features of rank other than 2, 3 or 4,
/// [`Error::Conflict`](crate::Error::Conflict) for features of two kinds, [`Error::Shape`](crate::Error::Shape) for batches
/// or sequences of different length.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct Nst {
    kernel: Kernel,
}

/// How alike two channels are whose maps have the cosine `c = x . y`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Kernel {
    /// `c`: the loss is the squared difference of the channels' means.
    Linear,
    /// `c²`, the polynomial kernel of degree 2 without constant.
    #[default]
    Polynomial,
    /// `exp((c - 1) / σ²)`, which is `exp(-‖x - y‖² / 2σ²)` of vectors of length 1.
    Gaussian {
        /// σ², above 0. The authors take the mean of `‖x - y‖²`, at most 4.
        variance: f64,
    },
}

impl Kernel {
    fn check(self) -> Result<()> {
        match self {
            Kernel::Gaussian { variance } => positive("variance", variance),
            Kernel::Linear | Kernel::Polynomial => Ok(()),
        }
    }

    /// The mean of the kernel over pairs of rows, and its slopes for their cosines.
    fn mean(self, x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>) -> (f64, Array2<f64>) {
        let mut cosines = x.dot(&y.t());
        let share = 1.0 / cosines.len() as f64;
        let mut sum = 0.0;
        cosines.mapv_inplace(|c| {
            let (value, slope) = match self {
                Kernel::Linear => (c, 1.0),
                Kernel::Polynomial => (c * c, 2.0 * c),
                Kernel::Gaussian { variance } => {
                    let value = ((c - 1.0) / variance).exp();
                    (value, value / variance)
                }
            };
            sum += value;
            share * slope
        });
        (share * sum, cosines)
    }
}

impl Nst {
    /// With the polynomial kernel.
    pub fn new() -> Nst {
        Nst::default()
    }

    /// Sets the kernel.
    pub fn kernel(self, kernel: Kernel) -> Nst {
        Nst { kernel }
    }
}

impl Distiller for Nst {
    fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
        self.kernel.check()?;
        let [student, teacher] = Maps::of(signals)?;
        let [s, t] = [&student, &teacher].map(|maps| Units::of(maps.channel_rows().into_owned()));
        let [x, y] = [(&student, &s), (&teacher, &t)]
            .map(|(maps, units)| units.rows.to_shape(maps.values.dim()).expect("as many elements"));
        let batch = x.dim().0 as f64;
        let (mut value, mut gradient) = (0.0, Array3::zeros(x.dim()));
        for ((x, y), mut gradient) in x.outer_iter().zip(y.outer_iter()).zip(gradient.outer_iter_mut()) {
            let ((students, push), (teachers, _)) = (self.kernel.mean(x, x), self.kernel.mean(y, y));
            let (across, pull) = self.kernel.mean(x, y);
            value += (students + teachers - 2.0 * across) / batch;
            // Each channel stands on both sides of k(s, s'), on one of k(s, t), which counts twice.
            gradient.assign(&((push.dot(&x) - pull.dot(&y)) * (2.0 / batch)));
        }
        let gradient = gradient.into_shape_with_order(s.rows.dim()).expect("as many elements");
        signals.fitting(Loss::new(value, student.channel_rows_to_signal(s.backward(gradient))))
    }
}
