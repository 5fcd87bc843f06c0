//! Accuracy against sparsity: a line for each way to prune, in one panel.

use svg::{Document, Node, node::element::Polyline};

use super::{COLOURS, GREY, INK, PALE, Scale, dot, line, rectangle, sheet, text};
use crate::table::Row;

const PANEL: (f64, f64) = (620.0, 360.0);
const CORNER: (f64, f64) = (78.0, 96.0);
/// Where the names of the lines start, right of the panel.
const NAMES: f64 = CORNER.0 + PANEL.0 + 24.0;

/// Draws the rows; the first is the dense network. Of networks that are there masked and sparse (or removed), which agree,
/// only the latter.
pub(crate) fn accuracy_against_sparsity(rows: &[Row]) -> Document {
    let (left, top) = CORNER;
    let network = rows.first().map_or("", |row| &row.network);
    let mut picture = sheet(
        NAMES + 170.0,
        top + PANEL.1 + 62.0,
        &format!("Test accuracy against the share of weights removed: {network}"),
        "Fine-tuned for 10 epochs but for one-shot; bars are the standard deviation over all seeds.",
    );
    // By the logarithm of what is left, so that the sparse end has room.
    let x = Scale { numbers: (0.0, 0.02f64.ln()), pixels: (left + 14.0, left + PANEL.0 - 14.0) };
    let y = Scale { numbers: (100.0, 10.0), pixels: (top + 12.0, top + PANEL.1 - 12.0) };
    let at = |row: &Row| (x.at((1.0 - row.sparsity).max(0.02).ln()), y.at(row.accuracy.max(10.0)));

    picture.append(rectangle(left, top, PANEL.0, PANEL.1, "none").set("stroke", GREY).set("stroke-width", 0.8));
    for accuracy in [10.0, 30.0, 50.0, 70.0, 80.0, 90.0, 100.0] {
        let level = y.at(accuracy);
        picture.append(line((left, level), (left + PANEL.0, level), PALE, 0.5));
        picture.append(text(left - 8.0, level + 4.0, &accuracy.to_string(), 12.0).set("text-anchor", "end"));
    }
    for percent in [0.0, 30.0, 50.0, 70.0, 80.0, 90.0, 95.0, 98.0] {
        let across = x.at((1.0f64 - percent / 100.0).ln());
        picture.append(line((across, top), (across, top + PANEL.1), PALE, 0.5));
        let label = text(across, top + PANEL.1 + 18.0, &percent.to_string(), 12.0);
        picture.append(label.set("text-anchor", "middle"));
    }
    if let Some(dense) = rows.first() {
        let level = y.at(dense.accuracy);
        picture.append(line((left, level), (left + PANEL.0, level), GREY, 1.0).set("stroke-dasharray", "4 3"));
        picture.append(text(NAMES, level - 8.0, "dense", 13.0).set("fill", GREY));
    }

    let shown = |row: &&Row| row.technique != "dense" && !row.technique.ends_with("masked");
    let mut techniques: Vec<Vec<&Row>> = Vec::new();
    for row in rows.iter().filter(shown) {
        match techniques.iter_mut().find(|series| series[0].technique == row.technique) {
            Some(series) => series.push(row),
            None => techniques.push(vec![row]),
        }
    }
    for (index, (series, colour)) in techniques.iter().zip(COLOURS).enumerate() {
        let points: Vec<String> = series.iter().map(|row| at(row)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        picture.append(
            Polyline::new()
                .set("points", points.join(" "))
                .set("fill", "none")
                .set("stroke", colour)
                .set("stroke-width", 2.2),
        );
        for row in series {
            let (across, level) = at(row);
            let end = |accuracy: f64| y.at(accuracy.clamp(10.0, 100.0));
            let (high, low) = (end(row.accuracy + row.accuracy_sd), end(row.accuracy - row.accuracy_sd));
            picture.append(line((across, high), (across, low), colour, 1.2).set("stroke-opacity", 0.7));
            picture.append(dot((across, level), 3.6, colour));
        }
        let row = top + 40.0 + 26.0 * index as f64;
        picture.append(line((NAMES, row), (NAMES + 26.0, row), colour, 2.4));
        picture.append(text(NAMES + 34.0, row + 4.0, &series[0].technique, 13.0).set("fill", INK));
    }

    let (across, below) = (left + PANEL.0 / 2.0, top + PANEL.1 + 44.0);
    let words = "weights removed (%), spaced by the logarithm of what is left";
    picture.append(text(across, below, words, 13.0).set("text-anchor", "middle"));
    let centre = top + PANEL.1 / 2.0;
    picture.append(
        text(22.0, centre, "test accuracy (%)", 13.0)
            .set("text-anchor", "middle")
            .set("transform", format!("rotate(-90 22 {centre})")),
    );
    picture
}
