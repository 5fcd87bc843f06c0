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

/// One scheme's row: its name, and the weights quantized by it.
pub(crate) type Quantized = (&'static str, QuantizedTensor);

/// Draws the weights and the levels of each scheme. Where channels or groups have levels of their own, all are drawn, and
/// are the darker the more of them fall together.
pub(crate) fn weights_and_levels(title: &str, weights: ArrayViewD<'_, f32>, schemes: &[Quantized]) -> Document {
    let reach = weights.iter().fold(0f32, |reach, w| reach.max(w.abs()));
    let reach = f64::from(reach) * 1.04;
    let x = Scale { numbers: (-reach, reach), pixels: (LEFT, LEFT + PLOT.0) };
    let bottom = TOP + PLOT.1;
    let end = bottom + 30.0 + ROW * schemes.len() as f64;
    let mut picture = sheet(LEFT + PLOT.0 + 110.0, end + 56.0, title, "Below: the levels that each scheme chose.");
    draw_histogram(&mut picture, &weights, x);
    picture.append(
        text(LEFT + PLOT.0 + 90.0, bottom + 16.0, "SQNR (dB)", 12.0).set("text-anchor", "end").set("fill", GREY),
    );
    for (row, (name, quantized)) in schemes.iter().enumerate() {
        let y = bottom + 30.0 + ROW * row as f64;
        picture.append(text(LEFT - 14.0, y + ROW / 2.0 + 4.0, name, 13.0).set("text-anchor", "end"));
        draw_levels(&mut picture, quantized, (y, colour(name)), x);
        if let Ok(distortion) = quantized.distortion(&weights) {
            let decibels = format!("{:.1}", distortion.sqnr_db);
            let at = (LEFT + PLOT.0 + 90.0, y + ROW / 2.0 + 4.0);
            picture.append(text(at.0, at.1, &decibels, 13.0).set("text-anchor", "end"));
        }
    }
    draw_axis(&mut picture, reach, end, x);
    picture
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

fn draw_levels(picture: &mut Document, quantized: &QuantizedTensor, (y, colour): (f64, &str), x: Scale) {
    picture.append(line((LEFT, y + ROW / 2.0), (LEFT + PLOT.0, y + ROW / 2.0), PALE, 0.6));
    let mut levels: Vec<f32> = quantized.dequantize().into_iter().collect();
    levels.sort_by(f32::total_cmp);
    levels.dedup();
    let one_table = levels.len() <= 1 << quantized.bits();
    let opacity = if one_table { 1.0 } else { 0.12 };
    // Levels within half a pixel are one mark.
    let mut last = f64::NEG_INFINITY;
    for level in levels {
        let at = x.at(f64::from(level));
        if at - last >= 0.5 {
            last = at;
            picture.append(
                line((at, y + 6.0), (at, y + ROW - 6.0), colour, if one_table { 2.5 } else { 1.0 })
                    .set("stroke-opacity", opacity),
            );
        }
    }
}

fn draw_axis(picture: &mut Document, reach: f64, y: f64, x: Scale) {
    picture.append(line((LEFT, y), (LEFT + PLOT.0, y), GREY, 1.0));
    let step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0].into_iter().find(|step| reach / step <= 6.0).unwrap_or(10.0);
    let ticks = (reach / step) as i32;
    for tick in -ticks..=ticks {
        let at = x.at(f64::from(tick) * step);
        picture.append(line((at, y), (at, y + 5.0), GREY, 1.0));
        let number = (f64::from(tick) * step * 1e6).round() / 1e6;
        picture.append(text(at, y + 20.0, &number.to_string(), 12.0).set("text-anchor", "middle"));
    }
    picture.append(text(LEFT + PLOT.0 / 2.0, y + 42.0, "weight", 13.0).set("text-anchor", "middle"));
}
