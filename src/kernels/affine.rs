//! The affine grid, plainly: `code = clamp(round(x / scale) + zero_point)`, and back.
//!
//! Written so that the compiler vectorizes it on every target. A `level` is `code - zero_point`, as a float.

use super::pack;

/// An integer that stores a code, counted from the lowest.
pub(crate) trait Code: Copy + Default + Send {
    /// Of the lowest bits.
    fn truncate(bits: u32) -> Self;

    /// Writes codes to the bytes that they take at their width; to be inlined where instructions were chosen.
    fn store(codes: &[Self], bits: u8, bytes: &mut [u8]);
}

impl Code for u8 {
    #[inline(always)]
    fn truncate(bits: u32) -> u8 {
        bits as u8
    }

    #[inline(always)]
    fn store(codes: &[u8], bits: u8, bytes: &mut [u8]) {
        pack::pack_into(codes, bits, bytes);
    }
}

impl Code for u16 {
    #[inline(always)]
    fn truncate(bits: u32) -> u16 {
        bits as u16
    }

    #[inline(always)]
    fn store(codes: &[u16], _: u8, bytes: &mut [u8]) {
        codes.iter().zip(bytes.as_chunks_mut().0).for_each(|(code, bytes)| *bytes = code.to_le_bytes());
    }
}

/// 1.5 * 2^23: beside it f32 counts in ones, from 2^22 below to 2^22 above.
const MAGIC: f32 = 12_582_912.0;

/// Rounds to the nearest integer, halves to even, for |x| <= 2^22; what lies beyond stays beyond.
///
/// Adding 1.5 * 2^23 leaves no bits for a fraction, and the addition itself rounds half to even.
#[inline(always)]
pub(crate) fn round_half_even(x: f32) -> f32 {
    (x + MAGIC) - MAGIC
}

/// The code of a level, counted from `low`; both bounds are integers below 2^22 in magnitude.
#[inline(always)]
fn code<T: Code>(level: f32, (low, high): (f32, f32)) -> T {
    // Comparisons, since `min` and `max` look for NaN.
    let level = if level > low { level } else { low };
    let level = if level < high { level } else { high };
    T::truncate((level + MAGIC).to_bits().wrapping_sub((low + MAGIC).to_bits()))
}

/// Codes counted from the lower bound; `rule` gives a number's level before clamping to the bounds.
#[inline(always)]
pub(crate) fn encode<T: Code>(values: &[f32], rule: impl Fn(f32) -> f32, bounds: (f32, f32), out: &mut [T]) {
    for (x, out) in values.iter().zip(out) {
        *out = code(rule(*x), bounds);
    }
}

/// The same, rounded half to even, where each number has a grid of its own: its scale, and its bounds as
/// `(lowest - zero, highest - zero)`.
#[inline(always)]
pub(crate) fn encode_each<T: Code>(
    values: &[f32],
    (scale, zero): (&[f32], &[i32]),
    (lowest, highest): (i32, i32),
    out: &mut [T],
) {
    for (((x, scale), zero), out) in values.iter().zip(scale).zip(zero).zip(out) {
        *out = code(round_half_even(x / scale), ((lowest - zero) as f32, (highest - zero) as f32));
    }
}

/// `out = scale * (code + offset)`; the sum is exact, and then rounded once.
#[inline(always)]
pub(crate) fn dequantize<C: Copy + Into<i32>>(codes: &[C], scale: f32, offset: i32, out: &mut [f32]) {
    for (code, out) in codes.iter().zip(out) {
        *out = scale * ((*code).into() + offset) as f32;
    }
}

/// `out = scale * (code + lowest - zero)`, where each code has a grid of its own; no zeros at all are 0.
#[inline(always)]
pub(crate) fn dequantize_each<C: Copy + Into<i32>>(
    codes: &[C],
    (scale, zero): (&[f32], &[i32]),
    lowest: i32,
    out: &mut [f32],
) {
    let scaled = codes.iter().zip(scale).zip(out);
    if zero.is_empty() {
        return scaled.for_each(|((code, scale), out)| *out = scale * ((*code).into() + lowest) as f32);
    }
    for (((code, scale), out), zero) in scaled.zip(zero) {
        *out = scale * ((*code).into() + (lowest - zero)) as f32;
    }
}

/// The sum of squared errors in units of the squared scale, each times its importance.
#[inline(always)]
pub(crate) fn squared_error(
    values: &[f32],
    importance: Option<&[f32]>,
    scale: f32,
    rule: impl Fn(f32) -> f32,
    (low, high): (f32, f32),
) -> f64 {
    const LANES: usize = 16;
    /// Values summed in f32 before they join the f64 total.
    const BLOCK: usize = 64 * LANES;
    let squared = |x: f32| {
        let error = rule(x).max(low).min(high) - x / scale;
        error * error
    };
    if let Some(importance) = importance {
        return values.iter().zip(importance).map(|(x, w)| f64::from(squared(*x)) * f64::from(*w)).sum();
    }
    let mut total = 0.0;
    for block in values.chunks(BLOCK) {
        let mut sums = [0f32; LANES];
        let (whole, rest) = block.as_chunks::<LANES>();
        for lanes in whole {
            for (sum, x) in sums.iter_mut().zip(lanes) {
                *sum += squared(*x);
            }
        }
        total += sums.iter().map(|sum| f64::from(*sum)).sum::<f64>();
        total += rest.iter().map(|x| f64::from(squared(*x))).sum::<f64>();
    }
    total
}
