use proptest::prelude::*;

use super::*;
use crate::media::Codec;
use crate::receive::Figures;
use crate::test_support::instant;

#[test]
fn what_is_written_is_read() {
    let nack = nack(1, 2, &[65_534, 65_535, 3]).expect("written");
    assert_eq!(
        read(&nack),
        [Feedback::Nack {
            ssrc: 2,
            seqs: vec![65_534, 65_535, 3]
        }]
    );
    let pli = pli(1, 9).expect("written");
    assert_eq!(read(&pli), [Feedback::KeyFrame { ssrc: 9 }]);
}

#[test]
fn an_unknown_packet_spoils_nothing() {
    let mut data = vec![0x80, 207, 0, 1, 0, 0, 0, 1]; // XR without blocks
    data.extend([0x80, 204, 0, 2, 0, 0, 0, 1, b'n', b'a', b'm', b'e']); // APP
    data.extend(pli(1, 9).expect("written"));
    assert!(read(&data).contains(&Feedback::KeyFrame { ssrc: 9 }));
}

#[test]
fn reports_of_a_full_wall_fit_into_datagrams() {
    let now = instant();
    let streams: Vec<StreamReport> = (0..64)
        .map(|ssrc| StreamReport {
            ssrc,
            codec: Codec::Vp8,
            repeats: false,
            figures: Figures {
                fraction_lost: 3,
                lost: 1,
                total_lost: 1,
                highest: 9,
                jitter: 4,
            },
            last_report: Some((5, now)),
        })
        .collect();
    let slots: Vec<SlotReport> = (100..152)
        .map(|ssrc| SlotReport {
            ssrc,
            rtp_time: 1,
            packets: 2,
            octets: 3,
        })
        .collect();
    let datagrams = reports(&Periodic {
        now,
        ntp: ntp(Duration::from_secs(1)),
        ours: 7,
        cname: "abcdefghijklmnop",
        streams: &streams,
        slots: &slots,
        estimate: Some((4_000_000, (0..64).collect())),
    });
    assert!(datagrams.iter().all(|d| d.len() < 1200));
    let read: Vec<Feedback> = datagrams.iter().flat_map(|d| read(d)).collect();
    let senders = read.iter().filter(|f| matches!(f, Feedback::SenderReport { .. }));
    assert_eq!(senders.count(), 52);
    let receptions = read
        .iter()
        .filter(|f| matches!(f, Feedback::Reception { fraction_lost: 3, .. }));
    assert_eq!(receptions.count(), 64);
    // All from one SSRC of ours, so that SRTCP has one index.
    assert!(datagrams.iter().all(|d| d[4..8] == [0, 0, 0, 7]));
}

#[test]
fn the_round_trip_is_what_is_left_of_the_delay() {
    let sent = ntp(Duration::from_millis(1000));
    let now = ntp(Duration::from_millis(1350));
    let delay = 65_536 * 3 / 10;
    let rtt = round_trip(now, (sent >> 16) as u32, delay).expect("sensible");
    assert!(rtt.abs_diff(Duration::from_millis(50)) < Duration::from_millis(1));
    assert_eq!(round_trip(now, 0, 0), None);
    assert_eq!(round_trip(sent, (now >> 16) as u32, 0), None, "negative");
}

proptest! {
    #[test]
    fn junk_never_panics(
        mut data in prop::collection::vec(any::<u8>(), 4..120),
        kind in 200u8..=207,
        words in 0u8..30,
    ) {
        data[0] = data[0] & 0x3f | 0x80;
        data[1] = kind;
        data[2] = 0;
        data[3] = words;
        prop_assert!(read(&data).len() <= 2 * MAX_FEEDBACK + MAX_BLOCKS);
    }
}

#[test]
fn congestion_feedback_is_read_between_other_packets_and_without_its_padding() {
    let mut data = pli(1, 9).expect("written");
    // Transport-wide, FMT 15, 5 words after the first: two SSRCs, 12 bytes of which 3 are padding.
    data.extend([0x80 | 0x20 | 15, 205, 0, 5, 0, 0, 0, 1, 0, 0, 0, 2]);
    data.extend([1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 3]);
    // REMB of 0x20000 << 3, about one SSRC.
    data.extend([0x80 | 15, 206, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0]);
    data.extend(b"REMB");
    data.extend([1, 3 << 2 | 2, 0, 0, 0, 0, 0, 9]);
    let expected = [
        Feedback::KeyFrame { ssrc: 9 },
        Feedback::TransportWide {
            fci: vec![1, 2, 3, 4, 5, 6, 7, 8, 9],
        },
        Feedback::Limit { bps: 1 << 20 },
    ];
    assert_eq!(read(&data), expected);
}

#[test]
fn congestion_feedback_that_lies_about_its_size_is_harmless() {
    let all_padding = [0x80 | 0x20 | 15, 205, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 1, 2, 3, 255];
    assert_eq!(read(&all_padding), [Feedback::TransportWide { fci: vec![] }]);
    let empty = [0x80 | 15, 205, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
    assert_eq!(read(&empty), [Feedback::TransportWide { fci: vec![] }]);
    let huge = [
        0x80 | 15,
        206,
        0,
        4,
        0,
        0,
        0,
        1,
        0,
        0,
        0,
        0,
        b'R',
        b'E',
        b'M',
        b'B',
        0,
        0xff,
        0xff,
        0xff,
    ];
    assert_eq!(read(&huge), [Feedback::Limit { bps: u64::MAX }]);
}
