//! Counters of one relay, in Prometheus' text form at `GET /metrics`.
//!
//! The recorder belongs to the relay, not to the process, so that several relays (or a control plane) may share
//! one. Handles are made once and are atomics: counting on the packet path costs no lookup.

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

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
    pub legs: Gauge,
    pub joins: Counter,
    pub reports_dropped: Counter,
    pub key_frames_asked: Counter,
    /// Seconds from the receive call's return to the end of the send call: of one send call in 64, its oldest packet.
    pub forward_seconds: Histogram,
}

/// In seconds.
const FORWARD_SECONDS: &str = "muster_relay_forward_seconds";
const FORWARD_BUCKETS: [f64; 10] = [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1];

const METADATA: Metadata<'static> = Metadata::new("muster_sfu", Level::INFO, None);

impl Metrics {
    pub fn new() -> Self {
        let forward = Matcher::Full(FORWARD_SECONDS.to_owned());
        let builder = PrometheusBuilder::new();
        let builder = match builder.set_buckets_for_metric(forward, &FORWARD_BUCKETS) {
            Ok(builder) => builder,
            // Only for an empty list.
            Err(_) => PrometheusBuilder::new(),
        };
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        let counter = |name: &'static str| recorder.register_counter(&Key::from_static_name(name), &METADATA);
        Self {
            packets_in: counter("muster_relay_packets_in_total"),
            packets_out: counter("muster_relay_packets_out_total"),
            bytes_in: counter("muster_relay_bytes_in_total"),
            bytes_out: counter("muster_relay_bytes_out_total"),
            send_calls: counter("muster_relay_send_calls_total"),
            receive_calls: counter("muster_relay_receive_calls_total"),
            ring_dropped: counter("muster_relay_ring_dropped_total"),
            ring_packets: counter("muster_relay_ring_packets_total"),
            legs: recorder.register_gauge(&Key::from_static_name("muster_relay_legs"), &METADATA),
            joins: counter("muster_relay_joins_total"),
            reports_dropped: counter("muster_relay_reports_dropped_total"),
            key_frames_asked: counter("muster_relay_key_frames_asked_total"),
            forward_seconds: recorder.register_histogram(&Key::from_static_name(FORWARD_SECONDS), &METADATA),
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

    /// A leg whose SRTP keys were agreed, by the profile they are for.
    pub fn keys_agreed(&self, profile: &'static str) {
        let label = Label::from_static_parts("profile", profile);
        let key = Key::from_parts("muster_relay_srtp_agreed_total", vec![label]);
        self.recorder.register_counter(&key, &METADATA).increment(1);
    }

    pub fn render(&self) -> String {
        self.handle.render()
    }
}
