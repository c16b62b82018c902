//! WebSocket (RFC 6455) as far as a gateway must know it: the handshake's two heads, and where frames begin and end.

use data_encoding::BASE64;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header, request::Parts,
};
use hyper::{ext::Protocol, upgrade::OnUpgrade};

use crate::{ids::Ids, refusal::Refusal};

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const KEY_BYTES: usize = 24;
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADE: HeaderValue = HeaderValue::from_static("Upgrade");

/// Going away (RFC 6455 7.4.1).
pub(crate) const CLOSE_GOING_AWAY: u16 = 1001;
pub(crate) const CLOSE_POLICY_VIOLATION: u16 = 1008;

/// A handshake over HTTP/2 (RFC 8441) in the words of one over HTTP/1.1, and what its stream becomes. None: it is none.
pub(crate) fn extended_connect<B>(request: &mut Request<B>, ids: &Ids) -> Option<OnUpgrade> {
    let protocol = request.extensions().get::<Protocol>()?;
    if request.version() != Version::HTTP_2 || request.method() != Method::CONNECT || protocol.as_ref() != b"websocket"
    {
        return None;
    }
    let upgrade = hyper::upgrade::on(&mut *request);
    *request.method_mut() = Method::GET;
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&ids.random().to_be_bytes());
    nonce[8..].copy_from_slice(&ids.random().to_be_bytes());
    let headers = request.headers_mut();
    offer(headers);
    let key = HeaderValue::try_from(BASE64.encode(&nonce)).expect("base64 is ASCII");
    headers.insert(header::SEC_WEBSOCKET_KEY, key);
    Some(upgrade)
}

/// The answer to that in the words of HTTP/2.
pub(crate) fn connected(head: &mut http::response::Parts) {
    head.status = StatusCode::OK;
    for of_http1 in [header::CONNECTION, header::UPGRADE, header::SEC_WEBSOCKET_ACCEPT] {
        head.headers.remove(of_http1);
    }
}

/// A handshake over HTTP/1.1 in the words of one over HTTP/2, for an upstream; what its answer would have to say there.
pub(crate) fn connect<B>(request: &mut Request<B>) -> Option<HeaderValue> {
    let accept = accept(request.headers()).and_then(|accept| HeaderValue::try_from(accept).ok());
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    for of_http1 in [header::CONNECTION, header::UPGRADE, header::SEC_WEBSOCKET_KEY] {
        request.headers_mut().remove(of_http1);
    }
    accept
}

/// The upstream's answer to that in the words of HTTP/1.1.
pub(crate) fn switched<B>(response: &mut Response<B>, accept: HeaderValue) {
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    offer(response.headers_mut());
    response.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, accept);
}

/// A request that asks for another protocol: a WebSocket handshake as RFC 6455 4.1 wants it, or refused.
pub(crate) fn check_request(parts: &Parts) -> Result<(), Refusal> {
    if !is_only(&parts.headers, header::UPGRADE, b"websocket") {
        return Err(Refusal::UpgradeNotSupported);
    }
    // In HTTP/2 only `extended_connect` can have said Upgrade (RFC 9113 8.2.2).
    if parts.method != Method::GET || !matches!(parts.version, Version::HTTP_11 | Version::HTTP_2) {
        return Err(Refusal::Malformed("a WebSocket begins with GET in HTTP/1.1"));
    }
    if !names(&parts.headers, header::CONNECTION, b"upgrade") {
        return Err(Refusal::Malformed("Upgrade without Connection: Upgrade"));
    }
    let bodiless = |value: &HeaderValue| value.as_bytes() == b"0";
    if parts.headers.contains_key(header::TRANSFER_ENCODING)
        || !parts.headers.get_all(header::CONTENT_LENGTH).iter().all(bodiless)
    {
        return Err(Refusal::Malformed("a WebSocket handshake has no body"));
    }
    match key(&parts.headers) {
        Some(_) => Ok(()),
        None => Err(Refusal::Malformed("Sec-WebSocket-Key must be 16 bytes in base64, once")),
    }
}

/// What the upstream must answer to this key.
pub(crate) fn accept(headers: &HeaderMap) -> Option<String> {
    let mut text = [0; KEY_BYTES + GUID.len()];
    text[..KEY_BYTES].copy_from_slice(key(headers)?.as_bytes());
    text[KEY_BYTES..].copy_from_slice(GUID);
    // Proves that the other side has understood, and nothing else: SHA-1 will do.
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &text);
    Some(BASE64.encode(digest.as_ref()))
}

/// Whether the head of a 101 is the right answer (RFC 6455 4.1).
pub(crate) fn is_accepted(headers: &HeaderMap, accept: &str) -> bool {
    is_only(headers, header::UPGRADE, b"websocket")
        && names(headers, header::CONNECTION, b"upgrade")
        && is_only(headers, header::SEC_WEBSOCKET_ACCEPT, accept.as_bytes())
}

/// Puts back what belongs to one hop, for the next.
pub(crate) fn offer(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, UPGRADE);
    headers.insert(header::UPGRADE, WEBSOCKET);
}

fn key(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut values = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let key = values.next().filter(|key| key.len() == KEY_BYTES)?;
    let nonce = BASE64.decode(key.as_bytes()).ok()?;
    (values.next().is_none() && nonce.len() == 16).then_some(key)
}

fn is_only(headers: &HeaderMap, name: HeaderName, text: &[u8]) -> bool {
    let mut values = headers.get_all(name).iter();
    values.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(text)) && values.next().is_none()
}

fn names(headers: &HeaderMap, name: HeaderName, word: &[u8]) -> bool {
    let has = |value: &HeaderValue| {
        value.as_bytes().split(|b| *b == b',').any(|it| it.trim_ascii().eq_ignore_ascii_case(word))
    };
    headers.get_all(name).iter().any(has)
}

/// A close frame of a server, or of a client (whose frames are masked, here with zeros).
pub(crate) fn close_frame(code: u16, reason: &str, masked: bool) -> Vec<u8> {
    let mut frame = vec![0x88, (2 + reason.len()) as u8];
    if masked {
        frame[1] |= 0x80;
        frame.extend_from_slice(&[0; 4]);
    }
    frame.extend_from_slice(&code.to_be_bytes());
    frame.extend_from_slice(reason.as_bytes());
    frame
}

/// Where a stream of frames stands: a frame of ours may only go in between two of theirs (RFC 6455 5.2, 5.4).
#[derive(Debug, Default)]
pub(crate) struct Frames {
    header: [u8; 14],
    have: usize,
    payload_left: u64,
    closed: bool,
}

impl Frames {
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.step(bytes)..];
        }
    }

    /// How many of these bytes end the frame that is under way; None: more are needed.
    pub(crate) fn rest_of_frame(&self, bytes: &[u8]) -> Option<usize> {
        let mut ahead =
            Self { header: self.header, have: self.have, payload_left: self.payload_left, closed: self.closed };
        let mut at = 0;
        while !ahead.is_between() {
            if at == bytes.len() {
                return None;
            }
            at += ahead.step(&bytes[at..]);
        }
        Some(at)
    }

    fn is_between(&self) -> bool {
        self.have == 0 && self.payload_left == 0
    }

    /// A close frame has passed: nothing may follow it.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes one byte of a header, or what there is of a payload; `bytes` is not empty.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.payload_left > 0 {
            let n = self.payload_left.min(bytes.len() as u64);
            self.payload_left -= n;
            return n as usize;
        }
        self.header[self.have] = bytes[0];
        self.have += 1;
        if self.have >= 2 && self.have == self.header_bytes() {
            self.payload_left = self.payload_bytes();
            self.closed |= self.header[0] & 0x0f == 8;
            self.have = 0;
        }
        1
    }

    fn header_bytes(&self) -> usize {
        let length = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + if self.header[1] & 0x80 != 0 { 4 } else { 0 }
    }

    fn payload_bytes(&self) -> u64 {
        let long = |n: usize| self.header[2..2 + n].iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        match self.header[1] & 0x7f {
            126 => long(2),
            127 => long(8),
            short => u64::from(short),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_of_the_specification() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        let headers = HeaderMap::from_iter([(header::SEC_WEBSOCKET_KEY, key)]);
        assert_eq!(accept(&headers).as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        let short = HeaderMap::from_iter([(header::SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhl"))]);
        assert_eq!(accept(&short), None);
    }

    #[test]
    fn frames_are_told_apart_however_they_are_cut() {
        let mut stream = Vec::new();
        let mut ends = vec![0];
        for (header, payload) in [
            (vec![0x81, 5], 5),
            (vec![0x82, 126, 1, 0], 256),
            (vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 1], 65_537),
            (vec![0x81, 0x80 | 3, 9, 9, 9, 9], 3),
            (vec![0x89, 0], 0),
        ] {
            stream.extend(header);
            stream.extend(vec![0x88; payload]);
            ends.push(stream.len());
        }
        for cut in (0..stream.len()).step_by(97).chain(ends.clone()) {
            let mut frames = Frames::default();
            frames.feed(&stream[..cut]);
            assert_eq!(frames.is_between(), ends.contains(&cut), "{cut}");
            let next = ends.iter().find(|end| **end >= cut).unwrap();
            assert_eq!(frames.rest_of_frame(&stream[cut..]), Some(next - cut), "{cut}");
            assert!(!frames.is_closed());
        }
        let mut frames = Frames::default();
        frames.feed(&stream);
        frames.feed(&close_frame(1008, "gone", false));
        assert!(frames.is_between() && frames.is_closed());
        let mut frames = Frames::default();
        frames.feed(&close_frame(1008, "gone", true));
        assert!(frames.is_between() && frames.is_closed());
    }
}
