//! The web page: files of `dashboard/` that the program carries, given to anybody. They hold nothing of the cluster; what the
//! page shows it asks for under `/api/v1`, with its reader's token.

mod files;

use std::{convert::Infallible, io::Write, sync::OnceLock};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use tonic::body::Body;

use self::files::FILES;

const PREFIX: &str = "/ui/";
const INDEX: &str = "index.html";
/// Where files lie that have their own hash in their names.
const HASHED: &str = "assets/";

/// Nothing but what this node serves: no other host, no script or style in the page itself, no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

const HEADERS: [(&str, &str); 7] = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
];

/// One file of the page, as `files.rs` lists them.
pub struct File {
    pub path: &'static str,
    pub content_type: &'static str,
    pub bytes: &'static [u8],
}

pub fn is_ours(path: &str) -> bool {
    path == "/ui" || path.starts_with(PREFIX)
}

/// Without regard to who asks.
pub fn answer<B>(request: &Request<B>) -> Response<Body> {
    let mut response = found(request.method(), request.uri().path(), request.headers());
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn found(method: &Method, path: &str, headers: &HeaderMap) -> Response<Body> {
    if method != Method::GET && method != Method::HEAD {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "allowed: GET, HEAD\n");
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let Some(name) = path.strip_prefix(PREFIX) else {
        let mut moved = plain(StatusCode::PERMANENT_REDIRECT, "the page is at /ui/\n");
        moved.headers_mut().insert(header::LOCATION, HeaderValue::from_static(PREFIX));
        return moved;
    };
    let name = if name.is_empty() { INDEX } else { name };
    let Some(at) = FILES.iter().position(|file| file.path == name) else {
        return plain(StatusCode::NOT_FOUND, "there is no such file; the page is at /ui/\n");
    };
    let file = &FILES[at];
    let mut response = Response::default();
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.content_type));
    fields.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    // What has its own hash in its name never changes; the page that names it does with every build.
    let kept = if name.starts_with(HASHED) { "public, max-age=31536000, immutable" } else { "no-cache" };
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static(kept));
    let packed = takes_gzip(headers).then(|| packed(at)).flatten();
    if packed.is_some() {
        fields.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    let bytes = packed.unwrap_or(Bytes::from_static(file.bytes));
    fields.insert(header::CONTENT_LENGTH, bytes.len().into());
    if method == Method::GET {
        *response.body_mut() = body(bytes);
    }
    response
}

fn body(bytes: Bytes) -> Body {
    Body::new(Full::new(bytes).map_err(|never: Infallible| match never {}))
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(body(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Browsers name it without a weight; whoever gives it the weight 0 does not want it.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let fields = headers.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|field| field.to_str().ok());
    fields.flat_map(|field| field.split(',')).any(|coding| match coding.split_once(';') {
        None => coding.trim().eq_ignore_ascii_case("gzip"),
        Some((coding, weight)) => {
            let weight = weight.trim().trim_start_matches("q=").trim_end_matches(['0', '.']);
            coding.trim().eq_ignore_ascii_case("gzip") && !weight.is_empty()
        }
    })
}

/// Packed once in the life of the process.
fn packed(at: usize) -> Option<Bytes> {
    static PACKED: OnceLock<Vec<Option<Bytes>>> = OnceLock::new();
    let all = PACKED.get_or_init(|| FILES.iter().map(|file| pack(file.bytes)).collect());
    all[at].clone()
}

fn pack(bytes: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn asked(method: Method, path: &str, accepts: &str) -> Response<Body> {
        let request = Request::builder().method(method).uri(path).header("accept-encoding", accepts).body(()).unwrap();
        answer(&request)
    }

    async fn bytes(response: Response<Body>) -> Vec<u8> {
        response.into_body().collect().await.unwrap().to_bytes().to_vec()
    }

    #[tokio::test]
    async fn every_file_is_served_as_it_was_built_packed_or_not() {
        for file in FILES {
            let path = format!("{PREFIX}{}", file.path);
            let whole = asked(Method::GET, &path, "identity, gzip;q=0");
            assert_eq!(whole.headers()["content-type"], file.content_type);
            assert_eq!(bytes(whole).await, file.bytes, "{path}");
            let packed = asked(Method::GET, &path, "gzip, deflate, br");
            assert_eq!(packed.headers()["content-encoding"], "gzip");
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(&*bytes(packed).await).read_to_end(&mut unpacked).unwrap();
            assert_eq!(unpacked, file.bytes, "{path}");
        }
    }

    #[test]
    fn what_has_a_hash_in_its_name_is_kept_and_the_page_itself_is_asked_for_again() {
        for file in FILES {
            let response = asked(Method::GET, &format!("{PREFIX}{}", file.path), "");
            let kept = response.headers()["cache-control"].to_str().unwrap();
            assert_eq!(kept.contains("immutable"), file.path.starts_with(HASHED), "{}: {kept}", file.path);
        }
    }

    #[tokio::test]
    async fn the_page_runs_nothing_but_its_own_files() {
        let response = asked(Method::GET, PREFIX, "");
        let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        for (name, value) in HEADERS {
            assert_eq!(response.headers()[name], value);
        }
        let page = String::from_utf8(bytes(response).await).unwrap();
        let own = |text: &str| text.trim_start_matches("./").starts_with("assets/");
        let named = page.split("src=\"").skip(1).chain(page.split("href=\"").skip(1));
        let named: Vec<_> = named.filter_map(|rest| rest.split('"').next()).collect();
        assert!(named.len() >= 2 && named.iter().all(|it| own(it)), "{named:?}");
        for forbidden in ["<style", "style=", "onload=", "javascript:", "http://", "https://"] {
            assert!(!page.contains(forbidden), "{forbidden}: {page}");
        }
    }

    #[test]
    fn there_is_nothing_else() {
        let status = |method, path: &str| asked(method, path, "").status();
        assert_eq!(status(Method::GET, "/ui"), StatusCode::PERMANENT_REDIRECT);
        assert_eq!(status(Method::HEAD, "/ui/"), StatusCode::OK);
        assert_eq!(status(Method::POST, "/ui/"), StatusCode::METHOD_NOT_ALLOWED);
        for path in ["/ui/nothing", "/ui/../Cargo.toml", "/ui/%2e%2e/x", "/ui//index.html"] {
            assert_eq!(status(Method::GET, path), StatusCode::NOT_FOUND, "{path}");
        }
        assert!(!is_ours("/uix") && !is_ours("/") && is_ours("/ui"));
    }
}
