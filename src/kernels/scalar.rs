//! Every operation, plainly: the specification of the others, and what runs where there is nothing better.

use super::{
    kernel::{Kernel, LANES, Lanes, Line, Quad},
    products::Products,
};

/// The kernel that every machine has. The compiler makes of it what the target allows.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Scalar;

impl Kernel for Scalar {
    const ROWS: usize = 4;
    const LINES: usize = 1;

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        f()
    }

    fn tile(self, rows: &[&[Quad]], panel: &[Line], sums: &mut [Lanes<i32>]) {
        for (row, sums) in rows.iter().zip(sums) {
            *sums = [0; LANES];
            for (a, line) in row.iter().zip(panel) {
                for (sum, w) in sums.iter_mut().zip(line.0) {
                    *sum += (0..4).map(|i| i32::from(a[i]) * i32::from(w[i])).sum::<i32>();
                }
            }
        }
    }

    fn add_scaled(self, products: &Products<i32>, totals: &mut Lanes<f32>) {
        products.add_scaled(totals);
    }
}

/// `out[i] = table[codes[i]]`; codes beyond the table give 0.
pub(crate) fn lookup(codes: &[u8], table: &[f32], out: &mut [f32]) {
    let mut full = [0.0; 256]; // a u8 needs no bounds check here
    let len = table.len().min(256);
    full[..len].copy_from_slice(&table[..len]);
    for (code, out) in codes.iter().zip(out) {
        *out = full[usize::from(*code)];
    }
}

/// `out[i] = scale * (codes[i] - zero)`.
pub(crate) fn dequantize(codes: &[u8], scale: f32, zero: i32, out: &mut [f32]) {
    let zero = f64::from(zero); // the difference is exact in f64, and then rounded once
    for (code, out) in codes.iter().zip(out) {
        *out = scale * (f64::from(*code) - zero) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookup_reads_the_table_and_zero_beyond_it() {
        let mut out = [9.0; 5];
        lookup(&[2, 0, 1, 3, 255], &[0.5, -1.0, 7.0], &mut out);
        assert_eq!(out, [7.0, 0.5, -1.0, 0.0, 0.0]);
    }

    #[test]
    fn dequantize_is_exact_before_the_scale_for_any_zero_point() {
        for zero in [0, 128, -1, i32::MIN, i32::MAX] {
            let codes: Vec<u8> = (0..=255).collect();
            let mut out = [0.0; 256];
            dequantize(&codes, 0.3, zero, &mut out);
            for (code, x) in codes.iter().zip(out) {
                assert_eq!(x, 0.3 * (i64::from(*code) - i64::from(zero)) as f32);
            }
        }
    }
}
