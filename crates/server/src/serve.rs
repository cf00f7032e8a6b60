//! `chronolith serve`: a process around a server. Logs go to stderr, the banner to stdout.

use std::{
    io::{self, IsTerminal, Write},
    net::SocketAddr,
};

use chronolith_audit::FailMode;
use tokio::signal::unix::{Signal, SignalKind, signal};
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
    let mut asked = Signals::listen(config.audit.is_some())?;
    let banner = Banner::of(&config);
    let server = Server::start(config).await?;
    banner.print(server.addresses());
    let why = loop {
        match asked.next().await {
            Asked::Reload => reload(&server),
            Asked::Stop(why) => break why,
        }
    };
    tracing::info!("{why}: finishing what is under way");
    stop(server, &mut asked).await;
    tracing::info!("stopped; every acknowledged write is on disk");
    Ok(())
}

/// Reads what can change while the server runs: the audit policy.
fn reload(server: &RunningServer) {
    match server.reload_audit_policy() {
        Ok(()) => tracing::info!("SIGHUP: the audit policy is read again"),
        Err(error) => tracing::error!("SIGHUP: the audit policy stays as it was: {error}"),
    }
}

async fn stop(server: RunningServer, asked: &mut Signals) {
    let (store, audit) = (server.store().clone(), server.audit().cloned());
    tokio::select! {
        () = server.shutdown() => {}
        why = asked.asked_to_stop() => {
            tracing::warn!("{why} again: not waiting for clients any longer");
            store.shutdown().await;
            if let Some(audit) = audit {
                // What it still has to write is little, and the process ends behind it.
                tokio::task::spawn_blocking(move || audit.close()).await.unwrap_or_else(|panic| {
                    tracing::error!("closing the audit log panicked: {panic}");
                });
            }
        }
    }
}

/// What a signal asks for.
enum Asked {
    Stop(&'static str),
    /// Read settings again.
    Reload,
}

/// The signals that a process is asked with.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// Only where there is something to read again: it ends the process otherwise, as ever.
    hangup: Option<Signal>,
}

impl Signals {
    fn listen(reloads: bool) -> Result<Self, Error> {
        let listen = |kind| {
            let failed = |source| Error::Process { what: "cannot listen for signals", source };
            signal(kind).map_err(failed)
        };
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: if reloads { Some(listen(SignalKind::hangup())?) } else { None },
        })
    }

    async fn next(&mut self) -> Asked {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => drop(hangup.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Stop("Ctrl-C"),
            _ = self.terminate.recv() => Asked::Stop("SIGTERM"),
            () = hangup => Asked::Reload,
        }
    }

    async fn asked_to_stop(&mut self) -> &'static str {
        loop {
            if let Asked::Stop(why) = self.next().await {
                return why;
            }
        }
    }
}

/// What a person needs to know at the start.
struct Banner {
    data_dir: String,
    engine: &'static str,
    audit: Option<FailMode>,
}

impl Banner {
    fn of(config: &Config) -> Self {
        let data_dir = std::path::absolute(&config.data_dir);
        let data_dir = data_dir.unwrap_or_else(|_| config.data_dir.clone());
        Banner {
            data_dir: data_dir.display().to_string(),
            engine: config.engine.name(),
            audit: config.audit.as_ref().map(|audit| audit.fail_mode),
        }
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
  audit    {audit}
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
            audit = match self.audit {
                None => "off  (--audit on keeps a trail of who did what)",
                Some(FailMode::Open) => "on, fails open  (chronolith ctl audit query)",
                Some(FailMode::Closed) => "on, fails closed  (chronolith ctl audit query)",
            },
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
        let banner =
            Banner { data_dir: "/data".into(), engine: "memory", audit: Some(FailMode::Closed) };
        let text = banner.text(&["0.0.0.0:2379".parse().unwrap()]);
        assert!(text.contains("http://0.0.0.0:2379"), "{text}");
        assert!(text.contains("etcdctl --endpoints 127.0.0.1:2379 put greeting hello"), "{text}");
        assert!(text.contains("/data  (memory engine)"), "{text}");
        assert!(text.contains("audit    on, fails closed"), "{text}");
    }
}
