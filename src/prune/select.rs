//! The least of many, ties by the lower index.

/// Where a ranking is cut. Asked about scores in order, it removes what is below the threshold, and of what equals it
/// the first so many.
pub(super) struct Cut {
    threshold: f64,
    ties: usize,
}

impl Cut {
    /// Removes what scores below the threshold.
    pub(super) fn below(threshold: f64) -> Cut {
        Cut { threshold, ties: 0 }
    }

    /// Removes the least `count` of these scores, none of which is NaN: found by selection, which reorders them.
    pub(super) fn least(scores: &mut [f64], count: usize) -> Cut {
        let count = count.min(scores.len());
        if count == 0 {
            return Cut::below(f64::NEG_INFINITY);
        }
        let (below, threshold, _) = scores.select_nth_unstable_by(count - 1, f64::total_cmp);
        // Total order puts -0 before 0, which equals it.
        let ties = count - below.iter().filter(|score| **score < *threshold).count();
        Cut { threshold: *threshold, ties }
    }

    /// Whether the next one goes.
    pub(super) fn removes(&mut self, score: f64) -> bool {
        let tie = score == self.threshold && self.ties > 0;
        self.ties -= usize::from(tie);
        tie || score < self.threshold
    }
}

/// What goes so that at most `n` stay of every group of `m` columns of a row: what is not alive, then the least.
pub(super) fn remove_least_of_groups(
    scores: &[f64],
    alive: &[bool],
    columns: usize,
    (n, m): (usize, usize),
) -> Vec<bool> {
    let (mut removed, mut living) = (Vec::with_capacity(scores.len()), Vec::with_capacity(m.min(columns)));
    for (scores, alive) in scores.chunks(columns.max(1)).zip(alive.chunks(columns.max(1))) {
        for (scores, alive) in scores.chunks(m).zip(alive.chunks(m)) {
            let each = || scores.iter().zip(alive).map(|(score, alive)| (*score, *alive));
            living.clear();
            living.extend(each().filter(|(_, alive)| *alive).map(|(score, _)| score));
            let count = living.len().saturating_sub(n);
            let mut cut = Cut::least(&mut living, count);
            removed.extend(each().map(|(score, alive)| !alive || cut.removes(score)));
        }
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cut_removes_what_a_stable_sort_puts_first(
            scores in prop::collection::vec(
                prop_oneof![Just(0.0), Just(-0.0), Just(f64::INFINITY), Just(f64::NEG_INFINITY), -2.0..2.0],
                0..40,
            ),
            share in 0.0..=1.0,
        ) {
            let count = (share * scores.len() as f64) as usize;
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|a, b| scores[*a].partial_cmp(&scores[*b]).unwrap());
            let mut cut = Cut::least(&mut scores.clone(), count);
            let removed: Vec<usize> = (0..scores.len()).filter(|i| cut.removes(scores[*i])).collect();
            let mut expected = order[..count].to_vec();
            expected.sort_unstable();
            prop_assert_eq!(removed, expected);
        }
    }
}
