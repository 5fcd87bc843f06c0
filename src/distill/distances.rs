//! Distances between the samples of a batch.

use ndarray::{Array2, Axis};

use super::{samples::products, units::SMALLEST};

/// Of two samples closer than this, as a share of the largest distance from the centre, the distance is summed from their
/// differences: of their products too few digits are left.
const CLOSE: f64 = 1e-3;

/// Samples, their products and their distances: `n² · features` multiplications.
#[derive(Debug)]
pub(super) struct Distances<'a> {
    /// The samples.
    pub(super) rows: &'a Array2<f64>,
    /// The same, moved so that their mean is 0.
    centred: Array2<f64>,
    /// The products of all pairs of those.
    pub(super) products: Array2<f64>,
    /// The Euclidean distances of all pairs; 0 of those that coincide.
    pub(super) between: Array2<f64>,
    /// Whether a sample has others close by, though not in the same place.
    pub(super) crowded: Vec<bool>,
}

impl<'a> Distances<'a> {
    pub(super) fn of(rows: &'a Array2<f64>) -> Distances<'a> {
        let centred = rows - &rows.mean_axis(Axis(0)).expect("at least one sample");
        let products = products(&centred);
        let largest = products.diag().fold(0.0_f64, |largest, square| largest.max(*square));
        let (n, close) = (rows.nrows(), CLOSE * CLOSE * largest);
        let (mut between, mut crowded) = (Array2::zeros((n, n)), vec![false; n]);
        for i in 0..n {
            for j in 0..i {
                let mut square = products[[i, i]] + products[[j, j]] - 2.0 * products[[i, j]];
                if square <= close {
                    let differences = rows.row(i).into_iter().zip(rows.row(j)).map(|(x, y)| x - y);
                    square = differences.map(|d| d * d).sum();
                    let apart = square.sqrt() > SMALLEST;
                    crowded[i] |= apart;
                    crowded[j] |= apart;
                }
                let distance = square.sqrt();
                let distance = if distance > SMALLEST { distance } else { 0.0 };
                between[[i, j]] = distance;
                between[[j, i]] = distance;
            }
        }
        Distances { rows, centred, products, between, crowded }
    }

    /// The gradient for the samples where each pair pulls at both its ends: `Σ_j (P + Pᵀ)_ij (x_i - x_j)`.
    pub(super) fn pulled(&self, pulls: &Array2<f64>) -> Array2<f64> {
        let pulls = pulls + &pulls.t();
        let all = pulls.sum_axis(Axis(1)).insert_axis(Axis(1));
        &self.centred * &all - pulls.dot(&self.centred)
    }
}
