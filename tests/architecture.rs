//! The import table of `ARCHITECTURE.md`, kept: no arrow points up, `unsafe` stays in the kernels' architecture files.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Room, and the rooms that it may name.
const MAY_USE: [(&str, &[&str]); 11] = [
    ("error", &[]),
    ("sealed", &[]),
    ("kernels", &["error"]),
    ("tensor", &["error", "kernels"]),
    ("packed", &["error", "tensor", "kernels"]),
    ("quantize", &["error", "sealed", "tensor", "kernels"]),
    ("nn", &["error", "kernels"]),
    ("compressed", &["error", "tensor", "packed", "nn"]),
    ("recipe", &["error", "tensor", "packed", "quantize", "nn", "compressed"]),
    ("report", &["error", "tensor", "nn", "compressed"]),
    ("io", &["error", "tensor", "packed", "nn", "compressed"]),
];

/// Names that the crate root re-exports, and the rooms they live in.
const REEXPORTS: [(&str, &str); 9] = [
    ("Error", "error"),
    ("Result", "error"),
    ("Isa", "kernels"),
    ("Quantizer", "quantize"),
    ("QuantizedTensor", "tensor"),
    ("Weights", "tensor"),
    ("PackedWeights", "packed"),
    ("Recipe", "recipe"),
    ("Report", "report"),
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

/// The code of a file: no comments, no unit tests (they stand last and may look anywhere).
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
    lines.map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// The first names of every path that starts with `crate::`, groups in braces included.
fn named_rooms(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (start, _) in code.match_indices("crate::") {
        let rest = &code[start + "crate::".len()..];
        let name = |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(name(rest));
            continue;
        };
        let (mut depth, mut item) = (0, String::new());
        for c in group.chars() {
            match c {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
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
        for name in named_rooms(&code(&path)) {
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
        if kernels.iter().any(|kernels| path.starts_with(kernels)) || path.ends_with("tests/architecture.rs") {
            continue;
        }
        let code = code(&path);
        let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        assert!(!words.into_iter().any(|word| word == "unsafe"), "{} says `unsafe`", path.display());
    }
}

#[test]
fn the_parser_sees_paths_and_groups() {
    let code = "use crate::{error::{Error, Result}, nn, tensor::Codes};\nlet x = crate::packed::y();";
    let expected = ["error", "nn", "packed", "tensor"].map(str::to_owned);
    assert_eq!(named_rooms(code), BTreeSet::from(expected));
}
