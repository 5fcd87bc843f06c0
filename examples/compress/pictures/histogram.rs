//! The weights of a layer as a histogram, and below it the levels that schemes chose for them.

use ndarray::ArrayViewD;
use svg::{Document, Node};
use tersor::QuantizedTensor;

use super::{GREY, PALE, Scale, colour, line, rectangle, sheet, text};

const PLOT: (f64, f64) = (700.0, 240.0);
const LEFT: f64 = 190.0;
const TOP: f64 = 84.0;
const ROW: f64 = 30.0;
const BINS: usize = 140;
/// Right ends of the columns of numbers.
const COLUMNS: [f64; 2] = [LEFT + PLOT.0 + 110.0, LEFT + PLOT.0 + 190.0];
/// Width of a level's mark.
const MARK: f64 = 2.5;

/// One scheme's row: its name, and the weights quantized by it.
pub(crate) type Quantized = (&'static str, QuantizedTensor);

/// Draws the weights and the levels of each scheme, with what they cost and how close they come.
pub(crate) fn weights_and_levels(layer: &str, weights: ArrayViewD<'_, f32>, schemes: &[Quantized]) -> Document {
    let bits = schemes.first().map_or(0, |(_, quantized)| quantized.bits());
    let title =
        format!("The {} weights of {layer}, and the levels that schemes chose for them at {bits} bits", weights.len());
    let levels: Vec<_> = schemes.iter().map(|(_, quantized)| levels(quantized)).collect();
    let reach = weights.iter().chain(levels.iter().flatten()).fold(0f32, |reach, w| reach.max(w.abs()));
    let reach = f64::from(reach) * 1.03;
    let x = Scale { numbers: (-reach, reach), pixels: (LEFT, LEFT + PLOT.0) };
    let rows = TOP + PLOT.1 + 34.0;
    let end = rows + ROW * schemes.len() as f64;
    let subtitle =
        "Where channels or groups have levels of their own, a mark is the darker the more of them fall on it.";
    let mut picture = sheet(COLUMNS[1] + 24.0, end + 58.0, &title, subtitle);
    draw_histogram(&mut picture, &weights, x);
    for (column, title) in COLUMNS.into_iter().zip(["bits per weight", "SQNR (dB)"]) {
        picture.append(text(column, rows - 14.0, title, 12.0).set("text-anchor", "end").set("fill", GREY));
    }
    for (row, ((name, quantized), levels)) in schemes.iter().zip(&levels).enumerate() {
        let middle = rows + ROW * (row as f64 + 0.5);
        picture.append(text(LEFT - 14.0, middle + 4.0, name, 13.0).set("text-anchor", "end"));
        draw_levels(&mut picture, levels, middle, colour(name), x);
        let sqnr = quantized.distortion(&weights).map_or(f64::NAN, |distortion| distortion.sqnr_db);
        for (column, number) in COLUMNS.into_iter().zip([quantized.bits_per_weight(), sqnr]) {
            picture.append(text(column, middle + 4.0, &format!("{number:.2}"), 13.0).set("text-anchor", "end"));
        }
    }
    draw_axis(&mut picture, reach, end, x);
    picture
}

/// The levels that weights lie on, in order.
fn levels(quantized: &QuantizedTensor) -> Vec<f32> {
    let mut levels: Vec<f32> = quantized.dequantize().into_iter().collect();
    levels.sort_by(f32::total_cmp);
    levels.dedup();
    levels
}

fn draw_histogram(picture: &mut Document, weights: &ArrayViewD<'_, f32>, x: Scale) {
    let mut counts = vec![0u32; BINS];
    for w in weights {
        let bin = (x.at(f64::from(*w)) - LEFT) / PLOT.0 * BINS as f64;
        counts[(bin as usize).min(BINS - 1)] += 1;
    }
    let tallest = counts.iter().copied().max().unwrap_or(1);
    let y = Scale { numbers: (0.0, f64::from(tallest + 1).ln()), pixels: (TOP + PLOT.1, TOP + 8.0) };
    let height = |count: f64| y.at((count + 1.0).ln());
    for count in [1.0, 10.0, 100.0, 1000.0, 10_000.0, 100_000.0] {
        if count > f64::from(tallest) {
            break;
        }
        let at = height(count);
        picture.append(line((LEFT, at), (LEFT + PLOT.0, at), PALE, 0.6));
        picture.append(text(LEFT - 8.0, at + 4.0, &count.to_string(), 12.0).set("text-anchor", "end"));
    }
    for (bin, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let (width, top) = (PLOT.0 / BINS as f64, height(f64::from(*count)));
        picture.append(rectangle(LEFT + width * bin as f64, top, width - 1.0, TOP + PLOT.1 - top, "#8c9aa8"));
    }
    let middle = TOP + PLOT.1 / 2.0;
    picture.append(
        text(LEFT - 62.0, middle, "weights in a bin, logarithmic", 13.0)
            .set("text-anchor", "middle")
            .set("transform", format!("rotate(-90 {} {middle})", LEFT - 62.0)),
    );
}

fn draw_levels(picture: &mut Document, levels: &[f32], middle: f64, colour: &str, x: Scale) {
    picture.append(line((LEFT, middle), (LEFT + PLOT.0, middle), PALE, 0.6));
    // (place in units of the mark's width, levels there)
    let mut marks: Vec<(i32, u32)> = Vec::new();
    for place in levels.iter().map(|level| (x.at(f64::from(*level)) / MARK).round() as i32) {
        match marks.last_mut() {
            Some((last, count)) if *last == place => *count += 1,
            _ => marks.push((place, 1)),
        }
    }
    let most = marks.iter().map(|(_, count)| *count).max().unwrap_or(1);
    for (place, count) in marks {
        let opacity = 0.15 + 0.85 * f64::from(count) / f64::from(most);
        let at = f64::from(place) * MARK;
        let mark = line((at, middle - 9.0), (at, middle + 9.0), colour, MARK);
        picture.append(mark.set("stroke-opacity", (opacity * 100.0).round() / 100.0));
    }
}

fn draw_axis(picture: &mut Document, reach: f64, y: f64, x: Scale) {
    picture.append(line((LEFT, y), (LEFT + PLOT.0, y), GREY, 1.0));
    let step =
        [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0].into_iter().find(|step| reach / step <= 6.0).unwrap_or(10.0);
    let ticks = (reach / step) as i32;
    for tick in -ticks..=ticks {
        let at = x.at(f64::from(tick) * step);
        picture.append(line((at, y), (at, y + 5.0), GREY, 1.0));
        let number = (f64::from(tick) * step * 1e6).round() / 1e6;
        picture.append(text(at, y + 20.0, &number.to_string(), 12.0).set("text-anchor", "middle"));
    }
    picture.append(text(LEFT + PLOT.0 / 2.0, y + 42.0, "weight", 13.0).set("text-anchor", "middle"));
}
