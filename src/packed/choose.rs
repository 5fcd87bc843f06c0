//! Which kernel runs a tensor: one decision, a value that can be compared.

use std::ops::Range;

use ndarray::Axis;

use super::Activations;
use crate::{
    kernels::{Bits, Depth, PackedInt8, isa::Isa},
    tensor::{Granularity, Grid, Mask, QuantizedTensor, SparseLayout},
};

/// How a weight will be multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Codes of at most so many bits, inputs rounded to 8 bits, sums in integers; a scale for each `group_size` inputs.
    Integer { bits: Bits, group_size: usize },
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
    let bits = Bits::of(q.bits());
    let inputs = q.shape()[1..].iter().product();
    let row = q.shape().last().copied().unwrap_or(0);
    match *granularity {
        Granularity::Tensor | Granularity::Channel(Axis(0)) => Choice::Integer { bits, group_size: inputs },
        // Groups of a convolution's last axis are no longer than a kernel's row: only those that divide it fall
        // into groups of the whole.
        Granularity::Group(size) if row == inputs || (size < row && row % size == 0) => {
            Choice::Integer { bits, group_size: size.min(inputs) }
        }
        Granularity::Group(size) if size >= row => Choice::Integer { bits, group_size: row },
        Granularity::Group(_) | Granularity::Channel(_) => Choice::Decoded,
    }
}

/// The instruction sets whose shuffles make up for a multiplication, by `cargo bench --bench nm`.
const PICK: [&str; 1] = ["avx512vnni"];

/// Whether an integer product leaves out the weights that are 0: where at most two of four consecutive inputs are not, as
/// after pruning 2:4 or 1:4. Others multiply them like any number.
pub(super) fn pick(isa: Isa, codes: &[u8], depth: Depth, grid: impl Fn(usize, usize) -> (f32, i32)) -> bool {
    PICK.contains(&isa.name()) && PackedInt8::can_pick(codes, depth, grid)
}

/// The name of an integer kernel.
pub(super) fn integer_kernel(bits: Bits, isa: Isa) -> &'static str {
    of_isa(
        isa,
        match bits {
            Bits::Two => ["int2-scalar", "int2-avx2", "int2-avxvnni", "int2-avx512vnni"],
            Bits::Four => ["int4-scalar", "int4-avx2", "int4-avxvnni", "int4-avx512vnni"],
            Bits::Eight => ["int8-scalar", "int8-avx2", "int8-avxvnni", "int8-avx512vnni"],
            Bits::Picked => ["nm-int8-scalar", "nm-int8-avx2", "nm-int8-avxvnni", "nm-int8-avx512vnni"],
        },
    )
}

fn of_isa(isa: Isa, names: [&'static str; 4]) -> &'static str {
    names.into_iter().find(|name| name.rsplit('-').next() == Some(isa.name())).unwrap_or(names[0])
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

/// Decides for some rows of a pruned weight.
pub(super) fn choose_floats(mask: &Mask, rows: &Range<usize>) -> FloatChoice {
    let inputs = mask.shape()[1..].iter().product::<usize>();
    if inputs == 0 {
        return FloatChoice::Dense;
    }
    let kept = |row: usize, column: usize| mask.is_kept(row * inputs + column);
    // Whether the same columns are left in all rows of a strip.
    let alike = |height: usize| {
        rows.clone().step_by(height).all(|first| {
            let mut others = first + 1..rows.end.min(first + height);
            others.all(|row| (0..inputs).all(|column| kept(row, column) == kept(first, column)))
        })
    };
    let height = [4, 2].into_iter().find(|height| *height <= rows.len() && alike(*height)).unwrap_or(1);
    let left = mask.kept_in(rows.start * inputs..rows.end * inputs) as f64;
    if !PAYS.iter().any(|(of, share)| *of == height && left <= share * (rows.len() * inputs) as f64) {
        return FloatChoice::Dense;
    }
    let pattern = match height {
        1 if SparseLayout::n_of_m(mask).next().is_some() => Pattern::NOfM,
        1 => Pattern::Csr,
        _ => Pattern::Block,
    };
    FloatChoice::Sparse { pattern, height }
}

/// The name of a sparse kernel.
pub(super) fn float_kernel(pattern: Pattern, isa: Isa) -> &'static str {
    let names = match pattern {
        Pattern::Csr => ["csr-f32-scalar", "csr-f32-avx2", "csr-f32-avxvnni", "csr-f32-avx512vnni"],
        Pattern::NOfM => ["nm-f32-scalar", "nm-f32-avx2", "nm-f32-avxvnni", "nm-f32-avx512vnni"],
        Pattern::Block => ["block-f32-scalar", "block-f32-avx2", "block-f32-avxvnni", "block-f32-avx512vnni"],
    };
    of_isa(isa, names)
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
        let integer = |bits, group_size| Choice::Integer { bits, group_size };
        assert_eq!(of(Quantizer::uniform(8).apply(&w)), integer(Bits::Eight, 10));
        assert_eq!(of(Quantizer::uniform(5).apply(&w)), integer(Bits::Eight, 10));
        assert_eq!(of(Quantizer::uniform(3).per_channel(Axis(0)).apply(&w)), integer(Bits::Four, 10));
        assert_eq!(of(Quantizer::uniform(4).per_group(3).apply(&w)), integer(Bits::Four, 3));
        assert_eq!(of(Quantizer::uniform(2).per_group(99).apply(&w)), integer(Bits::Two, 10));
        assert_eq!(of(Quantizer::uniform(1).apply(&w)), integer(Bits::Two, 10));
        assert_eq!(of(Quantizer::uniform(8).per_channel(Axis(1)).apply(&w)), Choice::Decoded);
        assert_eq!(of(Quantizer::uniform(16).apply(&w)), Choice::Decoded);
        assert_eq!(of(Quantizer::kmeans(4).apply(&w)), Choice::Decoded);
        assert_eq!(choose(&Quantizer::uniform(8).apply(&w).unwrap(), &Activations::Float), Choice::Decoded);
    }

    #[test]
    fn groups_of_a_convolution_must_divide_its_last_axis() {
        let w = Array::from_shape_fn((2, 3, 4, 6), |(i, ..)| i as f32 + 1.0);
        assert_eq!(
            of(Quantizer::uniform(4).per_group(3).apply(&w)),
            Choice::Integer { bits: Bits::Four, group_size: 3 }
        );
        assert_eq!(of(Quantizer::uniform(4).per_group(4).apply(&w)), Choice::Decoded);
        assert_eq!(
            of(Quantizer::uniform(4).per_group(32).apply(&w)),
            Choice::Integer { bits: Bits::Four, group_size: 6 }
        );
    }

    #[test]
    fn zeros_are_left_out_where_that_pays() {
        let of = |shape: &[usize], rows, keep: &dyn Fn(usize, usize) -> bool| {
            let columns = shape[1..].iter().product::<usize>();
            choose_floats(&Mask::from_fn(shape, |i| keep(i / columns, i % columns)).unwrap(), &rows)
        };
        let sparse = |pattern, height| FloatChoice::Sparse { pattern, height };
        let scattered = |share: usize| move |row: usize, column: usize| (row * 7 + column * 3) % 10 < share;
        assert_eq!(of(&[10, 100], 0..10, &scattered(1)), sparse(Pattern::Csr, 1));
        assert_eq!(of(&[10, 100], 0..10, &scattered(5)), FloatChoice::Dense);
        assert_eq!(of(&[10, 10, 10], 0..10, &|row, column| (row + column) % 8 == 0), sparse(Pattern::Csr, 1));
        assert_eq!(of(&[10, 100], 0..10, &|row, column| column % 4 == row % 4), sparse(Pattern::NOfM, 1));
        let block = |rows: usize, columns: usize| {
            move |row: usize, column: usize| (row / rows * 3 + column / columns).is_multiple_of(5)
        };
        assert_eq!(of(&[10, 100], 0..10, &block(4, 4)), sparse(Pattern::Block, 4));
        assert_eq!(of(&[10, 100], 4..8, &block(8, 2)), sparse(Pattern::Block, 4));
        assert_eq!(of(&[10, 100], 0..10, &block(2, 2)), sparse(Pattern::Block, 2));
        assert_eq!(of(&[10, 100], 0..10, &block(10, 1)), sparse(Pattern::Block, 4));
        // The strips of rows that start within a block are not the block's.
        assert_eq!(of(&[10, 100], 5..10, &block(4, 4)), sparse(Pattern::Csr, 1));
        assert_eq!(of(&[10, 100], 0..10, &block(1, 16)), sparse(Pattern::Csr, 1));
        assert_eq!(of(&[1, 100], 0..1, &block(1, 16)), sparse(Pattern::Csr, 1));
        assert_eq!(of(&[1 << 40, 0], 0..1 << 40, &block(1, 1)), FloatChoice::Dense);
        for isa in Isa::available() {
            assert_eq!(float_kernel(Pattern::Block, isa), format!("block-f32-{}", isa.name()));
        }
    }

    #[test]
    fn kernels_are_named_by_the_width_of_codes_and_the_instructions() {
        for isa in Isa::available() {
            for (bits, name) in [(1, "int2"), (2, "int2"), (3, "int4"), (4, "int4"), (5, "int8"), (8, "int8")] {
                assert_eq!(integer_kernel(Bits::of(bits), isa), format!("{name}-{}", isa.name()));
            }
            assert_eq!(integer_kernel(Bits::Picked, isa), format!("nm-int8-{}", isa.name()));
        }
    }

    #[test]
    fn inputs_are_picked_where_two_of_four_are_left_and_that_pays() {
        let depth = Depth::new(16, 16).unwrap();
        let codes = |left: usize| (0..64).map(|i| if i % 4 < left { 200 } else { 128 }).collect::<Vec<u8>>();
        for isa in Isa::available() {
            for left in 0..4 {
                let picked = pick(isa, &codes(left), depth, |_, _| (1.0, 128));
                assert_eq!(picked, isa.name() == "avx512vnni" && left <= 2);
            }
        }
    }
}
