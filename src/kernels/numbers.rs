//! Numbers as they are stored, read as f32 a stretch at a time: no pass needs a wide copy of the whole.

use std::ops::Range;

use half::{bf16, f16, slice::HalfFloatSliceExt};

use super::isa::vectorize;

/// Numbers in a row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Numbers<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

impl Numbers<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Numbers::F32(values) => values.len(),
            Numbers::F16(values) => values.len(),
            Numbers::Bf16(values) => values.len(),
        }
    }

    /// A stretch as f32, exactly: borrowed, or converted to the start of `room`.
    pub(crate) fn read<'b>(&'b self, range: Range<usize>, room: &'b mut Vec<f32>) -> &'b [f32] {
        if let Numbers::F32(values) = self {
            return &values[range];
        }
        room.resize(room.len().max(range.len()), 0.0);
        let room = &mut room[..range.len()];
        match self {
            Numbers::F16(values) => values[range].convert_to_f32_slice(room),
            Numbers::Bf16(values) => vectorize(
                #[inline(always)]
                || {
                    for (out, x) in room.iter_mut().zip(&values[range]) {
                        *out = f32::from_bits(u32::from(x.to_bits()) << 16);
                    }
                },
            ),
            Numbers::F32(_) => {}
        }
        room
    }
}
