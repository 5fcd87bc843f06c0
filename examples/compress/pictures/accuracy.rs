//! Accuracy against bytes: a panel for each technique, with all the others in grey behind it.

use svg::{Document, Node, node::element::Polyline};

use super::{GREY, INK, PALE, Scale, colour, dot, line, rectangle, sheet, text};
use crate::table::Row;

const COLUMNS: usize = 4;
const PANEL: (f64, f64) = (232.0, 178.0);
const GAP: (f64, f64) = (20.0, 44.0);
const TOP: f64 = 108.0;
const LEFT: f64 = 78.0;

/// Draws the rows. The one of technique `f32` is what the others are held against.
pub(crate) fn accuracy_against_bytes(rows: &[Row]) -> Document {
    let compressed: Vec<_> = rows.iter().filter(|row| row.technique != "f32").collect();
    let mut techniques: Vec<Series<'_>> = Vec::new();
    for row in compressed {
        match techniques.iter_mut().find(|series| series[0].technique == row.technique) {
            Some(series) => series.push(row),
            None => techniques.push(vec![row]),
        }
    }
    let panels = techniques.len() + 1; // the last one is the key
    let lines = panels.div_ceil(COLUMNS);
    let network = rows.first().map_or("", |row| &row.network);
    let mut picture = sheet(
        LEFT + COLUMNS as f64 * (PANEL.0 + GAP.0) + 8.0,
        TOP + lines as f64 * (PANEL.1 + GAP.1) + 28.0,
        &format!("Test accuracy against bytes at rest: {network}"),
        "Each panel has one technique in colour, with its bits per weight; all the others are grey.",
    );
    for panel in 0..panels {
        let (column, line) = (panel % COLUMNS, panel / COLUMNS);
        let corner = (LEFT + column as f64 * (PANEL.0 + GAP.0), TOP + line as f64 * (PANEL.1 + GAP.1));
        let axes = Axes::new(rows, corner);
        match techniques.get(panel) {
            Some(series) => {
                axes.draw(&mut picture, column == 0, panel + COLUMNS >= panels - 1);
                axes.draw_baseline(&mut picture, rows);
                techniques.iter().for_each(|other| axes.draw_series(&mut picture, other, PALE, 1.5));
                axes.draw_highlight(&mut picture, series);
            }
            None => draw_key(&mut picture, corner),
        }
    }
    let centre = TOP + (lines as f64 * (PANEL.1 + GAP.1) - GAP.1) / 2.0;
    picture.append(
        text(22.0, centre, "test accuracy (%), spaced by the logarithm of the error", 13.0)
            .set("text-anchor", "middle")
            .set("transform", format!("rotate(-90 22 {centre})")),
    );
    let (x, y) = (LEFT + (COLUMNS as f64 * (PANEL.0 + GAP.0) - GAP.0) / 2.0, TOP + lines as f64 * (PANEL.1 + GAP.1));
    picture.append(text(x, y + 10.0, "bytes at rest (kB), logarithmic", 13.0).set("text-anchor", "middle"));
    picture
}

/// The rows of one technique.
type Series<'a> = Vec<&'a Row>;

/// A panel's place, and where numbers lie in it.
struct Axes {
    corner: (f64, f64),
    /// Natural logarithm of bytes.
    x: Scale,
    /// Natural logarithm of the error in percent: small errors are far apart, as they should be.
    y: Scale,
}

impl Axes {
    fn new(rows: &[Row], corner: (f64, f64)) -> Axes {
        let range = |of: &dyn Fn(&Row) -> f64| {
            let ends = (f64::INFINITY, f64::NEG_INFINITY);
            rows.iter().map(of).fold(ends, |(low, high), x| (low.min(x), high.max(x)))
        };
        let (small, large) = range(&|row| (row.bytes as f64).ln());
        let (least, _) = range(&|row| log_error(row.accuracy + row.accuracy_sd));
        let (_, most) = range(&|row| log_error(row.accuracy));
        Axes {
            corner,
            x: Scale { numbers: (small, large), pixels: (corner.0 + 28.0, corner.0 + PANEL.0 - 18.0) },
            y: Scale { numbers: (least, most), pixels: (corner.1 + 22.0, corner.1 + PANEL.1 - 10.0) },
        }
    }

    fn at(&self, row: &Row) -> (f64, f64) {
        (self.x.at((row.bytes as f64).ln()), self.y.at(log_error(row.accuracy)))
    }

    /// Frame, grid, and the labels that this panel does not leave to its neighbours.
    fn draw(&self, picture: &mut Document, y_labels: bool, x_labels: bool) {
        let (left, top) = self.corner;
        picture.append(rectangle(left, top, PANEL.0, PANEL.1, "none").set("stroke", GREY).set("stroke-width", 0.8));
        let mut last = f64::NEG_INFINITY;
        for accuracy in [99.8, 99.5, 99.0, 98.0, 97.0, 95.0, 90.0, 80.0, 70.0, 50.0, 20.0] {
            let y = self.y.at(log_error(accuracy));
            if y < last.max(top) + 15.0 || y > top + PANEL.1 {
                continue;
            }
            last = y;
            picture.append(line((left, y), (left + PANEL.0, y), PALE, 0.5));
            if y_labels {
                picture.append(text(left - 8.0, y + 4.0, &accuracy.to_string(), 12.0).set("text-anchor", "end"));
            }
        }
        for kilobytes in [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0] {
            let x = self.x.at((kilobytes * 1e3f64).ln());
            if x < left || x > left + PANEL.0 {
                continue;
            }
            picture.append(line((x, top), (x, top + PANEL.1), PALE, 0.5));
            if x_labels {
                let label = text(x, top + PANEL.1 + 17.0, &kilobytes.to_string(), 12.0);
                picture.append(label.set("text-anchor", "middle"));
            }
        }
    }

    fn draw_baseline(&self, picture: &mut Document, rows: &[Row]) {
        for row in rows.iter().filter(|row| row.technique == "f32") {
            let (x, y) = self.at(row);
            picture.append(line((self.corner.0, y), (x, y), GREY, 1.0).set("stroke-dasharray", "4 3"));
            picture.append(dot((x, y), 3.5, GREY));
            picture.append(text(x, y - 8.0, "f32", 12.0).set("fill", GREY).set("text-anchor", "middle"));
        }
    }

    fn draw_series(&self, picture: &mut Document, series: &[&Row], colour: &str, width: f64) {
        let points = series.iter().map(|row| self.at(row)).map(|(x, y)| format!("{x:.1},{y:.1}"));
        let points = points.collect::<Vec<_>>().join(" ");
        picture.append(
            Polyline::new().set("points", points).set("fill", "none").set("stroke", colour).set("stroke-width", width),
        );
        series.iter().for_each(|row| picture.append(dot(self.at(row), 1.5 * width, colour)));
    }

    fn draw_highlight(&self, picture: &mut Document, series: &[&Row]) {
        let technique = series[0].technique.as_str();
        let colour = colour(technique);
        let (left, top) = self.corner;
        picture.append(text(left, top - 9.0, technique, 14.0).set("font-weight", "bold"));
        for row in series {
            let x = self.at(row).0;
            let end = |accuracy| self.y.at(log_error(accuracy)).clamp(top, top + PANEL.1);
            let (high, low) = (end(row.accuracy + row.accuracy_sd), end(row.accuracy - row.accuracy_sd));
            picture.append(line((x, high), (x, low), colour, 1.2).set("stroke-opacity", 0.7));
        }
        self.draw_series(picture, series, colour, 2.4);
        // The smallest is where the line climbs: its label goes beside it, the others above.
        let smallest = series.iter().map(|row| row.bytes).min().filter(|_| series.len() > 1);
        for row in series {
            let (x, y) = self.at(row);
            let end = self.y.at(log_error(row.accuracy + row.accuracy_sd));
            let (x, y) = if Some(row.bytes) == smallest { (x - 11.0, y + 4.0) } else { (x, (end - 5.0).min(y - 8.0)) };
            let label = text(x, y, &row.bits.to_string(), 12.0).set("text-anchor", "middle");
            picture.append(label.set("font-weight", "bold"));
        }
    }
}

/// Says what the marks are.
fn draw_key(picture: &mut Document, (left, top): (f64, f64)) {
    let middle = left + 30.0;
    let entry = |picture: &mut Document, row: f64, words: &str| {
        picture.append(text(left + 62.0, top + row + 4.0, words, 12.0));
    };
    let row = 30.0;
    picture.append(line((left + 10.0, top + row), (left + 50.0, top + row), INK, 2.4));
    picture.append(dot((middle, top + row), 3.6, INK));
    picture.append(text(middle, top + row - 8.0, "4", 12.0).set("text-anchor", "middle").set("font-weight", "bold"));
    entry(picture, row, "the panel's technique, at 4 bits");
    let row = 66.0;
    picture.append(line((middle, top + row - 11.0), (middle, top + row + 11.0), INK, 1.2));
    picture.append(dot((middle, top + row), 3.6, INK));
    entry(picture, row, "± standard deviation, all seeds");
    let row = 100.0;
    picture.append(line((left + 10.0, top + row), (left + 50.0, top + row), PALE, 1.5));
    picture.append(dot((middle, top + row), 2.2, PALE));
    entry(picture, row, "all other techniques");
    let row = 132.0;
    picture.append(line((left + 10.0, top + row), (left + 50.0, top + row), GREY, 1.0).set("stroke-dasharray", "4 3"));
    picture.append(dot((left + 50.0, top + row), 3.5, GREY));
    entry(picture, row, "the network in f32");
}

/// The error in percent on a logarithmic scale; errors too small to show (none in 2000) count as 0.05.
fn log_error(accuracy: f64) -> f64 {
    (100.0 - accuracy).clamp(0.05, 100.0).ln()
}
