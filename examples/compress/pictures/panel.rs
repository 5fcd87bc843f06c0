//! One panel: a frame with ticks, lines in it, and their names beside it.

use svg::{Document, Node, node::element::Polyline};

use super::{COLOURS, GREY, INK, PALE, Scale, dot, line, rectangle, sheet, text};

const SIZE: (f64, f64) = (620.0, 360.0);
const CORNER: (f64, f64) = (78.0, 96.0);
/// Where the names of the lines start, right of the panel.
const NAMES: f64 = CORNER.0 + SIZE.0 + 24.0;

/// A picture under way.
pub(super) struct Panel {
    picture: Document,
    x: Scale,
    y: Scale,
    lines: usize,
}

impl Panel {
    /// An empty panel; the numbers of its axes are those at its edges, left and right, top and bottom.
    pub(super) fn new(title: &str, subtitle: &str, x: (f64, f64), y: (f64, f64)) -> Panel {
        let ((left, top), (width, height)) = (CORNER, SIZE);
        let mut picture = sheet(NAMES + 170.0, top + height + 62.0, title, subtitle);
        picture.append(rectangle(left, top, width, height, "none").set("stroke", GREY).set("stroke-width", 0.8));
        let x = Scale { numbers: x, pixels: (left + 14.0, left + width - 14.0) };
        let y = Scale { numbers: y, pixels: (top + 12.0, top + height - 12.0) };
        Panel { picture, x, y, lines: 0 }
    }

    /// Ticks along x, each with what is written there, and what the axis is of.
    pub(super) fn across(mut self, ticks: impl IntoIterator<Item = (f64, f64)>, words: &str) -> Panel {
        let ((left, top), (width, height)) = (CORNER, SIZE);
        for (number, label) in ticks {
            let across = self.x.at(number);
            self.picture.append(line((across, top), (across, top + height), PALE, 0.5));
            let label = text(across, top + height + 18.0, &label.to_string(), 12.0);
            self.picture.append(label.set("text-anchor", "middle"));
        }
        let words = text(left + width / 2.0, top + height + 44.0, words, 13.0);
        self.picture.append(words.set("text-anchor", "middle"));
        self
    }

    /// Ticks along y, and what the axis is of.
    pub(super) fn up(mut self, ticks: impl IntoIterator<Item = f64>, words: &str) -> Panel {
        let ((left, top), (width, height)) = (CORNER, SIZE);
        for number in ticks {
            let level = self.y.at(number);
            self.picture.append(line((left, level), (left + width, level), PALE, 0.5));
            self.picture.append(text(left - 8.0, level + 4.0, &number.to_string(), 12.0).set("text-anchor", "end"));
        }
        let centre = top + height / 2.0;
        let words = text(22.0, centre, words, 13.0).set("text-anchor", "middle");
        self.picture.append(words.set("transform", format!("rotate(-90 22 {centre})")));
        self
    }

    /// A level to compare with.
    pub(super) fn level(mut self, number: f64, name: &str) -> Panel {
        let level = self.y.at(number);
        let across = line((CORNER.0, level), (CORNER.0 + SIZE.0, level), GREY, 1.0);
        self.picture.append(across.set("stroke-dasharray", "4 3"));
        self.picture.append(text(NAMES, level - 8.0, name, 13.0).set("fill", GREY));
        self
    }

    /// A line through points, each with half the length of its error bar.
    pub(super) fn series(&mut self, name: &str, points: &[(f64, f64, f64)]) {
        let colour = COLOURS[self.lines % COLOURS.len()];
        let (lowest, highest) = (self.y.numbers.1, self.y.numbers.0);
        let level = |y: &Scale, number: f64| y.at(number.clamp(lowest, highest));
        let at = |(x, y, _): &(f64, f64, f64)| format!("{:.1},{:.1}", self.x.at(*x), level(&self.y, *y));
        let polyline = Polyline::new().set("points", points.iter().map(at).collect::<Vec<_>>().join(" "));
        self.picture.append(polyline.set("fill", "none").set("stroke", colour).set("stroke-width", 2.2));
        for (x, y, error) in points {
            let across = self.x.at(*x);
            let (high, low) = (level(&self.y, y + error), level(&self.y, y - error));
            self.picture.append(line((across, high), (across, low), colour, 1.2).set("stroke-opacity", 0.7));
            self.picture.append(dot((across, level(&self.y, *y)), 3.6, colour));
        }
        let row = CORNER.1 + 64.0 + 26.0 * self.lines as f64;
        self.picture.append(line((NAMES, row), (NAMES + 26.0, row), colour, 2.4));
        self.picture.append(text(NAMES + 34.0, row + 4.0, name, 13.0).set("fill", INK));
        self.lines += 1;
    }

    pub(super) fn finish(self) -> Document {
        self.picture
    }
}
