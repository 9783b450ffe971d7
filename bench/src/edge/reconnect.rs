//! What links that came and went leave behind in memory: both ends, in this process.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::Context as _;
use muster_identity::{Authority, Identity};
use muster_link::{EdgeLink, LinkServer};
use serde::Serialize;

use crate::procfs;

/// What was closed is remembered for a few round trips.
const REMEMBERED: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Line {
    bench: &'static str,
    reconnects: u32,
    rss_mb: f64,
    grown_mb: f64,
    target_grown_mb: f64,
}

pub fn run(times: u32) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let folder = tempfile::tempdir()?;
        let authority = Authority::load_or_create(folder.path())?;
        let relay = authority.credentials(Identity::Relay("relay".into()))?;
        let agent = authority.credentials(Identity::Agent("site".into()))?;
        let server = LinkServer::bind(UdpSocket::bind("127.0.0.1:0")?, &relay)?;
        let address = server.local_addr()?.to_string();
        let mut before = 0.0;
        for time in 0..times {
            let accept = async {
                let arriving = server.accept().await.context("the server closed")?;
                anyhow::Ok(arriving.finish().await?)
            };
            let (edge, relay) = tokio::join!(EdgeLink::connect(&address, &agent), accept);
            let (edge, relay) = (edge?, relay?);
            edge.sender.close("again");
            relay.sender.closed().await;
            if time == times / 10 {
                tokio::time::sleep(REMEMBERED).await;
                before = procfs::resident_mb(std::process::id())?;
            }
        }
        tokio::time::sleep(REMEMBERED).await;
        let rss_mb = procfs::resident_mb(std::process::id())?;
        let line = Line {
            bench: "edge",
            reconnects: times,
            rss_mb,
            grown_mb: rss_mb - before,
            target_grown_mb: 1.0,
        };
        println!("{}", serde_json::to_string(&line)?);
        Ok(())
    })
}
