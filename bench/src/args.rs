//! The command line.

use std::path::PathBuf;

use crate::crowd::Taking;
use crate::edge::args::EdgeArgs;
use crate::flood::Kind;
use crate::link::args::LinkArgs;
use crate::plane::args::{AttachArgs, CommandArgs, FailoverArgs, ImportArgs, PlaneArgs, WatchArgs};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Measures Muster's relay and control plane on this machine, each time in a process of its own and over loopback.
///
///   muster-bench forward                        one camera to 10, 50, 200, 400 subscribers
///   muster-bench forward --trace bench/data/chromium-1080p-simulcast.csv    a browser's real packets
///   muster-bench forward --subs 400 --meetings 8 --load 0.7    as many subscribers as load a core by 70 %
///   muster-bench forward --subs 50 --peer janus    Debian's Janus under the same load, and the ratio
///   muster-bench mesh --n 8,16,32               everyone sees everyone
///   muster-bench mesh --n 140 --wall            140 cameras, 49 on the dispatcher's wall, everyone sees the stage
///   muster-bench surge --joins 200              200 joins at once
///   muster-bench churn --cycles 10000           joins and leaves, and what they leave behind in memory
///   muster-bench flood                          a meeting while hostile datagrams flood its port
///   muster-bench command --sites 1000 --watchers 10    one call, and the endpoints of a whole city
///   muster-bench watch --sites 100000           200 watchers of 10,000 changes a second
///   muster-bench attach --endpoints 2000        everybody comes back at once after a restart
///   muster-bench import --sites 10000           a city from one file
///   muster-bench failover --agents 50           the relay of a meeting is killed
///   muster-bench edge                           an agent that passes a camera on: memory and CPU time
///   muster-bench link --profile loss30          the link from an agent over a path that loses a third
///   muster-bench cascade --relays 3 --sites 30  relays above one another, and what crosses the links between them
///
/// The relay's peers are real: every one has a UDP port, joins by POST /v1/legs, passes ICE and DTLS, sends connectivity checks,
/// receiver reports and transport-wide feedback (every 100 ms), offers RTX, and gets SRTP (AES-128-GCM). They ask for
/// nothing again (no NACK): what is lost counts as lost. They count packets by the header, which is not encrypted, and decrypt one
/// in 64 (`mesh` in 16, `surge` all), so that playing them costs little; `generator_limited` is true where it cost too much for the
/// numbers to be the relay's (this program was busy, or waited for a core, more than 90 % of the time, or its sockets
/// overflowed).
///
/// On a machine with other work the latencies and what is delivered are noisy. CPU time is less so: it is what the
/// kernel charged the relay's process, all threads, to the nanosecond.
#[derive(Parser)]
#[command(name = "muster-bench", version, verbatim_doc_comment)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    Forward(ForwardArgs),
    Mesh(MeshArgs),
    Surge(SurgeArgs),
    Churn(ChurnArgs),
    Flood(FloodArgs),
    Record(RecordArgs),
    #[command(name = "command")]
    Convening(CommandArgs),
    Watch(WatchArgs),
    Attach(AttachArgs),
    Import(ImportArgs),
    Failover(FailoverArgs),
    Edge(EdgeArgs),
    Link(LinkArgs),
    Cascade(CascadeArgs),
    #[command(hide = true)]
    Relay(RelayArgs),
    #[command(hide = true)]
    Plane(PlaneArgs),
}

/// What all measurements may be told.
#[derive(Args)]
pub struct Common {
    /// Threads of the relay that carry media
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: u16,
    /// Peers take joined datagrams (UDP GRO). Off, loopback charges the relay with cutting what it sends joined, which
    /// on a wire the network card does
    #[arg(long, value_enum, default_value_t = Switch::On)]
    pub gro: Switch,
    /// Peers are woken by what comes. On loopback the relay pays for that, in a virtual machine with several
    /// microseconds a call; off, they look every 0.5 ms, which is added to p50_ms and p99_ms
    #[arg(long, value_enum, default_value_t = Switch::Off)]
    pub wake: Switch,
}

impl Common {
    pub fn taking(&self) -> Taking {
        Taking {
            gro: self.gro == Switch::On,
            wake: self.wake == Switch::On,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    Janus,
}

/// What a forwarded packet costs: a publisher a meeting, N subscribers.
///
/// The publisher sends VP8 as a 1080p camera does: 30 frames a second, 9 packets of 1200 bytes (the RTP packet before
/// SRTP) a frame, a key frame when it is asked for one. Or (--trace) what was recorded of a browser: three layers, of
/// which the subscribers see the largest. A line for each N:
///
///   ns_per_packet   CPU time of the relay's process over the window / RTP packets it sent in it (Janus: that came);
///                   everything else the relay does meanwhile (RTCP, STUN) is in it
///   ns_per_received the same CPU time / packets of media that came, each once: no padding and no repeats
///   user_ns sys_ns  the same, split as the kernel's ticks are (a sample; the sum is exact)
///   target          what ns_per_packet is to be at 200 subscribers
///   delivered       RTP packets that came within 0.3 s of the window's end, without repeats / those due; inexact where
///                   layer_changes is not 0
///   p50_ms p99_ms   from just before the publisher's send to the subscriber's receive, one packet in 64: this includes
///                   the kernel both ways and this program's own batching, so it is more than the time in the relay
///   relay_p99_ms    from the relay's receive to its send, by its own histogram: the upper bound of the bucket
///   packets_per_send  RTP packets of a system call of the relay (GSO joins equal ones)
///   resent          packets that came twice, by RTX or as padding: probes for bandwidth are among them
///   climb_s         seconds from full load until all of it came to all: links are thought narrow at first; null: not in 30 s
///   top_layer       share of the subscribers that see the largest layer
///   rss_mb          resident memory of the relay at the end
///   relay_load      CPU time of the relay / time passed while the cameras ran; 1.0 is a core
///   generator_load  the same for the thread that plays the peers, and the time it waited for a core
///   gro wake        how the peers' sockets take what comes, see below
///
/// With --peer a line `ratio` says how many times our CPU time the other takes, by ns_per_received of both (muster_ns and
/// peer_ns).
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct ForwardArgs {
    /// Subscribers, a run for each
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "10,50,200,400",
          value_parser = clap::value_parser!(u16).range(1..=i64::from(Self::MOST_SUBS)))]
    pub subs: Vec<u16>,
    /// Length of the measured window
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=600))]
    pub seconds: u16,
    /// Meetings that the subscribers are spread over, each with a publisher; their frames come one after the other
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub meetings: u16,
    /// Look for the number of subscribers that gives the relay this load, from N on, in at most three runs; the line is of the
    /// nearest of them
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub load: Option<f64>,
    /// Replay this recording in place of packets of one size
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Then the same load on this server, which must be installed, and the ratio of the CPU a received packet
    #[arg(long, value_enum)]
    pub peer: Option<Peer>,
    /// Event loops of Janus; 0: a thread for each peer, as it comes
    #[arg(long, default_value_t = 0)]
    pub janus_loops: u16,
    #[command(flatten)]
    pub common: Common,
}

impl ForwardArgs {
    pub const MOST_SUBS: u16 = 4000;
}

fn share(text: &str) -> Result<f64, String> {
    let share = text
        .parse::<f64>()
        .ok()
        .filter(|share| (0.01..=64.0).contains(share));
    share.ok_or_else(|| "expected a share of a core, for example 0.7".to_owned())
}

/// What many cameras cost: everyone publishes one at thumbnail size (30 packets of 850 bytes a second), and sees all
/// others.
///
/// With --wall the first is a dispatcher: a 1080p camera on the stage, which all others see, and a wall of 49 of theirs.
/// The fields are those of `forward`; `slots` is how many pictures are seen.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct MeshArgs {
    /// Publishers, a run for each
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "8,16,32",
          value_parser = clap::value_parser!(u16).range(2..=1000))]
    pub n: Vec<u16>,
    /// One dispatcher with 49 slots, all others see the stage
    #[arg(long)]
    pub wall: bool,
    /// Length of the measured window
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=600))]
    pub seconds: u16,
    #[command(flatten)]
    pub common: Common,
}

/// What a join costs: many viewers at once.
///
/// Ten viewers already watch a thumbnail (30 packets a second). Then all others join at once over 16 HTTP connections:
/// POST, SetView, ICE, DTLS, first media.
///
///   joined          those that had media within 30 s
///   per_s           joined / time until the last of them had
///   cpu_ms_per_join CPU time of the relay meanwhile / joined; the thumbnails that it forwards meanwhile are in it
///   p50_ms p95_ms   from the start of all to a viewer's first media, which is a key frame's
///   keys_p50_ms keys_p95_ms   the same to the end of its DTLS handshake
///   viewers_p99_before_ms viewers_p99_ms   latency of the ten in the 3 s before and meanwhile, as p99_ms of `forward`
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct SurgeArgs {
    /// Viewers that join at once
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=4000))]
    pub joins: u16,
    #[command(flatten)]
    pub common: Common,
}

/// What those who come and go leave behind: legs join and leave, 100 to a meeting.
///
/// A cycle is POST, SetView, ICE, DTLS, a frame of media, DELETE. Of twenty one does not leave as it should, by turns: silent
/// once connected, silent in the middle of the handshake, silent after the POST, a certificate that is not the offer's.
/// The silent ones the relay ends after 10 s, which is waited for before memory is read. How many of them are open at a time
/// (--given-up) bounds the speed: 10,000 cycles have 375. What the allocator keeps grows with that number, some 40 kB each with
/// what TLS needs, once; with the number of cycles it does not.
///
///   done failed       cycles that went as they were meant to, and those that did not (the first ten on standard error)
///   per_s             cycles a second; this program's half of the work is in it
///   cpu_ms_per_cycle  CPU time of the relay / cycles
///   rss_before_mb     resident memory of the relay after the warm-up, without legs
///   rss_after_mb      after all cycles, without legs
///   rss_growth_mb     the difference: what is kept for a while (a join token for 120 s, an empty meeting for 60 s) is in it,
///                     and what the allocator does not give back
///   target_mb         what that is to stay under for 10,000 cycles
///   legs_left         legs that did not end
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct ChurnArgs {
    /// Joins after the warm-up
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub cycles: u32,
    /// Cycles before memory is first read, which fill pools and caches
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub warm_up: u32,
    /// Cycles at a time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub at_once: u16,
    /// Silent legs that are open at a time
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=5000))]
    pub given_up: u16,
    /// Threads of the relay that carry media
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: u16,
}

/// What hostile datagrams cost those who behave: a meeting of one camera, alone and then under each kind of flood.
///
/// The flood comes from 256 ports at a steady rate, to the port that the meeting uses.
///
///   kind            what it is of
///   packets_per_s   datagrams a second that the flooder sent
///   answered        datagrams that it got back: 0 is right for all kinds but `proved`
///   dropped         datagrams that the relay counts as dropped meanwhile, for whatever reason
///   delivered p99_ms relay_p99_ms relay_load   as in `forward`, of the meeting under the flood
///   delivered_before ...   the same of the meeting alone, measured once at the start
///   rss_mb_before rss_mb   resident memory of the relay before this flood and at its end
///
/// On two cores the flooder sends some 110,000 a second at most; near that it takes the viewers' time, and `generator_limited`
/// or a high p99_ms beside a low relay_p99_ms say that the latencies are not the relay's.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct FloodArgs {
    /// Viewers of the camera
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=i64::from(ForwardArgs::MOST_SUBS)))]
    pub subs: u16,
    /// Length of each measured window
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=20))]
    pub seconds: u16,
    /// Hostile datagrams a second
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: u32,
    /// Floods, one after the other
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::Stun, Kind::Hello, Kind::Rtp, Kind::Proved])]
    pub kinds: Vec<Kind>,
    #[command(flatten)]
    pub common: Common,
}

/// Records what a browser's camera sends, for `forward --trace`.
///
/// Starts Chromium without a window, which publishes its test picture as 1080p VP8 in three layers to this program;
/// notes time, size and layer of each packet once all layers have come for a while.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct RecordArgs {
    /// The recording
    #[arg(value_name = "FILE")]
    pub to: PathBuf,
    /// Its length
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=120))]
    pub seconds: u16,
    #[arg(long, default_value = "/usr/bin/chromium", value_name = "PROGRAM")]
    pub chromium: PathBuf,
}

/// The relay under test; ends with its standard input.
#[derive(Args)]
pub struct RelayArgs {
    #[arg(long)]
    pub workers: u16,
    #[arg(long)]
    pub identity_dir: PathBuf,
    /// Site on the stage
    #[arg(long)]
    pub stage: Option<String>,
    /// It belongs to this control plane
    #[arg(long)]
    pub control_plane: Option<String>,
    /// It says that its ports are at this address
    #[arg(long)]
    pub announce_ip: Option<std::net::IpAddr>,
    /// A link port of the relay above
    #[arg(long)]
    pub uplink: Option<String>,
    /// Says the address of its port for links, and for each line of standard input a line of what has crossed
    #[arg(long)]
    pub cascade: bool,
}

/// Sites at the lowest of a chain of relays, viewers at each; what crosses each link, and what a hop adds.
///
/// Prints one line of JSON. Every site publishes a camera in two layers (small: one packet, 15 a second; large: five,
/// 25 a second) and sound; every viewer sees the first site large and the others small, and hears. All of it goes by
/// links, over loopback, the relays being processes of their own.
///   bytes      of datagrams that came over the link: flow id, RTP header, payload
///   layers     flows in which something came: one for a layer of a camera or for a voice
///   packets_per_source_packet    packets that came for each sequence number that did
///   hop_*_ms   the same packet's arrival at a viewer above less that at a viewer below, of all hops
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct CascadeArgs {
    /// Relays, one above the other
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(2..=4))]
    pub relays: u16,
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=60))]
    pub sites: u16,
    /// At each relay
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=10))]
    pub viewers: u16,
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(line: &[&str]) -> Result<ForwardArgs, clap::Error> {
        let words = ["muster-bench", "forward"].iter().chain(line);
        match Cli::try_parse_from(words)?.command {
            Command::Forward(args) => Ok(args),
            _ => panic!("another command"),
        }
    }

    #[test]
    fn numbers_of_subscribers_are_a_list() {
        let args = forward(&["--subs", "1,200,4000", "--seconds", "2", "--workers", "2"]).expect("good");
        assert_eq!(
            (args.subs, args.seconds, args.common.workers),
            (vec![1, 200, 4000], 2, 2)
        );
        let args = forward(&[]).expect("defaults");
        assert_eq!(
            (args.subs, args.seconds, args.common.workers, args.meetings),
            (vec![10, 50, 200, 400], 5, 1, 1)
        );
        assert!(args.common.taking().gro && !args.common.taking().wake && args.peer.is_none());
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for line in [
            ["--subs", "0"],
            ["--subs", "10,"],
            ["--seconds", "0"],
            ["--workers", "65"],
            ["--load", "0"],
            ["--gro", "maybe"],
            ["--peer", "none"],
        ] {
            assert!(forward(&line).is_err(), "{line:?}");
        }
    }
}
