//! Which kernel runs a tensor: one decision, a value that can be compared.

use std::ops::Range;

use ndarray::Axis;

use super::Activations;
use crate::{
    kernels::isa::Isa,
    tensor::{Granularity, Grid, QuantizedTensor, SparseLayout},
};

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

/// How a pruned weight of floats will be multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FloatChoice {
    /// Strips of so many rows with the same columns.
    Sparse { pattern: Pattern, height: usize },
    /// Zeros multiplied as any number.
    Dense,
}

/// What a sparse kernel makes use of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// Nothing: survivors lie anywhere.
    Csr,
    /// As many in every row.
    NOfM,
    /// Rows that share their columns.
    Block,
}

/// The largest share of survivors at which strips of so many rows are faster than the dense product for one input, where
/// they gain least; for many inputs they still are at 0.5, 0.6 and 0.9. By `cargo bench --bench sparse` with all of these
/// at 1, on Zen 5, 1024 and 4096 square, in the turns of one run.
const PAYS: [(usize, f64); 3] = [(1, 0.4), (2, 0.5), (4, 0.7)];

/// Decides for some rows of a pruned weight, of whose `len` elements `left` are left.
pub(super) fn choose_floats(layout: SparseLayout, left: usize, len: usize, rows: &Range<usize>) -> FloatChoice {
    let (pattern, block) = match layout {
        SparseLayout::NOfM { .. } => (Pattern::NOfM, 1),
        SparseLayout::Block { rows, .. } if rows > 1 => (Pattern::Block, rows),
        _ => (Pattern::Csr, 1),
    };
    // Blocks count from the whole weight's first row, strips from the first of these; the last block may be cut.
    let fits = |height: usize| {
        height == 1 || (rows.start.is_multiple_of(height) && (block.is_multiple_of(height) || block >= rows.end))
    };
    let height = [4, 2, 1].into_iter().find(|height| fits(*height)).unwrap_or(1);
    let pattern = if height == 1 && pattern == Pattern::Block { Pattern::Csr } else { pattern };
    match PAYS.iter().any(|(of, share)| *of == height && left as f64 <= share * len as f64) {
        true => FloatChoice::Sparse { pattern, height },
        false => FloatChoice::Dense,
    }
}

/// The name of a sparse kernel.
pub(super) fn float_kernel(pattern: Pattern, isa: Isa) -> &'static str {
    let names = match pattern {
        Pattern::Csr => ["csr-f32-scalar", "csr-f32-avx2", "csr-f32-avxvnni", "csr-f32-avx512vnni"],
        Pattern::NOfM => ["nm-f32-scalar", "nm-f32-avx2", "nm-f32-avxvnni", "nm-f32-avx512vnni"],
        Pattern::Block => ["block-f32-scalar", "block-f32-avx2", "block-f32-avxvnni", "block-f32-avx512vnni"],
    };
    names.into_iter().find(|name| name.rsplit('-').next() == Some(isa.name())).unwrap_or(names[0])
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

    #[test]
    fn zeros_are_left_out_where_that_pays() {
        let csr = |left| choose_floats(SparseLayout::Bitmask, left, 1000, &(0..10));
        assert_eq!(csr(100), FloatChoice::Sparse { pattern: Pattern::Csr, height: 1 });
        assert_eq!(csr(500), FloatChoice::Dense);
        let pairs = SparseLayout::NOfM { n: 1, m: 8 };
        assert_eq!(
            choose_floats(pairs, 125, 1000, &(0..10)),
            FloatChoice::Sparse { pattern: Pattern::NOfM, height: 1 }
        );
        let block = |rows, columns| SparseLayout::Block { rows, columns };
        let of = |layout, rows| choose_floats(layout, 200, 1000, &rows);
        assert_eq!(of(block(4, 4), 0..10), FloatChoice::Sparse { pattern: Pattern::Block, height: 4 });
        assert_eq!(of(block(8, 2), 4..8), FloatChoice::Sparse { pattern: Pattern::Block, height: 4 });
        assert_eq!(of(block(2, 2), 0..10), FloatChoice::Sparse { pattern: Pattern::Block, height: 2 });
        assert_eq!(of(block(10, 1), 0..10), FloatChoice::Sparse { pattern: Pattern::Block, height: 4 });
        // The strips of a group that starts within a block would not be the block's.
        assert_eq!(of(block(4, 4), 5..10), FloatChoice::Sparse { pattern: Pattern::Csr, height: 1 });
        assert_eq!(of(block(1, 16), 0..10), FloatChoice::Sparse { pattern: Pattern::Csr, height: 1 });
        for isa in Isa::available() {
            assert_eq!(float_kernel(Pattern::Block, isa), format!("block-f32-{}", isa.name()));
        }
    }
}
