//! One video slot as it is received: packets to frames, frames to luma, luma to the mark of the test card.

use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_testcard::rtp::Depacketizer;
use muster_testcard::{Decoder, Mark};
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use tokio::sync::watch;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};

/// No picture is asked for anew more often than this.
const KEY_FRAME_PAUSE: Duration = Duration::from_millis(500);

/// What was last seen in a slot.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// Packets that came, of whatever content.
    pub packets: u64,
    /// Pictures that were decoded.
    pub pictures: u64,
    /// The mark of the newest picture that had one, and when it was read.
    pub mark: Option<(Mark, Instant)>,
}

/// Reads the track to its end and keeps the newest reading in `out`.
pub async fn read_track(track: Arc<dyn TrackRemote>, out: watch::Sender<Reading>) {
    let mut slot = match Slot::new() {
        Ok(slot) => slot,
        Err(error) => {
            tracing::error!(%error, "no decoder for a slot");
            return;
        }
    };
    while let Some(event) = track.poll().await {
        let TrackRemoteEvent::OnRtpPacket(packet) = event else {
            continue;
        };
        let now = Instant::now();
        slot.take(&packet, now);
        out.send_replace(slot.reading);
        if slot.wants_key_frame(now) {
            let pli = PictureLossIndication {
                sender_ssrc: 0,
                media_ssrc: packet.header.ssrc,
            };
            if track.write_rtcp(vec![Box::new(pli)]).await.is_err() {
                return;
            }
        }
    }
}

struct Slot {
    frames: Depacketizer,
    decoder: Decoder,
    reading: Reading,
    asked: Option<Instant>,
}

impl Slot {
    fn new() -> Result<Self, muster_testcard::VpxError> {
        Ok(Self {
            frames: Depacketizer::default(),
            decoder: Decoder::new()?,
            reading: Reading::default(),
            asked: None,
        })
    }

    fn take(&mut self, packet: &rtc::rtp::Packet, now: Instant) {
        self.reading.packets += 1;
        let header = &packet.header;
        let Some(frame) = self.frames.push(
            header.sequence_number,
            header.timestamp,
            header.marker,
            &packet.payload,
        ) else {
            return;
        };
        match self.decoder.decode(frame) {
            Ok(Some(luma)) => {
                self.reading.pictures += 1;
                if let Some(mark) = Mark::read(luma.data, luma.width, luma.height, luma.stride) {
                    self.reading.mark = Some((mark, now));
                }
            }
            Ok(None) => {}
            // Not a frame of ours, or damaged on the way: the next key frame sets it right.
            Err(error) => tracing::debug!(%error, "a frame was not decoded"),
        }
    }

    fn wants_key_frame(&mut self, now: Instant) -> bool {
        // The switch to another source brings its own key frame; a loss does not.
        if !self.frames.needs_key_frame() || self.asked.is_some_and(|at| now - at < KEY_FRAME_PAUSE) {
            return false;
        }
        self.asked = Some(now);
        true
    }
}
