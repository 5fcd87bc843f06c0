//! The command line.

use std::path::{Path, PathBuf};

use lexopt::{Arg, Parser, ValueExt};

use crate::{Problem, data::Dataset};

const HELP: &str = "\
Trains a network of 784-64-32-10, compresses it in every way, runs the results and says what they cost.

usage: cargo run --release --example compress -- [OPTIONS]

  --data DIR      read MNIST-format files (train-images-idx3-ubyte and so on, plain or .gz) or raw files
                  (NAME_images_u8_COUNTxPIXELS.bin) from DIR, not the digits that come with the crate
  --epochs N      train so long [default: 60 on the digits, 40 on anything else]
  --seeds N       train so many networks; accuracy is their mean and standard deviation [default: 5]
  --json FILE     write the rows of the table as JSON
  --pictures DIR  write the pictures there [default: target/compress]
  --help          print this
";

/// What the user asked for.
pub(crate) struct Options {
    pub(crate) data: PathBuf,
    pub(crate) epochs: Option<usize>,
    pub(crate) seeds: usize,
    pub(crate) json: Option<PathBuf>,
    pub(crate) pictures: PathBuf,
}

impl Options {
    /// Reads the command line; nothing to do if it asks for help.
    pub(crate) fn parse() -> Result<Option<Options>, Problem> {
        let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut options = Options {
            data: crate_folder.join("data"),
            epochs: None,
            seeds: 5,
            json: None,
            pictures: crate_folder.join("target/compress"),
        };
        let mut arguments = Parser::from_env();
        while let Some(argument) = arguments.next()? {
            match argument {
                Arg::Long("data") => options.data = arguments.value()?.into(),
                Arg::Long("epochs") => options.epochs = Some(at_least_one("--epochs", arguments.value()?.parse()?)?),
                Arg::Long("seeds") => options.seeds = at_least_one("--seeds", arguments.value()?.parse()?)?,
                Arg::Long("json") => options.json = Some(arguments.value()?.into()),
                Arg::Long("pictures") => options.pictures = arguments.value()?.into(),
                Arg::Long("help") | Arg::Short('h') => {
                    print!("{HELP}");
                    return Ok(None);
                }
                other => return Err(format!("{}; --help lists the options", other.unexpected()).into()),
            }
        }
        Ok(Some(options))
    }

    /// Epochs of the dense networks.
    pub(crate) fn epochs(&self, data: &Dataset) -> usize {
        self.epochs.unwrap_or(if data.name == "digits" { 60 } else { 40 })
    }
}

fn at_least_one(option: &str, n: usize) -> Result<usize, Problem> {
    if n == 0 { Err(format!("{option} 0, but it must be at least 1").into()) } else { Ok(n) }
}
