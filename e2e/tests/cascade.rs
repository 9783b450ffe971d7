//! City, district and street as three machines: a relay at each, agents at the lower two, the control plane and the
//! dispatcher at the top. The district's uplink is cut for 20 s.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use muster::viewer::Viewer;
use muster::viewer::expect::{expectations, show_page, wait_met};
use muster_e2e::field::{Field, summons, until};
use muster_e2e::own_network::in_own_network;
use muster_e2e::tiers::Tier;

/// One at the district's own relay, two at the street's.
const SITES: [(Tier, &str); 3] = [
    (Tier::District, "WH-EL-S01"),
    (Tier::Street, "WH-EL-01-S01"),
    (Tier::Street, "WH-EL-01-C001-S01"),
];
/// On the large picture.
const STAGE: &str = SITES[1].1;
/// Has the floor.
const SPEAKS: &str = SITES[2].1;
const CUT: Duration = Duration::from_secs(20);
/// Between two pictures on the island, on a machine that has much else to do.
const ISLAND_PAUSE: Duration = Duration::from_secs(5);
/// Until everything is as it was, from the moment that the wire is whole.
const BACK: Duration = Duration::from_secs(20);

#[test]
fn a_district_is_cut_off_for_20_s_goes_on_alone_and_joins_up_again() -> Result<()> {
    in_own_network(
        "a_district_is_cut_off_for_20_s_goes_on_alone_and_joins_up_again",
        || {
            let field = Field::start_tiers(&SITES)?;
            let runtime = tokio::runtime::Runtime::new()?;
            runtime
                .block_on(cut_and_join(&field))
                .map_err(|error| error.context(field.logs()))
        },
    )
}

async fn cut_and_join(field: &Field) -> Result<()> {
    let words = ["convene", "--wait", "30"];
    let sites = SITES.iter().flat_map(|(_, site)| ["--site", site]);
    let meeting = field.muster(&words.into_iter().chain(sites).collect::<Vec<_>>())?;
    ensure!(meeting["on_air"] == SITES.len(), "{meeting}");
    let meeting = meeting["id"].as_str().context("an id")?;
    // Each leg is at its own tier's relay.
    for (tier, site) in SITES {
        let status = field.agent_status(site)?;
        let at = status["relay"].as_str().unwrap_or_default();
        ensure!(
            at.starts_with(tier.address()),
            "{site} is at {at}, expected {tier:?}"
        );
    }
    field.muster(&["floor", "grant", SPEAKS, "--meeting", meeting])?;
    let mut viewer = Viewer::join(&field.desk_ticket(meeting).await?, SITES.len()).await?;
    field.broadcast(meeting, STAGE).await?;
    let pages: Vec<String> = SITES.iter().map(|(_, site)| (*site).to_owned()).collect();
    let mut expected = show_page(&mut viewer, STAGE, &pages).await?;
    ensure!(
        wait_met(&viewer, &mut expected).await,
        "the dispatcher sees all sites before"
    );
    until("the sites see the stage before", BACK, || {
        Ok(sees_stage(field, 0)?.0)
    })?;
    let before = stage_of(field, meeting)?;

    field.tiers()?.cut_uplink()?;
    let cut = Instant::now();
    // After the time in which parts notice.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let still = viewer.reading(1).pictures;
    let mut pictures = sees_stage(field, 0)?.1;
    while cut.elapsed() < CUT {
        tokio::time::sleep(Duration::from_secs(1)).await;
        until("the island's sites go on seeing each other", ISLAND_PAUSE, || {
            Ok(sees_stage(field, pictures)?.0)
        })?;
        pictures = sees_stage(field, pictures)?.1;
    }
    ensure!(
        viewer.reading(1).pictures == still,
        "nothing comes through a cut wire"
    );

    field.tiers()?.join_uplink()?;
    let joined = Instant::now();
    until("all sites are on air again, each where it was", BACK, || {
        let status = field.muster_with_code(&["status", meeting])?.1;
        Ok(status["on_air"] == SITES.len() && status["ended_ms"] == 0)
    })?;
    let mut seen = expectations(STAGE, &pages);
    let deadline = joined + BACK;
    while !wait_met(&viewer, &mut seen).await {
        ensure!(
            Instant::now() < deadline,
            "the dispatcher sees all sites again: {}; {}",
            complaints(&viewer, &seen),
            ways(field)
        );
    }
    println!("seen again {:?} after the wire was whole", joined.elapsed());
    ensure!(
        stage_of(field, meeting)? == before,
        "stage and floor are as they were"
    );
    until("the sites see the stage afterwards", BACK, || {
        Ok(sees_stage(field, pictures)?.0)
    })?;
    // And a command goes down to the street.
    field.broadcast(meeting, SITES[0].1).await?;
    until("the street is shown another stage", BACK, || {
        Ok(field.agent_status(SITES[2].1)?["stage_site"] == SITES[0].1)
    })?;
    field.muster(&["end", meeting])?;
    Ok(())
}

/// Whether all sites but the one on it have the stage live with more pictures than `least`; and the fewest that one has.
fn sees_stage(field: &Field, least: u64) -> Result<(bool, u64)> {
    let (mut live, mut fewest) = (true, u64::MAX);
    for (_, site) in SITES.iter().filter(|(_, site)| *site != STAGE) {
        let status = field.agent_status(site)?;
        let pictures = status["stage_pictures"].as_u64().context("a number")?;
        live &= status["stage_status"] == "live" && status["stage_site"] == STAGE && pictures > least;
        fewest = fewest.min(pictures);
    }
    Ok((live, fewest))
}

/// What must be the same afterwards.
fn stage_of(field: &Field, meeting: &str) -> Result<[serde_json::Value; 3]> {
    let status = field.muster_with_code(&["status", meeting])?.1;
    for (_, site) in SITES {
        summons(&status, site)?;
    }
    Ok([
        status["stage"].clone(),
        status["floor"].clone(),
        status["chair"].clone(),
    ])
}

/// What each site sends, and what it thinks of its way to the relay.
fn ways(field: &Field) -> String {
    let told = SITES.iter().map(|(_, site)| match field.agent_status(site) {
        Ok(status) => format!("{site} sends {} by {}", status["rung"], status["way"]),
        Err(error) => format!("{site}: {error}"),
    });
    told.collect::<Vec<_>>().join("; ")
}

fn complaints(viewer: &Viewer, seen: &[muster::viewer::expect::Expectation]) -> String {
    let unmet = seen.iter().filter(|one| !one.is_met());
    unmet
        .map(|one| one.complaint(viewer))
        .collect::<Vec<_>>()
        .join("; ")
}
