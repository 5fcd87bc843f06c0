//! The import table of `ARCHITECTURE.md`, kept: no arrow points up, `unsafe` stays in the kernels' architecture files.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Room, and the rooms that it may name.
const MAY_USE: [(&str, &[&str]); 15] = [
    ("error", &[]),
    ("sealed", &[]),
    ("random", &[]),
    ("kernels", &["error"]),
    ("tensor", &["error", "kernels"]),
    ("packed", &["error", "tensor", "kernels"]),
    ("quantize", &["error", "sealed", "tensor", "kernels"]),
    ("prune", &["error", "sealed", "random", "tensor", "kernels"]),
    ("nn", &["error", "random", "tensor", "kernels"]),
    ("distill", &["error", "sealed", "random", "tensor", "nn"]),
    ("removal", &["error", "random", "tensor", "prune", "nn"]),
    ("compressed", &["error", "tensor", "packed", "nn"]),
    ("recipe", &["error", "random", "tensor", "packed", "quantize", "prune", "nn", "compressed", "report"]),
    ("report", &["error", "tensor", "nn", "compressed"]),
    ("io", &["error", "tensor", "packed", "nn", "distill", "compressed"]),
];

/// Names that the crate root re-exports, and the rooms they live in.
const REEXPORTS: [(&str, &str); 16] = [
    ("Error", "error"),
    ("Result", "error"),
    ("Isa", "kernels"),
    ("Quantizer", "quantize"),
    ("Pruner", "prune"),
    ("Mask", "tensor"),
    ("PrunedTensor", "tensor"),
    ("QuantizedTensor", "tensor"),
    ("Weights", "tensor"),
    ("PackedWeights", "packed"),
    ("Recipe", "recipe"),
    ("Channels", "removal"),
    ("Report", "report"),
    ("Distillation", "distill"),
    ("Distiller", "distill"),
    ("Signals", "distill"),
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .collect()
}

/// The code of a file: no comments, and nothing that is compiled for unit tests only, which may look anywhere.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().map(|line| line.split("//").next().unwrap_or(""));
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]" {
            // One item: to its closing brace at the margin, or its semicolon.
            let opens = lines.next().unwrap_or("");
            if !opens.ends_with(';') && !opens.ends_with('}') {
                lines.by_ref().find(|line| line.starts_with('}'));
            }
            continue;
        }
        code.push_str(line);
        code.push('\n');
    }
    code
}

/// The first names of every path that starts at the crate's root: with `crate::`, groups in braces included, or with as
/// many `super::` as the module is deep.
fn named_rooms(code: &str, depth: usize) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let root = "super::".repeat(depth);
    let paths = code.match_indices("crate::").map(|(start, _)| &code[start + "crate::".len()..]);
    let supers = code.match_indices(&root).map(|(start, _)| &code[start + root.len()..]);
    for rest in paths.chain(supers) {
        let name = |text: &str| -> String {
            text.trim_start().chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '*')).collect()
        };
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(name(rest));
            continue;
        };
        let (mut nested, mut item) = (0, String::new());
        for c in group.chars() {
            match c {
                '}' if nested == 0 => break,
                '{' => nested += 1,
                '}' => nested -= 1,
                ',' if nested == 0 => {
                    names.insert(name(&std::mem::take(&mut item)));
                    continue;
                }
                _ => {}
            }
            item.push(c);
        }
        names.insert(name(&item));
    }
    names.remove("");
    names
}

/// How many modules a file lies below the root: 1 for `nn/mod.rs`, 2 for `nn/linear.rs`.
fn depth(path: &Path, src: &Path) -> usize {
    let below = path.strip_prefix(src).unwrap().components().count();
    below - usize::from(path.ends_with("mod.rs"))
}

fn room(path: &Path, src: &Path) -> String {
    let first = path.strip_prefix(src).unwrap().components().next().unwrap();
    first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

#[test]
fn every_import_is_in_the_table() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut checked = 0;
    for path in sources(&src) {
        let room = room(&path, &src);
        if room == "lib" {
            continue;
        }
        let allowed = MAY_USE.iter().find(|(name, _)| *name == room);
        let allowed = allowed.unwrap_or_else(|| panic!("{} is in no room of the table", path.display())).1;
        let text = code(&fs::read_to_string(&path).unwrap());
        assert!(!text.contains("use crate as"), "{} renames the root, which hides what it names", path.display());
        for name in named_rooms(&text, depth(&path, &src)) {
            let used = REEXPORTS.iter().find(|(export, _)| *export == name).map_or(name.as_str(), |(_, room)| room);
            assert!(
                used == room || allowed.contains(&used),
                "{} names crate::{name}, but `{room}` may use only {allowed:?}",
                path.display()
            );
            checked += 1;
        }
    }
    assert!(checked > 60, "only {checked} imports were found: is the parser still right?");
}

#[test]
fn unsafe_stays_in_the_kernels() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let kernels = [root.join("src/kernels/x86_64"), root.join("src/kernels/aarch64")];
    let folders = ["src", "tests", "examples", "benches"].map(|folder| root.join(folder));
    for path in folders.iter().flat_map(|folder| sources(folder)) {
        // A package of its own, which calls what other crates declare `unsafe`.
        let peers = path.starts_with(root.join("benches/peers"));
        if peers || kernels.iter().any(|kernels| path.starts_with(kernels)) || path.ends_with("tests/architecture.rs") {
            continue;
        }
        let code = code(&fs::read_to_string(&path).unwrap());
        let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        assert!(!words.into_iter().any(|word| word == "unsafe"), "{} says `unsafe`", path.display());
    }
}

#[test]
fn the_parser_sees_paths_and_groups() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let text = "use crate::{error::{Error, Result}, nn, tensor::Codes};\nlet x = crate::packed::y();";
    assert_eq!(named_rooms(text, 2), names(&["error", "nn", "packed", "tensor"]));
    assert_eq!(named_rooms("use crate::*;", 2), names(&["*"]));
    assert_eq!(named_rooms("use super::super::packed::X; use super::near::Y;", 2), names(&["packed"]));
    let text = "a\n#[cfg(test)]\nmod battery;\nb // c\n#[cfg(test)]\nmod tests {\n    d\n}\ne\n";
    assert_eq!(code(text), "a\nb \ne\n");
}
