//! Codes of 1 to 8 bits in one dense stream, least significant bit first.

/// Packs codes, each below `1 << bits`.
pub(crate) fn pack_bits(codes: &[u8], bits: u8) -> Vec<u8> {
    let bits = usize::from(bits);
    let mut bytes = vec![0u8; (codes.len() * bits).div_ceil(8)];
    for (i, code) in codes.iter().enumerate() {
        let (byte, shift) = (i * bits / 8, i * bits % 8);
        let wide = u16::from(*code) << shift;
        bytes[byte] |= wide as u8;
        if shift + bits > 8 {
            bytes[byte + 1] |= (wide >> 8) as u8;
        }
    }
    bytes
}

/// Unpacks `out.len()` codes from code `start` on.
pub(crate) fn unpack_bits(bytes: &[u8], bits: u8, start: usize, out: &mut [u8]) {
    let bits = usize::from(bits);
    let mask = ((1u16 << bits) - 1) as u8;
    for (i, code) in (start..).zip(out) {
        let (byte, shift) = (i * bits / 8, i * bits % 8);
        let high = bytes.get(byte + 1).copied().unwrap_or(0);
        *code = (u16::from_le_bytes([bytes[byte], high]) >> shift) as u8 & mask;
    }
}
