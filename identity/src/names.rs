//! Which DNS names and addresses a certificate may carry, and which this machine goes by.
//!
//! Invariant: a relay is never given a name of the control plane, however it is spelt; nor a wildcard, which could match one.
//! A name of the loopback interface means whoever asks, so everybody may have it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use rcgen::SanType;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::CONTROL_PLANE_NAME;

/// Names in one certificate request.
const MAX_NAMES: usize = 16;
const MAX_NAME: usize = 253;
/// What is never the name of one machine.
pub const LOOPBACK_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Why a name is not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameRefused {
    #[error(
        "{0} is a name of the control plane itself: give the relay a name of its own, or a certificate by file \
         (--tls-cert, --tls-key)"
    )]
    ControlPlanes(String),
    #[error("{0}: expected a DNS name without wildcard, or an IP address")]
    NoName(String),
    #[error("{0} names, expected at most {MAX_NAMES}")]
    TooMany(usize),
    #[error("only DNS names and IP addresses can be asked for")]
    OtherKind,
}

/// The names that a relay asks for, if it may have them all; `own` are those of the control plane.
pub(crate) fn for_relay(asked: &[SanType], own: &[String]) -> Result<Vec<String>, NameRefused> {
    if asked.len() > MAX_NAMES {
        return Err(NameRefused::TooMany(asked.len()));
    }
    let mut names = Vec::new();
    for name in asked {
        let name = match name {
            SanType::DnsName(name) => name.as_str().to_owned(),
            SanType::IpAddress(address) => address.to_canonical().to_string(),
            _ => return Err(NameRefused::OtherKind),
        };
        let plain = canonical(&name);
        if plain == CONTROL_PLANE_NAME || own.iter().any(|own| covers(&canonical(own), &plain)) {
            return Err(NameRefused::ControlPlanes(name));
        }
        if plain.parse::<IpAddr>().is_err() && !is_host(&plain) {
            return Err(NameRefused::NoName(name.chars().take(MAX_NAME).collect()));
        }
        names.push(plain);
    }
    Ok(names)
}

/// In lower case, without the dot at the end; an address in its one form.
fn canonical(name: &str) -> String {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>()
        .map_or(name.clone(), |address| address.to_canonical().to_string())
}

/// Whether a certificate for `pattern` is one for `name` (RFC 9525 section 6.3: a wildcard is one whole label).
fn covers(pattern: &str, name: &str) -> bool {
    if LOOPBACK_NAMES.contains(&pattern) {
        return false;
    }
    match pattern.strip_prefix("*.") {
        Some(rest) => name.split_once('.').is_some_and(|(_, of)| of == rest),
        None => pattern == name,
    }
}

fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    (1..=MAX_NAME).contains(&name.len()) && name.split('.').all(label)
}

/// Whether a certificate for `have` does for everything in `wanted`.
pub fn all_named(have: &[String], wanted: &[String]) -> bool {
    let have: Vec<_> = have.iter().map(|name| canonical(name)).collect();
    wanted.iter().map(|name| canonical(name)).all(|wanted| {
        let wildcard = |name: &String| name.starts_with("*.") && covers(name, &wanted);
        have.iter().any(|name| *name == wanted || wildcard(name))
    })
}

/// The DNS names and addresses of a certificate in DER form; none if it cannot be read.
pub(crate) fn names_in(cert_der: &[u8]) -> Vec<String> {
    let Ok((_, cert)) = X509Certificate::from_der(cert_der) else {
        return Vec::new();
    };
    let Ok(Some(names)) = cert.subject_alternative_name() else {
        return Vec::new();
    };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match *bytes {
            [a, b, c, d] => Some(Ipv4Addr::new(*a, *b, *c, *d).to_string()),
            other => <[u8; 16]>::try_from(other)
                .ok()
                .map(|octets| Ipv6Addr::from(octets).to_string()),
        },
        _ => None,
    };
    names.value.general_names.iter().filter_map(text).collect()
}

/// What a server that listens on this address may be called: the address, or where that is none, the machine's name and
/// the address of its default route; and the loopback names, where it is reached by those.
pub fn names_of_listener(listen: IpAddr) -> Vec<String> {
    let mut names = Vec::new();
    if listen.is_unspecified() {
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        names.extend(Some(canonical(machine.trim())).filter(|name| is_host(name)));
        let routes = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];
        names.extend(
            routes
                .into_iter()
                .filter_map(|(from, to)| address_towards(from, to)),
        );
    } else {
        names.push(listen.to_canonical().to_string());
    }
    if listen.is_loopback() || listen.is_unspecified() {
        names.extend(LOOPBACK_NAMES.map(str::to_owned));
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// The address that the machine would send from; nothing is sent.
fn address_towards(from: &str, to: &str) -> Option<String> {
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect(to).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then(|| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().expect("ASCII"))
    }

    #[test]
    fn a_relay_gets_its_names_but_none_of_the_control_planes_however_spelt() {
        let own = [
            "cp.city.example",
            "*.hq.example",
            "192.0.2.7",
            "127.0.0.1",
            "localhost",
        ]
        .map(str::to_owned);
        let ask = |name: SanType| for_relay(&[name], &own);
        for good in ["relay.city.example", "localhost", "a.b.hq.example", "relay-1"] {
            assert_eq!(ask(dns(good)), Ok(vec![good.to_owned()]), "{good}");
        }
        assert_eq!(
            ask(SanType::IpAddress([127, 0, 0, 1].into())),
            Ok(vec!["127.0.0.1".to_owned()])
        );
        for bad in [
            "cp.city.example",
            "CP.City.Example",
            "cp.city.example.",
            "x.hq.example",
            "muster-control-plane",
            "Muster-Control-Plane.",
            "192.0.2.7",
        ] {
            assert_eq!(
                ask(dns(bad)),
                Err(NameRefused::ControlPlanes(bad.to_owned())),
                "{bad}"
            );
        }
        let mapped = Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped();
        for address in [IpAddr::from([192, 0, 2, 7]), mapped.into()] {
            assert!(matches!(
                ask(SanType::IpAddress(address)),
                Err(NameRefused::ControlPlanes(_))
            ));
        }
        for bad in ["*.city.example", "*", "", "a..b", "a b"] {
            assert_eq!(ask(dns(bad)), Err(NameRefused::NoName(bad.to_owned())), "{bad}");
        }
        let uri = SanType::URI("muster:control-plane".try_into().expect("ASCII"));
        assert_eq!(ask(uri), Err(NameRefused::OtherKind));
        assert_eq!(
            for_relay(&vec![dns("a"); 17], &own),
            Err(NameRefused::TooMany(17))
        );
    }

    #[test]
    fn a_certificate_does_for_a_name_if_it_says_it_or_has_the_wildcard() {
        let have = ["a.example", "*.b.example", "::1"].map(str::to_owned);
        let does = |name: &str| all_named(&have, &[name.to_owned()]);
        assert!(does("A.example") && does("x.b.example") && does("0:0:0:0:0:0:0:1") && does("[::1]"));
        assert!(!does("b.example") && !does("x.y.b.example") && !does("127.0.0.1"));
    }

    #[test]
    fn a_listener_on_all_addresses_has_more_names_than_loopback() {
        let all = names_of_listener(Ipv4Addr::UNSPECIFIED.into());
        assert!(
            all.contains(&"localhost".to_owned()) && all.contains(&"127.0.0.1".to_owned()),
            "{all:?}"
        );
        assert_eq!(names_of_listener([192, 0, 2, 1].into()), ["192.0.2.1"]);
    }
}
