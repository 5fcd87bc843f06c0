//! Files that are old or new, never in between.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Writes a temporary file in the destination's folder, syncs it, renames it over the destination, syncs the folder.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Through a link to what it points at, so that the link stays one.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let path = target.as_path();
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if path.file_name().is_none() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file name"));
    }
    let (mut file, temporary) = create_in(folder)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    drop(file);
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, path)) {
        // Best effort: the error that matters is the first one.
        fs::remove_file(&temporary).ok();
        return Err(error);
    }
    // The new name is on disk only when its folder is; where folders cannot be opened (Windows), the system sees to it.
    File::open(folder).and_then(|folder| folder.sync_all()).or(Ok(()))
}

fn create_in(folder: &Path) -> io::Result<(File, PathBuf)> {
    let mut attempt = 0u32;
    loop {
        let path = folder.join(format!(".tersor-{}-{attempt}.tmp", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((file, path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < 1000 => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}
