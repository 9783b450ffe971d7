//! QUIC parameters of a link, the same at both ends.
//!
//! A connection outlives an outage of [`IDLE_MS`]: what is silent for less is told by [`crate::LinkHealth`], and whoever owns
//! the link decides what that means. Datagrams wait in the repair core, so QUIC's own buffers are small. One bidirectional
//! stream is allowed and no unidirectional one. The size of datagrams is fixed: a search for a larger one takes random loss
//! for a hole in the path, and no packet of ours is larger.

use std::sync::Arc;
use std::time::Duration;

use quinn::{AckFrequencyConfig, EndpointConfig, IdleTimeout, TransportConfig, VarInt};

use crate::tunnel::Ids;
use crate::window::LinkWindows;

/// A peer that was not heard for this long is gone, ms.
pub(crate) const IDLE_MS: u32 = 12_000;
const KEEP_ALIVE: Duration = Duration::from_millis(500);
/// Datagrams that wait for the wire, bytes. The oldest go first.
const SEND_BUFFER: usize = 256 * 1024;
/// Datagrams that wait for the program, bytes.
const RECEIVE_BUFFER: usize = 512 * 1024;
/// UDP payload: what any path of IPv6's smallest MTU carries (1280 less 48), and what a browser's packets need.
const MTU: u16 = 1232;
/// Round trip that is thought of before one was measured: a lost first packet is sent again after three of them.
const FIRST_RTT: Duration = Duration::from_millis(100);
/// QUIC's own acknowledgements decide nothing here (the core has its feedback): a few are enough.
const PACKETS_AN_ACK: u32 = 24;
const ACK_DELAY: Duration = Duration::from_millis(100);

pub(crate) fn config() -> Arc<TransportConfig> {
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(PACKETS_AN_ACK))
        .max_ack_delay(Some(ACK_DELAY))
        .reordering_threshold(VarInt::from_u32(0));
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
        .initial_mtu(MTU)
        .min_mtu(MTU)
        .mtu_discovery_config(None)
        .initial_rtt(FIRST_RTT)
        .ack_frequency_config(Some(acks))
        .congestion_controller_factory(Arc::new(LinkWindows));
    Arc::new(config)
}

/// Bytes of a connection's id: every packet has one. A relay's worker has a few thousand links, and an id is chosen anew where
/// it is taken.
pub(crate) const ID_BYTES: usize = 5;

/// Parameters of a socket that links share.
pub(crate) fn endpoint() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.cid_generator(|| Box::new(quinn_proto::RandomConnectionIdGenerator::new(ID_BYTES)));
    config
}

/// The same for a socket of one link, which notes the ids that its connection goes by.
pub(crate) fn endpoint_of(ids: Arc<Ids>) -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.cid_generator(move || ids.generator());
    config
}
