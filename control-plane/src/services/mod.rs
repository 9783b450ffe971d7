//! The services of the wire schema, one module each. They check who asks and what may be asked, translate, and leave
//! the rest to the domain and the meetings.

mod account;
mod act;
pub mod convening;
mod directory;
pub mod endpoint;
mod enrol;
mod fleet;
mod log;
pub mod meeting;
mod permissions;
pub mod plan;
mod report;
mod rows;
mod scope;
mod session;
mod verify;
pub mod watch;
mod watcher;

use crate::console;
use crate::convert::selector_from_wire;
use crate::core::{Caller, Core};
use crate::gate::{CALL, Gate, IMPORT, SMALL};
use crate::status::Failure;
use muster_domain::{Action, Refusal, Resolution, SiteId};
use muster_proto::command::v1 as pb;
use muster_proto::command::v1::account_service_server::AccountServiceServer;
use muster_proto::command::v1::directory_service_server::DirectoryServiceServer;
use muster_proto::command::v1::endpoint_service_server::EndpointServiceServer;
use muster_proto::command::v1::enrol_service_server::EnrolServiceServer;
use muster_proto::command::v1::fleet_service_server::FleetServiceServer;
use muster_proto::command::v1::log_service_server::LogServiceServer;
use muster_proto::command::v1::meeting_service_server::MeetingServiceServer;
use muster_proto::command::v1::plan_service_server::PlanServiceServer;
use muster_proto::command::v1::report_service_server::ReportServiceServer;
use muster_proto::command::v1::session_service_server::SessionServiceServer;
use muster_proto::command::v1::watch_service_server::WatchServiceServer;
use std::pin::Pin;
use std::sync::Arc;
use tokio_stream::Stream;
use tonic::Status;
use tonic::service::Routes;
use tonic_web::GrpcWebLayer;

/// A relay's greeting names every leg it has.
const HELLO_MESSAGE: usize = 16 * 1024 * 1024;

/// An answer that comes in pieces.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Names in one selector.
const MAX_NAMES: usize = 20_000;

/// What a selector means to somebody who wants to do this to the sites, and may do it somewhere.
fn resolve_for(
    core: &Core,
    caller: &Caller,
    action: Action,
    selector: Option<pb::Selector>,
) -> Result<Resolution, Status> {
    let selector = selector.unwrap_or_default();
    let names = [
        &selector.subtrees,
        &selector.sites,
        &selector.tags,
        &selector.exclude_subtrees,
        &selector.exclude_sites,
    ];
    let names = names.iter().map(|names| names.len()).sum::<usize>();
    if names > MAX_NAMES {
        let text = format!("selector: found {names} names, expected {MAX_NAMES} at most");
        return Err(Failure::BadRequest(text).into());
    }
    let selector = selector_from_wire(selector).map_err(Failure::BadRequest)?;
    let tree = core.tree();
    let units = caller.actor.units_for(action, &tree, core.clock.now());
    if units.is_empty() {
        return Err(core.refused(
            caller,
            action,
            caller.actor.without_role(action, core.clock.now()),
        ));
    }
    Ok(selector.resolve(&tree, &units))
}

/// The sites that are chosen. A name that does not exist, or is out of authority, is told and nothing is done; that it
/// was tried is recorded.
pub fn chosen_for(
    core: &Core,
    caller: &Caller,
    action: Action,
    selector: Option<pb::Selector>,
) -> Result<Vec<SiteId>, Status> {
    let Resolution { sites, unknown } = resolve_for(core, caller, action, selector)?;
    if unknown.is_empty() {
        return Ok(sites);
    }
    let shown: Vec<_> = unknown.iter().take(10).map(String::as_str).collect();
    Err(core.refused(caller, action, Refusal::UnknownNames(shown.join(", "))))
}

/// The port for people: gRPC, gRPC-web and the console.
pub fn console_router(core: &Arc<Core>) -> axum::Router {
    let routes = Routes::new(
        SessionServiceServer::new(session::Sessions(core.clone())).max_decoding_message_size(SMALL),
    )
    .add_service(
        DirectoryServiceServer::new(directory::Directory(core.clone())).max_decoding_message_size(IMPORT),
    )
    .add_service(
        MeetingServiceServer::new(meeting::MeetingCalls(core.clone())).max_decoding_message_size(CALL),
    )
    .add_service(
        AccountServiceServer::new(account::AccountCalls(core.clone())).max_decoding_message_size(SMALL),
    )
    .add_service(PlanServiceServer::new(plan::Plans(core.clone())).max_decoding_message_size(CALL))
    .add_service(ReportServiceServer::new(report::ReportCalls(core.clone())).max_decoding_message_size(SMALL))
    .add_service(LogServiceServer::new(log::Logs(core.clone())).max_decoding_message_size(SMALL))
    .add_service(WatchServiceServer::new(watch::Watches(core.clone())).max_decoding_message_size(CALL))
    .add_service(
        EndpointServiceServer::new(endpoint::EndpointCalls(core.clone())).max_decoding_message_size(SMALL),
    );
    Gate::new(core)
        .before(routes.into_axum_router())
        .route_layer(GrpcWebLayer::new())
        .fallback(console::serve)
}

/// The port for agents and relays: gRPC only.
pub fn agents_router(core: &Arc<Core>) -> axum::Router {
    let routes =
        Routes::new(EnrolServiceServer::new(enrol::Enrolment(core.clone())).max_decoding_message_size(SMALL))
            .add_service(
                EndpointServiceServer::new(endpoint::EndpointCalls(core.clone()))
                    .max_decoding_message_size(SMALL),
            )
            .add_service(
                FleetServiceServer::new(fleet::FleetCalls(core.clone()))
                    .max_decoding_message_size(HELLO_MESSAGE),
            );
    Gate::new(core).before(routes.into_axum_router())
}
