//! Which kernel runs a tensor: one decision, a value that can be compared.

use ndarray::Axis;

use super::Activations;
use crate::tensor::{Granularity, Grid, QuantizedTensor};

/// How a weight will be multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Codes as bytes, inputs rounded to 8 bits, sums in integers; a scale for each `group_size` inputs.
    Int8 { group_size: usize },
    /// Codes stay packed and are decoded to f32 as they are multiplied.
    Decoded,
}

/// An integer product may reach 2^62 before the inputs' scale makes it small; beyond this it would leave f32.
const LARGEST_SCALE: f32 = 1e19;

/// Decides for a weight of `outputs` rows.
///
/// Integers need evenly spaced levels, codes that fit a byte, and scales that an output or a group of its inputs has to
/// itself; whatever else there is, is decoded.
pub(super) fn choose(q: &QuantizedTensor, activations: &Activations) -> Choice {
    let Grid::Affine { scale, granularity, .. } = q.grid() else { return Choice::Decoded };
    let largest = scale.iter().fold(0f32, |largest, scale| largest.max(scale.abs()));
    if q.bits() > 8 || *activations == Activations::Float || largest > LARGEST_SCALE {
        return Choice::Decoded;
    }
    let inputs = q.shape()[1..].iter().product();
    let row = q.shape().last().copied().unwrap_or(0);
    match *granularity {
        Granularity::Tensor | Granularity::Channel(Axis(0)) => Choice::Int8 { group_size: inputs },
        // Groups of a convolution's last axis are no longer than a kernel's row: only those that divide it fall
        // into groups of the whole.
        Granularity::Group(size) if row == inputs || (size < row && row % size == 0) => {
            Choice::Int8 { group_size: size.min(inputs) }
        }
        Granularity::Group(size) if size >= row => Choice::Int8 { group_size: row },
        Granularity::Group(_) | Granularity::Channel(_) => Choice::Decoded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Quantizer;
    use ndarray::Array;

    fn of(q: crate::Result<QuantizedTensor>) -> Choice {
        choose(&q.unwrap(), &Activations::Dynamic)
    }

    #[test]
    fn even_levels_run_on_integers_and_the_rest_is_decoded() {
        let w = Array::from_shape_fn((6, 10), |(i, j)| (i * 10 + j) as f32);
        assert_eq!(of(Quantizer::uniform(8).apply(&w)), Choice::Int8 { group_size: 10 });
        assert_eq!(of(Quantizer::uniform(3).per_channel(Axis(0)).apply(&w)), Choice::Int8 { group_size: 10 });
        assert_eq!(of(Quantizer::uniform(4).per_group(3).apply(&w)), Choice::Int8 { group_size: 3 });
        assert_eq!(of(Quantizer::uniform(4).per_group(99).apply(&w)), Choice::Int8 { group_size: 10 });
        assert_eq!(of(Quantizer::uniform(8).per_channel(Axis(1)).apply(&w)), Choice::Decoded);
        assert_eq!(of(Quantizer::uniform(16).apply(&w)), Choice::Decoded);
        assert_eq!(of(Quantizer::kmeans(4).apply(&w)), Choice::Decoded);
        assert_eq!(choose(&Quantizer::uniform(8).apply(&w).unwrap(), &Activations::Float), Choice::Decoded);
    }

    #[test]
    fn groups_of_a_convolution_must_divide_its_last_axis() {
        let w = Array::from_shape_fn((2, 3, 4, 6), |(i, ..)| i as f32 + 1.0);
        assert_eq!(of(Quantizer::uniform(4).per_group(3).apply(&w)), Choice::Int8 { group_size: 3 });
        assert_eq!(of(Quantizer::uniform(4).per_group(4).apply(&w)), Choice::Decoded);
        assert_eq!(of(Quantizer::uniform(4).per_group(32).apply(&w)), Choice::Int8 { group_size: 6 });
    }
}
