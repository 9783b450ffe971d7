//! `muster log`: the events of a stream, the proof that they are whole, and a meeting as it was.

use muster_proto::command::v1::{ReadLogRequest, ReadLogResponse, ReplayMeetingRequest, VerifyLogRequest};
use serde_json::{Value, json};

use crate::args::{Form, LogCommand};
use crate::chain::{Chain, Stored};
use crate::client::Client;
use crate::event_json::{meeting_event, unit_event};
use crate::failure::Failure;
use crate::json::hex;
use crate::meeting::{id_of, print_meeting};
use crate::output::{print_json, show, table, time};
use crate::session::now_ms;

pub async fn log(client: &Client, command: LogCommand, form: Form) -> Result<(), Failure> {
    match command {
        LogCommand::Read { stream, after } => read(client, &stream, after, form).await,
        LogCommand::Verify { stream, head } => verify(client, stream, head, form).await,
        LogCommand::Replay { meeting, at, seq } => {
            let request = ReplayMeetingRequest {
                meeting: id_of(client, meeting).await?,
                at_ms: at.map_or(0, |at| at.ms(now_ms())),
                seq: seq.unwrap_or(0),
            };
            let replayed = client.log().replay_meeting(request).await?.into_inner();
            let meeting = replayed
                .meeting
                .ok_or_else(|| Failure::Refused("there was no meeting yet at that time".to_owned()))?;
            print_meeting(client, &meeting, form).await
        }
    }
}

/// A line for each event, as it comes.
async fn read(client: &Client, stream: &str, after: u64, form: Form) -> Result<(), Failure> {
    let request = ReadLogRequest {
        stream: stream.to_owned(),
        after,
    };
    let mut events = client.log().read_log(request).await?.into_inner();
    while let Some(event) = events.message().await? {
        let line = event_line(stream, &event);
        match form {
            Form::Json => print_json(&line)?,
            Form::Table => show(&event_text(&line))?,
        }
    }
    Ok(())
}

fn event_line(stream: &str, event: &ReadLogResponse) -> Value {
    let mut line = match Stored::read(stream, &event.payload) {
        Ok(Stored::Meeting(event)) => meeting_event(&event),
        Ok(Stored::Unit(event)) => unit_event(&event),
        // What was altered may be no event at all; that is shown, not hidden.
        Err(error) => json!({ "stream": stream, "seq": event.seq, "unreadable": error }),
    };
    line["hash"] = hex(&event.hash).into();
    line
}

fn event_text(line: &Value) -> String {
    let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    format!(
        "{:>6}  {}  {:<16}  {:<18}  {:<18}  {}\n",
        line["seq"].as_u64().unwrap_or(0),
        time(line["at_ms"].as_i64().unwrap_or(0)),
        text("actor"),
        text("cause"),
        text("kind"),
        line.get("unreadable").unwrap_or(&line["event"]),
    )
}

/// What is known of one stream.
struct Verdict {
    stream: String,
    events: u64,
    /// The first event that does not fit; 0: all do.
    broken_at: u64,
    found: String,
    head: Vec<u8>,
}

impl Verdict {
    fn json(&self) -> Value {
        json!({
            "stream": self.stream, "events": self.events, "broken_at": self.broken_at, "found": self.found,
            "head": hex(&self.head),
        })
    }

    fn row(&self) -> [String; 4] {
        let verdict = match self.broken_at {
            0 => "whole".to_owned(),
            seq => format!("event {seq}: {}", self.found.escape_debug()),
        };
        [
            self.stream.clone(),
            self.events.to_string(),
            hex(&self.head),
            verdict,
        ]
    }
}

async fn verify(
    client: &Client,
    stream: Option<String>,
    noted: Option<String>,
    form: Form,
) -> Result<(), Failure> {
    let request = VerifyLogRequest {
        stream: stream.unwrap_or_default(),
    };
    let mut answers = client.log().verify_log(request).await?.into_inner();
    let mut verdicts = Vec::new();
    while let Some(answer) = answers.message().await? {
        let mut verdict = recompute(client, &answer.stream, noted.as_deref()).await?;
        // The server may see what the way to us hides, and the other way round: either is enough.
        if verdict.broken_at == 0 && answer.broken_at != 0 {
            (verdict.broken_at, verdict.found) = (answer.broken_at, answer.found);
        }
        if form == Form::Json {
            print_json(&verdict.json())?;
        }
        verdicts.push(verdict);
    }
    if form == Form::Table {
        let rows: Vec<_> = verdicts.iter().map(Verdict::row).collect();
        show(&table(["stream", "events", "last hash", "verdict"], &rows))?;
    }
    conclude(&verdicts)
}

fn conclude(verdicts: &[Verdict]) -> Result<(), Failure> {
    let broken: Vec<_> = verdicts.iter().filter(|verdict| verdict.broken_at != 0).collect();
    match broken.as_slice() {
        [] if verdicts.is_empty() => Err(Failure::Refused("there is no stream to verify".to_owned())),
        [] => Ok(()),
        [first, ..] => Err(Failure::Refused(format!(
            "the log was altered: {} of {} streams; the first is {}, event {}",
            broken.len(),
            verdicts.len(),
            first.stream,
            first.broken_at
        ))),
    }
}

/// Reads a whole stream and computes its chain here.
async fn recompute(client: &Client, stream: &str, noted: Option<&str>) -> Result<Verdict, Failure> {
    let request = ReadLogRequest {
        stream: stream.to_owned(),
        after: 0,
    };
    let mut events = client.log().read_log(request).await?.into_inner();
    let (mut chain, mut count, mut found_noted) = (Chain::new(stream), 0, noted.is_none());
    while let Some(event) = events.message().await? {
        count += 1;
        chain.take(&event);
        found_noted |= noted.is_some_and(|noted| noted.eq_ignore_ascii_case(&hex(&event.hash)));
    }
    let (broken_at, found) = match chain.broken {
        Some((seq, found)) => (seq, found),
        None if !found_noted => {
            let found = "the chain fits, and the hash that was noted is not in it: it was written anew";
            (chain.seq.max(1), found.to_owned())
        }
        None => (0, String::new()),
    };
    Ok(Verdict {
        stream: stream.to_owned(),
        events: count,
        broken_at,
        found,
        head: chain.head.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(broken_at: u64) -> Verdict {
        Verdict {
            stream: "m".to_owned(),
            events: 3,
            broken_at,
            found: "altered".to_owned(),
            head: vec![0xab; 32],
        }
    }

    #[test]
    fn an_altered_log_fails_and_names_the_event() {
        assert_eq!(conclude(&[verdict(0)]), Ok(()));
        match conclude(&[verdict(0), verdict(2)]) {
            Err(Failure::Refused(text)) => {
                assert!(text.contains("1 of 2") && text.contains("m, event 2"), "{text}")
            }
            other => panic!("{other:?}"),
        }
        assert!(conclude(&[]).is_err(), "nothing proves nothing");
        assert_eq!(verdict(0).row()[3], "whole");
        assert_eq!(verdict(2).row()[3], "event 2: altered");
    }

    #[test]
    fn bytes_that_are_no_event_are_shown_as_such() {
        let event = ReadLogResponse {
            seq: 4,
            payload: vec![0xff; 3],
            hash: vec![1],
        };
        let line = event_line("m", &event);
        assert_eq!(
            (line["seq"].as_u64(), line["hash"].as_str()),
            (Some(4), Some("01"))
        );
        assert!(line["unreadable"].is_string());
        assert!(event_text(&line).starts_with("     4  "));
    }
}
