//! Fields behind a body, a client's or an upstream's: bounded like those before it, and without what only a head may say.

use http::{HeaderMap, HeaderName};
use quorumgate_model::mutants::{self, Mutant};

use crate::{exchange::hops, identity::fields};

pub(crate) const TRAILER_BYTES_MAX: usize = 16 << 10;
pub(crate) const TRAILER_FIELDS_MAX: usize = 128;

/// Why they are not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// More than may come in.
    TooLarge,
    /// A value begins or ends with a space, which HTTP/2 and 3 do not allow and HTTP/1 does not have.
    Padded,
}

/// What is left of them when those are gone by which a message is framed, routed or believed (RFC 9110 6.5.1): some servers
/// take trailers for fields of the head.
pub(crate) fn passed_on(mut trailers: HeaderMap) -> Result<HeaderMap, Unfit> {
    let bytes: usize = trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if trailers.len() > TRAILER_FIELDS_MAX || bytes > TRAILER_BYTES_MAX {
        return Err(Unfit::TooLarge);
    }
    if trailers.values().any(hops::is_padded) {
        return Err(Unfit::Padded);
    }
    let misplaced: Vec<HeaderName> = trailers.keys().filter(|name| is_of_heads(name)).cloned().collect();
    for name in misplaced {
        trailers.remove(name);
    }
    Ok(trailers)
}

fn is_of_heads(name: &HeaderName) -> bool {
    fields::is_ours(name.as_str()) && !mutants::is(Mutant::TrailersSayWhoItIs) || hops::is_of_head(name.as_str())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn trailers_cannot_say_what_heads_say() {
        let trailers = [
            "transfer-encoding",
            "content-length",
            "host",
            "authorization",
            "x-consumer-name",
            "x_consumer_id",
            "x-forwarded-for",
            "x-request-id",
            "grpc-status",
            "x-checksum",
            "server-timing",
        ];
        let map =
            trailers.map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1"))).into_iter().collect();
        let left = passed_on(map).unwrap();
        let mut left: Vec<&str> = left.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["grpc-status", "server-timing", "x-checksum"]);
    }

    #[test]
    fn trailers_have_no_spaces_around_their_values() {
        for (value, expected) in [("a b", true), ("", true), (" a", false), ("a ", false), ("a\t", false)] {
            let map = HeaderMap::from_iter([(HeaderName::from_static("x-a"), HeaderValue::from_static(value))]);
            assert_eq!(passed_on(map).is_ok(), expected, "{value:?}");
        }
    }

    #[test]
    fn trailers_have_limits() {
        let of = |bytes: usize| {
            let value = HeaderValue::try_from("a".repeat(bytes)).unwrap();
            passed_on(HeaderMap::from_iter([(HeaderName::from_static("x-a"), value)]))
        };
        assert!(of(16_000).is_ok());
        assert_eq!(of(17_000), Err(Unfit::TooLarge));
        let many = (0..200).map(|n| (HeaderName::try_from(format!("x-{n}")).unwrap(), HeaderValue::from_static("")));
        assert_eq!(passed_on(many.collect()), Err(Unfit::TooLarge));
    }
}
