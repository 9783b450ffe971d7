//! What can go wrong on a link. Every variant is bad input or a lost peer, never a bug of ours.

use crate::framing::{MAX_CONTROL, MalformedControl};

/// Why a link could not be made, or has ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("`{0}` is no address of a relay's link, expected HOST:PORT: {1}")]
    Address(String, std::io::Error),
    #[error("no usable certificate for links: {0}")]
    Credentials(String),
    #[error("cannot open a socket for links: {0}")]
    Socket(std::io::Error),
    #[error("no tunnel of TLS over TCP: {0}")]
    Tunnel(std::io::Error),
    #[error("cannot start the connection: {0}")]
    Start(#[from] quinn::ConnectError),
    #[error("the connection was lost or refused: {0}")]
    Lost(#[from] quinn::ConnectionError),
    #[error("the peer's certificate names no identity of ours")]
    Stranger,
    #[error("the peer did not {0} in time")]
    Timeout(&'static str),
    #[error("expected {expected} on the control stream, got something else")]
    Unexpected { expected: &'static str },
    #[error(
        "the peer speaks version {theirs} of the link protocol, expected {}",
        crate::VERSION
    )]
    Version { theirs: u32 },
    #[error("bad control stream: {0}")]
    Malformed(#[from] MalformedControl),
    #[error("the control stream has ended")]
    ControlEnded,
    #[error("the peer does not read its control stream: the queue of messages to it is full")]
    ControlFull,
    #[error("a control message of {0} bytes is over the limit of {MAX_CONTROL}")]
    ControlTooLarge(usize),
    #[error("a datagram of {size} bytes does not fit the path, at most {limit} do")]
    DatagramTooLarge { size: usize, limit: usize },
}

impl LinkError {
    /// Whether the peer closed the connection on purpose.
    pub fn is_hung_up(&self) -> bool {
        matches!(self, Self::Lost(quinn::ConnectionError::ApplicationClosed(_)))
    }
}
