//! Fields that belong to one hop, and a single look over a message's fields that finds them (RFC 9110 7.6.1).

use http::{HeaderMap, HeaderName, HeaderValue, header};
use quorumgate_model::mutants::{self, Mutant};

use crate::identity::fields;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// How this gateway names itself to both sides.
pub(super) const VIA_H1: HeaderValue = HeaderValue::from_static("1.1 quorumgate");
pub(super) const VIA_H2: HeaderValue = HeaderValue::from_static("2 quorumgate");
pub(super) const VIA_H3: HeaderValue = HeaderValue::from_static("3 quorumgate");
pub(super) const VIA_H10: HeaderValue = HeaderValue::from_static("1.0 quorumgate");

/// What is among a message's fields; found in one pass, so that nothing is looked up that is not there.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) fields: usize,
    /// As RFC 9113 6.5.2 counts them, without the overhead of 32 each.
    pub(super) bytes: usize,
    /// A value begins or ends with a space or a tab.
    pub(super) padded: bool,
    pub(super) connection: bool,
    pub(super) content_length: bool,
    pub(super) cookies: usize,
    pub(super) expect: bool,
    pub(super) forwarded: bool,
    pub(super) host: bool,
    /// Something that only this gateway may say.
    pub(super) identity: bool,
    keep_alive: bool,
    http2_settings: bool,
    proxy_authorization: bool,
    proxy_connection: bool,
    pub(super) te: bool,
    pub(super) traceparent: bool,
    pub(super) tracestate: bool,
    pub(super) transfer_encoding: bool,
    pub(super) upgrade: bool,
    pub(super) via: bool,
    /// A WebSocket handshake as it should be.
    pub(super) websocket: bool,
    pub(super) x_forwarded_for: bool,
    pub(super) x_forwarded_host: bool,
    pub(super) x_forwarded_proto: bool,
}

impl Seen {
    pub(super) fn look(headers: &HeaderMap) -> Self {
        let mut seen = Self::default();
        for (name, value) in headers {
            seen.fields += 1;
            seen.bytes += name.as_str().len() + value.len();
            seen.padded |= is_padded(value);
            match name.as_str() {
                "connection" => seen.connection = true,
                "content-length" => seen.content_length = true,
                "cookie" => seen.cookies += 1,
                "expect" => seen.expect = true,
                "forwarded" => seen.forwarded = true,
                "host" => seen.host = true,
                "http2-settings" => seen.http2_settings = true,
                "keep-alive" => seen.keep_alive = true,
                "proxy-authorization" => seen.proxy_authorization = true,
                "proxy-connection" => seen.proxy_connection = true,
                "te" => seen.te = true,
                "traceparent" => seen.traceparent = true,
                "tracestate" => seen.tracestate = true,
                "transfer-encoding" => seen.transfer_encoding = true,
                "upgrade" => seen.upgrade = true,
                "via" => seen.via = true,
                "x-forwarded-for" => seen.x_forwarded_for = true,
                "x-forwarded-host" => seen.x_forwarded_host = true,
                "x-forwarded-proto" => seen.x_forwarded_proto = true,
                name if fields::is_ours(name) => seen.identity = !mutants::is(Mutant::ClientSaysWhoItIs),
                _ => (),
            }
        }
        seen
    }

    /// Removes what belongs to this hop; `TE: trailers` stays, since trailers are passed on.
    pub(super) fn strip(&self, headers: &mut HeaderMap) {
        if self.connection && !mutants::is(Mutant::HopFieldsKept) {
            strip_named(headers);
        }
        let mut strip = |there: bool, name: HeaderName| {
            if there {
                headers.remove(name);
            }
        };
        strip(self.keep_alive, KEEP_ALIVE);
        strip(self.proxy_connection, PROXY_CONNECTION);
        strip(self.http2_settings, HTTP2_SETTINGS);
        strip(self.proxy_authorization, header::PROXY_AUTHORIZATION);
        strip(self.transfer_encoding, header::TRANSFER_ENCODING);
        strip(self.upgrade, header::UPGRADE);
        if self.te {
            let trailers = headers.get_all(header::TE).iter().any(names_trailers);
            headers.remove(header::TE);
            if trailers {
                headers.insert(header::TE, HeaderValue::from_static("trailers"));
            }
        }
    }
}

/// Only where a library takes values as they come: HTTP/1 has none (RFC 9112 5.1), and HTTP/2 and 3 allow none.
pub(crate) fn is_padded(value: &HeaderValue) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_space(value.as_bytes().first()) || is_space(value.as_bytes().last())
}

fn names_trailers(value: &HeaderValue) -> bool {
    value.as_bytes().split(|b| *b == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Removes Connection and the fields that it names, except those by which others know who asks and how.
fn strip_named(headers: &mut HeaderMap) {
    let mut named: Vec<HeaderName> = Vec::new();
    for value in headers.get_all(header::CONNECTION) {
        let tokens = value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii);
        // What most servers say; `strip` removes that field by itself.
        let tokens = tokens.filter(|token| !token.eq_ignore_ascii_case(b"keep-alive"));
        named.extend(tokens.filter_map(|token| HeaderName::from_bytes(token).ok()));
    }
    headers.remove(header::CONNECTION);
    for name in named.iter().filter(|name| !is_end_to_end(name.as_str())) {
        headers.remove(name);
    }
}

fn is_end_to_end(name: &str) -> bool {
    name.starts_with("x-forwarded-")
        || name.starts_with("x-consumer-")
        || name.starts_with("access-control-")
        || matches!(
            name,
            "authorization"
                | "content-encoding"
                | "content-length"
                | "content-type"
                | "cookie"
                | "forwarded"
                | "host"
                | "idempotency-key"
                | "origin"
                | "set-cookie"
                // Kept in the form that `strip` gives it.
                | "te"
                | "traceparent"
                | "tracestate"
                | "via"
                | "x-api-key"
                | "x-credential-id"
                | "x-real-ip"
                | "x-request-id"
        )
}

/// Fields that mean something in a message's head alone: who asks, on whose behalf, and how it is framed and routed.
pub(crate) fn is_of_head(name: &str) -> bool {
    is_end_to_end(name)
        || matches!(
            name,
            "connection"
                | "keep-alive"
                | "proxy-authorization"
                | "proxy-connection"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
                | "max-forwards"
                | "expect"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(fields: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        Seen::look(&headers).strip(&mut headers);
        let mut left: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        left.sort();
        left
    }

    #[test]
    fn fields_of_one_hop_are_removed() {
        let left = stripped(&[
            ("connection", "close, X-Internal"),
            ("x-internal", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, trailers"),
            ("accept", "*/*"),
        ]);
        assert_eq!(left, ["accept: */*", "te: trailers"]);
    }

    #[test]
    fn a_client_cannot_have_identity_removed() {
        let left = stripped(&[
            ("connection", "authorization, x-forwarded-for, x-request-id, cookie"),
            ("authorization", "a"),
            ("x-forwarded-for", "b"),
            ("x-request-id", "c"),
            ("cookie", "d"),
        ]);
        assert_eq!(left.len(), 4, "{left:?}");
    }
}
