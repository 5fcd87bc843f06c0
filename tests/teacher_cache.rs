//! A teacher's outputs on disk: the same bits, resumed wherever it stopped, and never those of something else.
#![cfg(feature = "io")]

mod common;

use std::{
    cell::Cell,
    fs,
    ops::{ControlFlow, Deref},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use common::normal;
use ndarray::{Array2, Array4, ArrayD, Axis};
use tersor::{
    Error, Result,
    distill::{Answer, Batch, Recorded, Teacher},
    io::TeacherCache,
    nn::{Conv2d, Data, Network},
};

const SAMPLES: usize = 7;

/// A path of its own, removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Scratch(std::env::temp_dir().join(format!("tersor-teacher-{}-{count}.cache", std::process::id())))
    }
}

impl Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for Scratch {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

fn network(seed: u64) -> Network {
    Network::builder(seed).linear(4, 6).tanh().linear(6, 3).build().unwrap()
}

fn data(seed: u64) -> Data {
    Data::classes(normal(SAMPLES, 4, seed), (0..SAMPLES).map(|i| i % 3)).unwrap()
}

fn go_on(_: usize, _: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn fill(path: &Path, teacher: &dyn Teacher, data: &Data, batch_size: usize) -> Result<TeacherCache> {
    TeacherCache::fill(path, teacher, data, batch_size, &mut go_on)
}

fn ask(teacher: &dyn Teacher, data: &Data, samples: &[usize]) -> Result<ArrayD<f32>> {
    let inputs = data.inputs().select(Axis(0), samples);
    Ok(teacher.answer(&Batch { samples, inputs: inputs.view() }, &[])?.outputs)
}

fn bits(outputs: &ArrayD<f32>) -> (Vec<usize>, Vec<u32>) {
    (outputs.shape().to_vec(), outputs.iter().map(|value| value.to_bits()).collect())
}

/// Everything that the cache knows is what the network says.
fn expect_outputs(cache: &TeacherCache, network: &Network, data: &Data) {
    assert!(cache.is_complete() && cache.len() == data.len() && !cache.is_empty());
    cache.check(data).unwrap();
    let all: Vec<usize> = (0..data.len()).collect();
    let found = ask(cache, data, &all).unwrap();
    assert_eq!(bits(&found), bits(&network.forward(data.inputs()).unwrap()));
    let some = [data.len() - 1, 0, 0, data.len() / 2];
    assert_eq!(ask(cache, data, &some).unwrap(), found.select(Axis(0), &some), "in any order, twice too");
}

/// A network that counts what it is asked, and may answer otherwise.
#[derive(Debug)]
struct Watched {
    network: Network,
    asked: Cell<usize>,
    largest: Cell<usize>,
    spoil: fn(ArrayD<f32>) -> ArrayD<f32>,
}

impl Watched {
    fn new(spoil: fn(ArrayD<f32>) -> ArrayD<f32>) -> Watched {
        Watched { network: network(1), asked: Cell::new(0), largest: Cell::new(0), spoil }
    }
}

impl Teacher for Watched {
    fn answer(&self, batch: &Batch<'_>, layers: &[String]) -> Result<Answer> {
        assert!(layers.is_empty() && batch.samples.len() == batch.inputs.shape()[0]);
        self.asked.set(self.asked.get() + batch.samples.len());
        self.largest.set(self.largest.get().max(batch.samples.len()));
        let answer = self.network.answer(batch, layers)?;
        Answer::without_layers((self.spoil)(answer.outputs), layers)
    }

    fn fingerprint(&self) -> Option<u64> {
        Some(self.network.fingerprint())
    }
}

#[test]
fn the_outputs_are_the_networks_bit_for_bit() {
    for batch_size in [1, 2, 3, 7, 1000] {
        let path = Scratch::new();
        let cache = fill(&path, &network(1), &data(1), batch_size).unwrap();
        expect_outputs(&cache, &network(1), &data(1));
        expect_outputs(&TeacherCache::open(&path, &data(1)).unwrap(), &network(1), &data(1));
        assert_eq!(cache.fingerprint(), Some(network(1).fingerprint()));
        assert_eq!(fs::metadata(&path).unwrap().len(), 56 + 7 * (3 * 4 + 8));
    }
    // Outputs of several axes, and inputs that are images.
    let images = Array4::from_shape_fn((5, 1, 4, 4), |(n, _, y, x)| ((n + 3 * y + x) as f32).sin());
    let data = Data::classes(images, [0; 5]).unwrap();
    let network = Network::builder(1).conv2d(Conv2d::new(1, 2, 3)).relu().build().unwrap();
    let path = Scratch::new();
    expect_outputs(&fill(&path, &network, &data, 2).unwrap(), &network, &data);
    // A cache of a cache.
    let (cache, copy) = (TeacherCache::open(&path, &data).unwrap(), Scratch::new());
    fill(&copy, &cache, &data, 3).unwrap();
    assert_eq!(fs::read(&path).unwrap(), fs::read(&copy).unwrap());
}

#[test]
fn a_teacher_is_asked_once_for_each_sample_and_no_more_than_a_batch() {
    let (path, teacher) = (Scratch::new(), Watched::new(|outputs| outputs));
    let mut seen = Vec::new();
    TeacherCache::fill(&path, &teacher, &data(1), 3, &mut |done, total| {
        seen.push((done, total));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(seen, [(3, 7), (6, 7), (7, 7)]);
    assert_eq!((teacher.asked.get(), teacher.largest.get()), (7, 3));
    let unasked = |_, _| panic!("nothing is left to do");
    TeacherCache::fill(&path, &teacher, &data(1), 3, &mut { unasked }).unwrap();
    assert_eq!(teacher.asked.get(), 7);
}

#[test]
fn a_cancelled_filling_goes_on_where_it_stopped() {
    for stop_after in 1..=4 {
        let (path, teacher) = (Scratch::new(), Watched::new(|outputs| outputs));
        let mut batches = 0;
        let cancelled = TeacherCache::fill(&path, &teacher, &data(1), 2, &mut |_, _| {
            batches += 1;
            if batches == stop_after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let done = (2 * stop_after).min(SAMPLES);
        assert!(matches!(cancelled, Err(Error::Cancelled { done: d, total: SAMPLES }) if d == done), "{cancelled:?}");
        let half = TeacherCache::open(&path, &data(1)).unwrap();
        assert_eq!((half.len(), half.is_complete()), (done, done == SAMPLES));
        assert_eq!(ask(&half, &data(1), &[0, 1]).unwrap(), ask(&network(1), &data(1), &[0, 1]).unwrap());
        if done < SAMPLES {
            let error = half.check(&data(1)).unwrap_err().to_string();
            assert!(error.contains(&format!("{} of 7 samples", SAMPLES - done)), "{error}");
            let error = ask(&half, &data(1), &[0, 6]).unwrap_err().to_string();
            assert!(error.contains("sample 6"), "{error}");
        }
        expect_outputs(&fill(&path, &teacher, &data(1), 3).unwrap(), &network(1), &data(1));
        assert_eq!(teacher.asked.get(), SAMPLES, "nothing twice");
    }
}

#[test]
fn a_file_that_is_cut_anywhere_is_an_error_or_filled_again() {
    let path = Scratch::new();
    fill(&path, &network(1), &data(1), 4).unwrap();
    let whole = fs::read(&path).unwrap();
    let header = whole.len() - SAMPLES * 20;
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let (opened, filled) = (TeacherCache::open(&path, &data(1)), fill(&path, &network(1), &data(1), 4));
        if length < header {
            let refused = |cache| matches!(cache, Err(Error::Format { .. }));
            assert!(refused(opened) && refused(filled), "{length}");
            assert_eq!(fs::read(&path).unwrap(), whole[..length], "nothing is overwritten");
        } else {
            assert_eq!(opened.unwrap().len(), (length - header) / 20);
            expect_outputs(&filled.unwrap(), &network(1), &data(1));
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
    }
    fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
    let longer = fill(&path, &network(1), &data(1), 4).unwrap_err().to_string();
    assert!(longer.contains(&format!("{} bytes", whole.len() + 1)), "{longer}");
}

#[test]
fn a_flipped_byte_anywhere_is_an_error_or_filled_again() {
    let path = Scratch::new();
    fill(&path, &network(1), &data(1), 4).unwrap();
    let whole = fs::read(&path).unwrap();
    let header = whole.len() - SAMPLES * 20;
    let all: Vec<usize> = (0..SAMPLES).collect();
    for place in 0..whole.len() {
        // Under an open cache: what is read is what was written, or an error.
        fs::write(&path, &whole).unwrap();
        let cache = TeacherCache::open(&path, &data(1)).unwrap();
        let mut spoiled = whole.clone();
        spoiled[place] ^= 1 << (place % 8);
        fs::write(&path, &spoiled).unwrap();
        match ask(&cache, &data(1), &all) {
            Ok(_) => assert!(place < header),
            Err(error) => {
                let sample = format!("sample {} ", (place - header) / 20);
                assert!(matches!(error, Error::Format { .. }) && error.to_string().contains(&sample), "{error}");
            }
        }
        // Before it is opened.
        let (opened, filled) = (TeacherCache::open(&path, &data(1)), fill(&path, &network(1), &data(1), 4));
        if place < header {
            let refused = |cache| matches!(cache, Err(Error::Format { .. }));
            assert!(refused(opened) && refused(filled), "byte {place}");
            assert_eq!(fs::read(&path).unwrap(), spoiled, "nothing is overwritten");
        } else {
            let opened = opened.unwrap();
            assert!(opened.len() == SAMPLES - 1 && opened.check(&data(1)).is_err());
            expect_outputs(&filled.unwrap(), &network(1), &data(1));
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
    }
}

#[test]
fn rows_that_changed_places_are_missed() {
    let path = Scratch::new();
    fill(&path, &network(1), &data(1), 4).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let header = bytes.len() - SAMPLES * 20;
    let (first, second) = bytes[header..].split_at_mut(20);
    first.swap_with_slice(&mut second[..20]);
    fs::write(&path, &bytes).unwrap();
    assert_eq!(TeacherCache::open(&path, &data(1)).unwrap().len(), SAMPLES - 2);
}

#[test]
fn a_file_of_other_data_or_of_another_teacher_is_refused_and_kept() {
    let path = Scratch::new();
    fill(&path, &network(1), &data(1), 4).unwrap();
    let whole = fs::read(&path).unwrap();
    let fewer = data(1).select(&[0, 1, 2, 3, 4, 5]).unwrap();
    let reordered = data(1).select(&[1, 0, 2, 3, 4, 5, 6]).unwrap();
    for other in [&data(2), &fewer, &reordered] {
        for refused in [fill(&path, &network(1), other, 4), TeacherCache::open(&path, other)] {
            let error = refused.unwrap_err();
            assert!(matches!(error, Error::Conflict { .. }) && error.to_string().contains("other data"), "{error}");
        }
        let cache = TeacherCache::open(&path, &data(1)).unwrap();
        assert!(matches!(cache.check(other), Err(Error::Conflict { .. })));
    }
    let mut trained = network(1);
    trained.parameters_mut()[3].1[[2]] += 1e-6;
    let deeper = Network::builder(1).linear(4, 6).tanh().linear(6, 3).relu().build().unwrap();
    for other in [network(2), trained, deeper] {
        let error = fill(&path, &other, &data(1), 4).unwrap_err();
        assert!(matches!(error, Error::Conflict { .. }) && error.to_string().contains("another teacher"), "{error}");
    }
    assert_eq!(fs::read(&path).unwrap(), whole);
    // Labels are no matter of the teacher's.
    let relabelled = Data::classes(data(1).inputs().clone(), [0; SAMPLES]).unwrap();
    expect_outputs(&TeacherCache::open(&path, &relabelled).unwrap(), &network(1), &relabelled);
    fs::write(&path, "something else altogether").unwrap();
    let error = fill(&path, &network(1), &data(1), 4).unwrap_err();
    assert!(matches!(error, Error::Format { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"something else altogether");
}

#[test]
fn a_header_that_claims_more_than_a_file_can_hold_is_refused() {
    // FNV-1a, so that the lie has a right checksum.
    let checksum = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
    };
    let path = Scratch::new();
    fill(&path, &network(1), &data(1), 4).unwrap();
    let whole = fs::read(&path).unwrap();
    let claims: [(usize, u64); 5] = [(40, u64::MAX), (40, 1 << 62), (40, 0), (16, u64::MAX), (16, 1 << 60)];
    for (place, number) in claims {
        let mut header = whole[..48].to_vec();
        header[place..place + 8].copy_from_slice(&number.to_le_bytes());
        header.extend(checksum(&header).to_le_bytes());
        fs::write(&path, header).unwrap();
        let error = TeacherCache::open(&path, &data(1)).unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{place} {number}: {error}");
    }
    // A row that a file could hold, but does not: no memory is taken for it.
    let mut header = whole[..48].to_vec();
    header[40..].copy_from_slice(&(1u64 << 50).to_le_bytes());
    header.extend(checksum(&header).to_le_bytes());
    fs::write(&path, header).unwrap();
    let cache = TeacherCache::open(&path, &data(1)).unwrap();
    assert!(cache.is_empty() && matches!(ask(&cache, &data(1), &[0]), Err(Error::Conflict { .. })));
    assert!(matches!(fill(&path, &network(1), &data(1), 4), Err(Error::Shape { .. })));
}

#[test]
fn what_a_teacher_should_not_answer_is_an_error_and_nothing_is_written_of_it() {
    type Spoil = fn(ArrayD<f32>) -> ArrayD<f32>;
    let cases: [(Spoil, &str); 5] = [
        (|outputs| outputs.mapv_into(|x| x / 0.0), "element 0 of the teacher's outputs"),
        (|outputs| outputs.index_axis_move(Axis(1), 0), "rank 1"),
        (|outputs| outputs.slice_axis_move(Axis(1), (0..0).into()), "nothing in"),
        (|outputs| outputs.slice_axis_move(Axis(0), (1..).into()), "shape [2, 3]"),
        (|outputs| outputs.reversed_axes().into_dyn().slice_axis_move(Axis(1), (0..1).into()), "shape [3, 1]"),
    ];
    for (spoil, text) in cases {
        let path = Scratch::new();
        let error = fill(&path, &Watched::new(spoil), &data(1), if text.ends_with("1]") { 4 } else { 3 }).unwrap_err();
        assert!(error.to_string().contains(text), "{error} should say {text}");
        assert!(!path.exists(), "{text}");
    }
    // The last batch alone: the position is that in all outputs, and what came before is kept.
    let late: Spoil = |mut outputs| {
        if outputs.shape()[0] == 1 {
            outputs[[0, 2]] = f32::NAN;
        }
        outputs
    };
    let path = Scratch::new();
    let error = fill(&path, &Watched::new(late), &data(1), 3).unwrap_err();
    assert!(matches!(error, Error::NotFinite { index: 20, .. }), "{error}");
    assert_eq!(TeacherCache::open(&path, &data(1)).unwrap().len(), 6);
    // A teacher who answers in another shape later.
    let error = fill(&path, &Watched::new(|outputs| outputs.slice_axis_move(Axis(1), (0..2).into())), &data(1), 3);
    assert!(matches!(error, Err(Error::Shape { .. })));
}

#[test]
fn settings_and_paths_that_cannot_be_are_errors() {
    #[derive(Debug)]
    struct Nameless;
    impl Teacher for Nameless {
        fn answer(&self, batch: &Batch<'_>, layers: &[String]) -> Result<Answer> {
            Answer::without_layers(batch.inputs.to_owned(), layers)
        }
    }
    let path = Scratch::new();
    assert!(matches!(fill(&path, &network(1), &data(1), 0), Err(Error::Setting { .. })));
    assert!(matches!(fill(&path, &Nameless, &data(1), 4), Err(Error::Conflict { .. })));
    assert!(matches!(TeacherCache::open(&path, &data(1)), Err(Error::Io { .. })));
    assert!(matches!(fill(&std::env::temp_dir(), &network(1), &data(1), 4), Err(Error::Io { .. })));
    let nowhere = path.with_extension("d").join("deeper.cache");
    assert!(matches!(fill(&nowhere, &network(1), &data(1), 4), Err(Error::Io { .. })));
    let wide = Data::classes(Array2::zeros((3, 5)), [0; 3]).unwrap();
    assert!(matches!(fill(&path, &network(1), &wide, 4), Err(Error::Layer { .. })));
    assert!(!path.exists());
    let cache = fill(&path, &network(1), &data(1), 4).unwrap();
    let beyond = cache.answer(&Batch { samples: &[SAMPLES], inputs: data(1).inputs().view() }, &[]);
    assert!(matches!(beyond, Err(Error::Setting { .. })));
    let layers = cache.answer(&Batch { samples: &[0], inputs: data(1).inputs().view() }, &["0".into()]);
    assert!(matches!(layers, Err(Error::Conflict { .. })), "of outputs only");
}

#[test]
fn outputs_recorded_in_memory_can_be_kept_too() {
    let outputs = network(1).forward(data(1).inputs()).unwrap();
    let path = Scratch::new();
    let cache = fill(&path, &Recorded::new(outputs.clone()).unwrap(), &data(1), 4).unwrap();
    expect_outputs(&cache, &network(1), &data(1));
    let error = fill(&path, &Recorded::new(&outputs + 1.0).unwrap(), &data(1), 4).unwrap_err();
    assert!(error.to_string().contains("another teacher"), "{error}");
}

#[test]
fn threads_that_read_at_once_do_not_disturb_one_another() {
    let data = Data::classes(normal(300, 4, 3), [0; 300]).unwrap();
    let path = Scratch::new();
    let cache = fill(&path, &network(1), &data, 64).unwrap();
    let expected = network(1).forward(data.inputs()).unwrap();
    std::thread::scope(|scope| {
        for start in 0..4 {
            let (cache, data, expected) = (&cache, &data, &expected);
            scope.spawn(move || {
                for round in 0..50 {
                    let samples: Vec<usize> = (0..20).map(|i| (start * 71 + round * 37 + i * 13) % 300).collect();
                    assert_eq!(ask(cache, data, &samples).unwrap(), expected.select(Axis(0), &samples));
                }
            });
        }
    });
}
