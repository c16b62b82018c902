//! Doors for the crate `fuzz` into parsers that are nobody else's business; nothing here decides anything.

use std::net::SocketAddr;

use http::request::Parts;
use hyper::server::conn::http1;
use quorumgate_model::resource::ProxyProtocol;

use crate::{
    connection, exchange,
    framescan::FrameScan,
    headscan::{HeadScan, Wrong},
    proxy_protocol::{self, Said},
    settings::ClientLimits,
    upstream::proxy_header,
};

/// What the look at raw HTTP/1 made of a stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Heads {
    /// Behind which byte each head ended, as long as it could follow.
    pub ends: Vec<usize>,
    pub verdict: Option<&'static str>,
    /// How many requests have nothing wrong in or before them, from the first on.
    pub good: u64,
}

/// The stream comes in whole as far as the HTTP library is concerned: byte by byte, and never between two requests.
pub fn heads(stream: &[u8]) -> Heads {
    let (mut scan, mut ends) = (HeadScan::default(), Vec::new());
    for (at, byte) in stream.iter().enumerate() {
        scan.feed(std::slice::from_ref(byte), None);
        if scan.heads() > ends.len() as u64 {
            ends.push(at + 1);
        }
    }
    let good = (0..=scan.heads()).take_while(|it| scan.verdict_within(*it).is_none()).last().unwrap_or_default();
    Heads { ends, verdict: scan.verdict().map(Wrong::why), good }
}

/// How many heads ended and what was wrong, if the stream comes in as these parts.
pub fn heads_of_parts<'b>(parts: impl IntoIterator<Item = &'b [u8]>) -> (u64, Option<&'static str>) {
    let mut scan = HeadScan::default();
    parts.into_iter().for_each(|part| scan.feed(part, None));
    (scan.heads(), scan.verdict().map(Wrong::why))
}

/// The HTTP library as every HTTP/1 connection of a client has it.
pub fn http1() -> http1::Builder {
    connection::http1(&ClientLimits::default())
}

/// Whether an exchange would go on behind this head, as far as its framing and its host are concerned.
pub fn is_head_served(parts: &Parts) -> bool {
    exchange::is_head_served(parts)
}

/// What the look at HTTP/2's frames made of a stream from the client: a flood, and what an orderly end would say.
pub fn frames<'b>(parts: impl IntoIterator<Item = &'b [u8]>) -> (Option<&'static str>, bool, Option<Vec<u8>>) {
    let mut scan = FrameScan::new(0);
    parts.into_iter().for_each(|part| scan.came_in(part, 0));
    (scan.flood(), scan.has_begun(), scan.go_away("").map(|it| it.to_vec()))
}

/// What some first bytes of a trusted peer say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    Header { bytes: usize, client: Option<SocketAddr> },
    Unfinished,
    Wrong,
}

pub fn proxy_header(bytes: &[u8]) -> ProxyHeader {
    match proxy_protocol::parse(bytes) {
        Said::Header { bytes, client } => ProxyHeader::Header { bytes, client },
        Said::Unfinished => ProxyHeader::Unfinished,
        Said::Wrong => ProxyHeader::Wrong,
    }
}

/// As upstreams are sent it.
pub fn proxy_header_of(version: ProxyProtocol, whom: Option<SocketAddr>, server: SocketAddr) -> Vec<u8> {
    proxy_header::of(version, whom, server)
}
