//! Reports survive: a process that keeps and sends them is killed at random moments, two hundred times and more, and all
//! that it said to be kept reach a real control plane, each once.
//!
//! The killed process is this test program itself, run with the one ignored test that says so. The moments come from a
//! seed (`MUSTER_SEED`), as far as a scheduler lets them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use muster_control_plane::{Bootstrap, Config, ControlPlane};
use muster_edge::outbox::send::{Carrier, send};
use muster_edge::outbox::{Outbox, WriteError};
use muster_identity::{Credentials, EnrolToken, connect, enrol};
use muster_proto::command::v1 as pb;
use pb::directory_service_client::DirectoryServiceClient;
use pb::endpoint_service_client::EndpointServiceClient;
use pb::log_service_client::LogServiceClient;
use pb::report_service_client::ReportServiceClient;
use pb::session_service_client::SessionServiceClient;
use prost::Message as _;
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Request, Status};

const KILLS: usize = 220;
/// Reports that one life writes at most, so that all of them stay under what a site may hand in within an hour.
const A_LIFE: usize = 8;
const PASSWORD: &str = "correct horse";
const TREE: &str = "\
external_id,kind,tier,parent,name_zh,name_en,lat,lon,access,phase
D,unit,district,,区,District,30.5,114.4,,existing
D1,site,district,D,区指挥部,District centre,30.5,114.4,fibre,existing
";
/// Tells the killed process where all is: folder, address, seed, and `write` or `drain`.
const LIFE: &str = "MUSTER_TEST_LIFE";

/// xorshift64*: the same moments for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % most
    }

    async fn pause(&mut self, most_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.below(most_ms))).await;
    }
}

struct ByCertificate(EndpointServiceClient<Channel>);

impl Carrier for ByCertificate {
    async fn hand_in(&self, report: pb::HandInReportRequest) -> Result<i64, Status> {
        let answer = self.0.clone().hand_in_report(report).await?;
        Ok(answer.into_inner().received_ms)
    }
}

#[tokio::test]
#[ignore = "it is the process that the other test kills"]
async fn life() -> Result<()> {
    let told = std::env::var(LIFE).context("not started by the other test")?;
    let [dir, address, seed, what]: [&str; 4] = told
        .split('|')
        .collect::<Vec<_>>()
        .try_into()
        .ok()
        .context("four words")?;
    let dir = Path::new(dir);
    let outbox = Outbox::open(dir.join("outbox")).await?;
    let credentials = Credentials::load(&dir.join("identity"))?.context("enrolled")?;
    let client = EndpointServiceClient::new(connect(address, &credentials).await?);
    let (_reached, reached) = watch::channel(true);
    let sending = tokio::spawn(send(outbox.clone(), ByCertificate(client), reached));
    if what == "drain" {
        let mut contents = outbox.subscribe();
        contents.wait_for(|contents| contents.waiting.is_empty()).await?;
        return Ok(());
    }
    let mut dice = Dice(seed.parse()?);
    for number in 0..A_LIFE {
        let text = format!("report {number} of life {seed}");
        match outbox.write(&text, 1).await {
            Ok(id) => {
                println!("kept {id}");
                std::io::stdout().flush()?;
            }
            Err(WriteError::Keep(_)) => {}
            Err(error) => return Err(error.into()),
        }
        dice.pause(12).await;
    }
    sending.await?;
    Ok(())
}

fn start_life(dir: &Path, address: &str, seed: u64, what: &str) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["--ignored", "--exact", "life", "--nocapture"])
        .env(LIFE, format!("{}|{address}|{seed}|{what}", dir.display()))
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    Ok(command)
}

/// Lives for so long, and says what was kept.
fn live_and_die(dir: &Path, address: &str, seed: u64, after: Duration) -> Result<Vec<String>> {
    let mut child = start_life(dir, address, seed, "write")?
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().context("an output")?;
    let reader = std::thread::spawn(move || {
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        lines
            .filter_map(|line| line.strip_prefix("kept ").map(str::to_owned))
            .collect()
    });
    std::thread::sleep(after);
    child.kill()?;
    child.wait()?;
    reader.join().ok().context("the reader")
}

struct Desk {
    channel: Channel,
    token: String,
}

impl Desk {
    async fn open(control_plane: &ControlPlane) -> Result<Self> {
        let channel = Channel::from_shared(control_plane.url().to_owned())?
            .connect()
            .await?;
        let request = pb::SignInRequest {
            account: "wang".into(),
            password: PASSWORD.into(),
        };
        let answer = SessionServiceClient::new(channel.clone())
            .sign_in(request)
            .await?;
        Ok(Self {
            channel,
            token: answer.into_inner().session_token,
        })
    }

    fn asks<T>(&self, message: T) -> Result<Request<T>> {
        let mut request = Request::new(message);
        let bearer = format!("Bearer {}", self.token).parse()?;
        request.metadata_mut().insert("authorization", bearer);
        Ok(request)
    }

    async fn let_in(&self) -> Result<EnrolToken> {
        let mut directory = DirectoryServiceClient::new(self.channel.clone());
        let csv = TREE.as_bytes().to_vec();
        let dry_run = false;
        directory
            .import_sites(self.asks(pb::ImportSitesRequest { csv, dry_run })?)
            .await?;
        let request = pb::CreateEnrolTokenRequest {
            valid_s: 0,
            target: Some(pb::create_enrol_token_request::Target::Site("D1".into())),
        };
        let answer = directory.create_enrol_token(self.asks(request)?).await?;
        answer.into_inner().token.parse().context("a token")
    }

    /// How often each report is listed.
    async fn listed(&self) -> Result<BTreeMap<String, usize>> {
        let mut reports = ReportServiceClient::new(self.channel.clone());
        let (mut counts, mut page) = (BTreeMap::new(), String::new());
        loop {
            let request = pb::ListReportsRequest {
                limit: 500,
                page,
                ..Default::default()
            };
            let answer = reports.list_reports(self.asks(request)?).await?.into_inner();
            for report in answer.reports {
                *counts.entry(report.id).or_default() += 1;
            }
            page = answer.next_page;
            if page.is_empty() {
                return Ok(counts);
            }
        }
    }

    /// How often each report is an event of the unit's stream.
    async fn logged(&self) -> Result<BTreeMap<String, usize>> {
        let request = pb::ReadLogRequest {
            stream: "unit:D".into(),
            after: 0,
        };
        let mut log = LogServiceClient::new(self.channel.clone());
        let mut events = log.read_log(self.asks(request)?).await?.into_inner();
        let mut counts = BTreeMap::new();
        while let Some(read) = events.message().await? {
            let event = pb::UnitEvent::decode(read.payload.as_slice())?.event;
            if let Some(pb::unit_event::Event::ReportTaken(taken)) = event {
                *counts.entry(taken.report.unwrap_or_default().id).or_default() += 1;
            }
        }
        Ok(counts)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_that_were_kept_arrive_once_however_often_the_box_dies() -> Result<()> {
    let seed = std::env::var("MUSTER_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or(20_200_217);
    println!("MUSTER_SEED={seed}");
    let mut dice = Dice(seed);
    let folder = tempfile::tempdir()?;
    let bootstrap = Bootstrap {
        account: "wang".to_owned(),
        password: PASSWORD.to_owned(),
        role: pb::Role::Commander,
        unit: "D".to_owned(),
    };
    let control_plane = ControlPlane::start(Config {
        bootstrap: Some(bootstrap),
        ..Config::local(folder.path().join("control-plane"))
    })
    .await?;
    let desk = Desk::open(&control_plane).await?;
    let address = control_plane.agents_addr().to_string();
    let edge = folder.path().join("edge");
    let credentials = enrol(&address, &desk.let_in().await?).await?;
    credentials.save(&edge.join("identity"))?;

    let mut kept = BTreeSet::new();
    let mut lives_that_kept = 0;
    for number in 0..KILLS {
        let after = Duration::from_millis(15 + dice.below(150));
        let (edge, address) = (edge.clone(), address.clone());
        let seed = dice.below(u64::MAX) | 1;
        let life = tokio::task::spawn_blocking(move || live_and_die(&edge, &address, seed, after));
        let ids = life.await?.with_context(|| format!("life {number}"))?;
        lives_that_kept += usize::from(!ids.is_empty());
        for id in ids {
            ensure!(kept.insert(id.clone()), "{id} was made twice");
        }
    }
    let before = desk.listed().await?.len();
    let (last, address) = (edge.clone(), address.clone());
    let drained = tokio::task::spawn_blocking(move || {
        anyhow::Ok(
            start_life(&last, &address, 1, "drain")?
                .stdout(Stdio::null())
                .status()?,
        )
    });
    ensure!(drained.await??.success(), "what waited was not sent in the end");

    let (listed, logged) = (desk.listed().await?, desk.logged().await?);
    println!(
        "{KILLS} kills, {} reports kept in {lives_that_kept} lives, {before} had arrived before the last, {} in the end",
        kept.len(),
        listed.len()
    );
    let lost: Vec<_> = kept.iter().filter(|id| !listed.contains_key(*id)).collect();
    ensure!(lost.is_empty(), "kept, and never arrived: {lost:?}");
    ensure!(
        listed.values().all(|count| *count == 1),
        "listed twice: {listed:?}"
    );
    ensure!(logged == listed, "each is one event of the unit's stream");
    // Otherwise the test has not looked at what it is for.
    ensure!(
        lives_that_kept > KILLS / 4,
        "only {lives_that_kept} lives kept anything"
    );
    ensure!(
        before < listed.len() || before > kept.len() / 2,
        "nothing was sent while lives ended"
    );
    control_plane.shutdown().await;
    Ok(())
}
