//! Framing of a link: length-delimited control messages, and datagrams led by a flow id.
//!
//! A control message is a protobuf varint of its length, then the message (prost's `encode_length_delimited`), at
//! most [`MAX_CONTROL`] bytes. A datagram is a QUIC varint (RFC 9000 section 16) with the flow id, then the
//! payload (draft-ietf-avtcore-rtp-over-quic). Both decoders take any bytes and never panic; neither keeps more than
//! one message and one read. Nothing here does I/O but [`read_control`], which is cancel-safe.

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::LinkError;

/// Largest control message, bytes, without its length prefix.
pub const MAX_CONTROL: usize = 64 * 1024;
/// Largest flow id: 62 bits, as in RFC 9000.
pub const MAX_FLOW: u64 = (1 << 62) - 1;

/// Why bytes are no control message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MalformedControl {
    #[error("length prefix is no varint of at most 5 bytes")]
    Length,
    #[error("message of {0} bytes, expected at most {MAX_CONTROL}")]
    TooLarge(u64),
    #[error("not the protobuf message that was expected: {0}")]
    Message(prost::DecodeError),
}

/// The bytes of one control message with its length prefix.
///
/// # Errors
/// [`LinkError::ControlTooLarge`] if the message is over [`MAX_CONTROL`].
pub fn encode_control(message: &impl Message) -> Result<Bytes, LinkError> {
    let len = message.encoded_len();
    if len > MAX_CONTROL {
        return Err(LinkError::ControlTooLarge(len));
    }
    Ok(message.encode_length_delimited_to_vec().into())
}

/// Takes one whole message off the front of `buffer`; `None` while it is not all there.
///
/// # Errors
/// [`MalformedControl`]; the stream is of no use afterwards.
pub fn decode_control<M: Message + Default>(buffer: &mut BytesMut) -> Result<Option<M>, MalformedControl> {
    let mut len = 0u64;
    let mut prefix = 0;
    loop {
        if prefix == 5 {
            return Err(MalformedControl::Length);
        }
        let Some(&byte) = buffer.get(prefix) else {
            return Ok(None);
        };
        len |= u64::from(byte & 0x7f) << (7 * prefix);
        prefix += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    if len > MAX_CONTROL as u64 {
        return Err(MalformedControl::TooLarge(len));
    }
    let len = len as usize;
    if buffer.len() < prefix + len {
        return Ok(None);
    }
    buffer.advance(prefix);
    let body = buffer.split_to(len).freeze();
    M::decode(body).map(Some).map_err(MalformedControl::Message)
}

/// The next control message of `stream`; `buffer` keeps what was read beyond it. Cancel-safe.
///
/// # Errors
/// [`LinkError::ControlEnded`] at the end of the stream or when it breaks, [`LinkError::Malformed`] for bad bytes.
pub async fn read_control<M: Message + Default>(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> Result<M, LinkError> {
    loop {
        if let Some(message) = decode_control(buffer)? {
            return Ok(message);
        }
        buffer.reserve(4096);
        match stream.read_buf(buffer).await {
            Ok(0) | Err(_) => return Err(LinkError::ControlEnded),
            Ok(_) => {}
        }
    }
}

/// Appends a flow id as a QUIC varint. Ids over [`MAX_FLOW`] are cut to 62 bits.
pub fn put_flow(flow: u64, out: &mut BytesMut) {
    let flow = flow & MAX_FLOW;
    match flow {
        0..0x40 => out.extend_from_slice(&[flow as u8]),
        0x40..0x4000 => out.extend_from_slice(&(flow as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => out.extend_from_slice(&(flow as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend_from_slice(&(flow | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

/// The flow id at the front of a datagram, and the rest; `None` if it is cut short.
pub fn split_flow(mut datagram: Bytes) -> Option<(u64, Bytes)> {
    let first = *datagram.first()?;
    let len = 1usize << (first >> 6);
    if datagram.len() < len {
        return None;
    }
    let mut flow = u64::from(first & 0x3f);
    for &byte in &datagram[1..len] {
        flow = flow << 8 | u64::from(byte);
    }
    datagram.advance(len);
    Some((flow, datagram))
}

#[cfg(test)]
mod tests {
    use muster_proto::media::v1::{LinkJoin, LinkUp, SetViewRequest, SlotWish, link_up};
    use proptest::prelude::*;

    use super::*;

    fn join(token: &str) -> LinkUp {
        LinkUp {
            message: Some(link_up::Message::Join(LinkJoin {
                token: token.into(),
                ..Default::default()
            })),
        }
    }

    #[test]
    fn a_message_over_the_limit_is_refused_by_both_ends() {
        let wish = SlotWish {
            slot: "s".repeat(MAX_CONTROL),
            ..Default::default()
        };
        let view = LinkUp {
            message: Some(link_up::Message::SetView(SetViewRequest { wishes: vec![wish] })),
        };
        assert!(matches!(
            encode_control(&view),
            Err(LinkError::ControlTooLarge(_))
        ));

        let bytes = view.encode_length_delimited_to_vec();
        let mut buffer = BytesMut::from(&bytes[..5]);
        assert!(matches!(
            decode_control::<LinkUp>(&mut buffer),
            Err(MalformedControl::TooLarge(_))
        ));
    }

    #[test]
    fn an_endless_length_is_refused() {
        let mut buffer = BytesMut::from(&[0xff; 10][..]);
        assert_eq!(
            decode_control::<LinkUp>(&mut buffer),
            Err(MalformedControl::Length)
        );
    }

    proptest! {
        #[test]
        fn flow_ids_come_back(flow in 0..=MAX_FLOW, payload: Vec<u8>) {
            let mut out = BytesMut::new();
            put_flow(flow, &mut out);
            out.extend_from_slice(&payload);
            let (back, rest) = split_flow(out.freeze()).expect("whole");
            prop_assert_eq!(back, flow);
            prop_assert_eq!(&rest[..], &payload[..]);
        }

        #[test]
        fn small_flow_ids_come_back(flow in 0..0x2_0000u64) {
            let mut out = BytesMut::new();
            put_flow(flow, &mut out);
            let whole = out.freeze();
            prop_assert_eq!(split_flow(whole.clone()).map(|f| f.0), Some(flow));
            prop_assert_eq!(split_flow(whole.slice(..whole.len() - 1)), None);
        }

        #[test]
        fn messages_come_back_however_the_stream_is_cut(tokens in prop::collection::vec("[a-z]{0,300}", 1..5), cut in 1usize..50) {
            let messages: Vec<LinkUp> = tokens.iter().map(|t| join(t)).collect();
            let mut bytes = Vec::new();
            for message in &messages {
                bytes.extend_from_slice(&encode_control(message).expect("small"));
            }
            let mut buffer = BytesMut::new();
            let mut back = Vec::new();
            for chunk in bytes.chunks(cut) {
                buffer.extend_from_slice(chunk);
                while let Some(message) = decode_control::<LinkUp>(&mut buffer).expect("well formed") {
                    back.push(message);
                }
            }
            prop_assert_eq!(back, messages);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn junk_never_panics(junk: Vec<u8>) {
            let mut buffer = BytesMut::from(&junk[..]);
            while let Ok(Some(_)) = decode_control::<LinkUp>(&mut buffer) {}
            let _ = split_flow(junk.into());
        }
    }
}
