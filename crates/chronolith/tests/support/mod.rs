//! What the end-to-end tests share: a node as a child process, and clients for it.
#![allow(dead_code, clippy::unwrap_used)] // Each test binary uses a part of it, and may panic.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

/// Generous, because test machines are shared; nothing waits this long when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// The engines that this build has.
pub(crate) const ENGINES: &[&str] =
    if cfg!(feature = "rocksdb") { &["memory", "rocksdb"] } else { &["memory"] };

/// A node in a directory of its own. Killed when dropped.
pub(crate) struct Node {
    pub(crate) directory: TempDir,
    /// Where `data` is: the directory, unless a test chose another place.
    place: PathBuf,
    pub(crate) port: u16,
    program: Program,
    extra: Vec<String>,
    process: Child,
}

/// What answers: our node, or a real etcd to check the tests themselves against.
#[derive(Clone, Copy)]
pub(crate) enum Program {
    Chronolith { engine: &'static str },
    Etcd,
}

impl Program {
    fn command(self, directory: &Path, port: u16) -> Command {
        let url = format!("http://127.0.0.1:{port}");
        let data = directory.join("data");
        let mut command = match self {
            Program::Chronolith { engine } => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_chronolith"));
                command.args(["serve", "--engine", engine]);
                command
            }
            Program::Etcd => {
                let mut command = Command::new("etcd");
                let peer = format!("http://127.0.0.1:{}", free_port());
                command.args(["--listen-peer-urls", &peer]);
                command.args(["--initial-advertise-peer-urls", &peer]);
                command.arg("--initial-cluster").arg(format!("default={peer}"));
                command.args(["--advertise-client-urls", &url]);
                command
            }
        };
        command.arg("--data-dir").arg(data);
        command.args(["--listen-client-urls", &url]);
        command
    }
}

impl Node {
    pub(crate) fn start(program: Program) -> Node {
        Node::start_with(program, &[])
    }

    pub(crate) fn start_with(program: Program, extra: &[&str]) -> Node {
        let directory = TempDir::new().unwrap();
        let place = directory.path().to_owned();
        Node::launch(program, directory, place, extra)
    }

    /// A node whose data is somewhere else than in a directory of its own.
    pub(crate) fn start_in(program: Program, place: &Path, extra: &[&str]) -> Node {
        Node::launch(program, TempDir::new().unwrap(), place.to_owned(), extra)
    }

    fn launch(program: Program, directory: TempDir, place: PathBuf, extra: &[&str]) -> Node {
        let extra: Vec<String> = extra.iter().map(|&arg| arg.to_owned()).collect();
        let (process, port) = spawn(program, &place, directory.path(), &extra);
        Node { directory, place, port, program, extra, process }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A channel that connects when it is used first.
    pub(crate) fn channel(&self) -> Channel {
        Endpoint::from_shared(self.endpoint()).unwrap().tcp_nodelay(true).connect_lazy()
    }

    /// SIGKILL: the process gets no chance to do anything.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.process.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Waits for the process to end by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the node does not end");
            std::thread::sleep(POLL);
        }
    }

    /// A new process on the same directory, and on another port: the old one may be anyone's by now.
    pub(crate) fn restart(&mut self) {
        let output = self.directory.path();
        (self.process, self.port) = spawn(self.program, &self.place, output, &self.extra);
    }

    /// What the node has written to standard output and standard error since it was made.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("output")).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail only when the process is gone already, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- the node said:\n{}", self.output());
        }
    }
}

/// A process and the port that it serves.
fn spawn(program: Program, place: &Path, directory: &Path, extra: &[String]) -> (Child, u16) {
    let path = directory.join("output");
    let output = std::fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
    let before = output.metadata().unwrap().len() as usize;
    let port = if matches!(program, Program::Etcd) { free_port() } else { 0 };
    let mut process = program
        .command(place, port)
        .args(extra)
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let said = std::fs::read_to_string(&path).unwrap();
        if let Some(port) = open_port(program, port, &said[before..]) {
            return (process, port);
        }
        let ended = process.try_wait().unwrap();
        assert!(ended.is_none(), "the node ended at start: {ended:?}\n{said}");
        assert!(Instant::now() < deadline, "the node does not start\n{said}");
        std::thread::sleep(POLL);
    }
}

/// The port that a node serves, once it does: ours says it at the end of its start.
fn open_port(program: Program, asked: u16, said: &str) -> Option<u16> {
    if matches!(program, Program::Etcd) {
        return TcpStream::connect(("127.0.0.1", asked)).is_ok().then_some(asked);
    }
    let address = said.lines().find_map(|line| line.split_once("clients  http://127.0.0.1:"))?.1;
    address.split_once(' ')?.0.parse().ok()
}

/// Starts a node that must not start; what it said.
pub(crate) fn refused(engine: &str, data: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronolith"));
    command.args(["serve", "--engine", engine, "--listen-client-urls", "http://127.0.0.1:0"]);
    command.arg("--data-dir").arg(data).stdin(Stdio::null());
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while process.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            process.kill().unwrap();
            panic!("the node started on {}", data.display());
        }
        std::thread::sleep(POLL);
    }
    let output = process.wait_with_output().unwrap();
    assert!(!output.status.success(), "refused, but with {}", output.status);
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
