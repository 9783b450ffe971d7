//! What goes on when the control plane or an agent dies, with every program a process of its own.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use muster::viewer::expect::{Expectation, expectations, show_page, wait_met};
use muster::viewer::{Viewer, Wish};
use muster_e2e::field::{Field, summons, until};

const SITES: [&str; 4] = ["WH-S01", "WH-EL-S01", "WH-EL-01-S01", "WH-EL-01-C001-S01"];

/// Fails with what the programs said.
fn with_logs<T>(field: &Field, outcome: Result<T>) -> Result<T> {
    outcome.map_err(|error| error.context(field.logs()))
}

/// Convenes all sites; gives the meeting's id when all are on air.
fn convene(field: &Field) -> Result<String> {
    let words: Vec<_> = ["convene", "--wait", "20"]
        .into_iter()
        .chain(SITES.iter().flat_map(|site| ["--site", site]))
        .collect();
    let meeting = field.muster(&words)?;
    assert_eq!(meeting["on_air"], SITES.len(), "{meeting}");
    Ok(meeting["id"].as_str().context("an id")?.to_owned())
}

async fn assert_all_shown(viewer: &Viewer, mut expected: Vec<Expectation>, when: &str) {
    if !wait_met(viewer, &mut expected).await {
        let complaints: Vec<_> = expected
            .iter()
            .filter(|e| !e.is_met())
            .map(|e| e.complaint(viewer))
            .collect();
        panic!("{when}: {complaints:?}");
    }
}

fn pages() -> Vec<String> {
    SITES.map(str::to_owned).to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_meeting_outlives_the_control_plane_and_is_found_again() -> Result<()> {
    let mut field = tokio::task::block_in_place(|| Field::start(&SITES))?;
    let outcome = kill_control_plane_in_mid_meeting(&mut field).await;
    with_logs(&field, outcome)
}

async fn kill_control_plane_in_mid_meeting(field: &mut Field) -> Result<()> {
    let meeting = tokio::task::block_in_place(|| convene(field))?;
    let mut viewer = Viewer::join(&field.desk_ticket(&meeting).await?, SITES.len()).await?;
    let stage = SITES[1];
    field.broadcast(&meeting, stage).await?;
    let expected = show_page(&mut viewer, stage, &pages()).await?;
    assert_all_shown(&viewer, expected, "before").await;

    field.kill_control_plane();
    // Longer than any of the pauses after which a part might think that all is lost.
    for second in 1..=6 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_all_shown(
            &viewer,
            expectations(stage, &pages()),
            &format!("{second} s after the kill"),
        )
        .await;
    }
    // The relay still does what concerns pictures.
    let turned: Vec<_> = pages().into_iter().rev().collect();
    let expected = show_page(&mut viewer, stage, &turned).await?;
    assert_all_shown(
        &viewer,
        expected,
        "put differently while the control plane is away",
    )
    .await;

    tokio::task::block_in_place(|| field.start_control_plane())?;
    tokio::task::block_in_place(|| {
        until(
            "the same meeting is there with all on air",
            Duration::from_secs(10),
            || {
                let (_, status) = field.muster_with_code(&["status", &meeting])?;
                Ok(status["id"] == *meeting && status["ended_ms"] == 0 && status["on_air"] == SITES.len())
            },
        )
    })?;
    // It stays so after the time in which relays may come back.
    let watched = Instant::now();
    while watched.elapsed() < Duration::from_secs(7) {
        let status = tokio::task::block_in_place(|| field.muster(&["status", &meeting]))?;
        assert_eq!(status["on_air"], SITES.len(), "{status}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_all_shown(&viewer, expectations(stage, &turned), "after the return").await;
    field.broadcast(&meeting, SITES[3]).await?;
    assert_all_shown(
        &viewer,
        vec![Expectation::new(0, SITES[3])],
        "a command after the return",
    )
    .await;

    tokio::task::block_in_place(|| field.muster(&["end", &meeting]))?;
    tokio::task::block_in_place(|| {
        until("no meeting is left", Duration::from_secs(5), || {
            Ok(field.muster(&["status"])? == serde_json::json!([]))
        })
    })?;
    let last = viewer.reading(1).pictures;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = viewer.reading(1).pictures;
    assert!(
        after <= last + 10,
        "pictures go on after the end: {last}, {after}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_dies_is_missed_and_returns_to_its_place() -> Result<()> {
    let mut field = tokio::task::block_in_place(|| Field::start(&SITES))?;
    let outcome = kill_agent_in_mid_meeting(&mut field).await;
    with_logs(&field, outcome)
}

async fn kill_agent_in_mid_meeting(field: &mut Field) -> Result<()> {
    let meeting = tokio::task::block_in_place(|| convene(field))?;
    let mut viewer = Viewer::join(&field.desk_ticket(&meeting).await?, SITES.len()).await?;
    field.broadcast(&meeting, SITES[0]).await?;
    let expected = show_page(&mut viewer, SITES[0], &pages()).await?;
    assert_all_shown(&viewer, expected, "before").await;
    let killed = SITES[2];

    field.kill_agent(killed)?;
    tokio::task::block_in_place(|| {
        until(
            "the summons says that the site is lost",
            Duration::from_secs(3),
            || {
                let (code, status) = field.muster_with_code(&["status", &meeting])?;
                let summons = summons(&status, killed)?;
                Ok(summons["state"] == "unreachable"
                    && !summons["reason"].as_str().unwrap_or("").is_empty()
                    && code == Some(4))
            },
        )
    })?;
    let others: Vec<_> = [0usize, 1, 3]
        .into_iter()
        .map(|at| Expectation::new(at + 1, SITES[at]))
        .collect();
    assert_all_shown(&viewer, others, "the others while one is away").await;

    field.start_agent(killed)?;
    tokio::task::block_in_place(|| {
        until(
            "the site is on air again by itself",
            Duration::from_secs(10),
            || {
                let (_, status) = field.muster_with_code(&["status", &meeting])?;
                Ok(summons(&status, killed)?["state"] == "on air")
            },
        )
    })?;
    // The wish was never repeated: the slot still stands for the site.
    assert_all_shown(
        &viewer,
        vec![Expectation::new(3, killed)],
        "the slot of the one that came back",
    )
    .await;
    viewer.set_view(&[Wish::Stage]).await?;
    tokio::task::block_in_place(|| field.muster(&["end", &meeting])).map(|_| ())
}
