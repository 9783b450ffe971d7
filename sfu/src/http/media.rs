//! `muster.media.v1.MediaService` for browsers: the bearer is the secret of the leg, and names it.

use std::pin::Pin;

use futures_util::{Stream, stream};
use muster_proto::media::v1::media_service_server::MediaService;
use muster_proto::media::v1::{SetViewRequest, SetViewResponse, WatchLegRequest, WatchLegResponse};
use tonic::{Request, Response, Status};

use crate::directory::Found;
use crate::refusal::Refusal;
use crate::worker::Command;

use super::{Surface, bearer};

pub(super) struct Media(pub Surface);

impl Media {
    fn find<T>(&self, request: &Request<T>) -> Result<Found, Status> {
        let secret = bearer(&request.metadata().clone().into_headers())
            .map(|secret| muster_identity::sha256_text(secret.as_bytes()))
            .ok_or_else(|| {
                self.0.shared.metrics.refused("token_missing");
                Status::unauthenticated("expected `authorization: Bearer LEG_SECRET`")
            })?;
        self.0.shared.directory.find_by_secret(&secret).ok_or_else(|| {
            self.0.shared.metrics.refused("no_such_leg");
            Status::unauthenticated("no leg has this secret; it may have left")
        })
    }
}

#[tonic::async_trait]
impl MediaService for Media {
    async fn set_view(&self, request: Request<SetViewRequest>) -> Result<Response<SetViewResponse>, Status> {
        let leg = self.find(&request)?;
        let wishes = request.into_inner().wishes;
        self.0
            .ask(leg.worker, |reply| Command::SetView {
                leg: leg.id,
                wishes,
                reply,
            })
            .await
            .flatten()
            .map_err(|refusal| {
                self.0.shared.metrics.refused(refusal.code);
                status(refusal)
            })?;
        Ok(Response::new(SetViewResponse {}))
    }

    type WatchLegStream = Pin<Box<dyn Stream<Item = Result<WatchLegResponse, Status>> + Send>>;

    async fn watch_leg(
        &self,
        request: Request<WatchLegRequest>,
    ) -> Result<Response<Self::WatchLegStream>, Status> {
        let leg = self.find(&request)?;
        let watch = self
            .0
            .ask(leg.worker, |reply| Command::Watch { leg: leg.id, reply })
            .await
            .map_err(status)?;
        let watch = watch.ok_or_else(|| Status::not_found("the leg has left"))?;
        let events = stream::unfold(watch, |mut watch| async {
            watch.next().await.map(|event| (Ok(event), watch))
        });
        Ok(Response::new(Box::pin(events)))
    }
}

fn status(refusal: Refusal) -> Status {
    let message = refusal.message.into_owned();
    match refusal.status {
        400 => Status::invalid_argument(message),
        403 => Status::permission_denied(message),
        404 => Status::not_found(message),
        _ => Status::unavailable(message),
    }
}
