//! What our objects are called. A name says what it was made from as far as 63 characters go; behind that a hash says it
//! all. Routes of equal precedence go by name, so a route's name begins with its age, as the Gateway API asks.

use crate::api::{Id, Kind};

const NAME_BYTES_MAX: usize = 63;
const HASH_BYTES: usize = 8;
/// A backend that cannot be asked, for its share of a split: an address that is nobody's (RFC 6666).
pub const NOWHERE: &str = "k8s.nowhere";

pub fn listener(port: u16) -> String {
    format!("k8s-{port}")
}

pub fn certificate(port: u16, secret: &Id, is_default: bool) -> String {
    let tail = if is_default { ".default" } else { "" };
    fit("k8s.", &dotted(secret), &format!(".{port}{tail}"))
}

pub fn authority(config_map: &Id) -> String {
    fit("k8s.", &dotted(config_map), "")
}

pub fn upstream(service: &Id, port: u16, variant: &str) -> String {
    fit("k8s.", &dotted(service), &format!(".{port}{variant}"))
}

/// `age`: seconds since 1970.
pub fn route(age: u32, kind: Kind, id: &Id, (rule, place): (usize, usize), port: u16) -> String {
    let letter = if kind == Kind::GrpcRoute { 'g' } else { 'h' };
    fit(&format!("k8s.{age:08x}."), &dotted(id), &format!(".{letter}{rule:02}.{place:03}.{port}"))
}

fn dotted(id: &Id) -> String {
    format!("{}.{}", id.namespace, id.name)
}

fn fit(head: &str, middle: &str, tail: &str) -> String {
    let room = NAME_BYTES_MAX - head.len() - tail.len();
    if middle.len() <= room {
        return format!("{head}{middle}{tail}");
    }
    let hash = blake3::hash(middle.as_bytes()).to_hex();
    // Namespaces and names of Kubernetes are ASCII (RFC 1123).
    let cut: String = middle.chars().take(room - HASH_BYTES - 1).collect();
    format!("{head}{cut}.{}{tail}", &hash[..HASH_BYTES])
}

#[cfg(test)]
mod tests {
    use quorumgate_model::resource::Name;

    use super::*;

    #[test]
    fn names_are_names_whatever_they_are_made_from() {
        let long = Id::new(&"n".repeat(63), &"x.".repeat(126));
        let other = Id::new(&"n".repeat(63), &"y.".repeat(126));
        for name in [
            listener(65535),
            certificate(65535, &long, true),
            authority(&long),
            upstream(&long, 65535, ".grpc.patient"),
            route(u32::MAX, Kind::GrpcRoute, &long, (99, 999), 65535),
            NOWHERE.to_owned(),
        ] {
            name.parse::<Name>().unwrap();
        }
        assert_ne!(upstream(&long, 80, ""), upstream(&other, 80, ""));
        assert_eq!(upstream(&Id::new("shop", "orders"), 80, ".grpc"), "k8s.shop.orders.80.grpc");
    }

    #[test]
    fn routes_of_equal_rank_go_by_age_then_name_then_place() {
        let name = |age, namespace: &str, name: &str, rule, place| {
            route(age, Kind::HttpRoute, &Id::new(namespace, name), (rule, place), 80)
        };
        let ordered = [
            name(1, "z", "z", 9, 99),
            name(2, "a", "a", 0, 0),
            name(2, "a", "a", 0, 1),
            name(2, "a", "a", 0, 10),
            name(2, "a", "a", 1, 0),
            name(2, "a", "a", 10, 0),
            name(2, "a-b", "a", 0, 0),
            name(2, "b", "a", 0, 0),
        ];
        let mut sorted = ordered.clone();
        sorted.sort();
        // `a-b/a` stands before `a/a` in the alphabet of ASCII, as the Gateway API compares `namespace/name`.
        let expected = [0, 6, 1, 2, 3, 4, 5, 7].map(|at: usize| ordered[at].clone());
        assert_eq!(sorted, expected);
    }
}
