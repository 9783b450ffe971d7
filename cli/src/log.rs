//! `muster log`: the events of a stream, the proof that they are whole, and a meeting as it was.

use std::collections::BTreeMap;
use std::path::Path;

use muster_proto::command::v1::{ReadLogRequest, ReadLogResponse, ReplayMeetingRequest, VerifyLogRequest};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::args::{Form, LogCommand};
use crate::chain::{Chain, Stored};
use crate::client::Client;
use crate::event_json::{meeting_event, unit_event};
use crate::failure::Failure;
use crate::json::hex;
use crate::meeting::{id_of, print_meeting};
use crate::output::{print_json, show, table, time};
use crate::session::now_ms;
use crate::when::When;

pub async fn log(client: &Client, command: LogCommand, form: Form) -> Result<(), Failure> {
    match command {
        LogCommand::Read { stream, after } => read(client, &stream, after, form).await,
        LogCommand::Verify {
            stream,
            head,
            print_heads,
            against,
        } => {
            let noted = match &against {
                Some(file) => Noted::read(file)?,
                None => Noted::default(),
            };
            let shown = if print_heads {
                Shown::Heads
            } else {
                Shown::Verdicts(form)
            };
            verify(client, stream, head, noted, shown).await
        }
        LogCommand::Replay { meeting, at, seq } => replay(client, meeting, at, seq, form).await,
    }
}

async fn replay(
    client: &Client,
    meeting: Option<String>,
    at: Option<When>,
    seq: Option<u64>,
    form: Form,
) -> Result<(), Failure> {
    let request = ReplayMeetingRequest {
        meeting: id_of(client, meeting).await?,
        at_ms: at.map(|at| at.ms(now_ms())),
        seq,
    };
    let asked = request.clone();
    let replayed = client.log().replay_meeting(request).await;
    let replayed = replayed.map_err(|status| match (asked.at_ms, status.code()) {
        // The server names milliseconds; a person gave a time.
        (Some(at), Code::InvalidArgument) if status.message().contains("began at") => {
            Failure::Refused(format!(
                "meeting {} had not begun at {}: muster log read {0} shows when it did",
                asked.meeting,
                time(at)
            ))
        }
        _ => status.into(),
    })?;
    let meeting = replayed
        .into_inner()
        .meeting
        .ok_or_else(|| Failure::Refused("the control plane answered without a meeting".to_owned()))?;
    print_meeting(client, &meeting, form).await
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

/// What goes to the output.
#[derive(Clone, Copy, PartialEq)]
enum Shown {
    Verdicts(Form),
    /// A line for each stream that is whole: its name, its last number and hash.
    Heads,
}

/// Heads that were kept elsewhere: of each stream a number and the hash of that event.
#[derive(Default, Debug, PartialEq)]
struct Noted(BTreeMap<String, (u64, String)>);

impl Noted {
    fn read(file: &Path) -> Result<Self, Failure> {
        let usage = |what: String| Failure::Usage(format!("{}: {what}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|error| usage(error.to_string()))?;
        Self::parse(&text).map_err(usage)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut noted = BTreeMap::new();
        let lines = (1..)
            .zip(text.lines())
            .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
        for (number, line) in lines {
            let bad = || {
                format!("line {number}: expected STREAM NUMBER HASH, as of muster log verify --print-heads")
            };
            let mut words = line.split_whitespace();
            let (Some(stream), Some(seq), Some(hash), None) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                return Err(bad());
            };
            let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
            let seq = seq
                .parse()
                .ok()
                .filter(|seq| *seq > 0 && is_hash)
                .ok_or_else(bad)?;
            noted.insert(stream.to_owned(), (seq, hash.to_ascii_lowercase()));
        }
        if noted.is_empty() {
            return Err("no head is in it".to_owned());
        }
        Ok(Self(noted))
    }
}

async fn verify(
    client: &Client,
    stream: Option<String>,
    head: Option<String>,
    mut noted: Noted,
    shown: Shown,
) -> Result<(), Failure> {
    if let Some(stream) = &stream {
        noted.0.retain(|name, _| name == stream);
    }
    let request = VerifyLogRequest {
        stream: stream.unwrap_or_default(),
    };
    let mut answers = client.log().verify_log(request).await?.into_inner();
    let mut verdicts = Vec::new();
    while let Some(answer) = answers.message().await? {
        let kept = noted.0.remove(&answer.stream);
        let mut verdict = recompute(client, &answer.stream, head.as_deref(), kept).await?;
        // The server may see what the way to us hides, and the other way round: either is enough.
        if answer.broken_at != 0 {
            (verdict.broken_at, verdict.found) = (answer.broken_at, answer.found);
        }
        verdicts.push(verdict);
    }
    // What was noted and is told no more.
    for (stream, (seq, _)) in noted.0 {
        verdicts.push(Verdict {
            stream,
            events: 0,
            broken_at: seq,
            found: "noted elsewhere, and now there is no such stream, or not for this account".to_owned(),
            head: Vec::new(),
        });
    }
    print(&verdicts, shown)?;
    conclude(&verdicts)
}

fn print(verdicts: &[Verdict], shown: Shown) -> Result<(), Failure> {
    match shown {
        Shown::Verdicts(Form::Json) => verdicts
            .iter()
            .try_for_each(|verdict| print_json(&verdict.json())),
        Shown::Verdicts(Form::Table) => {
            let rows: Vec<_> = verdicts.iter().map(Verdict::row).collect();
            show(&table(["stream", "events", "last hash", "verdict"], &rows))
        }
        Shown::Heads => {
            let whole = verdicts.iter().filter(|verdict| verdict.broken_at == 0);
            let line =
                |verdict: &Verdict| format!("{} {} {}\n", verdict.stream, verdict.events, hex(&verdict.head));
            show(&whole.map(line).collect::<String>())
        }
    }
}

fn conclude(verdicts: &[Verdict]) -> Result<(), Failure> {
    let broken: Vec<_> = verdicts.iter().filter(|verdict| verdict.broken_at != 0).collect();
    match broken.as_slice() {
        [] if verdicts.is_empty() => Err(Failure::Refused("there is no stream to verify".to_owned())),
        [] => Ok(()),
        [first, ..] => Err(Failure::Refused(format!(
            "the log was altered: {} of {} streams; the first is {}, event {}: {}",
            broken.len(),
            verdicts.len(),
            first.stream.escape_debug(),
            first.broken_at,
            first.found.escape_debug()
        ))),
    }
}

/// Reads a whole stream and computes its chain here. What cannot be read is broken, and no reason to stop.
async fn recompute(
    client: &Client,
    stream: &str,
    head: Option<&str>,
    kept: Option<(u64, String)>,
) -> Result<Verdict, Failure> {
    let mut check = Check {
        chain: Chain::new(stream),
        count: 0,
        head: head.map(str::to_ascii_lowercase),
        kept,
    };
    let unread = match read_through(client, stream, &mut check).await {
        Ok(()) => None,
        Err(status) => match status.code() {
            Code::DataLoss | Code::NotFound | Code::InvalidArgument | Code::PermissionDenied => Some(status),
            _ => return Err(status.into()),
        },
    };
    let mut verdict = check.verdict(stream);
    if let (Some(status), 0) = (unread, verdict.broken_at) {
        verdict.broken_at = verdict.events + 1;
        verdict.found = format!("it cannot be read: {}", status.message());
    }
    Ok(verdict)
}

async fn read_through(client: &Client, stream: &str, check: &mut Check) -> Result<(), Status> {
    let request = ReadLogRequest {
        stream: stream.to_owned(),
        after: 0,
    };
    let mut events = client.log().read_log(request).await?.into_inner();
    while let Some(event) = events.message().await? {
        check.take(&event);
    }
    Ok(())
}

/// A chain as it is computed, and what was noted of it elsewhere and not yet found in it.
struct Check {
    chain: Chain,
    count: u64,
    head: Option<String>,
    kept: Option<(u64, String)>,
}

impl Check {
    fn take(&mut self, event: &ReadLogResponse) {
        self.count += 1;
        self.chain.take(event);
        let hash = hex(&self.chain.head);
        self.head.take_if(|noted| *noted == hash);
        let seq = self.chain.seq;
        self.kept.take_if(|(at, noted)| *at == seq && *noted == hash);
    }

    fn verdict(self, stream: &str) -> Verdict {
        let (broken_at, found) = match (self.chain.broken, self.kept, self.head) {
            (Some((seq, found)), _, _) => (seq, found),
            (None, Some((seq, _)), _) if seq > self.chain.seq => {
                let found = format!("event {seq} was noted elsewhere and is not there: the end was cut off");
                (self.chain.seq + 1, found)
            }
            (None, Some((seq, _)), _) => {
                let found = "the chain fits, and its hash is not the one that was noted: it was written anew";
                (seq, found.to_owned())
            }
            (None, None, Some(_)) => {
                let found = "the chain fits, and the hash that was noted is not in it: it was written anew";
                (self.chain.seq.max(1), found.to_owned())
            }
            (None, None, None) => (0, String::new()),
        };
        Verdict {
            stream: stream.to_owned(),
            events: self.count,
            broken_at,
            found,
            head: self.chain.head.to_vec(),
        }
    }
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
    fn heads_are_read_as_they_are_printed_and_nothing_else_is() {
        let hash = "ab".repeat(32);
        let noted =
            Noted::parse(&format!("# kept on paper\nunit:WH 3 {hash}\n\nm1 12 {hash}\n")).expect("heads");
        assert_eq!(noted.0["unit:WH"], (3, hash.clone()));
        assert_eq!(noted.0.len(), 2);
        for text in [
            "",
            "unit:WH",
            "unit:WH 0 ab",
            "unit:WH x ab",
            &format!("unit:WH 3 {hash} x"),
            "unit:WH 3 zz",
        ] {
            assert!(Noted::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_was_noted_elsewhere_finds_a_chain_that_was_cut_or_written_anew() {
        let check = |kept: (u64, &str)| {
            let check = Check {
                chain: Chain::new("m"),
                count: 0,
                head: None,
                kept: Some((kept.0, kept.1.to_owned())),
            };
            check.verdict("m")
        };
        let cut = check((3, "ab"));
        assert!(
            cut.broken_at == 1 && cut.found.contains("cut off"),
            "{}",
            cut.found
        );
        let anew = check((0, "ab"));
        assert!(anew.found.contains("written anew"), "{}", anew.found);
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
