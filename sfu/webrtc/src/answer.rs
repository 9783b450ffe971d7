//! Writing the answer, through rtc-sdp.
//!
//! The offer's m-lines in the offer's order with the offer's mids, payload types and extension
//! ids; ours are the credentials, the fingerprint, the host candidates and the slots' SSRCs.

use std::net::SocketAddr;

use rtc_sdp::description::common::{Address, Attribute, ConnectionInformation};
use rtc_sdp::description::media::{MediaDescription, MediaName, RangedPort};
use rtc_sdp::description::session::{Origin, SessionDescription, TimeDescription, Timing};

use crate::leg::IceCredentials;
use crate::media::Codec;
use crate::negotiate::{
    Coding, Plan, Role, URI_AUDIO_LEVEL, URI_DEPENDENCY, URI_MID, URI_REPAIRED_RID, URI_RID,
    URI_TRANSPORT_CC, extension,
};
use crate::offer::{Media, MediaKind, Offer, TRANSPORT_CC};

/// Our side of the answer.
pub(crate) struct Ours<'a> {
    pub candidate: SocketAddr,
    pub tcp_candidate: Option<SocketAddr>,
    pub fingerprint: &'a str,
    pub ice: &'a IceCredentials,
    pub session_id: u64,
    pub cname: &'a str,
    /// One SSRC per slot of the plan.
    pub slot_ssrcs: &'a [u32],
    /// For each slot the SSRC of its retransmissions, used where they are negotiated.
    pub slot_rtx_ssrcs: &'a [u32],
}

/// The answer's text.
pub(crate) fn write(offer: &Offer, plan: &Plan, ours: &Ours<'_>) -> String {
    let accepted = |(_, role): &(&Media, &Role)| !matches!(role, Role::Rejected);
    let mids: Vec<&str> = offer
        .media
        .iter()
        .zip(&plan.roles)
        .filter(accepted)
        .map(|(m, _)| m.mid.as_str())
        .collect();
    let mut attributes = vec![property("ice-lite"), value("msid-semantic", " WMS *".to_owned())];
    if offer.has_bundle {
        attributes.insert(1, value("group", format!("BUNDLE {}", mids.join(" "))));
    }
    let setup = if offer.peer_is_passive {
        "active"
    } else {
        "passive"
    };
    if offer.extmap_allow_mixed {
        attributes.push(property("extmap-allow-mixed"));
    }
    let mut first = true;
    let media_descriptions = offer
        .media
        .iter()
        .zip(&plan.roles)
        .map(|(media, role)| match role {
            Role::Rejected => rejected(media),
            _ => accept(media, role, plan, ours, setup, std::mem::take(&mut first)),
        })
        .collect();
    let session = SessionDescription {
        origin: Origin {
            username: "-".to_owned(),
            session_id: ours.session_id,
            session_version: 1,
            network_type: "IN".to_owned(),
            address_type: "IP4".to_owned(),
            unicast_address: "127.0.0.1".to_owned(),
        },
        session_name: "-".to_owned(),
        time_descriptions: vec![TimeDescription {
            timing: Timing {
                start_time: 0,
                stop_time: 0,
            },
            repeat_times: vec![],
        }],
        attributes,
        media_descriptions,
        ..SessionDescription::default()
    };
    session.marshal()
}

fn property(key: &str) -> Attribute {
    Attribute::new(key.to_owned(), None)
}

fn value(key: &str, value: String) -> Attribute {
    Attribute::new(key.to_owned(), Some(value))
}

fn description(media: &Media, port: isize, formats: Vec<String>) -> MediaDescription {
    MediaDescription {
        media_name: MediaName {
            media: media.name.clone(),
            port: RangedPort {
                value: port,
                range: None,
            },
            protos: media.proto.split('/').map(str::to_owned).collect(),
            formats,
        },
        connection_information: Some(ConnectionInformation {
            network_type: "IN".to_owned(),
            address_type: "IP4".to_owned(),
            address: Some(Address {
                address: "0.0.0.0".to_owned(),
                ttl: None,
                range: None,
            }),
        }),
        ..MediaDescription::default()
    }
}

fn rejected(media: &Media) -> MediaDescription {
    let mut out = description(media, 0, media.formats.clone());
    out.attributes = mid(media).into_iter().chain([property("inactive")]).collect();
    out
}

fn mid(media: &Media) -> Option<Attribute> {
    media.has_mid.then(|| value("mid", media.mid.clone()))
}

fn accept(
    media: &Media,
    role: &Role,
    plan: &Plan,
    ours: &Ours<'_>,
    setup: &str,
    first: bool,
) -> MediaDescription {
    let codings: &[Coding] = match role {
        Role::Publishes(i) => std::slice::from_ref(&plan.sources[*i].coding),
        Role::Shows(i) => &plan.slots[*i].codings,
        Role::Rejected | Role::Inactive => &[],
    };
    let formats = if codings.is_empty() {
        media.formats.clone()
    } else {
        let types = codings.iter().flat_map(|c| {
            let red = |first| c.red.filter(|red| red.first == first).map(|red| red.pt);
            [red(true), Some(c.pt), red(false), c.rtx_pt]
        });
        types.flatten().map(|pt| pt.to_string()).collect()
    };
    let (twcc, dependency) = match role {
        Role::Publishes(i) => {
            let source = &plan.sources[*i];
            (source.twcc_extension, source.dependency_extension)
        }
        Role::Shows(i) => (plan.slots[*i].twcc_extension, plan.slots[*i].dependency_extension),
        Role::Rejected | Role::Inactive => (None, None),
    };
    let mut out = description(media, 9, formats);
    let a = &mut out.attributes;
    a.extend(mid(media));
    a.push(value("ice-ufrag", ours.ice.ufrag.clone()));
    a.push(value("ice-pwd", ours.ice.pwd.clone()));
    a.push(value("fingerprint", format!("sha-256 {}", ours.fingerprint)));
    a.push(value("setup", setup.to_owned()));
    a.push(property(match role {
        Role::Publishes(_) => "recvonly",
        Role::Shows(_) => "sendonly",
        Role::Rejected | Role::Inactive => "inactive",
    }));
    a.push(property("rtcp-mux"));
    if media.rtcp_rsize {
        a.push(property("rtcp-rsize"));
    }
    if media.extmap_allow_mixed {
        a.push(property("extmap-allow-mixed"));
    }
    for coding in codings {
        codec_lines(a, media, coding, twcc.is_some());
    }
    extension_lines(
        a,
        media,
        role,
        [(twcc, URI_TRANSPORT_CC), (dependency, URI_DEPENDENCY)],
    );
    match role {
        Role::Publishes(i) => layer_lines(a, &plan.sources[*i].offered.rids),
        Role::Shows(i) => {
            let mut ssrcs = vec![ours.slot_ssrcs[*i]];
            if plan.slots[*i].has_rtx() {
                let [ssrc, repeats] = [ssrcs[0], ours.slot_rtx_ssrcs[*i]];
                ssrcs.push(repeats);
                a.push(value("ssrc-group", format!("FID {ssrc} {repeats}")));
            }
            // Distinct streams, so that no viewer ties the play-out of slots together.
            let msid = format!("{mid} {mid}", mid = media.mid);
            a.push(value("msid", msid.clone()));
            for ssrc in ssrcs {
                a.push(value("ssrc", format!("{ssrc} cname:{}", ours.cname)));
                a.push(value("ssrc", format!("{ssrc} msid:{msid}")));
            }
        }
        Role::Rejected | Role::Inactive => {}
    }
    if first {
        for candidate in host_candidates(ours.candidate, ours.tcp_candidate) {
            a.push(value("candidate", candidate));
        }
        a.push(property("end-of-candidates"));
    }
    out
}

fn codec_lines(a: &mut Vec<Attribute>, media: &Media, coding: &Coding, twcc: bool) {
    let pt = coding.pt;
    let name = match coding.codec {
        Codec::Vp8 => "VP8/90000",
        Codec::Vp9 => "VP9/90000",
        Codec::H264 => "H264/90000",
        Codec::Av1 => "AV1/90000",
        Codec::Opus => "opus/48000/2",
    };
    a.push(value("rtpmap", format!("{pt} {name}")));
    if !coding.fmtp.is_empty() {
        a.push(value("fmtp", format!("{pt} {}", coding.fmtp)));
    }
    for feedback in media.feedback(pt) {
        let ours = match feedback {
            TRANSPORT_CC => twcc,
            _ => coding.codec != Codec::Opus,
        };
        if ours {
            a.push(value("rtcp-fb", format!("{pt} {feedback}")));
        }
    }
    if let Some(red) = coding.red {
        let red = red.pt;
        a.push(value("rtpmap", format!("{red} red/48000/2")));
        a.push(value("fmtp", format!("{red} {pt}/{pt}")));
    }
    if let Some(rtx) = coding.rtx_pt {
        a.push(value("rtpmap", format!("{rtx} rtx/90000")));
        a.push(value("fmtp", format!("{rtx} apt={pt}")));
    }
}

/// `more` are those that are not accepted wherever they are offered.
fn extension_lines(a: &mut Vec<Attribute>, media: &Media, role: &Role, more: [(Option<u8>, &str); 2]) {
    let mut uris = vec![URI_MID];
    if media.kind == MediaKind::Audio {
        uris.push(URI_AUDIO_LEVEL);
    }
    if matches!(role, Role::Publishes(_)) {
        uris.extend([URI_RID, URI_REPAIRED_RID]);
    }
    for uri in uris {
        if let Some(id) = extension(media, uri) {
            a.push(value("extmap", format!("{id} {uri}")));
        }
    }
    for (id, uri) in more {
        if let Some(id) = id {
            a.push(value("extmap", format!("{id} {uri}")));
        }
    }
}

fn layer_lines(a: &mut Vec<Attribute>, rids: &[String]) {
    if rids.is_empty() {
        return;
    }
    for rid in rids {
        a.push(value("rid", format!("{rid} recv")));
    }
    a.push(value("simulcast", format!("recv {}", rids.join(";"))));
}

/// The values of `a=candidate` for a UDP address of ours (RFC 8839, 5.1) and a TCP address where there
/// is one (RFC 6544, 4.5): UDP first, since some clients take the first.
///
/// Both are host candidates. UDP has the highest local preference; TCP's type preference is below that
/// of any UDP candidate a peer may have.
pub fn host_candidates(udp: SocketAddr, tcp: Option<SocketAddr>) -> impl Iterator<Item = String> {
    const UDP: u32 = (126 << 24) | (65_535 << 8) | 255;
    // Direction preference 4 for a passive one, other preference 8191.
    const TCP: u32 = (90 << 24) | ((4 << 13 | 8191) << 8) | 255;
    let udp = format!("1 1 udp {UDP} {} {} typ host", udp.ip(), udp.port());
    let tcp = tcp.map(|tcp| {
        let (ip, port) = (tcp.ip(), tcp.port());
        format!("2 1 tcp {TCP} {ip} {port} typ host tcptype passive")
    });
    std::iter::once(udp).chain(tcp)
}
