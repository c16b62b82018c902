//! A TLS session of QUIC that takes a client's transport parameters under the number of version 1 alone (RFC 9001 section
//! 8.2). The TLS library takes them under that of the drafts (0xffa5) too, so the client's first message is looked at as
//! it passes.

use std::{any::Any, mem, sync::Arc};

use quinn::{
    ConnectionId, Side,
    crypto::{
        ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig, Session, UnsupportedVersion,
        rustls::QuicServerConfig,
    },
};
use quinn_proto::{TransportError, transport_parameters::TransportParameters};

use super::VERSION_1;

/// The extension `quic_transport_parameters`.
const PARAMETERS: u16 = 0x39;
/// Of a message: its kind and its length (RFC 8446 section 4).
const HEAD_BYTES: usize = 4;
/// The longest message that the TLS library takes.
const HELLO_BYTES_MAX: usize = 64 << 10;

pub(super) struct Sessions(pub(super) Arc<QuicServerConfig>);

impl ServerConfig for Sessions {
    fn initial_keys(&self, version: u32, to: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.0.initial_keys(version, to)
    }

    fn retry_tag(&self, version: u32, to: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.0.retry_tag(version, to, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, ours: &TransportParameters) -> Box<dyn Session> {
        let inner = self.0.clone().start_session(version, ours);
        match version {
            VERSION_1 => Box::new(Looked { inner, hello: Hello::default() }),
            // The drafts, whose number it is.
            _ => inner,
        }
    }
}

struct Looked {
    inner: Box<dyn Session>,
    hello: Hello,
}

/// The ClientHello.
enum Hello {
    Coming(Vec<u8>),
    Whole { has_parameters: bool },
}

impl Default for Hello {
    fn default() -> Self {
        Self::Coming(Vec::new())
    }
}

impl Hello {
    fn feed(&mut self, bytes: &[u8]) {
        let Self::Coming(so_far) = self else { return };
        so_far.extend(bytes.iter().take(HELLO_BYTES_MAX + HEAD_BYTES - so_far.len()));
        let Some([_, length @ ..]) = so_far.first_chunk::<HEAD_BYTES>() else { return };
        let length = number(length);
        // What is longer the library refuses.
        if length > HELLO_BYTES_MAX || so_far.len() >= HEAD_BYTES + length {
            let has_parameters = has_parameters(&mem::take(so_far)[HEAD_BYTES..]).unwrap_or(false);
            *self = Self::Whole { has_parameters };
        }
    }
}

/// None: it is malformed, which the library says.
fn has_parameters(hello: &[u8]) -> Option<bool> {
    const VERSION_AND_RANDOM: usize = 2 + 32;
    let (_, rest) = hello.split_at_checked(VERSION_AND_RANDOM)?;
    let (_session, rest) = vector::<1>(rest)?;
    let (_suites, rest) = vector::<2>(rest)?;
    let (_compressions, rest) = vector::<1>(rest)?;
    let (mut extensions, _) = vector::<2>(rest)?;
    while let Some((kind, rest)) = extensions.split_first_chunk() {
        if u16::from_be_bytes(*kind) == PARAMETERS {
            return Some(true);
        }
        (_, extensions) = vector::<2>(rest)?;
    }
    Some(false)
}

/// What a length of so many bytes stands before, and what comes behind it.
fn vector<const N: usize>(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<N>()?;
    rest.split_at_checked(number(length))
}

/// Of three bytes at most.
fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

impl Session for Looked {
    fn initial_keys(&self, to: &ConnectionId, side: Side) -> Keys {
        self.inner.initial_keys(to, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.inner.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.inner.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.inner.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.inner.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        self.hello.feed(bytes);
        self.inner.read_handshake(bytes)
    }

    /// Asked for once the hello is whole; of none at all quinn makes `missing_extension`.
    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        match self.hello {
            Hello::Whole { has_parameters: true } => self.inner.transport_parameters(),
            Hello::Whole { has_parameters: false } | Hello::Coming(_) => Ok(None),
        }
    }

    fn write_handshake(&mut self, bytes: &mut Vec<u8>) -> Option<Keys> {
        self.inner.write_handshake(bytes)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.inner.next_1rtt_keys()
    }

    fn is_valid_retry(&self, to: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.inner.is_valid_retry(to, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.inner.export_keying_material(output, label, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With these extensions, each of three bytes.
    fn hello(kinds: &[u16]) -> Vec<u8> {
        let mut body = vec![3; 34];
        body.extend([2, 0, 0, 0, 4, 0x13, 1, 0x13, 2, 1, 0]);
        body.extend((kinds.len() as u16 * 7).to_be_bytes());
        for kind in kinds {
            body.extend(kind.to_be_bytes());
            // Its bytes could be taken for the extension itself.
            body.extend([0, 3, 0, 0x39, 0]);
        }
        [&[1, 0, 0, body.len() as u8][..], &body].concat()
    }

    #[test]
    fn parameters_count_under_the_number_of_version_1_alone() {
        let check = |kinds: &[u16], expected: bool| {
            let bytes = hello(kinds);
            for size in 1..=bytes.len() {
                let mut hello = Hello::default();
                for part in bytes.chunks(size) {
                    assert!(matches!(hello, Hello::Coming(_)), "whole before its end, in parts of {size}");
                    hello.feed(part);
                }
                // What comes behind it is another message.
                hello.feed(&bytes);
                let Hello::Whole { has_parameters } = hello else { panic!("not whole, in parts of {size}") };
                assert_eq!(has_parameters, expected, "{kinds:x?} in parts of {size}");
            }
        };
        check(&[PARAMETERS], true);
        check(&[0, 16, PARAMETERS, 0xffa5], true);
        check(&[0xffa5], false);
        check(&[0, 0xffa5, 51], false);
        check(&[], false);
    }

    #[test]
    fn no_bytes_are_too_many_or_too_wrong() {
        let good = hello(&[0, PARAMETERS]);
        for cut in HEAD_BYTES..good.len() - 7 {
            let mut short = good[..cut].to_vec();
            short[3] = (cut - HEAD_BYTES) as u8;
            let mut hello = Hello::default();
            hello.feed(&short);
            assert!(matches!(hello, Hello::Whole { has_parameters: false }), "cut at {cut}");
        }
        let mut hello = Hello::default();
        hello.feed(&[1, 0xff, 0xff, 0xff]);
        assert!(matches!(hello, Hello::Whole { has_parameters: false }));
        let mut hello = Hello::default();
        hello.feed(&[&[1_u8, 1, 0, 0][..], &vec![0; 2 * HELLO_BYTES_MAX]].concat());
        assert!(matches!(hello, Hello::Whole { has_parameters: false }));
    }
}
