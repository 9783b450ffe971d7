//! The task that serves the browser: offers in, answers out; media between its session and the agent's loop.
//!
//! One session at a time. A new offer that is of use takes over: the earlier one is closed and, through the desk, told.
//! Into the loop's queue the task waits, and the browser's packets with it in the socket; nobody waits for the task.

use std::sync::Arc;

use muster_webrtc::Certificate;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::PageEvent;
use super::desk::{Desk, DriverEnd, NotServed, Order, Served, Shown};
use super::session::{Session, Told};
use crate::agent::Input;
use crate::publisher::FeedEvent;

/// What the page wants of the agent's loop beside being a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Viewing {
    /// A browser shows the stage; it takes H.264 too, or not.
    Begins {
        h264: bool,
    },
    Ends,
    /// Pixels in which the stage is shown.
    Size(u32, u32),
    /// A slot needs a key frame, by its place in the join.
    KeyFrame(usize),
}

/// The loop that takes the events has ended.
struct Over;

/// Starts the task.
pub fn spawn(end: DriverEnd, inputs: &mpsc::Sender<Input>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let driver = Driver {
        desk: end.desk,
        inputs: inputs.clone(),
        certificate: None,
        session: None,
        number: u64::from(rand::random::<u32>()),
    };
    tasks.spawn(driver.run(end.orders, end.shown));
    tasks
}

struct Driver {
    desk: Desk,
    inputs: mpsc::Sender<Input>,
    /// Made with the first offer.
    certificate: Option<Arc<Certificate>>,
    session: Option<Session>,
    /// Of the last session.
    number: u64,
}

impl Driver {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>, mut shown: mpsc::Receiver<Shown>) {
        let mut told = Vec::new();
        loop {
            let session = self.session.as_mut();
            tokio::select! {
                Some(order) = orders.recv() => {
                    if self.obey(order).await.is_err() {
                        return;
                    }
                }
                Some(packet) = shown.recv() => {
                    if let Some(session) = &mut self.session {
                        session.show(&packet);
                        // What came together goes out together.
                        while let Ok(packet) = shown.try_recv() {
                            session.show(&packet);
                        }
                    }
                }
                () = async {
                    match session {
                        Some(session) => session.ready().await,
                        None => std::future::pending().await,
                    }
                } => {}
            }
            if let Some(session) = &mut self.session {
                session.turn(&mut told);
                session.flush(&mut told).await;
            }
            for told in told.drain(..) {
                if self.pass_on(told).await.is_err() {
                    return;
                }
            }
        }
    }

    async fn obey(&mut self, order: Order) -> Result<(), Over> {
        match order {
            Order::Offer { sdp, at, answer } => {
                let served = match self.accept(&sdp, at).await {
                    Ok((session, sdp)) => {
                        // Without a moment in which nobody is served: the earlier page is to hear who took over.
                        self.desk.serve(session.number);
                        let version = self.desk.wanted().version;
                        self.end().await?;
                        let served = Served {
                            sdp,
                            session: session.number,
                            version,
                        };
                        self.session = Some(session);
                        Ok(served)
                    }
                    Err(not) => {
                        tracing::warn!(
                            word = not.word,
                            expected = not.expected,
                            "the page's offer is of no use"
                        );
                        Err(not)
                    }
                };
                // Who has given up asking comes again.
                let _ = answer.send(served);
            }
            Order::Words(words) => {
                if self.session.as_ref().map(|session| session.number) == Some(words.session) {
                    let size = Viewing::Size(words.stage_width, words.stage_height);
                    tell(&self.inputs, Input::Viewing(size)).await?;
                    feed(&self.inputs, PageEvent::Words(words)).await?;
                }
            }
            Order::KeyFrame(layer) => {
                if let Some(session) = &mut self.session {
                    session.ask_key_frame(layer);
                }
            }
        }
        Ok(())
    }

    async fn accept(&mut self, sdp: &str, at: std::net::IpAddr) -> Result<(Session, String), NotServed> {
        let certificate = match &self.certificate {
            Some(certificate) => certificate.clone(),
            None => {
                let made = Certificate::generate()
                    .map_err(|error| NotServed::new("no_certificate", error.to_string()))?;
                self.certificate.insert(Arc::new(made)).clone()
            }
        };
        self.number += 1;
        Session::accept(self.number, certificate, sdp, at).await
    }

    /// Ends the present session, if there is one.
    async fn end(&mut self) -> Result<(), Over> {
        let Some(session) = self.session.take() else {
            return Ok(());
        };
        if self.desk.wanted().session == session.number {
            self.desk.serve(0);
        }
        session.close().await;
        feed(&self.inputs, PageEvent::Gone).await?;
        tell(&self.inputs, Input::Viewing(Viewing::Ends)).await
    }

    async fn pass_on(&mut self, told: Told) -> Result<(), Over> {
        match told {
            Told::Connected { h264 } => {
                let number = self.session.as_ref().map_or(0, |session| session.number);
                tracing::info!(session = number, "a browser with the page is connected");
                feed(&self.inputs, PageEvent::Connected(number)).await?;
                tell(&self.inputs, Input::Viewing(Viewing::Begins { h264 })).await
            }
            Told::KeyFrame(slot) => tell(&self.inputs, Input::Viewing(Viewing::KeyFrame(slot))).await,
            Told::Packet(packet) => feed(&self.inputs, PageEvent::Packet(packet)).await,
            Told::Closed(reason) => {
                tracing::info!(%reason, "the browser with the page is gone");
                self.end().await
            }
        }
    }
}

async fn tell(inputs: &mpsc::Sender<Input>, input: Input) -> Result<(), Over> {
    inputs.send(input).await.map_err(|_| Over)
}

async fn feed(inputs: &mpsc::Sender<Input>, event: PageEvent) -> Result<(), Over> {
    tell(inputs, Input::Feed(FeedEvent::Page(event))).await
}
