//! Reading the SRTP profiles out of a DTLS ClientHello before the DTLS crate sees it.
//!
//! rtc-dtls takes the client's order of profiles and Chrome lists AES-CM first, so the server's
//! list must be cut before the handshake starts. A large ClientHello (post-quantum key shares)
//! comes in fragments; they are put together here within a bound.

use crate::srtp::Profile;

/// The longest ClientHello that is put together, in bytes.
const MAX_HELLO: usize = 8 * 1024;
/// The most fragments.
const MAX_FRAGMENTS: usize = 32;

/// DTLS-SRTP's extension number (RFC 5764).
const USE_SRTP: u16 = 14;

/// Collects one ClientHello.
#[derive(Default)]
pub(crate) struct ClientHello {
    /// (offset, bytes)
    fragments: Vec<(usize, Vec<u8>)>,
}

/// What is known after a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Hello {
    /// More fragments are needed.
    Partial,
    /// Whole; with the best profile that both sides have, or None.
    Whole(Option<Profile>),
}

/// Walks the records of a datagram: (content type, epoch, body). None at the first bad one.
pub(crate) fn records(datagram: &[u8]) -> impl Iterator<Item = Option<(u8, u16, &[u8])>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = rest.split_at_checked(13).and_then(|(header, body)| {
            let length = usize::from(u16::from_be_bytes([header[11], header[12]]));
            let (body, next) = body.split_at_checked(length)?;
            let good = (20..=23).contains(&header[0]) && header[1] == 0xfe;
            good.then(|| {
                let epoch = u16::from_be_bytes([header[3], header[4]]);
                (header[0], epoch, body, next)
            })
        });
        match record {
            Some((kind, epoch, body, next)) => {
                rest = next;
                Some(Some((kind, epoch, body)))
            }
            None => {
                rest = &[];
                Some(None)
            }
        }
    })
}

impl ClientHello {
    /// Takes a datagram whose records are well-formed.
    pub(crate) fn push(&mut self, datagram: &[u8]) -> Hello {
        for (kind, epoch, body) in records(datagram).flatten() {
            if kind == 22
                && epoch == 0
                && let Some(whole) = self.fragment(body)
            {
                return Hello::Whole(profile(&whole));
            }
        }
        Hello::Partial
    }

    fn fragment(&mut self, body: &[u8]) -> Option<Vec<u8>> {
        let (header, data) = body.split_at_checked(12)?;
        let u24 = |b: &[u8]| usize::from(b[0]) << 16 | usize::from(b[1]) << 8 | usize::from(b[2]);
        let (total, offset, length) = (u24(&header[1..4]), u24(&header[6..9]), u24(&header[9..12]));
        let data = data.get(..length)?;
        let is_hello = header[0] == 1 && total <= MAX_HELLO && offset + length <= total;
        if !is_hello || self.fragments.len() >= MAX_FRAGMENTS {
            return None;
        }
        self.fragments.push((offset, data.to_vec()));
        self.fragments.sort_by_key(|(offset, _)| *offset);
        let mut whole: Vec<u8> = Vec::with_capacity(total);
        for (offset, data) in &self.fragments {
            if *offset > whole.len() {
                return None;
            }
            let known = whole.len() - offset;
            whole.extend_from_slice(data.get(known..).unwrap_or_default());
        }
        (whole.len() == total).then_some(whole)
    }
}

/// GCM where the client has it, AES-CM where it has not.
fn profile(hello: &[u8]) -> Option<Profile> {
    let offered = use_srtp(hello).unwrap_or_default();
    [Profile::AeadAes128Gcm, Profile::Aes128CmHmacSha1_80]
        .into_iter()
        .find(|p| offered.contains(&p.number()))
}

/// The profile numbers of the use_srtp extension.
fn use_srtp(hello: &[u8]) -> Option<Vec<u16>> {
    let u16_at = |b: &[u8]| Some(usize::from(u16::from_be_bytes([*b.first()?, *b.get(1)?])));
    let skip8 = |b: &'_ [u8]| -> Option<usize> { Some(1 + usize::from(*b.first()?)) };
    let mut rest = hello.get(2 + 32..)?; // version, random
    rest = rest.get(skip8(rest)?..)?; // session id
    rest = rest.get(skip8(rest)?..)?; // cookie
    rest = rest.get(2 + u16_at(rest)?..)?; // cipher suites
    rest = rest.get(skip8(rest)?..)?; // compression
    let length = u16_at(rest)?;
    let mut extensions = rest.get(2..2 + length)?;
    while !extensions.is_empty() {
        let (kind, length) = (u16_at(extensions)?, u16_at(extensions.get(2..)?)?);
        let body = extensions.get(4..4 + length)?;
        if kind == usize::from(USE_SRTP) {
            let list = body.get(2..2 + u16_at(body)?)?;
            return Some(
                list.chunks_exact(2)
                    .map(|b| u16::from_be_bytes([b[0], b[1]]))
                    .collect(),
            );
        }
        extensions = extensions.get(4 + length..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello(profiles: &[u16]) -> Vec<u8> {
        let mut b = vec![0xfe, 0xfd];
        b.extend([7; 32]);
        b.extend([0, 0]); // session id, cookie
        b.extend([0, 2, 0xc0, 0x2b, 1, 0]); // one suite, null compression
        let mut srtp = Vec::new();
        srtp.extend(u16::try_from(profiles.len() * 2).expect("short").to_be_bytes());
        profiles.iter().for_each(|p| srtp.extend(p.to_be_bytes()));
        srtp.push(0);
        let mut ext = vec![0, 23, 0, 0, 0, 14];
        ext.extend(u16::try_from(srtp.len()).expect("short").to_be_bytes());
        ext.extend(srtp);
        b.extend(u16::try_from(ext.len()).expect("short").to_be_bytes());
        b.extend(ext);
        b
    }

    fn record(hello: &[u8], offset: usize, length: usize) -> Vec<u8> {
        let u24 = |n: usize| [(n >> 16) as u8, (n >> 8) as u8, n as u8];
        let mut body = vec![1];
        body.extend(u24(hello.len()));
        body.extend([0, 0]);
        body.extend(u24(offset));
        body.extend(u24(length));
        body.extend(&hello[offset..offset + length]);
        let mut r = vec![22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
        r.extend(u16::try_from(body.len()).expect("short").to_be_bytes());
        r.extend(body);
        r
    }

    #[test]
    fn gcm_is_taken_where_the_client_has_it() {
        let check = |profiles: &[u16], expected| {
            let h = hello(profiles);
            let got = ClientHello::default().push(&record(&h, 0, h.len()));
            assert_eq!(got, Hello::Whole(expected));
        };
        check(&[1, 7], Some(Profile::AeadAes128Gcm));
        check(&[1, 2], Some(Profile::Aes128CmHmacSha1_80));
        check(&[8], None);
        check(&[], None);
    }

    #[test]
    fn a_fragmented_hello_is_put_together_in_any_order() {
        let h = hello(&[7]);
        let mut c = ClientHello::default();
        assert_eq!(c.push(&record(&h, 20, h.len() - 20)), Hello::Partial);
        assert_eq!(
            c.push(&record(&h, 0, 20)),
            Hello::Whole(Some(Profile::AeadAes128Gcm))
        );
    }

    proptest! {
        #[test]
        fn junk_neither_panics_nor_grows(
            fragments in prop::collection::vec(prop::collection::vec(any::<u8>(), 12..80), 0..80),
        ) {
            let mut c = ClientHello::default();
            for mut body in fragments {
                // A ClientHello's fragment by its header, so that it gets far.
                body[0] = 1;
                for high in [1, 6, 7, 9, 10] {
                    body[high] = 0;
                }
                let mut datagram = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                datagram.push(u8::try_from(body.len()).expect("short"));
                datagram.extend(body);
                c.push(&datagram);
                prop_assert!(c.fragments.len() <= MAX_FRAGMENTS);
            }
        }
    }
}
