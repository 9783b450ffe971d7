//! What shows that somebody signed in from this device before: a text that the console and the commands keep.
//!
//! It opens nothing. It gives its holder a lane of its own when many guess at the account, at every replica, since all have the
//! key of the same authority. Invariants: it is good for one account; it is signed, so it cannot be made up; it ends.

use aws_lc_rs::hmac;
use muster_identity::Authority;

const VALID_MS: i64 = 180 * 24 * 3600 * 1000;
/// Longest text that is looked at.
const LONGEST: usize = 160;

/// Signs and checks them.
pub struct Devices(hmac::Key);

impl Devices {
    pub fn new(authority: &Authority) -> Self {
        let key = authority.key_for("devices that have signed in");
        Self(hmac::Key::new(hmac::HMAC_SHA256, &key))
    }

    /// For who has signed in: a new one, or the same device with a later end.
    pub fn issue(&self, account: &str, device: Option<&str>, now_ms: i64) -> String {
        let new = || format!("{:032x}", rand::random::<u128>());
        let device = device.map_or_else(new, str::to_owned);
        let said = format!("{device}.{}", now_ms + VALID_MS);
        let tag = hmac::sign(&self.0, signed(account, &said).as_bytes());
        format!("{said}.{}", hex(tag.as_ref()))
    }

    /// The device, if this was issued here for the account and has not ended.
    pub fn check(&self, account: &str, text: &str, now_ms: i64) -> Option<String> {
        if text.len() > LONGEST {
            return None;
        }
        let (said, tag) = text.rsplit_once('.')?;
        let tag = unhex(tag)?;
        hmac::verify(&self.0, signed(account, said).as_bytes(), &tag).ok()?;
        let (device, ends_ms) = said.split_once('.')?;
        (ends_ms.parse::<i64>().ok()? > now_ms).then(|| device.to_owned())
    }
}

/// A name of an account has no line feed.
fn signed(account: &str, said: &str) -> String {
    format!("{said}\n{account}")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.iter().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_known_for_its_account_until_it_ends_and_cannot_be_made_up() {
        let authority = Authority::in_memory().expect("a CA");
        let devices = Devices::new(&authority);
        let text = devices.issue("duty", None, 0);
        let device = devices.check("duty", &text, 1).expect("known");
        let again = devices.issue("duty", Some(&device), 1000);
        assert_eq!(devices.check("duty", &again, VALID_MS), Some(device));
        assert_eq!(devices.check("duty", &text, VALID_MS), None, "it has ended");
        assert_eq!(devices.check("li", &text, 1), None);
        let stranger = Devices::new(&Authority::in_memory().expect("a CA"));
        assert_eq!(stranger.check("duty", &text, 1), None);
        for bad in [
            "",
            ".",
            "..",
            "a.9999999999999.00",
            "a.9999999999999.zz",
            &text[1..],
        ] {
            assert_eq!(devices.check("duty", bad, 1), None, "{bad:?}");
        }
    }
}
