//! ICE-lite (RFC 8445, section 2.5): answers connectivity checks and never sends any.
//!
//! Invariant: an address is in the table only after a check with the right password from it, and
//! we send only to such an address. Where to: the address nominated last, or before any nomination
//! the first that passed. A check counts once: MESSAGE-INTEGRITY does not cover the address that a
//! check comes from, so whoever overhears one could else move the media by sending it again.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rtc_stun::attributes::{
    ATTR_FINGERPRINT, ATTR_ICE_CONTROLLED, ATTR_MESSAGE_INTEGRITY, ATTR_USE_CANDIDATE, ATTR_USERNAME,
};
use rtc_stun::error_code::{CODE_ROLE_CONFLICT, ErrorCodeAttribute};
use rtc_stun::fingerprint::FINGERPRINT;
use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::message::{BINDING_ERROR, BINDING_REQUEST, BINDING_SUCCESS, Message, Setter, TransactionId};
use rtc_stun::xoraddr::XorMappedAddress;

use crate::crypto::provider;
use crate::event::Ignored;
use crate::leg::IceCredentials;

/// The peer is gone when neither a valid check nor authentic media came for this long (RFC 7675
/// allows 30 s; pictures do not).
pub(crate) const CONSENT: Duration = Duration::from_secs(10);
/// Addresses of one peer that are remembered; the oldest goes first.
const MAX_ADDRESSES: usize = 8;
/// Checks that are remembered, so that none counts twice: twenty minutes of a steady peer's.
const MAX_CHECKS: usize = 512;
/// The longest STUN message that is read, in bytes.
const MAX_STUN: usize = 1500;

struct Generation {
    local: IceCredentials,
    remote_ufrag: String,
}

pub(crate) struct IceLite {
    current: Generation,
    /// Before a restart; valid until the current one is used.
    previous: Option<Generation>,
    addresses: Vec<SocketAddr>,
    selected: Option<SocketAddr>,
    nominated: bool,
    last_valid: Instant,
    /// Transaction ids of the latest valid checks, and where they came from.
    checks: VecDeque<([u8; 12], SocketAddr)>,
}

impl IceLite {
    pub(crate) fn new(now: Instant, local: IceCredentials, remote_ufrag: String) -> Self {
        Self {
            current: Generation { local, remote_ufrag },
            previous: None,
            addresses: Vec::new(),
            selected: None,
            nominated: false,
            last_valid: now,
            checks: VecDeque::new(),
        }
    }

    pub(crate) fn local(&self) -> &IceCredentials {
        &self.current.local
    }

    pub(crate) fn remote_ufrag(&self) -> &str {
        &self.current.remote_ufrag
    }

    /// Where to send; None until a check passed.
    pub(crate) fn selected(&self) -> Option<SocketAddr> {
        self.selected
    }

    pub(crate) fn knows(&self, address: SocketAddr) -> bool {
        self.addresses.contains(&address)
    }

    pub(crate) fn addresses(&self) -> usize {
        self.addresses.len()
    }

    /// When consent ends unless a check comes.
    pub(crate) fn expires(&self) -> Instant {
        self.last_valid + CONSENT
    }

    /// Something authentic came from a known address: who sends us media is there, though some
    /// peers check once and never again. (RFC 7675 asks nothing of a lite end.)
    pub(crate) fn heard(&mut self, now: Instant) {
        self.last_valid = self.last_valid.max(now);
    }

    pub(crate) fn restart(&mut self, local: IceCredentials, remote_ufrag: &str) {
        let next = Generation {
            local,
            remote_ufrag: remote_ufrag.to_owned(),
        };
        // A second restart before the first is used keeps the generation that works.
        let replaced = std::mem::replace(&mut self.current, next);
        self.previous.get_or_insert(replaced);
    }

    /// Takes a STUN datagram; returns the response to send back to `from`.
    pub(crate) fn handle(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<Vec<u8>, Ignored> {
        let mut request = parse(datagram)?;
        let username = request.get(ATTR_USERNAME).map_err(|_| Ignored::StunMalformed)?;
        let is_current = self.current.takes(&username);
        let generation = if is_current {
            &self.current
        } else {
            self.previous
                .as_ref()
                .filter(|g| g.takes(&username))
                .ok_or(Ignored::StunWrongCredentials)?
        };
        let crypto = provider().crypto();
        let key = generation.local.pwd.as_bytes();
        MessageIntegrity::check(&mut request, key, crypto).map_err(|_| Ignored::StunWrongCredentials)?;
        let pwd = generation.local.pwd.clone();
        if request.contains(ATTR_ICE_CONTROLLED) {
            // A lite end cannot take the controlling role (RFC 8445, 7.3.1.1).
            let conflict = ErrorCodeAttribute {
                code: CODE_ROLE_CONFLICT,
                reason: b"Role Conflict".to_vec(),
            };
            return respond(&request, Box::new(BINDING_ERROR), Box::new(conflict), pwd);
        }
        if self.is_first(request.transaction_id.0, from)? {
            self.passed(now, from, is_current, request.contains(ATTR_USE_CANDIDATE));
        }
        let mapped = XorMappedAddress {
            // A shell may write the IPv4 address of a TCP peer as IPv6.
            ip: from.ip().to_canonical(),
            port: from.port(),
        };
        respond(&request, Box::new(BINDING_SUCCESS), Box::new(mapped), pwd)
    }

    /// False for a check that is repeated, as its sender may where an answer is lost (RFC 8489, 6.2.1).
    fn is_first(&mut self, id: [u8; 12], from: SocketAddr) -> Result<bool, Ignored> {
        if let Some((_, before)) = self.checks.iter().find(|(known, _)| *known == id) {
            return if *before == from {
                Ok(false)
            } else {
                Err(Ignored::StunReplayed)
            };
        }
        if self.checks.len() >= MAX_CHECKS {
            self.checks.pop_front();
        }
        self.checks.push_back((id, from));
        Ok(true)
    }

    fn passed(&mut self, now: Instant, from: SocketAddr, is_current: bool, use_candidate: bool) {
        self.last_valid = self.last_valid.max(now);
        if is_current && self.previous.take().is_some() {
            // The restart took effect: the new generation nominates afresh.
            self.nominated = false;
            self.selected = None;
        }
        if !self.knows(from) {
            if self.addresses.len() >= MAX_ADDRESSES {
                let oldest = self.addresses.iter().position(|a| Some(*a) != self.selected);
                self.addresses.remove(oldest.unwrap_or(0));
            }
            self.addresses.push(from);
        }
        if use_candidate {
            self.nominated = true;
            self.selected = Some(from);
        } else if !self.nominated && self.selected.is_none() {
            self.selected = Some(from);
        }
    }
}

impl Generation {
    /// USERNAME of a request to us is `ours:theirs`.
    fn takes(&self, username: &[u8]) -> bool {
        let mut parts = username.splitn(2, |b| *b == b':');
        parts.next() == Some(self.local.ufrag.as_bytes())
            && parts.next() == Some(self.remote_ufrag.as_bytes())
    }
}

/// A well-formed binding request with MESSAGE-INTEGRITY and a right FINGERPRINT.
fn parse(datagram: &[u8]) -> Result<Message, Ignored> {
    let malformed = Ignored::StunMalformed;
    if datagram.len() < 20 || datagram.len() > MAX_STUN {
        return Err(malformed);
    }
    let length = usize::from(u16::from_be_bytes([datagram[2], datagram[3]]));
    if length + 20 != datagram.len() || length % 4 != 0 {
        return Err(malformed);
    }
    let mut message = Message::new();
    message
        .unmarshal_binary(datagram)
        .map_err(|_| Ignored::StunMalformed)?;
    let last = message.attributes.0.last().map(|a| a.typ);
    let integrity = message
        .attributes
        .0
        .iter()
        .filter(|a| a.typ == ATTR_MESSAGE_INTEGRITY);
    if message.typ != BINDING_REQUEST
        || last != Some(ATTR_FINGERPRINT)
        || integrity.map(|a| a.value.len()).ne([20])
        || FINGERPRINT.check(&message).is_err()
    {
        return Err(malformed);
    }
    Ok(message)
}

fn respond(
    request: &Message,
    kind: Box<dyn Setter>,
    content: Box<dyn Setter>,
    pwd: String,
) -> Result<Vec<u8>, Ignored> {
    let mut response = Message::new();
    let integrity = MessageIntegrity::new_short_term_integrity_with_provider(pwd, provider().crypto());
    response
        .build(&[
            Box::new(TransactionId(request.transaction_id.0)),
            kind,
            content,
            Box::new(integrity),
            Box::new(FINGERPRINT),
        ])
        .map_err(|_| Ignored::StunMalformed)?;
    Ok(response.raw)
}

/// The local username fragment that a STUN binding request is for, to find its leg by.
///
/// Nothing is authenticated here. None for anything that is not a binding request with USERNAME.
pub fn stun_ufrag(datagram: &[u8]) -> Option<&str> {
    const BINDING: [u8; 2] = [0x00, 0x01];
    const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
    if datagram.len() < 20 || datagram[..2] != BINDING || datagram[4..8] != COOKIE {
        return None;
    }
    let mut rest = &datagram[20..];
    while let Some((header, body)) = rest.split_at_checked(4) {
        let kind = u16::from_be_bytes([header[0], header[1]]);
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let value = body.get(..length)?;
        if kind == ATTR_USERNAME.0 {
            let text = std::str::from_utf8(value).ok()?;
            return text.split(':').next();
        }
        rest = body.get(length.next_multiple_of(4)..)?;
    }
    None
}
