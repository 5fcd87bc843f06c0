//! The least of many, ties by the lower index.

/// Which `count` go: first those that are not alive, then the least, of equal ones the lower index first.
pub(super) fn remove_least(scores: &[f64], alive: &[bool], count: usize) -> Vec<bool> {
    let count = count.min(scores.len());
    if count == 0 {
        return vec![false; scores.len()];
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let rank = |a: &usize, b: &usize| {
        (alive[*a], scores[*a]).partial_cmp(&(alive[*b], scores[*b])).expect("no NaN").then(a.cmp(b))
    };
    order.select_nth_unstable_by(count - 1, rank);
    let mut removed = vec![false; scores.len()];
    order[..count].iter().for_each(|index| removed[*index] = true);
    removed
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
