//! A child node: this binary's own `serve`, in a temporary directory on a free port.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

/// A node that has not opened its port by then will not.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const START_POLL: Duration = Duration::from_millis(20);
/// Unit of the CPU times in /proc: USER_HZ, 100 on every Linux port in use.
const TICKS_PER_SECOND: f64 = 100.0;

/// Killed when dropped; its directory goes with it.
pub(crate) struct Node {
    process: Child,
    endpoint: String,
    engine: String,
    directory: Directory,
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
        let port = free_port()?;
        let endpoint = format!("http://127.0.0.1:{port}");
        let process = serve(engine, &directory.0, &endpoint)?;
        let mut node = Node { process, endpoint, engine: engine.to_owned(), directory };
        node.wait_until_open(port)?;
        Ok(node)
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

    fn wait_until_open(&mut self, port: u16) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = self.process.try_wait()? {
                bail!("the node ended at start ({status}); run `chronolith serve` to see why");
            }
            ensure!(Instant::now() < deadline, "the node did not open port {port}");
            std::thread::sleep(START_POLL);
        }
        Ok(())
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

fn serve(engine: &str, directory: &Path, endpoint: &str) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("find this program's own file")?;
    Command::new(program)
        .args(["serve", "--engine", engine])
        .arg("--data-dir")
        .arg(directory.join("data"))
        .args(["--listen-client-urls", endpoint])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start a node")
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").context("find a free port")?.local_addr()?.port())
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
