//! Accuracy against sparsity: a line for each way to prune, and one for each layer pruned alone.

use svg::Document;
use tersor::recipe::Sensitivity;

use super::panel::Panel;
use crate::table::Row;

/// Draws the rows; the first is the dense network. Of networks that are there masked and sparse (or removed), which agree,
/// only the latter.
pub(crate) fn accuracy_against_sparsity(rows: &[Row]) -> Document {
    let network = rows.first().map_or("", |row| &row.network);
    let title = format!("Test accuracy against the share of weights removed: {network}");
    let subtitle = "Fine-tuned for 10 epochs but for one-shot; bars are the standard deviation over all seeds.";
    // By the logarithm of what is left, so that the sparse end has room.
    let left = |share: f64| (1.0 - share).max(0.02).ln();
    let ticks = [0.0, 30.0, 50.0, 70.0, 80.0, 90.0, 95.0, 98.0].map(|percent| (left(percent / 100.0), percent));
    let mut panel = Panel::new(&title, subtitle, (left(0.0), left(1.0)), (100.0, 10.0))
        .across(ticks, "weights removed (%), spaced by the logarithm of what is left")
        .up([10.0, 30.0, 50.0, 70.0, 80.0, 90.0, 100.0], "test accuracy (%)");
    if let Some(dense) = rows.first() {
        panel = panel.level(dense.accuracy, "dense");
    }
    let shown = |row: &&Row| row.technique != "dense" && !row.technique.ends_with("masked");
    let mut techniques: Vec<Vec<&Row>> = Vec::new();
    for row in rows.iter().filter(shown) {
        match techniques.iter_mut().find(|series| series[0].technique == row.technique) {
            Some(series) => series.push(row),
            None => techniques.push(vec![row]),
        }
    }
    for series in techniques {
        let points: Vec<_> = series.iter().map(|row| (left(row.sparsity), row.accuracy, row.accuracy_sd)).collect();
        panel.series(&series[0].technique, &points);
    }
    panel.finish()
}

/// Draws a scan: which layer hurts, pruned alone and not trained again.
pub(crate) fn accuracy_against_sparsity_of_each_layer(network: &str, scan: &Sensitivity) -> Document {
    let percent = |accuracy: Option<f64>| 100.0 * accuracy.unwrap_or(0.0);
    let subtitle = "The smallest weights of one layer removed at once, the others as they are; no training afterwards.";
    let mut panel = Panel::new(&format!("Which layer hurts: {network}"), subtitle, (0.0, 100.0), (100.0, 0.0))
        .across([0.0, 20.0, 40.0, 60.0, 80.0, 100.0].map(|percent| (percent, percent)), "weights removed (%)")
        .up([0.0, 20.0, 40.0, 60.0, 80.0, 100.0], "test accuracy (%)")
        .level(percent(scan.accuracy), "dense");
    for layer in scan.rows.chunk_by(|a, b| a.name == b.name) {
        let points: Vec<_> = layer.iter().map(|row| (100.0 * row.sparsity, percent(row.accuracy), 0.0)).collect();
        panel.series(&layer[0].name, &points);
    }
    panel.finish()
}
