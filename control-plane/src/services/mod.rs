//! The services of the wire schema, one module each. They check who asks and what may be asked, translate, and leave
//! the rest to the domain and the meetings.

mod act;
mod directory;
mod endpoint;
mod enrol;
mod fleet;
mod meeting;
mod rows;
mod session;
mod watch;
mod watcher;

use crate::console;
use crate::core::Core;
use muster_proto::command::v1::directory_service_server::DirectoryServiceServer;
use muster_proto::command::v1::endpoint_service_server::EndpointServiceServer;
use muster_proto::command::v1::enrol_service_server::EnrolServiceServer;
use muster_proto::command::v1::fleet_service_server::FleetServiceServer;
use muster_proto::command::v1::meeting_service_server::MeetingServiceServer;
use muster_proto::command::v1::session_service_server::SessionServiceServer;
use muster_proto::command::v1::watch_service_server::WatchServiceServer;
use std::pin::Pin;
use std::sync::Arc;
use tokio_stream::Stream;
use tonic::Status;
use tonic::service::Routes;
use tonic_web::GrpcWebLayer;

/// A CSV of 8 MiB and its envelope.
const IMPORT_MESSAGE: usize = 8 * 1024 * 1024 + 4096;
/// A relay's greeting names every leg it has.
const HELLO_MESSAGE: usize = 16 * 1024 * 1024;

/// An answer that comes in pieces.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The port for people: gRPC, gRPC-web and the console.
pub fn console_router(core: &Arc<Core>) -> axum::Router {
    let routes = Routes::new(SessionServiceServer::new(session::Sessions(core.clone())))
        .add_service(
            DirectoryServiceServer::new(directory::Directory(core.clone()))
                .max_decoding_message_size(IMPORT_MESSAGE),
        )
        .add_service(MeetingServiceServer::new(meeting::MeetingCalls(core.clone())))
        .add_service(WatchServiceServer::new(watch::Watches(core.clone())))
        .add_service(EndpointServiceServer::new(endpoint::EndpointCalls(core.clone())));
    routes
        .into_axum_router()
        .route_layer(GrpcWebLayer::new())
        .fallback(console::serve)
}

/// The port for agents and relays: gRPC only.
pub fn agents_router(core: &Arc<Core>) -> axum::Router {
    Routes::new(EnrolServiceServer::new(enrol::Enrolment(core.clone())))
        .add_service(EndpointServiceServer::new(endpoint::EndpointCalls(core.clone())))
        .add_service(
            FleetServiceServer::new(fleet::FleetCalls(core.clone())).max_decoding_message_size(HELLO_MESSAGE),
        )
        .into_axum_router()
}
