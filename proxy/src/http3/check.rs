//! What RFC 9114 asks of a message and the library does not check.

use h3::ext::Protocol;
use http::{HeaderMap, Method, Request, header, uri::Scheme};

/// Fields of a connection, which HTTP/3 has none of (section 4.2).
const CONNECTION_FIELDS: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// What a well-formed head declares as the length of its body, if anything. None: it is malformed (section 4.1.2).
pub(super) fn head(request: &Request<()>) -> Option<Option<u64>> {
    let (uri, headers) = (request.uri(), request.headers());
    if CONNECTION_FIELDS.iter().any(|name| headers.contains_key(*name)) {
        return None;
    }
    // Section 4.2: the one thing that TE may say.
    if headers.get_all(header::TE).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        return None;
    }
    // Section 4.3.1: a request has a scheme and a path that is not empty; CONNECT has neither (4.4), unless it names a
    // protocol (RFC 9220), which nothing else does.
    let whole =
        uri.scheme().is_some_and(|it| *it == Scheme::HTTPS || *it == Scheme::HTTP) && uri.path_and_query().is_some();
    let bare = uri.scheme().is_none() && uri.path_and_query().is_none();
    let names_protocol = request.extensions().get::<Protocol>().is_some();
    let as_its_method_asks = match (request.method() == Method::CONNECT, names_protocol) {
        (true, false) => bare,
        (true, true) | (false, false) => whole,
        (false, true) => false,
    };
    // Section 4.3.1: no user information.
    if !as_its_method_asks || uri.authority().is_some_and(|it| it.as_str().contains('@')) {
        return None;
    }
    declared(headers)
}

/// Trailers have neither framing nor what belongs to a connection.
pub(super) fn trailers(headers: &HeaderMap) -> bool {
    let of_connection = CONNECTION_FIELDS.iter().any(|name| headers.contains_key(*name));
    !of_connection && !headers.contains_key(header::CONTENT_LENGTH)
}

/// Several equal lengths are refused like unequal ones.
fn declared(headers: &HeaderMap) -> Option<Option<u64>> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    match (values.next(), values.next()) {
        (None, _) => Some(None),
        (Some(value), None) => {
            let digits = value.to_str().ok().filter(|it| !it.is_empty() && it.bytes().all(|b| b.is_ascii_digit()))?;
            digits.parse().ok().map(Some)
        }
        (Some(_), Some(_)) => None,
    }
}

/// An answer's fields without those of a connection.
pub(super) fn for_http3(headers: &mut HeaderMap) {
    for name in CONNECTION_FIELDS {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_head_is_told_from_a_good_one() {
        let check = |uri: &str, fields: &[(&str, &str)], expected: Option<Option<u64>>| {
            let mut request = Request::builder().uri(uri);
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            assert_eq!(head(&request.body(()).unwrap()), expected, "{uri} {fields:?}");
        };
        check("https://a.test/", &[], Some(None));
        check("https://a.test/", &[("content-length", "7"), ("te", "trailers")], Some(Some(7)));
        check("https://a.test/", &[("content-length", "+7")], None);
        check("https://a.test/", &[("content-length", "7"), ("content-length", "7")], None);
        check("https://a.test/", &[("te", "gzip")], None);
        check("ftp://a.test/", &[], None);
        check("https://user@a.test/", &[], None);
        for name in CONNECTION_FIELDS {
            check("https://a.test/", &[(name, "x")], None);
        }
    }
}
