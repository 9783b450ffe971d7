//! Counters of one relay, in Prometheus' text form at `GET /metrics`.
//!
//! The recorder belongs to the relay, not to the process, so that several relays (or a control plane) may share
//! one. Handles are made once and are atomics: counting on the packet path costs no lookup. Every family is in [`FAMILIES`],
//! which gives its help text. Invariant: a label names a reason, a kind, a profile, a table or a worker of ours, never a
//! person, a site, a meeting or an address, so the number of series is fixed and the page may be shown to anyone.

use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use muster_webrtc::Quality;

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Counter,
    Gauge,
    /// With the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

/// Bits per second, from a village link to a wall of pictures.
const BPS: &[f64] = &[100e3, 250e3, 500e3, 1e6, 2e6, 4e6, 8e6, 16e6, 32e6, 64e6];
const SECONDS: &[f64] = &[0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6];
/// From a receive call to a send call, in seconds.
const FORWARD: &[f64] = &[0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1];
const RATIO: &[f64] = &[0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5];

/// Every family that `/metrics` may show: name, kind, and what it says.
const FAMILIES: &[(&str, Kind, &str)] = &[
    (
        "muster_relay_packets_in_total",
        Kind::Counter,
        "RTP packets taken from publishers, RTCP and refused ones not counted.",
    ),
    (
        "muster_relay_packets_out_total",
        Kind::Counter,
        "RTP packets forwarded into slots, one for each slot.",
    ),
    (
        "muster_relay_bytes_in_total",
        Kind::Counter,
        "Bytes of the datagrams of packets_in, without UDP and IP headers.",
    ),
    (
        "muster_relay_bytes_out_total",
        Kind::Counter,
        "Bytes of the datagrams sent to browsers, without UDP and IP headers.",
    ),
    (
        "muster_relay_send_calls_total",
        Kind::Counter,
        "System calls that sent datagrams; packets_out divided by it tells how well segments are joined.",
    ),
    (
        "muster_relay_receive_calls_total",
        Kind::Counter,
        "System calls that brought datagrams.",
    ),
    (
        "muster_relay_ring_packets_total",
        Kind::Counter,
        "Packets handed from one worker to another.",
    ),
    (
        "muster_relay_ring_dropped_total",
        Kind::Counter,
        "Packets and wishes that found the ring to another worker full.",
    ),
    (
        "muster_relay_dropped_total",
        Kind::Counter,
        "Datagrams and packets dropped, by reason.",
    ),
    (
        "muster_relay_tcp_connections_total",
        Kind::Counter,
        "TCP connections for media that were accepted.",
    ),
    (
        "muster_relay_http_closed_total",
        Kind::Counter,
        "HTTP connections that the relay closed: silent (asked nothing in time), idle, full (no room for all), or handshake (of TLS, that failed).",
    ),
    (
        "muster_relay_srtp_agreed_total",
        Kind::Counter,
        "Legs whose SRTP keys were agreed, by profile.",
    ),
    (
        "muster_relay_joins_total",
        Kind::Counter,
        "Legs that were opened.",
    ),
    (
        "muster_relay_joins_refused_total",
        Kind::Counter,
        "Joins and links, and calls with a leg's secret, sources and views, that were refused, by reason.",
    ),
    (
        "muster_relay_reports_dropped_total",
        Kind::Counter,
        "Reports to the control plane that found no room while it was away.",
    ),
    (
        "muster_relay_key_frames_asked_total",
        Kind::Counter,
        "Key frames asked of publishers.",
    ),
    (
        "muster_relay_legs",
        Kind::Gauge,
        "Legs at this moment, by kind: webrtc (a browser or a WHIP or WHEP client) or link (an agent).",
    ),
    (
        "muster_relay_ready",
        Kind::Gauge,
        "1 while the relay may be given work, else 0; /readyz says why.",
    ),
    (
        "muster_relay_table_entries",
        Kind::Gauge,
        "Entries in the tables of a worker, looked at once a second.",
    ),
    (
        "muster_relay_shared_entries",
        Kind::Gauge,
        "Entries in the tables that all workers share.",
    ),
    (
        "muster_relay_link_tunnels",
        Kind::Gauge,
        "Links that come over TCP, since UDP is blocked on their way.",
    ),
    (
        "muster_relay_worker_busy_ratio",
        Kind::Gauge,
        "The share of a core that a worker's thread uses, 0 to 1, over the last second.",
    ),
    (
        "muster_relay_forward_seconds",
        Kind::Histogram(FORWARD),
        "From receiving to sending, seconds: of one send call in 64, its oldest packet.",
    ),
    (
        "muster_relay_estimate_bps",
        Kind::Histogram(BPS),
        "Estimated bit rate of the path to a viewer, bits per second; each that has an estimate once a second.",
    ),
    (
        "muster_relay_round_trip_seconds",
        Kind::Histogram(SECONDS),
        "Round trip to a browser, seconds; each connected leg once a second.",
    ),
    (
        "muster_relay_viewer_loss_ratio",
        Kind::Histogram(RATIO),
        "Worst loss that a viewer reported of what it was sent, 0 to 1; each viewer once a second.",
    ),
    (
        "muster_relay_publisher_loss_ratio",
        Kind::Histogram(RATIO),
        "Loss of what a publisher sent, 0 to 1, before repair; each publisher once a second.",
    ),
];

/// The counters that are not named by a reason.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    pub packets_in: Counter,
    pub packets_out: Counter,
    pub bytes_in: Counter,
    pub bytes_out: Counter,
    pub send_calls: Counter,
    pub receive_calls: Counter,
    pub ring_dropped: Counter,
    pub ring_packets: Counter,
    pub legs_webrtc: Gauge,
    pub legs_link: Gauge,
    pub ready: Gauge,
    pub joins: Counter,
    pub reports_dropped: Counter,
    pub key_frames_asked: Counter,
    /// Seconds from the receive call's return to the end of the send call: of one send call in 64, its oldest packet.
    pub forward_seconds: Histogram,
    pub estimate_bps: Histogram,
    pub round_trip: Histogram,
    pub viewer_loss: Histogram,
    pub publisher_loss: Histogram,
}

const METADATA: Metadata<'static> = Metadata::new("muster_sfu", Level::INFO, None);

/// Sizes of a worker's tables.
pub(crate) const TABLES: [&str; 8] = [
    "legs",
    "meetings",
    "sources",
    "slots",
    "addresses",
    "ice_names",
    "links",
    "relays",
];

impl Metrics {
    pub fn new() -> Self {
        let recorder = recorder();
        let handle = recorder.handle();
        let counter = |name: &'static str| recorder.register_counter(&Key::from_static_name(name), &METADATA);
        let legs = |kind: &'static str| {
            let key = Key::from_parts("muster_relay_legs", vec![Label::from_static_parts("kind", kind)]);
            recorder.register_gauge(&key, &METADATA)
        };
        let histogram =
            |name: &'static str| recorder.register_histogram(&Key::from_static_name(name), &METADATA);
        Self {
            packets_in: counter("muster_relay_packets_in_total"),
            packets_out: counter("muster_relay_packets_out_total"),
            bytes_in: counter("muster_relay_bytes_in_total"),
            bytes_out: counter("muster_relay_bytes_out_total"),
            send_calls: counter("muster_relay_send_calls_total"),
            receive_calls: counter("muster_relay_receive_calls_total"),
            ring_dropped: counter("muster_relay_ring_dropped_total"),
            ring_packets: counter("muster_relay_ring_packets_total"),
            legs_webrtc: legs("webrtc"),
            legs_link: legs("link"),
            ready: recorder.register_gauge(&Key::from_static_name("muster_relay_ready"), &METADATA),
            joins: counter("muster_relay_joins_total"),
            reports_dropped: counter("muster_relay_reports_dropped_total"),
            key_frames_asked: counter("muster_relay_key_frames_asked_total"),
            forward_seconds: histogram("muster_relay_forward_seconds"),
            estimate_bps: histogram("muster_relay_estimate_bps"),
            round_trip: histogram("muster_relay_round_trip_seconds"),
            viewer_loss: histogram("muster_relay_viewer_loss_ratio"),
            publisher_loss: histogram("muster_relay_publisher_loss_ratio"),
            recorder,
            handle,
        }
    }

    /// A counter with a reason, for a caller that keeps the handle or counts something rare.
    pub fn counter(&self, name: &'static str, reason: &'static str) -> Counter {
        let key = Key::from_parts(name, vec![Label::from_static_parts("reason", reason)]);
        self.recorder.register_counter(&key, &METADATA)
    }

    /// The share of a core that a worker's thread uses, 0 to 1.
    pub fn worker_busy(&self, worker: usize) -> Gauge {
        let label = Label::new("worker", worker.to_string());
        let key = Key::from_parts("muster_relay_worker_busy_ratio", vec![label]);
        self.recorder.register_gauge(&key, &METADATA)
    }

    /// A datagram or packet that was dropped.
    pub fn dropped(&self, reason: &'static str) -> Counter {
        self.counter("muster_relay_dropped_total", reason)
    }

    /// A join that was refused.
    pub fn refused(&self, code: &'static str) {
        self.counter("muster_relay_joins_refused_total", code)
            .increment(1);
    }

    /// TCP connections for media, accepted.
    pub fn tcp_connections(&self) -> Counter {
        let key = Key::from_static_name("muster_relay_tcp_connections_total");
        self.recorder.register_counter(&key, &METADATA)
    }

    /// Links of a worker that come over TCP now.
    pub fn link_tunnels(&self, worker: usize) -> Gauge {
        let label = Label::new("worker", worker.to_string());
        let key = Key::from_parts("muster_relay_link_tunnels", vec![label]);
        self.recorder.register_gauge(&key, &METADATA)
    }

    /// A leg whose SRTP keys were agreed, by the profile they are for.
    pub fn keys_agreed(&self, profile: &'static str) {
        let label = Label::from_static_parts("profile", profile);
        let key = Key::from_parts("muster_relay_srtp_agreed_total", vec![label]);
        self.recorder.register_counter(&key, &METADATA).increment(1);
    }

    /// Into the histograms, which know no leg: its last second.
    pub fn second_of_leg(&self, quality: &Quality, estimate_bps: Option<u64>) {
        if let Some(bps) = estimate_bps {
            self.estimate_bps.record(bps as f64);
        }
        if let Some(round_trip) = quality.round_trip {
            self.round_trip.record(round_trip.as_secs_f64());
        }
        if quality.sent_packets > 0 {
            self.viewer_loss.record(f64::from(quality.sent_loss));
        }
        let due = quality.received_packets + quality.received_lost;
        if due > 0 {
            self.publisher_loss
                .record(quality.received_lost as f64 / due as f64);
        }
    }

    /// The gauges of a worker's tables, in the order of [`TABLES`].
    pub fn tables(&self, worker: usize) -> [Gauge; TABLES.len()] {
        let worker: Arc<str> = worker.to_string().into();
        TABLES.map(|table| {
            let labels = vec![
                Label::new("worker", worker.clone()),
                Label::from_static_parts("table", table),
            ];
            let key = Key::from_parts("muster_relay_table_entries", labels);
            self.recorder.register_gauge(&key, &METADATA)
        })
    }

    /// Notes the size of a table that all workers share.
    pub fn shared_table(&self, table: &'static str, entries: usize) {
        let labels = vec![Label::from_static_parts("table", table)];
        let key = Key::from_parts("muster_relay_shared_entries", labels);
        self.recorder.register_gauge(&key, &METADATA).set(entries as f64);
    }

    /// Sorts what histograms gathered into their buckets; without it they grow until somebody asks for them.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    pub fn render(&self) -> String {
        self.handle.render()
    }
}

fn recorder() -> PrometheusRecorder {
    let mut builder = PrometheusBuilder::new();
    for (name, kind, _) in FAMILIES {
        if let Kind::Histogram(bounds) = kind {
            // Errs only for an empty list of bounds, and none of ours is.
            builder = match builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), bounds) {
                Ok(builder) => builder,
                Err(_) => PrometheusBuilder::new(),
            };
        }
    }
    let recorder = builder.build_recorder();
    for (name, kind, help) in FAMILIES {
        let name = KeyName::from_const_str(name);
        match kind {
            Kind::Counter => recorder.describe_counter(name, None, (*help).into()),
            Kind::Gauge => recorder.describe_gauge(name, None, (*help).into()),
            Kind::Histogram(_) => recorder.describe_histogram(name, None, (*help).into()),
        }
    }
    recorder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown_with_its_help_and_kind() {
        let metrics = Metrics::new();
        metrics.packets_in.increment(3);
        metrics.dropped("replayed").increment(2);
        metrics.legs_link.set(4.0);
        metrics.tables(1)[0].set(7.0);
        metrics.shared_table("tokens", 5);
        metrics.round_trip.record(0.03);
        metrics.round_trip.record(0.3);
        metrics.upkeep();
        let text = metrics.render();
        for line in [
            "# HELP muster_relay_packets_in_total RTP packets taken from publishers, RTCP and refused ones not counted.",
            "# TYPE muster_relay_packets_in_total counter",
            "muster_relay_packets_in_total 3",
            "muster_relay_dropped_total{reason=\"replayed\"} 2",
            "muster_relay_legs{kind=\"link\"} 4",
            "muster_relay_table_entries{worker=\"1\",table=\"legs\"} 7",
            "muster_relay_shared_entries{table=\"tokens\"} 5",
            "# TYPE muster_relay_round_trip_seconds histogram",
            "muster_relay_round_trip_seconds_bucket{le=\"0.02\"} 0",
            "muster_relay_round_trip_seconds_bucket{le=\"0.05\"} 1",
            "muster_relay_round_trip_seconds_bucket{le=\"+Inf\"} 2",
            "muster_relay_round_trip_seconds_count 2",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "no line {line:?} in\n{text}"
            );
        }
    }

    #[test]
    fn every_family_is_listed_once_and_named_as_prometheus_wants() {
        for (at, (name, kind, help)) in FAMILIES.iter().enumerate() {
            assert!(
                FAMILIES[..at].iter().all(|(other, ..)| other != name),
                "{name} twice"
            );
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(help.ends_with('.') && help.len() > 20, "{name}: {help}");
        }
    }
}
