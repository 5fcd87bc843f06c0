//! The affine grid, plainly: `code = clamp(round(x / scale) + zero_point)`, and back.
//!
//! Written so that the compiler vectorizes it on every target. A `level` is `code - zero_point`, as a float.

/// An integer that stores a code, counted from the lowest.
pub(crate) trait Code: Copy + Default + Send {
    fn from_level(level: f32) -> Self;
}

impl Code for u8 {
    fn from_level(level: f32) -> u8 {
        level as i32 as u8
    }
}

impl Code for u16 {
    fn from_level(level: f32) -> u16 {
        level as i32 as u16
    }
}

/// Rounds to the nearest integer, halves to even, for |x| <= 2^22; what lies beyond stays beyond.
///
/// Adding 1.5 * 2^23 leaves no bits for a fraction, and the addition itself rounds half to even.
#[inline(always)]
pub(crate) fn round_half_even(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (x + MAGIC) - MAGIC
}

/// Codes counted from the lower bound; `rule` gives a number's level before clamping to the bounds.
#[inline(always)]
pub(crate) fn encode<T: Code>(values: &[f32], rule: impl Fn(f32) -> f32, (low, high): (f32, f32), out: &mut [T]) {
    for (x, code) in values.iter().zip(out) {
        *code = T::from_level(rule(*x).max(low).min(high) - low);
    }
}

/// `out = scale * (code + offset)`; the sum is exact, and then rounded once.
pub(crate) fn dequantize<C: Copy + Into<i32>>(codes: &[C], scale: f32, offset: i32, out: &mut [f32]) {
    for (code, out) in codes.iter().zip(out) {
        *out = scale * ((*code).into() + offset) as f32;
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
