//! The live line of a demonstration: rewritten in place on a terminal, otherwise a new line on a change.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use muster_proto::command::v1::WatchRequest;
use tokio::time::{Instant, sleep, timeout_at};

use crate::client::Client;
use crate::watch::Situation;

/// A line is not rewritten more often than this.
const PAUSE: Duration = Duration::from_millis(250);

/// Watches and prints until it is dropped. If the stream breaks, it is opened again.
pub async fn show(client: Client, sites: Vec<String>) {
    let terminal = std::io::stdout().is_terminal();
    let mut last = String::new();
    loop {
        let mut situation = Situation::default();
        if let Ok(response) = client.watch().watch(WatchRequest::default()).await {
            let mut stream = response.into_inner();
            while let Ok(Some(response)) = stream.message().await {
                situation.apply(response);
                // What comes at once is shown at once: hundreds of changes are one line.
                let quiet = Instant::now() + PAUSE;
                while let Ok(Ok(Some(response))) = timeout_at(quiet, stream.message()).await {
                    situation.apply(response);
                }
                print(&line(&situation, &sites), &mut last, terminal);
            }
        }
        sleep(Duration::from_secs(1)).await;
    }
}

fn line(situation: &Situation, sites: &[String]) -> String {
    let online = sites.iter().filter(|site| situation.is_online(site)).count();
    let mut text = format!("online {online}/{}  on air {}", sites.len(), situation.on_air());
    // One is named; more are counted, so that the line stays a line.
    match (situation.meetings.len(), situation.meetings.values().next()) {
        (0, _) | (_, None) => text.push_str("  no meeting"),
        (1, Some(meeting)) => {
            text.push_str(&format!(
                "  meeting {} ({} called)",
                meeting.id,
                meeting.summonses.len()
            ));
        }
        (count, _) => text.push_str(&format!("  {count} meetings")),
    }
    text
}

fn print(line: &str, last: &mut String, terminal: bool) {
    if line == last {
        return;
    }
    let mut out = std::io::stdout().lock();
    let _ = if terminal {
        write!(out, "\r\x1b[2K{line}")
    } else {
        writeln!(out, "{line}")
    };
    let _ = out.flush();
    line.clone_into(last);
}
