//! Integer codes at their own width.

use crate::{
    error::{Error, Result},
    kernels::{
        pack::{self, packed_len},
        parallel,
    },
};

/// Unsigned integers of 1 to 8 or 16 bits each, packed without gaps.
///
/// Up to 8 bits, the bytes are one stream, least significant bit first: code `i` is bits `i * bits ..` of it. Codes of
/// 16 bits are little-endian.
#[derive(Clone, PartialEq, Eq)]
pub struct Codes {
    bits: u8,
    len: usize,
    bytes: Vec<u8>,
}

/// Codes unpacked at a time; a multiple of 8, so that every piece starts on a byte.
const PIECE: usize = 1 << 15;

/// The widths that codes come in.
pub(crate) const WIDTHS: &str = "1 to 8, or 16";

impl Codes {
    /// Packs codes of 1 to 8 bits.
    ///
    /// # Errors
    /// [`Error::Bits`] for another width, [`Error::Setting`] for a code that needs more bits.
    ///
    /// ```
    /// use tersor::tensor::Codes;
    /// let codes = Codes::pack(3, &[1, 7, 0])?;
    /// assert_eq!(codes.as_bytes(), [0b00_111_001, 0]);
    /// assert_eq!(codes.to_vec(), [1, 7, 0]);
    /// # Ok::<(), tersor::Error>(())
    /// ```
    pub fn pack(bits: u8, codes: &[u8]) -> Result<Codes> {
        if !(1..=8).contains(&bits) {
            return Err(Error::Bits { bits, scheme: "Codes::pack", allowed: "1 to 8" });
        }
        if !pack::fit(codes, bits)
            && let Some(code) = codes.iter().find(|code| u32::from(**code) >> bits != 0)
        {
            let value = f64::from(*code);
            return Err(Error::Setting { setting: "code", value, bound: "below 2 to the power of bits" });
        }
        Ok(Codes { bits, len: codes.len(), bytes: pack::pack_bits(codes, bits) })
    }

    /// Stores codes of 16 bits.
    pub fn pack16(codes: &[u16]) -> Codes {
        Codes { bits: 16, len: codes.len(), bytes: codes.iter().flat_map(|code| code.to_le_bytes()).collect() }
    }

    /// Of as many bytes as `len` codes of a width that exists take.
    pub(crate) fn from_packed(bits: u8, len: usize, bytes: Vec<u8>) -> Codes {
        debug_assert_eq!(bytes.len(), packed_len(len, bits));
        Codes { bits, len, bytes }
    }

    /// Takes bytes packed as the type's documentation says.
    ///
    /// # Errors
    /// [`Error::Bits`] for a width that does not exist, [`Error::Shape`] if the number of bytes is not the one that
    /// `len` codes take.
    pub fn from_bytes(bits: u8, len: usize, bytes: Vec<u8>) -> Result<Codes> {
        if !(1..=8).contains(&bits) && bits != 16 {
            return Err(Error::Bits { bits, scheme: "Codes", allowed: WIDTHS });
        }
        // In u128, so that a length read from a lying file cannot wrap.
        let expected = (len as u128 * u128::from(bits)).div_ceil(8);
        if bytes.len() as u128 != expected {
            let expected = vec![usize::try_from(expected).unwrap_or(usize::MAX)];
            return Err(Error::Shape { what: "the packed codes (bytes)", expected, found: vec![bytes.len()] });
        }
        Ok(Codes { bits, len, bytes })
    }

    /// Bits per code.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// The number of codes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no code.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The packed bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// All codes, unpacked.
    pub fn to_vec(&self) -> Vec<u16> {
        let mut codes = vec![0; self.len];
        parallel::for_each_chunk_mut(&mut codes, PIECE, |index, piece| self.unpack16(index * PIECE, piece));
        codes
    }

    /// Unpacks codes of at most 8 bits into memory of the caller's.
    ///
    /// # Errors
    /// [`Error::Bits`] for codes of 16 bits, [`Error::Shape`] unless there is room for exactly all.
    ///
    /// ```
    /// use tersor::tensor::Codes;
    /// let mut out = [0; 3];
    /// Codes::pack(3, &[1, 7, 0])?.unpack_into(&mut out)?;
    /// assert_eq!(out, [1, 7, 0]);
    /// # Ok::<(), tersor::Error>(())
    /// ```
    pub fn unpack_into(&self, out: &mut [u8]) -> Result<()> {
        if self.bits > 8 {
            return Err(Error::Bits { bits: self.bits, scheme: "Codes::unpack_into", allowed: "1 to 8" });
        }
        if out.len() != self.len {
            let (expected, found) = (vec![self.len], vec![out.len()]);
            return Err(Error::Shape { what: "the room for codes", expected, found });
        }
        parallel::for_each_chunk_mut(out, PIECE, |index, piece| self.unpack8(index * PIECE, piece));
        Ok(())
    }

    /// Unpacks `out.len()` codes from code `start` on, of any width.
    pub(crate) fn unpack16(&self, start: usize, out: &mut [u16]) {
        if self.bits == 16 {
            let bytes = self.bytes[2 * start..].as_chunks().0;
            return out.iter_mut().zip(bytes).for_each(|(code, bytes)| *code = u16::from_le_bytes(*bytes));
        }
        let mut narrow = [0; 1 << 12];
        for (index, out) in out.chunks_mut(narrow.len()).enumerate() {
            let narrow = &mut narrow[..out.len()];
            self.unpack8(start + (index << 12), narrow);
            out.iter_mut().zip(narrow).for_each(|(code, narrow)| *code = (*narrow).into());
        }
    }

    /// Unpacks `out.len()` codes of at most 8 bits from code `start` on.
    pub(crate) fn unpack8(&self, start: usize, out: &mut [u8]) {
        debug_assert!(self.bits <= 8);
        pack::unpack_bits(&self.bytes, self.bits, start, out);
    }
}

impl std::fmt::Debug for Codes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} codes of {} bits", self.len, self.bits)
    }
}
