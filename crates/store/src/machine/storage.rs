//! What makes the applied state durable, so that the log before it can go.

use super::ApplyError;
use crate::{
    checkpoints::{Checkpoints, Damaged},
    error::OpenError,
};
use chronolith_engine::Engine;
use std::sync::Arc;

/// By engine; see the module.
#[derive(Clone, Debug)]
pub(crate) enum Storage {
    /// The engine lives in memory: copies of it on the disk, and the log from the older copy on.
    Checkpoints(Checkpoints),
    /// The engine keeps its own files.
    #[cfg(feature = "rocksdb")]
    Engine,
}

impl Storage {
    /// Makes the state durable that was applied up to `index`, and answers up to where the log may
    /// be purged. After an error the log is kept, and the next attempt writes new files.
    pub(crate) fn checkpoint(
        &self,
        engine: &Arc<dyn Engine>,
        index: u64,
    ) -> Result<u64, ApplyError> {
        match self {
            Self::Checkpoints(checkpoints) => checkpoints.write(&**engine, index),
            #[cfg(feature = "rocksdb")]
            Self::Engine => Ok(engine.flush().map(|()| index)?),
        }
    }

    /// The store runs without these.
    pub(crate) fn set_aside(&self, damaged: &[Damaged]) -> Result<(), OpenError> {
        match self {
            Self::Checkpoints(checkpoints) => checkpoints.set_aside(damaged),
            #[cfg(feature = "rocksdb")]
            Self::Engine => Ok(()),
        }
    }
}
