//! Image and label files: idx (as MNIST has them) and raw bytes, plain or gzipped. Nothing they claim is believed.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;

use crate::Problem;

/// Grey images of one size, a byte a pixel.
pub(crate) struct Images {
    pub(crate) file: PathBuf,
    pub(crate) count: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) pixels: Vec<u8>,
}

/// The file of that name in a folder, or the same with `.gz`.
pub(crate) fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    [name.to_owned(), format!("{name}.gz")].into_iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

/// Images of an idx file: a magic number, the count, the height and the width as big-endian u32, then the pixels.
pub(crate) fn idx_images(file: PathBuf) -> Result<Images, Problem> {
    let mut bytes = open(&file)?;
    let [count, height, width] = idx_header(&mut *bytes, &file, 0x0803)?;
    let pixels = rest(&mut *bytes, &file, &[count, height, width])?;
    Ok(Images { file, count, height, width, pixels })
}

/// Labels of an idx file: a magic number and the count as big-endian u32, then a byte a label.
pub(crate) fn idx_labels(file: &Path) -> Result<Vec<u8>, Problem> {
    let mut bytes = open(file)?;
    let [count] = idx_header(&mut *bytes, file, 0x0801)?;
    rest(&mut *bytes, file, &[count])
}

/// Square images of a raw file.
pub(crate) fn raw_images(file: PathBuf, count: usize, pixels_each: usize) -> Result<Images, Problem> {
    let side = pixels_each.isqrt();
    if side * side != pixels_each {
        return Err(format!("{}: images of {pixels_each} pixels are not square", file.display()).into());
    }
    let pixels = rest(&mut *open(&file)?, &file, &[count, pixels_each])?;
    Ok(Images { file, count, height: side, width: side, pixels })
}

/// Labels of a raw file.
pub(crate) fn raw_labels(file: &Path, count: usize) -> Result<Vec<u8>, Problem> {
    rest(&mut *open(file)?, file, &[count])
}

fn open(file: &Path) -> Result<Box<dyn Read>, Problem> {
    let bytes = BufReader::new(File::open(file).map_err(|e| format!("{}: {e}", file.display()))?);
    Ok(match file.extension() {
        Some(extension) if extension == "gz" => Box::new(MultiGzDecoder::new(bytes)),
        _ => Box::new(bytes),
    })
}

/// The sizes that follow the magic number.
fn idx_header<const SIZES: usize>(bytes: &mut dyn Read, file: &Path, magic: u32) -> Result<[usize; SIZES], Problem> {
    let mut next = || -> Result<u32, Problem> {
        let mut word = [0; 4];
        bytes.read_exact(&mut word).map_err(|e| format!("{}: no idx header: {e}", file.display()))?;
        Ok(u32::from_be_bytes(word))
    };
    let found = next()?;
    if found != magic {
        return Err(format!(
            "{}: starts with {found:#010x}, but this idx file starts with {magic:#010x}",
            file.display()
        )
        .into());
    }
    let mut sizes = [0; SIZES];
    for size in &mut sizes {
        *size = next()? as usize;
    }
    Ok(sizes)
}

/// All that is left of a file, which must be as many bytes as the sizes say, and memory only for what is there.
fn rest(bytes: &mut dyn Read, file: &Path, sizes: &[usize]) -> Result<Vec<u8>, Problem> {
    let wrong = |what: String| Problem::from(format!("{}: {what}", file.display()));
    let expected = sizes.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    let expected =
        expected.filter(|n| *n < 1 << 32).ok_or_else(|| wrong(format!("claims an absurd size, {sizes:?}")))?;
    if expected == 0 {
        return Err(wrong(format!("holds nothing, {sizes:?}")));
    }
    let mut found = Vec::new();
    bytes.take(expected as u64 + 1).read_to_end(&mut found).map_err(|e| wrong(e.to_string()))?;
    match found.len() {
        len if len < expected => Err(wrong(format!("is cut off: {len} of {expected} bytes after the header"))),
        len if len > expected => Err(wrong(format!("goes on after the {expected} bytes that it should have"))),
        _ => Ok(found),
    }
}
