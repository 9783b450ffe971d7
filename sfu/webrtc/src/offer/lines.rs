//! The line reader: one pass, one `match` over attribute names.

use std::collections::{BTreeMap, BTreeSet};

use crate::certificate::{Fingerprint, Hash};

use super::{Direction, FeedbackKinds, MAX_MEDIA, MAX_OFFER, Media, MediaKind, Offer, OfferError, Payload};

/// The most payload types, extensions or SSRCs that are kept of one m-line.
const MAX_PER_MEDIA: usize = 128;
/// The longest mid or rid, in characters.
const MAX_TOKEN: usize = 64;

/// What holds for the session and may be given again in an m-line.
#[derive(Default)]
struct Transport {
    ufrag: Option<String>,
    pwd: bool,
    fingerprints: Vec<Fingerprint>,
    setup: Option<(usize, String)>,
}

struct Reader {
    session: Transport,
    session_direction: Direction,
    bundle: Option<Vec<String>>,
    extmap_allow_mixed: bool,
    media: Vec<(Media, Transport)>,
    /// SSRCs that repeat or protect another, of the m-line being read.
    secondary: Vec<u32>,
}

/// Reads a whole offer.
pub(crate) fn read(text: &str) -> Result<Offer, OfferError> {
    if text.len() > MAX_OFFER {
        return Err(OfferError::new(0, format!("at most {MAX_OFFER} bytes")));
    }
    let mut reader = Reader {
        session: Transport::default(),
        session_direction: Direction::SendRecv,
        bundle: None,
        extmap_allow_mixed: false,
        media: Vec::new(),
        secondary: Vec::new(),
    };
    for (index, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        reader.line(index + 1, line)?;
    }
    reader.finish()
}

impl Reader {
    fn line(&mut self, number: usize, line: &str) -> Result<(), OfferError> {
        if number == 1 && line != "v=0" {
            return Err(OfferError::new(1, "v=0"));
        }
        // Parts of a line stand in the answer, which others read.
        if line.chars().any(char::is_control) {
            return Err(OfferError::new(number, "text without control characters"));
        }
        let Some((kind, value)) = line.split_once('=').filter(|(k, _)| k.len() == 1) else {
            return Err(OfferError::new(number, "a line of the form x=..., x one letter"));
        };
        match kind {
            "m" => self.media_line(number, value),
            "a" => {
                let (name, value) = value.split_once(':').unwrap_or((value, ""));
                self.attribute(number, name, value.trim())
            }
            _ => Ok(()),
        }
    }

    fn media_line(&mut self, line: usize, value: &str) -> Result<(), OfferError> {
        const EXPECTED: &str = "m=MEDIA PORT PROTOCOL FORMAT...";
        self.close_media();
        if self.media.len() >= MAX_MEDIA {
            return Err(OfferError::new(line, format!("at most {MAX_MEDIA} m-lines")));
        }
        let mut words = value.split_ascii_whitespace();
        let (Some(name), Some(port), Some(proto)) = (words.next(), words.next(), words.next()) else {
            return Err(OfferError::new(line, EXPECTED));
        };
        let port: u16 = port
            .split('/')
            .next()
            .and_then(|p| p.parse().ok())
            .ok_or_else(|| OfferError::new(line, "a port from 0 to 65535 in m="))?;
        let formats: Vec<String> = words.take(MAX_PER_MEDIA).map(str::to_owned).collect();
        if formats.is_empty() {
            return Err(OfferError::new(line, EXPECTED));
        }
        let kind = match name {
            "audio" => MediaKind::Audio,
            "video" => MediaKind::Video,
            _ => MediaKind::Other,
        };
        let media = Media {
            line,
            name: name.to_owned(),
            proto: proto.to_owned(),
            formats,
            kind,
            disabled: port == 0,
            mid: String::new(),
            has_mid: false,
            bundled: false,
            direction: self.session_direction,
            rtcp_mux: false,
            rtcp_rsize: false,
            slides: false,
            extmap_allow_mixed: false,
            payloads: BTreeMap::new(),
            extensions: Vec::new(),
            feedback: FeedbackKinds::default(),
            simulcast: Vec::new(),
            ssrcs: Vec::new(),
            repairs: Vec::new(),
        };
        self.media.push((media, Transport::default()));
        Ok(())
    }

    fn attribute(&mut self, line: usize, name: &str, value: &str) -> Result<(), OfferError> {
        let transport = self
            .media
            .last_mut()
            .map_or(&mut self.session, |(_, transport)| transport);
        match name {
            "ice-ufrag" => transport.ufrag = Some(ice_text(line, value, "a=ice-ufrag", 4)?),
            "ice-pwd" => {
                ice_text(line, value, "a=ice-pwd", 22)?;
                transport.pwd = true;
            }
            "fingerprint" => {
                let read = fingerprint(line, value)?;
                let room = transport.fingerprints.len() < MAX_PER_MEDIA;
                transport.fingerprints.extend(read.filter(|_| room));
            }
            "setup" => transport.setup = Some((line, value.to_owned())),
            "group" => {
                if let Some(mids) = value.strip_prefix("BUNDLE")
                    && self.bundle.is_none()
                {
                    self.bundle = Some(mids.split_whitespace().map(str::to_owned).collect());
                }
            }
            "extmap-allow-mixed" => match self.media.last_mut() {
                Some((media, _)) => media.extmap_allow_mixed = true,
                None => self.extmap_allow_mixed = true,
            },
            "sendrecv" => self.direction(Direction::SendRecv),
            "sendonly" => self.direction(Direction::SendOnly),
            "recvonly" => self.direction(Direction::RecvOnly),
            "inactive" => self.direction(Direction::Inactive),
            _ => {
                if let Some((media, _)) = self.media.last_mut() {
                    media_attribute(media, &mut self.secondary, line, name, value)?;
                }
            }
        }
        Ok(())
    }

    fn direction(&mut self, direction: Direction) {
        match self.media.last_mut() {
            Some((media, _)) => media.direction = direction,
            None => self.session_direction = direction,
        }
    }

    /// Drops the SSRCs that only repeat or protect another one.
    fn close_media(&mut self) {
        if let Some((media, _)) = self.media.last_mut() {
            media.ssrcs.retain(|s| !self.secondary.contains(s));
        }
        self.secondary.clear();
    }

    fn finish(mut self) -> Result<Offer, OfferError> {
        self.close_media();
        if self.media.is_empty() {
            return Err(OfferError::new(0, "at least one m-line"));
        }
        let bundle = self.bundle.take().filter(|b| !b.is_empty());
        let has_bundle = bundle.is_some();
        let bundle = self.bundled(bundle)?;
        // RFC 9143: the transport's attributes are those of the group's first m-line. Some clients
        // give them in another one.
        let member = |mid: &String| self.media.iter().find(|(m, _)| m.mid == *mid);
        let members: Vec<_> = bundle.iter().filter_map(member).take(MAX_MEDIA).collect();
        let Some((tagged, _)) = members.first() else {
            return Err(OfferError::new(0, "a=group:BUNDLE with mids of its m-lines"));
        };
        let line = tagged.line;
        let missing = |what: &str| OfferError::new(line, what);
        let given = || members.iter().map(|(_, t)| t).chain([&self.session]);
        let ufrag = given().find_map(|t| t.ufrag.clone());
        let ufrag = ufrag.ok_or_else(|| missing("a=ice-ufrag"))?;
        if !given().any(|t| t.pwd) {
            return Err(missing("a=ice-pwd"));
        }
        let fingerprints = given().map(|t| &t.fingerprints).find(|f| !f.is_empty());
        let fingerprints = fingerprints.ok_or_else(|| missing(FINGERPRINT))?.clone();
        let peer_is_passive = match given().find_map(|t| t.setup.as_ref()) {
            None => false,
            Some((_, setup)) if setup == "actpass" || setup == "active" => false,
            Some((_, setup)) if setup == "passive" => true,
            Some((line, _)) => return Err(OfferError::new(*line, "a=setup:actpass, active or passive")),
        };
        Ok(Offer {
            ufrag,
            fingerprints,
            peer_is_passive,
            has_bundle,
            extmap_allow_mixed: self.extmap_allow_mixed,
            media: self.media.into_iter().map(|(media, _)| media).collect(),
        })
    }

    /// Checks the mids and marks who is of the group; the group's mids. Where there is no group,
    /// the only m-line of sound or pictures is; an only m-line needs no mid.
    fn bundled(&mut self, bundle: Option<Vec<String>>) -> Result<Vec<String>, OfferError> {
        if let [(only, _)] = &mut self.media[..]
            && only.mid.is_empty()
        {
            "0".clone_into(&mut only.mid);
        }
        let mut mids = BTreeSet::new();
        for (media, _) in &self.media {
            if media.mid.is_empty() {
                return Err(OfferError::new(media.line, "a=mid in this m-line"));
            }
            if !mids.insert(&media.mid) {
                return Err(OfferError::new(media.line, "an a=mid that no other m-line has"));
            }
        }
        let bundle = match bundle {
            Some(bundle) => bundle,
            None => {
                let known = self.media.iter().filter(|(m, _)| m.kind != MediaKind::Other);
                let known: Vec<_> = known.map(|(m, _)| m.mid.clone()).collect();
                if known.len() != 1 {
                    return Err(OfferError::new(0, "a=group:BUNDLE with the mids"));
                }
                known
            }
        };
        let members: BTreeSet<&str> = bundle.iter().map(String::as_str).collect();
        for (media, _) in &mut self.media {
            media.bundled = members.contains(media.mid.as_str());
        }
        Ok(bundle)
    }
}

fn media_attribute(
    media: &mut Media,
    secondary: &mut Vec<u32>,
    line: usize,
    name: &str,
    value: &str,
) -> Result<(), OfferError> {
    match name {
        "mid" => {
            media.mid = token(line, value, "a=mid")?;
            media.has_mid = true;
        }
        "rtcp-mux" | "rtcp-mux-only" => media.rtcp_mux = true,
        "rtcp-rsize" => media.rtcp_rsize = true,
        "bundle-only" => media.disabled = false,
        "content" => media.slides = value.split(',').any(|c| c.trim() == "slides"),
        "rtpmap" => rtpmap(media, line, value)?,
        "fmtp" => {
            if let Some((pt, parameters)) = value.split_once(' ')
                && let Ok(pt) = pt.parse::<u8>()
                && let Some(payload) = payload(media, pt)
            {
                payload.fmtp = parameters.trim().to_owned();
            }
        }
        "extmap" => extmap(media, line, value)?,
        "rtcp-fb" => feedback(media, value),
        "simulcast" => media.simulcast = simulcast(line, value)?,
        "ssrc" => {
            let ssrc = value.split(' ').next().and_then(|s| s.parse::<u32>().ok());
            let ssrc = ssrc.ok_or_else(|| OfferError::new(line, "a=ssrc:NUMBER ..."))?;
            if !media.ssrcs.contains(&ssrc) && media.ssrcs.len() < MAX_PER_MEDIA {
                media.ssrcs.push(ssrc);
            }
        }
        "ssrc-group" => {
            let (semantics, ssrcs) = value.split_once(' ').unwrap_or((value, ""));
            let ssrcs: Vec<u32> = ssrcs.split(' ').filter_map(|s| s.parse().ok()).take(3).collect();
            let room = secondary.len() < MAX_PER_MEDIA;
            if let ("FID" | "FEC" | "FEC-FR", [primary, repeats, ..], true) = (semantics, &ssrcs[..], room) {
                secondary.extend(&ssrcs[1..]);
                if semantics == "FID" {
                    media.repairs.push((*primary, *repeats));
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn payload(media: &mut Media, pt: u8) -> Option<&mut Payload> {
    (pt < 128).then(|| {
        media.payloads.entry(pt).or_insert_with(|| Payload {
            pt,
            channels: 1,
            ..Payload::default()
        })
    })
}

fn rtpmap(media: &mut Media, line: usize, value: &str) -> Result<(), OfferError> {
    let expected = || OfferError::new(line, "a=rtpmap:TYPE NAME/CLOCK, TYPE from 0 to 127");
    let (pt, coding) = value.split_once(' ').ok_or_else(expected)?;
    let pt: u8 = pt.parse().map_err(|_| expected())?;
    let mut parts = coding.trim().split('/');
    let name = parts.next().unwrap_or_default().to_ascii_uppercase();
    let clock: u32 = parts.next().and_then(|c| c.parse().ok()).ok_or_else(expected)?;
    let channels = parts.next().and_then(|c| c.parse().ok()).unwrap_or(1);
    let payload = payload(media, pt).ok_or_else(expected)?;
    payload.name = name;
    payload.clock = clock;
    payload.channels = channels;
    Ok(())
}

/// `a=rtcp-fb:96 nack pli`, or `*` for all payload types.
fn feedback(media: &mut Media, value: &str) {
    let Some((to, kind)) = value.split_once(' ') else {
        return;
    };
    let kinds = match to.parse() {
        Ok(pt) => payload(media, pt).map(|p| &mut p.feedback),
        Err(_) => (to == "*").then_some(&mut media.feedback),
    };
    if let Some(kinds) = kinds {
        kinds.add(kind.trim());
    }
}

fn extmap(media: &mut Media, line: usize, value: &str) -> Result<(), OfferError> {
    let expected = || OfferError::new(line, "a=extmap:ID URI, ID from 1 to 255");
    let mut words = value.split_ascii_whitespace();
    let id = words.next().and_then(|w| w.split('/').next());
    let id: u8 = id.and_then(|i| i.parse().ok()).ok_or_else(expected)?;
    let uri = words.next().ok_or_else(expected)?;
    if id == 0 {
        return Err(expected());
    }
    if media.extensions.len() < MAX_PER_MEDIA {
        media.extensions.push((id, uri.to_owned()));
    }
    Ok(())
}

/// `send q;h;f` or `send ~q,x;h`: the rids that the offerer sends, alternatives and pauses dropped.
fn simulcast(line: usize, value: &str) -> Result<Vec<String>, OfferError> {
    let mut words = value.split_ascii_whitespace();
    while let Some(direction) = words.next() {
        let list = words
            .next()
            .ok_or_else(|| OfferError::new(line, "a=simulcast:send RID;RID..."))?;
        if direction != "send" {
            continue;
        }
        return list
            .split(';')
            .map(|alternatives| {
                let first = alternatives.split(',').next().unwrap_or_default();
                token(line, first.trim_start_matches('~'), "a=simulcast rids")
            })
            .collect();
    }
    Ok(Vec::new())
}

fn token(line: usize, value: &str, what: &str) -> Result<String, OfferError> {
    let good = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | ',' | ';' | ':' | '=' | '/');
    if value.is_empty() || value.len() > MAX_TOKEN || !value.chars().all(good) {
        return Err(OfferError::new(
            line,
            format!("{what} of 1 to {MAX_TOKEN} letters, digits, - or _"),
        ));
    }
    Ok(value.to_owned())
}

fn ice_text(line: usize, value: &str, what: &str, least: usize) -> Result<String, OfferError> {
    // Wider than ice-char: some clients use '-' and '_'.
    let good = |c: char| c.is_ascii_graphic() && c != ':';
    if value.len() < least || value.len() > 256 || !value.chars().all(good) {
        return Err(OfferError::new(
            line,
            format!("{what} of {least} to 256 ICE characters"),
        ));
    }
    Ok(value.to_owned())
}

const FINGERPRINT: &str = "a=fingerprint:sha-256 with 32 bytes in hex (or sha-384, sha-512)";

/// None for other hash functions, which are not looked at.
fn fingerprint(line: usize, value: &str) -> Result<Option<Fingerprint>, OfferError> {
    let expected = || OfferError::new(line, FINGERPRINT);
    let (function, hex) = value.split_once(' ').ok_or_else(expected)?;
    let Some(hash) = Hash::named(function) else {
        return Ok(None);
    };
    let hex = hex.trim().to_ascii_uppercase();
    let bytes: Vec<&str> = hex.split(':').collect();
    let good = |b: &&str| b.len() == 2 && b.bytes().all(|c| c.is_ascii_hexdigit());
    if bytes.len() != hash.length() || !bytes.iter().all(good) {
        return Err(expected());
    }
    Ok(Some(Fingerprint { hash, hex }))
}
