//! What a compressed body of a request unpacks into: counted while the body passes by as it is, so that no upstream gets a
//! small one that becomes more than its route allows.

use std::{
    io::{self, BufRead, ErrorKind, Read},
    sync::Arc,
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, header};
use http_body::Frame;

use crate::{
    client_body::ClientFault,
    held::{Held, Holding},
    metrics::WorkerMetrics,
};

/// Unpacked at one go, before others get their turn on this worker.
const OUT_BYTES_AT_ONCE: usize = 1 << 20;
const OUT_BYTES: usize = 8 << 10;
/// log2 of the largest window: 8 MiB, which RFC 8878 3.1.1.1.2 has every decoder take.
const ZSTD_WINDOW: u32 = 23;
/// What a decoder may hold, and for Brotli nearly always does not exceed (16 MiB is the most).
const SMALL_BYTES: u64 = 64 << 10;
const LARGE_BYTES: u64 = 8 << 20;

/// The one coding of a body (RFC 9110 8.4.1, RFC 7932, RFC 8878); `Unknown`: several, or none that is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coded {
    Plain,
    Gzip,
    Deflate,
    Br,
    Zstd,
    Unknown,
}

impl Coded {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all(header::CONTENT_ENCODING).iter();
        let words = values.flat_map(|value| value.as_bytes().split(|b| *b == b',')).map(<[u8]>::trim_ascii);
        let is = |word: &[u8], name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        let mut words = words.filter(|word| !word.is_empty() && !is(word, "identity"));
        let Some(word) = words.next() else { return Self::Plain };
        match word {
            _ if words.next().is_some() => Self::Unknown,
            word if is(word, "gzip") || is(word, "x-gzip") => Self::Gzip,
            word if is(word, "deflate") => Self::Deflate,
            word if is(word, "br") => Self::Br,
            word if is(word, "zstd") => Self::Zstd,
            _ => Self::Unknown,
        }
    }

    /// What a decoder may hold, counted as body bytes held.
    fn decoder_bytes(self) -> u64 {
        if matches!(self, Self::Br | Self::Zstd) { LARGE_BYTES } else { SMALL_BYTES }
    }
}

/// One body that is looked into.
pub(crate) struct Unpacked {
    decoder: Decoder,
    /// What it has become so far.
    bytes: u64,
    max: u64,
    /// What was read last, until it is looked through. None: nothing; the end is a frame too.
    waiting: Option<Option<Frame<Bytes>>>,
    is_over: bool,
    has_begun: bool,
    /// Memory of the decoder, as if bytes of the body were held.
    _held: Holding,
}

enum Decoder {
    Gzip(Box<flate2::bufread::MultiGzDecoder<Source>>),
    Deflate(Box<flate2::bufread::ZlibDecoder<Source>>),
    Br(Box<brotli::Decompressor<Source>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Source>>),
}

/// What is to be unpacked next; with nothing of it left the decoder waits.
#[derive(Default)]
struct Source {
    bytes: Bytes,
    ended: bool,
}

impl Unpacked {
    /// None: there is nothing to unpack.
    pub(crate) fn new(coded: Coded, max: u64, metrics: &Arc<WorkerMetrics>) -> Option<Self> {
        let decoder = Decoder::new(coded, Source::default())?;
        let held = Holding::new(coded.decoder_bytes(), metrics);
        Some(Self { decoder, bytes: 0, max, waiting: None, is_over: false, has_begun: false, _held: held })
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// What comes next of the body; None: its end.
    pub(crate) fn give(&mut self, frame: Option<Frame<Bytes>>) {
        let source = self.decoder.source();
        match frame.as_ref().and_then(Frame::data_ref) {
            Some(bytes) => {
                self.has_begun |= !bytes.is_empty();
                source.bytes = bytes.clone();
            }
            None => source.ended = true,
        }
        self.waiting = Some(frame);
    }

    /// Looks through some of what was given, and gives it back once that is done. None: there is more to look through.
    pub(crate) fn look(&mut self) -> Result<Option<Option<Frame<Bytes>>>, ClientFault> {
        match self.unpack()? {
            true => Ok(self.waiting.take()),
            false => Ok(None),
        }
    }

    /// True: all of it.
    fn unpack(&mut self) -> Result<bool, ClientFault> {
        let mut out = [0; OUT_BYTES];
        for _ in 0..OUT_BYTES_AT_ONCE / OUT_BYTES {
            if self.is_over || !self.has_begun {
                // Nobody knows what stands behind the end, or what it becomes.
                return if self.decoder.source().bytes.is_empty() { Ok(true) } else { Err(ClientFault::Broken) };
            }
            match self.decoder.read(&mut out) {
                Ok(0) => self.is_over = true,
                Ok(n) => {
                    self.bytes += n as u64;
                    if self.bytes > self.max {
                        return Err(ClientFault::UnpacksTooLarge);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(_) => return Err(ClientFault::Packed),
            }
        }
        Ok(false)
    }
}

/// All that a whole body unpacks into, unless that is too much. Others get their turn on this worker meanwhile. None: it holds
/// as much as it may.
pub(crate) async fn whole(
    coded: Coded,
    packed: Bytes,
    bytes_max: u64,
    metrics: &Arc<WorkerMetrics>,
    is_overloaded: impl Fn() -> bool,
) -> Result<Option<Bytes>, ClientFault> {
    let Some(mut decoder) = Decoder::new(coded, Source { bytes: packed.clone(), ended: true }) else {
        return Ok(Some(packed));
    };
    let mut holding = Holding::new(coded.decoder_bytes(), metrics);
    let mut out = Vec::new();
    let mut part = [0; OUT_BYTES];
    loop {
        let Ok(n) = decoder.read(&mut part) else { return Err(ClientFault::Packed) };
        if n == 0 {
            break;
        }
        if (out.len() + n) as u64 > bytes_max {
            return Err(ClientFault::UnpacksTooLarge);
        }
        holding.grow(n as u64);
        if is_overloaded() {
            return Ok(None);
        }
        out.extend_from_slice(&part[..n]);
        if out.len() / OUT_BYTES_AT_ONCE > (out.len() - n) / OUT_BYTES_AT_ONCE {
            tokio::task::yield_now().await;
        }
    }
    // Nobody knows what stands behind the end, or what it becomes.
    match decoder.source().bytes.is_empty() {
        true => Ok(Some(Bytes::from_owner(Held::new(out.into(), metrics)))),
        false => Err(ClientFault::Broken),
    }
}

impl Decoder {
    /// None: there is nothing to unpack.
    fn new(coded: Coded, source: Source) -> Option<Self> {
        Some(match coded {
            Coded::Plain | Coded::Unknown => return None,
            Coded::Gzip => Self::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(source))),
            Coded::Deflate => Self::Deflate(Box::new(flate2::bufread::ZlibDecoder::new(source))),
            Coded::Br => Self::Br(Box::new(brotli::Decompressor::new(source, 4 << 10))),
            Coded::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(source).ok()?;
                decoder.window_log_max(ZSTD_WINDOW).ok()?;
                Self::Zstd(Box::new(decoder))
            }
        })
    }

    fn source(&mut self) -> &mut Source {
        match self {
            Self::Gzip(it) => it.get_mut(),
            Self::Deflate(it) => it.get_mut(),
            Self::Br(it) => it.get_mut(),
            Self::Zstd(it) => it.get_mut(),
        }
    }

    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(it) => it.read(out),
            Self::Deflate(it) => it.read(out),
            Self::Br(it) => it.read(out),
            Self::Zstd(it) => it.read(out),
        }
    }
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.bytes.is_empty() && !self.ended {
            true => Err(ErrorKind::WouldBlock.into()),
            false => Ok(&self.bytes),
        }
    }

    fn consume(&mut self, bytes: usize) {
        self.bytes.advance(bytes);
    }
}

impl Read for Source {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let n = bytes.len().min(into.len());
        into[..n].copy_from_slice(&bytes[..n]);
        self.consume(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const PLAIN: usize = 3 << 20;

    fn packed(coded: Coded) -> Vec<u8> {
        let plain = vec![b'x'; PLAIN];
        match coded {
            Coded::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(&plain).unwrap();
                encoder.finish().unwrap()
            }
            Coded::Deflate => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(&plain).unwrap();
                encoder.finish().unwrap()
            }
            Coded::Br => {
                let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 4, 19);
                encoder.write_all(&plain).unwrap();
                encoder.into_inner()
            }
            _ => zstd::encode_all(&plain[..], 3).unwrap(),
        }
    }

    /// How often it had to look; the fault, if any.
    fn looked(coded: Coded, max: u64, parts: &[&[u8]]) -> (usize, Result<(), ClientFault>) {
        let metrics = Arc::default();
        let mut unpacked = Unpacked::new(coded, max, &metrics).unwrap();
        assert!(metrics.buffered_bytes.value() >= SMALL_BYTES);
        let mut looks = 0;
        let frames = parts.iter().map(|part| Some(Frame::data(Bytes::copy_from_slice(part)))).chain([None]);
        for frame in frames {
            unpacked.give(frame);
            loop {
                looks += 1;
                match unpacked.look() {
                    Ok(Some(_)) => break,
                    Ok(None) => {}
                    Err(fault) => return (looks, Err(fault)),
                }
            }
        }
        drop(unpacked);
        assert_eq!(metrics.buffered_bytes.value(), 0);
        (looks, Ok(()))
    }

    #[test]
    fn what_a_body_becomes_is_counted_however_it_comes_in() {
        for coded in [Coded::Gzip, Coded::Deflate, Coded::Br, Coded::Zstd] {
            let bytes = packed(coded);
            let (looks, whole) = looked(coded, PLAIN as u64, &[&bytes]);
            assert_eq!(whole, Ok(()), "{coded:?}");
            assert!(looks > 3, "{coded:?}: others got their turn {looks} times");
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(looked(coded, PLAIN as u64, &single).1, Ok(()), "{coded:?}");
            assert_eq!(looked(coded, PLAIN as u64 - 1, &[&bytes]).1, Err(ClientFault::UnpacksTooLarge), "{coded:?}");
            // A bomb is known long before its end.
            assert_eq!(
                looked(coded, 100_000, &single[..bytes.len() - 4]).1,
                Err(ClientFault::UnpacksTooLarge),
                "{coded:?}"
            );
        }
    }

    #[test]
    fn what_cannot_be_unpacked_goes_no_further() {
        for coded in [Coded::Gzip, Coded::Deflate, Coded::Br, Coded::Zstd] {
            let bytes = packed(coded);
            assert!(looked(coded, 1 << 30, &[b"\xff\xfenot what it says"]).1.is_err(), "{coded:?}");
            assert!(looked(coded, 1 << 30, &[&bytes, b"behind it"]).1.is_err(), "{coded:?}");
            assert_eq!(looked(coded, 1 << 30, &[]).1, Ok(()), "{coded:?}");
        }
        // Of several members each counts.
        let twice = [packed(Coded::Gzip), packed(Coded::Gzip)].concat();
        assert_eq!(looked(Coded::Gzip, PLAIN as u64 + 1, &[&twice]).1, Err(ClientFault::UnpacksTooLarge));
        let twice = [packed(Coded::Zstd), packed(Coded::Zstd)].concat();
        assert_eq!(looked(Coded::Zstd, PLAIN as u64 + 1, &[&twice]).1, Err(ClientFault::UnpacksTooLarge));
    }

    #[test]
    fn one_coding_is_told_from_several() {
        let check = |values: &[&'static str], expected| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONTENT_ENCODING, http::HeaderValue::from_static(value));
            }
            assert_eq!(Coded::of(&headers), expected, "{values:?}");
        };
        check(&[], Coded::Plain);
        check(&["identity, "], Coded::Plain);
        check(&["X-GZip"], Coded::Gzip);
        check(&["identity", "br"], Coded::Br);
        check(&["gzip, br"], Coded::Unknown);
        check(&["gzip", "gzip"], Coded::Unknown);
        check(&["compress"], Coded::Unknown);
    }
}
