//! `softmax(q kᵀ / √d) v`, head by head: what attention does between its products.

use std::array;

use ndarray::{Array5, ArrayD, ArrayViewD, Axis};

use super::{
    dense::{self, for_each_sample, slice},
    product::{add_product, matrix},
    shape::expect_shape,
    softmax,
};
use crate::{Error, Result};

/// Scaled dot-product attention (Vaswani et al. 2017) over arrays of shape (batch, sequence, heads · head_dim), in which
/// the features of a head are neighbours.
///
/// One head of one sample is a piece of work. Its sequence² probabilities last no longer than that: backward computes
/// them again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScaledDotProduct {
    pub(super) heads: usize,
    pub(super) head_dim: usize,
    /// Whether position `i` sees the positions `0..=i` alone.
    pub(super) causal: bool,
}

impl ScaledDotProduct {
    /// Shares `inner` features out to so many heads.
    pub(crate) fn new(inner: usize, heads: usize, causal: bool) -> Result<ScaledDotProduct> {
        if heads == 0 || !inner.is_multiple_of(heads) {
            let bound = "at least 1 and a divisor of the rows of query.weight";
            return Err(Error::Setting { setting: "heads of attention", value: heads as f64, bound });
        }
        Ok(ScaledDotProduct { heads, head_dim: inner / heads, causal })
    }

    /// Features of all heads together.
    pub(super) fn inner(&self) -> usize {
        self.heads.saturating_mul(self.head_dim)
    }

    /// The heads' outputs `softmax(q_h k_hᵀ / √head_dim) v_h`, side by side.
    pub(crate) fn forward(&self, [q, k, v]: [ArrayViewD<'_, f32>; 3]) -> Result<ArrayD<f32>> {
        let [batch, sequence, _] = expect_sequences("query of attention", q.shape())?;
        for x in [&q, &k, &v] {
            expect_shape("query, key or value of attention", &[batch, sequence, self.inner()], x.shape())?;
        }
        let [q, k, v] = [q, k, v].map(|x| self.split(x));
        let (len, mut y) = (sequence * self.head_dim, vec![0.0; q.len()]);
        for_each_sample(&mut y, len, 2 * sequence * len, |head, y| {
            let [q, k, v] = [&q, &k, &v].map(|x| &x[head * len..][..len]);
            let p = self.probabilities(q, k);
            add_product(matrix(slice(&p.view()), sequence), matrix(v, self.head_dim), y);
        });
        let [y] = self.join(y, batch, sequence);
        Ok(y)
    }

    /// With `P` the probabilities of a head and `dS = P (dy vᵀ - Σ P dy vᵀ)`: `dv = Pᵀ dy`, `dq = dS k / √head_dim`,
    /// `dk = dSᵀ q / √head_dim`, for arrays that forward took.
    pub(super) fn backward(&self, [q, k, v]: [ArrayViewD<'_, f32>; 3], dy: ArrayViewD<'_, f32>) -> [ArrayD<f32>; 3] {
        let (batch, sequence) = (q.shape()[0], q.shape()[1]);
        let [q, k, v, dy] = [q, k, v, dy].map(|x| self.split(x));
        let (len, mut slopes) = (sequence * self.head_dim, vec![0.0; 3 * q.len()]);
        for_each_sample(&mut slopes, 3 * len, 5 * sequence * len, |head, slopes| {
            let [q, k, v, dy] = [&q, &k, &v, &dy].map(|x| &x[head * len..][..len]);
            let [q_rows, k_rows, v_rows, dy_rows] = [q, k, v, dy].map(|x| matrix(x, self.head_dim));
            let (dq, rest) = slopes.split_at_mut(len);
            let (dk, dv) = rest.split_at_mut(len);
            let p = self.probabilities(q, k);
            add_product(matrix(slice(&p.view()), sequence).reversed_axes(), dy_rows, dv);
            let mut dp = vec![0.0; sequence * sequence];
            add_product(dy_rows, v_rows.reversed_axes(), &mut dp);
            let ds = softmax::backward(p.view(), dense::array(p.shape(), dp), 1) * self.scale();
            let ds = ds.view();
            let ds = matrix(slice(&ds), sequence);
            add_product(ds, k_rows, dq);
            add_product(ds.reversed_axes(), q_rows, dk);
        });
        self.join(slopes, batch, sequence)
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// How much each position of one head looks at each, (sequence, sequence): every row sums to 1.
    fn probabilities(&self, q: &[f32], k: &[f32]) -> ArrayD<f32> {
        let sequence = q.len() / self.head_dim;
        let mut scores = vec![0.0; sequence * sequence];
        add_product(matrix(q, self.head_dim), matrix(k, self.head_dim).reversed_axes(), &mut scores);
        for (position, row) in scores.chunks_mut(sequence).enumerate() {
            let seen = if self.causal { position + 1 } else { sequence };
            row[..seen].iter_mut().for_each(|score| *score *= self.scale());
            row[seen..].fill(f32::NEG_INFINITY);
        }
        softmax::forward(dense::array(&[sequence, sequence], scores), 1)
    }

    /// (batch, sequence, inner) to (batch, heads, sequence, head_dim).
    fn split(&self, x: ArrayViewD<'_, f32>) -> Vec<f32> {
        let shape = (x.shape()[0], x.shape()[1], self.heads, self.head_dim);
        let heads = x.into_shape_with_order(shape).expect("inner is heads times head_dim");
        heads.permuted_axes([0, 2, 1, 3]).iter().copied().collect()
    }

    /// `N` arrays in one, (batch, heads, N, sequence, head_dim), to (batch, sequence, inner) each.
    fn join<const N: usize>(&self, values: Vec<f32>, batch: usize, sequence: usize) -> [ArrayD<f32>; N] {
        let shape = (batch, self.heads, N, sequence, self.head_dim);
        let all = Array5::from_shape_vec(shape, values).expect("as many elements as were split");
        array::from_fn(|index| {
            let heads = all.index_axis(Axis(2), index).permuted_axes([0, 2, 1, 3]);
            dense::array(&[batch, sequence, self.inner()], heads.iter().copied().collect())
        })
    }
}

/// (batch, sequence, features), all of them at least 1.
pub(crate) fn expect_sequences(what: &'static str, found: &[usize]) -> Result<[usize; 3]> {
    let shape = found.try_into().map_err(|_| Error::Rank { what, expected: "3", found: found.to_vec() })?;
    super::shape::elements(what, found).map(|_| shape)
}
