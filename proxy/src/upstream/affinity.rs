//! What keeps a caller with its target: the key that `balance.hash_on` names, taken from a request.

use http::{HeaderMap, header::COOKIE};
use quorumgate_model::resource::HashOn;

use super::{Caller, maglev};

/// None: the request has nothing of the kind.
pub(super) fn key(on: &HashOn, caller: &Caller<'_>, headers: &HeaderMap) -> Option<u64> {
    match on {
        HashOn::Ip => Some(match caller.address.ip().to_canonical() {
            std::net::IpAddr::V4(ip) => maglev::key(&ip.octets()),
            std::net::IpAddr::V6(ip) => maglev::key(&ip.octets()),
        }),
        HashOn::Consumer => caller.consumer.map(|name| maglev::key(name.as_bytes())),
        HashOn::Header(name) => headers.get(name).map(|value| maglev::key(value.as_bytes())),
        HashOn::Cookie(name) => cookie(headers, name).map(maglev::key),
    }
}

fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|b| *b == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_key_is_found_where_it_is_and_nowhere_else() {
        let mut headers = HeaderMap::new();
        headers.insert("x-user", "ada".parse().unwrap());
        headers.append(COOKIE, "theme=dark; session=ada".parse().unwrap());
        let at = |address: &str| Caller { address: address.parse().unwrap(), consumer: Some("ada") };
        let caller = at("192.0.2.1:1000");
        let of = |on| key(&on, &caller, &headers);
        let same = of(HashOn::Header("x-user".into()));
        assert!(same.is_some());
        assert_eq!(of(HashOn::Cookie("session".into())), same);
        assert_eq!(of(HashOn::Consumer), same);
        assert_eq!(of(HashOn::Cookie("sess".into())), None);
        assert_eq!(of(HashOn::Header("x-none".into())), None);
        // Whatever the port, and whether the socket is of both families.
        assert_eq!(of(HashOn::Ip), key(&HashOn::Ip, &at("[::ffff:192.0.2.1]:7"), &headers));
        assert_ne!(of(HashOn::Ip), key(&HashOn::Ip, &at("192.0.2.2:1000"), &headers));
    }
}
