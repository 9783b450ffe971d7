//! Connectivity checks and their answers, by rtc-stun (RFC 8445, section 7).

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use rtc_stun::attributes::{
    ATTR_ICE_CONTROLLED, ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME, RawAttribute,
};
use rtc_stun::fingerprint::FINGERPRINT;
use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Message, Setter, TransactionId};
use rtc_stun::textattrs::TextAttribute;
use rtc_stun::xoraddr::XorMappedAddress;

use crate::keys::provider;

/// One attribute, as it is.
struct Raw(RawAttribute);

impl Setter for Raw {
    fn add_to(&self, message: &mut Message) -> rtc_shared::error::Result<()> {
        message.add(self.0.typ, &self.0.value);
        Ok(())
    }
}

/// Who nominates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// We do: the other end is lite, or answers our offer.
    Ours,
    Theirs,
}

fn raw(typ: rtc_stun::attributes::AttrType, value: &[u8]) -> Box<dyn Setter> {
    Box::new(Raw(RawAttribute {
        typ,
        length: 0,
        value: value.to_vec(),
    }))
}

/// A binding request, with USE-CANDIDATE where we control. `username` is `theirs:ours`, `pwd` theirs.
pub fn binding_request(username: &str, pwd: &str, control: Control) -> anyhow::Result<Vec<u8>> {
    let mut id = [0; 12];
    aws_lc_rs::rand::fill(&mut id).ok().context("no randomness")?;
    let mut message = Message::new();
    let integrity =
        MessageIntegrity::new_short_term_integrity_with_provider(pwd.to_owned(), provider().crypto());
    let mut parts: Vec<Box<dyn Setter + '_>> = vec![
        Box::new(TransactionId(id)),
        Box::new(BINDING_REQUEST),
        Box::new(TextAttribute {
            attr: ATTR_USERNAME,
            text: username.to_owned(),
        }),
        // Of a host candidate (RFC 8445, 5.1.2).
        raw(ATTR_PRIORITY, &2_130_706_431u32.to_be_bytes()),
    ];
    match control {
        Control::Ours => {
            parts.push(raw(ATTR_ICE_CONTROLLING, &[1; 8]));
            parts.push(raw(ATTR_USE_CANDIDATE, &[]));
        }
        Control::Theirs => parts.push(raw(ATTR_ICE_CONTROLLED, &[1; 8])),
    }
    parts.extend([Box::new(integrity) as Box<dyn Setter>, Box::new(FINGERPRINT)]);
    message.build(&parts)?;
    Ok(message.raw)
}

/// What a STUN message is to us.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// A check, with its answer, and whether it nominates.
    Asked {
        answer: Vec<u8>,
        nominated: bool,
    },
    Answered,
    Nothing,
}

/// Reads a message from `from`; checks are answered if they are made with our password `pwd`.
///
/// # Errors
/// An error response: then the other end and we are not of one mind.
pub fn read(datagram: &[u8], from: SocketAddr, pwd: &str) -> anyhow::Result<Told> {
    match datagram {
        [0x01, 0x01, ..] => Ok(Told::Answered),
        [0x01, 0x11, ..] => bail!("a connectivity check is refused"),
        [0x00, 0x01, ..] => {
            let mut request = Message::new();
            request.raw = datagram.to_vec();
            request.decode()?;
            MessageIntegrity::check(&mut request, pwd.as_bytes(), provider().crypto())?;
            let nominated = request.contains(ATTR_USE_CANDIDATE);
            let answer = answer(&request, from, pwd)?;
            Ok(Told::Asked { answer, nominated })
        }
        _ => Ok(Told::Nothing),
    }
}

fn answer(request: &Message, to: SocketAddr, pwd: &str) -> anyhow::Result<Vec<u8>> {
    let mut message = Message::new();
    let integrity =
        MessageIntegrity::new_short_term_integrity_with_provider(pwd.to_owned(), provider().crypto());
    message.build(&[
        Box::new(request.transaction_id),
        Box::new(BINDING_SUCCESS),
        Box::new(XorMappedAddress {
            ip: to.ip(),
            port: to.port(),
        }),
        Box::new(integrity),
        Box::new(FINGERPRINT),
    ])?;
    Ok(message.raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_answered_to_who_knows_the_password() {
        let from = SocketAddr::from(([192, 0, 2, 7], 4000));
        let password = "ours-ours-ours-ours-ours";
        for (control, expect) in [(Control::Ours, true), (Control::Theirs, false)] {
            let check = binding_request("a:b", password, control).expect("a request");
            let Told::Asked { answer, nominated } = read(&check, from, password).expect("a check") else {
                panic!("not a check");
            };
            assert_eq!(nominated, expect);
            assert_eq!(answer[8..20], check[8..20], "the transaction");
            assert_eq!(read(&answer, from, password).expect("an answer"), Told::Answered);
            assert!(read(&check, from, "another").is_err());
        }
        assert!(read(&[0x01, 0x11, 0, 0], from, password).is_err());
        assert_eq!(read(&[20, 1], from, password).expect("no STUN"), Told::Nothing);
    }
}
