//! Answers of a portal with the fields that keep browsers from doing more with them than to show them.

use http::{HeaderValue, Response, StatusCode, header};

use super::html::Href;
use crate::body::ResponseBody;

/// No script, nothing from elsewhere, forms to this site alone.
const CSP: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);
const STYLE: &str = include_str!("style.css");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

pub(super) fn style() -> Response<ResponseBody> {
    let mut response = bare(StatusCode::OK, STYLE.to_owned());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/css; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=300"));
    response
}

/// Every page says who is signed in: no cache keeps any.
pub(super) fn page(status: StatusCode, text: String) -> Response<ResponseBody> {
    let mut response = bare(status, text);
    response.headers_mut().insert(header::CONTENT_TYPE, HTML);
    response.headers_mut().insert(header::CACHE_CONTROL, NO_STORE);
    response
}

pub(super) fn bare(status: StatusCode, text: String) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Full(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, CSP);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    // With less a browser would not say where a form comes from.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

pub(super) fn see_other(href: &Href) -> Response<ResponseBody> {
    to(HeaderValue::try_from(href.as_str()).unwrap_or(HeaderValue::from_static("/")))
}

pub(super) fn to(location: HeaderValue) -> Response<ResponseBody> {
    let mut response = bare(StatusCode::SEE_OTHER, String::new());
    *response.body_mut() = ResponseBody::Empty;
    response.headers_mut().insert(header::LOCATION, location);
    response.headers_mut().insert(header::CACHE_CONTROL, NO_STORE);
    response
}
