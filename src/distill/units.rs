//! Vectors divided by their lengths, and the way back.

use ndarray::{Array, Array2, Dimension, Zip, aview1};

/// What is smaller everywhere counts as zero: its direction says nothing, and its inverse would overflow.
pub(super) const SMALLEST: f64 = 1e-150;

/// The sum of the squares of all elements.
pub(super) fn sum_of_squares<D: Dimension>(array: &Array<f64, D>) -> f64 {
    let numbers = aview1(array.as_slice_memory_order().expect("owned arrays are contiguous"));
    numbers.dot(&numbers)
}

/// Rows of length 1, but for those that were zero, which stay so: their gradient is zero too.
#[derive(Debug)]
pub(super) struct Units {
    /// The rows.
    pub(super) rows: Array2<f64>,
    /// What they were divided by, 0 for zero rows.
    lengths: Vec<f64>,
}

impl Units {
    pub(super) fn of(mut rows: Array2<f64>) -> Units {
        let lengths = rows.rows_mut().into_iter().map(|mut row| {
            // By the largest first, so that no square is lost.
            let largest = row.fold(0.0_f64, |largest, x| largest.max(x.abs()));
            if largest <= SMALLEST {
                row.fill(0.0);
                return 0.0;
            }
            row /= largest;
            let length = row.dot(&row).sqrt();
            row /= length;
            length * largest
        });
        let lengths = lengths.collect();
        Units { rows, lengths }
    }

    /// The gradient for what was divided, given that for the unit rows: `(g - u (u . g)) / length`.
    pub(super) fn backward(&self, mut gradient: Array2<f64>) -> Array2<f64> {
        Zip::from(gradient.rows_mut()).and(self.rows.rows()).and(&self.lengths[..]).for_each(|mut g, u, &length| {
            if length == 0.0 {
                return g.fill(0.0);
            }
            let along = u.dot(&g);
            g.zip_mut_with(&u, |g, u| *g = (*g - along * u) / length);
        });
        gradient
    }
}
