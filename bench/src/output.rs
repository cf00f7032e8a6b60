//! Where a run's results go: the same options for every suite that writes reports.

use anyhow::Result;
use std::path::{Path, PathBuf};

/// Files to write beside the table on the terminal; flattened into a suite's arguments.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Output {
    /// Also write the results here, as JSON.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Also write the results here, as CSV.
    #[arg(long)]
    pub(crate) csv: Option<PathBuf>,
    /// Also write one HTML page with charts here; it needs nothing else.
    #[arg(long)]
    pub(crate) html: Option<PathBuf>,
}

impl Output {
    /// Writes the files that were asked for, each by its writer.
    ///
    /// # Errors
    /// If one of them cannot be written.
    pub(crate) fn write(
        &self,
        json: impl FnOnce(&Path) -> Result<()>,
        csv: impl FnOnce(&Path) -> Result<()>,
        html: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        self.json.as_deref().map_or(Ok(()), json)?;
        self.csv.as_deref().map_or(Ok(()), csv)?;
        self.html.as_deref().map_or(Ok(()), html)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_is_written() {
        let output = Output { csv: Some("r.csv".into()), ..Output::default() };
        let unasked = |_: &Path| -> Result<()> { panic!("nobody asked for it") };
        let mut written = None;
        let csv = |path: &Path| {
            written = Some(path.to_owned());
            Ok(())
        };
        output.write(unasked, csv, unasked).unwrap();
        assert_eq!(written, Some("r.csv".into()));
    }
}
