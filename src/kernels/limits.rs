//! What no kernel can exceed: multiplications on registers alone, and reads that do nothing else. For benches, which
//! time a call of these beside a product.

use std::hint::black_box;

use super::{
    isa::{Isa, Job},
    kernel::Kernel,
};

/// So many rounds of the integer products' multiplications; returns their operations.
pub fn multiply(isa: Isa, rounds: usize) -> usize {
    isa.run(Multiply { rounds })
}

/// So many rounds of f32 multiplications, each with an addition; returns their operations.
pub fn multiply_f32(isa: Isa, rounds: usize) -> usize {
    isa.run(MultiplyF32 { rounds })
}

/// Reads all bytes once, in order; returns their number.
pub fn read(isa: Isa, bytes: &[u8]) -> usize {
    isa.run(Read { bytes })
}

struct Multiply {
    rounds: usize,
}

impl Job for Multiply {
    type Output = usize;

    fn run<K: Kernel>(self, kernel: K) -> usize {
        kernel.spin(self.rounds)
    }
}

struct MultiplyF32 {
    rounds: usize,
}

impl Job for MultiplyF32 {
    type Output = usize;

    fn run<K: Kernel>(self, kernel: K) -> usize {
        /// Sums that fill half the registers of any set, or a few more.
        const SUMS: usize = 192;
        let mut sums = [0f32; SUMS];
        kernel.vectorize(
            #[inline(always)]
            || {
                let (a, b) = (black_box(0.999f32), black_box(0.5f32));
                for _ in 0..self.rounds {
                    for sum in &mut sums {
                        *sum = if K::FUSED { sum.mul_add(a, b) } else { *sum * a + b };
                    }
                }
            },
        );
        black_box(sums);
        2 * SUMS * self.rounds
    }
}

struct Read<'a> {
    bytes: &'a [u8],
}

impl Job for Read<'_> {
    type Output = usize;

    fn run<K: Kernel>(self, kernel: K) -> usize {
        kernel.vectorize(
            #[inline(always)]
            || {
                let mut sums = [0u8; 512];
                for chunk in self.bytes.as_chunks::<512>().0 {
                    sums.iter_mut().zip(chunk).for_each(|(sum, byte)| *sum ^= byte);
                }
                black_box(sums);
            },
        );
        self.bytes.len()
    }
}
