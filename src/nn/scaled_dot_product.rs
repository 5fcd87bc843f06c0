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

    /// The tangent of [`forward`](ScaledDotProduct::forward): with `S˙ = (q˙ kᵀ + q k˙ᵀ) / √head_dim` and `P˙` the softmax's,
    /// `P˙ v + P v˙`.
    pub(super) fn tangent(&self, qkv: [ArrayViewD<'_, f32>; 3], dots: [ArrayViewD<'_, f32>; 3]) -> ArrayD<f32> {
        let (batch, sequence) = (qkv[0].shape()[0], qkv[0].shape()[1]);
        let ([q, k, v], [q_dot, k_dot, v_dot]) = (qkv.map(|x| self.split(x)), dots.map(|x| self.split(x)));
        let (len, mut y) = (sequence * self.head_dim, vec![0.0; q.len()]);
        for_each_sample(&mut y, len, 4 * sequence * len, |head, y| {
            let of = |x: &[f32]| x[head * len..][..len].to_vec();
            let (p, p_dot) = self.moving_probabilities([&of(&q), &of(&k)], [&of(&q_dot), &of(&k_dot)]);
            add_product(matrix(slice(&p_dot.view()), sequence), matrix(&of(&v), self.head_dim), y);
            add_product(matrix(slice(&p.view()), sequence), matrix(&of(&v_dot), self.head_dim), y);
        });
        let [y] = self.join(y, batch, sequence);
        y
    }

    /// The tangents of [`backward`](ScaledDotProduct::backward)'s results: the product rule on each of its lines.
    pub(super) fn backward_tangent(
        &self,
        qkv: [ArrayViewD<'_, f32>; 3],
        dots: [ArrayViewD<'_, f32>; 3],
        dys: [ArrayViewD<'_, f32>; 2],
    ) -> [ArrayD<f32>; 3] {
        let (batch, sequence) = (qkv[0].shape()[0], qkv[0].shape()[1]);
        let ([q, k, v], [q_dot, k_dot, v_dot]) = (qkv.map(|x| self.split(x)), dots.map(|x| self.split(x)));
        let [dy, dy_dot] = dys.map(|x| self.split(x));
        let (len, mut slopes) = (sequence * self.head_dim, vec![0.0; 3 * q.len()]);
        for_each_sample(&mut slopes, 3 * len, 12 * sequence * len, |head, slopes| {
            let of = |x: &'_ [f32]| x[head * len..][..len].to_vec();
            let [q, k, v, q_dot, k_dot, v_dot, dy, dy_dot] =
                [&q, &k, &v, &q_dot, &k_dot, &v_dot, &dy, &dy_dot].map(|x| of(x));
            let (p, p_dot) = self.moving_probabilities([&q, &k], [&q_dot, &k_dot]);
            let rows =
                |x: &[f32]| ndarray::Array2::from_shape_vec((sequence, self.head_dim), x.to_vec()).expect("a head");
            let [q, k, v, q_dot, k_dot, v_dot, dy, dy_dot] =
                [&q, &k, &v, &q_dot, &k_dot, &v_dot, &dy, &dy_dot].map(|x| rows(x));
            let square = |f: [(&ndarray::Array2<f32>, &ndarray::Array2<f32>); 2]| {
                let mut sum = vec![0.0; sequence * sequence];
                f.iter().for_each(|(a, b)| add_product(a.view(), b.t(), &mut sum));
                dense::array(&[sequence, sequence], sum)
            };
            let zero = ndarray::Array2::zeros((sequence, self.head_dim));
            let (dp, dp_dot) = (square([(&dy, &v), (&zero, &zero)]), square([(&dy_dot, &v), (&dy, &v_dot)]));
            let ds = softmax::backward(p.view(), dp.clone(), 1) * self.scale();
            let ds_dot = softmax::backward_tangent((p.view(), p_dot.view()), (dp.view(), dp_dot), 1) * self.scale();
            let (p, p_dot, ds, ds_dot) = (p.view(), p_dot.view(), ds.view(), ds_dot.view());
            let [p, p_dot, ds, ds_dot] = [&p, &p_dot, &ds, &ds_dot].map(|x| matrix(slice(x), sequence));
            let (dq, rest) = slopes.split_at_mut(len);
            let (dk, dv) = rest.split_at_mut(len);
            add_product(p_dot.t(), dy.view(), dv);
            add_product(p.t(), dy_dot.view(), dv);
            add_product(ds_dot, k.view(), dq);
            add_product(ds, k_dot.view(), dq);
            add_product(ds_dot.t(), q.view(), dk);
            add_product(ds.t(), q_dot.view(), dk);
        });
        self.join(slopes, batch, sequence)
    }

    /// The probabilities of one head and their tangent.
    fn moving_probabilities(&self, [q, k]: [&[f32]; 2], [q_dot, k_dot]: [&[f32]; 2]) -> (ArrayD<f32>, ArrayD<f32>) {
        let p = self.probabilities(q, k);
        let sequence = p.shape()[0];
        let mut s_dot = vec![0.0; sequence * sequence];
        for (a, b) in [(q_dot, k), (q, k_dot)] {
            add_product(matrix(a, self.head_dim), matrix(b, self.head_dim).reversed_axes(), &mut s_dot);
        }
        let s_dot = dense::array(&[sequence, sequence], s_dot) * self.scale();
        // Where nothing is seen the probability is 0, and so is its tangent.
        let p_dot = softmax::backward(p.view(), s_dot, 1);
        (p, p_dot)
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
