//! The clipping threshold that loses the least information.

use super::{CodeRange, range::Sample};

/// Fewer numbers than this are no population to estimate a distribution from.
pub(super) const POPULATION: f64 = 1024.0;
const BINS: usize = 2048;

/// The magnitude at which to clip (Migacz 2017): among thresholds on the histogram of magnitudes, the one with the least
/// divergence KL(P || Q), where P is the histogram up to the threshold, the mass beyond added to its last bin, and Q the
/// same bins merged into as many as the grid has levels on a side and spread again over P's occupied bins.
pub(super) fn threshold(sample: &Sample<'_>, codes: CodeRange) -> f32 {
    let (min, max) = (sample.min, sample.max);
    let largest = min.abs().max(max.abs());
    if largest == 0.0 {
        return largest;
    }
    let mut histogram = vec![0f64; BINS];
    for (i, x) in sample.values.iter().enumerate() {
        let bin = (f64::from(x.abs()) / f64::from(largest) * BINS as f64) as usize;
        histogram[bin.min(BINS - 1)] += sample.importance(i);
    }
    // Zeros matter as the others do on average. Without them a clip to the least of the others would lose nothing.
    if sample.zeros > 0 {
        histogram[0] += sample.zeros as f64 * histogram.iter().sum::<f64>() / sample.values.len() as f64;
    }
    let codes_in_all = (codes.highest() - codes.lowest() + 1) as usize;
    let one_sided = min >= 0.0 || max <= 0.0;
    let levels = (if one_sided && codes.lowest() == 0 { codes_in_all } else { codes_in_all / 2 }).max(2);
    if levels >= BINS {
        return largest;
    }
    let candidates = (levels..=BINS).step_by(((BINS - levels) / 256).max(1)).chain([BINS]);
    let (bins, _) = candidates.fold((BINS, f64::INFINITY), |best, bins| {
        let divergence = divergence(&histogram, bins, levels);
        if divergence < best.1 { (bins, divergence) } else { best }
    });
    (f64::from(largest) * bins as f64 / BINS as f64) as f32
}

/// KL(P || Q) of the first `bins` bins on `levels` levels, in nats.
fn divergence(histogram: &[f64], bins: usize, levels: usize) -> f64 {
    let (inside, outside) = histogram.split_at(bins);
    let clipped: f64 = outside.iter().sum();
    let total: f64 = histogram.iter().sum();
    let mass = |bin: usize| inside[bin] + if bin == bins - 1 { clipped } else { 0.0 };
    let kept: f64 = total - clipped;
    let mut divergence = 0.0;
    for level in 0..levels {
        let merged = level * bins / levels..(level + 1) * bins / levels;
        // Q knows nothing of the mass that was clipped away.
        let sum: f64 = inside[merged.clone()].iter().sum();
        let occupied = merged.clone().filter(|bin| mass(*bin) > 0.0).count().max(1) as f64;
        for bin in merged.filter(|bin| mass(*bin) > 0.0) {
            let p = mass(bin) / total;
            // Where Q has nothing and P has, a small mass stands in for the infinite divergence.
            let q = (sum / occupied / kept.max(f64::MIN_POSITIVE)).max(1e-9);
            divergence += p * (p / q).ln();
        }
    }
    divergence
}
