//! Which kernel runs a tensor: one decision, a value that can be compared.

use std::ops::{Range, RangeInclusive};

use ndarray::Axis;

use super::Activations;
use crate::{
    kernels::{Bits, Depth, PackedInt8, isa::Isa},
    tensor::{Granularity, Grid, Mask, QuantizedTensor, SparseLayout},
};

/// How a weight will be multiplied.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Choice {
    /// Codes of at most so many bits, inputs rounded to 8 bits, sums in integers; a scale for each `group_size` inputs.
    Integer { bits: Bits, group_size: usize, integers: Integers },
    /// f32 inputs; what codes of at most so many bits stand for is looked up as they are multiplied.
    Lookup { bits: Bits, group_size: usize },
    /// f32 inputs; whole outputs are decoded to f32.
    Decoded,
}

/// The integers that codes stand for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Integers {
    /// Themselves, less a zero point.
    Codes,
    /// Levels of a codebook: `level = unit * (codes[code] - zero)`, all exact.
    Levels { unit: f32, codes: Vec<u8>, zero: u8 },
}

impl Integers {
    /// Levels that are integers of 8 bits times a power of two; and how many bits they take.
    fn of(levels: &[f32]) -> Option<(Integers, Bits)> {
        let exponent = |level: &f32| {
            let (bits, field) = (level.to_bits(), level.to_bits() >> 23 & 255);
            (field > 0).then(|| field as i32 - 150 + ((bits & 0x7f_ffff) | 0x80_0000).trailing_zeros() as i32)
        };
        if levels.iter().any(|level| level.is_subnormal()) {
            return None;
        }
        let least = levels.iter().filter_map(exponent).min()?;
        let unit = 2f64.powi(least);
        let integers = levels.iter().map(|level| f64::from(*level) / unit);
        let (low, high) = integers.clone().fold((0f64, 0f64), |(low, high), x| (low.min(x), high.max(x)));
        let unit = unit as f32;
        (unit.is_normal() && high - low <= 255.0).then(|| {
            let bits = Bits::of(8 - ((high - low) as u8).leading_zeros() as u8);
            (Integers::Levels { unit, codes: integers.map(|x| (x - low) as u8).collect(), zero: -low as u8 }, bits)
        })
    }
}

/// An integer product may reach 2^62 before the inputs' scale makes it small; beyond this it would leave f32.
const LARGEST_SCALE: f32 = 1e19;

/// Largest levels at which sums of products with inputs neither leave f32 nor vanish before their scale comes.
const LEVELS: RangeInclusive<f32> = 1e-9..=1e9;

/// Decides for a weight of several outputs.
///
/// Codes run packed if they fit a byte, and if an output or a group of its inputs has its scale to itself, and all share a
/// table; on integers if levels are evenly spaced, too. Whatever else there is, is decoded.
pub(super) fn choose(q: &QuantizedTensor, activations: &Activations) -> Choice {
    let Some(group_size) = group_size(q).filter(|_| q.bits() <= 8) else { return Choice::Decoded };
    let (bits, is_float) = (Bits::of(q.bits()), *activations == Activations::Float);
    let fits = |unit: f32, scale: &[f32]| {
        scale.iter().all(|scale| (scale * unit).abs() <= LARGEST_SCALE && (scale * unit).is_normal())
    };
    match q.grid() {
        Grid::Affine { scale, .. } if !is_float && scale.iter().all(|scale| scale.abs() <= LARGEST_SCALE) => {
            Choice::Integer { bits, group_size, integers: Integers::Codes }
        }
        Grid::Affine { .. } => Choice::Lookup { bits, group_size },
        Grid::Codebook { levels, scale, .. } if levels.nrows() == 1 => {
            let levels = levels.as_slice().unwrap_or_default();
            let largest = levels.iter().fold(0f32, |largest, level| largest.max(level.abs()));
            match Integers::of(levels) {
                Some((integers @ Integers::Levels { unit, .. }, bits)) if !is_float && fits(unit, scale) => {
                    Choice::Integer { bits, group_size, integers }
                }
                _ if largest == 0.0 || LEVELS.contains(&largest) => Choice::Lookup { bits, group_size },
                _ => Choice::Decoded,
            }
        }
        Grid::Codebook { .. } => Choice::Decoded,
    }
}

/// The inputs of an output that share a scale, if none is shared otherwise.
fn group_size(q: &QuantizedTensor) -> Option<usize> {
    let inputs = q.shape()[1..].iter().product();
    let row = q.shape().last().copied().unwrap_or(0);
    match q.grid().granularity() {
        Granularity::Tensor | Granularity::Channel(Axis(0)) => Some(inputs),
        // Groups of a convolution's last axis are no longer than a kernel's row: only those that divide it fall
        // into groups of the whole.
        Granularity::Group(size) if row == inputs || (size < row && row % size == 0) => Some(size.min(inputs)),
        Granularity::Group(size) if size >= row => Some(row),
        Granularity::Group(_) | Granularity::Channel(_) => None,
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

/// The name of a kernel that looks levels up.
pub(super) fn lookup_kernel(bits: Bits, isa: Isa) -> &'static str {
    let names = match bits {
        Bits::Two => ["lookup2-f32-scalar", "lookup2-f32-avx2", "lookup2-f32-avxvnni", "lookup2-f32-avx512vnni"],
        Bits::Four => ["lookup4-f32-scalar", "lookup4-f32-avx2", "lookup4-f32-avxvnni", "lookup4-f32-avx512vnni"],
        Bits::Eight | Bits::Picked => {
            ["lookup8-f32-scalar", "lookup8-f32-avx2", "lookup8-f32-avxvnni", "lookup8-f32-avx512vnni"]
        }
    };
    of_isa(isa, names)
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

    fn integer(bits: Bits, group_size: usize) -> Choice {
        Choice::Integer { bits, group_size, integers: Integers::Codes }
    }

    #[test]
    fn even_levels_run_on_integers_and_the_rest_is_looked_up_or_decoded() {
        let w = Array::from_shape_fn((6, 10), |(i, j)| (i * 10 + j) as f32);
        let lookup = |bits, group_size| Choice::Lookup { bits, group_size };
        assert_eq!(of(Quantizer::uniform(8).apply(&w)), integer(Bits::Eight, 10));
        assert_eq!(of(Quantizer::uniform(5).apply(&w)), integer(Bits::Eight, 10));
        assert_eq!(of(Quantizer::uniform(3).per_channel(Axis(0)).apply(&w)), integer(Bits::Four, 10));
        assert_eq!(of(Quantizer::uniform(4).per_group(3).apply(&w)), integer(Bits::Four, 3));
        assert_eq!(of(Quantizer::uniform(2).per_group(99).apply(&w)), integer(Bits::Two, 10));
        assert_eq!(of(Quantizer::uniform(1).apply(&w)), integer(Bits::Two, 10));
        assert_eq!(of(Quantizer::uniform(8).per_channel(Axis(1)).apply(&w)), Choice::Decoded);
        assert_eq!(of(Quantizer::uniform(16).apply(&w)), Choice::Decoded);
        assert_eq!(of(Quantizer::nf4().per_group(5).apply(&w)), lookup(Bits::Four, 5));
        assert_eq!(of(Quantizer::quantile(3).apply(&(w.mapv(f32::sin)))), lookup(Bits::Four, 10));
        assert_eq!(of(Quantizer::kmeans(4).per_channel(Axis(0)).apply(&w)), Choice::Decoded);
        assert_eq!(choose(&Quantizer::uniform(8).apply(&w).unwrap(), &Activations::Float), lookup(Bits::Eight, 10));
    }

    #[test]
    fn levels_that_are_small_integers_times_a_power_of_two_run_on_them() {
        let halves = [-6.0, -4.0, -3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
        let codes = vec![0, 4, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20, 24];
        let integers = Integers::Levels { unit: 0.5, codes, zero: 12 };
        assert_eq!(Integers::of(&halves), Some((integers, Bits::Eight)));
        let (found, bits) = Integers::of(&[0.0, 1.0, 1.5]).unwrap();
        assert_eq!((found, bits), (Integers::Levels { unit: 0.5, codes: vec![0, 2, 3], zero: 0 }, Bits::Two));
        let (found, bits) = Integers::of(&[-1.0, 126.5]).unwrap();
        assert_eq!((found, bits), (Integers::Levels { unit: 0.5, codes: vec![0, 255], zero: 2 }, Bits::Eight));
        for levels in [&[-1.0, 127.0f32] as &[f32], &[1.0, 0.3], &[1.0, 1e-40], &[1e30, 1e-30], &[0.0]] {
            let whole = levels == [-1.0, 127.0];
            assert_eq!(Integers::of(levels).is_some(), whole, "{levels:?}");
        }
        let w = Array::from_shape_fn((6, 10), |(i, j)| (i * 10 + j) as f32);
        let power = Quantizer::power_of_two(3).per_group(5).apply(&w).unwrap();
        let choice = choose(&power, &Activations::Dynamic);
        assert!(matches!(choice, Choice::Integer { bits: Bits::Four, group_size: 5, .. }), "{choice:?}");
        assert_eq!(choose(&power, &Activations::Float), Choice::Lookup { bits: Bits::Four, group_size: 5 });
    }

    #[test]
    fn groups_of_a_convolution_must_divide_its_last_axis() {
        let w = Array::from_shape_fn((2, 3, 4, 6), |(i, ..)| i as f32 + 1.0);
        assert_eq!(of(Quantizer::uniform(4).per_group(3).apply(&w)), integer(Bits::Four, 3));
        assert_eq!(of(Quantizer::uniform(4).per_group(4).apply(&w)), Choice::Decoded);
        assert_eq!(of(Quantizer::uniform(4).per_group(32).apply(&w)), integer(Bits::Four, 6));
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
                let name = name.replace("int", "lookup");
                assert_eq!(lookup_kernel(Bits::of(bits), isa), format!("{name}-f32-{}", isa.name()));
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
