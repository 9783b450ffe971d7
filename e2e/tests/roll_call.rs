//! A roll call with every program a process of its own, and no console in the meeting: nothing goes down to any site.

use std::time::Duration;

use anyhow::{Context, Result};
use muster_e2e::field::{Field, until};

const SITES: [&str; 3] = ["WH-EL-S01", "WH-EL-01-S01", "WH-EL-01-C001-S01"];

/// Calls the roll, and hears a person at every site but the last.
fn call_the_roll(field: &Field) -> Result<()> {
    let convene: Vec<_> = ["convene", "--wait", "20"]
        .into_iter()
        .chain(SITES.iter().flat_map(|site| ["--site", site]))
        .collect();
    let meeting = field.muster(&convene)?;
    assert_eq!(meeting["on_air"], SITES.len(), "{meeting}");
    let entry = |site: &str| -> Result<serde_json::Value> {
        let result = field.muster(&["roll-call", "result"])?;
        let entries = result["entries"].as_array().context("entries")?.clone();
        let found = entries.into_iter().find(|entry| entry["site"] == *site);
        found.context("the site is called")
    };
    field.muster(&["roll-call", "start"])?;
    for site in SITES {
        until("its media is seen both ways", Duration::from_secs(10), || {
            let entry = entry(site)?;
            Ok(entry["seen_up"] == true && entry["seen_down"] == true)
        })?;
        if site == SITES[2] {
            field.muster(&["roll-call", "next"])?;
        } else {
            field.muster(&["roll-call", "acknowledge", site])?;
        }
    }
    let mut results = Vec::new();
    for site in SITES {
        results.push(entry(site)?["result"].clone());
    }
    assert_eq!(results, ["present", "present", "absent"]);
    Ok(())
}

#[test]
fn without_a_console_in_the_meeting_sites_that_answer_are_present() -> Result<()> {
    let field = Field::start(&SITES)?;
    call_the_roll(&field).map_err(|error| error.context(field.logs()))
}
