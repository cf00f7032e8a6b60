//! Whether an engine still serves: open, closed, or poisoned by its first failed write.
//!
//! Once shut a gate never opens again, and the first cause stays. A check is one atomic load.

use crate::{Error, Result};
use std::sync::{
    OnceLock,
    atomic::{AtomicU8, Ordering},
};

const OPEN: u8 = 0;
const CLOSED: u8 = 1;
#[allow(dead_code)]
const POISONED: u8 = 2;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: AtomicU8,
    cause: OnceLock<String>,
}

impl Gate {
    /// Passes while the engine serves reads and writes.
    pub(crate) fn check(&self) -> Result<()> {
        match self.state.load(Ordering::Acquire) {
            OPEN => Ok(()),
            CLOSED => Err(Error::Closed),
            _ => Err(self.poisoned()),
        }
    }

    /// Shuts for good; a poisoned gate stays poisoned.
    pub(crate) fn close(&self) {
        let _ = self.state.compare_exchange(OPEN, CLOSED, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Shuts for good because of `cause`; gives `cause` back so that its caller hears it untranslated.
    #[allow(dead_code)]
    pub(crate) fn poison(&self, cause: Error) -> Error {
        if self.cause.set(cause.to_string()).is_ok() {
            self.state.store(POISONED, Ordering::Release);
        }
        cause
    }

    fn poisoned(&self) -> Error {
        Error::Poisoned { cause: self.cause.get().cloned().unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_stays() {
        let gate = Gate::default();
        assert!(gate.check().is_ok());
        gate.poison(Error::Backend("disk full".into()));
        gate.poison(Error::Backend("something later".into()));
        gate.close();
        let text = gate.check().unwrap_err().to_string();
        assert!(text.contains("disk full"), "{text}");
    }

    #[test]
    fn a_closed_gate_says_so() {
        let gate = Gate::default();
        gate.close();
        assert!(matches!(gate.check(), Err(Error::Closed)));
    }
}
