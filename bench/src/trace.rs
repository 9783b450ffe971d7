//! A recording of a browser's camera: when each RTP packet was sent, and how large it was.
//!
//! A file is lines of `us,layer,payload,marker,key,temporal,sync` under a line that names them: microseconds since the
//! first packet, the layer (0 is the smallest), bytes of the RTP payload (header, extensions and authentication left
//! out), and four marks of the packet's frame. Times never go back. It does not hold pictures.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::picture::RIDS;

const HEAD: &str = "us,layer,payload,marker,key,temporal,sync";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    pub us: u64,
    pub layer: u8,
    pub payload: u16,
    pub marker: bool,
    pub key: bool,
    pub temporal: u8,
    pub sync: bool,
}

/// A recording that has packets, of one to three layers.
#[derive(Debug)]
pub struct Trace {
    packets: Vec<Packet>,
    layers: usize,
}

impl Trace {
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::read(&text).with_context(|| format!("in {}", path.display()))
    }

    fn read(text: &str) -> anyhow::Result<Self> {
        let mut lines = text.lines();
        ensure!(lines.next() == Some(HEAD), "the first line is not {HEAD}");
        let packets: Vec<Packet> = lines
            .enumerate()
            .map(|(at, line)| {
                packet(line).with_context(|| format!("line {}: {line:?} is not {HEAD}", at + 2))
            })
            .collect::<anyhow::Result<_>>()?;
        ensure!(
            packets.is_sorted_by_key(|packet| packet.us),
            "the times are out of order"
        );
        let layers = packets.iter().map(|packet| usize::from(packet.layer) + 1).max();
        let layers = layers.context("no packets")?;
        Ok(Self { packets, layers })
    }

    pub fn write(path: &Path, packets: &[Packet]) -> anyhow::Result<()> {
        let mut text = format!("{HEAD}\n");
        for p in packets {
            let [marker, key, sync] = [p.marker, p.key, p.sync].map(u8::from);
            writeln!(
                text,
                "{},{},{},{marker},{key},{},{sync}",
                p.us, p.layer, p.payload, p.temporal
            )?;
        }
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    pub fn packets(&self) -> &[Packet] {
        &self.packets
    }

    pub fn layers(&self) -> usize {
        self.layers
    }

    /// After this it begins again: its length and the time of a frame.
    pub fn period(&self) -> Duration {
        let last = self.packets.last().map_or(0, |packet| packet.us);
        Duration::from_micros(last + 33_333)
    }
}

fn packet(line: &str) -> Option<Packet> {
    let mut words = line.split(',');
    let mut number = |most: u64| words.next()?.parse::<u64>().ok().filter(|number| *number <= most);
    let read = Packet {
        us: number(3_600_000_000)?,
        layer: number(RIDS.len() as u64 - 1)? as u8,
        payload: number(1400)? as u16,
        marker: number(1)? == 1,
        key: number(1)? == 1,
        temporal: number(3)? as u8,
        sync: number(1)? == 1,
    };
    words.next().is_none().then_some(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_read_as_it_was_written() {
        let packets = [(0, 2, false), (40, 0, true), (40, 2, true)].map(|(us, layer, marker)| Packet {
            us,
            layer,
            payload: 1100,
            marker,
            key: layer == 0,
            temporal: layer,
            sync: marker,
        });
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("trace.csv");
        Trace::write(&path, &packets).expect("written");
        let trace = Trace::load(&path).expect("read");
        assert_eq!((trace.packets(), trace.layers()), (&packets[..], 3));
        assert_eq!(trace.period(), Duration::from_micros(40 + 33_333));
    }

    #[test]
    fn what_is_no_recording_is_refused_by_its_line() {
        for (text, expect) in [
            ("", "first line"),
            ("us,layer,payload,marker,key,temporal,sync\n", "no packets"),
            (
                "us,layer,payload,marker,key,temporal,sync\n1,3,10,0,0,0,0\n",
                "line 2",
            ),
            (
                "us,layer,payload,marker,key,temporal,sync\n1,0,10,0,0,0,0,0\n",
                "line 2",
            ),
            (
                "us,layer,payload,marker,key,temporal,sync\n5,0,10,0,0,0,0\n4,0,10,0,0,0,0\n",
                "out of order",
            ),
        ] {
            let error = Trace::read(text).expect_err(text);
            assert!(format!("{error:#}").contains(expect), "{error:#}");
        }
    }
}
