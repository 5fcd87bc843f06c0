//! A batch as rows, for losses that compare samples with one another.

use ndarray::{Array2, ArrayViewD, Axis, Zip};

use super::{Loss, Signals};
use crate::{
    error::{Error, Result},
    nn::expect_shape,
};

/// Student's and teacher's samples, flattened to rows: of one number, of any two widths.
///
/// For losses that do not depend on the scale of either. So the rows are counted in a unit near their largest number, a
/// power of two: no square of theirs overflows.
#[derive(Debug)]
pub(super) struct Samples {
    pub(super) student: Array2<f64>,
    pub(super) teacher: Array2<f64>,
    shape: Vec<usize>,
    per_unit: f64,
}

impl Samples {
    /// # Errors
    /// As [`Signals::student`]; [`Error::Rank`] without a feature axis, [`Error::Shape`] for another number of samples.
    pub(super) fn of(signals: &Signals<'_>) -> Result<Samples> {
        let (student, teacher) = (signals.student()?, signals.teacher()?);
        let shape = student.shape().to_vec();
        let found = teacher.shape().to_vec();
        let (mut student, mut teacher) =
            (rows("the student's signal", student)?, rows("the teacher's signal", teacher)?);
        let expected = [&[student.nrows()], &found[1..]].concat();
        expect_shape("the teacher's signal", &expected, &found)?;
        let [per_unit, of_teacher] = [&student, &teacher].map(per_unit);
        student *= per_unit;
        teacher *= of_teacher;
        Ok(Samples { student, teacher, shape, per_unit })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.student.nrows()
    }

    /// A loss whose gradient for the student's rows is this.
    pub(super) fn loss(&self, value: f64, gradient: Array2<f64>) -> Loss {
        let gradient = (gradient * self.per_unit).into_dyn();
        Loss::new(value, gradient.into_shape_with_order(self.shape.clone()).expect("as many elements"))
    }
}

/// Flattens (batch, ..) to (batch, features).
pub(super) fn rows(what: &'static str, array: ArrayViewD<'_, f64>) -> Result<Array2<f64>> {
    if array.ndim() < 2 {
        return Err(Error::Rank { what, expected: "2 or more", found: array.shape().to_vec() });
    }
    let batch = array.len_of(Axis(0));
    let shape = (batch, array.len() / batch);
    Ok(array.to_shape(shape).expect("as many elements").as_standard_layout().into_owned())
}

/// The reciprocal of a power of two near the largest number. It is bounded, so that a gradient for tiny rows is finite.
fn per_unit(rows: &Array2<f64>) -> f64 {
    let largest = rows.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    (-largest.log2().floor().clamp(-500.0, 1000.0)).exp2()
}

/// The products of all pairs of rows.
pub(super) fn products(rows: &Array2<f64>) -> Array2<f64> {
    rows.dot(&rows.t())
}

/// From the gradient `G` for the products of all pairs that for the rows: `(G + Gᵀ) rows`.
pub(super) fn products_backward(gradient: &Array2<f64>, rows: &Array2<f64>) -> Array2<f64> {
    (gradient + &gradient.t()).dot(rows)
}

/// The sum of `loss(student, teacher)` over all pairs of entries, and its slope for each of the student's.
pub(super) fn compare(
    student: &Array2<f64>,
    teacher: &Array2<f64>,
    loss: impl Fn(f64, f64) -> (f64, f64),
) -> (f64, Array2<f64>) {
    let mut value = 0.0;
    let slopes = Zip::from(student).and(teacher).map_collect(|s, t| {
        let (loss, slope) = loss(*s, *t);
        value += loss;
        slope
    });
    (value, slopes)
}
