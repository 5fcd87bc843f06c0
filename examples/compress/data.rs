//! From a folder of files to a training and a test set for the network.

use std::path::Path;

use ndarray::{Array2, ArrayView2, Axis};
use tersor::nn::Data;

use crate::{
    Problem,
    files::{self, Images},
};

/// Networks tell ten classes apart.
pub(crate) const CLASSES: usize = 10;

/// What the network learns from, and what it is judged by.
pub(crate) struct Dataset {
    pub(crate) name: String,
    pub(crate) train: Data,
    pub(crate) test: Data,
}

/// Loads the idx files of a folder (`train-images-idx3-ubyte` and so on), or its raw files
/// (`NAME_images_u8_COUNTxPIXELS.bin`); all may end in `.gz`. Images smaller than `side` x `side` are enlarged.
pub(crate) fn load(folder: &Path, side: usize) -> Result<Dataset, Problem> {
    match files::find(folder, "train-images-idx3-ubyte") {
        Some(_) => idx(folder, side),
        None => raw(folder, side),
    }
}

/// The four files of MNIST and its likes, named after their folder.
fn idx(folder: &Path, side: usize) -> Result<Dataset, Problem> {
    let part = |part: &str| {
        let file = |kind: &str| {
            let name = format!("{part}-{kind}-ubyte");
            files::find(folder, &name)
                .ok_or_else(|| format!("{}: no such file, nor with .gz", folder.join(name).display()))
        };
        let (images, labels) = (files::idx_images(file("images-idx3")?)?, file("labels-idx1")?);
        data(&images, &files::idx_labels(&labels)?, &labels, side)
    };
    let name = folder.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    Ok(Dataset { name: name.unwrap_or_else(|| "idx".to_owned()), train: part("train")?, test: part("t10k")? })
}

/// `NAME_train..` with another set of that name as the test set; or a single set, of which every fifth image is held out.
fn raw(folder: &Path, side: usize) -> Result<Dataset, Problem> {
    let sets = raw_sets(folder)?;
    let known = || sets.iter().map(|set| set.name.as_str()).collect::<Vec<_>>().join(", ");
    if let [only] = &sets[..] {
        let all = only.load(folder, side)?;
        let (test, train): (Vec<_>, Vec<_>) = (0..all.len()).partition(|i| i % 5 == 0);
        return Ok(Dataset { name: only.name.clone(), train: all.select(&train)?, test: all.select(&test)? });
    }
    let trains: Vec<_> = sets.iter().filter_map(|set| Some((set.name.split_once("_train")?.0, set))).collect();
    let [(name, train)] = trains[..] else {
        let problem = "one NAME_train.._images_u8_COUNTxPIXELS.bin or the idx files of MNIST are needed";
        return Err(format!("{}: {problem}; sets there: [{}]", folder.display(), known()).into());
    };
    let of_name =
        |set: &&RawSet| set.name != train.name && set.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('_'));
    let tests: Vec<_> = sets.iter().filter(of_name).collect();
    let [test] = tests[..] else {
        let problem = format!("one set to test {name} on is needed beside {}", train.name);
        return Err(format!("{}: {problem}; sets there: [{}]", folder.display(), known()).into());
    };
    Ok(Dataset { name: name.to_owned(), train: train.load(folder, side)?, test: test.load(folder, side)? })
}

/// A raw file of images, as its name tells.
struct RawSet {
    name: String,
    file: String,
    count: usize,
    pixels: usize,
}

fn raw_sets(folder: &Path) -> Result<Vec<RawSet>, Problem> {
    let entries = folder.read_dir().map_err(|e| format!("{}: {e}", folder.display()))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut sets: Vec<_> = names.filter_map(RawSet::of_name).collect();
    sets.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(sets)
}

impl RawSet {
    fn of_name(file: String) -> Option<RawSet> {
        let (name, shape) = file.split_once("_images_u8_")?;
        let (count, pixels) = shape.strip_suffix(".gz").unwrap_or(shape).strip_suffix(".bin")?.split_once('x')?;
        Some(RawSet { name: name.to_owned(), count: count.parse().ok()?, pixels: pixels.parse().ok()?, file })
    }

    fn load(&self, folder: &Path, side: usize) -> Result<Data, Problem> {
        let name = format!("{}_labels_u8_{}.bin", self.name, self.count);
        let labels = files::find(folder, &name)
            .ok_or_else(|| format!("{}: no such file, nor with .gz", folder.join(&name).display()))?;
        let images = files::raw_images(folder.join(&self.file), self.count, self.pixels)?;
        data(&images, &files::raw_labels(&labels, self.count)?, &labels, side)
    }
}

/// Pixels as numbers from 0 to 1, enlarged to what the network sees.
fn data(images: &Images, labels: &[u8], labels_file: &Path, side: usize) -> Result<Data, Problem> {
    let Images { count, height, width, .. } = *images;
    let file = images.file.display();
    if labels.len() != count {
        return Err(
            format!("{}: {} labels for the {count} images of {file}", labels_file.display(), labels.len()).into()
        );
    }
    if let Some(i) = labels.iter().position(|label| usize::from(*label) >= CLASSES) {
        let problem = format!("label {} of image {i} is not one of {CLASSES} classes", labels[i]);
        return Err(format!("{}: {problem}", labels_file.display()).into());
    }
    if height > side || width > side {
        return Err(format!("{file}: images of {height}x{width} pixels, but the network sees {side}x{side}").into());
    }
    let white = if (height, width) == (8, 8) { 16 } else { 255 };
    if let Some(i) = images.pixels.iter().position(|pixel| *pixel > white) {
        return Err(format!("{file}: pixel {} in image {i}, but 8x8 digits go from 0 to 16", images.pixels[i]).into());
    }
    let (rows, columns) = (interpolation(height, side), interpolation(width, side));
    let mut inputs = Array2::zeros((count, side * side));
    for (mut input, image) in inputs.axis_iter_mut(Axis(0)).zip(images.pixels.chunks_exact(height * width)) {
        let numbers: Vec<f32> = image.iter().map(|pixel| f32::from(*pixel) / f32::from(white)).collect();
        let enlarged = rows.dot(&ArrayView2::from_shape((height, width), &numbers)?).dot(&columns.t());
        input.iter_mut().zip(&enlarged).for_each(|(to, from)| *to = *from);
    }
    Ok(Data::classes(inputs, labels.iter().map(|label| usize::from(*label)))?)
}

/// Bilinear interpolation of a line of pixels as a matrix: centres lie at half-integers, and the edge goes on outside.
fn interpolation(from: usize, to: usize) -> Array2<f32> {
    let mut matrix = Array2::zeros((to, from));
    for i in 0..to {
        let centre = ((i as f32 + 0.5) * from as f32 / to as f32 - 0.5).clamp(0.0, (from - 1) as f32);
        let left = centre as usize;
        matrix[[i, left]] += 1.0 - centre.fract();
        matrix[[i, (left + 1).min(from - 1)]] += centre.fract();
    }
    matrix
}
