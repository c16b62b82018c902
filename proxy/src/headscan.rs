//! A look at the raw lines of HTTP/1 requests, for what the HTTP library tolerates or tidies away before we see it: a line
//! that ends in a bare LF, Content-Length beside Transfer-Encoding, Content-Length said twice, and a target with a fragment,
//! which the library cuts off (RFC 9112 3.2 has none, and whoever is in front of us may have read it otherwise). And for
//! what the library refuses without saying why: trailers without end, and a length that it keeps for itself.
//!
//! It follows the messages on a connection by itself, and passes over their bodies. Where it cannot (behind a request for
//! another protocol, and behind what the library is going to refuse), it waits for the first bytes that come in once the
//! exchange is over; behind a body that the exchange left unread, it gives up, and the connection ends.

use std::fmt;

use quorumgate_model::mutants::{self, Mutant};

use crate::trailers::{TRAILER_BYTES_MAX, TRAILER_FIELDS_MAX};

/// Of a line: enough for the name and value of a length or a coding, and for a chunk's size.
const START_BYTES_MAX: usize = 40;
/// Of a trailer's line, what is neither name nor value: a colon, a space, and the carriage return.
const BETWEEN_BYTES: usize = 3;
/// The library means something else by the two lengths above, and says of them that the head is too large.
const LENGTH_MAX: u64 = u64::MAX - 2;

/// What is wrong with what a connection sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    Fragment,
    BareLf,
    LengthBesideCoding,
    TwoLengths,
    /// Too many, or too much of them.
    TrailersTooLarge,
}

#[derive(Debug, Default)]
pub(crate) struct HeadScan {
    /// The first bytes of the line.
    start: LineStart,
    line_bytes: usize,
    /// Of the request line looked at last, as far as it came in.
    request_line_bytes: usize,
    last: u8,
    place: Place,
    /// Of the head under way.
    framing: Framing,
    /// Of the body under way.
    trailers: Trailers,
    /// Heads that have ended.
    heads: u64,
    /// For good.
    gave_up: bool,
    /// One of the heads declares a length above `LENGTH_MAX`.
    declares_too_much: bool,
    /// What is wrong, and how many heads had ended before the one that it is about.
    verdict: Option<(u64, Wrong)>,
}

#[derive(Debug)]
struct LineStart([u8; START_BYTES_MAX]);

impl Default for LineStart {
    fn default() -> Self {
        Self([0; START_BYTES_MAX])
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    #[default]
    RequestLine,
    Fields,
    /// So many bytes of a body are left.
    Body(u64),
    ChunkLine,
    /// So many bytes of a chunk and its CRLF are left.
    Chunk(u64),
    Trailers,
    /// Behind a request for another protocol that has no body. Its client may have said all, or go on in either protocol.
    Offered,
    Lost,
}

#[derive(Debug, Default)]
struct Framing {
    lengths: u8,
    /// None: it is no number.
    length: Option<u64>,
    encodings: u8,
    chunked: bool,
    upgrades: bool,
}

/// As far as their lines have ended.
#[derive(Debug, Default)]
struct Trailers {
    fields: u32,
    bytes: u32,
}

impl HeadScan {
    /// The rest of a body may come in where a head should: nothing that follows can be told apart.
    pub(crate) fn give_up(&mut self) {
        self.gave_up = true;
    }

    /// Why what the connection sends cannot be trusted, once something was wrong.
    pub(crate) fn verdict(&self) -> Option<Wrong> {
        self.verdict.map(|(_, wrong)| wrong)
    }

    /// The same, if it was in one of the first `heads` requests, their bodies and trailers included, or before.
    pub(crate) fn verdict_within(&self, heads: u64) -> Option<Wrong> {
        self.verdict.filter(|(before, _)| *before < heads).map(|(_, wrong)| wrong)
    }

    /// That have ended.
    pub(crate) fn heads(&self) -> u64 {
        self.heads
    }

    /// What came in last is the end of a request.
    pub(crate) fn is_between_requests(&self) -> bool {
        let is_whole = match self.place {
            Place::RequestLine => self.line_bytes == 0,
            place => place == Place::Offered,
        };
        !self.gave_up && is_whole
    }

    pub(crate) fn request_line_bytes(&self) -> usize {
        self.request_line_bytes
    }

    /// So that the library refused it.
    pub(crate) fn declares_too_much(&self) -> bool {
        self.declares_too_much
    }

    /// `between_requests`: after how many exchanges, if none is under way.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], between_requests: Option<u64>) {
        if let (Place::Offered | Place::Lost, Some(heads)) = (self.place, between_requests) {
            let Self { verdict, gave_up, declares_too_much, .. } = *self;
            *self = Self { verdict, gave_up, declares_too_much, heads, ..Self::default() };
        }
        while !self.gave_up && !bytes.is_empty() {
            let passed = match &mut self.place {
                Place::Offered | Place::Lost => return self.place = Place::Lost,
                Place::Body(left) | Place::Chunk(left) => pass(left, bytes),
                _ => {
                    let Some(end) = bytes.iter().position(|b| *b == b'\n') else { return self.part(bytes) };
                    self.part(&bytes[..end]);
                    self.end_line();
                    end + 1
                }
            };
            bytes = &bytes[passed..];
            match self.place {
                Place::Body(0) => self.place = Place::RequestLine,
                Place::Chunk(0) => self.place = Place::ChunkLine,
                _ => (),
            }
        }
    }

    fn part(&mut self, part: &[u8]) {
        let Some(last) = part.last() else { return };
        if self.line_bytes < START_BYTES_MAX {
            let n = part.len().min(START_BYTES_MAX - self.line_bytes);
            self.start.0[self.line_bytes..self.line_bytes + n].copy_from_slice(&part[..n]);
        }
        self.line_bytes += part.len();
        if self.place == Place::RequestLine {
            self.request_line_bytes = self.line_bytes;
            if part.contains(&b'#') {
                self.wrong(Wrong::Fragment);
            }
        }
        if self.place == Place::Trailers && self.trailers.with(self.line_bytes).bytes > TRAILER_BYTES_MAX as u32 {
            self.wrong(Wrong::TrailersTooLarge);
        }
        self.last = *last;
    }

    fn end_line(&mut self) {
        let line_bytes = std::mem::take(&mut self.line_bytes);
        if line_bytes == 0 || self.last != b'\r' {
            self.wrong(Wrong::BareLf);
        }
        let empty = line_bytes <= 1;
        match (self.place, empty) {
            // Empty lines before a request line are allowed (RFC 9112 2.2).
            (Place::RequestLine, false) => self.place = Place::Fields,
            (Place::Fields, true) => self.end_head(),
            (Place::Fields, false) => self.field(line_bytes),
            (Place::ChunkLine, _) => self.place = self.chunk(line_bytes),
            (Place::Trailers, false) => self.trailer(line_bytes),
            (Place::Trailers, true) => {
                self.trailers = Trailers::default();
                self.place = Place::RequestLine;
            }
            _ => (),
        }
    }

    fn wrong(&mut self, wrong: Wrong) {
        // A body is of the head that has ended last.
        let of_body = u64::from(matches!(self.place, Place::ChunkLine | Place::Trailers));
        self.verdict.get_or_insert((self.heads.saturating_sub(of_body), wrong));
    }

    fn trailer(&mut self, line_bytes: usize) {
        self.trailers = self.trailers.with(line_bytes);
        if self.trailers.fields > TRAILER_FIELDS_MAX as u32 {
            self.wrong(Wrong::TrailersTooLarge);
        }
    }

    fn field(&mut self, line_bytes: usize) {
        let line = &self.start.0[..line_bytes.min(START_BYTES_MAX)];
        // A value that is longer is no number and no coding that is served.
        let is_whole = line_bytes <= START_BYTES_MAX;
        if let Some(value) = value(line, b"content-length") {
            self.framing.lengths = self.framing.lengths.saturating_add(1);
            self.framing.length = number(value).filter(|_| is_whole);
        } else if let Some(value) = value(line, b"transfer-encoding") {
            self.framing.encodings = self.framing.encodings.saturating_add(1);
            self.framing.chunked = is_whole && value.eq_ignore_ascii_case(b"chunked");
        } else if value(line, b"upgrade").is_some() {
            self.framing.upgrades = true;
        }
    }

    fn end_head(&mut self) {
        let framing = std::mem::take(&mut self.framing);
        if framing.lengths > 0 && framing.encodings > 0 && !mutants::is(Mutant::LengthBesideChunked) {
            self.wrong(Wrong::LengthBesideCoding);
        }
        if framing.lengths > 1 {
            self.wrong(Wrong::TwoLengths);
        }
        self.declares_too_much |= framing.length.is_some_and(|length| length > LENGTH_MAX);
        self.heads += 1;
        self.place = match (framing.lengths, framing.encodings) {
            (0, 0) if framing.upgrades => Place::Offered,
            _ if framing.upgrades => Place::Lost,
            (0, 0) => Place::RequestLine,
            (1, 0) => framing.length.map_or(Place::Lost, Place::Body),
            (0, 1) if framing.chunked => Place::ChunkLine,
            _ => Place::Lost,
        };
    }

    /// What follows a chunk's first line.
    fn chunk(&self, line_bytes: usize) -> Place {
        let line = &self.start.0[..line_bytes.min(START_BYTES_MAX)];
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        if digits == 0 || digits == START_BYTES_MAX {
            return Place::Lost;
        }
        let size = line[..digits].iter().try_fold(0u64, |size, digit| {
            let digit = char::from(*digit).to_digit(16)?;
            size.checked_mul(16)?.checked_add(u64::from(digit))
        });
        match size.map(|size| (size, size.checked_add(2))) {
            Some((0, _)) => Place::Trailers,
            Some((_, Some(with_end))) => Place::Chunk(with_end),
            _ => Place::Lost,
        }
    }
}

impl Trailers {
    /// Once this line is one of them.
    fn with(&self, line_bytes: usize) -> Self {
        let bytes = u32::try_from(line_bytes.saturating_sub(BETWEEN_BYTES)).unwrap_or(u32::MAX);
        Self { fields: self.fields.saturating_add(1), bytes: self.bytes.saturating_add(bytes) }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why())
    }
}

impl std::error::Error for Wrong {}

impl Wrong {
    pub(crate) fn why(self) -> &'static str {
        match self {
            Self::Fragment => "a # in the request line",
            Self::BareLf => "a line ends without a carriage return",
            Self::LengthBesideCoding => "both Content-Length and Transfer-Encoding",
            Self::TwoLengths => "more than one Content-Length",
            Self::TrailersTooLarge => "the trailers are larger than allowed",
        }
    }
}

/// How many of these bytes belong to what is left.
fn pass(left: &mut u64, bytes: &[u8]) -> usize {
    let n = (*left).min(bytes.len() as u64);
    *left -= n;
    n as usize
}

fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    if line.get(name.len()) != Some(&b':') || !line[..name.len()].eq_ignore_ascii_case(name) {
        return None;
    }
    Some(line[name.len() + 1..].trim_ascii())
}

fn number(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok().filter(|it| it.bytes().all(|b| b.is_ascii_digit()))?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(stream: &str, ambiguous: bool) {
        // However the bytes are cut into reads.
        for cut in 0..stream.len() {
            let mut scan = HeadScan::default();
            scan.feed(&stream.as_bytes()[..cut], Some(0));
            scan.feed(&stream.as_bytes()[cut..], None);
            assert_eq!(scan.verdict().is_some(), ambiguous, "{stream:?} cut at {cut}: {:?}", scan.verdict());
        }
    }

    #[test]
    fn ambiguous_heads_are_seen() {
        check("GET / HTTP/1.1\r\nHost: a\r\n\r\n", false);
        check("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\n\r\n", false);
        check("POST / HTTP/1.1\r\nContent-Length: 6\r\n\r\na\nb\nc\n", false);
        check("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\n\r\n0\r\n\r\n", false);
        check("GET / HTTP/1.1\nHost: a\r\n\r\n", true);
        check("GET / HTTP/1.1\r\nHost: a\r\n\n", true);
        check("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\nHost: a\r\n\r\n", true);
        check("POST / HTTP/1.1\r\ncontent-LENGTH: 9\r\ntransfer-encoding: chunked\r\n\r\n", true);
        check("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n", true);
        check("POST / HTTP/1.1\r\nContent-Length: 9\r\nContent-Length: 9\r\n\r\n", true);
        check("GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", false);
        check("GET /a#b HTTP/1.1\r\n\r\n", true);
        check("GET /a%23b HTTP/1.1\r\nx: #\r\n\r\n", false);
        check("POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n#GET /# HTTP/1.1\r\n\r\n", true);
    }

    #[test]
    fn heads_behind_bodies_are_seen_too() {
        let bad = "GET / HTTP/1.1\nHost: a\r\n\r\n";
        let good = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for body in [
            "POST / HTTP/1.1\r\nContent-Length: 6\r\n\r\na\nb\nc\n",
            "POST / HTTP/1.1\r\nContent-Length:0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=\"\"\r\n\n\n\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n00A\r\n\n\n\n\n\n\n\n\n\n\n\r\n0\r\nx: y\r\n\r\n",
        ] {
            check(&format!("{body}{good}{body}{good}"), false);
            check(&format!("{body}{bad}"), true);
            check(&format!("{body}{good}{body}{bad}"), true);
        }
        // In the frame of a body itself.
        check("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n", true);
        check("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\nGET / HTTP/1.1\r\n\r\n", true);
        check("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na: b\nc: d\r\n\r\n", true);
    }

    #[test]
    fn a_verdict_is_about_its_own_head_and_those_behind_it() {
        let mut scan = HeadScan::default();
        scan.feed(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\n\r\n", Some(0));
        assert_eq!(scan.verdict_within(1), None);
        assert!(scan.verdict_within(2).is_some() && scan.verdict_within(3).is_some());
    }

    #[test]
    fn what_is_wrong_in_a_body_is_about_the_head_in_front_of_it() {
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let many = "x: y\r\n".repeat(129);
        for (rest, expected) in [
            ("1\na\r\n0\r\n\r\n", Wrong::BareLf),
            ("1\r\na\r\n0\r\n\n", Wrong::BareLf),
            ("0\r\nx: y\n\r\n", Wrong::BareLf),
            ("0\r\nx: y\r\n\n", Wrong::BareLf),
            (&*format!("0\r\n{many}"), Wrong::TrailersTooLarge),
            (&*format!("0\r\nx: {}", "y".repeat(17_000)), Wrong::TrailersTooLarge),
        ] {
            let mut scan = HeadScan::default();
            scan.feed(format!("{head}0\r\n\r\n{head}{rest}").as_bytes(), Some(0));
            assert_eq!(scan.verdict_within(1), None, "{rest:?}");
            assert_eq!(scan.verdict_within(2), Some(expected), "{rest:?}");
        }
    }

    #[test]
    fn trailers_may_be_as_large_as_the_limit() {
        // Of each body for itself.
        let half = format!("x: {}\r\n", "y".repeat(8_000));
        let [many, large] = ["x: y\r\n".repeat(128), half.repeat(2)];
        for trailers in [many, large] {
            let body = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{trailers}\r\n");
            let mut scan = HeadScan::default();
            scan.feed(body.repeat(2).as_bytes(), Some(0));
            assert_eq!((scan.heads(), scan.verdict()), (2, None));
        }
    }

    #[test]
    fn a_length_that_the_library_keeps_for_itself_is_known() {
        for (length, expected) in [(u64::MAX - 2, false), (u64::MAX - 1, true), (u64::MAX, true)] {
            let mut scan = HeadScan::default();
            scan.feed(format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n").as_bytes(), Some(0));
            assert_eq!((scan.declares_too_much(), scan.verdict()), (expected, None), "{length}");
        }
    }

    #[test]
    fn a_lost_track_is_found_again_once_the_exchange_is_over() {
        let mut scan = HeadScan::default();
        scan.feed(b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n\x01\n\x02\n", Some(0));
        scan.feed(b"\n\n", None);
        assert_eq!(scan.verdict(), None);
        scan.feed(b"GET / HTTP/1.1\n\n", Some(1));
        assert_eq!((scan.verdict_within(1), scan.verdict_within(2).is_some()), (None, true));
    }

    #[test]
    fn a_request_for_another_protocol_is_whole_until_more_comes_in() {
        let head = |fields: &str| format!("GET / HTTP/1.1\r\nUpgrade: websocket\r\n{fields}\r\n");
        for (stream, expected) in [
            (head(""), true),
            (head("").trim_end().to_owned(), false),
            (format!("{}\r\n", head("")), false),
            (format!("{}\x01", head("")), false),
            (head("Content-Length: 3\r\n"), false),
            (head("Transfer-Encoding: chunked\r\n"), false),
        ] {
            let mut scan = HeadScan::default();
            scan.feed(stream.as_bytes(), Some(0));
            assert_eq!(scan.is_between_requests(), expected, "{stream:?}");
            scan.feed(b"\x01", None);
            assert!(!scan.is_between_requests(), "{stream:?}");
        }
    }

    #[test]
    fn the_rest_of_a_body_is_not_taken_for_a_head() {
        let mut scan = HeadScan::default();
        scan.feed(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n", Some(0));
        scan.give_up();
        scan.feed(b"a\nb\n", Some(1));
        scan.feed(b"\n\n", None);
        assert_eq!(scan.verdict(), None);
    }
}
