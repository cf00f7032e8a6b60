//! A place to let file operations fail: how a failing disk is tested without one.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What is about to be done to a file or a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileStep {
    /// Create a file.
    Create,
    /// Write behind its end.
    Write,
    /// Wait until its content, or a directory's entries, are on stable storage.
    Sync,
    /// Give it its final name.
    Rename,
    /// Remove it.
    Remove,
}

type Hook = dyn Fn(FileStep, &Path) -> io::Result<()> + Send + Sync;

/// Asked before each step; an error is taken for the system's answer, and the step is not done. None by
/// default.
#[derive(Clone, Default)]
pub struct Faults(Option<Arc<Hook>>);

impl Faults {
    /// Asks `hook` before each step.
    #[must_use]
    pub fn new(hook: impl Fn(FileStep, &Path) -> io::Result<()> + Send + Sync + 'static) -> Faults {
        Faults(Some(Arc::new(hook)))
    }

    pub(super) fn before(&self, step: FileStep, path: &Path) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |hook| hook(step, path))
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Faults(a hook)" } else { "Faults(none)" })
    }
}
