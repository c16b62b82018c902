//! A look at the frames of an HTTP/2 connection, both ways, for what the HTTP library does not count: frames that cost a
//! client next to nothing and us some work, over and over. Only their heads are read (RFC 9113 4.1), and of a few kinds the
//! first bytes of what they carry.
//!
//! What a busy connection does in good faith grows with what it transfers, so each limit is for a window of time, and what
//! we send, or the streams that the client opens, raises some of them.

/// After which all is counted anew.
const WINDOW_MS: u64 = 10_000;
/// Streams that the client ends before their answer does (CVE-2023-44487), or makes us end by what it sends on them
/// (CVE-2025-8671), beyond those that were answered whole.
const RESETS_MAX: u32 = 100;
/// Beyond one for each DATA frame that we send: gRPC measures round trips with them.
const PINGS_MAX: u32 = 100;
const SETTINGS_MAX: u32 = 50;
/// DATA that carries nothing and ends nothing.
const EMPTY_MAX: u32 = 100;
/// Behind one HEADERS frame. (The library goes by the size of its buffers, and ends most of them sooner.)
const CONTINUATIONS_MAX: u32 = 20;
/// Beyond two for each stream.
const PRIORITIES_MAX: u32 = 100;
/// Beyond two for each stream and ten for each DATA frame that we send.
const WINDOW_UPDATES_MAX: u32 = 100;
/// Kinds that this gateway does not know, and GOAWAY; beyond two for each stream.
const OTHERS_MAX: u32 = 100;

const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;
/// Of a frame's payload.
const LOOK_BYTES_MAX: usize = 8;

mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

mod flag {
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
}

/// Error codes (RFC 9113 7) with which a stream ends for what its client did.
const CLIENT_ERRORS: [u32; 4] = [0x1, 0x3, 0x5, 0x6];
const ENHANCE_YOUR_CALM: u32 = 0xb;

#[derive(Debug)]
pub(crate) struct FrameScan {
    incoming: Cut,
    outgoing: Cut,
    counts: Counts,
    window_since_ms: u64,
    /// When the header block began that is not whole yet, or whatever frame is not.
    partial_since_ms: Option<u64>,
    flood: Option<&'static str>,
}

#[derive(Debug, Default)]
struct Counts {
    of_window: Window,
    /// Behind the last HEADERS.
    continuations: u32,
    in_header_block: bool,
    begun: bool,
    last_stream: u32,
    /// With an error, by us.
    went_away: Option<u32>,
}

#[derive(Debug, Default)]
struct Window {
    resets: u32,
    pings: u32,
    settings: u32,
    empty: u32,
    priorities: u32,
    window_updates: u32,
    others: u32,
    /// HEADERS that came in.
    streams: u32,
    /// Answers that went out whole.
    answers: u32,
    /// DATA that went out.
    sent: u32,
}

impl FrameScan {
    pub(crate) fn new(now_ms: u64) -> Self {
        Self {
            // The client begins with what is no frame.
            incoming: Cut { left: PREFACE_BYTES, ..Cut::default() },
            outgoing: Cut::default(),
            counts: Counts::default(),
            window_since_ms: now_ms,
            partial_since_ms: None,
            flood: None,
        }
    }

    pub(crate) fn came_in(&mut self, bytes: &[u8], now_ms: u64) {
        self.open_window(now_ms);
        let mut whole = false;
        let counts = &mut self.counts;
        self.incoming.feed(bytes, |frame| {
            counts.came_in(frame);
            whole |= !counts.in_header_block;
        });
        if whole {
            self.partial_since_ms = None;
        }
        if !self.incoming.is_between() || self.counts.in_header_block {
            self.partial_since_ms.get_or_insert(now_ms);
        }
        self.judge();
    }

    pub(crate) fn went_out(&mut self, bytes: &[u8], now_ms: u64) {
        self.open_window(now_ms);
        let counts = &mut self.counts;
        self.outgoing.feed(bytes, |frame| counts.went_out(frame));
        self.judge();
    }

    fn open_window(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.window_since_ms) >= WINDOW_MS {
            self.window_since_ms = now_ms;
            self.counts.of_window = Window::default();
        }
    }

    fn judge(&mut self) {
        if self.flood.is_none() {
            self.flood = self.counts.flood();
        }
    }

    /// What there was too much of, if so.
    pub(crate) fn flood(&self) -> Option<&'static str> {
        self.flood
    }

    /// A frame of the client has come in.
    pub(crate) fn has_begun(&self) -> bool {
        self.counts.begun
    }

    /// The error with which the library has ended the connection, as far as it has said so.
    pub(crate) fn library_error(&self) -> Option<LibraryError> {
        self.counts.went_away.map(|code| match code {
            ENHANCE_YOUR_CALM => LibraryError::Flood,
            _ => LibraryError::Protocol,
        })
    }

    /// Since when we wait for the rest of a header block; with nothing else to do, for that of any frame.
    pub(crate) fn waits_since_ms(&self, in_flight: usize) -> Option<u64> {
        let of_headers =
            self.counts.in_header_block || matches!(self.incoming.kind(), kind::HEADERS | kind::CONTINUATION);
        self.partial_since_ms.filter(|_| of_headers || in_flight == 0)
    }

    /// The frame that ends the connection; None: one of ours has gone out in part, behind which there is no place for it.
    pub(crate) fn go_away(&self, why: &'static str) -> Option<Vec<u8>> {
        if !self.outgoing.is_between() {
            return None;
        }
        let mut frame = vec![0, 0, (8 + why.len()) as u8, kind::GOAWAY, 0, 0, 0, 0, 0];
        frame.extend_from_slice(&self.counts.last_stream.to_be_bytes());
        frame.extend_from_slice(&ENHANCE_YOUR_CALM.to_be_bytes());
        frame.extend_from_slice(why.as_bytes());
        Some(frame)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LibraryError {
    Flood,
    Protocol,
}

impl Counts {
    fn came_in(&mut self, frame: Frame<'_>) {
        let window = &mut self.of_window;
        self.begun = true;
        match frame.kind {
            kind::DATA => window.empty += u32::from(frame.is_empty() && !frame.has(flag::END_STREAM)),
            kind::HEADERS => {
                window.streams += 1;
                self.last_stream = self.last_stream.max(frame.stream);
                self.continuations = 0;
                self.in_header_block = !frame.has(flag::END_HEADERS);
            }
            kind::CONTINUATION => {
                self.continuations += 1;
                self.in_header_block &= !frame.has(flag::END_HEADERS);
            }
            kind::PRIORITY => window.priorities += 1,
            kind::RST_STREAM => window.resets += 1,
            kind::SETTINGS => window.settings += 1,
            kind::PING => window.pings += 1,
            kind::WINDOW_UPDATE => window.window_updates += 1,
            _ => window.others += 1,
        }
    }

    fn went_out(&mut self, frame: Frame<'_>) {
        let window = &mut self.of_window;
        match frame.kind {
            kind::DATA | kind::HEADERS => {
                window.sent += u32::from(frame.kind == kind::DATA);
                window.answers += u32::from(frame.has(flag::END_STREAM));
            }
            kind::RST_STREAM => window.resets += u32::from(frame.code(0).is_some_and(|it| CLIENT_ERRORS.contains(&it))),
            kind::GOAWAY => self.went_away = frame.code(4).filter(|code| *code != 0).or(self.went_away),
            _ => (),
        }
    }

    fn flood(&self) -> Option<&'static str> {
        let it = &self.of_window;
        let streams = it.streams.saturating_mul(2);
        let updates = WINDOW_UPDATES_MAX.saturating_add(streams).saturating_add(it.sent.saturating_mul(10));
        let over = [
            // Of a hundred streams that nobody wants any more, the last is not begun.
            (it.resets >= RESETS_MAX + it.answers, "reset flood"),
            (it.pings > PINGS_MAX + it.sent, "ping flood"),
            (it.settings > SETTINGS_MAX, "settings flood"),
            (it.empty > EMPTY_MAX, "empty data flood"),
            (self.continuations > CONTINUATIONS_MAX, "continuation flood"),
            (it.priorities > PRIORITIES_MAX + streams, "priority flood"),
            (it.window_updates > updates, "window update flood"),
            (it.others > OTHERS_MAX + streams, "unknown frame flood"),
        ];
        over.into_iter().find_map(|(over, what)| over.then_some(what))
    }
}

/// Where a stream of bytes stands among its frames.
#[derive(Debug, Default)]
struct Cut {
    /// The head of the frame under way, then what is looked at of its payload.
    start: [u8; HEAD_BYTES + LOOK_BYTES_MAX],
    have: usize,
    /// Of its payload, to be passed over.
    left: usize,
}

struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    bytes: usize,
    /// The beginning of its payload.
    look: &'a [u8],
}

impl Cut {
    /// Tells of each frame once its head is here.
    fn feed(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Frame<'_>)) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let n = self.left.min(bytes.len());
                self.left -= n;
                bytes = &bytes[n..];
                continue;
            }
            let n = (self.wanted() - self.have).min(bytes.len());
            self.start[self.have..self.have + n].copy_from_slice(&bytes[..n]);
            self.have += n;
            bytes = &bytes[n..];
            // With the head it shows how much of the payload is wanted.
            if self.have < HEAD_BYTES || self.have < self.wanted() {
                continue;
            }
            let [.., s0, s1, s2, s3] = *self.start.first_chunk::<HEAD_BYTES>().expect("a head is shorter");
            tell(Frame {
                kind: self.start[3],
                flags: self.start[4],
                stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
                bytes: self.payload_bytes(),
                look: &self.start[HEAD_BYTES..self.have],
            });
            self.left = self.payload_bytes() - (self.have - HEAD_BYTES);
            self.have = 0;
        }
    }

    fn wanted(&self) -> usize {
        if self.have < HEAD_BYTES {
            return HEAD_BYTES;
        }
        let look = match self.kind() {
            kind::DATA if self.start[4] & flag::PADDED != 0 => 1,
            kind::RST_STREAM => 4,
            kind::GOAWAY => 8,
            _ => 0,
        };
        HEAD_BYTES + look.min(self.payload_bytes())
    }

    fn payload_bytes(&self) -> usize {
        self.start[..3].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    }

    /// Of the frame under way, or of the last.
    fn kind(&self) -> u8 {
        self.start[3]
    }

    fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0
    }
}

impl Frame<'_> {
    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// DATA without data.
    fn is_empty(&self) -> bool {
        let padding = if self.has(flag::PADDED) { 1 + self.look.first().map_or(0, |it| usize::from(*it)) } else { 0 };
        self.bytes <= padding
    }

    fn code(&self, at: usize) -> Option<u32> {
        self.look.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    fn preface() -> Vec<u8> {
        [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(kind::SETTINGS, 0, 0, &[])].concat()
    }

    #[track_caller]
    fn check(one: &[u8], times: u32, flood: Option<&str>) {
        let mut scan = FrameScan::new(0);
        scan.came_in(&preface(), 0);
        for _ in 0..times {
            scan.came_in(one, 0);
        }
        assert_eq!(scan.flood(), flood, "{times} times");
        // The same, cut anywhere, is the same; and a window later all is forgotten.
        let all: Vec<u8> = [preface(), one.repeat(times as usize)].concat();
        let mut cut = FrameScan::new(0);
        all.chunks(7).for_each(|part| cut.came_in(part, 0));
        assert_eq!(cut.flood(), flood);
    }

    #[test]
    fn what_costs_a_client_nothing_has_a_limit() {
        let reset = [frame(kind::HEADERS, 5, 1, b"\x82"), frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8])].concat();
        check(&reset, 99, None);
        check(&reset, 100, Some("reset flood"));
        check(&frame(kind::PING, 0, 0, &[0; 8]), 100, None);
        check(&frame(kind::PING, 0, 0, &[0; 8]), 101, Some("ping flood"));
        check(&frame(kind::PING, 1, 0, &[0; 8]), 101, Some("ping flood"));
        check(&frame(kind::SETTINGS, 0, 0, &[]), 49, None);
        check(&frame(kind::SETTINGS, 0, 0, &[]), 50, Some("settings flood"));
        check(&frame(kind::DATA, 0, 1, &[]), 100, None);
        check(&frame(kind::DATA, 0, 1, &[]), 101, Some("empty data flood"));
        check(&frame(kind::DATA, flag::PADDED, 1, &[3, 0, 0, 0]), 101, Some("empty data flood"));
        check(&frame(kind::DATA, flag::PADDED, 1, &[3, 7, 0, 0, 0]), 101, None);
        check(&frame(kind::DATA, flag::END_STREAM, 1, &[]), 101, None);
        check(&frame(kind::CONTINUATION, 0, 1, b"\x82"), 20, None);
        check(&frame(kind::CONTINUATION, 0, 1, &[]), 21, Some("continuation flood"));
        check(&frame(kind::PRIORITY, 0, 1, &[0; 5]), 101, Some("priority flood"));
        check(&frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), 100, None);
        check(&frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), 101, Some("window update flood"));
        check(&frame(0xbe, 0xff, 0, b"grease"), 101, Some("unknown frame flood"));
        check(&frame(kind::GOAWAY, 0, 0, &[0; 8]), 101, Some("unknown frame flood"));
        check(&frame(kind::DATA, 0, 1, &[7; 16_384]), 1000, None);
    }

    #[test]
    fn what_is_transferred_raises_the_limits() {
        let mut scan = FrameScan::new(0);
        scan.came_in(&preface(), 0);
        for _ in 0..1000 {
            scan.came_in(&frame(kind::HEADERS, 5, 1, b"\x82"), 0);
            scan.went_out(&frame(kind::HEADERS, 4, 1, b"\x88"), 0);
            scan.went_out(&frame(kind::DATA, 1, 1, b"abc"), 0);
            scan.came_in(&frame(kind::PING, 0, 0, &[0; 8]), 0);
            scan.came_in(&frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 3]).repeat(10), 0);
            scan.came_in(&frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]), 0);
        }
        assert_eq!(scan.flood(), None);
    }

    #[test]
    fn resets_that_a_client_makes_us_send_are_its_own() {
        let ours = |code: u8, times: usize| {
            let mut scan = FrameScan::new(0);
            scan.went_out(&frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, code]).repeat(times), 0);
            scan.flood()
        };
        assert_eq!(ours(1, 100), Some("reset flood"));
        assert_eq!(ours(3, 99), None);
        // An upstream that fails, and an answer that came before the body had.
        assert_eq!((ours(2, 1000), ours(0, 1000), ours(8, 1000)), (None, None, None));
    }

    #[test]
    fn windows_pass() {
        let mut scan = FrameScan::new(0);
        scan.came_in(&preface(), 0);
        for second in 0..100 {
            scan.came_in(&frame(kind::PING, 0, 0, &[0; 8]).repeat(9), second * 1000);
        }
        assert_eq!(scan.flood(), None);
    }

    #[test]
    fn a_header_block_that_does_not_end_is_waited_for() {
        let mut scan = FrameScan::new(0);
        scan.came_in(&preface()[..20], 1);
        assert_eq!((scan.waits_since_ms(0), scan.has_begun()), (Some(1), false));
        scan.came_in(&preface()[20..], 2);
        assert_eq!((scan.waits_since_ms(0), scan.has_begun()), (None, true));
        scan.came_in(&frame(kind::HEADERS, 0, 1, b"\x82"), 3);
        scan.came_in(&frame(kind::CONTINUATION, 0, 1, b"\x82"), 4);
        assert_eq!((scan.waits_since_ms(0), scan.waits_since_ms(1)), (Some(3), Some(3)));
        scan.came_in(&frame(kind::CONTINUATION, 4, 1, b"\x82"), 5);
        assert_eq!(scan.waits_since_ms(0), None);
        // The rest of a body may take its time.
        scan.came_in(&frame(kind::DATA, 0, 1, b"abc")[..11], 6);
        assert_eq!((scan.waits_since_ms(0), scan.waits_since_ms(1)), (Some(6), None));
    }

    #[test]
    fn the_last_frame_finds_its_place() {
        let mut scan = FrameScan::new(0);
        scan.came_in(&[preface(), frame(kind::HEADERS, 5, 7, b"\x82")].concat(), 0);
        let data = frame(kind::DATA, 0, 7, b"abc");
        scan.went_out(&data[..10], 0);
        assert_eq!(scan.go_away("calm"), None);
        scan.went_out(&data[10..], 0);
        assert_eq!(scan.go_away("calm").unwrap(), b"\0\0\x0c\x07\0\0\0\0\0\0\0\0\x07\0\0\0\x0bcalm");
        assert_eq!(scan.library_error(), None);
        scan.went_out(&scan.go_away("calm").unwrap(), 0);
        assert_eq!(scan.library_error(), Some(LibraryError::Flood));
    }
}
