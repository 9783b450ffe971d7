//! What several subjects share: short names, the real tree, and a meeting driven by hand.

use muster_domain::*;

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

/// A meeting with its stored events.
pub struct Desk {
    pub meeting: Meeting,
    pub events: Vec<Event>,
}

impl Desk {
    pub fn new() -> Self {
        Desk {
            meeting: Meeting::new(meeting_id("m1"), Timeouts::default()),
            events: Vec::new(),
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
        Ok(events)
    }

    /// Runs a command that must be accepted; gives the states that changed: "S1 paged, S2 on air".
    pub fn told(&mut self, now: i64, command: Command) -> String {
        let events = self.run(now, command).expect("accepted");
        let words = events.iter().map(|event| match event {
            Event::Convened { .. } => "convened".to_owned(),
            Event::StageChanged { .. } => "stage".to_owned(),
            Event::Ended { .. } => "ended".to_owned(),
            Event::SummonsChanged { summons } => tell(summons),
        });
        words.collect::<Vec<_>>().join(", ")
    }

    pub fn state(&self, id: &str) -> SummonsState {
        self.meeting.summons(id).expect("in the meeting").state
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
    }
}

pub fn report(id: &str, state: SummonsState) -> Command {
    let report = Report {
        state,
        reason: None,
        detail: String::new(),
    };
    Command::Report {
        site: site(id),
        report,
    }
}
