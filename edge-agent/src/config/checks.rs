//! What a setting may be: what cannot be used is refused, in words that say what was expected, and never made to fit.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::RangeInclusive;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::ConfigError;
use crate::recorder::Limits;

/// Reached from this box alone.
const PAGE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8088));

pub(super) const MIB: u64 = 1024 * 1024;
const RECORDINGS_MIB: u64 = 2048;
pub(super) const KEEP_FREE_MIB: u64 = 1024;
/// 16 TiB.
const MOST_MIB: u64 = 16 * 1024 * 1024;
/// Of the clock in the picture, minutes: that of China.
const UTC_OFFSET: i32 = 480;
/// What there is on Earth.
const UTC_OFFSETS: RangeInclusive<i32> = -720..=840;

/// Checks the addresses, and leaves out what stands there twice.
pub(super) fn addresses(told: Vec<String>) -> Result<Vec<String>, ConfigError> {
    let mut addresses: Vec<String> = Vec::new();
    for address in told {
        let address = address.trim();
        let port = address
            .rsplit_once(':')
            .filter(|(host, _)| !host.is_empty())
            .map(|(_, port)| port);
        if !port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0)) {
            return Err(ConfigError::Address);
        }
        if !addresses.iter().any(|known| known == address) {
            addresses.push(address.to_owned());
        }
    }
    if addresses.is_empty() {
        return Err(ConfigError::Missing("control plane"));
    }
    Ok(addresses)
}

/// Names of interfaces as Linux has them (at most 15 bytes, no slash, no space), each once.
pub(super) fn interfaces(names: Vec<String>) -> Result<Vec<String>, ConfigError> {
    for (index, name) in names.iter().enumerate() {
        let fits = (1..=15).contains(&name.len()) && !name.contains(['/', ' ', '\0']);
        if !fits || names[..index].contains(name) {
            return Err(ConfigError::Uplink(name.clone()));
        }
    }
    Ok(names)
}

/// Where the page is served; none: nowhere.
pub(super) fn page(told: Option<&str>) -> Result<Option<SocketAddr>, ConfigError> {
    match told.map(str::trim) {
        None => Ok(Some(PAGE)),
        Some("off") => Ok(None),
        Some(address) => address.parse().map(Some).map_err(|_| ConfigError::Page),
    }
}

/// What recordings may take; none: nothing is recorded.
pub(super) fn recordings(
    most_mib: Option<i64>,
    keep_free_mib: Option<i64>,
) -> Result<Option<Limits>, ConfigError> {
    let bytes = |key, told: Option<i64>, otherwise| match told {
        None => Ok(otherwise * MIB),
        Some(mib) => u64::try_from(mib)
            .ok()
            .filter(|mib| *mib <= MOST_MIB)
            .map(|mib| mib * MIB)
            .ok_or_else(|| ConfigError::Range {
                key,
                found: mib.to_string(),
                expected: "0 to 16777216 MiB",
            }),
    };
    let most = bytes("recordings_mib", most_mib, RECORDINGS_MIB)?;
    let keep_free = bytes("keep_free_mib", keep_free_mib, KEEP_FREE_MIB)?;
    Ok((most > 0).then_some(Limits { most, keep_free }))
}

pub(super) fn utc_offset(told: Option<i64>) -> Result<i32, ConfigError> {
    let Some(minutes) = told else {
        return Ok(UTC_OFFSET);
    };
    i32::try_from(minutes)
        .ok()
        .filter(|minutes| UTC_OFFSETS.contains(minutes))
        .ok_or_else(|| ConfigError::Range {
            key: "utc_offset_minutes",
            found: minutes.to_string(),
            expected: "-720 to 840 minutes, such as 480",
        })
}

/// A filter as `tracing` has it. A word alone must be a level: as the name of a module, which it could be, a misspelt level
/// would turn the log off.
pub(super) fn log_filter(told: Option<String>) -> Result<String, ConfigError> {
    let Some(told) = told else {
        return Ok("info".into());
    };
    let is_known = |directive: &str| {
        directive.contains(['=', '[']) || directive.is_empty() || directive.parse::<LevelFilter>().is_ok()
    };
    // Commas within a span are no ends of directives.
    let are_known = || told.contains('[') || told.split(',').all(|directive| is_known(directive.trim()));
    if EnvFilter::try_new(&told).is_ok() && are_known() {
        return Ok(told);
    }
    Err(ConfigError::Range {
        key: "log",
        found: told,
        expected: "off, error, warn, info, debug, trace, or a filter such as muster_edge=debug",
    })
}
