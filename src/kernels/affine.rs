//! The affine grid, plainly: `code = clamp(round(x / scale) + zero_point)`, and back.
//!
//! Written so that the compiler vectorizes it on every target.

/// `out = scale * (code + offset)`.
pub(crate) fn dequantize(codes: &[u16], scale: f32, offset: i64, out: &mut [f32]) {
    // |offset| stays far below 2^24 unless zero is outside the range; the sum is exact in i64 either way.
    for (code, out) in codes.iter().zip(out) {
        *out = scale * (i64::from(*code) + offset) as f32;
    }
}
