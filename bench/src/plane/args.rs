//! The command line of what measures the control plane.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// What a convening costs: endpoints that are attached, one call.
///
/// Every endpoint has a connection of its own (TLS with its certificate, HTTP/2) and an `Attach` stream; it reports each
/// summons as delivered. A relay that carries no media is there, so that there are tickets. Dispatchers (--watchers) watch
/// everything.
///
///   convened_ms       time until the call is answered: all is stored
///   delivered_p50_ms delivered_p99_ms   from the call to an endpoint's receipt of its summons
///   delivered         endpoints that got it within 30 s
///   told_p50_ms told_p99_ms   from the call until a watcher has been told that a site has it
///   cpu_s             CPU time of the control plane until then
///   target_p99_ms     what delivered_p99_ms is to be
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct CommandArgs {
    /// Sites, each with an endpoint
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub sites: u32,
    /// Dispatchers that watch
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=200))]
    pub watchers: u16,
    /// Meetings one after the other, a line each; the first finds everything cold
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: u16,
}

/// What watching costs: many sites that come and go, many watchers of a part of the tree each.
///
/// Of twenty watchers one watches the whole city, three a district, sixteen a street. The changes are made inside the control
/// plane, at the register where `Attach` streams come and go: so many of those would take more than this machine has. All the way
/// from there to the watcher is real. A latency is from the change until a watcher has that state or a newer one, and up to 1 ms
/// too long, as a change is dated in milliseconds.
///
///   bytes_per_site    resident memory that the sites take after a start, nobody ever attached / their number
///   bytes_per_site_imported   the same in the process that imported them, with what the allocator keeps of the import
///   bytes_per_site_seen       the same after a start when many (half as many as there were changes) have been attached once
///   changes_per_s     changes made a second
///   told              states that all watchers together were told
///   stale             of all watchers and sites: those of which a watcher does not know the newest state in the end; 0 is right
///   dropped           watchers whose stream ended
///   p50_ms p99_ms     latency
///   snapshot_p99_ms   from the call of `Watch` to the snapshot, all watchers at once
///   cpu_s             CPU time of the control plane while the changes were made
///   cpu_load          the same a second
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct WatchArgs {
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1000..=200_000))]
    pub sites: u32,
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub watchers: u16,
    /// Changes a second
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    pub changes: u32,
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
}

/// What a restart costs: all endpoints attach, the control plane is killed and started again, and all come back at once.
///
/// None waits by itself before its first try; who is refused comes back when it was told to, or where it was told nothing,
/// after 0.2 to 1 s. As agents do, each asks by its tier for a place in the line of handshakes. A line for each tier, and one for all.
///
///   attached          endpoints that came back within 60 s
///   lost              those that did not
///   p50_ms p99_ms all_ms   from the moment that the control plane listens until an endpoint is attached again; the last
///   told_to_wait      tries that were told to come again later, and when
///   failed            tries that failed and were told nothing
///   told_wait_p50_ms  how long they were told
///   cpu_s             CPU time of the control plane until all were back, its start included
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct AttachArgs {
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub endpoints: u32,
}

/// What an import costs.
///
///   import_s          time of the call
///   again_s           the same file again, which changes nothing
///   progress          how often it was told how far the import has come
///   cpu_s             CPU time of the control plane for the first
///   target_s          what import_s is to be for 10,000 sites
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct ImportArgs {
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub sites: u32,
}

/// What the death of a relay costs: agents in one meeting at one of two relays, which is killed (SIGKILL).
///
/// The agents are `muster-edge` itself, in this program: each encodes and sends a 320x180 test card, and decodes the stage,
/// which is the first site's picture. Nobody tells them anything but the relays and the control plane.
///
///   back              agents that were back within 30 s
///   back_p50_ms back_p99_ms    from the kill until an agent is in at the other relay and has sent its first picture there
///   seen_p50_ms seen_p99_ms all_ms   until the stage's picture is live there besides; the last of them
///   target_p99_ms     what seen_p99_ms is to be
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct FailoverArgs {
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(2..=500))]
    pub agents: u32,
    /// Meetings one after the other, a line each; the killed relay is started again for the next
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: u16,
}

/// The control plane under test; ends with its standard input.
#[derive(Args)]
pub struct PlaneArgs {
    #[arg(long)]
    pub data: PathBuf,
    #[arg(long)]
    pub listen: SocketAddr,
    #[arg(long)]
    pub agents_listen: SocketAddr,
}
