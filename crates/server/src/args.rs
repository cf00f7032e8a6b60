//! The settings of `chronolith serve`: flag before `CHRONOLITH_*` before `ETCD_*` before default.
//!
//! Names that etcd has are etcd's, so that an existing deployment moves by changing the program.

use std::{
    fmt::Display,
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use chronolith_audit::FailMode;
use chronolith_store::{EngineKind, Verify};
use clap::{Args, ValueEnum};

use crate::{
    config::{AuditConfig, Config, Limits, RESPONSE_BYTES_MAX},
    server::Error,
};

/// Where the data is, unless told otherwise.
const DATA_DIR: &str = "./chronolith-data";
/// etcd's client address.
const LISTEN: &str = "http://127.0.0.1:2379";
/// etcd's default member name.
const NAME: &str = "default";
/// etcd's default distance between two snapshots.
const SNAPSHOT_COUNT: u64 = 10_000;

/// Run a node.
///
/// A shared setting that is not given is taken from etcd's variable (ETCD_DATA_DIR, ETCD_NAME, ...).
#[derive(Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// Where the data is [default: ./chronolith-data]
    #[arg(long, value_name = "DIR", env = "CHRONOLITH_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where the keyspace is kept: memory or rocksdb [default: memory]
    #[arg(long, env = "CHRONOLITH_ENGINE")]
    pub engine: Option<EngineKind>,
    /// Whether the history is hashed into a log that proves it: off or async [default: async]
    #[arg(long, env = "CHRONOLITH_VERIFY")]
    pub verify: Option<Verify>,
    /// How long versions that a compaction removed keep everything but their value, like 24h; without it
    /// their hashes only. The memory engine keeps 300 to 800 bytes for each
    #[arg(long, value_name = "DURATION", env = "CHRONOLITH_META_RETENTION")]
    pub meta_retention: Option<String>,
    /// Addresses to listen on for clients, comma-separated [default: http://127.0.0.1:2379]
    #[arg(
        long,
        visible_alias = "listen",
        value_name = "URLS",
        env = "CHRONOLITH_LISTEN_CLIENT_URLS"
    )]
    pub listen_client_urls: Option<String>,
    /// The member's name, for people [default: default]
    #[arg(long, env = "CHRONOLITH_NAME")]
    pub name: Option<String>,
    /// Log entries between two checkpoints [default: 10000]
    #[arg(long, value_name = "ENTRIES", env = "CHRONOLITH_SNAPSHOT_COUNT")]
    pub snapshot_count: Option<u64>,
    /// The keyspace may grow to this size; then writes are refused [default: 2147483648]
    #[arg(long, value_name = "BYTES", env = "CHRONOLITH_QUOTA_BACKEND_BYTES")]
    pub quota_backend_bytes: Option<u64>,
    /// Free space of the data directory's file system below which writes are refused, before a full disk
    /// stops the node; 0 keeps none. The memory engine keeps room for its next checkpoint beside it
    /// [default: 268435456, at most a twentieth of the file system]
    #[arg(long, value_name = "BYTES", env = "CHRONOLITH_RESERVE_DISK_BYTES")]
    pub reserve_disk_bytes: Option<u64>,
    /// The largest request that is accepted [default: 1572864]
    #[arg(long, value_name = "BYTES", env = "CHRONOLITH_MAX_REQUEST_BYTES")]
    pub max_request_bytes: Option<usize>,
    /// The largest answer; what would be larger is refused, and asked for in pages [default: 2147483647]
    #[arg(long, value_name = "BYTES", env = "CHRONOLITH_MAX_RESPONSE_BYTES")]
    pub max_response_bytes: Option<usize>,
    /// Streams open on one connection [default: 10000]
    #[arg(long, value_name = "COUNT", env = "CHRONOLITH_MAX_CONCURRENT_STREAMS")]
    pub max_concurrent_streams: Option<u32>,
    /// Client connections open at once; the next waits [default: 10000]
    #[arg(long, value_name = "COUNT", env = "CHRONOLITH_MAX_CONNECTIONS")]
    pub max_connections: Option<usize>,
    /// Requests being worked on at once; the next is refused [default: 5000]
    #[arg(long, value_name = "COUNT", env = "CHRONOLITH_MAX_REQUESTS_IN_FLIGHT")]
    pub max_requests_in_flight: Option<usize>,
    /// Bytes of incomplete requests held at once [default: 268435456]
    #[arg(long, value_name = "BYTES", env = "CHRONOLITH_MAX_RECEIVE_BYTES")]
    pub max_receive_bytes: Option<usize>,
    /// Watches on one stream [default: 100000]
    #[arg(long, value_name = "COUNT", env = "CHRONOLITH_MAX_WATCHES_PER_STREAM")]
    pub max_watches_per_stream: Option<usize>,
    /// Interval between progress notifications on a quiet watch, like 10m or 30s [default: 10m]
    #[arg(long, value_name = "DURATION", env = "CHRONOLITH_WATCH_PROGRESS_NOTIFY_INTERVAL")]
    pub watch_progress_notify_interval: Option<String>,
    /// Keep an audit trail in DATA/audit: who did what, and what came of it [default: off]
    #[arg(long, value_name = "on|off", env = "CHRONOLITH_AUDIT")]
    pub audit: Option<Switch>,
    #[expect(missing_docs, reason = "clap takes no text for a group of settings")]
    #[command(flatten)]
    pub audit_settings: AuditArgs,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Yes.
    On,
    /// No.
    Off,
}

/// How the audit trail is kept; see docs/audit.md.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Audit trail (with --audit on)")]
pub struct AuditArgs {
    /// What is recorded: a JSON file of rules; SIGHUP reads it again [default: writes, administration and
    /// refusals, as metadata]
    #[arg(long, value_name = "FILE", env = "CHRONOLITH_AUDIT_POLICY")]
    pub audit_policy: Option<PathBuf>,
    /// What happens to a request whose event would be lost: open serves it and counts the loss, closed
    /// refuses it [default: open]
    #[arg(long, value_name = "open|closed", env = "CHRONOLITH_AUDIT_FAIL_MODE")]
    pub audit_fail_mode: Option<FailMode>,
    /// Events that may wait to be written [default: 16384]
    #[arg(long, value_name = "COUNT", env = "CHRONOLITH_AUDIT_QUEUE_EVENTS")]
    pub audit_queue_events: Option<usize>,
    /// A file of events is ended at this size [default: 67108864]
    #[arg(long, value_name = "BYTES", env = "CHRONOLITH_AUDIT_ROTATE_BYTES")]
    pub audit_rotate_bytes: Option<u64>,
    /// A file of events is ended at this age [default: 24h]
    #[arg(long, value_name = "DURATION", env = "CHRONOLITH_AUDIT_ROTATE_AGE")]
    pub audit_rotate_age: Option<String>,
    /// Files of events that are kept; 0 keeps all [default: 0]
    #[arg(long, value_name = "COUNT", env = "CHRONOLITH_AUDIT_KEEP_FILES")]
    pub audit_keep_files: Option<usize>,
    /// Bytes of events that are kept, the oldest files go first; 0 keeps all [default: 4294967296]
    #[arg(long, value_name = "BYTES", env = "CHRONOLITH_AUDIT_KEEP_BYTES")]
    pub audit_keep_bytes: Option<u64>,
    /// How often events are synced and a checkpoint over them is signed [default: 1s]
    #[arg(long, value_name = "DURATION", env = "CHRONOLITH_AUDIT_SYNC_INTERVAL")]
    pub audit_sync_interval: Option<String>,
    /// Write the events to standard output too
    #[arg(long, env = "CHRONOLITH_AUDIT_STDOUT")]
    pub audit_stdout: bool,
}

impl AuditArgs {
    fn into_config(self) -> Result<AuditConfig, Error> {
        let own = AuditConfig::default();
        let time = |given: Option<String>, or| given.map_or(Ok(or), |text| duration(&text));
        let config = AuditConfig {
            policy_file: self.audit_policy,
            fail_mode: self.audit_fail_mode.unwrap_or(own.fail_mode),
            queue_events: self.audit_queue_events.unwrap_or(own.queue_events),
            rotate_bytes: self.audit_rotate_bytes.unwrap_or(own.rotate_bytes),
            rotate_age: time(self.audit_rotate_age, own.rotate_age)?,
            keep_files: self.audit_keep_files.unwrap_or(own.keep_files),
            keep_bytes: self.audit_keep_bytes.unwrap_or(own.keep_bytes),
            sync_interval: time(self.audit_sync_interval, own.sync_interval)?,
            stdout: self.audit_stdout,
        };
        match (config.queue_events, config.rotate_bytes) {
            (0, _) => Err(Error::Setting("--audit-queue-events 0 would drop everything".into())),
            (_, 0) => Err(Error::Setting("--audit-rotate-bytes 0 would end every file".into())),
            _ => Ok(config),
        }
    }

    /// A setting that would do nothing without an audit trail.
    fn idle(&self) -> Option<&'static str> {
        [
            ("--audit-policy", self.audit_policy.is_some()),
            ("--audit-fail-mode", self.audit_fail_mode.is_some()),
            ("--audit-stdout", self.audit_stdout),
        ]
        .into_iter()
        .find_map(|(flag, is_given)| is_given.then_some(flag))
    }
}

impl ServeArgs {
    /// The configuration that these settings, the environment and the defaults make.
    pub fn into_config(self) -> Result<Config, Error> {
        self.resolve(|name| std::env::var(name).ok())
    }

    fn resolve(self, etcd: impl Fn(&str) -> Option<String>) -> Result<Config, Error> {
        let or = Fallback { etcd };
        let listen = or.text(self.listen_client_urls, "ETCD_LISTEN_CLIENT_URLS", LISTEN);
        let interval = or.text(
            self.watch_progress_notify_interval,
            "ETCD_WATCH_PROGRESS_NOTIFY_INTERVAL",
            "10m",
        );
        let own = Limits::default();
        let limits = Limits {
            connections_max: self.max_connections.unwrap_or(own.connections_max),
            requests_in_flight_max: self
                .max_requests_in_flight
                .unwrap_or(own.requests_in_flight_max),
            request_bytes_max: or.value(
                self.max_request_bytes,
                "ETCD_MAX_REQUEST_BYTES",
                own.request_bytes_max,
            )?,
            response_bytes_max: self.max_response_bytes.unwrap_or(own.response_bytes_max),
            reserve_disk_bytes: self.reserve_disk_bytes,
            receive_bytes_max: self.max_receive_bytes.unwrap_or(own.receive_bytes_max),
            streams_per_connection_max: or.value(
                self.max_concurrent_streams,
                "ETCD_MAX_CONCURRENT_STREAMS",
                own.streams_per_connection_max,
            )?,
            watches_per_stream_max: self
                .max_watches_per_stream
                .unwrap_or(own.watches_per_stream_max),
            // etcd reads 0 as "the default".
            quota_bytes: match or.value(
                self.quota_backend_bytes,
                "ETCD_QUOTA_BACKEND_BYTES",
                own.quota_bytes,
            )? {
                0 => own.quota_bytes,
                given => given,
            },
            ..own
        };
        let audit = match (self.audit.unwrap_or(Switch::Off), self.audit_settings.idle()) {
            (Switch::On, _) => Some(self.audit_settings.into_config()?),
            (Switch::Off, None) => None,
            (Switch::Off, Some(flag)) => {
                return Err(Error::Setting(format!("{flag} does nothing without --audit on")));
            }
        };
        let data_dir = self.data_dir.or_else(|| (or.etcd)("ETCD_DATA_DIR").map(PathBuf::from));
        Ok(Config {
            engine: self.engine.unwrap_or(EngineKind::Memory),
            verify: self.verify.unwrap_or_default(),
            meta_retention: self.meta_retention.as_deref().map(duration).transpose()?,
            name: or.text(self.name, "ETCD_NAME", NAME),
            listen: addresses(&listen)?,
            checkpoint_every_entries: or.value(
                self.snapshot_count,
                "ETCD_SNAPSHOT_COUNT",
                SNAPSHOT_COUNT,
            )?,
            watch_progress_interval: duration(&interval)?,
            limits: checked(limits)?,
            audit,
            ..Config::new(data_dir.unwrap_or_else(|| PathBuf::from(DATA_DIR)))
        })
    }
}

/// Where a setting comes from when it was not given.
struct Fallback<E> {
    etcd: E,
}

impl<E: Fn(&str) -> Option<String>> Fallback<E> {
    fn text(&self, given: Option<String>, etcd_name: &str, default: &str) -> String {
        given.or_else(|| (self.etcd)(etcd_name)).unwrap_or_else(|| default.to_owned())
    }

    fn value<T: FromStr<Err: Display>>(
        &self,
        given: Option<T>,
        etcd_name: &str,
        default: T,
    ) -> Result<T, Error> {
        match (given, (self.etcd)(etcd_name)) {
            (Some(given), _) => Ok(given),
            (None, None) => Ok(default),
            (None, Some(text)) => text
                .parse()
                .map_err(|error| Error::Setting(format!("{etcd_name}={text:?}: {error}"))),
        }
    }
}

/// A limit of 0 would refuse everything.
fn checked(limits: Limits) -> Result<Limits, Error> {
    let zero = [
        ("--max-connections", limits.connections_max),
        ("--max-requests-in-flight", limits.requests_in_flight_max),
        ("--max-request-bytes", limits.request_bytes_max),
        ("--max-response-bytes", limits.response_bytes_max),
        ("--max-concurrent-streams", limits.streams_per_connection_max as usize),
    ];
    if let Some((flag, _)) = zero.iter().find(|(_, limit)| *limit == 0) {
        return Err(Error::Setting(format!("{flag} 0 would refuse everything")));
    }
    if limits.response_bytes_max > RESPONSE_BYTES_MAX {
        return Err(Error::Setting(format!(
            "--max-response-bytes {}: gRPC's clients take {RESPONSE_BYTES_MAX} at most",
            limits.response_bytes_max
        )));
    }
    Ok(limits)
}

/// The addresses that a comma-separated list of etcd URLs, or of plain `host:port`, names.
fn addresses(urls: &str) -> Result<Vec<SocketAddr>, Error> {
    let mut found = Vec::new();
    for url in urls.split(',').map(str::trim).filter(|url| !url.is_empty()) {
        found.extend(address(url)?);
    }
    Ok(found)
}

fn address(url: &str) -> Result<impl Iterator<Item = SocketAddr>, Error> {
    let wrong = |why: &str| Error::Setting(format!("--listen-client-urls {url:?}: {why}"));
    let host = match url.split_once("://") {
        Some(("http", host)) => host.trim_end_matches('/'),
        Some(("https", _)) => return Err(wrong("TLS is not supported yet, use http://")),
        Some(_) => return Err(wrong("use http://HOST:PORT")),
        None => url,
    };
    host.to_socket_addrs().map_err(|error| wrong(&error.to_string())).map(|all| {
        // A name with several addresses: the first is enough to be reached by that name.
        all.take(1)
    })
}

/// A duration as etcd writes it (`10m`, `1h30m`, `500ms`), or a bare number of seconds.
fn duration(text: &str) -> Result<Duration, Error> {
    let wrong =
        || Error::Setting(format!("{text:?} is no duration: write it like 10m, 30s or 500ms"));
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        total += Duration::from_millis(number.checked_mul(unit_ms).ok_or_else(wrong)?);
        rest = next;
    }
    match total.is_zero() {
        true => Err(wrong()),
        false => Ok(total),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(args: ServeArgs, etcd: &[(&str, &str)]) -> Result<Config, Error> {
        args.resolve(|name| {
            etcd.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn without_settings_it_is_etcds_port_and_the_data_beside_us() {
        let config = resolve(ServeArgs::default(), &[]).unwrap();
        assert_eq!(config.listen, ["127.0.0.1:2379".parse().unwrap()]);
        assert_eq!(config.data_dir, PathBuf::from("./chronolith-data"));
        assert_eq!(config.limits.connections_max, 10_000);
        assert_eq!(config.limits.requests_in_flight_max, 5_000);
        assert_eq!(config.limits.quota_bytes, 2 << 30);
    }

    #[test]
    fn a_flag_goes_before_etcds_variable_and_that_before_the_default() {
        let etcd = [
            ("ETCD_NAME", "theirs"),
            ("ETCD_DATA_DIR", "/theirs"),
            ("ETCD_MAX_REQUEST_BYTES", "7"),
        ];
        let flags = ServeArgs { name: Some("ours".into()), ..ServeArgs::default() };
        let config = resolve(flags, &etcd).unwrap();
        assert_eq!(config.name, "ours");
        assert_eq!(config.data_dir, PathBuf::from("/theirs"));
        assert_eq!(config.limits.request_bytes_max, 7);
    }

    #[test]
    fn a_variable_that_does_not_parse_is_named() {
        let error = resolve(ServeArgs::default(), &[("ETCD_SNAPSHOT_COUNT", "many")]).unwrap_err();
        assert!(error.to_string().starts_with("ETCD_SNAPSHOT_COUNT=\"many\""), "{error}");
    }

    #[test]
    fn addresses_are_urls_or_host_and_port() {
        let two = addresses("http://127.0.0.1:1/, 127.0.0.1:2").unwrap();
        assert_eq!(two, ["127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()]);
        assert!(addresses("https://127.0.0.1:1").unwrap_err().to_string().contains("TLS"));
        assert!(addresses("unix://x").is_err());
    }

    #[test]
    fn durations_are_read_as_etcd_writes_them() {
        assert_eq!(duration("1h30m").unwrap(), Duration::from_secs(5_400));
        assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(duration("30").unwrap(), Duration::from_secs(30));
        for wrong in ["", "m", "10x", "0s", "5m3"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_audit_trail_is_kept_where_it_is_asked_for_and_its_settings_are_not_for_nothing() {
        assert!(resolve(ServeArgs::default(), &[]).unwrap().audit.is_none());
        let settings = |on, audit_settings| {
            let flags = ServeArgs { audit: on, audit_settings, ..ServeArgs::default() };
            resolve(flags, &[]).map(|config| config.audit).map_err(|error| error.to_string())
        };
        let closed = AuditArgs {
            audit_fail_mode: Some(FailMode::Closed),
            audit_rotate_age: Some("90m".into()),
            ..AuditArgs::default()
        };
        let config = settings(Some(Switch::On), closed.clone()).unwrap().unwrap();
        assert_eq!(config.fail_mode, FailMode::Closed);
        assert_eq!(config.rotate_age, Duration::from_secs(5_400));
        assert_eq!(config.keep_bytes, 4 << 30);
        assert!(settings(None, closed).unwrap_err().contains("--audit-fail-mode does nothing"));
        let nothing = AuditArgs { audit_queue_events: Some(0), ..AuditArgs::default() };
        assert!(settings(Some(Switch::On), nothing).unwrap_err().contains("--audit-queue-events"));
    }

    #[test]
    fn what_compaction_keeps_is_a_duration_or_hashes_only() {
        assert_eq!(resolve(ServeArgs::default(), &[]).unwrap().meta_retention, None);
        let keep =
            |text: &str| ServeArgs { meta_retention: Some(text.into()), ..ServeArgs::default() };
        let config = resolve(keep("24h"), &[]).unwrap();
        assert_eq!(config.meta_retention, Some(Duration::from_secs(86_400)));
        assert!(resolve(keep("long"), &[]).is_err());
    }

    #[test]
    fn a_limit_that_would_refuse_everything_is_refused() {
        let flags = ServeArgs { max_connections: Some(0), ..ServeArgs::default() };
        assert!(resolve(flags, &[]).unwrap_err().to_string().contains("--max-connections"));
    }
}
