//! A relay that takes links, checks what the agent does on them, and can die without a word.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use muster_identity::{Credentials, Identity, TokenVerifier};
use muster_link::rtp::{LinkRtp, PT_H264, PT_VP8};
use muster_link::{LinkServer, RelaySender};
use muster_proto::media::v1::{LinkDown, LinkJoined, LinkRefused, link_down, link_up};
use muster_testcard::rtp::Depacketizer;
use muster_testcard::{Decoder, Mark};
use tokio::runtime::Runtime;

use crate::world::{H264Packet, MEETING, SITE, SLOT_FLOWS, Seen};

pub struct Relay {
    pub address: SocketAddr,
    /// UDP packets to its address vanish here.
    _blackhole: Option<UdpSocket>,
    /// Of its own, so that it can die with all its links.
    runtime: Option<Runtime>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime")
}

impl Relay {
    pub fn start(id: &'static str, credentials: &Credentials, seen: Arc<Mutex<Seen>>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("an address");
        Self::serve(id, (socket, None), address, credentials, seen)
    }

    /// As if a firewall dropped UDP: TCP alone gets through to its address.
    pub fn start_without_udp(id: &'static str, credentials: &Credentials, seen: Arc<Mutex<Seen>>) -> Self {
        let ports = (0..50).find_map(|_| {
            let blackhole = UdpSocket::bind("127.0.0.1:0").expect("a port");
            let listener = TcpListener::bind(blackhole.local_addr().expect("an address")).ok()?;
            Some((blackhole, listener))
        });
        let (blackhole, listener) = ports.expect("a number that is free for both");
        let address = blackhole.local_addr().expect("an address");
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let mut relay = Self::serve(id, (socket, Some(listener)), address, credentials, seen);
        relay._blackhole = Some(blackhole);
        relay
    }

    fn serve(
        id: &'static str,
        (socket, tcp): (UdpSocket, Option<TcpListener>),
        address: SocketAddr,
        credentials: &Credentials,
        seen: Arc<Mutex<Seen>>,
    ) -> Self {
        let runtime = runtime();
        let server = {
            let _inside = runtime.enter();
            LinkServer::bind_with(socket, tcp, credentials).expect("a server of links")
        };
        let verifier = Arc::new(TokenVerifier::from_pem(&credentials.token_key_pem).expect("a key"));
        runtime.spawn(async move {
            while let Some(arriving) = server.accept().await {
                tokio::spawn(serve_link(id, arriving, seen.clone(), verifier.clone()));
            }
        });
        Self {
            address,
            _blackhole: None,
            runtime: Some(runtime),
        }
    }

    /// Dies with its links; nobody is told.
    pub fn kill(&mut self) {
        let runtime = self.runtime.take().expect("it lives");
        runtime.shutdown_background();
    }
}

async fn serve_link(
    id: &'static str,
    arriving: muster_link::Arriving,
    seen: Arc<Mutex<Seen>>,
    verifier: Arc<TokenVerifier>,
) {
    let mut link = arriving.finish().await.expect("an agent that shakes hands");
    assert_eq!(link.peer, Identity::Agent(SITE.into()));
    seen.lock().expect("whole").link = Some(link.sender.clone());
    let mut camera = Camera::default();
    loop {
        tokio::select! {
            message = link.control.recv() => {
                let Ok(message) = message else { break };
                take_control(message.message, &link.sender, &seen, &verifier);
            }
            datagram = link.media.recv() => {
                let Ok((flow, packet)) = datagram else { break };
                camera.take(id, flow, &packet, &mut seen.lock().expect("whole"));
            }
        }
    }
    seen.lock().expect("whole").links_lost += 1;
}

fn take_control(
    message: Option<link_up::Message>,
    link: &RelaySender,
    seen: &Mutex<Seen>,
    verifier: &TokenVerifier,
) {
    let mut seen = seen.lock().expect("whole");
    match message {
        Some(link_up::Message::Join(join)) => {
            let claims = verifier.verify(&join.token, 0).expect("a good token");
            assert_eq!((claims.site.as_str(), claims.meeting.as_str()), (SITE, MEETING));
            let used = seen.joins.iter().any(|earlier| earlier.token == join.token);
            assert!(!used, "a token was used twice");
            seen.joins.push(join);
            if let Some(code) = seen.refusals.pop() {
                let refused = LinkRefused {
                    code: code.into(),
                    detail: "by the test".into(),
                };
                link.try_send_control(&LinkDown {
                    message: Some(link_down::Message::Refused(refused)),
                })
                .expect("sent");
                return;
            }
            let leg = format!("leg-{}", seen.joins.len());
            let joined = LinkJoined {
                leg,
                slot_flows: SLOT_FLOWS.to_vec(),
            };
            link.try_send_control(&LinkDown {
                message: Some(link_down::Message::Joined(joined)),
            })
            .expect("sent");
        }
        Some(link_up::Message::Ping(ping)) => {
            seen.pings += 1;
            link.try_send_control(&LinkDown {
                message: Some(link_down::Message::Pong(ping)),
            })
            .expect("sent");
        }
        Some(link_up::Message::SetView(view)) => seen.views.push(view),
        Some(link_up::Message::Leave(_)) => seen.leaves += 1,
        Some(link_up::Message::KeyFrame(request)) => seen.key_requests.push(request.flow),
        Some(link_up::Message::Sends(sends)) => seen.rungs.push(sends.rung()),
        other => panic!("unexpected on the control stream: {other:?}"),
    }
}

/// Decodes what the agent's camera sends (its first layer).
#[derive(Default)]
struct Camera {
    depacketizer: Depacketizer,
    decoder: Option<Decoder>,
}

impl Camera {
    fn take(&mut self, id: &'static str, flow: u64, packet: &[u8], seen: &mut Seen) {
        let rtp = LinkRtp::parse(packet).expect("RTP");
        if rtp.payload_type == PT_H264 {
            seen.h264.push(H264Packet {
                flow,
                seq: rtp.seq,
                timestamp: rtp.timestamp,
                marker: rtp.marker,
                payload: rtp.payload.to_vec(),
                at: Instant::now(),
            });
            return;
        }
        if rtp.payload_type != PT_VP8 {
            seen.audio += 1;
            seen.sounds.push(rtp.payload.to_vec());
            seen.audio_levels.extend(rtp.audio_level);
            return;
        }
        if flow != 1 {
            return;
        }
        let Some(frame) = self
            .depacketizer
            .push(rtp.seq, rtp.timestamp, rtp.marker, rtp.payload)
        else {
            return;
        };
        let key = muster_testcard::vp8::is_key_frame(frame);
        let decoder = self
            .decoder
            .get_or_insert_with(|| Decoder::new().expect("a decoder"));
        let luma = decoder.decode(frame).ok().flatten();
        let mark = luma.and_then(|luma| Mark::read(luma.data, luma.width, luma.height, luma.stride));
        let Some(mark) = mark else {
            // Its reference was lost on the way.
            seen.damaged += 1;
            return;
        };
        seen.pictures.push((mark, key));
        seen.filmed = Some((id, Instant::now()));
    }
}
