//! The PROXY header: it ends where it says, whatever follows, and what we write ourselves we read.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use quorumgate_model::resource::ProxyProtocol;
use quorumgate_proxy::fuzzing::{ProxyHeader, proxy_header, proxy_header_of};

pub fn check(input: &[u8]) {
    prefixes(input);
    if let Some(addresses) = input.first_chunk::<36>() {
        round_trip(addresses);
    }
}

/// The answer comes with the header's last byte, and no later byte changes it.
fn prefixes(input: &[u8]) {
    let said = proxy_header(input);
    let decided = (0..input.len()).find(|end| proxy_header(&input[..*end]) != ProxyHeader::Unfinished);
    if let Some(end) = decided {
        assert_eq!(proxy_header(&input[..end]), said, "decided by {end} bytes, and otherwise by {}", input.len());
    }
    if let ProxyHeader::Header { bytes, .. } = said {
        assert!(bytes <= input.len(), "{bytes} of {}", input.len());
        assert_eq!(decided.unwrap_or(input.len()), bytes, "decided before its end, or after");
        assert!(input.starts_with(b"PROXY ") || input.starts_with(b"\r\n\r\n\0\r\nQUIT\n"));
    }
}

fn round_trip(bytes: &[u8; 36]) {
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let v4 = |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
    let v6 = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[at..at + 16]).expect("sixteen bytes"));
    let whom = [SocketAddr::new(v4(0).into(), port(32)), SocketAddr::new(v6(0).into(), port(32))];
    let servers = [SocketAddr::new(v4(16).into(), port(34)), SocketAddr::new(v6(16).into(), port(34))];
    for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
        for server in servers {
            for whom in whom {
                let header = proxy_header_of(version, Some(whom), server);
                let ProxyHeader::Header { bytes, client: Some(client) } = proxy_header(&header) else {
                    panic!("{version:?} of {whom} at {server} is not read: {header:?}");
                };
                assert_eq!((bytes, client.port()), (header.len(), whom.port()));
                assert_eq!(client.ip().to_canonical(), whom.ip().to_canonical(), "{version:?}");
            }
            let alone = proxy_header_of(version, None, server);
            assert_eq!(proxy_header(&alone), ProxyHeader::Header { bytes: alone.len(), client: None });
        }
    }
}
