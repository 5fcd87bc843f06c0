//! What is removed as a whole.

use std::fmt;

use ndarray::Axis;

use crate::{
    error::{Error, Result},
    tensor::matrix,
};

/// What a pruner removes whole: single elements, rows along an axis, blocks, or some of every few neighbours.
///
/// For blocks and `N:M`, a tensor is a matrix: its first axis counts rows, all others together are the columns, as a
/// product sums over them; a vector is one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pattern {
    /// Each element for itself.
    #[default]
    Element,
    /// All elements of one index along an axis: output channels (0), input channels (1).
    Structured(Axis),
    /// Blocks of `rows` by `columns`, cut short at the matrix's end.
    Block {
        /// Rows of a block.
        rows: usize,
        /// Columns of a block.
        columns: usize,
    },
    /// Of every `m` consecutive columns of a row, the `n` best stay. Of the last `t < m` columns `min(n, t)` stay, as if
    /// zeros followed.
    NOfM {
        /// Columns that stay.
        n: usize,
        /// Columns of a group.
        m: usize,
    },
}

/// Which elements go together: a partition of a tensor's elements, in row-major order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Units {
    shape: Vec<usize>,
    len: usize,
    count: usize,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Element,
    /// Runs of `run` elements belong to index 0, 1, .. `count - 1`, and again 0.
    Axis {
        axis: usize,
        run: usize,
    },
    Block {
        rows: usize,
        columns: usize,
        width: usize,
    },
}

impl Pattern {
    /// Checks the pattern's own numbers.
    pub(crate) fn validate(self) -> Result<()> {
        let positive = |setting, value: usize| match value {
            0 => Err(Error::Setting { setting, value: 0.0, bound: "at least 1" }),
            _ => Ok(()),
        };
        match self {
            Pattern::Element | Pattern::Structured(_) => Ok(()),
            Pattern::Block { rows, columns } => {
                positive("rows of a block", rows)?;
                positive("columns of a block", columns)
            }
            Pattern::NOfM { n, m } => {
                positive("m of n_of_m", m)?;
                if n > m {
                    return Err(Error::Setting { setting: "n of n_of_m", value: n as f64, bound: "at most m" });
                }
                Ok(())
            }
        }
    }

    /// The units of a tensor; single elements for `N:M`, which chooses among them group by group.
    pub(crate) fn units(self, shape: &[usize]) -> Result<Units> {
        self.validate()?;
        let len = shape.iter().product();
        let (count, kind) = match self {
            Pattern::Element | Pattern::NOfM { .. } => (len, Kind::Element),
            Pattern::Structured(Axis(axis)) => {
                let Some(&count) = shape.get(axis) else { return Err(Error::Axis { axis, rank: shape.len() }) };
                (count, Kind::Axis { axis, run: shape[axis + 1..].iter().product() })
            }
            Pattern::Block { rows, columns } => {
                let (height, width) = matrix(shape);
                (height.div_ceil(rows) * width.div_ceil(columns), Kind::Block { rows, columns, width })
            }
        };
        Ok(Units { shape: shape.to_vec(), len, count, kind })
    }
}

impl Units {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The shape of the tensor.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements of all.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The axis that the units are indices of, if they are.
    pub fn axis(&self) -> Option<Axis> {
        if let Kind::Axis { axis, .. } = self.kind { Some(Axis(axis)) } else { None }
    }

    /// The unit of an element, counted row-major.
    pub fn unit_of(&self, element: usize) -> usize {
        match self.kind {
            Kind::Element => element,
            Kind::Axis { run, .. } => element / run.max(1) % self.count.max(1),
            Kind::Block { rows, columns, width } => {
                let (row, column) = (element / width.max(1), element % width.max(1));
                row / rows * width.div_ceil(columns) + column / columns
            }
        }
    }

    /// Folds the elements of each unit: `f(state of the unit, element)` for every element in order.
    pub fn fold<T: Clone>(&self, initial: T, mut f: impl FnMut(&mut T, usize)) -> Vec<T> {
        let mut states = vec![initial; self.count];
        (0..self.len).for_each(|element| f(&mut states[self.unit_of(element)], element));
        states
    }

    /// The mean over each unit of one number an element.
    pub fn mean(&self, values: impl Fn(usize) -> f64) -> Vec<f64> {
        if self.kind == Kind::Element {
            return (0..self.len).map(values).collect();
        }
        let sums = self.fold((0.0, 0usize), |(sum, members), element| {
            *sum += values(element);
            *members += 1;
        });
        sums.into_iter().map(|(sum, members)| sum / members.max(1) as f64).collect()
    }
}

/// In words: the builder call that sets it.
pub(crate) fn write_pattern(pattern: Pattern, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match pattern {
        Pattern::Element => Ok(()),
        Pattern::Structured(Axis(axis)) => write!(f, ".structured(Axis({axis}))"),
        Pattern::Block { rows, columns } => write!(f, ".block({rows}, {columns})"),
        Pattern::NOfM { n, m } => write!(f, ".n_of_m({n}, {m})"),
    }
}
