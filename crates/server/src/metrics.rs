//! What `/metrics` shows: etcd's names first, so that existing dashboards and alerts work.
//!
//! Counting is one relaxed atomic add into an array indexed by method and code: no lock, no map, no
//! allocation on a request's path. Text is made only when somebody asks for it. A figure that this
//! build cannot know is absent, never 0.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use chronolith_store::{DURATION_EDGES_US, DurationCounts};

use crate::{methods::Method, status::Code};

const METHODS: usize = Method::ALL.len();
const CODES: usize = Code::ALL.len();

/// Upper edges of the latency histogram, in microseconds; etcd's alerts read 0.15 s.
const EDGES_US: [u64; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 150_000, 250_000,
    1_000_000, 5_000_000,
];

/// A latency histogram of cumulative buckets.
#[derive(Debug, Default)]
struct Latency {
    /// One per edge and one for everything slower. Not cumulative here; the text is.
    buckets: [AtomicU64; EDGES_US.len() + 1],
    sum_us: AtomicU64,
}

impl Latency {
    fn record(&self, elapsed: Duration) {
        let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let bucket = EDGES_US.partition_point(|edge| *edge < elapsed_us);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(elapsed_us, Relaxed);
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Counts one more; the guard takes it back.
    pub(crate) fn enter(&self) -> Entered<'_> {
        self.0.fetch_add(1, Relaxed);
        Entered(self)
    }
}

/// One counted in a [`Gauge`] for as long as this lives.
pub(crate) struct Entered<'a>(&'a Gauge);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

/// A number that only goes up.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One for each method.
#[derive(Debug)]
struct PerMethod<T>([T; METHODS]);

impl<T: Default> Default for PerMethod<T> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| T::default()))
    }
}

impl<T> std::ops::Index<Method> for PerMethod<T> {
    type Output = T;

    fn index(&self, method: Method) -> &T {
        &self.0[method as usize]
    }
}

/// Everything the server counts itself.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    started: PerMethod<AtomicU64>,
    handled: PerMethod<[AtomicU64; CODES]>,
    handling: PerMethod<Latency>,
    pub(crate) bytes_received: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) connections: Gauge,
    pub(crate) connections_accepted: Counter,
    pub(crate) connections_waited: Counter,
    pub(crate) requests_in_flight: Gauge,
    pub(crate) requests_refused: Counter,
    pub(crate) panics: Counter,
    pub(crate) watch_streams: Gauge,
    pub(crate) watch_events: Counter,
}

impl Metrics {
    pub(crate) fn start(&self, method: Method) {
        self.started[method].fetch_add(1, Relaxed);
    }

    pub(crate) fn handled(&self, method: Method, code: Code, since: Instant) {
        self.handled[method][code as usize].fetch_add(1, Relaxed);
        self.handling[method].record(since.elapsed());
    }

    /// Writes the server's own figures in Prometheus' text format.
    pub(crate) fn write(&self, page: &mut Page) {
        self.write_grpc(page);
        self.write_latency(page);
        page.counter(
            "etcd_network_client_grpc_received_bytes_total",
            "The total number of bytes received from grpc clients.",
            self.bytes_received.get(),
        );
        page.counter(
            "etcd_network_client_grpc_sent_bytes_total",
            "The total number of bytes sent to grpc clients.",
            self.bytes_sent.get(),
        );
        self.write_watch(page);
        self.write_limits(page);
    }

    fn write_grpc(&self, page: &mut Page) {
        page.head(
            "grpc_server_started_total",
            "Total number of RPCs started on the server.",
            "counter",
        );
        for method in Method::ALL {
            let value = self.started[*method].load(Relaxed);
            page.sample("grpc_server_started_total", &labels(*method), value);
        }
        page.head(
            "grpc_server_handled_total",
            "Total number of RPCs completed on the server, regardless of success or failure.",
            "counter",
        );
        for method in Method::ALL {
            self.write_handled(page, *method);
        }
    }

    /// Codes that a method never answered are left out, OK excepted: 400 zeros help nobody.
    fn write_handled(&self, page: &mut Page, method: Method) {
        for code in Code::ALL {
            let value = self.handled[method][code as usize].load(Relaxed);
            if value > 0 || code == Code::Ok {
                let labels = format!("grpc_code=\"{}\",{}", code.label(), labels(method));
                page.sample("grpc_server_handled_total", &labels, value);
            }
        }
    }

    fn write_latency(&self, page: &mut Page) {
        let name = "grpc_server_handling_seconds";
        page.head(name, "Histogram of response latency (seconds) of gRPC.", "histogram");
        for method in Method::ALL {
            page.histogram(name, &labels(*method), &self.handling[*method]);
        }
    }

    fn write_watch(&self, page: &mut Page) {
        page.gauge(
            "etcd_debugging_mvcc_watch_stream_total",
            "Total number of watch streams.",
            self.watch_streams.get(),
        );
        page.counter(
            "etcd_debugging_mvcc_events_total",
            "Total number of events sent by this member.",
            self.watch_events.get(),
        );
    }

    fn write_limits(&self, page: &mut Page) {
        page.gauge(
            "chronolith_server_connections",
            "Client connections open.",
            self.connections.get(),
        );
        page.counter(
            "chronolith_server_connections_accepted_total",
            "Client connections accepted.",
            self.connections_accepted.get(),
        );
        page.counter(
            "chronolith_server_connections_waited_total",
            "Times that a new connection had to wait because the limit was reached.",
            self.connections_waited.get(),
        );
        page.gauge(
            "chronolith_server_requests_in_flight",
            "Unary requests being worked on.",
            self.requests_in_flight.get(),
        );
        page.counter(
            "chronolith_server_requests_refused_total",
            "Requests refused because too many were in flight.",
            self.requests_refused.get(),
        );
        page.counter(
            "chronolith_server_panics_total",
            "Requests that panicked and were answered INTERNAL.",
            self.panics.get(),
        );
    }
}

fn labels(method: Method) -> String {
    format!(
        "grpc_method=\"{}\",grpc_service=\"{}\",grpc_type=\"{}\"",
        method.name(),
        method.service(),
        method.kind().label()
    )
}

/// Prometheus' text format, version 0.0.4.
#[derive(Default)]
pub(crate) struct Page {
    text: String,
}

impl Page {
    pub(crate) fn into_text(self) -> String {
        self.text
    }

    pub(crate) fn counter(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, help, "counter");
        self.sample(name, "", value);
    }

    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, help, "gauge");
        self.sample(name, "", value);
    }

    pub(crate) fn head(&mut self, name: &str, help: &str, kind: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    pub(crate) fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        match labels.is_empty() {
            true => self.line(format_args!("{name} {value}")),
            false => self.line(format_args!("{name}{{{labels}}} {value}")),
        }
    }

    fn histogram(&mut self, name: &str, labels: &str, latency: &Latency) {
        let bucket = format!("{name}_bucket");
        let mut total = 0;
        for (index, count) in latency.buckets.iter().enumerate() {
            total += count.load(Relaxed);
            let edge = match EDGES_US.get(index) {
                Some(edge_us) => (*edge_us as f64 / 1e6).to_string(),
                None => "+Inf".to_owned(),
            };
            self.sample(&bucket, &format!("{labels},le=\"{edge}\""), total);
        }
        let sum_s = latency.sum_us.load(Relaxed) as f64 / 1e6;
        self.sample(&format!("{name}_sum"), labels, sum_s);
        self.sample(&format!("{name}_count"), labels, total);
    }

    /// A histogram without labels, in seconds.
    pub(crate) fn durations(&mut self, name: &str, help: &str, counts: &DurationCounts) {
        self.head(name, help, "histogram");
        let bucket = format!("{name}_bucket");
        let mut total = 0;
        for (index, count) in counts.buckets.iter().enumerate() {
            total += count;
            let edge = match DURATION_EDGES_US.get(index) {
                Some(edge_us) => (*edge_us as f64 / 1e6).to_string(),
                None => "+Inf".to_owned(),
            };
            self.sample(&bucket, &format!("le=\"{edge}\""), total);
        }
        self.sample(&format!("{name}_sum"), "", counts.sum_us as f64 / 1e6);
        self.sample(&format!("{name}_count"), "", total);
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("writing to a String cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_lands_in_the_first_bucket_whose_edge_it_does_not_exceed() {
        let latency = Latency::default();
        latency.record(Duration::from_micros(100));
        latency.record(Duration::from_micros(101));
        latency.record(Duration::from_secs(60));
        let mut page = Page::default();
        page.histogram("h", "a=\"b\"", &latency);
        let text = page.into_text();
        assert!(text.contains("h_bucket{a=\"b\",le=\"0.0001\"} 1\n"), "{text}");
        assert!(text.contains("h_bucket{a=\"b\",le=\"0.00025\"} 2\n"), "{text}");
        assert!(text.contains("h_bucket{a=\"b\",le=\"5\"} 2\n"), "{text}");
        assert!(text.contains("h_bucket{a=\"b\",le=\"+Inf\"} 3\n"), "{text}");
        assert!(text.contains("h_count{a=\"b\"} 3\n"), "{text}");
    }

    #[test]
    fn a_guard_takes_back_what_it_counted() {
        let gauge = Gauge::default();
        let entered = gauge.enter();
        assert_eq!(gauge.get(), 1);
        drop(entered);
        assert_eq!(gauge.get(), 0);
    }
}
