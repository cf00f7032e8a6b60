//! What frames hold: registrations, removals, points, and the mark that a file is whole.

use std::sync::Arc;

use crate::budget::Budget;
use crate::labels::Labels;
use crate::packed::PackedBlock;
use crate::point::SeriesId;

const REGISTER: u8 = 1;
const REMOVE: u8 = 2;
const POINTS: u8 = 3;
const END: u8 = 4;

/// One entry of a frame.
pub(super) enum Item {
    Register {
        id: SeriesId,
        labels: Option<Arc<Labels>>,
    },
    Remove {
        id: SeriesId,
    },
    Points {
        id: SeriesId,
        block: PackedBlock,
    },
    /// The last entry of a segment or a catalog.
    End,
}

impl Item {
    pub(super) fn write_points(id: SeriesId, block: &PackedBlock, out: &mut Vec<u8>) {
        out.push(POINTS);
        out.extend_from_slice(&id.0.to_le_bytes());
        block.write_to(out);
    }

    pub(super) fn write_to(&self, out: &mut Vec<u8>) {
        match self {
            Item::Register { id, labels } => {
                out.push(REGISTER);
                out.extend_from_slice(&id.0.to_le_bytes());
                let pairs: Vec<_> = labels.iter().flat_map(|labels| labels.iter()).collect();
                out.extend_from_slice(&(pairs.len() as u16).to_le_bytes());
                for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
                    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
                    out.extend_from_slice(text.as_bytes());
                }
            }
            Item::Remove { id } => {
                out.push(REMOVE);
                out.extend_from_slice(&id.0.to_le_bytes());
            }
            Item::Points { id, block } => Item::write_points(*id, block, out),
            Item::End => out.push(END),
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_to(&mut out);
        out
    }

    /// Reads the next item of a frame.
    pub(super) fn read_from(input: &mut &[u8], budget: &Arc<Budget>) -> Result<Item, &'static str> {
        let [tag] = take(input)?;
        match tag {
            REGISTER => {
                let id = SeriesId(u32::from_le_bytes(take(input)?));
                Ok(Item::Register { id, labels: read_labels(input)? })
            }
            REMOVE => Ok(Item::Remove { id: SeriesId(u32::from_le_bytes(take(input)?)) }),
            POINTS => {
                let id = SeriesId(u32::from_le_bytes(take(input)?));
                Ok(Item::Points { id, block: PackedBlock::read_from(input, budget)? })
            }
            END => Ok(Item::End),
            _ => Err("an entry of an unknown kind"),
        }
    }
}

fn read_labels(input: &mut &[u8]) -> Result<Option<Arc<Labels>>, &'static str> {
    let count = u16::from_le_bytes(take(input)?);
    let mut pairs = Vec::new();
    for _ in 0..count {
        pairs.push((read_text(input)?, read_text(input)?));
    }
    if pairs.is_empty() {
        return Ok(None);
    }
    Labels::new(pairs).map(|labels| Some(Arc::new(labels))).map_err(|_| "labels break their limits")
}

fn read_text(input: &mut &[u8]) -> Result<String, &'static str> {
    let length = usize::from(u16::from_le_bytes(take(input)?));
    let (text, rest) = input.split_at_checked(length).ok_or("an entry is cut short")?;
    *input = rest;
    String::from_utf8(text.to_vec()).map_err(|_| "a label is not UTF-8")
}

fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], &'static str> {
    let (head, rest) = input.split_first_chunk::<N>().ok_or("an entry is cut short")?;
    *input = rest;
    Ok(*head)
}
