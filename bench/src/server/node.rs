//! A child node: this binary's own `serve`, in a temporary directory, on a port that the system chooses.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::Context;

/// What stands before the address in the text that a node prints once it serves.
const ADDRESS_MARK: &str = "http://127.0.0.1:";
/// Unit of the CPU times in /proc: USER_HZ, 100 on every Linux port in use.
const TICKS_PER_SECOND: f64 = 100.0;

/// Killed when dropped; its directory goes with it.
pub(crate) struct Node {
    process: Child,
    endpoint: String,
    engine: String,
    directory: Directory,
    /// Kept open, so that the node can print.
    _output: BufReader<ChildStdout>,
}

/// Removed when dropped.
struct Directory(PathBuf);

impl Node {
    pub(crate) fn spawn(engine: &str) -> anyhow::Result<Node> {
        let path = std::env::temp_dir().join(format!("chronolith-bench-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        Node::start(engine, Directory(path))
    }

    fn start(engine: &str, directory: Directory) -> anyhow::Result<Node> {
        let mut process = serve(engine, &directory.0)?;
        let output = process.stdout.take().context("the node's output is piped")?;
        let mut output = BufReader::new(output);
        let endpoint = announced(&mut output)?;
        let engine = engine.to_owned();
        Ok(Node { process, endpoint, engine, directory, _output: output })
    }

    /// SIGKILL, then a new process on the same directory.
    pub(crate) fn kill_and_restart(mut self) -> anyhow::Result<Node> {
        self.stop();
        let taken = std::mem::replace(&mut self.directory, Directory(PathBuf::new()));
        Node::start(&self.engine, taken)
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    fn stop(&mut self) {
        // Both fail only when the process is gone already, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty()
            && let Err(error) = std::fs::remove_dir_all(&self.0)
        {
            eprintln!("{} stays: {error}", self.0.display());
        }
    }
}

fn serve(engine: &str, directory: &Path) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("find this program's own file")?;
    Command::new(program)
        .args(["serve", "--engine", engine])
        .arg("--data-dir")
        .arg(directory.join("data"))
        .args(["--listen-client-urls", &format!("{ADDRESS_MARK}0")])
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .context("start a node")
}

/// The endpoint that a node prints once it serves.
fn announced(output: &mut impl BufRead) -> anyhow::Result<String> {
    for line in output.lines() {
        let line = line.context("read what the node prints")?;
        if let Some((_, rest)) = line.split_once(ADDRESS_MARK) {
            let port = rest.split(' ').next().unwrap_or_default();
            return Ok(format!("{ADDRESS_MARK}{port}"));
        }
    }
    anyhow::bail!("the node ended at start; what it said stands above")
}

/// User and system time of a process so far; absent when the process is gone.
pub(crate) fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold spaces; user and system ticks are the 12th and 13th field after it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_cpu_and_an_absent_one_has_no_figure() {
        assert!(cpu_seconds(std::process::id()).is_some());
        assert!(cpu_seconds(u32::MAX).is_none());
    }
}
