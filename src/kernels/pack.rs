//! Codes of 1 to 8 bits as one dense bit stream, lowest bit first: element `i` holds bits `i * bits .. (i + 1) * bits`.
//!
//! Eight codes fill exactly `bits` bytes, so the stream is a sequence of such blocks. Within a block, codes are spread
//! to bytes (and gathered back) in three halvings of a 64-bit word, the same for every width.

/// Codes in a block.
const BLOCK: usize = 8;

/// The bytes that `len` codes take.
pub(crate) fn packed_len(len: usize, bits: u8) -> usize {
    // Written so that it cannot overflow for any `len` a slice may have.
    len / BLOCK * usize::from(bits) + (len % BLOCK * usize::from(bits)).div_ceil(8)
}

/// The bit stream of `codes`. Bits above `bits` are dropped.
pub(crate) fn pack_bits(codes: &[u8], bits: u8) -> Vec<u8> {
    let width = Width::new(bits);
    let mut stream = vec![0; packed_len(codes.len(), bits)];
    for (codes, bytes) in codes.chunks(BLOCK).zip(stream.chunks_mut(usize::from(bits))) {
        let block = width.gather(word(codes)).to_le_bytes();
        bytes.copy_from_slice(&block[..bytes.len()]);
    }
    stream
}

/// Writes the codes `start .. start + out.len()` of a stream to `out`.
///
/// The stream must hold that many; codes beyond its end are read as 0.
pub(crate) fn unpack_bits(stream: &[u8], bits: u8, start: usize, out: &mut [u8]) {
    debug_assert!(start + out.len() <= stream.len() * 8 / usize::from(bits));
    if bits == 8 {
        return out.copy_from_slice(&stream[start..start + out.len()]);
    }
    let width = Width::new(bits);
    let block = |index: usize| {
        let bytes = stream.get(index * usize::from(bits)..).unwrap_or_default();
        width.spread(word(bytes)).to_le_bytes()
    };
    let (mut index, skip) = (start / BLOCK, start % BLOCK);
    let mut out = out;
    if skip > 0 {
        let (head, rest) = out.split_at_mut(out.len().min(BLOCK - skip));
        head.copy_from_slice(&block(index)[skip..skip + head.len()]);
        (out, index) = (rest, index + 1);
    }
    for (out, index) in out.chunks_mut(BLOCK).zip(index..) {
        out.copy_from_slice(&block(index)[..out.len()]);
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

/// The steps between eight adjacent fields of `bits` bits and eight bytes.
struct Width {
    halvings: [Halving; 3],
}

/// One halving: the upper field of every pair moves by `shift`, to where the upper lane starts.
#[derive(Clone, Copy)]
struct Halving {
    /// The lower field of every pair, in place.
    lower: u64,
    /// Bits in a lane less bits in a field.
    shift: u32,
    /// The upper field when spread, and when gathered.
    spread: u64,
    gathered: u64,
}

impl Width {
    fn new(bits: u8) -> Width {
        debug_assert!((1..=8).contains(&bits));
        // Lanes of 4, 2 and 1 bytes, holding 4, 2 and 1 codes.
        let halvings = [4, 2, 1].map(|codes| {
            let (lane, field) = (8 * codes, u32::from(bits) * codes);
            let every_pair = u64::MAX / (u64::MAX >> (64 - 2 * lane)); // a one at the start of every pair of lanes
            let lower = every_pair * (u64::MAX >> (64 - field));
            Halving { lower, shift: lane - field, spread: lower << lane, gathered: lower << field }
        });
        Width { halvings }
    }

    /// Adjacent fields to bytes.
    #[inline(always)]
    fn spread(&self, word: u64) -> u64 {
        self.halvings.iter().fold(word, |word, half| word & half.lower | word << half.shift & half.spread)
    }

    /// Bytes to adjacent fields.
    #[inline(always)]
    fn gather(&self, word: u64) -> u64 {
        self.halvings.iter().rev().fold(word, |word, half| word & half.lower | word >> half.shift & half.gathered)
    }
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
            for len in 0..100 {
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
            let codes = codes(61, bits);
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
