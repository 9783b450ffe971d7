//! QUIC parameters of a link, the same at both ends.
//!
//! A dead peer is noticed within 2 s. Datagram buffers are small: a picture that is late is worth nothing. One
//! bidirectional stream is allowed and no unidirectional one.

use std::sync::Arc;
use std::time::Duration;

use quinn::{IdleTimeout, TransportConfig, VarInt};

/// A peer that was not heard for this long is gone, ms.
const IDLE_MS: u32 = 2000;
const KEEP_ALIVE: Duration = Duration::from_millis(500);
/// Datagrams that wait for the wire, bytes: about a quarter of a second of full HD. The oldest go first.
pub(crate) const SEND_BUFFER: usize = 256 * 1024;
/// Datagrams that wait for the program, bytes.
const RECEIVE_BUFFER: usize = 512 * 1024;
/// UDP payload to begin with: what any path of IPv6's smallest MTU carries (1280 less 48), and what a browser's packets need.
const INITIAL_MTU: u16 = 1232;

pub(crate) fn config() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .datagram_send_buffer_size(SEND_BUFFER)
        .datagram_receive_buffer_size(Some(RECEIVE_BUFFER))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(256 * 1024))
        .receive_window(VarInt::from_u32(512 * 1024))
        .send_window(512 * 1024)
        .initial_mtu(INITIAL_MTU);
    Arc::new(config)
}
