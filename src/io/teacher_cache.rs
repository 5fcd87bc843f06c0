//! A teacher's outputs on disk, and a teacher from them.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{BufReader, Read, Seek, SeekFrom, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use ndarray::{ArrayD, ArrayViewD, Axis, IxDyn};

use super::{
    atomic,
    teacher_header::{Header, MOST_AXES},
};
use crate::{
    distill::{Answer, Batch, Teacher},
    error::{Error, Result},
    nn::Data,
};

/// A teacher's outputs on disk, for a teacher too slow to be asked in every epoch, or not at hand where the student is
/// trained. It is a [`Teacher`] itself, of outputs only, and reads no more than a batch's rows.
///
/// [`fill`](TeacherCache::fill) asks the teacher for what is not there yet, so that it goes on where it was stopped. A file
/// knows the fingerprints of its data and of its teacher, and every row has a checksum: outputs for other data, of another
/// teacher, or spoiled ones are never given.
///
/// ```
/// use std::ops::ControlFlow;
/// use ndarray::Array2;
/// use tersor::{io::TeacherCache, nn::{Data, Network}};
///
/// let teacher = Network::builder(1).linear(8, 64).relu().linear(64, 3).build()?;
/// let data = Data::classes(Array2::from_shape_fn((90, 8), |(i, j)| ((i * j) as f32).sin()), (0..90).map(|i| i % 3))?;
/// let path = std::env::temp_dir().join("tersor-teacher.cache");
/// # std::fs::remove_file(&path).ok();
/// let cache = TeacherCache::fill(&path, &teacher, &data, 32, &mut |done, total| {
///     println!("{done} of {total}");
///     ControlFlow::Continue(())
/// })?;
/// assert!(cache.is_complete());
/// let cache = TeacherCache::open(&path, &data)?; // later, without the teacher
/// # drop(cache);
/// # std::fs::remove_file(path).ok();
/// # Ok::<(), tersor::Error>(())
/// ```
pub struct TeacherCache {
    path: PathBuf,
    /// Seek and read go together.
    file: Mutex<File>,
    header: Header,
    /// Whether each sample's row is there.
    there: Vec<bool>,
    len: usize,
}

impl fmt::Debug for TeacherCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TeacherCache({}, {} of {} samples)", self.path.display(), self.len, self.header.samples)
    }
}

impl TeacherCache {
    /// Opens the file, or starts it, and asks the teacher for the samples that are not there yet, so many at a time; calls
    /// `progress` with the samples done and all after every batch.
    ///
    /// # Errors
    /// [`Error::Setting`] for a batch size of 0. [`Error::Conflict`] for a teacher without a
    /// [`fingerprint`](Teacher::fingerprint), and for a file that was filled for other data or by another teacher;
    /// [`Error::Format`] for a file that is no cache, or whose header is damaged: neither is overwritten. Those of the
    /// teacher; [`Error::Shape`], [`Error::Rank`], [`Error::Empty`], [`Error::NotFinite`] for what it answers.
    /// [`Error::Io`].
    ///
    /// [`Error::Cancelled`] if `progress` breaks. Whatever the error, the file keeps what was done.
    pub fn fill(
        path: impl AsRef<Path>,
        teacher: &dyn Teacher,
        data: &Data,
        batch_size: usize,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<TeacherCache> {
        let path = path.as_ref();
        if batch_size == 0 {
            return Err(Error::Setting { setting: "batch_size", value: 0.0, bound: "at least 1" });
        }
        let fingerprint = teacher.fingerprint().ok_or_else(|| Error::Conflict {
            what: "a teacher without a fingerprint cannot be told from others later".into(),
            remedy: "implement Teacher::fingerprint: any number that changes when the answers do",
        })?;
        teacher.check(data)?;
        let mut cache = match path.try_exists().map_err(|source| io_error(path, source))? {
            true => Some(TeacherCache::existing(path, true, data, Some(fingerprint))?),
            false => None,
        };
        let total = data.len();
        let is_missing = |sample: &usize| cache.as_ref().is_none_or(|cache: &TeacherCache| !cache.there[*sample]);
        let missing: Vec<usize> = (0..total).filter(is_missing).collect();
        for samples in missing.chunks(batch_size) {
            let inputs = data.inputs().select(Axis(0), samples);
            let answer = teacher.answer(&Batch { samples, inputs: inputs.view() }, &[])?;
            let (outputs, row) = (&answer.outputs, row_shape(samples, &answer.outputs)?);
            let cache = match &mut cache {
                Some(cache) => cache,
                None => {
                    let header = Header { samples: total, data: data.fingerprint(), teacher: fingerprint, row };
                    let bytes = header.to_bytes();
                    atomic::write(path, &bytes).map_err(|source| io_error(path, source))?;
                    cache.insert(TeacherCache::existing(path, true, data, Some(fingerprint))?)
                }
            };
            cache.store(samples, outputs.view())?;
            if progress(cache.len(), total).is_break() {
                cache.sync()?;
                return Err(Error::Cancelled { done: cache.len(), total });
            }
        }
        let cache = cache.ok_or(Error::Empty { what: "the data set" })?;
        cache.sync()?;
        Ok(cache)
    }

    /// Opens a file that was filled for these data, without its teacher. Every row is read once and checked; whether all
    /// are there, [`is_complete`](TeacherCache::is_complete) tells.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] for a file that is no cache, or whose header is damaged; [`Error::Conflict`] for
    /// one of other data.
    pub fn open(path: impl AsRef<Path>, data: &Data) -> Result<TeacherCache> {
        TeacherCache::existing(path.as_ref(), false, data, None)
    }

    /// Samples whose outputs are there.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no outputs yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the outputs of every sample are there.
    pub fn is_complete(&self) -> bool {
        self.len == self.header.samples
    }

    fn existing(path: &Path, write: bool, data: &Data, teacher: Option<u64>) -> Result<TeacherCache> {
        let io = |source| io_error(path, source);
        let mut file = OpenOptions::new().read(true).write(write).open(path).map_err(io)?;
        let header = Header::read(&mut file).map_err(|trouble| trouble.at(path))?;
        expect_data(path, &header, data)?;
        if teacher.is_some_and(|teacher| teacher != header.teacher) {
            return Err(Error::Conflict {
                what: format!("{} holds the outputs of another teacher", path.display()),
                remedy: "give that teacher, or another path, or delete the file",
            });
        }
        let whole = header.end(header.samples);
        let length = file.metadata().map_err(io)?.len();
        if length > whole {
            let problem = format!("it has {length} bytes, but its header tells of {whole}");
            return Err(Error::Format { what: path.display().to_string(), problem });
        }
        let (mut rows, mut bytes) = (BufReader::new(&file), Vec::new());
        let mut there = vec![false; header.samples];
        for (sample, there) in there.iter_mut().enumerate().take(header.rows_within(length)) {
            bytes.resize(header.stride() as usize, 0);
            rows.read_exact(&mut bytes).map_err(io)?;
            *there = header.row(sample, &bytes).is_some();
        }
        let len = there.iter().filter(|there| **there).count();
        Ok(TeacherCache { path: path.to_owned(), file: Mutex::new(file), header, there, len })
    }

    /// Writes the rows of samples that were missing.
    fn store(&mut self, samples: &[usize], outputs: ArrayViewD<'_, f32>) -> Result<()> {
        let expected = [&[samples.len()], &self.header.row[..]].concat();
        if outputs.shape() != expected {
            return Err(Error::Shape { what: "the teacher's outputs", expected, found: outputs.shape().to_vec() });
        }
        let mut file = self.file();
        for (sample, row) in samples.iter().zip(outputs.outer_iter()) {
            let mut bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
            bytes.extend(self.header.checksum(*sample, &bytes).to_le_bytes());
            let written = file.seek(SeekFrom::Start(self.header.end(*sample))).and_then(|_| file.write_all(&bytes));
            written.map_err(|source| io_error(&self.path, source))?;
        }
        drop(file);
        samples.iter().for_each(|sample| self.there[*sample] = true);
        self.len += samples.len();
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.file().sync_all().map_err(|source| io_error(&self.path, source))
    }

    /// A thread that panicked left nothing half done here: every use seeks first.
    fn file(&self) -> MutexGuard<'_, File> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Teacher for TeacherCache {
    fn answer(&self, batch: &Batch<'_>, layers: &[String]) -> Result<Answer> {
        let mut values = Vec::new();
        let mut bytes = vec![0; if self.is_empty() { 0 } else { self.header.stride() as usize }];
        let mut file = self.file();
        for &sample in batch.samples {
            match self.there.get(sample) {
                Some(true) => {}
                Some(false) => {
                    let what = format!("the outputs of sample {sample} are not in {}", self.path.display());
                    return Err(Error::Conflict { what, remedy: FILL });
                }
                None => {
                    let bound = "below the number of samples that the teacher's outputs are of";
                    return Err(Error::Setting { setting: "sample", value: sample as f64, bound });
                }
            }
            let read = file.seek(SeekFrom::Start(self.header.end(sample))).and_then(|_| file.read_exact(&mut bytes));
            read.map_err(|source| io_error(&self.path, source))?;
            let row = self.header.row(sample, &bytes).ok_or_else(|| Error::Format {
                what: self.path.display().to_string(),
                problem: format!("the outputs of sample {sample} are not those that were written; fill it again"),
            })?;
            values.extend(row.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        }
        let shape = [&[batch.samples.len()], &self.header.row[..]].concat();
        let (expected, found) = (shape.clone(), vec![values.len()]);
        let outputs = ArrayD::from_shape_vec(IxDyn(&shape), values);
        let outputs = outputs.map_err(|_| Error::Shape { what: "the teacher's outputs", expected, found })?;
        Answer::without_layers(outputs, layers)
    }

    /// The data are those that it was filled for, and the outputs of all samples are there.
    fn check(&self, data: &Data) -> Result<()> {
        expect_data(&self.path, &self.header, data)?;
        if self.is_complete() {
            return Ok(());
        }
        let (missing, samples) = (self.header.samples - self.len, self.header.samples);
        let what = format!("the outputs of {missing} of {samples} samples are missing in {}", self.path.display());
        Err(Error::Conflict { what, remedy: FILL })
    }

    /// That of the teacher who gave the outputs.
    fn fingerprint(&self) -> Option<u64> {
        Some(self.header.teacher)
    }
}

const FILL: &str = "let TeacherCache::fill go on with it";

fn io_error(path: &Path, source: std::io::Error) -> Error {
    Error::Io { path: path.to_owned(), source }
}

fn expect_data(path: &Path, header: &Header, data: &Data) -> Result<()> {
    if header.data == data.fingerprint() && header.samples == data.len() {
        return Ok(());
    }
    Err(Error::Conflict {
        what: format!("{} holds a teacher's outputs for other data", path.display()),
        remedy: "give the inputs that it was filled for, in their order, or another path",
    })
}

/// The shape of a sample's outputs, if they are any.
fn row_shape(samples: &[usize], outputs: &ArrayD<f32>) -> Result<Vec<usize>> {
    let what = "the teacher's outputs";
    let found = outputs.shape().to_vec();
    let [count, row @ ..] = &found[..] else { return Err(Error::Rank { what, expected: "2 or more", found }) };
    if row.is_empty() || row.len() > MOST_AXES {
        return Err(Error::Rank { what, expected: "2 to 33", found });
    }
    if *count != samples.len() {
        let expected = [&[samples.len()], row].concat();
        return Err(Error::Shape { what, expected, found });
    }
    if outputs.is_empty() {
        return Err(Error::Empty { what });
    }
    let of_row = outputs.len() / samples.len();
    match outputs.iter().enumerate().find(|(_, value)| !value.is_finite()) {
        Some((index, value)) => {
            let index = samples[index / of_row] * of_row + index % of_row;
            Err(Error::NotFinite { what, index, value: f64::from(*value) })
        }
        None => Ok(row.to_vec()),
    }
}
