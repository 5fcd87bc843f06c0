//! Fake quantization: floats on the grid, and the gradients that train through it.

use ndarray::{ArrayD, IxDyn};

use super::{Affine, affine::Step};
use crate::{
    error::{Error, Result},
    tensor::{Dense, Weights},
};

/// Gradients of a loss through a quantizer whose scale and zero point are trained (LSQ, Esser et al. 2020; LSQ+,
/// Bhalgat et al. 2020).
#[derive(Clone, Debug, PartialEq)]
pub struct LearnedStep {
    /// With respect to the numbers: the straight-through estimate.
    pub values: ArrayD<f32>,
    /// With respect to each group's scale.
    pub scale: Vec<f32>,
    /// With respect to each group's zero point.
    pub zero_point: Vec<f32>,
}

impl Affine {
    /// The numbers as they will be after quantization: `scale * (clamp(round(x / scale) + zero_point) - zero_point)`.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::NotFinite`]; [`Error::Axis`] or [`Error::Shape`] if the scales do not fit the shape.
    pub fn fake_quantize(&self, values: &dyn Weights) -> Result<ArrayD<f32>> {
        let values = Dense::named("the values", values)?;
        let mut on_grid = values.values().to_vec();
        self.each_group(&values, |step, elements, _| {
            let (low, high) = step.bounds();
            let numbers: Vec<f32> = elements.iter().map(|i| values.values()[*i]).collect();
            for (i, level) in elements.iter().zip(step.levels(&numbers)) {
                on_grid[*i] = step.scale * level.clamp(low, high);
            }
        })?;
        shaped(&values, on_grid)
    }

    /// The straight-through gradient (Bengio et al. 2013): `gradient` where the unclamped code lies within the codes,
    /// 0 where the number is clipped.
    ///
    /// # Errors
    /// As [`fake_quantize`](Affine::fake_quantize), and [`Error::Shape`] if the gradient has another shape.
    ///
    /// ```
    /// use ndarray::array;
    /// use tersor::quantize::{Affine, CodeRange};
    ///
    /// let grid = Affine::per_tensor(1.0, 0, CodeRange::signed(2)?)?; // -2 ..= 1
    /// let x = array![-3.0_f32, 0.4, 1.4, 1.6];
    /// assert_eq!(grid.fake_quantize(&x)?, array![-2.0, 0.0, 1.0, 1.0].into_dyn());
    /// assert_eq!(grid.straight_through(&x, &array![1.0_f32, 1.0, 1.0, 1.0])?, array![0.0, 1.0, 1.0, 0.0].into_dyn());
    /// # Ok::<(), tersor::Error>(())
    /// ```
    pub fn straight_through(&self, values: &dyn Weights, gradient: &dyn Weights) -> Result<ArrayD<f32>> {
        Ok(self.learned_step(values, gradient, 1.0)?.values)
    }

    /// Gradients for the numbers, the scales and the zero points.
    ///
    /// For `v = x / scale`: with respect to the scale `round(v) - v` inside, `lowest - zero_point` or
    /// `highest - zero_point` where clipped; with respect to the zero point 0 inside, `-scale` where clipped; each times
    /// `gradient`, summed over the group, times `factor` (1 for the plain gradient; LSQ takes
    /// [`lsq_factor`](Affine::lsq_factor)).
    ///
    /// # Errors
    /// As [`straight_through`](Affine::straight_through).
    pub fn learned_step(&self, values: &dyn Weights, gradient: &dyn Weights, factor: f32) -> Result<LearnedStep> {
        let values = Dense::named("the values", values)?;
        let gradient = Dense::named("the gradient", gradient)?;
        if values.shape() != gradient.shape() {
            let (expected, found) = (values.shape().to_vec(), gradient.shape().to_vec());
            return Err(Error::Shape { what: "the gradient", expected, found });
        }
        let mut passed = gradient.values().to_vec();
        let mut scale = vec![0.0; self.scale().len()];
        let mut zero_point = vec![0.0; self.scale().len()];
        self.each_group(&values, |step, elements, group| {
            let (low, high) = step.bounds();
            let numbers: Vec<f32> = elements.iter().map(|i| values.values()[*i]).collect();
            let (mut for_scale, mut for_zero) = (0f64, 0f64);
            for ((i, x), level) in elements.iter().zip(&numbers).zip(step.levels(&numbers)) {
                let gradient = f64::from(gradient.values()[*i]);
                if (low..=high).contains(&level) {
                    for_scale += gradient * (f64::from(level) - f64::from(*x) / f64::from(step.scale));
                } else {
                    passed[*i] = 0.0;
                    for_scale += gradient * f64::from(level.clamp(low, high));
                    for_zero -= gradient * f64::from(step.scale);
                }
            }
            scale[group] = (for_scale * f64::from(factor)) as f32;
            zero_point[group] = (for_zero * f64::from(factor)) as f32;
        })?;
        Ok(LearnedStep { values: shaped(&values, passed)?, scale, zero_point })
    }

    /// LSQ's factor on the scale's gradient, `1 / sqrt(count * highest)`, for so many numbers a scale.
    pub fn lsq_factor(&self, count: usize) -> f32 {
        (1.0 / (count.max(1) as f64 * f64::from(self.codes().highest().max(1))).sqrt()) as f32
    }

    /// LSQ's first scale, `2 * mean |x| / sqrt(highest)`, for a symmetric grid of one scale.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::NotFinite`].
    pub fn lsq(values: &dyn Weights, codes: super::CodeRange) -> Result<Self> {
        let values = Dense::named("the values", values)?;
        let mean = values.values().iter().map(|x| f64::from(x.abs())).sum::<f64>() / values.values().len() as f64;
        let scale = 2.0 * mean / f64::from(codes.highest().max(1)).sqrt();
        Affine::per_tensor((scale as f32).max(f32::MIN_POSITIVE), 0, codes)
    }

    fn each_group(&self, values: &Dense<'_>, mut f: impl FnMut(Step, &[usize], usize)) -> Result<()> {
        let groups = self.groups(values.shape())?;
        for group in 0..groups.count() {
            let elements: Vec<usize> = groups.runs(group).flatten().collect();
            f(self.step(group), &elements, group);
        }
        Ok(())
    }
}

fn shaped(like: &Dense<'_>, values: Vec<f32>) -> Result<ArrayD<f32>> {
    let (expected, found) = (like.shape().to_vec(), vec![values.len()]);
    ArrayD::from_shape_vec(IxDyn(like.shape()), values).map_err(|_| Error::Shape {
        what: "the result",
        expected,
        found,
    })
}
