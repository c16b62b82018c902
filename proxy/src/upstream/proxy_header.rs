//! The PROXY protocol's header, which tells a server whom a connection is for (haproxy.org, "The PROXY protocol", 2.1
//! and 2.2). The destination is the server itself: what the client had connected to is the gateway's own affair.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use quorumgate_model::resource::ProxyProtocol;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// `whom` None: the gateway speaks for itself, as health checks do.
pub(crate) fn of(version: ProxyProtocol, whom: Option<SocketAddr>, server: SocketAddr) -> Vec<u8> {
    match (version, whom) {
        (ProxyProtocol::V1, None) => b"PROXY UNKNOWN\r\n".to_vec(),
        (ProxyProtocol::V1, Some(whom)) => {
            let (from, to) = same_family(whom, server);
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {from} {to} {} {}\r\n", whom.port(), server.port()).into_bytes()
        }
        (ProxyProtocol::V2, None) => [SIGNATURE, &[LOCAL, 0, 0, 0]].concat(),
        (ProxyProtocol::V2, Some(whom)) => {
            let mut addresses = Vec::with_capacity(36);
            let family = match same_family(whom, server) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    addresses.extend_from_slice(&from.octets());
                    addresses.extend_from_slice(&to.octets());
                    TCP4
                }
                (from, to) => {
                    addresses.extend_from_slice(&v6(from).octets());
                    addresses.extend_from_slice(&v6(to).octets());
                    TCP6
                }
            };
            addresses.extend_from_slice(&whom.port().to_be_bytes());
            addresses.extend_from_slice(&server.port().to_be_bytes());
            [SIGNATURE, &[PROXY, family, 0, addresses.len() as u8], &addresses].concat()
        }
    }
}

/// Both IPv4 if they are, else both IPv6.
fn same_family(from: SocketAddr, to: SocketAddr) -> (IpAddr, IpAddr) {
    match (from.ip().to_canonical(), to.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (from.into(), to.into()),
        (from, to) => (v6(from).into(), v6(to).into()),
    }
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_as_the_specification_has_them() {
        let check = |version, whom: Option<&str>, server: &str, expected: &[u8]| {
            let whom = whom.map(|it| it.parse().unwrap());
            assert_eq!(of(version, whom, server.parse().unwrap()), expected, "{whom:?}");
        };
        let (v1, v2) = (ProxyProtocol::V1, ProxyProtocol::V2);
        check(v1, Some("192.0.2.1:56324"), "10.0.0.1:443", b"PROXY TCP4 192.0.2.1 10.0.0.1 56324 443\r\n");
        check(v1, Some("[::ffff:192.0.2.1]:1"), "10.0.0.1:443", b"PROXY TCP4 192.0.2.1 10.0.0.1 1 443\r\n");
        check(v1, Some("[2001:db8::1]:7"), "10.0.0.1:443", b"PROXY TCP6 2001:db8::1 ::ffff:10.0.0.1 7 443\r\n");
        check(v1, None, "10.0.0.1:443", b"PROXY UNKNOWN\r\n");
        let v4 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\x0a\0\0\x01\xdc\x04\x01\xbb";
        check(v2, Some("192.0.2.1:56324"), "10.0.0.1:443", v4);
        check(v2, None, "10.0.0.1:443", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
        let six = of(v2, Some("[2001:db8::1]:7".parse().unwrap()), "[2001:db8::2]:443".parse().unwrap());
        assert_eq!((six.len(), &six[12..16], &six[48..]), (52, &[0x21, 0x21, 0, 36][..], &[0, 7, 1, 187][..]));
    }
}
