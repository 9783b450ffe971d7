//! VP8 descriptors and H.264 payloads: what is well formed is understood, what is not does no harm.
use muster_forward::h264::{self, KeyFrame};
use muster_forward::vp8::{self, PictureId, Vp8Patch};
use proptest::prelude::*;

fn check_vp8(payload: &[u8], picture_id: Option<(u16, u8)>, tl0: Option<u8>, len: usize) {
    let d = vp8::parse(payload).expect("well formed");
    assert_eq!(
        d.picture_id,
        picture_id.map(|(value, bits)| PictureId { value, bits })
    );
    assert_eq!((d.tl0_pic_idx, d.len), (tl0, len));
}

#[test]
fn descriptors_of_every_shape() {
    check_vp8(&[0x10], None, None, 1);
    check_vp8(&[0x90, 0x00], None, None, 2);
    check_vp8(&[0x90, 0x80, 0x7f], Some((127, 7)), None, 3);
    check_vp8(&[0x90, 0x80, 0x92, 0x34], Some((0x1234, 15)), None, 4);
    check_vp8(&[0x90, 0xf0, 0x81, 0x02, 9, 0x45], Some((0x102, 15)), Some(9), 6);
    check_vp8(&[0x80, 0x40, 7], None, Some(7), 3);
    let d = vp8::parse(&[0x90, 0x30, 0b1010_0101]).expect("well formed");
    assert_eq!((d.tid, d.key_idx), (Some(2), Some(5)));
}

#[test]
fn a_descriptor_that_is_cut_short_is_none() {
    for payload in [
        &[][..],
        &[0x90],
        &[0x90, 0x80],
        &[0x90, 0x80, 0x81],
        &[0x90, 0x40],
        &[0x90, 0x20],
    ] {
        assert_eq!(vp8::parse(payload), None, "{payload:?}");
    }
}

#[test]
fn only_the_head_of_a_vp8_key_frame_has_a_size() {
    let size = |payload: &[u8]| vp8::parse(payload).and_then(|d| vp8::key_frame_size(payload, &d));
    let key = [0x10, 0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x40, 0x41, 0xb4, 0x00];
    assert_eq!(
        size(&key),
        Some((320, 180)),
        "the scaling bits are no part of the size"
    );
    assert_eq!(size(&key[..10]), None);
    for (at, value) in [(0, 0x00), (0, 0x11), (1, 0x11), (4, 0x9c)] {
        let mut other = key;
        other[at] = value;
        assert_eq!(size(&other), None, "byte {at} as {value:#x}");
    }
}

#[test]
fn a_patch_writes_what_is_there_and_keeps_the_width() {
    let patch = Vp8Patch {
        picture_id: 0x1234,
        tl0_pic_idx: 9,
    };
    for (before, after) in [
        (
            &[0x90, 0xc0, 0x80, 0x01, 1, 0xff][..],
            &[0x90, 0xc0, 0x92, 0x34, 9, 0xff][..],
        ),
        (&[0x90, 0x80, 0x01, 0xff], &[0x90, 0x80, 0x34, 0xff]),
        (&[0x10, 0xff], &[0x10, 0xff]),
        (&[0x90, 0x80], &[0x90, 0x80]),
    ] {
        let mut payload = before.to_vec();
        patch.apply(&mut payload);
        assert_eq!(payload, after);
    }
}

/// Writes a sequence parameter set of the baseline profile, emulation prevention included.
fn sps(width_mbs: u32, height_mbs: u32, crop: Option<[u32; 4]>) -> Vec<u8> {
    let mut bits = Vec::new();
    let ue = |bits: &mut Vec<bool>, value: u32| {
        let digits = 32 - (value + 1).leading_zeros();
        bits.extend((1..digits).map(|_| false));
        bits.extend((0..digits).rev().map(|i| (value + 1) >> i & 1 == 1));
    };
    for value in [0, 0, 2, 1] {
        ue(&mut bits, value);
    }
    bits.push(false);
    ue(&mut bits, width_mbs - 1);
    ue(&mut bits, height_mbs - 1);
    bits.extend([true, true, crop.is_some()]);
    for value in crop.into_iter().flatten() {
        ue(&mut bits, value);
    }
    bits.extend([false, true]);
    let byte = |chunk: &[bool]| {
        chunk
            .iter()
            .enumerate()
            .fold(0, |byte, (i, &bit)| byte | u8::from(bit) << (7 - i))
    };
    let plain = [0x42, 0, 0].into_iter().chain(bits.chunks(8).map(byte));
    let mut nal = vec![0x67];
    for byte in plain {
        if nal.ends_with(&[0, 0]) && byte <= 3 {
            nal.push(3);
        }
        nal.push(byte);
    }
    nal
}

#[test]
fn the_size_in_a_parameter_set() {
    assert_eq!(
        h264::picture_size(&sps(20, 12, Some([0, 0, 0, 6]))),
        Some((320, 180))
    );
    assert_eq!(
        h264::picture_size(&sps(120, 68, Some([0, 0, 0, 4]))),
        Some((1920, 1080))
    );
    assert_eq!(h264::picture_size(&sps(40, 30, None)), Some((640, 480)));
    assert_eq!(
        h264::picture_size(&sps(1, 1, Some([100, 0, 0, 0]))),
        None,
        "cropped to less than nothing"
    );
}

#[test]
fn h264_key_frames_in_every_packet_shape() {
    let set = sps(40, 30, None);
    let sized = KeyFrame::ParameterSet {
        size: Some((640, 480)),
    };
    assert_eq!(h264::key_frame(&set), sized);
    assert_eq!(h264::key_frame(&[0x65, 0x88]), KeyFrame::Slice);
    assert_eq!(h264::key_frame(&[0x41, 0x9a]), KeyFrame::None);
    assert_eq!(h264::key_frame(&[0x7c, 0x85, 0x88]), KeyFrame::Slice);
    assert_eq!(
        h264::key_frame(&[0x7c, 0x05, 0x88]),
        KeyFrame::None,
        "not the first fragment"
    );
    assert_eq!(h264::key_frame(&[0x7c, 0x81, 0x88]), KeyFrame::None);
    let mut aggregate = vec![0x78, 0, 2, 0x09, 0x10, 0, set.len() as u8];
    aggregate.extend(&set);
    assert_eq!(h264::key_frame(&aggregate), sized);
    aggregate.pop();
    assert_eq!(
        h264::key_frame(&aggregate),
        KeyFrame::None,
        "a unit longer than the packet"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_vp8_bytes(payload in prop::collection::vec(any::<u8>(), 0..24), picture_id: u16, tl0_pic_idx: u8) {
        let before = vp8::parse(&payload);
        let mut patched = payload.clone();
        Vp8Patch { picture_id, tl0_pic_idx }.apply(&mut patched);
        let Some(before) = before else {
            prop_assert_eq!(payload, patched);
            return Ok(());
        };
        prop_assert!(before.len <= payload.len() && before.len <= 6);
        prop_assert_eq!(&payload[before.len..], &patched[before.len..]);
        let after = vp8::parse(&patched).expect("as well formed as before");
        prop_assert_eq!((before.len, before.tid, before.key_idx), (after.len, after.tid, after.key_idx));
        prop_assert_eq!(before.picture_id.map(|id| id.bits), after.picture_id.map(|id| id.bits));
        prop_assert_eq!(after.picture_id.map(|id| id.value), before.picture_id.map(|id| picture_id & ((1 << id.bits) - 1)));
        vp8::key_frame_size(&payload, &before);
    }

    #[test]
    fn any_h264_bytes(head in prop::sample::select(vec![0x67u8, 0x65, 0x78, 0x7c, 0x00]), rest in prop::collection::vec(any::<u8>(), 0..80)) {
        let payload: Vec<u8> = [head].into_iter().chain(rest).collect();
        h264::key_frame(&payload);
        let mut high = vec![0x67, 100, 0, 30];
        high.extend(&payload);
        for nal in [&payload, &high] {
            if let Some((width, height)) = h264::picture_size(nal) {
                prop_assert!((1..=16384).contains(&width) && (1..=16384).contains(&height));
            }
        }
    }

    #[test]
    fn any_parameter_set_size(width in 1..200u32, height in 1..200u32) {
        let size = h264::picture_size(&sps(width, height, None));
        prop_assert_eq!(size, Some((width as u16 * 16, height as u16 * 16)));
    }
}

#[test]
fn an_av1_packet_of_nothing_but_empty_elements_is_no_key_frame() {
    for elements in [1, 255, 256, 1400] {
        assert_eq!(muster_forward::av1::key_frame(&vec![0; 1 + elements]), None);
    }
}
