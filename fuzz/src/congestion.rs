//! Congestion control driven by any feedback: steps of a sender, of a receiver that hears some of it, and of one that lies.

use std::time::{Duration, Instant};

use muster_webrtc::congestion::{Bounds, FeedbackRecorder, SendSide};

/// The estimate stays within its bounds, probing ends, timers go on, and honest feedback is always taken.
pub fn congestion(data: &[u8]) {
    let mut now = Instant::now();
    let bounds = Bounds::default();
    let mut sender = SendSide::new(now, bounds, data.len() % 8 != 7);
    let mut receiver = FeedbackRecorder::new(now);
    let mut heard: Vec<u16> = Vec::new();
    // Who lies, or is silent from the start, is not believed later either.
    let (mut lied, mut heard_once) = (false, false);
    let mut input = data;
    for _ in 0..500 {
        let Some((&[step, with], rest)) = input.split_first_chunk::<2>() else {
            break;
        };
        input = rest;
        match step % 8 {
            0 | 1 => {
                for n in 0..=with & 31 {
                    let seq = sender.sent(now, 200 + 40 * usize::from(n));
                    if step & 0x80 == 0 || n % 3 != 0 {
                        heard.push(seq);
                    }
                }
            }
            2 => now += Duration::from_millis(with.into()),
            3 => heard.drain(..).for_each(|seq| receiver.received(now, seq)),
            4 => {
                if let Some(fci) = receiver.poll(now) {
                    assert!(fci.len() <= 1200, "{} bytes", fci.len());
                    let taken = sender.feedback(now, &fci);
                    assert!(lied || !heard_once || taken.is_ok(), "honest feedback: {taken:?}");
                    heard_once |= taken.is_ok();
                }
            }
            5 => {
                let length = usize::from(with).min(input.len());
                let (fci, rest) = input.split_at(length);
                input = rest;
                lied |= sender.feedback(now, fci).is_ok();
            }
            6 => sender.reported_loss(now, f64::from(with) / 255.0),
            _ => {
                sender.set_can_probe(with & 1 == 0);
                sender.set_wanted_bps(now, (with & 2 == 0).then_some(u64::from(with) * 100_000));
                // What a packet says of its sequence number is the peer's word.
                lied = true;
                receiver.received(now, u16::from(with) << 8 | u16::from(step));
            }
        }
        if sender.poll_timeout().is_some_and(|at| at <= now) {
            sender.handle_timeout(now);
        }
        let mut probes = 0;
        while let Some(bytes) = sender.poll_probe(now) {
            assert!(bytes <= 1500);
            sender.sent(now, bytes);
            probes += 1;
            assert!(probes < 10_000, "a probe without an end");
        }
        if let Some(bps) = sender.estimate_bps() {
            assert!((bounds.floor..=bounds.ceiling).contains(&bps), "{bps}");
        }
        let _ = (sender.media_bps(), sender.queue());
        assert!(sender.pacing_bps() >= bounds.floor);
        assert!((0.0..=1.0).contains(&sender.loss()), "{}", sender.loss());
    }
}
