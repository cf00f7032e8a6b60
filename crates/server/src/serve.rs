//! `chronolith serve`: a process around a server. Logs go to stderr, the banner to stdout.

use std::{
    io::{self, IsTerminal, Write},
    net::SocketAddr,
};

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::{
    args::ServeArgs,
    config::Config,
    server::{Error, RunningServer, Server},
};

/// Runs a node until it is asked to stop (Ctrl-C or SIGTERM); a second time stops the wait for clients.
pub fn serve(args: ServeArgs) -> Result<(), Error> {
    let config = args.into_config()?;
    log_to_stderr();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("chronolith-io")
        .enable_all()
        .build()
        .map_err(|source| Error::Process { what: "cannot start the I/O threads", source })?;
    runtime.block_on(run(config))
}

async fn run(config: Config) -> Result<(), Error> {
    let mut asked = StopRequests::listen()?;
    let banner = Banner::of(&config);
    let server = Server::start(config).await?;
    banner.print(server.addresses());
    let why = asked.next().await;
    tracing::info!("{why}: finishing what is under way");
    stop(server, &mut asked).await;
    tracing::info!("stopped; every acknowledged write is on disk");
    Ok(())
}

async fn stop(server: RunningServer, asked: &mut StopRequests) {
    let store = server.store().clone();
    tokio::select! {
        () = server.shutdown() => {}
        why = asked.next() => {
            tracing::warn!("{why} again: not waiting for clients any longer");
            store.shutdown().await;
        }
    }
}

/// The signals that ask a process to end.
struct StopRequests {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl StopRequests {
    fn listen() -> Result<Self, Error> {
        let failed = |source| Error::Process { what: "cannot listen for signals", source };
        Ok(StopRequests {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "Ctrl-C",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// What a person needs to know at the start.
struct Banner {
    data_dir: String,
    engine: &'static str,
}

impl Banner {
    fn of(config: &Config) -> Self {
        let data_dir = std::path::absolute(&config.data_dir);
        let data_dir = data_dir.unwrap_or_else(|_| config.data_dir.clone());
        Banner { data_dir: data_dir.display().to_string(), engine: config.engine.name() }
    }

    fn print(&self, addresses: &[SocketAddr]) {
        let text = self.text(addresses);
        // Nobody reading stdout is no reason not to serve.
        let _ = io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush());
    }

    fn text(&self, addresses: &[SocketAddr]) -> String {
        let listening: Vec<String> =
            addresses.iter().map(|address| format!("http://{address}")).collect();
        let endpoint = reachable(addresses[0]);
        format!(
            "\
Chronolith {version} is serving
  clients  {listening}  (gRPC, and HTTP: /health /readyz /metrics)
  data     {data}  ({engine} engine)
Try next, in another terminal:
  etcdctl --endpoints {endpoint} put greeting hello
  etcdctl --endpoints {endpoint} get greeting
  etcdctl --endpoints {endpoint} watch --prefix greet
Ctrl-C stops the node; every acknowledged write stays.
",
            version = env!("CARGO_PKG_VERSION"),
            listening = listening.join(", "),
            data = self.data_dir,
            engine = self.engine,
        )
    }
}

/// An address that a client on this machine can connect to.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(any) if any.ip().is_unspecified() => ([127, 0, 0, 1], any.port()).into(),
        SocketAddr::V6(any) if any.ip().is_unspecified() => {
            (std::net::Ipv6Addr::LOCALHOST, any.port()).into()
        }
        other => other,
    }
}

/// Logs what `CHRONOLITH_LOG` asks for, or what an operator must know.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("CHRONOLITH_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,h2=warn,hyper=warn"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    // Fails only when a log is set up already, which then is the one to use.
    let _ = log.try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_says_where_and_what_to_try() {
        let banner = Banner { data_dir: "/data".into(), engine: "memory" };
        let text = banner.text(&["0.0.0.0:2379".parse().unwrap()]);
        assert!(text.contains("http://0.0.0.0:2379"), "{text}");
        assert!(text.contains("etcdctl --endpoints 127.0.0.1:2379 put greeting hello"), "{text}");
        assert!(text.contains("/data  (memory engine)"), "{text}");
    }
}
