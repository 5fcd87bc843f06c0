//! How a file says where the survivors of a sparse tensor are.

use crate::{
    error::Result,
    tensor::{Codes, Mask, SparseLayout, block_firsts, elements, groups, matrix, place_bits},
};

/// The stored places.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Places {
    /// Bits, the first element's lowest.
    Bits(Vec<u8>),
    /// Columns (of elements or blocks), and where each row of them starts.
    Rows { starts: Vec<u32>, columns: Columns },
    /// Places within groups.
    Groups(Codes),
}

/// Column numbers, as wide as they need be.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Columns {
    Narrow(Vec<u16>),
    Wide(Vec<u32>),
}

impl Columns {
    fn new(count: usize, columns: Vec<u32>) -> Columns {
        match count <= 1 << 16 {
            true => Columns::Narrow(columns.into_iter().map(|column| column as u16).collect()),
            false => Columns::Wide(columns),
        }
    }

    fn to_vec(&self) -> Vec<u32> {
        match self {
            Columns::Narrow(columns) => columns.iter().map(|column| u32::from(*column)).collect(),
            Columns::Wide(columns) => columns.clone(),
        }
    }
}

/// The places of a mask that fits.
pub(super) fn places(layout: SparseLayout, mask: &Mask) -> Result<Places> {
    let (height, width) = matrix(mask.shape());
    Ok(match layout {
        SparseLayout::Bitmask => Places::Bits(mask.to_bytes()),
        SparseLayout::Csr => rows_of(height, width, mask.positions().map(|i| (i / width, i % width))),
        SparseLayout::NOfM { m, .. } => {
            let place = |i: usize| (i % width % m) as u8;
            Places::Groups(Codes::pack(place_bits(m), &mask.positions().map(place).collect::<Vec<_>>())?)
        }
        SparseLayout::Block { rows, columns } => {
            let blocks = block_firsts((height, width), (rows, columns));
            let kept = blocks.filter(|(_, _, first)| mask.is_kept(*first)).map(|(row, column, _)| (row, column));
            rows_of(height.div_ceil(rows), width.div_ceil(columns), kept)
        }
    })
}

/// The mask of stored places, which may come from a file that lies.
pub(super) fn mask(layout: SparseLayout, shape: &[usize], places: &Places) -> Result<Mask, String> {
    let (height, width) = matrix(shape);
    let len = elements(shape);
    let mut words = vec![0u64; len.div_ceil(64)];
    let mut keep = |i: usize| words[i / 64] |= 1 << (i % 64);
    match (layout, places) {
        (SparseLayout::Bitmask, Places::Bits(bytes)) => {
            if bytes.len() != len.div_ceil(8) {
                return Err(format!("its mask has {} bytes for {len} elements", bytes.len()));
            }
            (0..len).filter(|i| bytes[i / 8] >> (i % 8) & 1 != 0).for_each(keep);
        }
        (SparseLayout::Csr, Places::Rows { starts, columns }) => {
            for (row, column) in checked_rows((height, width), starts, &columns.to_vec())? {
                keep(row * width + column);
            }
        }
        (SparseLayout::Block { rows, columns: across }, Places::Rows { starts, columns }) if rows > 0 && across > 0 => {
            let (tall, wide) = (height.div_ceil(rows), width.div_ceil(across));
            for (block_row, block_column) in checked_rows((tall, wide), starts, &columns.to_vec())? {
                for row in block_row * rows..height.min((block_row + 1) * rows) {
                    let start = row * width;
                    let end = width.min((block_column + 1) * across);
                    (block_column * across..end).for_each(|column| keep(start + column));
                }
            }
        }
        (SparseLayout::NOfM { n, m }, Places::Groups(codes))
            if (1..=256).contains(&m) && codes.bits() == place_bits(m) =>
        {
            let mut places = codes.to_vec().into_iter().map(usize::from);
            for start in groups(height, width, m) {
                let size = m.min(width - start % width.max(1));
                let mut last = None;
                for _ in 0..n.min(size) {
                    let place = places.next().ok_or("it has fewer places than its groups keep")?;
                    if place >= size || last.is_some_and(|last| place <= last) {
                        return Err(format!("the places of the group at {start} are not ascending within {size}"));
                    }
                    keep(start + place);
                    last = Some(place);
                }
            }
            if places.next().is_some() {
                return Err("it has more places than its groups keep".into());
            }
        }
        _ => return Err(format!("its places are not those of {layout}")),
    }
    Ok(Mask::from_words(shape, words))
}

/// Row starts and columns of ascending places.
fn rows_of(height: usize, width: usize, places: impl Iterator<Item = (usize, usize)>) -> Places {
    let mut starts = vec![0u32; height + 1];
    let mut columns = Vec::new();
    for (row, column) in places {
        starts[row + 1] += 1;
        columns.push(column as u32);
    }
    for row in 0..height {
        starts[row + 1] += starts[row];
    }
    Places::Rows { starts, columns: Columns::new(width, columns) }
}

/// (row, column) of each place, checked.
fn checked_rows(
    (height, width): (usize, usize),
    starts: &[u32],
    columns: &[u32],
) -> Result<Vec<(usize, usize)>, String> {
    let sound = starts.len() == height + 1
        && starts.first() == Some(&0)
        && starts.windows(2).all(|pair| pair[0] <= pair[1])
        && starts.last().is_some_and(|last| *last as usize == columns.len());
    if !sound {
        return Err(format!("its row starts are not {} ascending numbers up to {}", height + 1, columns.len()));
    }
    let mut places = Vec::with_capacity(columns.len());
    for (row, pair) in starts.windows(2).enumerate() {
        let columns = &columns[pair[0] as usize..pair[1] as usize];
        if columns.windows(2).any(|pair| pair[0] >= pair[1]) || columns.iter().any(|column| *column as usize >= width) {
            return Err(format!("the columns of row {row} are not ascending below {width}"));
        }
        places.extend(columns.iter().map(|column| (row, *column as usize)));
    }
    Ok(places)
}
