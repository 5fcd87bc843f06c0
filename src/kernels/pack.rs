//! Codes of 1 to 8 bits as one dense bit stream, lowest bit first: element `i` holds bits `i * bits .. (i + 1) * bits`.
//!
//! Eight codes fill exactly `bits` bytes, so the stream is a sequence of such blocks. Within a block, codes are spread
//! to bytes (and gathered back) in three halvings of a 64-bit word, the same for every width.

use super::{isa::vectorize, parallel};

/// Codes in a block.
const BLOCK: usize = 8;

/// Codes in a chunk: eight blocks, which fill `bits` words.
const CHUNK: usize = 8 * BLOCK;

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
    let any = |codes: &[u8]| vectorize(|| codes.iter().fold(0, |any, code| any | code));
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
    let (chunks, rest) = codes.as_chunks::<CHUNK>();
    let (whole, tail) = stream.split_at_mut(chunks.len() * 8 * BITS);
    for (codes, bytes) in chunks.iter().zip(whole.chunks_exact_mut(8 * BITS)) {
        let mut blocks = [0; 8];
        for (block, codes) in blocks.iter_mut().zip(codes.as_chunks::<BLOCK>().0) {
            *block = gather::<BITS>(u64::from_le_bytes(*codes));
        }
        for (bytes, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(join::<BITS>(blocks)) {
            *bytes = word.to_le_bytes();
        }
    }
    for (codes, bytes) in rest.chunks(BLOCK).zip(tail.chunks_mut(BITS)) {
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
    let (chunks, rest) = out.as_chunks_mut::<CHUNK>();
    let (whole, tail) = stream.split_at((chunks.len() * 8 * BITS).min(stream.len()));
    for (codes, bytes) in chunks.iter_mut().zip(whole.chunks_exact(8 * BITS)) {
        let mut words = [0; BITS];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        for (codes, block) in codes.as_chunks_mut::<BLOCK>().0.iter_mut().zip(part::<BITS>(words)) {
            *codes = spread::<BITS>(block).to_le_bytes();
        }
    }
    for (index, out) in rest.chunks_mut(BLOCK).enumerate() {
        out.copy_from_slice(&block(tail.get(index * BITS..).unwrap_or_default())[..out.len()]);
    }
}

/// Eight blocks of `8 * BITS` bits each, without what lies between them.
#[inline(always)]
fn join<const BITS: usize>(blocks: [u64; 8]) -> [u64; BITS] {
    let mut words = [0; BITS];
    for (i, block) in blocks.into_iter().enumerate() {
        let (word, shift) = (i * BITS / 8, i * BITS % 8 * 8);
        words[word] |= block << shift;
        if shift + 8 * BITS > 64 {
            words[word + 1] |= block >> (64 - shift);
        }
    }
    words
}

/// Eight blocks from the words that hold them without gaps, each with bits of the next above its own.
#[inline(always)]
fn part<const BITS: usize>(words: [u64; BITS]) -> [u64; 8] {
    let mut blocks = [0; 8];
    for (i, block) in blocks.iter_mut().enumerate() {
        let (word, shift) = (i * BITS / 8, i * BITS % 8 * 8);
        *block = words[word] >> shift;
        if shift + 8 * BITS > 64 {
            *block |= words[word + 1] << (64 - shift);
        }
    }
    blocks
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
    let step = |word: u64, half: &Halving| word & half.lower | word << half.shift & half.spread;
    const { &halvings(BITS) }.iter().fold(word, step)
}

/// Bytes to adjacent fields; what lies above a code in its byte is dropped.
#[inline(always)]
fn gather<const BITS: usize>(word: u64) -> u64 {
    let step = |word: u64, half: &Halving| word & half.lower | word >> half.shift & half.gathered;
    const { &halvings(BITS) }.iter().rev().fold(word, step)
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
