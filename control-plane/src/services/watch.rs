//! The watch stream of a tab. The work is a task of its own (`watcher`); between it and the connection is a bounded
//! queue, and a tab that does not drain it is dropped with the reason and comes back by its cursor.

use super::Answers;
use super::watcher::Watcher;
use crate::core::{Caller, Core};
use crate::status::Failure;
use futures_util::stream;
use muster_domain::{Action, Refusal, Target, UnitId};
use muster_proto::command::v1 as pb;
use pb::watch_service_server::WatchService;
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

/// Messages a tab may be behind.
const QUEUE: usize = 1024;
/// Streams in one cursor.
const MAX_CURSOR: usize = 10_000;
/// Units that one tab follows.
const MAX_UNITS: usize = 1000;

pub struct Watches(pub Arc<Core>);

/// Messages, and then the reason for which they end.
struct Outgoing {
    messages: mpsc::Receiver<pb::WatchResponse>,
    end: Arc<OnceLock<Status>>,
    over: bool,
}

impl Outgoing {
    async fn next(mut self) -> Option<(Result<pb::WatchResponse, Status>, Self)> {
        if self.over {
            return None;
        }
        match self.messages.recv().await {
            Some(message) => Some((Ok(message), self)),
            None => {
                self.over = true;
                let end = self.end.get().cloned();
                end.map(|status| (Err(status), self))
            }
        }
    }
}

impl Watches {
    /// The units of a request, each of which the caller must see.
    fn followed(&self, caller: &Caller, units: &[String]) -> Result<Vec<UnitId>, Status> {
        if units.len() > MAX_UNITS {
            let text = format!("units: found {}, expected {MAX_UNITS} at most", units.len());
            return Err(Status::invalid_argument(text));
        }
        let mut followed = Vec::with_capacity(units.len());
        for unit in units {
            let unit = UnitId::new(unit).map_err(Failure::from)?;
            if self.0.tree().unit(&unit).is_none() {
                return Err(Failure::from(Refusal::UnknownUnit(unit.to_string())).into());
            }
            self.0
                .authorize(caller, Action::View, &Target::Unit(unit.clone()))?;
            followed.push(unit);
        }
        Ok(followed)
    }
}

#[tonic::async_trait]
impl WatchService for Watches {
    type WatchStream = Answers<pb::WatchResponse>;

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let caller = self.0.caller(&request).await?;
        let pb::WatchRequest {
            cursor,
            units,
            position,
        } = request.into_inner();
        if cursor.len() > MAX_CURSOR {
            return Err(Status::invalid_argument(format!(
                "cursor: found {} streams, expected {MAX_CURSOR} at most",
                cursor.len()
            )));
        }
        let only = self.followed(&caller, &units)?;
        let (queue, messages) = mpsc::channel(QUEUE);
        let end = Arc::new(OnceLock::new());
        // Subscribed before anything is read, so that nothing falls in between.
        let watcher = Watcher::new(self.0.clone(), caller, only, queue);
        let reason = end.clone();
        tokio::spawn(async move {
            if let Err(status) = watcher.run(cursor, position).await {
                let _ = reason.set(status);
            }
        });
        let outgoing = Outgoing {
            messages,
            end,
            over: false,
        };
        Ok(Response::new(Box::pin(stream::unfold(outgoing, Outgoing::next))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt as _;

    #[tokio::test]
    async fn what_was_queued_comes_before_the_reason_for_the_end() {
        let (queue, messages) = mpsc::channel(1);
        let end = Arc::new(OnceLock::new());
        let outgoing = Outgoing {
            messages,
            end: end.clone(),
            over: false,
        };
        queue.send(pb::WatchResponse::default()).await.expect("room");
        end.set(Status::resource_exhausted("too slow")).expect("once");
        drop(queue);
        let all: Vec<_> = stream::unfold(outgoing, Outgoing::next).collect().await;
        assert!(all[0].is_ok());
        assert_eq!(all[1].as_ref().expect_err("the reason").message(), "too slow");
        assert_eq!(all.len(), 2);
    }
}
