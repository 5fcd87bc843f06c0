//! How far a quantized tensor is from the numbers it stands for.

use super::{Dense, QuantizedTensor, Weights, quantized::PIECE};
use crate::{
    error::{Error, Result},
    kernels::parallel,
};

/// Error of a quantized tensor against the original.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distortion {
    /// Mean squared error, weighed by the [importance](super::Weighted) where there is one.
    pub mse: f64,
    /// Signal to quantization noise, `10 log10(sum x^2 / sum (x - x~)^2)`, in dB; infinite where nothing was lost.
    pub sqnr_db: f64,
    /// The largest absolute error.
    pub largest: f64,
}

impl QuantizedTensor {
    /// Compares with the original.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ, and what is wrong with the original itself.
    ///
    /// ```
    /// use ndarray::array;
    /// use tersor::Quantizer;
    ///
    /// let w = array![-1.0_f32, 0.25, 1.0];
    /// let error = Quantizer::ternary().apply(&w)?.distortion(&w)?;
    /// assert!((error.mse - 0.0625 / 3.0).abs() < 1e-7 && error.largest == 0.25);
    /// # Ok::<(), tersor::Error>(())
    /// ```
    pub fn distortion(&self, original: &dyn Weights) -> Result<Distortion> {
        let original = Dense::new(original)?;
        if original.shape() != self.shape() {
            let (expected, found) = (self.shape().to_vec(), original.shape().to_vec());
            return Err(Error::Shape { what: "the original", expected, found });
        }
        let (values, importance) = (original.values(), original.importance());
        // (weighted squared error, importance, squared error, squared signal, largest error) of each piece, in order.
        let pieces = parallel::map(values.len().div_ceil(PIECE), |index| {
            let range = index * PIECE..values.len().min((index + 1) * PIECE);
            let mut decoded = vec![0.0; range.len()];
            self.decode(range.start, &mut decoded);
            let (mut weighted, mut total, mut noise, mut signal, mut largest) = (0.0, 0.0, 0.0, 0.0, 0f64);
            for (i, decoded) in range.zip(decoded) {
                let (x, weight) = (f64::from(values[i]), importance.map_or(1.0, |w| f64::from(w[i])));
                let error = (x - f64::from(decoded)).abs();
                weighted += weight * error * error;
                total += weight;
                noise += error * error;
                signal += x * x;
                largest = largest.max(error);
            }
            [weighted, total, noise, signal, largest]
        });
        let sum = |part: usize| pieces.iter().map(|piece| piece[part]).sum::<f64>();
        Ok(Distortion {
            mse: sum(0) / sum(1),
            sqnr_db: if sum(2) == 0.0 { f64::INFINITY } else { 10.0 * (sum(3) / sum(2)).log10() },
            largest: pieces.iter().fold(0.0, |largest, piece| largest.max(piece[4])),
        })
    }
}
