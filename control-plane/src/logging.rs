//! What may be logged, whatever is asked for.
//!
//! Libraries that carry requests would write headers and messages, and with them tokens and people's names, at their lowest
//! levels: those are left out even where everything is asked for.

use tracing_subscriber::EnvFilter;

/// Carriers of what people and programs say.
const CARRIERS: [&str; 10] = [
    "h2",
    "hyper",
    "hyper_util",
    "tonic",
    "tower",
    "axum",
    "rustls",
    "tokio_rustls",
    "sqlx",
    "async_nats",
];

/// A filter by these directives (`info`, `muster_control_plane=debug`, `trace`); what is none of them is passed over.
pub fn filter(directives: &str) -> EnvFilter {
    let filter = EnvFilter::new(directives);
    CARRIERS.iter().fold(filter, |filter, carrier| {
        match format!("{carrier}=info").parse() {
            Ok(directive) => filter.add_directive(directive),
            Err(_) => filter,
        }
    })
}
