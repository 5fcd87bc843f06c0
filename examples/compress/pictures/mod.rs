//! Pictures as SVG: the drawing that all share. Lengths are in pixels, y grows downwards.

mod accuracy;
mod histogram;
mod panel;
mod sparsity;

use std::{fs, path::Path};

use svg::{
    Document,
    node::element::{Circle, Line, Rectangle, Text},
};

use crate::Problem;

pub(crate) use accuracy::accuracy_against_bytes;
pub(crate) use histogram::weights_and_levels;
pub(crate) use sparsity::{accuracy_against_sparsity, accuracy_against_sparsity_of_each_layer};

/// Writes a picture, in a folder that is made if it is missing, and says where.
pub(crate) fn save(file: &Path, picture: &Document) -> Result<(), Problem> {
    let folder = file.parent().map_or(Ok(()), fs::create_dir_all);
    folder.and_then(|()| svg::save(file, picture)).map_err(|e| format!("{}: {e}", file.display()))?;
    crate::progress::say(format_args!("picture: {}", file.display()));
    Ok(())
}

/// Text and axes.
const INK: &str = "#222222";
const GREY: &str = "#707070";
const PALE: &str = "#d9d9d9";

/// Colours that colour-blind people tell apart (Okabe and Ito 2008), without the yellow that white swallows.
const COLOURS: [&str; 6] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"];

/// Schemes of one family share a colour.
fn colour(technique: &str) -> &'static str {
    let families = ["uniform", "piecewise", "k-means", "quantile", "power", "adaptive"];
    families.iter().position(|family| technique.starts_with(family)).map_or(INK, |family| COLOURS[family])
}

/// A white sheet with a title and a line below it.
fn sheet(width: f64, height: f64, title: &str, subtitle: &str) -> Document {
    Document::new()
        .set("viewBox", (0, 0, width, height))
        .set("width", width)
        .set("height", height)
        .set("font-family", "'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif")
        .add(rectangle(0.0, 0.0, width, height, "#ffffff"))
        .add(text(24.0, 34.0, title, 18.0).set("font-weight", "bold"))
        .add(text(24.0, 56.0, subtitle, 13.0).set("fill", GREY))
}

fn text(x: f64, y: f64, content: &str, size: f64) -> Text {
    Text::new(content).set("x", tenth(x)).set("y", tenth(y)).set("font-size", size).set("fill", INK)
}

fn line(from: (f64, f64), to: (f64, f64), colour: &str, width: f64) -> Line {
    Line::new()
        .set("x1", tenth(from.0))
        .set("y1", tenth(from.1))
        .set("x2", tenth(to.0))
        .set("y2", tenth(to.1))
        .set("stroke", colour)
        .set("stroke-width", width)
}

fn rectangle(x: f64, y: f64, width: f64, height: f64, colour: &str) -> Rectangle {
    Rectangle::new()
        .set("x", tenth(x))
        .set("y", tenth(y))
        .set("width", tenth(width))
        .set("height", tenth(height))
        .set("fill", colour)
}

fn dot((x, y): (f64, f64), radius: f64, colour: &str) -> Circle {
    Circle::new().set("cx", tenth(x)).set("cy", tenth(y)).set("r", radius).set("fill", colour)
}

/// Tenths of a pixel are enough, and keep the file short.
fn tenth(length: f64) -> f64 {
    (length * 10.0).round() / 10.0
}

/// Maps an interval of numbers to an interval of pixels.
#[derive(Clone, Copy)]
struct Scale {
    numbers: (f64, f64),
    pixels: (f64, f64),
}

impl Scale {
    fn at(&self, number: f64) -> f64 {
        let share = (number - self.numbers.0) / (self.numbers.1 - self.numbers.0);
        self.pixels.0 + share * (self.pixels.1 - self.pixels.0)
    }
}
