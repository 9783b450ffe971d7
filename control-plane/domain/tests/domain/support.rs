//! What several subjects share: short names, the real tree, and a meeting driven by hand.

use muster_domain::*;
use std::sync::Arc;

pub fn site(id: &str) -> SiteId {
    SiteId::new(id).expect("a site id")
}

pub fn unit(id: &str) -> UnitId {
    UnitId::new(id).expect("a unit id")
}

pub fn account(name: &str) -> AccountName {
    AccountName::new(name).expect("an account name")
}

pub fn meeting_id(id: &str) -> MeetingId {
    MeetingId::new(id).expect("a meeting id")
}

pub const EASTLAKE: &str = include_str!("../../../../data/eastlake.csv");

/// Splits a table without quoted fields.
pub fn table(csv: &str) -> (Vec<String>, Vec<RawRow>) {
    let fields = |line: &str| line.split(',').map(str::to_owned).collect::<Vec<_>>();
    let mut lines = csv.lines();
    let header = fields(lines.next().unwrap_or_default());
    let rows = lines
        .zip(2..)
        .map(|(text, line)| RawRow {
            line,
            fields: fields(text),
        })
        .collect();
    (header, rows)
}

pub fn import(current: &Tree, csv: &str) -> Result<ImportPlan, Vec<ImportError>> {
    let (header, rows) = table(csv);
    plan_import(current, &header, &rows)
}

pub fn eastlake() -> Tree {
    import(&Tree::default(), EASTLAKE)
        .expect("the example file is good")
        .tree
}

pub fn online(id: &str) -> Invitee {
    Invitee {
        site: site(id),
        reach: Reach::Online,
        claimed_by: None,
    }
}

/// Another meeting that has a site.
pub fn holder(id: &str, priority: Priority) -> Arc<Holder> {
    Arc::new(Holder {
        meeting: meeting_id(id),
        title: format!("Meeting {id}"),
        priority,
    })
}

/// A routine meeting as it calls.
pub fn calling(meeting: &MeetingId) -> Caller<'_> {
    Caller {
        meeting,
        priority: Priority::Routine,
    }
}

/// A meeting with its stored events.
pub struct Desk {
    pub meeting: Meeting,
    pub events: Vec<Event>,
    /// When each was stored.
    pub times: Vec<Millis>,
}

impl Desk {
    pub fn new() -> Self {
        Desk {
            meeting: Meeting::new(meeting_id("m1"), Timeouts::default()),
            events: Vec::new(),
            times: Vec::new(),
        }
    }

    /// Convened at time 0 with these sites online.
    pub fn convened(sites: &[&str]) -> Self {
        let mut desk = Desk::new();
        desk.run(0, convene(sites.iter().map(|id| online(id)).collect()))
            .expect("convened");
        desk
    }

    pub fn run(&mut self, now: i64, command: Command) -> Result<Vec<Event>, Refusal> {
        let events = self.meeting.decide(command, Millis(now))?;
        for event in &events {
            self.meeting.apply(event);
        }
        self.events.extend(events.iter().cloned());
        self.times.resize(self.events.len(), Millis(now));
        Ok(events)
    }

    /// Runs a command that must be accepted; gives the states that changed: "S1 paged, S2 on air".
    pub fn told(&mut self, now: i64, command: Command) -> String {
        let events = self.run(now, command).expect("accepted");
        let words = events.iter().map(tell_event);
        words.collect::<Vec<_>>().join(", ")
    }

    pub fn state(&self, id: &str) -> SummonsState {
        self.meeting.summons(id).expect("in the meeting").state
    }
}

pub fn tell_event(event: &Event) -> String {
    match event {
        Event::Convened { .. } => "convened".to_owned(),
        Event::SitesAdded { sites, .. } => format!("{} added", sites.len()),
        Event::StageChanged { .. } => "stage".to_owned(),
        Event::Ended { reason, .. } if reason.is_empty() || reason == "done" => "ended".to_owned(),
        Event::Ended { reason, .. } => format!("ended: {reason}"),
        Event::SummonsChanged { summons } => match summons.media {
            Media::Video => tell(summons),
            Media::Audio => format!("{} for sound", tell(summons)),
        },
        Event::ChairChanged { chair, before, cause } => format!("chair {before} -> {chair} {cause:?}"),
        Event::ChairRequested { account, withdrawn } => match withdrawn {
            true => format!("{account} wants the chair no more"),
            false => format!("{account} wants the chair"),
        },
        Event::LockChanged { locked, .. } => if *locked { "locked" } else { "unlocked" }.to_owned(),
        Event::EndSet { ends_at } => format!("ends at {ends_at}"),
        Event::FloorChanged { floor } => {
            let request = |r: &FloorRequest| match r.state {
                FloorState::Waiting => r.site.to_string(),
                FloorState::Granted => format!("{}!", r.site),
            };
            format!("floor {:?}", floor.0.iter().map(request).collect::<Vec<_>>())
        }
        Event::RollCallStarted { roll_call } => format!("roll call {}", roll_call.number),
        Event::RollCallEntryChanged { entry } => format!("{} {}", entry.site, entry.result.as_str()),
        Event::RollCallEnded { .. } => "roll call over".to_owned(),
        Event::Placed { placement, .. } => format!("on {} #{}", placement.relay, placement.epoch),
    }
}

pub fn tell(summons: &Summons) -> String {
    match summons.reason {
        Some(reason) => format!("{} {} ({})", summons.site, summons.state, reason.code()),
        None => format!("{} {}", summons.site, summons.state),
    }
}

pub fn convene(sites: Vec<Invitee>) -> Command {
    Command::Convene {
        title: "Flood watch".to_owned(),
        chair: account("chen"),
        unit: unit("WH-EL"),
        sites,
        idempotency_key: "key-1".to_owned(),
        terms: Terms::default(),
        opening: Opening::default(),
    }
}

/// A convening of these sites, all online, under these terms.
pub fn convene_under(ids: &[&str], own: Terms) -> Command {
    convene_with(ids.iter().map(|id| online(id)).collect(), own)
}

/// A convening of these sites under these terms.
pub fn convene_with(sites: Vec<Invitee>, own: Terms) -> Command {
    match convene(sites) {
        Command::Convene {
            title,
            chair,
            unit,
            sites,
            idempotency_key,
            opening,
            ..
        } => Command::Convene {
            title,
            chair,
            unit,
            sites,
            idempotency_key,
            terms: own,
            opening,
        },
        other => other,
    }
}

pub fn report(id: &str, state: SummonsState) -> Command {
    let report = Report {
        state,
        reason: None,
        detail: String::new(),
        endpoint: "agent".to_owned(),
    };
    Command::Report {
        site: site(id),
        report,
    }
}
