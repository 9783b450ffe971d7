//! Connectivity checks of the controlling end, by rtc-stun (RFC 8445, section 7.2).

use anyhow::{Context as _, bail};
use rtc_stun::attributes::{
    ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME, RawAttribute,
};
use rtc_stun::fingerprint::FINGERPRINT;
use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::message::{BINDING_REQUEST, Message, Setter, TransactionId};
use rtc_stun::textattrs::TextAttribute;

use crate::keys::provider;

/// One attribute, as it is.
struct Raw(RawAttribute);

impl Setter for Raw {
    fn add_to(&self, message: &mut Message) -> rtc_shared::error::Result<()> {
        message.add(self.0.typ, &self.0.value);
        Ok(())
    }
}

/// A binding request with USE-CANDIDATE. `username` is `theirs:ours`, `pwd` theirs.
pub fn binding_request(username: &str, pwd: &str) -> anyhow::Result<Vec<u8>> {
    let raw = |typ, value: &[u8]| -> Box<dyn Setter> {
        Box::new(Raw(RawAttribute {
            typ,
            length: 0,
            value: value.to_vec(),
        }))
    };
    let mut id = [0; 12];
    aws_lc_rs::rand::fill(&mut id).ok().context("no randomness")?;
    let mut message = Message::new();
    let integrity =
        MessageIntegrity::new_short_term_integrity_with_provider(pwd.to_owned(), provider().crypto());
    message.build(&[
        Box::new(TransactionId(id)),
        Box::new(BINDING_REQUEST),
        Box::new(TextAttribute {
            attr: ATTR_USERNAME,
            text: username.to_owned(),
        }),
        raw(ATTR_ICE_CONTROLLING, &[1; 8]),
        // Of a host candidate (RFC 8445, 5.1.2).
        raw(ATTR_PRIORITY, &2_130_706_431u32.to_be_bytes()),
        raw(ATTR_USE_CANDIDATE, &[]),
        Box::new(integrity),
        Box::new(FINGERPRINT),
    ])?;
    Ok(message.raw)
}

/// What a STUN message from the relay is: true for success; an error response is an error here.
pub fn is_success(datagram: &[u8]) -> anyhow::Result<bool> {
    match datagram {
        [0x01, 0x01, ..] => Ok(true),
        [0x01, 0x11, ..] => bail!("the relay refuses a connectivity check"),
        _ => Ok(false),
    }
}
