//! The link's bytes: control messages on a stream, flow ids and RTP in datagrams.

use bytes::BytesMut;

use crate::framing::{
    MAX_CONTROL, MAX_FLOW, MalformedControl, decode_control, encode_control, put_flow, split_flow,
};
use crate::rtp_of_links::LinkRtp;

/// What `framing` calls by this name; the link's own has more kinds.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("bad control stream: {0}")]
    Malformed(#[from] MalformedControl),
    #[error("the control stream has ended")]
    ControlEnded,
    #[error("{0} bytes")]
    ControlTooLarge(usize),
}

/// A control stream, whole and cut into pieces: both give the same messages, and those come back when written.
pub fn link_framing(data: &[u8]) {
    let mut whole = BytesMut::from(data);
    let mut messages = Vec::new();
    let mut bad = false;
    loop {
        // prost reads raw bytes as a message with one field of bytes.
        match decode_control::<Vec<u8>>(&mut whole) {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => break,
            Err(_) => {
                bad = true;
                break;
            }
        }
    }
    let mut buffer = BytesMut::new();
    let mut pieces = Vec::new();
    let mut bad_in_pieces = false;
    'stream: for piece in data.chunks(7) {
        buffer.extend_from_slice(piece);
        loop {
            match decode_control::<Vec<u8>>(&mut buffer) {
                Ok(Some(message)) => pieces.push(message),
                Ok(None) => break,
                Err(_) => {
                    bad_in_pieces = true;
                    break 'stream;
                }
            }
        }
        assert!(
            buffer.len() <= MAX_CONTROL + 5 + 7,
            "more is kept than one message"
        );
    }
    assert_eq!((pieces, bad_in_pieces), (messages.clone(), bad));
    for message in messages {
        let mut written = BytesMut::from(&encode_control(&message).expect("it fitted before")[..]);
        assert_eq!(decode_control(&mut written), Ok(Some(message)));
    }
}

/// A datagram: flow id and RTP are written as they were read.
pub fn link_rtp(data: &[u8]) {
    let Some((flow, rest)) = split_flow(data.to_vec().into()) else {
        return;
    };
    assert!(flow <= MAX_FLOW);
    let mut out = BytesMut::new();
    put_flow(flow, &mut out);
    assert_eq!(split_flow(out.freeze()).map(|(flow, _)| flow), Some(flow));
    let Ok(rtp) = LinkRtp::parse(&rest) else {
        return;
    };
    let mut scratch = BytesMut::new();
    let datagram = rtp.to_datagram(flow, &mut scratch);
    assert!(datagram.len() <= rtp.payload.len() + 28);
    let (again, rest) = split_flow(datagram).expect("our own");
    assert_eq!((again, LinkRtp::parse(&rest)), (flow, Ok(rtp)));
}
