//! Where calls of this gateway's own may go: key sets, discovery, introspection, tokens. An address is judged after its
//! name was resolved, by what it reaches, so that no name, notation or embedding hides it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use quorumgate_model::mutants::{self, Mutant};

/// What the object that holds the URL says in `allow_private`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    Public,
    /// Loopback and private addresses too.
    Private,
}

impl Reach {
    pub fn takes(self, address: IpAddr) -> bool {
        match place(address) {
            Place::Public => true,
            Place::Private => self == Self::Private,
            Place::Never => mutants::is(Mutant::MetadataInReach),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Public,
    /// This machine, its networks, and what is routed nowhere.
    Private,
    /// Link-local and metadata addresses, multicast, and tunnels whose end cannot be told.
    Never,
}

/// Metadata services that have no link-local address: AWS and GCP over IPv6, Azure's host, Alibaba, Oracle.
const METADATA: [IpAddr; 5] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
];

pub(super) fn place(address: IpAddr) -> Place {
    if METADATA.contains(&address) {
        return Place::Never;
    }
    match address {
        IpAddr::V4(address) => place_v4(address),
        IpAddr::V6(address) => place_v6(address),
    }
}

/// The IANA special-purpose registry (RFC 6890).
fn place_v4(address: Ipv4Addr) -> Place {
    match address.octets() {
        [0, ..] | [169, 254, ..] | [224..=239, ..] | [255, 255, 255, 255] => Place::Never,
        [10, ..] | [127, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Place::Private,
        [192, 0, 0 | 2, _] | [198, 18..=19, ..] | [198, 51, 100, _] | [203, 0, 113, _] | [240..=255, ..] => {
            Place::Private
        }
        _ => Place::Public,
    }
}

fn place_v6(address: Ipv6Addr) -> Place {
    let inner = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        place(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Place::Private,
        // IPv4 within IPv6: compatible, mapped, NAT64, 6to4.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => inner(high, low),
        [0x2002, high, low, ..] => inner(high, low),
        // NAT64 of a local network, Teredo.
        [0x64, 0xff9b, 1, ..] | [0x2001, 0, ..] => Place::Never,
        [0xfe80..=0xfebf | 0xff00.., ..] => Place::Never,
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] | [0x2001, 0xdb8, ..] | [0x100, 0, 0, 0, ..] => Place::Private,
        [0x2000..=0x3fff, ..] => Place::Public,
        _ => Place::Private,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_judged_by_what_it_reaches() {
        let check = |addresses: &str, expected: Place| {
            for address in addresses.split_whitespace() {
                assert_eq!(place(address.parse().unwrap()), expected, "{address}");
            }
        };
        check("1.1.1.1 93.184.216.34 172.15.0.1 172.32.0.1 100.63.0.1 2606:4700::1111 64:ff9b::1.1.1.1", Place::Public);
        check("2002:101:101::1 ::ffff:1.1.1.1", Place::Public);
        check("127.0.0.1 127.255.0.1 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1", Place::Private);
        check(
            "::1 fc00::1 fdff::1 fec0::1 ::ffff:127.0.0.1 ::127.0.0.1 2002:7f00:1::1 64:ff9b::10.0.0.1",
            Place::Private,
        );
        check("240.0.0.1 198.18.0.1 192.0.2.1 2001:db8::1 100::1 4000::1", Place::Private);
        check("169.254.169.254 169.254.0.1 0.0.0.0 0.1.2.3 224.0.0.1 255.255.255.255", Place::Never);
        check("fe80::1 febf::1 ff02::1 :: ::ffff:169.254.169.254 ::169.254.169.254", Place::Never);
        check("64:ff9b::169.254.169.254 2002:a9fe:a9fe::1 64:ff9b:1::1 2001:0:1::1", Place::Never);
        check("168.63.129.16 100.100.100.200 192.0.0.192 fd00:ec2::254 fd20:ce::254", Place::Never);
        check("::ffff:168.63.129.16 ::ffff:100.100.100.200", Place::Never);
    }

    #[test]
    fn private_addresses_need_a_word_and_metadata_has_none() {
        let check = |address: &str, reach: Reach, expected: bool| {
            assert_eq!(reach.takes(address.parse().unwrap()), expected, "{address} {reach:?}");
        };
        check("127.0.0.1", Reach::Public, false);
        check("127.0.0.1", Reach::Private, true);
        check("169.254.169.254", Reach::Private, false);
        check("1.1.1.1", Reach::Public, true);
    }
}
