//! Weights of which at most two of four consecutive inputs differ from the zero point, as 2:4 pruning leaves them.
//!
//! Only those are stored, as signed distances from the zero point, and which inputs they belong to: for eight inputs of
//! an output four bytes and one, where all would take eight. A tile picks the activations, so that one multiplication
//! does the work of two:
//!
//! `sum (w - zero_w) (a - zero_a) = sum over picked (w - zero_w) a - zero_a * sum (w - zero_w)`
//!
//! The instruction wants one factor unsigned. Weights are signed here, so activations count from 0 to 255.
//!
//! A line has the weights of two quads, a step: four slots for each output, two of the first quad and two of the second.
//! Ahead of every [`STEPS`] such lines goes one that says what they pick: in the byte of a slot, two bits for each step,
//! the first one's lowest, with the input's place in its quad.

use super::{
    depth::Depth,
    kernel::{Bits, LANES, Lanes, Quad, Stretch, Tile},
    panels::PackedInt8,
    quantize::Activations,
};

/// Lines of weights whose picks make a line.
pub(super) const STEPS: usize = 4;

impl PackedInt8 {
    /// Whether [`Bits::Picked`] can pack codes: at most two of every four inputs of a group differ from the zero point,
    /// by no more than a signed byte holds; groups are of whole eights, but for up to three inputs.
    pub(crate) fn can_pick(codes: &[u8], depth: Depth, grid: impl Fn(usize, usize) -> (f32, i32)) -> bool {
        let (k, groups) = (depth.k(), depth.groups());
        let even = |group| depth.group(group).1.len().is_multiple_of(2);
        if k == 0 || !even(0) || !even(groups - 1) {
            return false;
        }
        codes.chunks_exact(k).enumerate().all(|(output, codes)| {
            (0..groups).all(|group| {
                let zero = grid(output, group).1;
                let picked = |code: &u8| i32::from(*code) != zero;
                let fits = |code: &u8| i8::try_from(i64::from(*code) - i64::from(zero)).is_ok();
                codes[depth.group(group).0]
                    .chunks(4)
                    .all(|four| four.iter().filter(|code| picked(code)).count() <= 2 && four.iter().all(fits))
            })
        })
    }

    /// Activations as these weights take them.
    pub(crate) fn suit(&self, activations: Activations) -> Activations {
        match self.bits() {
            Bits::Picked => activations.unsigned(self.isa()),
            _ => activations,
        }
    }
}

/// The weights of an output for up to eight inputs, and the places in their quads of the inputs that these belong to.
pub(super) fn pick(codes: &[u8], zero: i32) -> (Quad, [u8; 4]) {
    let (mut weights, mut places) = ([0; 4], [0; 4]);
    for (codes, half) in codes.chunks(4).zip([0, 2]) {
        let picked = codes.iter().enumerate().filter(|(_, code)| i32::from(**code) != zero);
        for (slot, (place, code)) in (half..half + 2).zip(picked) {
            (weights[slot], places[slot]) = ((i32::from(*code) - zero) as i8, place as u8);
        }
    }
    (weights, places)
}

/// [`Kernel::tile`](super::kernel::Kernel::tile), plainly.
pub(super) fn tile(tile: &Tile, stretch: &Stretch, sums: &mut [Lanes<i32>]) {
    let (together, in_chunk) = Bits::Picked.chunk();
    let panel = &tile.panel[stretch.place * tile.lines..][..Bits::Picked.lines(stretch.quads) * tile.lines];
    for (row, sums) in tile.quads.chunks(tile.stride).zip(sums.chunks_exact_mut(tile.lines)) {
        sums.fill([0; LANES]);
        let quads = &row[stretch.first..][..stretch.quads];
        for (quads, chunk) in quads.chunks(in_chunk).zip(panel.chunks(together * tile.lines)) {
            let (picks, weights) = chunk.split_at(tile.lines);
            for (step, (two, weights)) in quads.chunks(2).zip(weights.chunks(tile.lines)).enumerate() {
                for ((sums, picks), weights) in sums.iter_mut().zip(picks).zip(weights) {
                    for ((sum, picks), weights) in sums.iter_mut().zip(picks.0).zip(weights.0) {
                        let a = |slot: usize| two[slot / 2][usize::from(picks[slot] >> (2 * step) & 3)].cast_unsigned();
                        let product = |slot: usize| i32::from(a(slot)) * i32::from(weights[slot].cast_signed());
                        *sum += (0..4).map(product).sum::<i32>();
                    }
                }
            }
        }
    }
}
