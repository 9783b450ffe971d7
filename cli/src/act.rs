//! The verbs of a running meeting, a call each.

use muster_proto::command::v1::act_request::Verb;
use muster_proto::command::v1::endpoint_service_client::EndpointServiceClient;
use muster_proto::command::v1::{
    AcknowledgeRollCall, ActRequest, AddSites, AnswerChairRequest, BroadcastSiteRequest,
    CallUnconnectedRequest, EndRollCall, Extend as ExtendVerb, FloorState, GrantFloor, HandBack, HangUp,
    Lock, Meeting, MuteSitesRequest, NextRollCall, ReleaseChair, RequestChair, RequestFloorRequest,
    SetContent, SetLayout, SetPolling, SetVoiceSwitching, StartRollCall, TakeFloor, TakeOver, TurnPage,
    WatchSite,
};
use serde_json::json;
use tonic::Code;

use crate::args::{
    Access, Add, ChairCommand, Command, Direction, FloorCommand, Form, PollingCommand, RollCallCommand,
    SiteOrOff, SitesIfAny, SitesOrAll, Switch, Which,
};
use crate::client::{Authorized, Bearer, Client, connect};
use crate::failure::Failure;
use crate::json;
use crate::meeting::{id_of, live, names_of, site_names};
use crate::output::{print_json, show, table, time};

/// What is done, and the meeting that was named.
type Act = (Verb, Option<String>);

/// The verb of a command; none if the command is no verb that [`act`] does.
fn verb(command: Command) -> Result<Option<Act>, Failure> {
    let act = match command {
        Command::Add(Add { choose, which }) => {
            let selector = Some(choose.selector()?);
            (Verb::AddSites(AddSites { selector }), which.meeting)
        }
        Command::HangUp(options) => (
            Verb::HangUp(HangUp { sites: options.sites }),
            options.which.meeting,
        ),
        Command::Lock(which) => (Verb::Lock(Lock { locked: true }), which.meeting),
        Command::Unlock(which) => (Verb::Lock(Lock { locked: false }), which.meeting),
        Command::Extend(options) => (
            Verb::Extend(ExtendVerb {
                minutes: options.minutes,
            }),
            options.which.meeting,
        ),
        Command::Layout(options) => {
            let layout = options.layout.into();
            (Verb::SetLayout(SetLayout { layout }), options.which.meeting)
        }
        Command::VoiceSwitching(options) => {
            let on = options.switch == Switch::On;
            (
                Verb::SetVoiceSwitching(SetVoiceSwitching { on }),
                options.which.meeting,
            )
        }
        Command::WatchSite(SiteOrOff { site, which, .. }) => {
            let site = site.unwrap_or_default();
            (Verb::WatchSite(WatchSite { site }), which.meeting)
        }
        Command::Content(SiteOrOff { site, which, .. }) => {
            let site = site.unwrap_or_default();
            (Verb::SetContent(SetContent { site }), which.meeting)
        }
        Command::Chair(command) => chair(command),
        Command::Polling(command) => match polling(command) {
            Some(act) => act,
            None => return Ok(None),
        },
        Command::Floor(FloorCommand::Grant { site, seconds, which }) => {
            (Verb::GrantFloor(GrantFloor { site, seconds }), which.meeting)
        }
        Command::Floor(FloorCommand::Take { site, which }) => {
            (Verb::TakeFloor(TakeFloor { site }), which.meeting)
        }
        Command::RollCall(command) => match roll_call(command) {
            Some(act) => act,
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    Ok(Some(act))
}

fn chair(command: ChairCommand) -> Act {
    match command {
        ChairCommand::Request { withdraw, which } => {
            (Verb::RequestChair(RequestChair { withdraw }), which.meeting)
        }
        ChairCommand::Release(which) => (Verb::ReleaseChair(ReleaseChair {}), which.meeting),
        ChairCommand::Give { name, which } => (answer_chair(name, true), which.meeting),
        ChairCommand::Refuse { name, which } => (answer_chair(name, false), which.meeting),
        ChairCommand::TakeOver(which) => (Verb::TakeOver(TakeOver {}), which.meeting),
        ChairCommand::HandBack(which) => (Verb::HandBack(HandBack {}), which.meeting),
    }
}

fn answer_chair(account: String, granted: bool) -> Verb {
    Verb::AnswerChairRequest(AnswerChairRequest { account, granted })
}

fn polling(command: PollingCommand) -> Option<Act> {
    match command {
        PollingCommand::On {
            interval,
            per_page,
            which,
        } => {
            let polling = SetPolling {
                on: true,
                interval_s: interval,
                per_page,
                paused: false,
            };
            Some((Verb::SetPolling(polling), which.meeting))
        }
        PollingCommand::Off(which) => Some((Verb::SetPolling(SetPolling::default()), which.meeting)),
        PollingCommand::Turn { to, which } => {
            let by = if to == Direction::Next { 1 } else { -1 };
            Some((Verb::TurnPage(TurnPage { by }), which.meeting))
        }
        // They keep the time and size that are set, which have to be asked for first.
        PollingCommand::Pause(_) | PollingCommand::Resume(_) => None,
    }
}

fn roll_call(command: RollCallCommand) -> Option<Act> {
    match command {
        RollCallCommand::Start { sites, answer, which } => {
            let start = StartRollCall {
                answer_s: answer,
                sites,
            };
            Some((Verb::StartRollCall(start), which.meeting))
        }
        RollCallCommand::Next { site, which } => {
            let site = site.unwrap_or_default();
            Some((Verb::NextRollCall(NextRollCall { site }), which.meeting))
        }
        RollCallCommand::Acknowledge { site, which } => Some((
            Verb::AcknowledgeRollCall(AcknowledgeRollCall { site }),
            which.meeting,
        )),
        RollCallCommand::End(which) => Some((Verb::EndRollCall(EndRollCall {}), which.meeting)),
        RollCallCommand::Result { .. } => None,
    }
}

/// Does a command that is a verb of a meeting.
pub async fn act(client: &Client, command: Command, form: Form) -> Result<(), Failure> {
    match command {
        Command::CallUnconnected(options) => call_unconnected(client, options, form).await,
        Command::Mute(options) => mute(client, options, true, form).await,
        Command::Unmute(options) => mute(client, options, false, form).await,
        Command::Broadcast(options) => broadcast(client, options, form).await,
        Command::Floor(FloorCommand::List(which)) => list_floor(client, which, form).await,
        Command::Polling(PollingCommand::Pause(which)) => pause(client, which, true, form).await,
        Command::Polling(PollingCommand::Resume(which)) => pause(client, which, false, form).await,
        command => match verb(command)? {
            Some((verb, meeting)) => {
                let meeting = id_of(client, meeting).await?;
                send(client, meeting, verb, form).await
            }
            None => Err(Failure::Usage("no verb of a meeting".to_owned())),
        },
    }
}

async fn send(client: &Client, meeting: String, verb: Verb, form: Form) -> Result<(), Failure> {
    let request = ActRequest {
        meeting: meeting.clone(),
        verb: Some(verb),
    };
    let done = client.meetings().act(request).await?.into_inner();
    match form {
        Form::Json => print_json(&json!({ "meeting": meeting, "seq": done.seq, "sites": done.sites })),
        Form::Table if done.sites > 0 => show(&format!("done: {} sites in {meeting}\n", done.sites)),
        Form::Table => show(&format!("done in {meeting}\n")),
    }
}

async fn call_unconnected(client: &Client, options: SitesIfAny, form: Form) -> Result<(), Failure> {
    let meeting = id_of(client, options.which.meeting).await?;
    let request = CallUnconnectedRequest {
        meeting: meeting.clone(),
        sites: options.sites,
    };
    let called = client
        .meetings()
        .call_unconnected(request)
        .await?
        .into_inner()
        .called;
    match form {
        Form::Json => print_json(&json!({ "meeting": meeting, "called": called })),
        Form::Table => show(&format!("{called} sites are called again in {meeting}\n")),
    }
}

async fn mute(client: &Client, options: SitesOrAll, muted: bool, form: Form) -> Result<(), Failure> {
    let meeting = id_of(client, options.which.meeting).await?;
    let request = MuteSitesRequest {
        meeting: meeting.clone(),
        sites: options.sites.clone(),
        muted,
    };
    client.meetings().mute_sites(request).await?;
    match form {
        Form::Json => print_json(&json!({
            "meeting": meeting, "muted": muted, "all": options.all, "sites": options.sites,
        })),
        Form::Table => show(&format!(
            "{} in {meeting}\n",
            if muted { "muted" } else { "unmuted" }
        )),
    }
}

async fn broadcast(client: &Client, options: SiteOrOff, form: Form) -> Result<(), Failure> {
    let meeting = id_of(client, options.which.meeting).await?;
    let site = options.site.unwrap_or_default();
    let request = BroadcastSiteRequest {
        meeting: meeting.clone(),
        site: site.clone(),
    };
    client.meetings().broadcast_site(request).await?;
    match form {
        Form::Json => print_json(&json!({ "meeting": meeting, "broadcast_site": site })),
        Form::Table if site.is_empty() => show(&format!("nobody is broadcast in {meeting}\n")),
        Form::Table => show(&format!("{site} is broadcast in {meeting}\n")),
    }
}

async fn pause(client: &Client, which: Which, paused: bool, form: Form) -> Result<(), Failure> {
    let meeting = live(client, which.meeting.as_deref()).await?;
    let set = held(&meeting, paused)?;
    send(client, meeting.id, Verb::SetPolling(set), form).await
}

/// The polling that goes on, held or let go.
fn held(meeting: &Meeting, paused: bool) -> Result<SetPolling, Failure> {
    let polling = meeting.stage.as_ref().and_then(|stage| stage.polling.as_ref());
    let polling = polling.ok_or_else(|| Failure::Refused(format!("{} is not polling", meeting.id)))?;
    Ok(SetPolling {
        on: true,
        interval_s: polling.interval_s,
        per_page: polling.per_page,
        paused,
    })
}

/// Speaks as a person at a site, who has a link.
pub async fn endpoint(access: &Access, link: &str) -> Result<EndpointServiceClient<Authorized>, Failure> {
    let secret = link.split_once("/join#").map(|(_, secret)| secret);
    let secret = secret.filter(|secret| !secret.is_empty()).ok_or_else(|| {
        Failure::Usage(
            "--link: expected the link of a site, https://HOST/join#SECRET (muster site link)".to_owned(),
        )
    })?;
    let channel = connect(&access.server, access.ca.as_deref()).await?;
    Ok(EndpointServiceClient::with_interceptor(
        channel,
        Bearer::new(secret)?,
    ))
}

/// Why a call by a site's link failed.
pub fn by_link(status: tonic::Status) -> Failure {
    match status.code() {
        Code::Unauthenticated => Failure::NotSignedIn(status.message().to_owned()),
        _ => status.into(),
    }
}

/// 申请发言 by a person at a site, with the link by which the site takes part.
pub async fn request_floor(
    access: &Access,
    link: &str,
    meeting: String,
    withdraw: bool,
    form: Form,
) -> Result<(), Failure> {
    let mut site = endpoint(access, link).await?;
    let request = RequestFloorRequest {
        meeting: meeting.clone(),
        withdraw,
    };
    site.request_floor(request).await.map_err(by_link)?;
    match form {
        Form::Json => print_json(
            &json!({ "meeting": meeting, "floor": if withdraw { "withdrawn" } else { "requested" } }),
        ),
        Form::Table if withdraw => show("the request, or the floor, is taken back\n"),
        Form::Table => show("the floor is requested\n"),
    }
}

async fn list_floor(client: &Client, which: Which, form: Form) -> Result<(), Failure> {
    let meeting = live(client, which.meeting.as_deref()).await?;
    if form == Form::Json {
        return print_json(&json::list(&meeting.floor, json::floor));
    }
    if meeting.floor.is_empty() {
        return show("nobody has or asks for the floor\n");
    }
    let names = site_names(client).await?;
    let rows: Vec<_> = meeting
        .floor
        .iter()
        .map(|request| {
            let (en, zh) = names_of(&names, &request.site);
            let state = match request.state() {
                FloorState::Granted => "speaks",
                FloorState::Waiting => "waits",
                FloorState::Unspecified => "?",
            };
            let until = time(request.until_ms);
            [
                request.site.clone(),
                en,
                zh,
                state.to_owned(),
                time(request.requested_ms),
                until,
            ]
        })
        .collect();
    show(&table(["site", "name", "名称", "floor", "since", "until"], &rows))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Cli;
    use muster_proto::command::v1::{Layout, Polling, Stage};

    fn parsed(line: &str) -> Act {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{error}"));
        verb(cli.command).expect("chosen").expect("a verb")
    }

    #[test]
    fn each_verb_is_what_the_schema_calls_it() {
        let site = || "S1".to_owned();
        let account = || "li".to_owned();
        let cases = [
            ("muster hang-up S1", Verb::HangUp(HangUp { sites: vec![site()] })),
            ("muster lock", Verb::Lock(Lock { locked: true })),
            ("muster unlock", Verb::Lock(Lock { locked: false })),
            ("muster extend 30", Verb::Extend(ExtendVerb { minutes: 30 })),
            (
                "muster layout 1+7",
                Verb::SetLayout(SetLayout {
                    layout: Layout::Layout17.into(),
                }),
            ),
            (
                "muster voice-switching off",
                Verb::SetVoiceSwitching(SetVoiceSwitching { on: false }),
            ),
            (
                "muster watch-site S1",
                Verb::WatchSite(WatchSite { site: site() }),
            ),
            (
                "muster content --off",
                Verb::SetContent(SetContent { site: String::new() }),
            ),
            (
                "muster chair request --withdraw",
                Verb::RequestChair(RequestChair { withdraw: true }),
            ),
            ("muster chair release", Verb::ReleaseChair(ReleaseChair {})),
            ("muster chair give li", answer_chair(account(), true)),
            ("muster chair refuse li", answer_chair(account(), false)),
            ("muster chair take-over", Verb::TakeOver(TakeOver {})),
            ("muster chair hand-back", Verb::HandBack(HandBack {})),
            ("muster polling off", Verb::SetPolling(SetPolling::default())),
            (
                "muster polling turn previous",
                Verb::TurnPage(TurnPage { by: -1 }),
            ),
            ("muster polling turn", Verb::TurnPage(TurnPage { by: 1 })),
            (
                "muster floor grant S1 --seconds 60",
                Verb::GrantFloor(GrantFloor {
                    site: site(),
                    seconds: 60,
                }),
            ),
            (
                "muster floor take S1",
                Verb::TakeFloor(TakeFloor { site: site() }),
            ),
            (
                "muster roll-call next",
                Verb::NextRollCall(NextRollCall { site: String::new() }),
            ),
            (
                "muster roll-call acknowledge S1",
                Verb::AcknowledgeRollCall(AcknowledgeRollCall { site: site() }),
            ),
            ("muster roll-call end", Verb::EndRollCall(EndRollCall {})),
        ];
        for (line, expected) in cases {
            assert_eq!(parsed(line), (expected, None), "{line}");
        }
    }

    #[test]
    fn a_meeting_may_be_named_by_its_id() {
        assert_eq!(parsed("muster lock --meeting m1").1.as_deref(), Some("m1"));
        assert_eq!(
            parsed("muster roll-call start -m m1 --answer 10").1.as_deref(),
            Some("m1")
        );
    }

    #[test]
    fn what_names_nobody_is_refused() {
        for line in [
            "muster hang-up",
            "muster mute",
            "muster mute S1 --all",
            "muster broadcast",
            "muster layout 5",
            "muster extend 0",
            "muster floor grant",
            "muster roll-call acknowledge",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn a_pause_keeps_the_time_and_the_size_of_a_page() {
        let polling = Some(Polling {
            interval_s: 20,
            per_page: 9,
            ..Polling::default()
        });
        let stage = Some(Stage {
            polling,
            ..Stage::default()
        });
        let meeting = Meeting {
            stage,
            ..Meeting::default()
        };
        let set = held(&meeting, true).expect("polling");
        assert_eq!(
            (set.on, set.paused, set.interval_s, set.per_page),
            (true, true, 20, 9)
        );
        assert!(held(&Meeting::default(), true).is_err());
    }
}
