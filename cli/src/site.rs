//! `muster site …` and `muster relay …`: the sites, and the ways in.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Read};
use std::path::Path;

use muster_proto::command::v1::create_enrol_token_request::Target;
use muster_proto::command::v1::import_sites_with_progress_response::Step;
use muster_proto::command::v1::{
    Access, CreateEnrolTokenRequest, CreateSiteLinkRequest, ImportError, ImportSitesResponse,
    ImportSitesWithProgressRequest, ListSitesRequest, ListSitesResponse, Presence, Site, Unit,
};
use serde_json::{Value, json};

use crate::args::{EnrolToken, Form, Import, Link, List, RelayEnrolToken, tier_name};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{print_json, show, table, time};

/// The limit of `ImportSites`.
const MAX_IMPORT: u64 = 8 << 20;

pub async fn import(client: &Client, options: Import, form: Form) -> Result<(), Failure> {
    let csv = read_import(&options.file)?;
    let result = send_import(client, csv, options.dry_run).await?;
    if form == Form::Json {
        print_json(&json!({
            "units_added": result.units_added, "units_changed": result.units_changed,
            "sites_added": result.sites_added, "sites_changed": result.sites_changed,
            "unchanged": result.unchanged, "dry_run": options.dry_run,
            "errors": result.errors.iter().map(error_json).collect::<Vec<_>>(),
        }))?;
    }
    if !result.errors.is_empty() {
        if form == Form::Table {
            show(&error_table(&result.errors))?;
        }
        return Err(Failure::Usage(format!(
            "{}: {} wrong; nothing was imported",
            options.file.display(),
            if result.errors.len() == 1 {
                "1 field".to_owned()
            } else {
                format!("{} fields", result.errors.len())
            },
        )));
    }
    if form == Form::Table {
        let done = if options.dry_run {
            "would be imported"
        } else {
            "imported"
        };
        show(&format!(
            "{done}: units {} new, {} changed; sites {} new, {} changed; {} unchanged\n",
            result.units_added,
            result.units_changed,
            result.sites_added,
            result.sites_changed,
            result.unchanged
        ))?;
    }
    Ok(())
}

/// Tells a terminal how far it has come.
async fn send_import(client: &Client, csv: Vec<u8>, dry_run: bool) -> Result<ImportSitesResponse, Failure> {
    let request = ImportSitesWithProgressRequest { csv, dry_run };
    let mut steps = client
        .directory()
        .import_sites_with_progress(request)
        .await?
        .into_inner();
    let shown = std::io::stderr().is_terminal();
    while let Some(message) = steps.message().await? {
        match message.step {
            Some(Step::Progress(progress)) if shown => {
                eprint!("\r{} of {} rows", progress.done, progress.total);
            }
            Some(Step::Done(done)) => {
                if shown {
                    eprintln!();
                }
                return Ok(done);
            }
            Some(Step::Progress(_)) | None => {}
        }
    }
    Err(Failure::Unreachable(
        "the import ended without a result".to_owned(),
    ))
}

fn read_import(file: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| Failure::Usage(format!("{}: {error}", file.display()));
    let mut csv = Vec::new();
    if file == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(MAX_IMPORT + 1)
            .read_to_end(&mut csv)
            .map_err(failed)?;
    } else {
        std::fs::File::open(file)
            .map_err(failed)?
            .take(MAX_IMPORT + 1)
            .read_to_end(&mut csv)
            .map_err(failed)?;
    }
    if csv.len() as u64 > MAX_IMPORT {
        return Err(Failure::Usage(format!("{}: larger than 8 MiB", file.display())));
    }
    Ok(csv)
}

fn error_json(error: &ImportError) -> Value {
    json!({ "line": error.line, "column": error.column, "found": error.found, "expected": error.expected })
}

fn error_table(errors: &[ImportError]) -> String {
    let rows: Vec<_> = errors
        .iter()
        .map(|e| {
            [
                e.line.to_string(),
                e.column.clone(),
                shown(&e.found),
                e.expected.clone(),
            ]
        })
        .collect();
    table(["line", "column", "found", "expected"], &rows)
}

/// What stood in the file, safe to print: it may be anything.
fn shown(found: &str) -> String {
    if found.is_empty() {
        "(empty)".to_owned()
    } else {
        found.escape_debug().to_string()
    }
}

pub async fn list(client: &Client, options: List, form: Form) -> Result<(), Failure> {
    let all = client
        .directory()
        .list_sites(ListSitesRequest {})
        .await?
        .into_inner();
    let ListSitesResponse {
        units,
        sites,
        presence,
    } = all;
    let within = match &options.unit {
        Some(unit) => Some(subtree(&units, unit)?),
        None => None,
    };
    let presence: BTreeMap<_, _> = presence.into_iter().map(|p| (p.site.clone(), p)).collect();
    let chosen: Vec<_> = sites
        .into_iter()
        .filter(|site| {
            within
                .as_ref()
                .is_none_or(|units| units.contains(site.unit.as_str()))
        })
        .map(|site| {
            let presence = presence.get(&site.id).cloned().unwrap_or_default();
            (site, presence)
        })
        .filter(|(_, presence)| presence.online || !options.online)
        .collect();
    match form {
        Form::Json => print_json(&chosen.iter().map(site_json).collect::<Vec<_>>()),
        Form::Table => {
            let rows: Vec<_> = chosen.iter().map(site_row).collect();
            show(&table(
                [
                    "site", "tier", "unit", "name", "名称", "access", "tags", "online", "since",
                ],
                &rows,
            ))
        }
    }
}

/// The unit and everything under it.
fn subtree<'a>(units: &'a [Unit], root: &str) -> Result<BTreeSet<&'a str>, Failure> {
    let root = units
        .iter()
        .find(|unit| unit.id == root)
        .ok_or_else(|| Failure::Refused(format!("no unit {root} in the account's tree")))?;
    let mut found = BTreeSet::from([root.id.as_str()]);
    // Units come in any order: as many rounds as there are tiers.
    loop {
        let before = found.len();
        let children = units.iter().filter(|unit| found.contains(unit.parent.as_str()));
        let children: Vec<_> = children.map(|unit| unit.id.as_str()).collect();
        found.extend(children);
        if found.len() == before {
            return Ok(found);
        }
    }
}

fn access_name(access: Access) -> &'static str {
    match access {
        Access::Unspecified => "-",
        Access::Fibre => "fibre",
        Access::Adsl => "adsl",
        Access::Access4g => "4g",
        Access::Satellite => "satellite",
    }
}

fn site_json((site, presence): &(Site, Presence)) -> Value {
    json!({
        "id": site.id, "unit": site.unit, "tier": tier_name(site.tier), "name_zh": site.name_zh,
        "name_en": site.name_en, "lat": site.lat, "lon": site.lon, "access": access_name(site.access()),
        "tags": site.tags, "online": presence.online, "since_ms": presence.since_ms,
        "endpoint": presence.endpoint,
    })
}

fn site_row((site, presence): &(Site, Presence)) -> [String; 9] {
    [
        site.id.clone(),
        tier_name(site.tier).to_owned(),
        site.unit.clone(),
        site.name_en.clone(),
        site.name_zh.clone(),
        access_name(site.access()).to_owned(),
        site.tags.join(","),
        if presence.online {
            presence.endpoint.clone()
        } else {
            "no".to_owned()
        },
        time(presence.since_ms),
    ]
}

pub async fn link(client: &Client, options: Link, form: Form, server: &str) -> Result<(), Failure> {
    let request = CreateSiteLinkRequest {
        site: options.site.clone(),
        valid_s: options.valid_h * 3600,
    };
    let link = client.directory().create_site_link(request).await?.into_inner();
    let url = format!("{}{}", server.trim_end_matches('/'), link.path);
    match form {
        Form::Json => print_json(&json!({ "site": options.site, "url": url, "expires_ms": link.expires_ms })),
        Form::Table => {
            show(&format!("{url}\n"))?;
            eprintln!(
                "good until {}; whoever has it can join as {}",
                time(link.expires_ms),
                options.site
            );
            Ok(())
        }
    }
}

pub async fn site_enrol_token(client: &Client, options: EnrolToken, form: Form) -> Result<(), Failure> {
    enrol_token(client, Target::Site(options.site), options.valid_h, form).await
}

pub async fn relay_enrol_token(client: &Client, options: RelayEnrolToken, form: Form) -> Result<(), Failure> {
    enrol_token(client, Target::RelayUnit(options.unit), options.valid_h, form).await
}

async fn enrol_token(client: &Client, target: Target, valid_h: u32, form: Form) -> Result<(), Failure> {
    let named = match &target {
        Target::Site(site) => json!({ "site": site }),
        Target::RelayUnit(unit) => json!({ "relay_unit": unit }),
    };
    let request = CreateEnrolTokenRequest {
        target: Some(target),
        valid_s: valid_h * 3600,
    };
    let token = client.directory().create_enrol_token(request).await?.into_inner();
    match form {
        Form::Json => {
            print_json(&json!({ "for": named, "token": token.token, "expires_ms": token.expires_ms }))
        }
        Form::Table => {
            show(&format!("{}\n", token.token))?;
            eprintln!("good once, until {}", time(token.expires_ms));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(id: &str, parent: &str) -> Unit {
        Unit {
            id: id.to_owned(),
            parent: parent.to_owned(),
            ..Unit::default()
        }
    }

    #[test]
    fn a_subtree_is_the_unit_and_all_below_it_in_any_order() {
        let units = [unit("c", "b"), unit("b", "a"), unit("a", ""), unit("x", "a")];
        assert_eq!(
            subtree(&units, "b").expect("known unit"),
            BTreeSet::from(["b", "c"])
        );
        assert_eq!(subtree(&units, "a").expect("known unit").len(), 4);
        assert!(matches!(subtree(&units, "z"), Err(Failure::Refused(_))));
    }

    #[test]
    fn every_bad_field_is_shown_and_control_characters_are_not() {
        let error = |line, found: &str| ImportError {
            line,
            column: "tier".to_owned(),
            found: found.to_owned(),
            expected: "city, district, street or community".to_owned(),
        };
        let text = error_table(&[error(2, "vil\x1b[2Jlage"), error(7, "")]);
        assert!(text.contains("2     tier    vil\\u{1b}[2Jlage  city"), "{text}");
        assert!(text.contains("\n7     tier    (empty)"), "{text}");
    }
}
