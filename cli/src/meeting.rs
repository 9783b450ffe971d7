//! `muster convene`, `muster status`, `muster end`.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_proto::command::v1::{
    ConveneRequest, DamagedMeeting, EndMeetingRequest, ListMeetingsRequest, ListMeetingsResponse,
    ListSitesRequest, Meeting, PreviewConveneRequest, PreviewConveneResponse, Priority, Site, Summons,
    SummonsReason, SummonsState, WatchRequest,
};
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use crate::args::{Convene, End, Form, Status};
use crate::client::Client;
use crate::failure::Failure;
use crate::json::{self, word_of};
use crate::output::{print_json, show, table, time};
use crate::watch::{Situation, on_air};

pub async fn convene(client: &Client, options: Convene, form: Form) -> Result<(), Failure> {
    let preset = options.preset.unwrap_or_default();
    let selector = if preset.is_empty() {
        Some(options.choose.selector()?)
    } else {
        options.choose.selector_or_none()
    };
    if options.dry_run {
        let request = PreviewConveneRequest {
            selector,
            priority: options.manner.priority(),
            preset,
        };
        return preview(client, request, form).await;
    }
    let manner = options.manner;
    let title = match manner.title.clone() {
        Some(title) => title,
        None if preset.is_empty() => "会议 Meeting".to_owned(),
        None => String::new(),
    };
    let request = ConveneRequest {
        selector,
        title,
        idempotency_key: new_key(),
        priority: manner.priority(),
        deadline_s: manner.deadline,
        minutes: manner.minutes,
        fallback: manner.fallback(),
        preset,
    };
    call(client, request, options.wait, form).await
}

/// 召集 of what is saved.
pub async fn convene_preset(
    client: &Client,
    preset: String,
    wait: Option<u32>,
    form: Form,
) -> Result<(), Failure> {
    let request = ConveneRequest {
        idempotency_key: new_key(),
        preset,
        ..ConveneRequest::default()
    };
    call(client, request, wait, form).await
}

async fn call(
    client: &Client,
    request: ConveneRequest,
    wait: Option<u32>,
    form: Form,
) -> Result<(), Failure> {
    let response = client.meetings().convene(request).await?.into_inner();
    let mut meeting = response
        .meeting
        .ok_or_else(|| Failure::Refused("the control plane answered without a meeting".to_owned()))?;
    if let Some(seconds) = wait {
        meeting = wait_on_air(client, meeting, Duration::from_secs(seconds.into())).await?;
    }
    print_meeting(client, &meeting, form).await?;
    if wait.is_some() {
        all_on_air(&meeting)
    } else {
        Ok(())
    }
}

/// A key for an idempotent call: 128 random bits.
pub fn new_key() -> String {
    format!("{:032x}", rand::random::<u128>())
}

async fn preview(client: &Client, request: PreviewConveneRequest, form: Form) -> Result<(), Failure> {
    let preview = client.meetings().preview_convene(request).await?.into_inner();
    let PreviewConveneResponse {
        sites,
        doubtful,
        unknown,
        taken,
    } = preview;
    match form {
        Form::Json => print_json(&json!({
            "sites": sites, "unknown": unknown,
            "doubtful": json::list(&doubtful, json::summons),
            "taken": json::list(&taken, json::summons),
        })),
        Form::Table => {
            let names = site_names(client).await?;
            let doubtful: BTreeMap<_, _> = doubtful.into_iter().map(|s| (s.site.clone(), s)).collect();
            let losing: BTreeMap<_, _> = taken.iter().map(|s| (s.site.clone(), why_taken(s))).collect();
            let rows: Vec<_> = sites
                .iter()
                .map(|site| {
                    let (en, zh) = names_of(&names, site);
                    let ready = || losing.get(site).cloned().unwrap_or_else(|| "ready".to_owned());
                    [site.clone(), en, zh, doubtful.get(site).map_or_else(ready, why)]
                })
                .collect();
            let mut text = table(["site", "name", "名称", "expected"], &rows);
            text.push_str(&format!(
                "{} sites would be called, {} of them doubtful, {} taken out of another meeting\n",
                sites.len(),
                doubtful.len(),
                taken.len()
            ));
            for name in unknown {
                text.push_str(&format!("unknown, or outside the account's tree: {name}\n"));
            }
            show(&text)
        }
    }
}

/// Whether nothing more happens by itself: on air, or not coming.
fn has_come_to_an_end(summons: &Summons) -> bool {
    match summons.state() {
        SummonsState::OnAir
        | SummonsState::Declined
        | SummonsState::Unreachable
        | SummonsState::TimedOut
        | SummonsState::Refused
        | SummonsState::Left => true,
        SummonsState::Unspecified
        | SummonsState::Paged
        | SummonsState::Delivered
        | SummonsState::Ringing
        | SummonsState::Answered
        | SummonsState::Joining => false,
    }
}

/// Watches until every site is on air or has come to another end, or the time is over; gives the meeting as it then is.
async fn wait_on_air(client: &Client, meeting: Meeting, limit: Duration) -> Result<Meeting, Failure> {
    let deadline = Instant::now() + limit;
    let id = meeting.id.clone();
    let mut situation = Situation::default();
    situation.meetings.insert(id.clone(), meeting);
    let mut stream = client.watch().watch(WatchRequest::default()).await?.into_inner();
    loop {
        match situation.meetings.get(&id) {
            None => return Err(Failure::Refused(format!("meeting {id} ended meanwhile"))),
            Some(meeting) if meeting.summonses.iter().all(has_come_to_an_end) => return Ok(meeting.clone()),
            Some(meeting) => match timeout_at(deadline, stream.message()).await {
                Err(_) => return Ok(meeting.clone()),
                Ok(Ok(Some(response))) => situation.apply(response),
                Ok(Ok(None)) => {
                    return Err(Failure::Unreachable(
                        "the control plane ended the stream".to_owned(),
                    ));
                }
                Ok(Err(status)) => return Err(status.into()),
            },
        }
    }
}

pub async fn status(client: &Client, options: Status, form: Form) -> Result<(), Failure> {
    let include_ended = options.ended || options.meeting.is_some();
    let listed = client
        .meetings()
        .list_meetings(ListMeetingsRequest { include_ended })
        .await?;
    let ListMeetingsResponse { meetings, damaged } = listed.into_inner();
    if let Some(id) = options.meeting {
        if let Some(meeting) = damaged.iter().find(|meeting| meeting.id == id) {
            return Err(Failure::Refused(damage(meeting)));
        }
        let meeting = meetings.iter().find(|meeting| meeting.id == id).ok_or_else(|| {
            Failure::Refused(format!(
                "no meeting {id} among the last 100 (muster status lists them)"
            ))
        })?;
        print_meeting(client, meeting, form).await?;
        return if meeting.ended_ms == 0 {
            all_on_air(meeting)
        } else {
            Ok(())
        };
    }
    match form {
        Form::Json => {
            let mut all = json::list(&meetings, json::meeting);
            all.extend(json::list(&damaged, json::damaged));
            print_json(&all)
        }
        Form::Table => {
            for meeting in &damaged {
                eprintln!("muster: {}", damage(meeting));
            }
            if meetings.is_empty() {
                return show("no meeting\n");
            }
            let rows: Vec<_> = meetings
                .iter()
                .map(|meeting| {
                    [
                        meeting.id.clone(),
                        meeting.title.clone(),
                        meeting.chair.clone(),
                        time(meeting.started_ms),
                        time(meeting.ended_ms),
                        format!("{}/{}", on_air(meeting), meeting.summonses.len()),
                    ]
                })
                .collect();
            show(&table(
                ["meeting", "title", "chair", "started", "ended", "on air"],
                &rows,
            ))
        }
    }
}

/// What is told of a meeting that cannot be shown.
fn damage(meeting: &DamagedMeeting) -> String {
    format!(
        "meeting {} “{}” of {} is damaged and out of service: {} (muster log verify {0})",
        meeting.id,
        meeting.title.escape_debug(),
        time(meeting.started_ms),
        meeting.reason.escape_debug(),
    )
}

pub async fn end(client: &Client, options: End, form: Form) -> Result<(), Failure> {
    let meeting = id_of(client, options.meeting).await?;
    let request = EndMeetingRequest {
        meeting: meeting.clone(),
    };
    client.meetings().end_meeting(request).await?;
    match form {
        Form::Json => print_json(&json!({ "meeting": meeting, "ended": true })),
        Form::Table => show(&format!("ended {meeting}\n")),
    }
}

/// The id that was given, or that of the one live meeting.
pub async fn id_of(client: &Client, given: Option<String>) -> Result<String, Failure> {
    match given {
        Some(id) => Ok(id),
        None => Ok(live(client, None).await?.id),
    }
}

/// The live meeting of this id; of none, the one that is live.
pub async fn live(client: &Client, given: Option<&str>) -> Result<Meeting, Failure> {
    let request = ListMeetingsRequest { include_ended: false };
    let meetings = client
        .meetings()
        .list_meetings(request)
        .await?
        .into_inner()
        .meetings;
    choose_live(meetings, given)
}

fn choose_live(mut meetings: Vec<Meeting>, given: Option<&str>) -> Result<Meeting, Failure> {
    if let Some(id) = given {
        let found = meetings.into_iter().find(|meeting| meeting.id == id);
        return found.ok_or_else(|| Failure::Refused(format!("no meeting {id} is live")));
    }
    match (meetings.pop(), meetings.len()) {
        (Some(meeting), 0) => Ok(meeting),
        (None, _) => Err(Failure::Refused("no meeting is live".to_owned())),
        (Some(last), _) => {
            let names = meetings.iter().chain([&last]);
            let names: Vec<_> = names
                .map(|meeting| format!("{} ({})", meeting.id, meeting.title))
                .collect();
            let text = format!(
                "{} meetings are live: name one with --meeting: {}",
                names.len(),
                names.join(", ")
            );
            Err(Failure::Usage(text))
        }
    }
}

fn all_on_air(meeting: &Meeting) -> Result<(), Failure> {
    let (on_air, all) = (on_air(meeting), meeting.summonses.len());
    if on_air == all {
        return Ok(());
    }
    Err(Failure::NotAllOnAir(format!(
        "{} of {all} sites are not on air",
        all - on_air
    )))
}

pub async fn print_meeting(client: &Client, meeting: &Meeting, form: Form) -> Result<(), Failure> {
    if form == Form::Json {
        return print_json(&json::meeting(meeting));
    }
    let names = site_names(client).await?;
    let rows: Vec<_> = meeting
        .summonses
        .iter()
        .map(|summons| {
            let (en, zh) = names_of(&names, &summons.site);
            // Counted from its call: a site may be called long after the meeting began.
            let took = match summons.on_air_ms - summons.paged_ms {
                ms if summons.on_air_ms > 0 && summons.paged_ms > 0 && ms >= 0 => format!("{ms} ms"),
                _ => "-".to_owned(),
            };
            [
                summons.site.clone(),
                en,
                zh,
                state_name(summons.state()).to_owned(),
                took,
                why(summons),
            ]
        })
        .collect();
    let rows = table(["site", "name", "名称", "state", "on air after", "reason"], &rows);
    let ended = if meeting.ended_ms > 0 {
        format!(", ended {}", time(meeting.ended_ms))
    } else {
        String::new()
    };
    show(&format!(
        "{rows}meeting {} {}: {}/{} on air, started {}{ended}\n",
        meeting.id,
        meeting.title,
        on_air(meeting),
        meeting.summonses.len(),
        time(meeting.started_ms)
    ))
}

pub async fn site_names(client: &Client) -> Result<BTreeMap<String, Site>, Failure> {
    let sites = client
        .directory()
        .list_sites(ListSitesRequest {})
        .await?
        .into_inner()
        .sites;
    Ok(sites.into_iter().map(|site| (site.id.clone(), site)).collect())
}

pub fn names_of(sites: &BTreeMap<String, Site>, id: &str) -> (String, String) {
    sites.get(id).map_or_else(Default::default, |site| {
        (site.name_en.clone(), site.name_zh.clone())
    })
}

/// The reason of a summons in words, with what is known beside it.
/// Of a site that would be taken: which meeting loses it.
fn why_taken(summons: &Summons) -> String {
    format!("taken from “{}”", summons.other_title.escape_debug())
}

pub fn why(summons: &Summons) -> String {
    let mut text = reason_name(summons.reason()).to_owned();
    if summons.reason_since_ms > 0 {
        text.push_str(&format!(" since {}", time(summons.reason_since_ms)));
    }
    if !summons.detail.is_empty() {
        text.push_str(&format!(" ({})", summons.detail.escape_debug()));
    }
    if !summons.other_title.is_empty() {
        text.push_str(&format!(" “{}”", summons.other_title.escape_debug()));
    }
    match summons.other_priority() {
        Priority::Unspecified => {}
        priority => text.push_str(&format!(" of priority {}", word_of!(priority, "PRIORITY_"))),
    }
    text
}

pub fn state_name(state: SummonsState) -> &'static str {
    match state {
        SummonsState::Unspecified => "?",
        SummonsState::Paged => "paged",
        SummonsState::Delivered => "delivered",
        SummonsState::Ringing => "ringing",
        SummonsState::Answered => "answered",
        SummonsState::Joining => "joining",
        SummonsState::OnAir => "on air",
        SummonsState::Declined => "declined",
        SummonsState::Unreachable => "unreachable",
        SummonsState::TimedOut => "timed out",
        SummonsState::Refused => "refused",
        SummonsState::Left => "left",
    }
}

pub fn reason_name(reason: SummonsReason) -> &'static str {
    match reason {
        SummonsReason::Unspecified => "",
        SummonsReason::NeverSeen => "never seen",
        SummonsReason::Offline => "offline",
        SummonsReason::NoAnswer => "no answer",
        SummonsReason::Declined => "declined",
        SummonsReason::NoMedia => "no picture or sound arrives",
        SummonsReason::CameraBusy => "camera in use by another program",
        SummonsReason::CameraMissing => "no camera",
        SummonsReason::LinkLost => "link lost",
        SummonsReason::InOtherMeeting => "in another meeting",
        SummonsReason::NoRelay => "no relay online",
        SummonsReason::JoinFailed => "could not join the relay",
        SummonsReason::NoDelivery => "call not delivered",
        SummonsReason::HungUp => "hung up",
        SummonsReason::HungUpByChair => "hung up by the chair",
        SummonsReason::MicrophoneMissing => "no microphone",
        SummonsReason::Deadline => "not in by the deadline",
        SummonsReason::ReplicaAway => "its control plane cannot be reached",
        SummonsReason::CameraSilent => "the camera sends nothing",
        SummonsReason::CameraRefused => "the camera refuses the password",
        SummonsReason::CameraUnreachable => "the camera does not answer",
        SummonsReason::CameraFormat => "the camera sends no H.264",
        SummonsReason::CameraDenied => "its browser does not allow the camera",
        SummonsReason::PageClosed => "its page, which is the camera, is not open",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meeting(id: &str) -> Meeting {
        Meeting {
            id: id.to_owned(),
            ..Meeting::default()
        }
    }

    #[test]
    fn the_one_live_meeting_needs_no_name_and_one_of_two_does() {
        assert_eq!(choose_live(vec![meeting("a")], None), Ok(meeting("a")));
        assert!(matches!(choose_live(vec![], None), Err(Failure::Refused(_))));
        match choose_live(vec![meeting("a"), meeting("b")], None) {
            Err(Failure::Usage(text)) => assert!(
                text.contains("2 meetings") && text.contains("a (), b ()"),
                "{text}"
            ),
            other => panic!("{other:?}"),
        }
        assert_eq!(
            choose_live(vec![meeting("a"), meeting("b")], Some("a")),
            Ok(meeting("a"))
        );
        assert!(matches!(
            choose_live(vec![meeting("a")], Some("x")),
            Err(Failure::Refused(_))
        ));
    }

    #[test]
    fn a_call_that_was_not_confirmed_is_not_a_site_without_a_camera() {
        assert_eq!(reason_name(SummonsReason::NoDelivery), "call not delivered");
    }

    #[test]
    fn a_reason_comes_with_what_is_known() {
        let summons = Summons {
            reason: SummonsReason::Offline.into(),
            reason_since_ms: 1_580_911_402_000,
            ..Summons::default()
        };
        assert_eq!(why(&summons), "offline since 2020-02-05 14:03:22Z");
        let taken = Summons {
            reason: SummonsReason::InOtherMeeting.into(),
            other_title: "Flood".to_owned(),
            other_priority: Priority::Emergency.into(),
            ..Summons::default()
        };
        assert_eq!(why(&taken), "in another meeting “Flood” of priority emergency");
    }

    #[test]
    fn a_site_that_does_not_come_is_not_waited_for() {
        let of = |state: SummonsState| Summons {
            state: state.into(),
            ..Summons::default()
        };
        for state in [
            SummonsState::OnAir,
            SummonsState::Unreachable,
            SummonsState::TimedOut,
            SummonsState::Left,
        ] {
            assert!(has_come_to_an_end(&of(state)), "{state:?}");
        }
        for state in [SummonsState::Paged, SummonsState::Ringing, SummonsState::Joining] {
            assert!(!has_come_to_an_end(&of(state)), "{state:?}");
        }
    }
}
