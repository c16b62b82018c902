//! Answers that a route gives without an upstream.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use quorumgate_model::resource::{Redirect, Respond};

use super::Host;
use crate::{body::ResponseBody, refusal::Refusal};

/// What the redirect does not name is taken from the request; the query stays unless the path is replaced by one with
/// its own.
pub(super) fn redirect(
    redirect: &Redirect,
    tls: bool,
    host: &Host<'_>,
    path: &str,
    query: Option<&str>,
) -> Result<Response<ResponseBody>, Refusal> {
    let scheme_now = if tls { "https" } else { "http" };
    let scheme = redirect.scheme.as_deref().unwrap_or(scheme_now);
    let name = redirect.host.as_deref().unwrap_or(&host.name);
    // Another scheme or host has its own default port.
    let same_place = redirect.host.is_none() && scheme == scheme_now;
    let port = redirect.port.or(host.port.filter(|_| same_place));
    let port = port.filter(|port| *port != if scheme == "https" { 443 } else { 80 });
    let path = redirect.path.as_deref().unwrap_or(path);
    let mut location = match (name, port) {
        // What begins with two slashes would be read as a host (RFC 3986 4.2).
        ("", _) if path.starts_with("//") => "/.".into(),
        ("", _) => String::new(),
        (name, None) => format!("{scheme}://{name}"),
        (name, Some(port)) => format!("{scheme}://{name}:{port}"),
    };
    location.push_str(path);
    if let Some(query) = query.filter(|_| !path.contains('?')) {
        location.push('?');
        location.push_str(query);
    }
    let location = HeaderValue::try_from(location).map_err(|_| Refusal::BadPath("the path cannot be redirected"))?;
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = StatusCode::from_u16(redirect.status).map_err(|_| Refusal::BrokenRule)?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// `OPTIONS *` asks about the server as a whole, which is this one (RFC 9110 9.3.7).
pub(super) fn options() -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    response.headers_mut().insert(header::ALLOW, methods);
    response
}

pub(super) fn respond(respond: &Respond) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Full(Bytes::copy_from_slice(respond.body.as_bytes())));
    *response.status_mut() = StatusCode::from_u16(respond.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if matches!(respond.status, 204 | 304) {
        *response.body_mut() = ResponseBody::Empty;
    }
    let headers = response.headers_mut();
    for (name, value) in &respond.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    for framing in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION] {
        headers.remove(framing);
    }
    if !respond.body.is_empty() && !headers.contains_key(header::CONTENT_TYPE) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    response
}
