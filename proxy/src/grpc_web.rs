//! gRPC-Web (the protocol of browsers, which cannot read trailers) as gRPC and back: the same messages, in binary or in
//! base64, and the trailers as a last message of their own kind.

use bytes::{BufMut, Bytes, BytesMut};
use data_encoding::BASE64;
use http::{HeaderMap, HeaderValue, header};
use http_body::Frame;

/// The first byte of a message that holds trailers.
const TRAILERS: u8 = 0x80;
const TEXT: &[u8] = b"application/grpc-web-text";
const BINARY: &[u8] = b"application/grpc-web";
const GRPC: &[u8] = b"application/grpc";
const GROUP: usize = 4;

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GrpcWeb {
    asks: Form,
    /// What it wants to be answered in.
    reads: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Binary,
    Text,
}

/// Base64 that comes in parts, which may be padded each.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    rest: Vec<u8>,
}

/// The body of an answer on its way to the client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoder(Form);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotBase64;

impl GrpcWeb {
    /// None: the request is of another kind.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let (asks, _) = split(headers.get(header::CONTENT_TYPE)?)?;
        let reads = headers.get(header::ACCEPT).and_then(split).map_or(asks, |(form, _)| form);
        Some(Self { asks, reads })
    }

    /// Turns the request's head into one of gRPC. What is returned must decode its body.
    pub(crate) fn ask(self, headers: &mut HeaderMap) -> Option<Decoder> {
        if let Some((_, rest)) = headers.get(header::CONTENT_TYPE).and_then(split)
            && let Ok(kind) = HeaderValue::from_bytes(&[GRPC, rest].concat())
        {
            headers.insert(header::CONTENT_TYPE, kind);
        }
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.remove(header::CONTENT_LENGTH);
        (self.asks == Form::Text).then(Decoder::default)
    }

    /// Turns the head of a gRPC answer into one that the client reads; None: it is of another kind, and stays.
    pub(crate) fn answer(self, headers: &mut HeaderMap) -> Option<Encoder> {
        let kind = headers.get(header::CONTENT_TYPE)?.as_bytes();
        let rest = kind.strip_prefix(GRPC).filter(|rest| is_rest(rest))?;
        let form = match self.reads {
            Form::Binary => BINARY,
            Form::Text => TEXT,
        };
        let kind = HeaderValue::from_bytes(&[form, rest].concat()).ok()?;
        headers.insert(header::CONTENT_TYPE, kind);
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::TRAILER);
        Some(Encoder(self.reads))
    }
}

/// The form, and what stands behind it: `+proto` and parameters.
fn split(kind: &HeaderValue) -> Option<(Form, &[u8])> {
    let kind = kind.as_bytes();
    let form = |name: &[u8], form| Some((form, kind.strip_prefix(name).filter(|rest| is_rest(rest))?));
    form(TEXT, Form::Text).or_else(|| form(BINARY, Form::Binary))
}

fn is_rest(rest: &[u8]) -> bool {
    matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

impl Decoder {
    pub(crate) fn decode(&mut self, text: &[u8]) -> Result<Bytes, NotBase64> {
        self.rest.extend_from_slice(text);
        let whole = self.rest.len() / GROUP * GROUP;
        let bytes = BASE64.decode(&self.rest[..whole]).map_err(|_| NotBase64)?;
        self.rest.drain(..whole);
        Ok(bytes.into())
    }

    /// At the end.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

impl Encoder {
    pub(crate) fn encode(self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let bytes = frame.into_data().unwrap_or_else(|frame| message(&frame.into_trailers().unwrap_or_default()));
        Frame::data(match self.0 {
            Form::Binary => bytes,
            // Padded, since whoever reads must not wait for the next part to have the end of this one.
            Form::Text => BASE64.encode(&bytes).into(),
        })
    }
}

/// Trailers as the fields of HTTP/1, in lower case.
fn message(trailers: &HeaderMap) -> Bytes {
    let mut fields = BytesMut::new();
    for (name, value) in trailers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            fields.put_slice(part);
        }
    }
    let mut message = BytesMut::with_capacity(5 + fields.len());
    message.put_u8(TRAILERS);
    message.put_u32(fields.len() as u32);
    message.put(fields);
    message.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (header::HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(pair).collect()
    }

    #[test]
    fn kinds_are_told_apart_and_translated() {
        for (asked, accepts, sent, answered, encoded) in [
            ("application/grpc-web", "*/*", "application/grpc", "application/grpc-web", false),
            ("application/grpc-web+proto", "*/*", "application/grpc+proto", "application/grpc-web+json", false),
            ("application/grpc-web-text", "*/*", "application/grpc", "application/grpc-web-text", true),
            (
                "application/grpc-web-text+proto",
                "application/grpc-web-text",
                "application/grpc+proto",
                "application/grpc-web-text+json",
                true,
            ),
            (
                "application/grpc-web;a=b",
                "application/grpc-web-text",
                "application/grpc;a=b",
                "application/grpc-web-text",
                false,
            ),
        ] {
            let mut request = headers(&[("content-type", asked), ("accept", accepts), ("content-length", "5")]);
            let web = GrpcWeb::of(&request).unwrap();
            assert_eq!(web.ask(&mut request).is_some(), encoded, "{asked}");
            assert_eq!(request[header::CONTENT_TYPE], sent);
            assert_eq!(
                (&request[header::TE], request.get(header::CONTENT_LENGTH)),
                (&HeaderValue::from_static("trailers"), None)
            );
            let suffix = if answered.ends_with("+json") { "application/grpc+json" } else { "application/grpc" };
            let mut answer = headers(&[("content-type", suffix)]);
            web.answer(&mut answer).unwrap();
            assert_eq!(answer[header::CONTENT_TYPE], answered);
        }
        for other in ["application/grpc", "application/grpc-websocket", "application/grpc-web-texts", "text/plain"] {
            assert_eq!(GrpcWeb::of(&headers(&[("content-type", other)])), None, "{other}");
        }
    }

    #[test]
    fn text_is_decoded_however_it_is_cut_and_padded() {
        let text = b"AAAAAAA=AAAAAAEBAgM=";
        for cut in 0..text.len() {
            let mut decoder = Decoder::default();
            let mut bytes = decoder.decode(&text[..cut]).unwrap().to_vec();
            bytes.extend_from_slice(&decoder.decode(&text[cut..]).unwrap());
            assert!(decoder.is_empty());
            assert_eq!(bytes, b"\0\0\0\0\0\0\0\0\0\x01\x01\x02\x03", "{cut}");
        }
        assert_eq!(Decoder::default().decode(b"!!!!"), Err(NotBase64));
        let mut decoder = Decoder::default();
        decoder.decode(b"AAAAA").unwrap();
        assert!(!decoder.is_empty());
    }

    #[test]
    fn trailers_are_the_last_message() {
        let trailers = headers(&[("grpc-status", "0"), ("grpc-message", "ok")]);
        let frame = Encoder(Form::Binary).encode(Frame::trailers(trailers.clone()));
        assert_eq!(frame.into_data().unwrap(), &b"\x80\0\0\0\x22grpc-status: 0\r\ngrpc-message: ok\r\n"[..]);
        let frame = Encoder(Form::Text).encode(Frame::trailers(trailers));
        let text = frame.into_data().unwrap();
        assert!(BASE64.decode(&text).unwrap().starts_with(b"\x80\0\0\0"));
    }
}
