//! What is asked of a call before its body is read: who calls, how large the body may be, how slow, and whether there is
//! room for it beside those of others.
//!
//! Invariants: but for signing in and enrolling, no byte of a body is taken in for somebody who is nobody; bodies in memory are
//! bounded in all and by address, from their first byte until the call is answered. Whether somebody may do what they ask
//! is decided by the services, with the caller that was found here.

use crate::core::{Core, peer_ip};
use crate::counters::turned_away;
use crate::shares::{Share, Shares};
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use http::request::Parts;
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;
use tonic::metadata::MetadataMap;

/// Bytes of a message that names a few things.
pub const SMALL: usize = 64 * 1024;
/// Of one that names sites: 20,000 of them have room.
pub const CALL: usize = 1024 * 1024;
/// A CSV of 8 MiB and its envelope.
pub const IMPORT: usize = 8 * 1024 * 1024 + 4096;
/// Of somebody who has shown nothing yet: a name and a password, or a request for a certificate.
const OPEN: usize = 16 * 1024;
/// The frame around a message.
const ENVELOPE: usize = 64;
/// How long a body may take: so long, and longer by what has come at this rate.
const PATIENCE: Duration = Duration::from_secs(10);
const BYTES_A_SECOND: usize = 16 * 1024;
const MIB: usize = 1024 * 1024;

/// Who may make a call, and with how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Anybody,
    Endpoint,
    /// A stream that goes on: its messages are bounded one by one.
    Relay,
    Person,
    Import,
}

impl Kind {
    fn of(path: &str) -> Self {
        let path = path.strip_prefix("/muster.command.v1.").unwrap_or(path);
        match path.split_once('/') {
            Some(("SessionService", "SignIn")) | Some(("EnrolService", "Enrol")) => Self::Anybody,
            Some(("EndpointService", _)) => Self::Endpoint,
            Some(("FleetService", _)) => Self::Relay,
            Some(("DirectoryService", "ImportSites")) => Self::Import,
            _ => Self::Person,
        }
    }

    fn most(self) -> usize {
        let most = match self {
            Self::Anybody => OPEN,
            Self::Endpoint => SMALL,
            Self::Person => CALL,
            Self::Import => IMPORT,
            Self::Relay => usize::MAX - ENVELOPE,
        };
        most + ENVELOPE
    }
}

/// Stands before the services of one port.
pub struct Gate {
    core: Arc<Core>,
    /// Bytes of bodies of those who have shown nothing, of calls, and of imports.
    open: Arc<Shares>,
    calls: Arc<Shares>,
    imports: Arc<Shares>,
}

impl Gate {
    pub fn new(core: &Arc<Core>) -> Arc<Self> {
        Arc::new(Self {
            core: core.clone(),
            open: Shares::new(32 * MIB, 2 * MIB),
            calls: Shares::new(64 * MIB, 32 * MIB),
            imports: Shares::new(4 * IMPORT + MIB, 2 * IMPORT + MIB),
        })
    }

    /// The services, behind this gate.
    pub fn before(self: Arc<Self>, services: axum::Router) -> axum::Router {
        services.route_layer(middleware::from_fn_with_state(self, pass))
    }

    /// Finds out who calls, and leaves it for the service.
    async fn ask(&self, kind: Kind, parts: &mut Parts) -> Result<(), Status> {
        let metadata = MetadataMap::from_headers(parts.headers.clone());
        let request = tonic::Request::from_parts(metadata, parts.extensions.clone(), ());
        match kind {
            Kind::Anybody => {}
            Kind::Endpoint => {
                let known = self.core.endpoint(&request).await?;
                parts.extensions.insert(Arc::new(known));
            }
            Kind::Relay => {
                self.core.relay(&request)?;
            }
            Kind::Person | Kind::Import => {
                let caller = self.core.caller(&request).await?;
                parts.extensions.insert(Arc::new(caller));
            }
        }
        Ok(())
    }

    fn shares(&self, kind: Kind) -> &Arc<Shares> {
        match kind {
            Kind::Anybody => &self.open,
            Kind::Import => &self.imports,
            Kind::Endpoint | Kind::Relay | Kind::Person => &self.calls,
        }
    }
}

async fn pass(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let kind = Kind::of(parts.uri.path());
    if let Err(status) = gate.ask(kind, &mut parts).await {
        return status.into_http();
    }
    if kind == Kind::Relay {
        return next.run(Request::from_parts(parts, body)).await;
    }
    let from = peer_ip(&parts.extensions);
    let share = match gate.shares(kind).take(from, 0) {
        Ok(share) => Arc::new(share),
        Err(_) => return no_room().into_http(),
    };
    let body = Measured {
        body,
        seen: 0,
        most: kind.most(),
        share: share.clone(),
        began: Instant::now(),
        alarm: Box::pin(sleep(PATIENCE)),
    };
    let answer = next.run(Request::from_parts(parts, Body::new(body))).await;
    drop(share);
    answer
}

fn no_room() -> Status {
    turned_away("request", "no_room");
    Status::resource_exhausted("too much is being sent at this moment: try again")
}

/// A body that is counted as it comes.
struct Measured {
    body: Body,
    seen: usize,
    most: usize,
    share: Arc<Share>,
    began: Instant,
    alarm: Pin<Box<Sleep>>,
}

impl Measured {
    fn take(&mut self, bytes: usize) -> Result<(), Status> {
        self.seen = self.seen.saturating_add(bytes);
        if self.seen > self.most {
            turned_away("request", "too_large");
            let text = format!("the request is too large: expected {} bytes at most", self.most);
            return Err(Status::resource_exhausted(text));
        }
        self.share.grow(bytes).map_err(|_| no_room())
    }

    /// Until when it may take, with what has come so far.
    fn until(&self) -> Instant {
        let more = u64::try_from(self.seen / BYTES_A_SECOND).unwrap_or(u64::MAX);
        self.began + PATIENCE + Duration::from_secs(more)
    }
}

impl HttpBody for Measured {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(match frame {
                None => None,
                Some(Err(error)) => Some(Err(error.into())),
                Some(Ok(frame)) => {
                    let bytes = frame.data_ref().map_or(0, Bytes::len);
                    Some(self.take(bytes).map(|()| frame).map_err(Into::into))
                }
            });
        }
        while self.alarm.as_mut().poll(context).is_ready() {
            let until = self.until();
            if Instant::now() >= until {
                turned_away("request", "too_slow");
                let status = Status::deadline_exceeded("the request came too slowly");
                return Poll::Ready(Some(Err(status.into())));
            }
            self.alarm.as_mut().reset(until);
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_signs_in_or_enrols_need_be_nobody() {
        for (path, kind) in [
            ("/muster.command.v1.SessionService/SignIn", Kind::Anybody),
            ("/muster.command.v1.EnrolService/Enrol", Kind::Anybody),
            ("/muster.command.v1.SessionService/SignOut", Kind::Person),
            ("/muster.command.v1.DirectoryService/ImportSites", Kind::Import),
            ("/muster.command.v1.DirectoryService/ListSites", Kind::Person),
            ("/muster.command.v1.EndpointService/Attach", Kind::Endpoint),
            ("/muster.command.v1.FleetService/Serve", Kind::Relay),
            ("/muster.command.v1.NewService/Call", Kind::Person),
            ("/", Kind::Person),
        ] {
            assert_eq!(Kind::of(path), kind, "{path}");
        }
    }
}
