//! Checks of a request's head that the HTTP library leaves to us.

use std::borrow::Cow;

use http::{
    HeaderMap, HeaderValue, Method, Version, header,
    request::Parts,
    uri::{Authority, Scheme},
};
use quorumgate_model::{
    canonical::BadPath,
    mutants::{self, Mutant},
};

use super::{Host, hops::Seen};
use crate::{refusal::Refusal, settings::ClientLimits, websocket};

/// The client waits until somebody asks for its body (RFC 9110 10.1.1).
pub(super) fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Sizes, smuggling, and what this gateway does not serve.
pub(super) fn check(parts: &Parts, limits: &ClientLimits) -> Result<Seen, Refusal> {
    if parts.uri.path().len() + parts.uri.query().map_or(0, |query| query.len() + 1) > limits.uri_bytes_max {
        return Err(Refusal::UriTooLong);
    }
    let mut seen = Seen::look(&parts.headers);
    if seen.fields > limits.header_fields_max || seen.bytes > limits.header_bytes_max {
        return Err(Refusal::HeadersTooLarge);
    }
    // RFC 9113 8.2.1 and 9114 4.2; what passes it on as HTTP/1 would make another value of it.
    if seen.padded && matches!(parts.version, Version::HTTP_2 | Version::HTTP_3) {
        return Err(Refusal::Malformed("a field's value begins or ends with a space or a tab"));
    }
    // HTTP/1.0 knows no upgrades: there the field is to be ignored (RFC 9110 7.8).
    let upgrades = seen.upgrade && parts.version != Version::HTTP_10 && !is_mere_offer(&parts.headers);
    if parts.method == Method::CONNECT {
        return Err(Refusal::UpgradeNotSupported);
    }
    if upgrades {
        websocket::check_request(parts)?;
        seen.websocket = true;
    }
    if seen.transfer_encoding {
        check_transfer_encoding(parts)?;
    }
    if seen.content_length {
        check_content_length(&parts.headers)?;
    }
    if seen.te && !is_te_trailers(&parts.headers) && matches!(parts.version, Version::HTTP_2 | Version::HTTP_3) {
        return Err(Refusal::Malformed("TE may only say trailers in HTTP/2"));
    }
    Ok(seen)
}

/// Obsolete offers to go on in HTTP/2 (RFC 9113 3.1) or in TLS (RFC 2817), which some clients make with every request:
/// may be left alone, unlike other upgrades.
fn is_mere_offer(headers: &HeaderMap) -> bool {
    let is_mere = |protocol: &[u8]| {
        protocol.eq_ignore_ascii_case(b"h2c") || protocol.get(..4).is_some_and(|it| it.eq_ignore_ascii_case(b"tls/"))
    };
    let mut values = headers.get_all(header::UPGRADE).iter();
    values.all(|value| value.as_bytes().split(|b| *b == b',').all(|protocol| is_mere(protocol.trim_ascii())))
}

/// Exactly one coding, `chunked`, in HTTP/1.1 and without a Content-Length beside it (RFC 9112 6.1, 6.3).
fn check_transfer_encoding(parts: &Parts) -> Result<(), Refusal> {
    let mut values = parts.headers.get_all(header::TRANSFER_ENCODING).iter();
    let only = match (values.next(), values.next()) {
        (Some(value), None) => value.as_bytes(),
        _ => return Err(Refusal::Malformed("more than one Transfer-Encoding")),
    };
    if parts.version != Version::HTTP_11 {
        return Err(Refusal::Malformed("Transfer-Encoding is for HTTP/1.1 only"));
    }
    if !only.eq_ignore_ascii_case(b"chunked") {
        return Err(Refusal::Malformed("the only Transfer-Encoding served is chunked"));
    }
    if parts.headers.contains_key(header::CONTENT_LENGTH) {
        return Err(Refusal::Malformed("both Content-Length and Transfer-Encoding"));
    }
    Ok(())
}

fn check_content_length(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit) => Ok(()),
        _ => Err(Refusal::Malformed("Content-Length must be one number")),
    }
}

fn is_te_trailers(headers: &HeaderMap) -> bool {
    headers.get(header::TE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"))
}

/// The authority from Host and, in HTTP/2 and absolute-form, from the target; both must agree (RFC 9110 7.2, 9112 3.2).
pub(super) fn host(parts: &Parts) -> Result<Host<'_>, Refusal> {
    let mut values = parts.headers.get_all(header::HOST).iter();
    let field = match (values.next(), values.next()) {
        (None, _) => None,
        (Some(_), Some(_)) if !mutants::is(Mutant::FirstOfTwoHosts) => {
            return Err(Refusal::Malformed("more than one Host"));
        }
        (Some(value), _) => Some(text(value)?),
    };
    let target = parts.uri.authority().map(Authority::as_str);
    match (field, target) {
        (Some(field), Some(target)) if !field.eq_ignore_ascii_case(target) => {
            let (field, target) = (split(field)?, split(target)?);
            // One of them may say the port that the other leaves to the scheme.
            let scheme_port = if parts.uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
            match field.name == target.name && field.port.unwrap_or(scheme_port) == target.port.unwrap_or(scheme_port) {
                true => Ok(field),
                false => Err(Refusal::Malformed("Host differs from the authority of the request target")),
            }
        }
        (Some(authority), _) | (None, Some(authority)) => split(authority),
        (None, None) if parts.version == Version::HTTP_10 => Ok(Host { name: Cow::Borrowed(""), port: None }),
        (None, None) => Err(Refusal::Malformed("Host is missing")),
    }
}

fn text(value: &HeaderValue) -> Result<&str, Refusal> {
    value.to_str().map_err(|_| Refusal::Malformed("Host is not a host name"))
}

/// `name`, `name:port`, `[v6]` or `[v6]:port`; no user information, nothing else (RFC 3986 3.2.2).
pub(super) fn split(authority: &str) -> Result<Host<'_>, Refusal> {
    let wrong = Refusal::Malformed("Host is not a host name");
    let (name, port) = match authority.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(None) => return Err(wrong),
        Some(Some((v6, rest))) => {
            let address = v6.parse::<std::net::Ipv6Addr>().map_err(|_| wrong.clone())?;
            let port = match rest.strip_prefix(':') {
                None if !rest.is_empty() => return Err(wrong),
                port => port_number(port)?,
            };
            // In the one form that routes have it in (RFC 5952).
            return Ok(Host { name: Cow::Owned(format!("[{address}]")), port });
        }
        None => match authority.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (authority, None),
        },
    };
    let of_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    if name.is_empty() || !name.bytes().all(of_name) {
        return Err(wrong);
    }
    let port = port_number(port)?;
    let name = match name.bytes().any(|b| b.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    };
    Ok(Host { name, port })
}

fn port_number(digits: Option<&str>) -> Result<Option<u16>, Refusal> {
    let Some(digits) = digits.filter(|digits| !digits.is_empty()) else { return Ok(None) };
    let number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
    number.map(Some).ok_or(Refusal::Malformed("Host is not a host name"))
}

pub(super) fn bad_path(bad: BadPath) -> Refusal {
    Refusal::BadPath(match bad {
        BadPath::NotAbsolute => "the path does not begin with a slash",
        BadPath::BadEscape => "the path has a percent sign without two hex digits",
        BadPath::ForbiddenByte => "the path has a control byte or a backslash",
        BadPath::DotSegmentWithParameters => "the path has a dot segment or an empty segment with parameters",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_split_or_refused() {
        for (authority, name, port) in [
            ("Api.Acme.test", "api.acme.test", None),
            ("a:80", "a", Some(80)),
            ("a:", "a", None),
            ("[::1]", "[::1]", None),
            ("[2001:DB8:0::1]:", "[2001:db8::1]", None),
            ("[::1]:8443", "[::1]", Some(8443)),
        ] {
            let host = split(authority).unwrap();
            assert_eq!((&*host.name, host.port), (name, port), "{authority}");
        }
        for bad in ["", ":80", "u@a", "a b", "a,b", "a:b", "a:99999", "[::1", "[x]", "[::1]x", "a:80:81", "a/b", "a#"] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }
}
