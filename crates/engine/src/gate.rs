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
const POISONED: u8 = 2;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: AtomicU8,
    cause: OnceLock<String>,
}

impl Gate {
    /// Passes until the engine is closed: what a poisoned engine holds can still be read.
    pub(crate) fn check_read(&self) -> Result<()> {
        match self.state.load(Ordering::Acquire) {
            CLOSED => Err(Error::Closed),
            _ => Ok(()),
        }
    }

    /// Passes until the engine is closed or poisoned.
    pub(crate) fn check_write(&self) -> Result<()> {
        match self.state.load(Ordering::Acquire) {
            OPEN => Ok(()),
            CLOSED => Err(Error::Closed),
            _ => Err(self.poisoned()),
        }
    }

    /// Shuts for good, for readers as well.
    pub(crate) fn close(&self) {
        self.state.store(CLOSED, Ordering::Release);
    }

    /// Shuts for good because of `cause`; gives `cause` back so that its caller hears it untranslated.
    pub(crate) fn poison(&self, cause: Error) -> Error {
        if self.cause.set(cause.to_string()).is_ok() {
            let _ =
                self.state.compare_exchange(OPEN, POISONED, Ordering::AcqRel, Ordering::Acquire);
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
        assert!(gate.check_write().is_ok());
        gate.poison(Error::Backend("disk full".into()));
        gate.poison(Error::Backend("something later".into()));
        let text = gate.check_write().unwrap_err().to_string();
        assert!(text.contains("disk full"), "{text}");
        assert!(gate.check_read().is_ok());
    }

    #[test]
    fn a_closed_gate_says_so() {
        let gate = Gate::default();
        gate.close();
        gate.poison(Error::Backend("too late".into()));
        assert!(matches!(gate.check_read(), Err(Error::Closed)));
        assert!(matches!(gate.check_write(), Err(Error::Closed)));
    }
}
