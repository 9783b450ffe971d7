//! The command line of `muster-bench link`.

use clap::{Args, ValueEnum};

/// What a link makes of a bad path: a 1080p-like source (2.5 Mbit/s where the path has it, 30 frames a second) and Opus, for
/// 60 s, over real QUIC through the link emulator. A line for each hop, up (agent to relay) and down.
///
///   frame_miss        pictures not whole at their deadline after capture / all captured
///   overhead          bytes of IP packets sent this way, all headers, repeats, parity, acknowledgements / RTP bytes, less 1
///   delay_p50_ms delay_p95_ms   from capture until whole, of those that became whole
///   freeze_ms         time that a viewer's picture stood: gaps over three periods and over a period and 150 ms
///   longest_gap_ms    the longest time between two pictures shown
///   back_ms           for each outage: its length, and the time from the path's return to the next picture
///   audio_kept        Opus frames there at their deadline (400 ms; satellite 800)
///   mean_kbps         what the source made, RTP
///   connect_ms        the handshake, under the same profile (loss80: before it); the source begins a second later
///   emulator_late_p99_us   how late the emulator itself was: run it by `chrt -f 10` where this is over 1000
///   target, met       what is asked, and whether it came out
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct LinkArgs {
    /// clean, loss10, loss30, loss80, village-4g, adsl-rain, satellite, thin, flap, or a CSV file (data/links/README.md)
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "loss10,loss30,loss80,village-4g,adsl-rain,satellite,thin,flap"
    )]
    pub profile: Vec<String>,
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Deadline of a picture after its capture [default: 200; village-4g and adsl-rain 400, satellite 800, thin 1000]
    #[arg(long, value_parser = clap::value_parser!(u64).range(20..=5000))]
    pub rtt_budget_ms: Option<u64>,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// What the source makes at most, kbit/s
    #[arg(long, default_value_t = 2500, value_parser = clap::value_parser!(u64).range(50..=20_000))]
    pub kbps: u64,
    /// The same source by another sender through the same profile and seed
    #[arg(long, value_enum)]
    pub compare: Option<Compare>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Compare {
    /// The `webrtc` crate's peer with NACK and RTX
    Webrtc,
}
