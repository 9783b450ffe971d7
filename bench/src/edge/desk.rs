//! A desk that watches one site over a link, so that the relay wants its picture.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{bail, ensure};
use muster_identity::{Authority, Identity, JoinClaims};
use muster_link::EdgeLink;
use muster_proto::media::v1::{
    LinkJoin, LinkSlot, LinkUp, SetViewRequest, SlotWish, SourceKind, SourceRef, link_down, link_up,
    slot_wish,
};

/// It ends with its handle.
pub struct Desk {
    bytes: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Desk {
    /// Joins `meeting` at the relay's link port under the name of another of its sites and wishes for the camera of `site`, as large as it is.
    pub async fn join(
        relay: SocketAddr,
        authority: &Authority,
        meeting: &str,
        name: &str,
        site: &str,
    ) -> anyhow::Result<Self> {
        let credentials = authority.credentials(Identity::Agent(name.into()))?;
        let now_s = SystemTime::now()
            .duration_since(UNIX_EPOCH)?
            .as_secs()
            .try_into()?;
        let claims = JoinClaims::new(meeting, name, false, false, now_s);
        let token = authority.token_signer()?.sign(&claims)?;
        let mut link = EdgeLink::connect(&relay.to_string(), &credentials).await?;
        let slot = LinkSlot {
            slot: "wall".into(),
            audio: false,
            codecs: vec!["H264".into()],
        };
        let join = LinkJoin {
            token,
            sources: Vec::new(),
            slots: vec![slot],
        };
        let source = SourceRef {
            site: site.to_owned(),
            kind: SourceKind::Camera.into(),
        };
        let wish = SlotWish {
            slot: "wall".into(),
            what: Some(slot_wish::What::Source(source)),
            ..SlotWish::default()
        };
        for message in [
            link_up::Message::Join(join),
            link_up::Message::SetView(SetViewRequest { wishes: vec![wish] }),
        ] {
            link.sender
                .send_control(&LinkUp {
                    message: Some(message),
                })
                .await?;
        }
        loop {
            let told = match link.control.recv().await {
                Ok(told) => told,
                Err(_) => bail!("the relay ended the desk's link: {}", link.sender.closed().await),
            };
            match told.message {
                Some(link_down::Message::Joined(_)) => break,
                Some(link_down::Message::Refused(refused)) => {
                    bail!("the relay refused the desk: {} {}", refused.code, refused.detail)
                }
                _ => {}
            }
        }
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = bytes.clone();
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    packet = link.media.recv() => match packet {
                        Ok((_, rtp)) => { counted.fetch_add(rtp.len() as u64, Ordering::Relaxed); }
                        Err(error) => {
                            eprintln!("the desk's media: {error}");
                            return;
                        }
                    },
                    control = link.control.recv() => if control.is_err() {
                        eprintln!("the desk's link: {}", link.sender.closed().await);
                        return;
                    },
                }
            }
        });
        Ok(Self { bytes, task })
    }

    /// RTP bytes of the camera that came.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub async fn wait_for_pictures(&self, patience: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        while self.bytes() == 0 {
            ensure!(start.elapsed() < patience, "no picture of the camera came");
            ensure!(!self.task.is_finished(), "the desk's link ended");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}
