//! What this process counts, in Prometheus' text form at `GET /metrics` of the console's port.
//!
//! The recorder is the process's: control planes that share one (tests) count together. Invariant: a label names a way in, a
//! reason or a kind, never a person, a site, a meeting or an address, so the page may be shown to anyone.

use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::sync::OnceLock;

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Somebody was not let in: by which way, and why.
pub fn turned_away(way: &'static str, reason: &'static str) {
    metrics::counter!("muster_ways_in_refused_total", "way" => way, "reason" => reason).increment(1);
}

/// The router, with the page of the counters.
pub fn on(router: axum::Router) -> axum::Router {
    let handle = HANDLE.get_or_init(|| {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("the program counts elsewhere already: /metrics stays empty");
        }
        metrics::describe_counter!(
            "muster_ways_in_refused_total",
            "Who was not let in, by way (connection, tls, request, session, sign_in, endpoint, relay, enrolment) and reason."
        );
        metrics::describe_counter!(
            "muster_refused",
            "Commands of signed-in people that were refused, by word."
        );
        handle
    });
    let page = move || async move {
        handle.run_upkeep();
        (
            [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
            handle.render(),
        )
            .into_response()
    };
    router.route("/metrics", get(page))
}
