//! A QUIC socket that answers first packets without an address token by a Retry itself (RFC 9000 section 8.1.2), where
//! they come in: no key is derived for them, nothing is kept, and what goes back is a tenth of what came. The library would
//! do several times as much for each, and takes one for a part of another whose connection id it has.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{SystemTime, UNIX_EPOCH},
};

use ::aws_lc_rs::rand;
use quinn::{
    AsyncUdpSocket, ConnectionId, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio_util::sync::CancellationToken;

use super::{Quic, VERSION_1};

/// RFC 9000 section 14.1: a smaller datagram holds no first packet.
const DATAGRAM_BYTES_MIN: usize = 1_200;
/// RFC 9000 sections 7.2 and 17.2.
const FIRST_ID_BYTES_MIN: usize = 8;
const ID_BYTES_MAX: usize = 20;
/// As long as the library's own ids: what comes back to it with a token is checked for that.
const OWN_ID_BYTES: usize = 8;
const NONCE_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
/// Of a token: its type, an address, a port, an id, a time, and what seals it.
const TOKEN_BYTES_MAX: usize = 1 + 17 + 2 + 1 + ID_BYTES_MAX + 8 + TAG_BYTES + NONCE_BYTES;
const RETRY_BYTES_MAX: usize = 5 + 1 + ID_BYTES_MAX + 1 + OWN_ID_BYTES + TOKEN_BYTES_MAX + TAG_BYTES;
const _: () = assert!(RETRY_BYTES_MAX <= DATAGRAM_BYTES_MIN / 8, "next to nothing goes to who may not be there");

pub(super) struct Doorkeeper {
    inner: Arc<dyn AsyncUdpSocket>,
    quic: Quic,
    /// Nobody new is let in any more.
    closed: CancellationToken,
}

impl fmt::Debug for Doorkeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doorkeeper").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// What a Retry needs to know of a first packet that has no token.
#[derive(Debug, PartialEq, Eq)]
struct First<'a> {
    to: &'a [u8],
    from: &'a [u8],
}

impl<'a> First<'a> {
    /// None: it is for the library, whatever it is.
    fn read(datagram: &'a [u8]) -> Option<Self> {
        if datagram.len() < DATAGRAM_BYTES_MIN {
            return None;
        }
        let (flags, rest) = datagram.split_first()?;
        // A long header with the fixed bit, of the type Initial (section 17.2.2).
        if flags & 0b1111_0000 != 0b1100_0000 {
            return None;
        }
        let (version, rest) = rest.split_first_chunk()?;
        if u32::from_be_bytes(*version) != VERSION_1 {
            return None;
        }
        let (to, rest) = id(rest)?;
        let (from, rest) = id(rest)?;
        // The token's length.
        let none = *rest.first()? == 0;
        (none && to.len() >= FIRST_ID_BYTES_MIN).then_some(Self { to, from })
    }

    /// None: there is no randomness to be had.
    fn retry(&self, quic: &Quic, client: SocketAddr, now: SystemTime) -> Option<Vec<u8>> {
        let mut random = [0; OWN_ID_BYTES + NONCE_BYTES];
        rand::fill(&mut random).ok()?;
        let (own, nonce) = random.split_at(OWN_ID_BYTES);
        let mut packet = Vec::with_capacity(RETRY_BYTES_MAX);
        packet.push(0b1111_0000);
        packet.extend(VERSION_1.to_be_bytes());
        put_id(&mut packet, self.from);
        put_id(&mut packet, own);
        packet.extend(self.token(quic, client, now, nonce)?);
        let tag = quic.0.crypto.retry_tag(VERSION_1, &ConnectionId::new(self.to), &packet);
        packet.extend(tag);
        Some(packet)
    }

    /// As the library reads it: sealed, and the nonce behind it.
    fn token(&self, quic: &Quic, client: SocketAddr, now: SystemTime, nonce: &[u8]) -> Option<Vec<u8>> {
        const RETRY: u8 = 0;
        let mut token = vec![RETRY];
        match client.ip() {
            IpAddr::V4(ip) => {
                token.push(0);
                token.extend(ip.octets());
            }
            IpAddr::V6(ip) => {
                token.push(1);
                token.extend(ip.octets());
            }
        }
        token.extend(client.port().to_be_bytes());
        put_id(&mut token, self.to);
        token.extend(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().to_be_bytes());
        quic.1.aead_from_hkdf(nonce).seal(&mut token, &[]).ok()?;
        token.extend(nonce);
        Some(token)
    }
}

fn id(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let length = usize::from(*length);
    if length > ID_BYTES_MAX { None } else { rest.split_at_checked(length) }
}

fn put_id(bytes: &mut Vec<u8>, id: &[u8]) {
    bytes.push(id.len() as u8);
    bytes.extend(id);
}

impl Doorkeeper {
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>, quic: Quic, closed: CancellationToken) -> Self {
        Self { inner, quic, closed }
    }

    /// Leaves the library what is not answered here.
    fn answer(&self, bytes: &mut [u8], meta: &mut RecvMeta) {
        let (mut kept, mut at) = (0, 0);
        while at < meta.len {
            let end = (at + meta.stride.max(1)).min(meta.len);
            match First::read(&bytes[at..end]) {
                Some(first) => self.retry(&first, meta),
                None => {
                    bytes.copy_within(at..end, kept);
                    kept += end - at;
                }
            }
            at = end;
        }
        meta.len = kept;
    }

    /// What cannot be sent is lost, as on a network: the client comes again.
    fn retry(&self, first: &First<'_>, meta: &RecvMeta) {
        if let Some(packet) = first.retry(&self.quic, meta.addr, SystemTime::now()) {
            let _ = self.inner.try_send(&Transmit {
                destination: meta.addr,
                ecn: None,
                contents: &packet,
                segment_size: None,
                src_ip: meta.dst_ip,
            });
        }
    }
}

impl AsyncUdpSocket for Doorkeeper {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = ready!(self.inner.poll_recv(cx, bufs, metas))?;
        if !self.closed.is_cancelled() {
            for (bytes, meta) in bufs.iter_mut().zip(metas).take(received) {
                self.answer(bytes, meta);
            }
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(flags: u8, version: u32, to: &[u8], from: &[u8], token: &[u8], bytes: usize) -> Vec<u8> {
        let mut datagram = vec![flags];
        datagram.extend(version.to_be_bytes());
        put_id(&mut datagram, to);
        put_id(&mut datagram, from);
        put_id(&mut datagram, token);
        datagram.resize(bytes, 0);
        datagram
    }

    #[test]
    fn only_a_first_packet_without_a_token_is_answered_here() {
        let (to, from) = ([1; 8], [2; 5]);
        let check = |datagram: &[u8], expected: bool| {
            let read = First::read(datagram);
            assert_eq!(read, expected.then_some(First { to: &to, from: &from }), "{:?}", &datagram[..20]);
        };
        check(&datagram(0xc3, 1, &to, &from, &[], 1_200), true);
        check(&datagram(0xc0, 1, &to, &from, &[], 1_500), true);
        check(&datagram(0xc3, 1, &to, &from, &[], 1_199), false);
        check(&datagram(0xc3, 1, &to, &from, b"token", 1_200), false);
        check(&datagram(0xc3, 0xff00_001d, &to, &from, &[], 1_200), false);
        // 0-RTT, Handshake, Retry, a short header, no fixed bit.
        for flags in [0xd3, 0xe3, 0xf3, 0x43, 0x83] {
            check(&datagram(flags, 1, &to, &from, &[], 1_200), false);
        }
        check(&datagram(0xc3, 1, &to[..7], &from, &[], 1_200), false);
        check(&datagram(0xc3, 1, &[1; 21], &from, &[], 1_200), false);
        check(&datagram(0xc3, 1, &to, &[2; 21], &[], 1_200), false);
    }
}
