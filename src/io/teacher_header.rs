//! What the file of a teacher's outputs says of itself, and where its rows are.
//!
//! The file is a header and a row for each sample, in the order of the data set; all numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `TERSORTC` |
//! | 4, 4 | version (1); axes of a row |
//! | 8, 8, 8 | samples; fingerprints of the data and of the teacher |
//! | 8 each | the sizes of a row |
//! | 8 | checksum of all before it |
//! | rows | f32 each, then a checksum of the header's, the sample's number and the row |
//!
//! A row is there if its checksum is right: one that was never written, torn or altered is missing, and nothing else has to
//! be kept in step. Fingerprints and checksums are FNV-1a.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    path::Path,
};

use crate::{error::Error, nn::Fingerprint};

const MAGIC: [u8; 8] = *b"TERSORTC";
const VERSION: u32 = 1;
/// Bytes of a header before the sizes of a row.
const FIXED: usize = 40;
const CHECKSUM: usize = 8;
/// Axes of a row at most.
pub(super) const MOST_AXES: usize = 32;

/// What a file says of itself.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) samples: usize,
    /// Fingerprints.
    pub(super) data: u64,
    pub(super) teacher: u64,
    /// The shape of a sample's outputs.
    pub(super) row: Vec<usize>,
}

/// What can go wrong while a header is read.
pub(super) enum Trouble {
    Io(io::Error),
    Format(String),
}

impl Trouble {
    pub(super) fn at(self, path: &Path) -> Error {
        match self {
            Trouble::Io(source) => Error::Io { path: path.to_owned(), source },
            Trouble::Format(problem) => Error::Format { what: path.display().to_string(), problem },
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        match error.kind() {
            ErrorKind::UnexpectedEof => Trouble::Format("its header is cut off; delete it to start anew".into()),
            _ => Trouble::Io(error),
        }
    }
}

impl Header {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((self.row.len() as u32).to_le_bytes());
        let numbers = [self.samples as u64, self.data, self.teacher].into_iter();
        bytes.extend(numbers.chain(self.row.iter().map(|n| *n as u64)).flat_map(u64::to_le_bytes));
        let checksum = Fingerprint::new().bytes(&bytes).value();
        bytes.extend(checksum.to_le_bytes());
        bytes
    }

    /// Reads a header and leaves the file where the rows begin. Nothing is made of a size that the file cannot have.
    pub(super) fn read(file: &mut File) -> Result<Header, Trouble> {
        let problem = |problem: &str| Trouble::Format(problem.to_owned());
        let mut bytes = vec![0; MAGIC.len()];
        file.read_exact(&mut bytes)?;
        if bytes != MAGIC {
            return Err(problem("it is no cache of a teacher's outputs"));
        }
        bytes.resize(FIXED, 0);
        file.read_exact(&mut bytes[MAGIC.len()..])?;
        let [version, axes] = [8, 12].map(|at| u32::from_le_bytes(chunk(&bytes, at)));
        if version != VERSION {
            let found = format!("it is a teacher's cache of version {version}; this crate reads version {VERSION}");
            return Err(Trouble::Format(found));
        }
        if !(1..=MOST_AXES as u32).contains(&axes) {
            return Err(problem(DAMAGED));
        }
        let end = FIXED + 8 * axes as usize;
        bytes.resize(end + CHECKSUM, 0);
        file.read_exact(&mut bytes[FIXED..])?;
        let number = |at: usize| u64::from_le_bytes(chunk(&bytes, at));
        if number(end) != Fingerprint::new().bytes(&bytes[..end]).value() {
            return Err(problem(DAMAGED));
        }
        let sizes = (FIXED..end).step_by(8).map(|at| usize::try_from(number(at)).ok());
        let (samples, row) = (usize::try_from(number(16)).ok(), sizes.collect::<Option<Vec<usize>>>());
        let header =
            samples.zip(row).map(|(samples, row)| Header { samples, data: number(24), teacher: number(32), row });
        header.filter(Header::is_possible).ok_or_else(|| problem(DAMAGED))
    }

    /// Whether a file can have so many rows of such a size, and memory one of them.
    fn is_possible(&self) -> bool {
        let row = self.row.iter().try_fold(4u64, |bytes, n| bytes.checked_mul(*n as u64).filter(|bytes| *bytes > 0));
        let stride = row.and_then(|bytes| bytes.checked_add(CHECKSUM as u64));
        let rows = stride
            .filter(|stride| isize::try_from(*stride).is_ok())
            .and_then(|stride| stride.checked_mul(self.samples as u64));
        rows.and_then(|bytes| bytes.checked_add(self.to_bytes().len() as u64))
            .is_some_and(|end| i64::try_from(end).is_ok())
    }

    /// Bytes of a row and its checksum.
    pub(super) fn stride(&self) -> u64 {
        (4 * self.row.iter().product::<usize>() + CHECKSUM) as u64
    }

    /// Where so many rows end.
    pub(super) fn end(&self, rows: usize) -> u64 {
        (FIXED + 8 * self.row.len() + CHECKSUM) as u64 + rows as u64 * self.stride()
    }

    /// Whole rows in a file of this length.
    pub(super) fn rows_within(&self, length: u64) -> usize {
        (length.saturating_sub(self.end(0)) / self.stride()) as usize
    }

    pub(super) fn checksum(&self, sample: usize, row: &[u8]) -> u64 {
        let whose = Fingerprint::new().number(self.data).number(self.teacher).number(sample as u64);
        whose.bytes(row).value()
    }

    /// The row within these bytes, if their checksum is right.
    pub(super) fn row<'a>(&self, sample: usize, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (row, checksum) = bytes.split_last_chunk()?;
        (u64::from_le_bytes(*checksum) == self.checksum(sample, row)).then_some(row)
    }
}

const DAMAGED: &str = "its header is damaged; delete it to start anew";

/// The bytes of a number; what is beyond the end reads 0.
fn chunk<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}
