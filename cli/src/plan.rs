//! What is prepared: presets, schedules, drills, and how sites answer.

use std::time::Duration;

use muster_proto::command::v1::{
    AnswerPolicy, Check, DeletePresetRequest, DeleteScheduleRequest, Drill, DrillResult, GetDrillRequest,
    ListPlansRequest, ListPlansResponse, Preset, Repeat, SavePresetRequest, SaveScheduleRequest, Schedule,
    Selector, SetAnswerPolicyRequest, StartDrillRequest, SummonsReason,
};
use serde_json::json;

use crate::args::{
    Answer, Choose, DrillCommand, Form, PresetCommand, PresetSave, ScheduleCommand, ScheduleSave, layout_word,
};
use crate::client::Client;
use crate::failure::Failure;
use crate::json::{self, word_of};
use crate::meeting::{convene_preset, reason_name};
use crate::output::{print_json, show, table, time};
use crate::session::now_ms;

/// How often a drill that goes on is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// A drill ends by itself long before.
const LOOKS: u32 = 240;

async fn plans(client: &Client) -> Result<ListPlansResponse, Failure> {
    Ok(client.plans().list_plans(ListPlansRequest {}).await?.into_inner())
}

/// For an answer that lacks what it is for.
fn missing(what: &str) -> Failure {
    Failure::Refused(format!("the control plane answered without {what}"))
}

pub async fn preset(client: &Client, command: PresetCommand, form: Form) -> Result<(), Failure> {
    match command {
        PresetCommand::List => list_presets(&plans(client).await?.presets, form),
        PresetCommand::Save(options) => {
            let preset = Some(preset_of(*options)?);
            let saved = client
                .plans()
                .save_preset(SavePresetRequest { preset })
                .await?
                .into_inner();
            let preset = saved.preset.ok_or_else(|| missing("a preset"))?;
            match form {
                Form::Json => print_json(&json::preset(&preset)),
                Form::Table => show(&format!("saved {} as {}\n", preset.name, preset.id)),
            }
        }
        PresetCommand::Delete { preset } => {
            let request = DeletePresetRequest {
                preset: preset.clone(),
            };
            client.plans().delete_preset(request).await?;
            deleted("preset", &preset, form)
        }
        PresetCommand::Convene { preset, wait } => convene_preset(client, preset, wait, form).await,
    }
}

fn deleted(what: &str, id: &str, form: Form) -> Result<(), Failure> {
    match form {
        Form::Json => print_json(&json!({ what: id, "deleted": true })),
        Form::Table => show(&format!("deleted {id}\n")),
    }
}

fn preset_of(options: PresetSave) -> Result<Preset, Failure> {
    let manner = options.manner;
    Ok(Preset {
        id: options.id,
        unit: options.unit,
        selector: Some(options.choose.selector()?),
        title: manner.title.clone().unwrap_or_else(|| options.name.clone()),
        name: options.name,
        priority: manner.priority(),
        fallback: manner.fallback(),
        deadline_s: manner.deadline,
        minutes: manner.minutes,
        layout: options.layout.into(),
        broadcast_site: options.broadcast,
        mute_all: options.mute_all,
        voice_switching: options.voice_switching,
        polling_s: options.polling,
    })
}

fn list_presets(presets: &[Preset], form: Form) -> Result<(), Failure> {
    if form == Form::Json {
        return print_json(&json::list(presets, json::preset));
    }
    let rows: Vec<_> = presets
        .iter()
        .map(|preset| {
            [
                preset.id.clone(),
                preset.name.clone(),
                preset.unit.clone(),
                preset.title.clone(),
                word_of!(preset.priority(), "PRIORITY_"),
                layout_word(preset.layout()).to_owned(),
            ]
        })
        .collect();
    show(&table(
        ["preset", "name", "unit", "title", "priority", "layout"],
        &rows,
    ))
}

pub async fn schedule(client: &Client, command: ScheduleCommand, form: Form) -> Result<(), Failure> {
    match command {
        ScheduleCommand::List => list_schedules(&plans(client).await?, form),
        ScheduleCommand::Save(options) => {
            let presets = plans(client).await?.presets;
            let preset = presets.iter().find(|preset| preset.id == options.preset);
            let preset = preset.ok_or_else(|| {
                Failure::Refused(format!("no preset {} (muster preset list)", options.preset))
            })?;
            let schedule = Some(schedule_of(options, preset.unit.clone(), now_ms()));
            let request = SaveScheduleRequest { schedule };
            let saved = client.plans().save_schedule(request).await?.into_inner();
            let schedule = saved.schedule.ok_or_else(|| missing("a schedule"))?;
            match form {
                Form::Json => print_json(&json::schedule(&schedule)),
                Form::Table => show(&format!(
                    "saved as {}, next at {}\n",
                    schedule.id,
                    time(schedule.next_ms)
                )),
            }
        }
        ScheduleCommand::Delete { schedule } => {
            let request = DeleteScheduleRequest {
                schedule: schedule.clone(),
            };
            client.plans().delete_schedule(request).await?;
            deleted("schedule", &schedule, form)
        }
    }
}

fn schedule_of(options: ScheduleSave, unit: String, now_ms: i64) -> Schedule {
    Schedule {
        id: options.id,
        unit,
        preset: options.preset,
        next_ms: options.at.ms(now_ms),
        repeat: Repeat::from(options.repeat).into(),
        drill: options.drill,
        ..Schedule::default()
    }
}

fn list_schedules(plans: &ListPlansResponse, form: Form) -> Result<(), Failure> {
    if form == Form::Json {
        return print_json(&json::list(&plans.schedules, json::schedule));
    }
    let name = |id: &str| {
        let found = plans.presets.iter().find(|preset| preset.id == id);
        found.map_or_else(|| id.to_owned(), |preset| preset.name.clone())
    };
    let rows: Vec<_> = plans
        .schedules
        .iter()
        .map(|schedule| {
            let last = match (&schedule.last_meeting, &schedule.last_refusal) {
                (meeting, _) if !meeting.is_empty() => meeting.clone(),
                (_, refusal) => refusal.escape_debug().to_string(),
            };
            [
                schedule.id.clone(),
                name(&schedule.preset),
                if schedule.drill { "drill" } else { "meeting" }.to_owned(),
                time(schedule.next_ms),
                word_of!(schedule.repeat(), "REPEAT_"),
                schedule.account.clone(),
                last,
            ]
        })
        .collect();
    show(&table(
        [
            "schedule",
            "preset",
            "what",
            "next",
            "repeat",
            "account",
            "last time",
        ],
        &rows,
    ))
}

pub async fn drill(client: &Client, command: DrillCommand, form: Form) -> Result<(), Failure> {
    match command {
        DrillCommand::Start { choose, preset, wait } => {
            let request = StartDrillRequest {
                selector: drilled(&choose, &preset)?,
                preset,
            };
            let started = client.plans().start_drill(request).await?.into_inner();
            let drill = started.drill.ok_or_else(|| missing("a drill"))?;
            if wait {
                return print_drill(&ended(client, drill.id).await?, form);
            }
            match form {
                Form::Json => print_json(&json::drill(&drill)),
                Form::Table => show(&format!("drill {} of {} sites goes on\n", drill.id, drill.asked)),
            }
        }
        DrillCommand::Result { drill } => {
            let id = match drill {
                Some(id) => id,
                None => newest(plans(client).await?.drills)?,
            };
            print_drill(&get_drill(client, id).await?, form)
        }
    }
}

fn drilled(choose: &Choose, preset: &str) -> Result<Option<Selector>, Failure> {
    match choose.selector_or_none() {
        None if preset.is_empty() => Err(Failure::Usage(
            "nobody is chosen: give --subtree, --tier, --site, --tag, --all or --preset".to_owned(),
        )),
        selector => Ok(selector),
    }
}

/// They come newest first.
fn newest(drills: Vec<Drill>) -> Result<String, Failure> {
    let first = drills.into_iter().next();
    first
        .map(|drill| drill.id)
        .ok_or_else(|| Failure::Refused("no drill yet".to_owned()))
}

async fn get_drill(client: &Client, drill: String) -> Result<Drill, Failure> {
    let found = client
        .plans()
        .get_drill(GetDrillRequest { drill })
        .await?
        .into_inner();
    found.drill.ok_or_else(|| missing("a drill"))
}

async fn ended(client: &Client, id: String) -> Result<Drill, Failure> {
    for _ in 0..LOOKS {
        let drill = get_drill(client, id.clone()).await?;
        if drill.ended_ms > 0 {
            return Ok(drill);
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(Failure::Refused(format!("drill {id} does not end")))
}

fn print_drill(drill: &Drill, form: Form) -> Result<(), Failure> {
    match form {
        Form::Json => print_json(&json::drill(drill)),
        Form::Table => show(&drill_table(drill)),
    }
}

fn drill_table(drill: &Drill) -> String {
    let rows: Vec<_> = drill.results.iter().map(drill_row).collect();
    let heading = [
        "site",
        "link",
        "camera",
        "microphone",
        "clock",
        "round trip",
        "why not",
    ];
    let state = if drill.ended_ms > 0 { "ended" } else { "goes on" };
    format!(
        "{}drill {} by {}, {}: {} of {} ready, {state}\n",
        table(heading, &rows),
        drill.id,
        drill.by,
        time(drill.started_ms),
        drill.ready,
        drill.asked,
    )
}

fn drill_row(result: &DrillResult) -> [String; 7] {
    let check = |check: Check| match check {
        Check::Unspecified => "-",
        Check::Ok => "ok",
        Check::Failed => "FAILED",
        Check::Busy => "in use",
    };
    let clock = match result.clock() {
        Check::Failed => format!("FAILED, {} ms off", result.clock_off_ms),
        other => check(other).to_owned(),
    };
    let mut why = reason_name(result.reason()).to_owned();
    if !result.detail.is_empty() {
        why.push_str(&format!(" ({})", result.detail.escape_debug()));
    }
    let camera = match result.camera_reason() {
        SummonsReason::Unspecified => check(result.camera()).to_owned(),
        reason => format!("{}, {}", check(result.camera()), reason_name(reason)),
    };
    let round_trip = match result.rtt_ms {
        0 => "-".to_owned(),
        ms => format!("{ms} ms"),
    };
    [
        result.site.clone(),
        check(result.link()).to_owned(),
        camera,
        check(result.microphone()).to_owned(),
        clock,
        round_trip,
        why.trim().to_owned(),
    ]
}

/// `muster site answer`.
pub async fn answer(client: &Client, options: Answer, form: Form) -> Result<(), Failure> {
    let request = SetAnswerPolicyRequest {
        selector: Some(options.choose.selector()?),
        answer: AnswerPolicy::from(options.policy).into(),
    };
    let sites = client
        .plans()
        .set_answer_policy(request)
        .await?
        .into_inner()
        .sites;
    match form {
        Form::Json => print_json(&json!({ "sites": sites })),
        Form::Table => show(&format!("{sites} sites changed\n")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};
    use muster_proto::command::v1::{Layout, Priority};

    #[test]
    fn a_preset_is_its_sites_and_its_stage() {
        let line = "muster preset save flood --unit WH-EL --subtree WH-EL --priority emergency --layout 16 \
                    --mute-all --polling 15 --minutes 90";
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap_or_else(|error| panic!("{error}"));
        let Command::Preset(PresetCommand::Save(options)) = cli.command else {
            panic!("another command");
        };
        let preset = preset_of(*options).expect("chosen");
        assert_eq!((preset.name.as_str(), preset.title.as_str()), ("flood", "flood"));
        assert_eq!(
            (preset.priority(), preset.layout()),
            (Priority::Emergency, Layout::Layout16)
        );
        assert_eq!(
            (preset.mute_all, preset.polling_s, preset.minutes),
            (true, 15, 90)
        );
        assert_eq!(preset.selector.expect("a selector").subtrees, ["WH-EL"]);
    }

    #[test]
    fn a_schedule_from_now_is_a_time() {
        let line = "muster schedule save --preset p --at +2h --repeat weekly --drill";
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap_or_else(|error| panic!("{error}"));
        let Command::Schedule(ScheduleCommand::Save(options)) = cli.command else {
            panic!("another command");
        };
        let schedule = schedule_of(options, "WH".to_owned(), 1000);
        assert_eq!((schedule.next_ms, schedule.repeat()), (7_201_000, Repeat::Weekly));
        assert!(schedule.drill);
    }

    #[test]
    fn a_drill_says_what_failed_and_why_somebody_was_not_asked() {
        let failed = DrillResult {
            site: "A".to_owned(),
            link: Check::Ok.into(),
            camera: Check::Busy.into(),
            clock: Check::Failed.into(),
            clock_off_ms: -4000,
            detail: "NTP\u{1b}".to_owned(),
            ..DrillResult::default()
        };
        let drill = Drill {
            asked: 1,
            results: vec![failed],
            ..Drill::default()
        };
        let text = drill_table(&drill);
        assert!(
            text.contains("in use") && text.contains("FAILED, -4000 ms off"),
            "{text}"
        );
        assert!(
            text.contains("(NTP\\u{1b})") && text.contains("goes on"),
            "{text}"
        );
    }
}
