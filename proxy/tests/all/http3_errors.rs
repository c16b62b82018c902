//! The errors of RFC 9114 and RFC 9204, section by section, by a client that writes each frame itself: what ends a
//! connection does so with the section's code, what ends a stream leaves the connection, what must be ignored is.

use std::{net::SocketAddr, sync::Arc};

use quinn::{Connection, ConnectionError, Endpoint, ReadError, RecvStream, SendStream, VarInt};
use serde_json::json;

use crate::{support::*, tls::*};

const H3_STREAM_CREATION_ERROR: u64 = 0x103;
const H3_CLOSED_CRITICAL_STREAM: u64 = 0x104;
const H3_FRAME_UNEXPECTED: u64 = 0x105;
const H3_FRAME_ERROR: u64 = 0x106;
const H3_ID_ERROR: u64 = 0x108;
const H3_SETTINGS_ERROR: u64 = 0x109;
const H3_MISSING_SETTINGS: u64 = 0x10a;
const H3_MESSAGE_ERROR: u64 = 0x10e;
const QPACK_DECOMPRESSION_FAILED: u64 = 0x200;
const QPACK_ENCODER_STREAM_ERROR: u64 = 0x201;
const QPACK_DECODER_STREAM_ERROR: u64 = 0x202;

const DATA: u64 = 0;
const HEADERS: u64 = 1;
const CANCEL_PUSH: u64 = 3;
const SETTINGS: u64 = 4;
const PUSH_PROMISE: u64 = 5;
const GOAWAY: u64 = 7;
const MAX_PUSH_ID: u64 = 0xd;
/// Of a kind that has no meaning and must be ignored (section 7.2.8).
const GREASE: u64 = 0x21;

/// A variable-length integer (RFC 9000 section 16).
fn varint(value: u64) -> Vec<u8> {
    match value {
        0..0x40 => vec![value as u8],
        0x40..0x4000 => (value as u16 | 0x4000).to_be_bytes().to_vec(),
        0x4000..0x4000_0000 => (value as u32 | 0x8000_0000).to_be_bytes().to_vec(),
        _ => (value | 0xc000_0000_0000_0000).to_be_bytes().to_vec(),
    }
}

fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    [varint(kind), varint(payload.len() as u64), payload.to_vec()].concat()
}

/// A field section of literals without a table (RFC 9204 4.5.6), names shorter than 128 bytes.
fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut section = vec![0, 0];
    for (name, value) in fields {
        match name.len() {
            short @ 0..7 => section.push(0x20 | short as u8),
            long => section.extend([0x27, (long - 7) as u8]),
        }
        section.extend(name.as_bytes());
        section.push(value.len() as u8);
        section.extend(value.as_bytes());
    }
    section
}

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "https"), (":authority", "api.test"), (":path", "/")];

fn get() -> Vec<u8> {
    frame(HEADERS, &section(&GET))
}

fn with(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, &section(&[&GET[..], fields].concat()))
}

struct Gate {
    _it: Listening,
    ca: Authority,
    at: SocketAddr,
}

impl Gate {
    async fn new() -> Self {
        let (ca, at) = (Authority::new("http3 errors"), address());
        let own = ca.server(&["api.test"]);
        let words = json!({
            "certificates": [certificate("c", &[], &own)],
            "listeners": [{ "name": "h", "address": at.to_string(), "certificates": ["c"], "http3": true }],
        });
        Self { _it: Listening::new(words).await, ca, at }
    }

    /// A connection without any stream.
    async fn bare(&self) -> Raw {
        let mut tls = (*self.ca.trusting(None, &[&rustls::version::TLS13]).0).clone();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(crypto));
        let connecting = endpoint.connect_with(config, self.at, "api.test").unwrap();
        let quic = soon("the handshake", connecting).await.unwrap();
        Raw { quic, _endpoint: endpoint, kept: Vec::new() }
    }

    /// With a control stream, on which this follows the SETTINGS.
    async fn open(&self, behind: &[u8]) -> Raw {
        let mut raw = self.bare().await;
        raw.uni(&[&[0][..], &frame(SETTINGS, &[]), behind].concat()).await;
        raw
    }
}

/// All that is wrong, told at the end.
#[derive(Default)]
struct Wrong(Vec<String>);

impl Wrong {
    fn note(&mut self, what: &str, outcome: Result<(), String>) {
        self.0.extend(outcome.err().map(|why| format!("{what}: {why}")));
    }

    #[track_caller]
    fn check(self) {
        assert!(self.0.is_empty(), "{}", self.0.join("\n"));
    }
}

struct Raw {
    quic: Connection,
    _endpoint: Endpoint,
    /// Streams that stay open.
    kept: Vec<SendStream>,
}

impl Raw {
    async fn uni(&mut self, bytes: &[u8]) {
        let mut stream = self.quic.open_uni().await.unwrap();
        // The server may have ended it all by the first byte.
        let _ = stream.write_all(bytes).await;
        self.kept.push(stream);
    }

    /// The bytes and the end of a request.
    async fn request(&self, bytes: &[u8]) -> RecvStream {
        let (mut send, recv) = self.quic.open_bi().await.unwrap();
        let _ = send.write_all(bytes).await;
        let _ = send.finish();
        recv
    }

    /// Whether the server ends the connection with this code; else what it does.
    async fn is_closed_with(&self, code: u64) -> Result<(), String> {
        match tokio::time::timeout(PATIENCE, self.quic.closed()).await {
            Ok(ConnectionError::ApplicationClosed(close)) if close.error_code.into_inner() == code => Ok(()),
            Ok(other) => Err(format!("{other:?} and not {code:#x}")),
            Err(_) => Err(format!("it stays open, without {code:#x}")),
        }
    }

    async fn is_answered(&self) -> bool {
        let mut answer = self.request(&get()).await;
        let read = soon("an answer", answer.read_to_end(1 << 16)).await;
        read.is_ok_and(|read| is_good(&read))
    }
}

/// A HEADERS frame (of 64 bytes or more) whose first field is `:status: 200` of the static table.
fn is_good(answer: &[u8]) -> bool {
    matches!(answer, [1, _, _, 0, 0, 0xd9, ..])
}

#[tokio::test]
async fn a_control_stream_that_breaks_the_rules_ends_the_connection() {
    let (gate, mut wrong) = (Gate::new().await, Wrong::default());
    let settings = frame(SETTINGS, &[]);
    let of_http2 = |id: u64| frame(SETTINGS, &[varint(id), varint(1)].concat());
    for (what, bytes, code) in [
        ("6.2.1: no SETTINGS at first", frame(GOAWAY, &varint(0)), H3_MISSING_SETTINGS),
        ("6.2.1: a frame to be ignored is no SETTINGS", frame(GREASE, b"x"), H3_MISSING_SETTINGS),
        ("7.2.4: SETTINGS twice", [settings.clone(), settings.clone()].concat(), H3_FRAME_UNEXPECTED),
        ("7.2.4.1: a setting of HTTP/2 (ENABLE_PUSH)", of_http2(2), H3_SETTINGS_ERROR),
        ("7.2.4.1: a setting of HTTP/2 (MAX_FRAME_SIZE)", of_http2(5), H3_SETTINGS_ERROR),
        ("7.2.1: DATA", [settings.clone(), frame(DATA, b"x")].concat(), H3_FRAME_UNEXPECTED),
        ("7.2.2: HEADERS", [settings.clone(), get()].concat(), H3_FRAME_UNEXPECTED),
        ("7.2.5: PUSH_PROMISE", [settings.clone(), frame(PUSH_PROMISE, &[0, 0, 0])].concat(), H3_FRAME_UNEXPECTED),
        ("7.2.8: a frame of HTTP/2", [settings.clone(), frame(8, &[0; 4])].concat(), H3_FRAME_UNEXPECTED),
        (
            "7.2.7: MAX_PUSH_ID that goes back",
            [settings.clone(), frame(MAX_PUSH_ID, &varint(9)), frame(MAX_PUSH_ID, &varint(3))].concat(),
            H3_ID_ERROR,
        ),
        (
            "7.1: a frame longer than its content",
            [settings.clone(), frame(MAX_PUSH_ID, &[1, 1])].concat(),
            H3_FRAME_ERROR,
        ),
    ] {
        let mut raw = gate.bare().await;
        raw.uni(&[&[0][..], &bytes].concat()).await;
        wrong.note(what, raw.is_closed_with(code).await);
    }
    wrong.check();
}

#[tokio::test]
async fn critical_streams_come_once_and_stay() {
    let (gate, mut wrong) = (Gate::new().await, Wrong::default());
    let control = [&[0][..], &frame(SETTINGS, &[])].concat();
    for (what, second, code) in [
        ("6.2.1: a second control stream", &control[..], H3_STREAM_CREATION_ERROR),
        ("6.2.2: a push stream of a client", &[1, 0], H3_STREAM_CREATION_ERROR),
    ] {
        let mut raw = gate.open(&[]).await;
        raw.uni(second).await;
        wrong.note(what, raw.is_closed_with(code).await);
    }
    for (what, kind) in [("RFC 9204 4.2: two encoder streams", 2), ("RFC 9204 4.2: two decoder streams", 3)] {
        let mut raw = gate.open(&[]).await;
        raw.uni(&[kind]).await;
        raw.uni(&[kind]).await;
        wrong.note(what, raw.is_closed_with(H3_STREAM_CREATION_ERROR).await);
    }
    for (what, kind) in [("6.2.1: control", 0), ("RFC 9204 4.2: encoder", 2), ("RFC 9204 4.2: decoder", 3)] {
        let mut raw = gate.bare().await;
        if kind != 0 {
            raw.uni(&control).await;
        }
        let opening = if kind == 0 { control.clone() } else { vec![kind] };
        raw.uni(&opening).await;
        raw.kept.pop().unwrap().finish().unwrap();
        wrong.note(what, raw.is_closed_with(H3_CLOSED_CRITICAL_STREAM).await);
    }
    wrong.check();
}

#[tokio::test]
async fn qpack_streams_that_speak_of_a_table_end_the_connection() {
    let (gate, mut wrong) = (Gate::new().await, Wrong::default());
    // Ours has no room, and we never refer to theirs.
    for (what, bytes, code) in [
        ("RFC 9204 4.3.1: a capacity beyond the limit", &[2, 0x3f, 0xe1, 0x1f][..], QPACK_ENCODER_STREAM_ERROR),
        ("RFC 9204 4.3.3: an insertion", &[2, 0x41, b'a', 1, b'b'], QPACK_ENCODER_STREAM_ERROR),
        ("RFC 9204 4.4.1: a section that nobody sent", &[3, 0x84], QPACK_DECODER_STREAM_ERROR),
        ("RFC 9204 4.4.3: insertions that nobody made", &[3, 0x01], QPACK_DECODER_STREAM_ERROR),
    ] {
        let mut raw = gate.open(&[]).await;
        raw.uni(bytes).await;
        wrong.note(what, raw.is_closed_with(code).await);
    }
    // What needs no table is nothing to end for: no capacity, and a stream that was given up.
    let mut raw = gate.open(&[]).await;
    raw.uni(&[2, 0x20]).await;
    raw.uni(&[3, 0x44]).await;
    assert!(raw.is_answered().await);
    wrong.check();
}

#[tokio::test]
async fn frames_that_have_no_place_in_a_request_end_the_connection() {
    let (gate, mut wrong) = (Gate::new().await, Wrong::default());
    for (what, bytes, code) in [
        ("4.1: DATA first", frame(DATA, b"x"), H3_FRAME_UNEXPECTED),
        ("7.2.3: CANCEL_PUSH", [get(), frame(CANCEL_PUSH, &varint(0))].concat(), H3_FRAME_UNEXPECTED),
        ("7.2.4: SETTINGS", [get(), frame(SETTINGS, &[])].concat(), H3_FRAME_UNEXPECTED),
        ("7.2.5: PUSH_PROMISE", [get(), frame(PUSH_PROMISE, &[0, 0, 0])].concat(), H3_FRAME_UNEXPECTED),
        ("7.2.6: GOAWAY", [get(), frame(GOAWAY, &varint(0))].concat(), H3_FRAME_UNEXPECTED),
        ("7.2.7: MAX_PUSH_ID", [get(), frame(MAX_PUSH_ID, &varint(0))].concat(), H3_FRAME_UNEXPECTED),
        ("7.2.8: PRIORITY of HTTP/2", [get(), frame(2, &[0; 5])].concat(), H3_FRAME_UNEXPECTED),
        ("7.2.8: PING of HTTP/2", [get(), frame(6, &[0; 8])].concat(), H3_FRAME_UNEXPECTED),
        (
            "4.1: HEADERS behind trailers",
            [get(), frame(DATA, b"x"), frame(HEADERS, &section(&[("a", "b")])), get()].concat(),
            H3_FRAME_UNEXPECTED,
        ),
        (
            "4.1: DATA behind trailers",
            [get(), frame(HEADERS, &section(&[("a", "b")])), frame(DATA, b"x")].concat(),
            H3_FRAME_UNEXPECTED,
        ),
        ("7.1: a frame that breaks off", [get(), vec![0, 9, b'x']].concat(), H3_FRAME_ERROR),
        ("7.1: a head that breaks off", get()[..9].to_vec(), H3_FRAME_ERROR),
        (
            "RFC 9204 3.1: an index beyond the static table",
            frame(HEADERS, &[0, 0, 0xff, 0x24]),
            QPACK_DECOMPRESSION_FAILED,
        ),
        (
            "RFC 9204 3.2.2: an index into a table that is not there",
            frame(HEADERS, &[0, 0, 0x80]),
            QPACK_DECOMPRESSION_FAILED,
        ),
        (
            "RFC 9204 4.5.1: it needs insertions that never come",
            frame(HEADERS, &[5, 0, 0x80]),
            QPACK_DECOMPRESSION_FAILED,
        ),
    ] {
        let raw = gate.open(&[]).await;
        raw.request(&bytes).await;
        wrong.note(what, raw.is_closed_with(code).await);
    }
    wrong.check();
}

#[tokio::test]
async fn a_malformed_message_ends_its_stream_and_nothing_else() {
    let (gate, mut wrong) = (Gate::new().await, Wrong::default());
    let mut raw = gate.open(&[]).await;
    let only = |fields: &[(&str, &str)]| frame(HEADERS, &section(fields));
    for (what, bytes) in [
        ("4.2: a name in upper case", with(&[("X-Upper", "1")])),
        ("4.2: connection", with(&[("connection", "close")])),
        ("4.2: keep-alive", with(&[("keep-alive", "1")])),
        ("4.2: proxy-connection", with(&[("proxy-connection", "close")])),
        ("4.2: transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("4.2: upgrade", with(&[("upgrade", "websocket")])),
        ("4.2: te other than trailers", with(&[("te", "gzip")])),
        ("4.3: a pseudo-field that nobody knows", with(&[(":nothing", "1")])),
        ("4.3: a pseudo-field behind another field", only(&[GET[0], GET[1], ("a", "b"), GET[2], GET[3]])),
        ("4.3: a pseudo-field of answers", only(&[GET[0], GET[1], GET[2], GET[3], (":status", "200")])),
        ("4.3: a pseudo-field among trailers", [with(&[]), frame(DATA, b"xx"), only(&[(":path", "/admin")])].concat()),
        ("4.3.1: two paths", with(&[(":path", "/admin")])),
        ("4.3.1: two methods", with(&[(":method", "DELETE")])),
        ("4.3.1: two schemes", with(&[(":scheme", "http")])),
        ("4.3.1: two authorities", with(&[(":authority", "api.test")])),
        ("4.3.1: user information", only(&[GET[0], GET[1], (":authority", "a@api.test"), GET[3]])),
        ("4.3.1: a path that is none", only(&[GET[0], GET[1], GET[2], (":path", "admin")])),
        ("4.3.1: a path with a fragment", only(&[GET[0], GET[1], GET[2], (":path", "/a#b")])),
        ("4.4: CONNECT with a path", only(&[(":method", "CONNECT"), GET[1], GET[2], GET[3]])),
        ("RFC 9220: a protocol without CONNECT", with(&[(":protocol", "webtransport")])),
        ("4.3.1: no method", only(&GET[1..])),
        ("4.3.1: no scheme", only(&[GET[0], GET[2], GET[3]])),
        ("4.3.1: no path", only(&GET[..3])),
        ("4.3.1: an empty path", only(&[GET[0], GET[1], GET[2], (":path", "")])),
        ("4.3.1: neither authority nor host", only(&[GET[0], GET[1], GET[3]])),
        ("4.3.1: authority and host that differ", with(&[("host", "other.test")])),
        ("4.2: a line break in a value", with(&[("a", "b\r\nc: d")])),
        ("4.2: a zero byte in a value", with(&[("a", "b\0c")])),
        ("4.1.2: more than its content-length", [with(&[("content-length", "1")]), frame(DATA, b"xx")].concat()),
        ("4.1.2: less than its content-length", [with(&[("content-length", "3")]), frame(DATA, b"xx")].concat()),
    ] {
        let mut stream = raw.request(&bytes).await;
        let ended = soon(what, stream.read_to_end(1 << 16)).await;
        let as_it_must = match &ended {
            Err(quinn::ReadToEndError::Read(ReadError::Reset(code))) => code.into_inner() == H3_MESSAGE_ERROR,
            // Refused by an answer, which the section allows too.
            Ok(answer) => answer.first() == Some(&1) && !is_good(answer),
            _ => false,
        };
        wrong.note(what, as_it_must.then_some(()).ok_or(format!("{ended:?}")));
        if raw.quic.close_reason().is_some() {
            wrong.note(what, Err("the connection has ended".into()));
            raw = gate.open(&[]).await;
        }
    }
    assert!(raw.is_answered().await);
    wrong.check();
}

#[tokio::test]
async fn what_a_peer_does_not_know_it_ignores() {
    let gate = Gate::new().await;
    // Section 7.2.4.1 and 7.2.8: settings and frames; section 6.2.3: streams.
    let settings = frame(SETTINGS, &[varint(GREASE), varint(7), varint(0x40 * 0x1f + 0x21), varint(1)].concat());
    let mut raw = gate.bare().await;
    raw.uni(&[&[0][..], &settings, &frame(GREASE, b"whatever")].concat()).await;
    raw.uni(&[&varint(GREASE)[..], b"whatever"].concat()).await;
    let mut unknown = raw.quic.open_uni().await.unwrap();
    unknown.write_all(&[&varint(0x1f * 3 + 0x21)[..], b"x"].concat()).await.unwrap();
    unknown.finish().unwrap();
    let request = [frame(GREASE, b"x"), get(), frame(0x1f * 2 + 0x21, b""), frame(DATA, b"")].concat();
    let mut answer = raw.request(&request).await;
    let answer = soon("an answer", answer.read_to_end(1 << 16)).await.unwrap();
    assert!(is_good(&answer), "{answer:?}");
    assert!(raw.is_answered().await);
}

#[tokio::test]
async fn a_stream_that_its_client_gives_up_leaves_the_others() {
    let gate = Gate::new().await;
    let raw = gate.open(&[]).await;
    // Section 4.1.1: reset amid its head, and amid its body; and an answer that nobody wants.
    let head = get();
    for bytes in [&head[..3], &[&with(&[("content-length", "9")])[..], &frame(DATA, b"x")].concat()] {
        let (mut send, _recv) = raw.quic.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        send.reset(VarInt::from_u32(0x10c)).unwrap();
    }
    let (mut send, mut recv) = raw.quic.open_bi().await.unwrap();
    send.write_all(&head).await.unwrap();
    send.finish().unwrap();
    recv.stop(VarInt::from_u32(0x10c)).unwrap();
    assert!(raw.is_answered().await);
    assert!(raw.quic.close_reason().is_none());
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_refused_and_the_next_is_not() {
    let gate = Gate::new().await;
    let raw = gate.open(&[]).await;
    // Section 4.2.2: 900 fields of 100 bytes each are more than 64 KiB.
    let value = "x".repeat(90);
    let fields: Vec<(&str, &str)> = GET.into_iter().chain((0..900).map(|_| ("name", &*value))).collect();
    let mut answer = raw.request(&frame(HEADERS, &section(&fields))).await;
    let answered = soon("a refusal", answer.read_to_end(1 << 16)).await;
    assert!(!answered.as_ref().is_ok_and(|it| is_good(it)), "{answered:?}");
    assert!(raw.is_answered().await);
}
