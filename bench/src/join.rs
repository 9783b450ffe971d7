//! Joins: who comes, where to, and the threads that ask for it while the peers are played.

use std::net::UdpSocket;
use std::sync::{Arc, Mutex, mpsc};

use crate::camera::Script;
use crate::peer;
use crate::sdp::{Local, Remote, Wanted};
use crate::stun::Control;

/// Of the peers' ICE.
pub const PWD: &str = "theSamePasswordForAllPeers";

/// What a slot shows.
#[derive(Clone)]
pub enum View {
    /// The camera of this site, no higher than that (0: no limit).
    Camera {
        site: String,
        max_height: u16,
    },
    Stage,
}

/// One who joins.
#[derive(Clone)]
pub struct Plan {
    pub meeting: String,
    pub site: String,
    pub publishes: Option<Script>,
    pub views: Vec<View>,
}

/// A join under way.
pub struct Job {
    pub plan: Plan,
    /// Among all peers, in the order of the plans.
    pub place: usize,
    pub ufrag: String,
    pub socket: UdpSocket,
    pub fingerprint: String,
}

impl Job {
    pub fn local(&self) -> Local<'_> {
        Local {
            ufrag: &self.ufrag,
            pwd: PWD,
            fingerprint: &self.fingerprint,
            candidate: None,
        }
    }

    /// For the relay, which is ICE-lite and the DTLS server.
    pub fn offer(&self) -> String {
        let wanted = Wanted {
            layers: self.plan.publishes.as_ref().map_or(0, Script::layers),
            slots: self.plan.views.len(),
        };
        self.local().offer(wanted, "actpass")
    }
}

/// A way into a server. Calls wait for the server.
pub trait Door: Send {
    /// Makes the leg; whoever controls ICE then.
    fn join(&mut self, job: &Job) -> anyhow::Result<(Remote, Control)>;
    /// Fills the slots of the leg made last.
    fn view(&mut self, plan: &Plan) -> anyhow::Result<()>;
}

/// A server that peers join.
pub trait Server {
    fn pid(&self) -> u32;
    fn door(&self) -> anyhow::Result<Box<dyn Door>>;
}

/// What the threads say.
pub enum Signal {
    Joined(Box<(Job, Remote, Control)>),
    Failed(anyhow::Error),
}

/// The threads' end and ours.
pub struct Joins {
    to: mpsc::Sender<Signal>,
    from: mpsc::Receiver<Signal>,
    /// Joins that are not answered.
    pub pending: usize,
    begun: usize,
}

impl Joins {
    pub fn new() -> Self {
        let (to, from) = mpsc::channel();
        Self {
            to,
            from,
            pending: 0,
            begun: 0,
        }
    }

    /// Starts the joins over so many connections.
    pub fn start(
        &mut self,
        server: &dyn Server,
        plans: Vec<Plan>,
        fingerprint: &str,
        connections: usize,
    ) -> anyhow::Result<()> {
        let count = plans.len();
        let jobs: Vec<Job> = plans
            .into_iter()
            .map(|plan| self.job(plan, fingerprint))
            .collect::<anyhow::Result<_>>()?;
        self.pending += count;
        let jobs = Arc::new(Mutex::new(jobs.into_iter()));
        for _ in 0..connections.min(count) {
            let (jobs, to, mut door) = (jobs.clone(), self.to.clone(), server.door()?);
            std::thread::spawn(move || {
                // Nobody listens any more: the measurement is over.
                let _ = pass(&mut *door, || jobs.lock().ok()?.next(), &to);
            });
        }
        Ok(())
    }

    fn job(&mut self, plan: Plan, fingerprint: &str) -> anyhow::Result<Job> {
        self.begun += 1;
        Ok(Job {
            plan,
            place: self.begun - 1,
            ufrag: format!("peer{}", self.begun),
            socket: peer::socket()?,
            fingerprint: fingerprint.to_owned(),
        })
    }

    /// What a thread has said meanwhile.
    pub fn next(&mut self) -> Option<Signal> {
        let signal = self.from.try_recv().ok()?;
        if matches!(signal, Signal::Joined(_)) {
            self.pending -= 1;
        }
        Some(signal)
    }
}

/// Joins one after the other through one door.
fn pass(
    door: &mut dyn Door,
    mut next: impl FnMut() -> Option<Job>,
    to: &mpsc::Sender<Signal>,
) -> Result<(), mpsc::SendError<Signal>> {
    while let Some(job) = next() {
        let plan = job.plan.clone();
        match door.join(&job) {
            Ok((remote, control)) => to.send(Signal::Joined(Box::new((job, remote, control))))?,
            Err(error) => {
                to.send(Signal::Failed(
                    error.context(format!("the join of {}", plan.site)),
                ))?;
                continue;
            }
        }
        if !plan.views.is_empty()
            && let Err(error) = door.view(&plan)
        {
            to.send(Signal::Failed(
                error.context(format!("the view of {}", plan.site)),
            ))?;
        }
    }
    Ok(())
}
