//! Every operation, plainly: the specification of the others, and what runs where there is nothing better.

use super::{
    kernel::{FloatLine, Kernel, LANES, Lanes, Line, Quad},
    products::Products,
};

/// The kernel that every machine has. The compiler makes of it what the target allows.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Scalar;

impl Kernel for Scalar {
    const ROWS: usize = 4;
    const LINES: usize = 1;
    const SUMS: usize = 2;
    const FUSED: bool = false;

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        f()
    }

    fn tile(self, rows: &[&[Quad]], first: usize, panel: &[Line], sums: &mut [Lanes<i32>]) {
        for (row, sums) in rows.iter().zip(sums) {
            *sums = [0; LANES];
            for (a, line) in row[first..].iter().zip(panel) {
                for (sum, w) in sums.iter_mut().zip(line.0) {
                    *sum += (0..4).map(|i| i32::from(a[i]) * i32::from(w[i])).sum::<i32>();
                }
            }
        }
    }

    fn add_scaled(self, products: &Products<i32>, totals: &mut [Lanes<f32>]) {
        products.add_scaled(totals);
    }

    #[inline(always)]
    fn add_multiple(self, a: f32, x: &FloatLine, sum: &mut FloatLine) {
        x.0.iter().zip(&mut sum.0).for_each(|(x, sum)| *sum += a * x);
    }
}
