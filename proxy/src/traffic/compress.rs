//! Answers made smaller on their way out: gzip, Brotli or Zstandard, as the client likes it. What is encoded already, must
//! not be changed, or is a part of something stays as it is.

use std::{
    cell::RefCell,
    fmt,
    io::{self, Write},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use quorumgate_model::resource::{Coding, Compression};

use super::{Unsaid, vary, weaken};
use crate::{body::ResponseBody, upstream::Failure};

/// What each costs is near 10 ns a byte at these; above, time grows faster than bytes go away.
const GZIP_LEVEL: u32 = 5;
const BROTLI_LEVEL: u32 = 4;
/// log2 of the window: 512 KiB for each answer under way, not the 4 MiB of a file.
const BROTLI_WINDOW: u32 = 19;
const ZSTD_LEVEL: i32 = 3;
const ZSTD_WINDOW: u32 = 19;
/// Passed on as soon as there is so much, or the upstream keeps us waiting.
const OUT_BYTES: usize = 16 << 10;
/// Compressed at one go, before others get their turn on this worker.
const IN_BYTES_AT_ONCE: usize = 64 << 10;

/// `coding` None: as it is, but caches must know that it could have been otherwise.
pub(super) fn answer(
    compression: &Compression,
    coding: Option<Coding>,
    method: &Method,
    mut response: Response<ResponseBody>,
) -> Response<ResponseBody> {
    if response.status() == StatusCode::NOT_MODIFIED {
        return not_modified(compression, coding, method, response);
    }
    // What a HEAD is told is what a GET would be, though there is no body.
    let size = declared(response.headers()).or_else(|| response.body().size_hint().exact());
    if !may_change(&response, method) || !is_wanted(compression, response.headers(), size) {
        return response;
    }
    let headers = response.headers_mut();
    vary(headers, header::ACCEPT_ENCODING);
    // The length that a HEAD asks for is not known before all of it is compressed.
    let Some(coding) = coding.filter(|_| *method != Method::HEAD) else { return response };
    let Ok(encoder) = Encoder::new(coding) else { return response };
    describe(headers, coding);
    response.map(|inner| ResponseBody::Compressed(Box::new(Body::new(inner, encoder))))
}

/// With the ETag and the Vary of its 200 (RFC 9110 15.4.5). An upstream's own mostly does not say what that is of. Then it
/// counts as compressed: a Vary too many costs a cache some room, and one that is missing gives clients what they cannot read.
fn not_modified(
    compression: &Compression,
    coding: Option<Coding>,
    method: &Method,
    mut response: Response<ResponseBody>,
) -> Response<ResponseBody> {
    let unsaid = response.extensions_mut().remove::<Unsaid>();
    let known = unsaid.as_ref().map_or(response.headers(), |it| &it.0);
    // Some say the length of what they send.
    let size = declared(known).filter(|size| unsaid.is_some() || *size > 0);
    let is_unknown = unsaid.is_none() && !known.contains_key(header::CONTENT_TYPE);
    if !is_unknown && !is_wanted(compression, known, size) || is_encoded(known) || must_stay(response.headers()) {
        return response;
    }
    let headers = response.headers_mut();
    vary(headers, header::ACCEPT_ENCODING);
    if coding.is_some() && *method != Method::HEAD {
        weaken(headers);
    }
    response
}

/// RFC 9110 15.3.7: parts keep their places.
fn may_change(response: &Response<ResponseBody>, method: &Method) -> bool {
    let (status, headers) = (response.status(), response.headers());
    let bodiless = [StatusCode::NO_CONTENT, StatusCode::PARTIAL_CONTENT].contains(&status);
    !bodiless
        && !status.is_informational()
        && !is_encoded(headers)
        && !headers.contains_key(header::CONTENT_RANGE)
        && !must_stay(headers)
        && is_plain(response.body(), method)
}

fn is_encoded(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    codings.any(|value| !value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"))
}

/// RFC 9110 7.7.
fn must_stay(headers: &HeaderMap) -> bool {
    let said = headers.get_all(header::CACHE_CONTROL).iter();
    let mut words = said.flat_map(|value| value.as_bytes().split(|b| *b == b',')).map(<[u8]>::trim_ascii);
    words.any(|it| it.eq_ignore_ascii_case(b"no-transform"))
}

fn declared(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A HEAD that is answered from the cache has no body, and its GET has one.
fn is_plain(body: &ResponseBody, method: &Method) -> bool {
    use ResponseBody::{Empty, Full, Keeping, Upstream, Veiled};
    matches!(body, Full(_) | Upstream(_) | Keeping(_) | Veiled(_)) || *method == Method::HEAD && matches!(body, Empty)
}

fn is_wanted(compression: &Compression, headers: &HeaderMap, size: Option<u64>) -> bool {
    if size.is_some_and(|size| size == 0 || size < compression.min_size.0) {
        return false;
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|text| text.split(';').next()).unwrap_or_default().trim();
    let matches = |pattern: &String| match pattern.split_once('*') {
        None => kind.eq_ignore_ascii_case(pattern),
        Some((before, after)) => {
            let fits = kind.len() >= before.len() + after.len();
            // An event that waits for others to be compressed with is late: such streams only by their own name.
            fits && !kind.eq_ignore_ascii_case("text/event-stream")
                && kind.as_bytes()[..before.len()].eq_ignore_ascii_case(before.as_bytes())
                && kind.as_bytes()[kind.len() - after.len()..].eq_ignore_ascii_case(after.as_bytes())
        }
    };
    compression.types.iter().any(matches)
}

/// What was true of the bytes that the upstream sent and is not of these.
fn describe(headers: &mut HeaderMap, coding: Coding) {
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.word()));
    let gone = [header::CONTENT_LENGTH, header::ACCEPT_RANGES];
    let digests = ["content-md5", "digest", "content-digest", "repr-digest"].map(HeaderName::from_static);
    gone.into_iter().chain(digests).for_each(|name| drop(headers.remove(name)));
    weaken(headers);
}

/// Where an encoder writes to.
#[derive(Clone, Default)]
struct Sink(Rc<RefCell<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Encoder {
    sink: Sink,
    /// None once it is finished.
    kind: Option<Kind>,
}

enum Kind {
    Gzip(flate2::write::GzEncoder<Sink>),
    Br(Box<brotli::CompressorWriter<Sink>>),
    Zstd(zstd::stream::write::Encoder<'static, Sink>),
}

impl Encoder {
    fn new(coding: Coding) -> io::Result<Self> {
        let sink = Sink::default();
        let kind = match coding {
            Coding::Gzip => {
                Kind::Gzip(flate2::write::GzEncoder::new(sink.clone(), flate2::Compression::new(GZIP_LEVEL)))
            }
            Coding::Br => {
                let writer = brotli::CompressorWriter::new(sink.clone(), OUT_BYTES, BROTLI_LEVEL, BROTLI_WINDOW);
                Kind::Br(Box::new(writer))
            }
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(sink.clone(), ZSTD_LEVEL)?;
                encoder.window_log(ZSTD_WINDOW)?;
                Kind::Zstd(encoder)
            }
        };
        Ok(Self { sink, kind: Some(kind) })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.kind {
            Some(Kind::Gzip(it)) => it.write_all(bytes),
            Some(Kind::Br(it)) => it.write_all(bytes),
            Some(Kind::Zstd(it)) => it.write_all(bytes),
            None => Ok(()),
        }
    }

    /// All that was written can be read once this is out.
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.kind {
            Some(Kind::Gzip(it)) => it.flush(),
            Some(Kind::Br(it)) => it.flush(),
            Some(Kind::Zstd(it)) => it.flush(),
            None => Ok(()),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        match self.kind.take() {
            Some(Kind::Gzip(it)) => it.finish().map(drop),
            // It writes its end when it is let go of.
            Some(Kind::Br(it)) => {
                it.into_inner();
                Ok(())
            }
            Some(Kind::Zstd(it)) => it.finish().map(drop),
            None => Ok(()),
        }
    }

    fn len(&self) -> usize {
        self.sink.0.borrow().len()
    }

    fn take(&self) -> Bytes {
        Bytes::from(std::mem::take(&mut *self.sink.0.borrow_mut()))
    }
}

/// What a client gets of an answer that is compressed.
pub struct Body {
    inner: ResponseBody,
    encoder: Encoder,
    /// Bytes went in since the last flush.
    pending: bool,
    /// None: there is more to come. What is inside follows the last bytes.
    end: Option<End>,
}

enum End {
    Nothing,
    Frame(Frame<Bytes>),
}

impl Body {
    fn new(inner: ResponseBody, encoder: Encoder) -> Self {
        Self { inner, encoder, pending: false, end: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let broken = |_| Failure::CutOff;
        let mut taken = 0;
        while self.end.is_none() {
            let Poll::Ready(next) = Pin::new(&mut self.inner).poll_frame(cx) else {
                if std::mem::take(&mut self.pending) {
                    self.encoder.flush().map_err(broken)?;
                }
                return match self.encoder.len() {
                    0 => Poll::Pending,
                    _ => Poll::Ready(Some(Ok(Frame::data(self.encoder.take())))),
                };
            };
            match next.transpose()?.map(Frame::into_data) {
                Some(Ok(bytes)) => {
                    self.encoder.write(&bytes).map_err(broken)?;
                    self.pending = true;
                    taken += bytes.len();
                    if self.encoder.len() >= OUT_BYTES {
                        return Poll::Ready(Some(Ok(Frame::data(self.encoder.take()))));
                    }
                    if taken >= IN_BYTES_AT_ONCE {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
                Some(Err(trailers)) => self.finish(End::Frame(trailers)).map_err(broken)?,
                None => self.finish(End::Nothing).map_err(broken)?,
            }
        }
        if self.encoder.len() > 0 {
            return Poll::Ready(Some(Ok(Frame::data(self.encoder.take()))));
        }
        match self.end.replace(End::Nothing) {
            Some(End::Frame(trailers)) => Poll::Ready(Some(Ok(trailers))),
            _ => Poll::Ready(None),
        }
    }

    fn finish(&mut self, end: End) -> io::Result<()> {
        self.end = Some(end);
        self.encoder.finish()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        Poll::Ready(ready!(self.poll(cx)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.end, Some(End::Nothing)) && self.encoder.len() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressed").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn compressed(coding: Coding, parts: &[&[u8]]) -> Vec<u8> {
        let mut encoder = Encoder::new(coding).unwrap();
        let mut out = Vec::new();
        for part in parts {
            encoder.write(part).unwrap();
            encoder.flush().unwrap();
            let flushed = encoder.take();
            assert!(!flushed.is_empty(), "a flush brings out what went in");
            out.extend_from_slice(&flushed);
        }
        encoder.finish().unwrap();
        out.extend_from_slice(&encoder.take());
        out
    }

    #[test]
    fn what_is_compressed_is_what_comes_out() {
        let parts: [&[u8]; 3] = [b"one ", &[b'x'; 100_000], b" end"];
        for coding in Coding::ALL {
            let bytes = compressed(*coding, &parts);
            let mut text = Vec::new();
            match coding {
                Coding::Gzip => flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut text).map(drop).unwrap(),
                Coding::Br => brotli::Decompressor::new(&bytes[..], 4096).read_to_end(&mut text).map(drop).unwrap(),
                Coding::Zstd => text = zstd::decode_all(&bytes[..]).unwrap(),
            }
            assert!(text == parts.concat(), "{}", coding.word());
            assert!(bytes.len() < 1000, "{} is small: {}", coding.word(), bytes.len());
        }
    }

    fn response(fields: &[(&'static str, &'static str)]) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::Full(Bytes::from(vec![b'x'; 4096])));
        for (name, value) in fields {
            response.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        response
    }

    #[track_caller]
    fn check(fields: &[(&'static str, &'static str)], expected: Option<&str>) {
        let found = answer(&Compression::default(), Some(Coding::Gzip), &Method::GET, response(fields));
        let coding = found.headers().get(header::CONTENT_ENCODING).map(|it| it.to_str().unwrap());
        assert_eq!(coding, expected, "{fields:?}");
        let varies = found.headers().get(header::VARY).is_some_and(|it| it == "accept-encoding");
        assert_eq!(varies, expected == Some("gzip"), "{fields:?}");
    }

    #[test]
    fn only_what_may_be_changed_is_compressed() {
        check(&[("content-type", "application/json")], Some("gzip"));
        check(&[("content-type", "TEXT/HTML; charset=utf-8")], Some("gzip"));
        check(&[("content-type", "application/problem+json")], Some("gzip"));
        check(&[("content-type", "application/json"), ("content-encoding", "br")], Some("br"));
        check(&[("content-type", "application/json"), ("cache-control", "max-age=1, No-Transform")], None);
        check(&[("content-type", "application/json"), ("content-range", "bytes 0-4095/9999")], None);
        check(&[("content-type", "text/event-stream")], None);
        check(&[("content-type", "image/png")], None);
        check(&[("content-type", "application/grpc")], None);
        check(&[], None);
    }

    #[test]
    fn a_304_is_told_of_as_its_200_is() {
        let check =
            |fields: &[(&'static str, &'static str)], unsaid: &[(&'static str, &'static str)], expected: bool| {
                for (coding, method) in
                    [(Some(Coding::Gzip), Method::GET), (None, Method::GET), (Some(Coding::Br), Method::HEAD)]
                {
                    let mut given = response(fields).map(|_| ResponseBody::Empty);
                    *given.status_mut() = StatusCode::NOT_MODIFIED;
                    given.headers_mut().insert(header::ETAG, HeaderValue::from_static("\"v1\""));
                    if !unsaid.is_empty() {
                        given.extensions_mut().insert(Unsaid(response(unsaid).headers().clone()));
                    }
                    let found = answer(&Compression::default(), coding, &method, given);
                    let [etag, vary] = [header::ETAG, header::VARY].map(|name| found.headers().get(name));
                    let weak = expected && coding.is_some() && method == Method::GET;
                    assert_eq!(etag.unwrap(), if weak { "W/\"v1\"" } else { "\"v1\"" }, "{fields:?} {unsaid:?}");
                    assert_eq!(vary.is_some_and(|it| it == "accept-encoding"), expected, "{fields:?} {unsaid:?}");
                }
            };
        let json = ("content-type", "application/json");
        // An upstream's own.
        check(&[], &[], true);
        check(&[json, ("content-length", "0")], &[], true);
        check(&[json, ("content-length", "9")], &[], false);
        check(&[("content-type", "image/png")], &[], false);
        check(&[("content-encoding", "br")], &[], false);
        check(&[("cache-control", "no-transform")], &[], false);
        // The cache's.
        check(&[], &[json, ("content-length", "4096")], true);
        check(&[], &[json, ("content-length", "0")], false);
        check(&[], &[json, ("content-length", "4096"), ("content-encoding", "br")], false);
        check(&[], &[("content-type", "image/png"), ("content-length", "4096")], false);
        check(&[], &[("content-length", "4096")], false);
        check(&[("cache-control", "no-transform")], &[json, ("content-length", "4096")], false);
    }

    #[test]
    fn what_is_said_of_the_bytes_is_said_of_the_new_ones() {
        let fields = [
            ("content-type", "text/plain"),
            ("etag", "\"v1\""),
            ("content-length", "4096"),
            ("accept-ranges", "bytes"),
            ("content-digest", "sha-256=:x:"),
        ];
        let found = answer(&Compression::default(), Some(Coding::Br), &Method::GET, response(&fields));
        let headers = found.headers();
        assert_eq!(headers[header::ETAG], "W/\"v1\"");
        for gone in ["content-length", "accept-ranges", "content-digest"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        let head = answer(&Compression::default(), Some(Coding::Br), &Method::HEAD, response(&fields));
        assert_eq!(head.headers()[header::ETAG], "\"v1\"");
        assert_eq!(head.headers()[header::VARY], "accept-encoding");
    }
}
