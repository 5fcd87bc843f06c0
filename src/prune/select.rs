//! The least of many, ties by the lower index.

/// The indices in ascending order of their scores, none of which is NaN.
pub(super) fn ascending(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    order
}

/// Which go so that `count` are gone: all that are not alive, then the least, of equal ones the lower index first.
pub(super) fn remove_least(scores: &[f64], alive: &[bool], count: usize) -> Vec<bool> {
    let count = count.min(scores.len());
    let dead = alive.iter().filter(|alive| !**alive).count();
    let living = count.saturating_sub(dead);
    if living == 0 {
        return alive.iter().map(|alive| !alive).collect();
    }
    // The threshold is found without a sort; what ties with it goes from the front until enough are gone.
    let mut candidates: Vec<f64> = scores.iter().zip(alive).filter(|(_, alive)| **alive).map(|(s, _)| *s).collect();
    let (below, threshold, _) = candidates.select_nth_unstable_by(living - 1, f64::total_cmp);
    let threshold = *threshold;
    let mut ties = living - below.iter().filter(|score| **score < threshold).count();
    let goes = |(score, alive): (&f64, &bool)| {
        if !alive || *score < threshold {
            return true;
        }
        let tie = *score == threshold && ties > 0;
        ties -= usize::from(tie);
        tie
    };
    scores.iter().zip(alive).map(goes).collect()
}

/// As [`remove_least`] in every group of `m` columns of a row, so that at most `n` stay.
pub(super) fn remove_least_of_groups(
    scores: &[f64],
    alive: &[bool],
    columns: usize,
    (n, m): (usize, usize),
) -> Vec<bool> {
    let mut removed = Vec::with_capacity(scores.len());
    for (scores, alive) in scores.chunks(columns.max(1)).zip(alive.chunks(columns.max(1))) {
        for (scores, alive) in scores.chunks(m).zip(alive.chunks(m)) {
            let dead = alive.iter().filter(|alive| !**alive).count();
            removed.extend(remove_least(scores, alive, scores.len().saturating_sub(n).max(dead)));
        }
    }
    removed
}
