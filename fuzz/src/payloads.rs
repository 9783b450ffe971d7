//! Payload descriptors and parameter sets of the video codecs.

use muster_forward::{Vp8Patch, vp8 as codec};

/// A VP8 payload: a patch changes the numbers it is to change, nothing else, and never the length.
pub fn vp8(data: &[u8]) {
    let read = codec::parse(data);
    let mut patched = data.to_vec();
    let patch = Vp8Patch {
        picture_id: 0x5a3c,
        tl0_pic_idx: 0xa5,
    };
    patch.apply(&mut patched);
    assert_eq!(patched.len(), data.len());
    let Some(read) = read else {
        assert_eq!(patched, data, "a malformed payload is left as it is");
        return;
    };
    assert!(read.len <= data.len());
    assert_eq!(patched[read.len..], data[read.len..], "the picture is untouched");
    let after = codec::parse(&patched).expect("as well-formed as before");
    assert_eq!(
        (after.frame_start, after.tid, after.key_idx, after.len),
        (read.frame_start, read.tid, read.key_idx, read.len)
    );
    let expected = |bits: u8| 0x5a3c & ((1u16 << bits) - 1);
    assert_eq!(
        after.picture_id.map(|id| (id.value, id.bits)),
        read.picture_id.map(|id| (expected(id.bits), id.bits))
    );
    assert_eq!(after.tl0_pic_idx, read.tl0_pic_idx.map(|_| 0xa5));
    assert_eq!(
        codec::key_frame_size(&patched, &after),
        codec::key_frame_size(data, &read)
    );
    if let Some((width, height)) = codec::key_frame_size(data, &read) {
        assert!((1..=0x3fff).contains(&width) && (1..=0x3fff).contains(&height));
    }
}

/// An H.264 payload and a parameter set.
pub fn h264(data: &[u8]) {
    use muster_forward::h264::{KeyFrame, key_frame, picture_size};
    let fits = |(width, height): (u16, u16)| (1..=16384).contains(&width) && (1..=16384).contains(&height);
    if let KeyFrame::ParameterSet { size } = key_frame(data) {
        assert!(size.is_none_or(fits));
    }
    assert!(picture_size(data).is_none_or(fits));
    // The same NAL unit alone and in a STAP-A says the same.
    let single = data.first().is_some_and(|head| !matches!(head & 0x1f, 24 | 28));
    if let Ok(length) = u16::try_from(data.len())
        && single
    {
        let aggregate = [&[0x78][..], &length.to_be_bytes(), data].concat();
        assert_eq!(key_frame(&aggregate), key_frame(data));
    }
}

/// A VP9 payload: what is read lies within it, a patch changes its numbers only, and sizes are sensible.
pub fn vp9(data: &[u8]) {
    use muster_forward::vp9 as codec;
    let Some(read) = codec::parse(data) else {
        return;
    };
    assert!(read.len <= data.len());
    let patch = Vp8Patch {
        picture_id: 0x5a3c,
        tl0_pic_idx: 0xa5,
    };
    let mut patched = data.to_vec();
    patch.apply_to(muster_forward::Codec::Vp9, &mut patched);
    assert_eq!(patched.len(), data.len());
    assert_eq!(patched[read.len..], data[read.len..], "the picture is untouched");
    let after = codec::parse(&patched).expect("as well-formed as before");
    assert_eq!(after.len, read.len);
    assert_eq!(codec::key_frame_begins(&after), codec::key_frame_begins(&read));
    assert_eq!(
        codec::key_frame_size(&patched, &after),
        codec::key_frame_size(data, &read)
    );
}

/// An AV1 payload and a sequence header.
pub fn av1(data: &[u8]) {
    use muster_forward::av1::{key_frame, picture_size};
    let fits = |(width, height): (u16, u16)| width > 0 && height > 0;
    assert!(picture_size(data).is_none_or(fits));
    if let Some(Some(size)) = key_frame(data) {
        assert!(fits(size));
    }
}

/// Two dependency descriptors, the first by its length: what is read is within bounds, and the second is read by the
/// structure of the first.
pub fn dependency_descriptor(data: &[u8]) {
    use muster_forward::dependency::{MAX_SPATIAL, MAX_TARGETS, parse};
    let Some((length, rest)) = data.split_first() else {
        return;
    };
    let (first, second) = rest.split_at_checked((*length).into()).unwrap_or((rest, &[]));
    let known = parse(first, None).and_then(|read| read.structure);
    for value in [first, second] {
        let Some(read) = parse(value, known.as_ref()) else {
            continue;
        };
        let structure = read.structure.as_ref().or(known.as_ref()).expect("one is needed");
        assert!((1..=MAX_TARGETS).contains(&structure.targets().len()));
        assert!(structure.sizes.len() <= MAX_SPATIAL && usize::from(read.layer.spatial) < MAX_SPATIAL);
        assert_eq!(read.active.unwrap_or(0) & !structure.all_targets(), 0);
    }
}
