//! A peer's end of the connection, sans I/O: connectivity checks, the DTLS client, SRTP.
//!
//! It does what a browser does and the other end can see, but for the pixels. Retransmission of lost datagrams is as in
//! the protocols, since a burst of joins may overflow a socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::BytesMut;
use rtc_dtls::config::HandshakeConfig;
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_shared::TransportProtocol;

use crate::keys::{Certificate, Srtp};
use crate::sdp::Remote;
use crate::stun::{self, Control, Told};

/// Between checks until one is answered.
const CHECK_AGAIN: Duration = Duration::from_millis(250);
/// Between checks after that, as browsers send them.
const CONSENT: Duration = Duration::from_millis(2500);

enum State {
    Checking(Arc<HandshakeConfig>),
    Handshake,
    Connected(Box<Srtp>),
}

pub struct Client {
    username: String,
    /// Theirs and ours.
    pwds: [String; 2],
    control: Control,
    relay: SocketAddr,
    dtls: Endpoint,
    state: State,
    next_check: Instant,
}

impl Client {
    /// `ufrag` and `pwd` are ours.
    pub fn new(
        now: Instant,
        (ufrag, pwd): (&str, &str),
        remote: &Remote,
        control: Control,
        certificate: &Certificate,
    ) -> anyhow::Result<Self> {
        let config = Arc::new(certificate.handshake(&remote.fingerprint)?);
        let local = SocketAddr::from(([127, 0, 0, 1], 1));
        Ok(Self {
            username: format!("{}:{ufrag}", remote.ufrag),
            pwds: [remote.pwd.clone(), pwd.to_owned()],
            control,
            relay: remote.candidate,
            dtls: Endpoint::new(local, TransportProtocol::UDP, None),
            state: State::Checking(config),
            next_check: now,
        })
    }

    pub fn is_connected(&self) -> bool {
        matches!(self.state, State::Connected(_))
    }

    /// The keys; None until connected.
    pub fn srtp(&mut self) -> Option<&mut Srtp> {
        match &mut self.state {
            State::Connected(srtp) => Some(srtp),
            _ => None,
        }
    }

    /// Takes STUN or DTLS; hands what is to be sent to `send`.
    pub fn handle(
        &mut self,
        now: Instant,
        datagram: &[u8],
        mut send: impl FnMut(&[u8]),
    ) -> anyhow::Result<()> {
        match datagram.first() {
            Some(0..=3) => self.handle_stun(now, datagram, &mut send)?,
            Some(20..=63) => self.handle_dtls(now, datagram)?,
            _ => {}
        }
        self.drain(send);
        Ok(())
    }

    fn handle_stun(
        &mut self,
        now: Instant,
        datagram: &[u8],
        mut send: impl FnMut(&[u8]),
    ) -> anyhow::Result<()> {
        let ready = match stun::read(datagram, self.relay, &self.pwds[1])? {
            Told::Asked { answer, nominated } => {
                send(&answer);
                nominated
            }
            Told::Answered => self.control == Control::Ours,
            Told::Nothing => false,
        };
        if let State::Checking(config) = &self.state
            && ready
        {
            self.dtls.connect(now, self.relay, config.clone(), None)?;
            self.state = State::Handshake;
            self.next_check = now + CONSENT;
        }
        Ok(())
    }

    fn handle_dtls(&mut self, now: Instant, datagram: &[u8]) -> anyhow::Result<()> {
        let events = self.dtls.read(now, self.relay, None, BytesMut::from(datagram))?;
        for event in events {
            match event {
                EndpointEvent::HandshakeComplete => {
                    let state = self
                        .dtls
                        .get_connection_state(self.relay)
                        .context("no DTLS state")?;
                    self.state = State::Connected(Box::new(Srtp::of(state)?));
                }
                EndpointEvent::PeerClosed => anyhow::bail!("the relay has closed the leg"),
                _ => {}
            }
        }
        Ok(())
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant, mut send: impl FnMut(&[u8])) -> anyhow::Result<()> {
        if now >= self.next_check {
            let checking = matches!(self.state, State::Checking(_));
            self.next_check = now + if checking { CHECK_AGAIN } else { CONSENT };
            send(&stun::binding_request(
                &self.username,
                &self.pwds[0],
                self.control,
            )?);
        }
        if matches!(self.state, State::Handshake) {
            let due = self.dtls.poll_timeout(&self.relay).is_some_and(|at| at <= now);
            if due {
                self.dtls.handle_timeout(self.relay, now)?;
            }
            self.drain(send);
        }
        Ok(())
    }

    fn drain(&mut self, mut send: impl FnMut(&[u8])) {
        while let Some(transmit) = self.dtls.poll_transmit() {
            send(&transmit.message);
        }
    }
}
