//! Debian's Janus as a server to compare with: a process with its own configuration in a temporary folder, and the
//! JSON API of its video room over a local socket.
//!
//! It is given what it needs for the same load and nothing more: the video room alone, no recording, no other
//! transport. It has no send-side bandwidth estimation and no pacing in this version, which is in its favour.

mod api;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::join::{Door, Job, Plan, Server};
use crate::sdp::{self, Local, Remote, Wanted};
use crate::stun::Control;
use api::Api;

const PROGRAM: &str = "janus";
const START: Duration = Duration::from_secs(20);
/// At its start two threads of Janus run a race, and where the wrong one wins it ends ("No Janus API transport is available").
const ATTEMPTS: usize = 10;

/// A running Janus. Dropping it ends it.
pub struct Janus {
    child: Child,
    api: Arc<Mutex<Api>>,
    _dir: tempfile::TempDir,
}

impl Janus {
    /// With so many rooms; `loops` 0: a thread for each peer, as Janus comes.
    pub fn start(rooms: u16, loops: u16) -> anyhow::Result<Self> {
        let mut started = Self::attempt(rooms, loops);
        for _ in 1..ATTEMPTS {
            match started {
                Ok(_) => break,
                Err(_) => started = Self::attempt(rooms, loops),
            }
        }
        started
    }

    fn attempt(rooms: u16, loops: u16) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let socket = dir.path().join("janus.sock");
        let log = dir.path().join("log");
        write_config(dir.path(), &socket, rooms, loops)?;
        let output = std::fs::File::create(&log)?;
        let mut child = Command::new(PROGRAM)
            .arg("--config")
            .arg(dir.path().join("janus.jcfg"))
            .arg("--configs-folder")
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("janus does not start; it is Debian's package janus")?;
        match reach(&mut child, &socket) {
            Ok(api) => Ok(Self {
                child,
                api: Arc::new(Mutex::new(api)),
                _dir: dir,
            }),
            Err(error) => {
                // Nothing to do about a child that is gone already.
                let _ = child.kill().and_then(|()| child.wait());
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                let last: Vec<&str> = said.lines().rev().take(5).collect();
                Err(error.context(format!("janus says: {last:?}")))
            }
        }
    }
}

fn reach(child: &mut Child, socket: &Path) -> anyhow::Result<Api> {
    let end = Instant::now() + START;
    loop {
        match Api::connect(socket) {
            Ok(api) => return Ok(api),
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) => {}
        }
        if let Some(status) = child.try_wait()? {
            bail!("janus ended at its start: {status}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Drop for Janus {
    fn drop(&mut self) {
        // Nothing to do about a child that is gone already.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

fn write_config(dir: &Path, socket: &Path, rooms: u16, loops: u16) -> anyhow::Result<()> {
    let others = [
        "audiobridge",
        "duktape",
        "echotest",
        "lua",
        "nosip",
        "recordplay",
        "sip",
        "streaming",
        "textroom",
    ];
    let plugins = others.into_iter().chain(["videocall", "voicemail"]);
    let plugins: Vec<String> = plugins.map(|name| format!("libjanus_{name}.so")).collect();
    let transports = ["http", "mqtt", "nanomsg", "rabbitmq", "websockets"];
    let transports = transports.map(|name| format!("libjanus_{name}.so"));
    let event_loops = if loops > 0 {
        format!("event_loops = {loops}")
    } else {
        String::new()
    };
    let main = format!(
        "general: {{ debug_level = 2\nsession_timeout = 0\n{event_loops}\n}}\n\
         nat: {{ ice_enforce_list = \"lo,127.0.0.1\" }}\n\
         plugins: {{ disable = \"{}\" }}\ntransports: {{ disable = \"{}\" }}\n",
        plugins.join(","),
        transports.join(","),
    );
    std::fs::write(dir.join("janus.jcfg"), main)?;
    let api = format!(
        "general: {{ enabled = true\njson = \"compact\"\npath = \"{}\"\ntype = \"SOCK_SEQPACKET\" }}\n\
         admin: {{ admin_enabled = false }}\n",
        socket.display()
    );
    std::fs::write(dir.join("janus.transport.pfunix.jcfg"), api)?;
    let room = |number| {
        format!(
            "room-{number}: {{ description = \"{number}\"\npublishers = 1\nbitrate = 0\nvideocodec = \"vp8\"\n\
             record = false\nnotify_joining = false }}\n"
        )
    };
    let rooms: String = (1..=rooms).map(room).collect();
    std::fs::write(dir.join("janus.plugin.videoroom.jcfg"), rooms)?;
    Ok(())
}

impl Server for Janus {
    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn door(&self) -> anyhow::Result<Box<dyn Door>> {
        Ok(Box::new(JanusDoor(self.api.clone())))
    }
}

/// All doors share the one session, which ends with its connection.
struct JanusDoor(Arc<Mutex<Api>>);

impl Door for JanusDoor {
    /// Janus answers a publisher, and makes an offer to a viewer.
    fn join(&mut self, job: &Job) -> anyhow::Result<(Remote, Control)> {
        let port = job.socket.local_addr()?.port();
        let local = Local {
            candidate: Some(([127, 0, 0, 1], port).into()),
            ..job.local()
        };
        let room = room_of(&job.plan)?;
        let mut api = self.0.lock().ok().context("another join has failed")?;
        if let Some(script) = &job.plan.publishes {
            let wanted = Wanted {
                layers: script.layers(),
                slots: 0,
            };
            let answer = api.publish(room, &local.offer(wanted, "active"))?;
            return Ok((sdp::read(&answer)?, Control::Ours));
        }
        let (handle, offer) = api.subscribe(room)?;
        let remote = sdp::read(&offer)?;
        let (mid, vp8) = (
            sdp::find(&offer, "a=mid:")?,
            sdp::payload_type(&offer, "VP8/90000")?,
        );
        let answer = local.answer(mid, vp8, "recvonly", &sdp::feedback(vp8));
        api.start(handle, &answer)?;
        // It sends no transport-wide numbers to viewers.
        Ok((
            Remote {
                twcc: false,
                ..remote
            },
            Control::Theirs,
        ))
    }

    fn view(&mut self, _: &Plan) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Rooms count from 1, meetings from 0.
fn room_of(plan: &Plan) -> anyhow::Result<u64> {
    let number = plan
        .meeting
        .rsplit_once('-')
        .and_then(|(_, number)| number.parse::<u64>().ok());
    Ok(number.with_context(|| format!("{} has no number", plan.meeting))? + 1)
}
