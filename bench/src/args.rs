//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Measures Muster's relay on this machine, each time in a process of its own and over loopback.
///
/// The peers are real: every one has a UDP port, joins by POST /v1/legs, passes ICE and DTLS, sends connectivity checks
/// and receiver reports, and gets SRTP (AES-128-GCM). They count packets by the header, which is not encrypted, and
/// decrypt a sample (`forward` one in 64), so that playing them costs little; `generator_limited` is true where it cost too much for the
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
    Surge(SurgeArgs),
    #[command(hide = true)]
    Relay(RelayArgs),
}

/// What a forwarded packet costs: one publisher, N subscribers.
///
/// The publisher sends VP8 as a 1080p camera does: 30 frames a second, 9 packets of 1200 bytes (the RTP packet before
/// SRTP) a frame, a key frame when it is asked for one. A line for each N:
///
///   ns_per_packet   CPU time of the relay's process over the window / RTP packets it sent in it;
///                   everything else the relay does meanwhile (RTCP, STUN) is in it
///   user_ns sys_ns  the same, split as the kernel's ticks are (a sample; the sum is exact)
///   target          what ns_per_packet is to be at 200 subscribers
///   delivered       RTP packets that came within 0.3 s of the window's end, without repeats / those due;
///                   none is asked for again
///   p50_ms p99_ms   from just before the publisher's send to the subscriber's receive, one packet in 64: this includes
///                   the kernel both ways and this program's own batching, so it is more than the time in the relay
///   packets_per_send  RTP packets of a system call of the relay (GSO joins equal ones)
///   rss_mb          resident memory of the relay at the end
///   relay_load      CPU time of the relay / time passed; 1.0 is a core
///   generator_load  the same for the thread that plays the peers, and the time it waited for a core
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct ForwardArgs {
    /// Subscribers, a run for each
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "10,50,200,400",
          value_parser = clap::value_parser!(u16).range(1..=4000))]
    pub subs: Vec<u16>,
    /// Length of the measured window
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=600))]
    pub seconds: u16,
    /// Threads of the relay that carry media
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: u16,
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
///   viewers_p99_ms  latency of the ten meanwhile, as p99_ms of `forward`
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct SurgeArgs {
    /// Viewers that join at once
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=4000))]
    pub joins: u16,
    /// Threads of the relay that carry media
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: u16,
}

/// The relay under test; ends with its standard input.
#[derive(Args)]
pub struct RelayArgs {
    #[arg(long)]
    pub workers: u16,
    #[arg(long)]
    pub identity_dir: PathBuf,
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
            (args.subs, args.seconds, args.workers),
            (vec![1, 200, 4000], 2, 2)
        );
        let args = forward(&[]).expect("defaults");
        assert_eq!(
            (args.subs, args.seconds, args.workers),
            (vec![10, 50, 200, 400], 5, 1)
        );
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for line in [
            ["--subs", "0"],
            ["--subs", "10,"],
            ["--seconds", "0"],
            ["--workers", "65"],
        ] {
            assert!(forward(&line).is_err(), "{line:?}");
        }
    }
}
