//! The command line of `muster-bench edge`.

use clap::Args;

/// What an agent costs on its box: one that passes on a 1080p camera of 2.5 Mbit/s (RTSP, encoded beforehand, played by another
/// process) over a bad path for 60 s. The program `muster-edge` beside this one is measured: build both with the profile `dist`.
///
///   mbps               what a desk at the relay was given of the camera
///   rss_mb             resident memory of the agent, the most in the window (10^6 bytes)
///   cpu_percent        CPU time of the agent, all threads, in percent of a core
///   cpu_percent_a_mbps the same for each Mbit/s
///   binary_mb          size of the program, stripped
///
/// With --reconnects: links made and closed so many times in one process, both ends, and by how much its memory grew after the
/// first tenth of them (grown_mb; under 1 is asked for after 10,000).
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct EdgeArgs {
    /// As in `muster-bench link`
    #[arg(long, default_value = "loss10")]
    pub profile: String,
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Makes and closes links instead
    #[arg(long, value_name = "TIMES", value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub reconnects: Option<u32>,
}
