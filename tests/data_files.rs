//! The files that the examples take: read as they are, refused by name where they are not what they say.

#[path = "../examples/compress/data.rs"]
mod data;
#[path = "../examples/compress/files.rs"]
mod files;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use ndarray::Axis;
use tersor::nn::Targets;

type Problem = Box<dyn std::error::Error>;

#[test]
fn an_enlarged_ramp_is_linear_between_pixel_centres() -> Result<(), Problem> {
    // A ramp from 0 to 14 along each row: linear between the centres of the outer pixels, level beyond.
    let ramps: Vec<u8> = (0..6 * 64).map(|i| 2 * (i % 8) as u8).collect();
    let files = [("ramp_images_u8_6x64.bin", ramps), ("ramp_labels_u8_6.bin", vec![3; 6])];
    let test = data::load(&folder("ramp", &files), 28)?.test;
    for (i, pixel) in test.inputs().index_axis(Axis(0), 0).iter().enumerate() {
        let centre = ((i % 28) as f32 + 0.5) * 8.0 / 28.0 - 0.5;
        let expected = 2.0 * centre.clamp(0.0, 7.0) / 16.0;
        assert!((pixel - expected).abs() < 1e-6, "pixel {i} is {pixel}, not {expected}");
    }
    Ok(())
}

#[test]
fn idx_files_are_read_plain_and_gzipped() -> Result<(), Problem> {
    let pixels: Vec<u8> = (0..2 * 784).map(|i| (i % 256) as u8).collect();
    let folder = folder("idx", &mnist(&pixels));
    fs::remove_file(folder.join("t10k-labels-idx1-ubyte"))?;
    let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
    zipped.write_all(&idx(&[2], &[7, 9]))?;
    fs::write(folder.join("t10k-labels-idx1-ubyte.gz"), zipped.finish()?)?;

    let found = data::load(&folder, 28)?;
    assert_eq!((found.name.as_str(), found.train.len()), ("idx", 2));
    assert_eq!(found.test.targets(), &Targets::Classes(vec![7, 9]));
    assert!(found.train.inputs().iter().zip(&pixels).all(|(x, pixel)| *x == f32::from(*pixel) / 255.0));
    Ok(())
}

#[test]
fn files_that_are_missing_cut_off_or_lying_are_named() {
    let images = |sizes: &[u32], bytes: usize| idx(sizes, &vec![0; bytes]);
    let name = "train-images-idx3-ubyte";
    let labels = "train-labels-idx1-ubyte";
    for (file, contents, words) in [
        (name, images(&[2, 28, 28], 1000), "is cut off: 1000 of 1568 bytes"),
        (name, images(&[2, 28, 28], 1569), "goes on after the 1568 bytes"),
        (name, images(&[u32::MAX, u32::MAX, 28], 1568), "claims an absurd size"),
        (name, images(&[0, 28, 28], 0), "holds nothing"),
        (name, images(&[2, 40, 28], 2240), "40x28 pixels"),
        (name, idx(&[1568], &[0; 1568]), "starts with 0x00000801"),
        (name, vec![0, 0, 8], "no idx header"),
        (labels, idx(&[3], &[0; 3]), "3 labels for the 2 images"),
        (labels, idx(&[2], &[0, 10]), "label 10 of image 1"),
        (labels, idx(&[2], &[0]), "is cut off: 1 of 2 bytes"),
    ] {
        let folder = folder("lying", &mnist(&[0; 1568]));
        fs::write(folder.join(file), contents).unwrap();
        refuses(&folder, file, words);
    }

    let digits: Vec<u8> = vec![0; 2 * 64];
    for (file, contents, words) in [
        ("a_images_u8_2x63.bin", vec![0; 126], "not square"),
        ("a_images_u8_2x64.bin", vec![0; 100], "is cut off: 100 of 128 bytes"),
        ("a_images_u8_2x64.bin", vec![17; 128], "pixel 17 in image 0"),
        ("a_images_u8_2x64.bin.gz", vec![0; 100], "gzip"),
        ("a_images_u8_3x64.bin", vec![0; 192], "a_labels_u8_3.bin: no such file"),
        ("a_images_u8_99999999999x784.bin", vec![0], "no such file"),
    ] {
        let folder = folder("raw", &[(file, contents), ("a_labels_u8_2.bin", vec![0; 2])]);
        refuses(&folder, "a_", words);
    }

    let sets = [("a_images_u8_2x64.bin", digits.clone()), ("b_images_u8_2x64.bin", digits.clone())];
    refuses(&folder("no-train", &sets), "no-train", "sets there: [a, b]");
    let sets = [("a_train_images_u8_2x64.bin", digits.clone()), ("b_images_u8_2x64.bin", digits)];
    refuses(&folder("no-test", &sets), "no-test", "one set to test a on");
    refuses(&folder("empty", &[]), "empty", "sets there: []");
    refuses(&folder("empty", &[]).join("gone"), "gone", ": ");
    let halves = mnist(&[0; 1568]);
    refuses(&folder("half", &halves[..2]), "t10k-images-idx3-ubyte", "no such file");
}

fn refuses(folder: &Path, file: &str, words: &str) {
    let problem = data::load(folder, 28).err().map_or_else(|| "nothing".to_owned(), |problem| problem.to_string());
    assert!(problem.contains(file) && problem.contains(words), "{problem} should name {file} and say {words}");
}

/// An empty folder of that name, then those files in it.
fn folder(name: &str, files: &[(&str, Vec<u8>)]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::remove_dir_all(&folder).ok();
    fs::create_dir_all(&folder).unwrap();
    for (file, contents) in files {
        fs::write(folder.join(file), contents).unwrap();
    }
    folder
}

/// Two images and their labels, to train on and to test on.
fn mnist(pixels: &[u8]) -> [(&'static str, Vec<u8>); 4] {
    let (images, labels) = (idx(&[2, 28, 28], pixels), idx(&[2], &[7, 9]));
    [
        ("train-images-idx3-ubyte", images.clone()),
        ("train-labels-idx1-ubyte", labels.clone()),
        ("t10k-images-idx3-ubyte", images),
        ("t10k-labels-idx1-ubyte", labels),
    ]
}

/// An idx file of bytes.
fn idx(sizes: &[u32], bytes: &[u8]) -> Vec<u8> {
    let header = [0, 0, 8, sizes.len() as u8].into_iter();
    header.chain(sizes.iter().flat_map(|size| size.to_be_bytes())).chain(bytes.iter().copied()).collect()
}
