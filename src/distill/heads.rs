//! Scores of attention, the student's against the teacher's: what the losses between transformers share.

use ndarray::{Array2, Array3, ArrayView2, ArrayView3, ArrayViewD, s};

use super::{
    Compare,
    softmax::{Softmax, divergence},
};
use crate::{
    error::{Error, Result},
    nn::expect_shape,
};

/// `A Bᵀ / √d` head by head, of arrays (batch, sequence, features) in which the `d = features / heads` features of a head are
/// neighbours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heads {
    pub(super) heads: usize,
    pub(super) compare: Compare,
    /// Whether position `i` sees the positions `0..=i` alone.
    pub(super) causal: bool,
}

/// The loss, and its gradients for the student's two arrays.
pub(super) type Slopes = (f64, [Array3<f64>; 2]);

impl Heads {
    /// # Errors
    /// [`Error::Rank`], [`Error::Shape`] for arrays that do not fit one another, [`Error::Setting`] for heads that do not
    /// divide the features.
    pub(super) fn compare(
        &self,
        student: [ArrayViewD<'_, f64>; 2],
        teacher: [ArrayViewD<'_, f64>; 2],
    ) -> Result<Slopes> {
        let [a, b] = student;
        let [c, d] = teacher;
        let (a, b) = (axes("the student's signal", a)?, axes("the student's second signal", b)?);
        let (c, d) = (axes("the teacher's signal", c)?, axes("the teacher's second signal", d)?);
        let ((batch, len, features), (_, seen, _), (_, _, of_teacher)) = (a.dim(), b.dim(), c.dim());
        let seen = if self.causal { len } else { seen };
        expect_shape("the student's second signal", &[batch, seen, features], b.shape())?;
        expect_shape("the teacher's signal", &[batch, len, of_teacher], c.shape())?;
        expect_shape("the teacher's second signal", &[batch, seen, of_teacher], d.shape())?;
        for features in [features, of_teacher] {
            if self.heads == 0 || !features.is_multiple_of(self.heads) {
                let bound = "at least 1 and a divisor of the features, the student's and the teacher's";
                return Err(Error::Setting { setting: "heads", value: self.heads as f64, bound });
            }
        }
        Ok(self.sum([a, b], [c, d]))
    }

    fn sum(&self, student: [ArrayView3<'_, f64>; 2], teacher: [ArrayView3<'_, f64>; 2]) -> Slopes {
        let (batch, len, _) = student[0].dim();
        let seen = |position: usize| if self.causal { position + 1 } else { student[1].dim().1 };
        let rows = match self.compare {
            Compare::Distributions => len,
            Compare::Scores => (0..len).map(seen).sum(),
        };
        let share = 1.0 / (batch * self.heads * rows) as f64;
        let (mut value, mut gradients) = (0.0, student.each_ref().map(|array| Array3::zeros(array.dim())));
        for (sample, head) in (0..batch).flat_map(|sample| (0..self.heads).map(move |head| (sample, head))) {
            let [a, b] = student.each_ref().map(|array| self.head(array, sample, head));
            let own = scores(a, b);
            let [c, d] = teacher.each_ref().map(|array| self.head(array, sample, head));
            let wanted = scores(c, d);
            let mut slopes = Array2::zeros(own.dim());
            for position in 0..len {
                let of = |scores: &Array2<f64>| scores.slice(s![position, ..seen(position)]).to_vec();
                let (loss, row) = self.compare.rows(&of(&own), &of(&wanted));
                value += share * loss;
                row.iter().zip(slopes.row_mut(position)).for_each(|(slope, out)| *out = share * slope);
            }
            slopes /= (a.ncols() as f64).sqrt();
            for (gradient, part) in gradients.iter_mut().zip([slopes.dot(&b), slopes.t().dot(&a)]) {
                let features = head * a.ncols()..(head + 1) * a.ncols();
                gradient.slice_mut(s![sample, .., features]).assign(&part);
            }
        }
        (value, gradients)
    }

    fn head<'a>(&self, array: &'a ArrayView3<'_, f64>, sample: usize, head: usize) -> ArrayView2<'a, f64> {
        let width = array.dim().2 / self.heads;
        array.slice(s![sample, .., head * width..(head + 1) * width])
    }
}

impl Compare {
    /// The loss of a position's scores, and its slope for each of the student's.
    fn rows(self, student: &[f64], teacher: &[f64]) -> (f64, Vec<f64>) {
        match self {
            Compare::Distributions => {
                let [s, t] = [student, teacher].map(|scores| Softmax::of(scores, scores.len(), 1.0));
                let pairs = || s.p.iter().zip(&s.logs).zip(t.p.iter().zip(&t.logs));
                let parts = pairs().map(|((p, s), (q, t))| divergence([*q, *t], [*p, *s]));
                (parts.sum(), pairs().map(|((p, _), (q, _))| p - q).collect())
            }
            Compare::Scores => {
                let differences = student.iter().zip(teacher).map(|(s, t)| s - t);
                (differences.clone().map(|d| d * d).sum(), differences.map(|d| 2.0 * d).collect())
            }
        }
    }
}

fn scores(a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>) -> Array2<f64> {
    a.dot(&b.t()) / (a.ncols() as f64).sqrt()
}

fn axes<'a>(what: &'static str, array: ArrayViewD<'a, f64>) -> Result<ArrayView3<'a, f64>> {
    let found = array.shape().to_vec();
    array.into_dimensionality().map_err(|_| Error::Rank { what, expected: "3", found })
}
