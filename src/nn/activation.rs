//! Elementwise activations, and their slopes in terms of the output where that is simpler, else of the input.

use std::f32::consts::{FRAC_1_SQRT_2, PI};

/// How GELU is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum GeluForm {
    /// `x Φ(x)` with the error function.
    #[default]
    Erf,
    /// `x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
    Tanh,
}

const SQRT_2_OVER_PI: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;

/// Not `max`, which would turn NaN into 0.
pub(super) fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

pub(super) fn relu_slope_at_output(y: f32) -> f32 {
    if y > 0.0 { 1.0 } else { 0.0 }
}

pub(super) fn gelu_erf(x: f32) -> f32 {
    x * normal_cdf(x)
}

pub(super) fn gelu_erf_slope(x: f32) -> f32 {
    normal_cdf(x) + x * (-0.5 * x * x).exp() / (2.0 * PI).sqrt()
}

pub(super) fn gelu_tanh(x: f32) -> f32 {
    0.5 * x * (1.0 + inner_tanh(x))
}

pub(super) fn gelu_tanh_slope(x: f32) -> f32 {
    let t = inner_tanh(x);
    let inner = SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * x * x);
    // Further out the tanh is flat in f32, and its slope of 0 must not meet an infinite x².
    let bend = if x.abs() < 20.0 { 0.5 * x * (1.0 - t * t) * inner } else { 0.0 };
    0.5 * (1.0 + t) + bend
}

pub(super) fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

pub(super) fn silu_slope(x: f32) -> f32 {
    let s = sigmoid(x);
    s * (1.0 + x * (1.0 - s))
}

/// Saturates without overflow: an infinite exponential gives 0.
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

pub(super) fn sigmoid_slope_at_output(y: f32) -> f32 {
    y * (1.0 - y)
}

pub(super) fn tanh(x: f32) -> f32 {
    x.tanh()
}

pub(super) fn tanh_slope_at_output(y: f32) -> f32 {
    1.0 - y * y
}

/// The second derivative of [`gelu_erf`]: `φ(x) (2 - x²)`.
pub(super) fn gelu_erf_bend(x: f32) -> f32 {
    let density = (-0.5 * x * x).exp() / (2.0 * PI).sqrt();
    if density == 0.0 { 0.0 } else { density * (2.0 - x * x) }
}

/// The second derivative of [`gelu_tanh`]: with `u` the inner function, `(1 - t²) (u' + x/2 (u'' - 2 t u'²))`.
pub(super) fn gelu_tanh_bend(x: f32) -> f32 {
    if x.abs() >= 20.0 {
        return 0.0; // flat, and x² could be infinite
    }
    let t = inner_tanh(x);
    let (first, second) = (SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * x * x), SQRT_2_OVER_PI * 6.0 * CUBIC * x);
    (1.0 - t * t) * (first + 0.5 * x * (second - 2.0 * t * first * first))
}

/// The second derivative of [`silu`]: `σ' (2 + x (1 - 2σ))`.
pub(super) fn silu_bend(x: f32) -> f32 {
    let s = sigmoid(x);
    let slope = s * (1.0 - s);
    if slope == 0.0 { 0.0 } else { slope * (2.0 + x * (1.0 - 2.0 * s)) }
}

/// The second derivative of [`sigmoid`].
pub(super) fn sigmoid_bend_at_output(y: f32) -> f32 {
    y * (1.0 - y) * (1.0 - 2.0 * y)
}

/// The second derivative of [`tanh`].
pub(super) fn tanh_bend_at_output(y: f32) -> f32 {
    -2.0 * y * (1.0 - y * y)
}

fn normal_cdf(x: f32) -> f32 {
    0.5 * libm::erfcf(-x * FRAC_1_SQRT_2)
}

fn inner_tanh(x: f32) -> f32 {
    (SQRT_2_OVER_PI * (x + CUBIC * x * x * x)).tanh()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Function = fn(f32) -> f32;

    /// Name, value, and first and second derivative at the input.
    const ALL: [(&str, Function, Function, Function); 6] = [
        ("relu", relu, |x| relu_slope_at_output(relu(x)), |_| 0.0),
        ("gelu_erf", gelu_erf, gelu_erf_slope, gelu_erf_bend),
        ("gelu_tanh", gelu_tanh, gelu_tanh_slope, gelu_tanh_bend),
        ("silu", silu, silu_slope, silu_bend),
        ("sigmoid", sigmoid, |x| sigmoid_slope_at_output(sigmoid(x)), |x| sigmoid_bend_at_output(sigmoid(x))),
        ("tanh", tanh, |x| tanh_slope_at_output(tanh(x)), |x| tanh_bend_at_output(tanh(x))),
    ];

    #[test]
    fn every_activation_stays_finite_on_extreme_inputs() {
        for (name, value, slope, bend) in ALL {
            for x in [-f32::MAX, -1e30, -1e10, -1e4, -100.0, 0.0, 100.0, 1e4, 1e10, 1e30, f32::MAX] {
                let found = [value(x), slope(x), bend(x)];
                assert!(found.iter().all(|found| found.is_finite()), "{name} at {x}: {found:?}");
            }
            assert!(value(f32::NAN).is_nan(), "{name} hides NaN");
        }
    }

    #[test]
    fn every_derivative_is_the_difference_quotient() {
        for (name, value, slope, bend) in ALL {
            for i in -40..40 {
                let (x, h) = (i as f32 / 8.0 + 0.05, 1e-2);
                for (f, derivative) in [(value, slope), (slope, bend)] {
                    let quotient = (f(x + h) - f(x - h)) / (2.0 * h);
                    assert!((quotient - derivative(x)).abs() < 2e-4, "{name} at {x}: {}, {quotient}", derivative(x));
                }
            }
        }
    }
}
