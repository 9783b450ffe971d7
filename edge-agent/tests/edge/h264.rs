//! What the tests make of the H.264 and the Opus that a relay got: packets put together, and ffmpeg's word on them.

use std::process::Command;

use crate::world::{H264Packet, World};

/// Packets of a flow.
pub fn of(packets: &[H264Packet], flow: u64) -> impl Iterator<Item = &H264Packet> {
    packets.iter().filter(move |packet| packet.flow == flow)
}

/// Packets of a flow as they were sent: the link may bring one late.
pub fn in_order(packets: &[H264Packet], flow: u64) -> Vec<H264Packet> {
    let mut packets: Vec<_> = of(packets, flow).cloned().collect();
    let first = packets.first().map_or(0, |packet| packet.seq);
    packets.sort_by_key(|packet| packet.seq.wrapping_sub(first).cast_signed());
    packets
}

/// The parameter sets come first, in a packet of their own kind.
pub fn begins_key_frame(packet: &H264Packet) -> bool {
    packet.payload[0] & 0x1F == 24 && packet.payload[3] & 0x1F == 7
}

/// Puts packets together as RFC 6184 says, and has ffmpeg decode them: pictures, and the profile in the stream.
pub fn decode(world: &World, packets: &[H264Packet]) -> (usize, String) {
    let mut stream = Vec::new();
    let mut put = |nal: &[u8], begins: bool| {
        if begins {
            stream.extend_from_slice(&[0, 0, 0, 1]);
        }
        stream.extend_from_slice(nal);
    };
    for packet in packets {
        let payload = &packet.payload;
        match payload[0] & 0x1F {
            24 => {
                let mut rest = &payload[1..];
                while let Some((length, tail)) = rest.split_first_chunk::<2>() {
                    let (nal, tail) = tail.split_at(u16::from_be_bytes(*length).into());
                    put(nal, true);
                    rest = tail;
                }
            }
            28 => {
                let begins = payload[1] & 0x80 != 0;
                if begins {
                    put(&[payload[0] & 0xE0 | payload[1] & 0x1F], true);
                }
                put(&payload[2..], false);
            }
            _ => put(payload, true),
        }
    }
    let file = world.dir.path().join("camera.h264");
    std::fs::write(&file, stream).expect("written");
    let output = Command::new("ffprobe")
        .args([
            "-v",
            "error",
            "-count_frames",
            "-show_entries",
            "stream=nb_read_frames,profile",
        ])
        .args(["-of", "default=noprint_wrappers=1"])
        .arg(&file)
        .output()
        .expect("ffprobe");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "",
        "what was sent decodes without a word"
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap_or_default()
            .to_owned()
    };
    (
        value("nb_read_frames=").parse().expect("a number"),
        value("profile="),
    )
}

/// Of the Opus packets that came.
pub fn loudest(world: &World) -> u16 {
    let mut decoder = opus::Decoder::new(48_000, opus::Channels::Mono).expect("a decoder");
    let mut pcm = [0_i16; 5760];
    let seen = world.seen();
    let levels = seen.sounds.iter().map(|packet| {
        let length = decoder.decode(packet, &mut pcm, false).expect("Opus");
        pcm[..length]
            .iter()
            .map(|sample| sample.unsigned_abs())
            .max()
            .unwrap_or(0)
    });
    levels.max().unwrap_or(0)
}
