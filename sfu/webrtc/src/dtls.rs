//! The DTLS 1.2 end of a leg, by rtc-dtls: it agrees on the SRTP keys and hears close_notify.
//!
//! It is the server, unless the offer says that the peer is (`a=setup:passive`, as ffmpeg's).
//! Invariants: the client's certificate must have a fingerprint of the offer; datagrams reach the
//! DTLS crate only well-formed and within a budget, since it buffers what it cannot use yet;
//! application data never reaches it (there are no data channels).

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rtc_dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_shared::TransportProtocol;
use rtc_shared::error::Error;

use crate::certificate::{Certificate, Fingerprint};
use crate::client_hello::{ClientHello, Hello, records};
use crate::crypto::provider;
use crate::event::Ignored;
use crate::srtp::{Profile, Srtp};

/// DTLS bytes taken before the handshake is complete.
const MAX_HANDSHAKE: usize = 128 * 1024;
/// DTLS bytes taken after it: repeated last flights and one alert.
const MAX_AFTER: usize = 32 * 1024;
/// Datagrams held back until the ClientHello is whole.
const MAX_HELD: usize = 32;
/// First retransmission; a loaded relay and a village link both answer within it.
const FLIGHT_INTERVAL: Duration = Duration::from_millis(500);
/// What a client of ours offers, the best first.
const PROFILES: [Profile; 2] = [Profile::AeadAes128Gcm, Profile::Aes128CmHmacSha1_80];
/// The exporter label of RFC 5764.
const LABEL: &str = "EXTRACTOR-dtls_srtp";

/// The DTLS crate tells associations apart by address, but ours survives a change of address
/// (ICE nominates another), so it is always shown this one.
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

enum State {
    /// Waiting for a whole ClientHello.
    Hello(ClientHello, Vec<Vec<u8>>),
    /// The client before the peer's address is known.
    Client,
    /// With the profile that it must end with; a client takes what the server has chosen.
    Handshake(Box<Endpoint>, Option<Profile>),
    Connected(Box<Endpoint>),
    Over,
}

/// What a datagram brought about.
pub(crate) enum Progress {
    Nothing,
    Keys(Box<Srtp>),
    PeerClosed,
    Failed,
}

pub(crate) struct Dtls {
    state: State,
    certificate: Arc<Certificate>,
    fingerprints: Arc<[Fingerprint]>,
    taken: usize,
    budget: usize,
    /// What the keys are for, once they are agreed.
    profile: Option<Profile>,
}

impl Dtls {
    pub(crate) fn new(
        certificate: Arc<Certificate>,
        fingerprints: Vec<Fingerprint>,
        is_client: bool,
    ) -> Self {
        Self {
            state: if is_client {
                State::Client
            } else {
                State::Hello(ClientHello::default(), Vec::new())
            },
            certificate,
            fingerprints: fingerprints.into(),
            taken: 0,
            budget: MAX_HANDSHAKE,
            profile: None,
        }
    }

    /// The profile that was agreed; None before the keys are.
    pub(crate) fn profile(&self) -> Option<Profile> {
        self.profile
    }

    /// Bytes taken since the start.
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }

    /// The peer's address is known: a client says hello, once. False if it cannot.
    pub(crate) fn start(&mut self, now: Instant) -> bool {
        if !matches!(self.state, State::Client) {
            return true;
        }
        self.state = State::Over;
        let Some(config) = self.config(&PROFILES, true) else {
            return false;
        };
        let mut endpoint = Endpoint::new(PEER, TransportProtocol::UDP, None);
        let started = endpoint.connect(now, PEER, Arc::new(config), None).is_ok();
        self.state = State::Handshake(Box::new(endpoint), None);
        started
    }

    /// Takes a datagram from an address that ICE has validated.
    pub(crate) fn handle(&mut self, now: Instant, datagram: &[u8]) -> Result<Progress, Ignored> {
        let mut only_application_data = true;
        for record in records(datagram) {
            let (kind, _, _) = record.ok_or(Ignored::DtlsMalformed)?;
            only_application_data &= kind == 23;
        }
        if only_application_data {
            return Err(Ignored::DtlsMalformed);
        }
        if datagram.len() > self.budget {
            return Err(Ignored::DtlsTooMuch);
        }
        self.budget -= datagram.len();
        self.taken += datagram.len();
        let first = match &mut self.state {
            State::Hello(hello, held) => {
                if held.len() >= MAX_HELD {
                    return Err(Ignored::DtlsTooMuch);
                }
                held.push(datagram.to_vec());
                match hello.push(datagram) {
                    Hello::Partial => return Ok(Progress::Nothing),
                    Hello::Whole(profile) => Some((profile, std::mem::take(held))),
                }
            }
            _ => None,
        };
        let Some((profile, held)) = first else {
            return Ok(self.read(now, datagram));
        };
        let Some((profile, config)) = profile.and_then(|p| Some((p, self.config(&[p], false)?))) else {
            self.state = State::Over;
            return Ok(Progress::Failed);
        };
        let endpoint = Endpoint::new(PEER, TransportProtocol::UDP, Some(Arc::new(config)));
        self.state = State::Handshake(Box::new(endpoint), Some(profile));
        let mut progress = Progress::Nothing;
        for datagram in held {
            progress = self.read(now, &datagram);
        }
        Ok(progress)
    }

    fn read(&mut self, now: Instant, datagram: &[u8]) -> Progress {
        let (State::Handshake(endpoint, _) | State::Connected(endpoint)) = &mut self.state else {
            return Progress::Nothing;
        };
        match endpoint.read(now, PEER, None, BytesMut::from(datagram)) {
            Ok(events) => {
                let mut complete = false;
                for event in events {
                    match event {
                        EndpointEvent::HandshakeComplete => complete = true,
                        EndpointEvent::PeerClosed => return Progress::PeerClosed,
                        _ => {}
                    }
                }
                if complete {
                    self.connected()
                } else {
                    Progress::Nothing
                }
            }
            // After the handshake an alert is authentic, and anything else is noise.
            Err(Error::ErrAlertFatalOrClose) if matches!(self.state, State::Connected(_)) => {
                Progress::PeerClosed
            }
            Err(_) if matches!(self.state, State::Connected(_)) => Progress::Nothing,
            Err(_) => Progress::Failed,
        }
    }

    fn connected(&mut self) -> Progress {
        let (endpoint, profile) = match std::mem::replace(&mut self.state, State::Over) {
            State::Handshake(endpoint, profile) => (endpoint, profile),
            other => {
                self.state = other;
                return Progress::Nothing;
            }
        };
        self.budget = MAX_AFTER;
        let keys = endpoint.get_connection_state(PEER).and_then(|s| {
            let number = s.srtp_protection_profile() as u16;
            let chosen = PROFILES.into_iter().find(|p| p.number() == number)?;
            if profile.is_some_and(|expected| expected != chosen) {
                return None;
            }
            let material = s
                .export_keying_material(LABEL, &[], chosen.keying_length())
                .ok()?;
            let keys = Srtp::from_material(chosen, material.as_ref(), profile.is_none())?;
            Some((chosen, keys))
        });
        self.state = State::Connected(endpoint);
        self.profile = keys.as_ref().map(|(chosen, _)| *chosen);
        keys.map_or(Progress::Failed, |(_, keys)| Progress::Keys(Box::new(keys)))
    }

    fn config(&self, profiles: &[Profile], is_client: bool) -> Option<HandshakeConfig> {
        let fingerprints = self.fingerprints.clone();
        ConfigBuilder::default()
            .with_crypto_provider(provider().clone())
            .with_certificates(vec![self.certificate.dtls.clone()])
            .with_srtp_protection_profiles(profiles.iter().copied().map(rtc_profile).collect())
            .with_client_auth(ClientAuthType::RequireAnyClientCert)
            .with_insecure_skip_verify(true) // of a CA chain; the fingerprint is what counts
            .with_extended_master_secret(ExtendedMasterSecretType::Require)
            .with_flight_interval(FLIGHT_INTERVAL)
            .with_verify_peer_certificate(Some(Arc::new(move |chain, _| {
                let leaf = chain.first().ok_or(Error::ErrNonCertificate)?;
                if fingerprints.iter().any(|f| f.is_of(leaf)) {
                    Ok(())
                } else {
                    Err(Error::ErrNoMatchingCertificateFingerprint)
                }
            })))
            .build(is_client, None)
            .ok()
    }

    /// Queues close_notify.
    pub(crate) fn close(&mut self, now: Instant) {
        if let State::Handshake(endpoint, _) | State::Connected(endpoint) = &mut self.state {
            // Errs only for an unknown association; then there is nobody to tell.
            let _ = endpoint.close(now);
        }
    }

    /// False when the handshake has exhausted its retransmissions.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        match &mut self.state {
            State::Handshake(endpoint, _) if endpoint.poll_timeout(&PEER).is_some() => {
                endpoint.handle_timeout(PEER, now).is_ok()
            }
            _ => true,
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Handshake(endpoint, _) => endpoint.poll_timeout(&PEER),
            _ => None,
        }
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        match &mut self.state {
            State::Handshake(endpoint, _) | State::Connected(endpoint) => {
                endpoint.poll_transmit().map(|t| t.message.to_vec())
            }
            _ => None,
        }
    }
}

fn rtc_profile(profile: Profile) -> SrtpProtectionProfile {
    SrtpProtectionProfile::from(profile.number())
}
