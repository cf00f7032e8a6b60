//! Ordered bytes: the storey that everything else stands on. (Lecture to be completed by the backends' author.)

mod batch;
mod engine;
mod error;

pub use batch::{Operation, WriteBatch};
pub use engine::{ColumnId, Cursor, Durability, Engine, KeyRange, Snapshot};
pub use error::{Error, Result};
