//! Request and response heads: how a request names what it wants on each protocol, and which responses are refused.

use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::Body;
use quorumgate_model::mutants::{self, Mutant};

use super::{Asks, Failure};

/// How a request names what it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Origin-form beside a Host.
    Http1,
    /// Scheme and authority.
    Http2(&'static str),
}

/// Sets version and target.
pub(super) fn address<B>(request: &mut Request<B>, uri: &Uri, form: Form) {
    match form {
        Form::Http1 => {
            *request.version_mut() = Version::HTTP_11;
            *request.uri_mut() = origin_form(uri);
        }
        Form::Http2(scheme) => {
            *request.version_mut() = Version::HTTP_2;
            let host = request.headers_mut().remove(HOST);
            let authority = host.and_then(|host| Authority::from_maybe_shared(host).ok());
            *request.uri_mut() = absolute_form(uri, authority, scheme);
        }
    }
}

/// A body of unknown length behind a method that seldom has one: the library would leave it out unless it is told.
pub(super) fn frame<B: Body>(request: &mut Request<B>, form: Form) {
    let seldom = matches!(*request.method(), Method::GET | Method::HEAD);
    if seldom && form == Form::Http1 && !request.body().is_end_stream() {
        let unknown = request.body().size_hint().exact().is_none() && !request.headers().contains_key(CONTENT_LENGTH);
        if unknown {
            request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
}

fn origin_form(uri: &Uri) -> Uri {
    if uri.scheme().is_none() && uri.authority().is_none() {
        return uri.clone();
    }
    Uri::from(path(uri))
}

fn absolute_form(uri: &Uri, host: Option<Authority>, scheme: &str) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.authority = host.or_else(|| uri.authority().cloned());
    let scheme = if scheme == "https" { Scheme::HTTPS } else { Scheme::HTTP };
    parts.scheme = parts.authority.is_some().then_some(scheme);
    parts.path_and_query = Some(path(uri));
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

fn path(uri: &Uri) -> PathAndQuery {
    uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"))
}

/// Framing that two readers could take differently (RFC 9112, 6.3), and a switch of protocols that nobody asked for.
pub(super) fn check<B>(response: &Response<B>, asks: Asks) -> Result<(), Failure> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS && asks != Asks::Upgrade {
        return Err(Failure::Protocol("101 without an Upgrade"));
    }
    let headers = response.headers();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next();
    if lengths.next().is_some() || length.is_some_and(|length| length.as_bytes().contains(&b',')) {
        return Err(Failure::Protocol("more than one Content-Length"));
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    if length.is_some() && !mutants::is(Mutant::AnswerOfTwoLengths) {
        return Err(Failure::Protocol("Content-Length beside Transfer-Encoding"));
    }
    match codings.next().is_none() && coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        true => Ok(()),
        false => Err(Failure::Protocol("a Transfer-Encoding other than chunked")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_that_two_readers_could_frame_differently_is_refused() {
        let check = |fields: &[(&str, &str)], ok: bool| {
            let response = fields.iter().fold(Response::builder(), |it, (name, value)| it.header(*name, *value));
            assert_eq!(super::check(&response.body(()).unwrap(), Asks::Answer).is_ok(), ok, "{fields:?}");
        };
        check(&[], true);
        check(&[("content-length", "5")], true);
        check(&[("transfer-encoding", "Chunked")], true);
        check(&[("content-length", "5"), ("content-length", "5")], false);
        check(&[("content-length", "5, 5")], false);
        check(&[("content-length", "5"), ("transfer-encoding", "chunked")], false);
        check(&[("transfer-encoding", "gzip, chunked")], false);
        check(&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], false);
    }

    #[test]
    fn each_protocol_names_the_target_its_way() {
        let check = |form, uri: &str, host: &str, expected: &str| {
            let mut request = Request::builder().header(HOST, host).body(()).unwrap();
            address(&mut request, &uri.parse().unwrap(), form);
            assert_eq!(request.uri().to_string(), expected);
        };
        check(Form::Http1, "/a?b=c", "shop.test", "/a?b=c");
        check(Form::Http1, "http://shop.test/a?b=c", "shop.test", "/a?b=c");
        check(Form::Http1, "http://shop.test", "shop.test", "/");
        check(Form::Http1, "*", "shop.test", "*");
        check(Form::Http2("http"), "/a?b=c", "shop.test:81", "http://shop.test:81/a?b=c");
        check(Form::Http2("http"), "https://other.test/a", "shop.test", "http://shop.test/a");
        check(Form::Http2("https"), "/a", "shop.test", "https://shop.test/a");
    }
}
