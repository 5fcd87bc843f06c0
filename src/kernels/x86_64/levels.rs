//! Products of floats with levels that are looked up in registers, once for vectors of eight and of sixteen.

use std::{arch::x86_64::*, ops::Range};

use super::{
    avx2::Avx2,
    avx512::Avx512Vnni,
    avxvnni::AvxVnni,
    float::{Vector, load},
    lookup::Lookup,
};
use crate::kernels::{
    kernel::{Bits, LANES},
    level_kernel::{FEW_ROWS, LevelKernel, LevelPanel, Levels, shift},
};

/// From the lowest bits of codes to levels, less zero points if those are `SHIFTED`.
///
/// # Safety
/// `level` needs the vector's instructions.
trait Source<T: Lookup>: Copy {
    const BITS: usize;
    const SHIFTED: bool;
    /// What is taken from codes in the table already, if those are shifted: half their range.
    const CENTER: i32 = if Self::BITS < 8 { 1 << (Self::BITS - 1) } else { 0 };
    unsafe fn level(self, codes: T::Codes) -> T;
}

#[derive(Clone, Copy)]
struct Few<T: Lookup, const BITS: usize, const SHIFTED: bool>(T::Table);

impl<T: Lookup, const BITS: usize, const SHIFTED: bool> Source<T> for Few<T, BITS, SHIFTED> {
    const BITS: usize = BITS;
    const SHIFTED: bool = SHIFTED;

    #[inline(always)]
    unsafe fn level(self, codes: T::Codes) -> T {
        // SAFETY: the caller's.
        unsafe { T::look::<BITS>(self.0, codes) }
    }
}

#[derive(Clone, Copy)]
struct Many<'a>(&'a [f32; 256]);

impl<T: Lookup> Source<T> for Many<'_> {
    const BITS: usize = 8;
    const SHIFTED: bool = false;

    #[inline(always)]
    unsafe fn level(self, codes: T::Codes) -> T {
        // SAFETY: the caller's.
        unsafe { T::gather(self.0, codes) }
    }
}

#[derive(Clone, Copy)]
struct Numbers;

impl<T: Lookup> Source<T> for Numbers {
    const BITS: usize = 8;
    const SHIFTED: bool = true;

    #[inline(always)]
    unsafe fn level(self, codes: T::Codes) -> T {
        // SAFETY: the caller's.
        unsafe { T::number(codes) }
    }
}

/// What is done with levels, whatever they come from.
trait Task {
    /// # Safety
    /// The machine has the vector's instructions.
    unsafe fn run<T: Lookup, S: Source<T>, const V: usize>(self, source: S, panel: &LevelPanel);
}

/// Runs a task for the levels of a panel and its vectors.
///
/// # Safety
/// The machine has the vector's instructions.
#[inline(always)]
unsafe fn run<T: Lookup>(panel: &LevelPanel, task: impl Task) {
    // SAFETY: the caller's.
    unsafe {
        match (panel.levels, panel.bits) {
            (Levels::Few { table, shifted: false }, Bits::Two) => {
                widths(Few::<T, 2, false>(T::table(table)), panel, task)
            }
            (Levels::Few { table, shifted: true }, Bits::Two) => {
                widths(Few::<T, 2, true>(T::table(table)), panel, task)
            }
            (Levels::Few { table, shifted: false }, _) => widths(Few::<T, 4, false>(T::table(table)), panel, task),
            (Levels::Few { table, shifted: true }, _) => widths(Few::<T, 4, true>(T::table(table)), panel, task),
            (Levels::Many(table), _) => widths::<T, _>(Many(table), panel, task),
            (Levels::Codes, _) => widths::<T, _>(Numbers, panel, task),
        }
    }
}

/// # Safety
/// The machine has the vector's instructions.
#[inline(always)]
unsafe fn widths<T: Lookup, S: Source<T>>(source: S, panel: &LevelPanel, task: impl Task) {
    // SAFETY: the caller's.
    unsafe {
        match panel.width * LANES / T::LANES {
            1 => task.run::<T, S, 1>(source, panel),
            2 => task.run::<T, S, 2>(source, panel),
            _ => task.run::<T, S, 3>(source, panel),
        }
    }
}

/// Calls `f(input, parity, levels)` for some inputs of a group, in order, less zero points if there are; neighbours differ
/// in parity where there are many.
///
/// # Safety
/// The machine has the vector's instructions.
#[inline(always)]
unsafe fn each<T: Lookup, S: Source<T>, const V: usize>(
    source: S,
    panel: &LevelPanel,
    (group, inputs): (usize, Range<usize>),
    zeros: Option<[T; V]>,
    mut f: impl FnMut(usize, usize, [T; V]),
) {
    let in_line = 32 / S::BITS;
    let lines = &panel.lines[panel.place(group)..][..inputs.end.div_ceil(in_line) * panel.width];
    assert!(panel.width * LANES == V * T::LANES);
    // SAFETY: the caller has the instructions; a place is the panel's width of lines, and as many vectors.
    unsafe {
        for place in inputs.start / in_line..inputs.end.div_ceil(in_line) {
            let from = lines.as_ptr().cast::<i32>().add(place * V * T::LANES);
            let mut codes = [T::codes(from); V];
            for (vector, codes) in codes.iter_mut().enumerate() {
                _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(vector * T::LANES + AHEAD).cast());
                *codes = T::codes(from.add(vector * T::LANES));
            }
            let first = place * in_line;
            let some = inputs.start.max(first) - first..(inputs.end - first).min(in_line);
            if some.len() == in_line {
                // Eight at a time, which the compiler writes out.
                for eight in (0..in_line).step_by(8) {
                    let codes = shifted::<T, V>(codes, shift(eight, S::BITS));
                    for within in 0..in_line.min(8) {
                        f(first + eight + within, within % 2, levels(source, codes, within, zeros));
                    }
                }
            } else {
                for within in some {
                    f(first + within, 0, levels(source, codes, within, zeros));
                }
            }
        }
    }
}

/// # Safety
/// The machine has the vector's instructions.
#[inline(always)]
unsafe fn shifted<T: Lookup, const V: usize>(mut codes: [T::Codes; V], by: usize) -> [T::Codes; V] {
    for codes in &mut codes {
        // SAFETY: the caller's.
        *codes = unsafe { T::shifted(*codes, by) };
    }
    codes
}

/// # Safety
/// The machine has the vector's instructions.
#[inline(always)]
unsafe fn levels<T: Lookup, S: Source<T>, const V: usize>(
    source: S,
    codes: [T::Codes; V],
    within: usize,
    zeros: Option<[T; V]>,
) -> [T; V] {
    // SAFETY: the caller's.
    unsafe {
        let mut levels = [T::zero(); V];
        for (vector, level) in levels.iter_mut().enumerate() {
            *level = source.level(T::shifted(codes[vector], shift(within, S::BITS)));
            if let Some(zeros) = zeros {
                *level = level.sub(zeros[vector]);
            }
        }
        levels
    }
}

/// How many 32 bits ahead memory is asked for: where scales are read in between, the hardware does not look so far.
const AHEAD: usize = 1 << 12;

/// # Safety
/// The machine has the vector's instructions.
#[inline(always)]
unsafe fn zeros<T: Lookup, S: Source<T>, const V: usize>(panel: &LevelPanel, group: usize) -> [T; V] {
    // SAFETY: the caller has the instructions; `V` vectors are the panel's width of lines.
    unsafe {
        let mut zeros = [T::zero(); V];
        for (vector, to) in zeros.iter_mut().enumerate() {
            let first = vector * T::LANES;
            let lanes = panel.grid.zeros(group * panel.width + first / LANES).map(|zero| (zero - S::CENTER) as f32);
            *to = T::load(lanes.as_ptr().add(first % LANES));
        }
        zeros
    }
}

/// # Safety
/// The machine has the vector's instructions.
#[inline(always)]
unsafe fn scales<T: Lookup, const V: usize>(panel: &LevelPanel, group: usize) -> [T; V] {
    let lines = &panel.grid.scales[group * panel.width..][..panel.width];
    assert!(panel.width * LANES == V * T::LANES);
    // SAFETY: the caller has the instructions; `V` vectors are the panel's width of lines.
    unsafe {
        let mut scales = [T::zero(); V];
        for (vector, to) in scales.iter_mut().enumerate() {
            *to = T::load(lines.as_ptr().cast::<f32>().add(vector * T::LANES));
        }
        scales
    }
}

struct Decode<'a> {
    inputs: Range<usize>,
    to: &'a mut [f32],
}

impl Task for Decode<'_> {
    #[inline(always)]
    unsafe fn run<T: Lookup, S: Source<T>, const V: usize>(self, source: S, panel: &LevelPanel) {
        assert!(self.inputs.len() * V * T::LANES <= self.to.len());
        let mut to = self.to.as_mut_ptr();
        for (group, inputs) in panel.groups(self.inputs) {
            // SAFETY: the caller has the instructions; there is room for all inputs, checked above.
            unsafe {
                let scales = scales::<T, V>(panel, group);
                let zeros = if S::SHIFTED { Some(zeros::<T, S, V>(panel, group)) } else { None };
                each(
                    source,
                    panel,
                    (group, inputs),
                    zeros,
                    #[inline(always)]
                    |_, _, levels: [T; V]| {
                        for (level, scale) in levels.into_iter().zip(scales) {
                            level.mul(scale).store(to);
                            to = to.wrapping_add(T::LANES);
                        }
                    },
                );
            }
        }
    }
}

/// The sum of so many numbers.
///
/// # Safety
/// The caller's are the instructions, and so many floats.
#[inline(always)]
unsafe fn total<T: Vector>(x: *const f32, count: usize) -> f32 {
    // SAFETY: the caller's.
    unsafe {
        let mut sum = T::zero();
        for first in (0..count).step_by(T::LANES) {
            sum = sum.add(load(x.add(first), T::LANES.min(count - first)));
        }
        sum.sum()
    }
}

/// Zero points of few bits are taken from sums, `sum x (code - zero) = sum x (code - center) - (zero - center) sum x`: an
/// operation less for each level, of three.
struct Multiply<'a, 'o, const R: usize> {
    x: &'a [f32],
    stride: usize,
    out: &'a mut [&'o mut [f32]],
    first: usize,
}

impl<const R: usize> Task for Multiply<'_, '_, R> {
    #[inline(always)]
    unsafe fn run<T: Lookup, S: Source<T>, const V: usize>(self, source: S, panel: &LevelPanel) {
        let Multiply { x, stride, out, first } = self;
        let (k, columns) = (panel.depth.k(), panel.columns);
        assert!(out.len() == R && (R - 1) * stride + k <= x.len() && columns <= V * T::LANES);
        // Few sums would wait for themselves: every second input has its own.
        let chains = if R * V <= 6 { 2 } else { 1 };
        // SAFETY: the caller has the instructions; inputs are below `k`, and no more columns are written than there are.
        unsafe {
            let mut totals = [[T::zero(); V]; R];
            for (group, inputs) in panel.groups(0..k) {
                let x = x.as_ptr().add(group * panel.depth.group_size());
                let zeros = if S::SHIFTED { Some(zeros::<T, S, V>(panel, group)) } else { None };
                let (at_once, late) = if S::BITS < 8 { (None, zeros) } else { (zeros, None) };
                let mut sums = [[[T::zero(); V]; R]; 2];
                if let Some(zeros) = late {
                    for (row, sums) in sums[0].iter_mut().enumerate() {
                        let sum = T::all(-total::<T>(x.add(row * stride), inputs.len()));
                        for (to, zero) in sums.iter_mut().zip(zeros) {
                            *to = zero.mul(sum);
                        }
                    }
                }
                each(
                    source,
                    panel,
                    (group, inputs),
                    at_once,
                    #[inline(always)]
                    |input, parity, levels: [T; V]| {
                        for (row, sums) in sums[parity % chains].iter_mut().enumerate() {
                            let x = T::all(*x.add(row * stride + input));
                            for (sum, level) in sums.iter_mut().zip(levels) {
                                *sum = sum.add_product(x, level);
                            }
                        }
                    },
                );
                let scales = scales::<T, V>(panel, group);
                for row in 0..R {
                    for (vector, scale) in scales.into_iter().enumerate() {
                        let sum = match chains {
                            2 => sums[0][row][vector].add(sums[1][row][vector]),
                            _ => sums[0][row][vector],
                        };
                        totals[row][vector] = totals[row][vector].add_product(sum, scale);
                    }
                }
            }
            for (out, totals) in out.iter_mut().zip(totals) {
                for (out, total) in out[first..][..columns].chunks_mut(T::LANES).zip(totals) {
                    match out.len() == T::LANES {
                        true => T::load(out.as_ptr()).add(total).store(out.as_mut_ptr()),
                        false => {
                            T::load_some(out.as_ptr(), out.len()).add(total).store_some(out.as_mut_ptr(), out.len())
                        }
                    }
                }
            }
        }
    }
}

/// # Safety
/// The machine has the vector's instructions.
#[inline(always)]
unsafe fn multiply<T: Lookup>(panel: &LevelPanel, x: &[f32], stride: usize, out: &mut [&mut [f32]], first: usize) {
    // SAFETY: the caller's.
    unsafe {
        match out.len() {
            1 => run::<T>(panel, Multiply::<1> { x, stride, out, first }),
            2 => run::<T>(panel, Multiply::<2> { x, stride, out, first }),
            3 => run::<T>(panel, Multiply::<3> { x, stride, out, first }),
            FEW_ROWS => run::<T>(panel, Multiply::<FEW_ROWS> { x, stride, out, first }),
            rows => unreachable!("{rows} rows are not few"),
        }
    }
}

macro_rules! level_kernel {
    ($kernel:ty, $vector:ty, $features:literal) => {
        impl LevelKernel for $kernel {
            fn decode(self, panel: &LevelPanel, inputs: Range<usize>, to: &mut [f32]) {
                #[target_feature(enable = $features)]
                fn decode(panel: &LevelPanel, inputs: Range<usize>, to: &mut [f32]) {
                    // SAFETY: the features.
                    unsafe { run::<$vector>(panel, Decode { inputs, to }) }
                }
                // SAFETY: `self` proves the features.
                unsafe { decode(panel, inputs, to) }
            }

            fn multiply_levels(
                self,
                panel: &LevelPanel,
                x: &[f32],
                stride: usize,
                out: &mut [&mut [f32]],
                first: usize,
            ) {
                #[target_feature(enable = $features)]
                fn call(panel: &LevelPanel, x: &[f32], stride: usize, out: &mut [&mut [f32]], first: usize) {
                    // SAFETY: the features.
                    unsafe { multiply::<$vector>(panel, x, stride, out, first) }
                }
                // SAFETY: `self` proves the features.
                unsafe { call(panel, x, stride, out, first) }
            }
        }
    };
}

level_kernel!(Avx512Vnni, __m512, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni");
level_kernel!(AvxVnni, __m256, "avx2,fma,avxvnni");
level_kernel!(Avx2, __m256, "avx2,fma");
