//! The heads of HTTP/2's frames, against a reading that has all bytes at hand.

use quorumgate_proxy::fuzzing;

const PREFACE_BYTES: usize = 24;
const HEADERS: u8 = 1;

pub fn check(input: &[u8]) {
    let Some((cut, stream)) = input.split_first() else { return };
    let whole = fuzzing::frames([stream]);
    let in_parts = fuzzing::frames(crate::parts(stream, *cut));
    // What came in later may have raised a limit, so parts can only be judged sooner.
    assert!(whole.0.is_none() || in_parts.0.is_some(), "{whole:?} at once, {in_parts:?} in parts");
    assert_eq!((whole.1, &whole.2), (in_parts.1, &in_parts.2));

    let (begun, last) = last_stream(stream.get(PREFACE_BYTES..).unwrap_or_default());
    assert_eq!(whole.1, begun, "whether a frame has come in");
    let end = whole.2.expect("nothing of ours is on its way");
    assert_eq!(end[9..13], last.to_be_bytes(), "the last stream that was begun");
}

/// Whether the look must have seen a frame, and the highest stream of a HEADERS frame that it saw: it waits for the
/// bytes of the payload that it wants.
fn last_stream(mut bytes: &[u8]) -> (bool, u32) {
    let (mut begun, mut last) = (false, 0);
    while let Some(head) = bytes.first_chunk::<9>() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, flags) = (head[3], head[4]);
        let wanted = match kind {
            0 if flags & 8 != 0 => 1,
            3 => 4,
            7 => 8,
            _ => 0,
        };
        if bytes.len() < 9 + wanted.min(length) {
            break;
        }
        begun = true;
        if kind == HEADERS {
            last = last.max(u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff);
        }
        bytes = bytes.get(9 + length..).unwrap_or_default();
    }
    (begun, last)
}
