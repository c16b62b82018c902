//! Each error of RFC 9113 that a client can make, and what is made of it: the connection or the stream ends with the code of
//! its section, or the request is refused; none of it reaches an upstream.

use crate::{
    h2_raw::*,
    support::{Gateway, echo, forward_all},
};

/// What must come of it.
enum Ends {
    Connection(u32),
    Stream(u32),
    /// 400, in our own words.
    Refused,
}

use Ends::{Connection, Refused, Stream};

const STATUS_400: u8 = 0x8c;

async fn check(cases: Vec<(&str, Vec<u8>, Ends)>) {
    let (target, heard) = echo().await;
    let gateway = Gateway::start(forward_all(target));
    let mut wrong = Vec::new();
    for (what, bytes, ends) in cases {
        let said = talk(gateway.address, &bytes).await;
        let as_expected = match ends {
            Connection(code) => said.go_away == Some(code),
            // An error of a stream may always end the connection (RFC 9113 5.4.2).
            Stream(code) => said.go_away == Some(code) || said.resets.last().is_some_and(|(_, it)| *it == code),
            Refused => said.answers.last().is_some_and(|(_, it)| *it == STATUS_400),
        };
        if !as_expected || heard.count() > 0 {
            wrong.push(format!("{what}: {said:?}, and {} requests at the upstream", heard.count()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A request with these fields beside those that it must have.
fn with(more: &[Vec<u8>]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, 1, &[fields(GET), more.concat()].concat())
}

#[tokio::test]
async fn frames_that_are_not_as_they_must_be_end_the_connection() {
    let open = head(1, POST, END_HEADERS);
    let on = |frame: Vec<u8>| [open.clone(), frame].concat();
    let settings = |id: u8, value: u32| frame(SETTINGS, 0, 0, &[&[0, id][..], &value.to_be_bytes()].concat());
    let both = |first: &[u8], second: &[u8]| [first, second].concat();
    // What cannot be decoded (4.3) would be a COMPRESSION_ERROR; the library says PROTOCOL_ERROR, and ends the connection as well.
    let cases = vec![
        ("4.2 a frame larger than allowed", on(frame(DATA, 0, 1, &[0; 16_385])), Connection(FRAME_SIZE_ERROR)),
        ("4.3 a field block that ends early", frame(HEADERS, 5, 1, &[0x00, 0x7f]), Connection(PROTOCOL_ERROR)),
        ("4.3 an index that is not there", frame(HEADERS, 5, 1, &[0xff, 0x7f]), Connection(PROTOCOL_ERROR)),
        ("5.1 DATA on an idle stream", frame(DATA, 0, 1, b"x"), Connection(PROTOCOL_ERROR)),
        ("5.1 RST_STREAM on an idle stream", frame(RST_STREAM, 0, 1, &[0; 4]), Connection(PROTOCOL_ERROR)),
        ("5.1 WINDOW_UPDATE on an idle stream", frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), Connection(PROTOCOL_ERROR)),
        ("5.1.1 an even stream", head(2, GET, 5), Connection(PROTOCOL_ERROR)),
        ("5.1.1 a stream that goes back", both(&head(5, POST, 4), &head(3, POST, 4)), Connection(PROTOCOL_ERROR)),
        (
            "5.5 another frame amid a header block",
            both(&head(1, POST, 0), &frame(0xbe, 0, 1, b"x")),
            Connection(PROTOCOL_ERROR),
        ),
        ("6.1 DATA on stream 0", frame(DATA, 0, 0, b"x"), Connection(PROTOCOL_ERROR)),
        ("6.1 more padding than payload", on(frame(DATA, PADDED, 1, &[9, 0, 0])), Connection(PROTOCOL_ERROR)),
        ("6.2 HEADERS on stream 0", head(0, GET, 5), Connection(PROTOCOL_ERROR)),
        ("6.3 PRIORITY on stream 0", frame(PRIORITY, 0, 0, &[0, 0, 0, 1, 0]), Connection(PROTOCOL_ERROR)),
        ("6.4 RST_STREAM on stream 0", frame(RST_STREAM, 0, 0, &[0; 4]), Connection(PROTOCOL_ERROR)),
        ("6.5 SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), Connection(PROTOCOL_ERROR)),
        ("6.5.2 a push setting that is none", settings(2, 2), Connection(PROTOCOL_ERROR)),
        ("6.5.2 a frame size that is too small", settings(5, 100), Connection(PROTOCOL_ERROR)),
        (
            "6.6 PUSH_PROMISE by a client",
            on(frame(PUSH_PROMISE, 4, 1, &[0, 0, 0, 2, 0x82])),
            Connection(PROTOCOL_ERROR),
        ),
        ("6.7 PING on a stream", frame(PING, 0, 1, &[0; 8]), Connection(PROTOCOL_ERROR)),
        ("6.8 GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), Connection(PROTOCOL_ERROR)),
        (
            "6.9.1 a window of the connection beyond the largest",
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            Connection(FLOW_CONTROL_ERROR),
        ),
        ("6.10 CONTINUATION behind nothing", frame(CONTINUATION, 4, 1, &[0x82]), Connection(PROTOCOL_ERROR)),
        (
            "6.10 CONTINUATION of another stream",
            both(&head(1, POST, 0), &frame(CONTINUATION, 4, 3, &[0x84])),
            Connection(PROTOCOL_ERROR),
        ),
    ];
    check(cases).await;
}

#[tokio::test]
async fn what_is_wrong_on_a_stream_ends_it() {
    let open = head(1, POST, END_HEADERS);
    let on = |frame: Vec<u8>| [open.clone(), frame].concat();
    let length = |said: &str, sent: &[u8]| {
        let fields = [fields(POST), field("content-length", said.as_bytes())].concat();
        [frame(HEADERS, END_HEADERS, 1, &fields), frame(DATA, END_STREAM, 1, sent)].concat()
    };
    let only = |some: &[u8]| frame(HEADERS, 5, 1, some);
    let cases = vec![
        (
            "6.9.1 a window of a stream beyond the largest",
            on(frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff])),
            Stream(FLOW_CONTROL_ERROR),
        ),
        ("8.1.1 a length that is more than the body", length("9", b"abc"), Stream(PROTOCOL_ERROR)),
        ("8.1.1 a length that is less than the body (H2.CL)", length("1", b"abc"), Stream(PROTOCOL_ERROR)),
        (
            "8.1 trailers that end nothing",
            on(frame(HEADERS, END_HEADERS, 1, &field("x-a", b"b"))),
            Stream(PROTOCOL_ERROR),
        ),
        ("8.2 a name in capitals", with(&[field("X-A", b"b")]), Stream(PROTOCOL_ERROR)),
        ("8.2.1 a name with a colon", with(&[field("x:a", b"b")]), Stream(PROTOCOL_ERROR)),
        ("8.2.1 a name with a space", with(&[field("x a", b"b")]), Stream(PROTOCOL_ERROR)),
        ("8.2.1 a name with a line end", with(&[field("x\r\na", b"b")]), Stream(PROTOCOL_ERROR)),
        ("8.2.1 a value with a line end", with(&[field("x-a", b"b\r\nc: d")]), Stream(PROTOCOL_ERROR)),
        ("8.2.1 a value with LF", with(&[field("x-a", b"b\nc: d")]), Stream(PROTOCOL_ERROR)),
        ("8.2.1 a value with NUL", with(&[field("x-a", b"b\0")]), Stream(PROTOCOL_ERROR)),
        ("8.2.2 Connection", with(&[field("connection", b"close")]), Stream(PROTOCOL_ERROR)),
        ("8.2.2 Transfer-Encoding (H2.TE)", with(&[field("transfer-encoding", b"chunked")]), Stream(PROTOCOL_ERROR)),
        ("8.2.2 Upgrade", with(&[field("upgrade", b"websocket")]), Stream(PROTOCOL_ERROR)),
        ("8.2.2 Keep-Alive", with(&[field("keep-alive", b"1")]), Stream(PROTOCOL_ERROR)),
        (
            "8.3 a pseudo-field behind a field",
            only(&[field("x-a", b"b"), fields(GET)].concat()),
            Stream(PROTOCOL_ERROR),
        ),
        ("8.3 a pseudo-field twice", with(&[field(":path", b"/x")]), Stream(PROTOCOL_ERROR)),
        ("8.3 a pseudo-field that is not there", with(&[field(":x", b"y")]), Stream(PROTOCOL_ERROR)),
        ("8.3 one of answers", with(&[field(":status", b"200")]), Stream(PROTOCOL_ERROR)),
        ("8.3.1 no method", only(&[0x86, 0x84, 0x01, 1, b'a']), Stream(PROTOCOL_ERROR)),
        ("8.3.1 no path", only(&[0x82, 0x86, 0x01, 1, b'a']), Stream(PROTOCOL_ERROR)),
        ("8.3.1 no scheme", only(&[0x82, 0x84, 0x01, 1, b'a']), Stream(PROTOCOL_ERROR)),
        (
            "8.3.1 an empty path",
            only(&[&[0x82, 0x86, 0x01, 1, b'a'][..], &field(":path", b"")].concat()),
            Stream(PROTOCOL_ERROR),
        ),
        (
            "8.3.1 a path with a space",
            only(&[&[0x82, 0x86, 0x01, 1, b'a'][..], &field(":path", b"/a b")].concat()),
            Stream(PROTOCOL_ERROR),
        ),
        (
            "8.3.1 a path with a request in it",
            only(&[&[0x82, 0x86, 0x01, 1, b'a'][..], &field(":path", b"/ HTTP/1.1\r\nx: y")].concat()),
            Stream(PROTOCOL_ERROR),
        ),
        (
            "8.3.1 a method with a request in it",
            only(&[&[0x84, 0x86, 0x01, 1, b'a'][..], &field(":method", b"GET / HTTP/1.1\r\nx: y")].concat()),
            Stream(PROTOCOL_ERROR),
        ),
        (
            "8.5 CONNECT with a path",
            only(&[&[0x86, 0x84, 0x01, 1, b'a'][..], &field(":method", b"CONNECT")].concat()),
            Stream(PROTOCOL_ERROR),
        ),
    ];
    check(cases).await;
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_goes_nowhere() {
    let of = |authority: &[u8]| [&[0x82, 0x86, 0x84, 0x01, authority.len() as u8][..], authority].concat();
    let only = |some: Vec<u8>| frame(HEADERS, 5, 1, &some);
    let cases = vec![
        ("8.2.2 TE that says more than trailers", with(&[field("te", b"gzip")]), Stream(PROTOCOL_ERROR)),
        ("8.3.1 Host that is not the authority", with(&[field("host", b"b")]), Refused),
        ("8.3.1 two of Host", with(&[field("host", b"a"), field("host", b"b")]), Refused),
        ("8.3.1 no authority and no Host", only(vec![0x82, 0x86, 0x84]), Refused),
        ("8.3.1 an authority with a user", only(of(b"u@a")), Refused),
        ("8.2.1 a value that begins with a space", with(&[field("x-a", b" b")]), Refused),
        ("8.2.1 a value that ends with a tab", with(&[field("x-a", b"b\t")]), Refused),
        ("8.1.1 two lengths", with(&[field("content-length", b"0"), field("content-length", b"0")]), Refused),
        ("8.1.1 a list of lengths", with(&[field("content-length", b"0, 0")]), Stream(PROTOCOL_ERROR)),
    ];
    check(cases).await;
}

/// HTTP/1 refuses it by its raw line. Here the library hands over a target that it has cut already: what is decided by must be what
/// goes on.
#[tokio::test]
async fn a_fragment_is_cut_off_before_anything_is_decided() {
    let (target, heard) = echo().await;
    let gateway = Gateway::start(forward_all(target));
    let fields = [&[0x82, 0x86][..], &field(":path", b"/a?b#/../c"), &[0x01, 0x01, b'a']].concat();
    let said = talk(gateway.address, &frame(HEADERS, END_STREAM | END_HEADERS, 1, &fields)).await;
    assert_eq!((said.answers.len(), heard.last().lines().next()), (1, Some("GET /a?b")), "{said:?}");
}
