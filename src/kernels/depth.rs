//! The reduction dimension: `k` inputs, cut into groups that share a scale, cut into quads that the kernels take whole.

use std::ops::Range;

use crate::error::{Error, Result};

/// Where the inputs of each group lie in packed rows and panels.
///
/// A group has `group_size` inputs, the last one what remains; each starts a new quad, and what its last quad lacks is
/// filled with zero activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Depth {
    k: usize,
    group_size: usize,
    // Kept, since divisions take long where a tile is short.
    groups: usize,
    quads: usize,
}

impl Depth {
    /// The largest `k`: sums of codes along it fit an `i32`, and everything else an `i64`.
    pub(crate) const MAX: usize = 1 << 23;

    /// A `group_size` of `k` or more makes one group.
    ///
    /// # Errors
    /// [`Error::GroupSize`] for groups of nothing, [`Error::Setting`] if `k` is above [`Depth::MAX`].
    pub(crate) fn new(k: usize, group_size: usize) -> Result<Depth> {
        if group_size == 0 {
            return Err(Error::GroupSize { group_size });
        }
        if k > Depth::MAX {
            return Err(Error::Setting { setting: "k", value: k as f64, bound: "at most 8388608 (2^23) inputs" });
        }
        let group_size = group_size.min(k.max(1));
        let quads = k / group_size * group_size.div_ceil(4) + (k % group_size).div_ceil(4);
        Ok(Depth { k, group_size, groups: k.div_ceil(group_size), quads })
    }

    /// The number of inputs.
    pub(crate) fn k(self) -> usize {
        self.k
    }

    /// The number of inputs in the longest group.
    pub(super) fn group_size(self) -> usize {
        self.group_size
    }

    /// The number of groups.
    pub(crate) fn groups(self) -> usize {
        self.groups
    }

    /// The number of quads.
    pub(super) fn quads(self) -> usize {
        self.quads
    }

    /// The inputs of a group, and the quads that hold them.
    #[inline(always)]
    pub(super) fn group(self, group: usize) -> (Range<usize>, Range<usize>) {
        let inputs = group * self.group_size..((group + 1) * self.group_size).min(self.k);
        let first = group * self.group_size.div_ceil(4);
        let quads = first..first + inputs.len().div_ceil(4);
        (inputs, quads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_quads_cover_every_input_once_in_order() {
        for k in 0..40 {
            for group_size in 1..45 {
                let depth = Depth::new(k, group_size).unwrap();
                let (mut input, mut quad) = (0, 0);
                for group in 0..depth.groups() {
                    let (inputs, quads) = depth.group(group);
                    assert_eq!((inputs.start, quads.start), (input, quad));
                    assert!(inputs.len() <= 4 * quads.len() && 4 * quads.len() < inputs.len() + 4);
                    (input, quad) = (inputs.end, quads.end);
                }
                assert_eq!((input, quad), (k, depth.quads()), "k = {k}, group_size = {group_size}");
            }
        }
    }

    #[test]
    fn impossible_depths_are_errors() {
        assert!(matches!(Depth::new(5, 0), Err(Error::GroupSize { group_size: 0 })));
        assert!(matches!(Depth::new(Depth::MAX + 1, 32), Err(Error::Setting { setting: "k", .. })));
        assert_eq!(Depth::new(Depth::MAX, usize::MAX).unwrap().groups(), 1);
    }
}
