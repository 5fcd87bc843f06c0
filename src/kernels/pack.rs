//! Codes of 1 to 8 bits as one dense bit stream, lowest bit first: element `i` holds bits `i * bits .. (i + 1) * bits`.
//!
//! Eight codes fill exactly `bits` bytes, so the stream is a sequence of such blocks. Within a block, codes are spread
//! to bytes (and gathered back) in three halvings of a 64-bit word, the same for every width.

use std::hint::black_box;

use super::{isa::vectorize, parallel};

/// Codes in a block.
const BLOCK: usize = 8;

/// Codes in a chunk.
const CHUNK: usize = 64 * BLOCK;

/// Codes in a piece of parallel work.
const PIECE: usize = 1 << 15;

/// The bytes that `len` codes take.
pub(crate) fn packed_len(len: usize, bits: u8) -> usize {
    if bits == 16 {
        return 2 * len;
    }
    // Written so that it cannot overflow for any `len` a slice may have.
    len / BLOCK * usize::from(bits) + (len % BLOCK * usize::from(bits)).div_ceil(8)
}

/// Calls a function generic over the width with the width at hand.
macro_rules! of_width {
    ($bits:expr, $function:ident($($argument:expr),*)) => {
        match $bits {
            1 => $function::<1>($($argument),*),
            2 => $function::<2>($($argument),*),
            3 => $function::<3>($($argument),*),
            4 => $function::<4>($($argument),*),
            5 => $function::<5>($($argument),*),
            6 => $function::<6>($($argument),*),
            7 => $function::<7>($($argument),*),
            _ => $function::<8>($($argument),*),
        }
    };
}

/// The bit stream of `codes`. Bits above `bits` are dropped.
pub(crate) fn pack_bits(codes: &[u8], bits: u8) -> Vec<u8> {
    let mut stream = vec![0; packed_len(codes.len(), bits)];
    parallel::for_each_chunk_mut(&mut stream, PIECE / 8 * usize::from(bits), |index, stream| {
        let codes = &codes[index * PIECE..codes.len().min((index + 1) * PIECE)];
        vectorize(
            #[inline(always)]
            || pack_into(codes, bits, stream),
        );
    });
    stream
}

/// Whether all codes fit so many bits.
pub(crate) fn fit(codes: &[u8], bits: u8) -> bool {
    let any = |codes: &[u8]| {
        vectorize(
            #[inline(always)]
            || {
                let mut any = 0;
                for code in codes {
                    any |= code;
                }
                any
            },
        )
    };
    bits >= 8
        || parallel::map(codes.len().div_ceil(PIECE), |index| {
            any(&codes[index * PIECE..][..PIECE.min(codes.len() - index * PIECE)])
        })
        .into_iter()
        .all(|any| any >> bits == 0)
}

/// Overwrites the start of a stream with that of `codes`; to be inlined where instructions were chosen.
#[inline(always)]
pub(crate) fn pack_into(codes: &[u8], bits: u8, stream: &mut [u8]) {
    of_width!(bits, pack(codes, stream));
}

#[inline(always)]
fn pack<const BITS: usize>(codes: &[u8], stream: &mut [u8]) {
    if BITS == 8 {
        return stream[..codes.len()].copy_from_slice(codes);
    }
    if BITS.is_power_of_two() {
        // Blocks are whole numbers of the machine's: the compiler packs them in registers.
        let blocks = codes.as_chunks::<BLOCK>().0;
        for (codes, bytes) in blocks.iter().zip(stream.as_chunks_mut::<BITS>().0) {
            bytes.copy_from_slice(&gather::<BITS>(u64::from_le_bytes(*codes)).to_le_bytes()[..BITS]);
        }
        let (rest, tail) = (&codes[blocks.len() * BLOCK..], &mut stream[blocks.len() * BITS..]);
        let bytes = rest.len() * BITS;
        return tail[..bytes.div_ceil(8)]
            .copy_from_slice(&gather::<BITS>(word(rest)).to_le_bytes()[..bytes.div_ceil(8)]);
    }
    let (mut at, mut words) = (0, [0; CHUNK / BLOCK]);
    for codes in codes.as_chunks::<CHUNK>().0 {
        for (word, codes) in words.iter_mut().zip(codes.as_chunks::<BLOCK>().0) {
            *word = gather::<BITS>(u64::from_le_bytes(*codes));
        }
        // Each word is written whole, and the next one over its upper bytes, of which some may belong to the next chunk.
        let Some(bytes) = stream.get_mut(at..at + (CHUNK / BLOCK - 1) * BITS + 8) else { break };
        // Elsewhere than the loop above, which is vectorized if it is not mixed with this one.
        for (i, word) in black_box(&words).iter().enumerate() {
            bytes[i * BITS..i * BITS + 8].copy_from_slice(&word.to_le_bytes());
        }
        at += CHUNK / BLOCK * BITS;
    }
    for (codes, bytes) in codes[at / BITS * BLOCK..].chunks(BLOCK).zip(stream[at..].chunks_mut(BITS)) {
        let block = gather::<BITS>(word(codes)).to_le_bytes();
        bytes.copy_from_slice(&block[..bytes.len()]);
    }
}

/// Writes the codes `start .. start + out.len()` of a stream to `out`.
///
/// The stream must hold that many; codes beyond its end are read as 0.
pub(crate) fn unpack_bits(stream: &[u8], bits: u8, start: usize, out: &mut [u8]) {
    debug_assert!(start + out.len() <= stream.len() * 8 / usize::from(bits));
    vectorize(
        #[inline(always)]
        || unpack_from(stream, bits, start, out),
    );
}

/// The same, to be inlined where instructions were chosen.
#[inline(always)]
pub(crate) fn unpack_from(stream: &[u8], bits: u8, start: usize, out: &mut [u8]) {
    of_width!(bits, unpack(stream, start, out));
}

#[inline(always)]
fn unpack<const BITS: usize>(stream: &[u8], start: usize, out: &mut [u8]) {
    if BITS == 8 {
        return out.copy_from_slice(&stream[start..start + out.len()]);
    }
    let block = |bytes: &[u8]| spread::<BITS>(word(bytes)).to_le_bytes();
    let mut stream = stream.get(start / BLOCK * BITS..).unwrap_or_default();
    let mut out = out;
    let skip = start % BLOCK;
    if skip > 0 {
        let (head, rest) = out.split_at_mut(out.len().min(BLOCK - skip));
        head.copy_from_slice(&block(stream)[skip..skip + head.len()]);
        (out, stream) = (rest, stream.get(BITS..).unwrap_or_default());
    }
    let mut at = 0;
    for codes in out.as_chunks_mut::<{ 8 * BLOCK }>().0 {
        // Each word is read whole, with some of the next above it.
        let Some(bytes) = stream.get(at..at + 7 * BITS + 8) else { break };
        let mut words = [0; 8];
        for (i, word) in words.iter_mut().enumerate() {
            *word = self::word(&bytes[i * BITS..]);
        }
        for (codes, word) in codes.as_chunks_mut::<BLOCK>().0.iter_mut().zip(words) {
            *codes = spread::<BITS>(word).to_le_bytes();
        }
        at += 8 * BITS;
    }
    for (index, out) in out[at / BITS * BLOCK..].chunks_mut(BLOCK).enumerate() {
        out.copy_from_slice(&block(stream.get(at + index * BITS..).unwrap_or_default())[..out.len()]);
    }
}

/// The first eight bytes as a little-endian word; missing ones are 0.
#[inline(always)]
fn word(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(&bytes) => u64::from_le_bytes(bytes),
        None => bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)),
    }
}

/// One halving of a block into (or from) lanes: the upper field of every pair moves by `shift`, to where the upper lane
/// starts.
struct Halving {
    /// The lower field of every pair, in place.
    lower: u64,
    /// Bits in a lane less bits in a field.
    shift: u32,
    /// The upper field when spread, and when gathered.
    spread: u64,
    gathered: u64,
}

/// Lanes of 4, 2 and 1 bytes, holding 4, 2 and 1 codes of so many bits.
const fn halvings(bits: usize) -> [Halving; 3] {
    [halving(bits as u32, 4), halving(bits as u32, 2), halving(bits as u32, 1)]
}

const fn halving(bits: u32, codes: u32) -> Halving {
    let (lane, field) = (8 * codes, bits * codes);
    let every_pair = u64::MAX / (u64::MAX >> (64 - 2 * lane)); // a one at the start of every pair of lanes
    let lower = every_pair * (u64::MAX >> (64 - field));
    Halving { lower, shift: lane - field, spread: lower << lane, gathered: lower << field }
}

/// Adjacent fields to bytes; what lies above the fields is dropped.
#[inline(always)]
fn spread<const BITS: usize>(word: u64) -> u64 {
    let mut word = word;
    for half in const { &halvings(BITS) } {
        word = word & half.lower | word << half.shift & half.spread;
    }
    word
}

/// Bytes to adjacent fields; what lies above a code in its byte is dropped.
#[inline(always)]
fn gather<const BITS: usize>(word: u64) -> u64 {
    let mut word = word;
    for half in const { &halvings(BITS) }.iter().rev() {
        word = word & half.lower | word >> half.shift & half.gathered;
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition: one bit at a time.
    fn bit_by_bit(codes: &[u8], bits: u8) -> Vec<u8> {
        let bits = usize::from(bits);
        let mut stream = vec![0u8; (codes.len() * bits).div_ceil(8)];
        for (i, code) in codes.iter().enumerate() {
            for bit in 0..bits {
                let at = i * bits + bit;
                stream[at / 8] |= (code >> bit & 1) << (at % 8);
            }
        }
        stream
    }

    fn codes(len: usize, bits: u8) -> Vec<u8> {
        (0..len).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 11) as u8 & (u8::MAX >> (8 - bits))).collect()
    }

    #[test]
    fn packing_is_the_dense_stream_from_the_lowest_bit() {
        assert_eq!(pack_bits(&[1, 2, 3], 4), [0x21, 0x03]);
        for bits in 1..=8 {
            for len in 0..300 {
                let codes = codes(len, bits);
                assert_eq!(pack_bits(&codes, bits), bit_by_bit(&codes, bits), "{bits} bits, {len} codes");
                assert_eq!(packed_len(len, bits), (len * usize::from(bits)).div_ceil(8));
            }
        }
    }

    #[test]
    fn packing_drops_bits_above_the_width() {
        assert_eq!(pack_bits(&[0xFF, 0xF0, 0xF1], 3), bit_by_bit(&[7, 0, 1], 3));
    }

    #[test]
    fn unpacking_returns_any_range_of_the_codes() {
        for bits in 1..=8 {
            let codes = codes(149, bits);
            let stream = pack_bits(&codes, bits);
            for start in 0..=codes.len() {
                for end in start..=codes.len() {
                    let mut out = vec![0xAA; end - start];
                    unpack_bits(&stream, bits, start, &mut out);
                    assert_eq!(out, codes[start..end], "{bits} bits, {start}..{end}");
                }
            }
        }
    }
}
