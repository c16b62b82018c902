//! One call of this gateway's own over HTTP/1.1, with everything bounded: where it goes, how long it takes, how much
//! comes back. A connection of its own each time: such calls are rare, or cached.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header, uri::Scheme};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::egress::{Place, Reach, place};

/// All of one call: looking up, connecting, TLS, asking, reading, redirects.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const REDIRECTS_MAX: usize = 3;
/// The fields of an answer, hyper's least.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const USER_AGENT: &str = concat!("quorumgate/", env!("CARGO_PKG_VERSION"));

/// An absolute URL that this gateway may call, as far as can be told before its name is resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    uri: Uri,
    /// Without the brackets of IPv6.
    host: Box<str>,
    port: u16,
    tls: bool,
}

/// What is asked, beside where.
#[derive(Debug, Clone)]
pub struct Ask {
    pub method: Method,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub reach: Reach,
    pub bytes_max: usize,
}

#[derive(Debug)]
pub struct Answer {
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why there is no answer of status 200.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    #[error("not an absolute http or https URL without a user")]
    Url,
    #[error("{0} is refused: link-local and metadata addresses always, private ones without allow_private")]
    Address(IpAddr),
    #[error("{0} is public and wants https")]
    Cleartext(IpAddr),
    #[error("a redirect to another host or scheme, or more than {REDIRECTS_MAX}")]
    Redirect,
    #[error("this machine has no root certificates")]
    NoRoots,
    #[error("the name is not resolved: {0}")]
    Resolve(String),
    #[error("no connection: {0}")]
    Connect(String),
    #[error("TLS: {0}")]
    Tls(String),
    #[error("HTTP: {0}")]
    Http(String),
    #[error("status {0}")]
    Status(u16),
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

#[derive(Clone)]
pub struct Fetcher {
    tls: Option<Arc<ClientConfig>>,
    timeout: Duration,
}

impl Endpoint {
    pub fn parse(url: &str) -> Result<Self, FetchError> {
        let uri: Uri = url.parse().map_err(|_| FetchError::Url)?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(FetchError::Url),
        };
        let authority = uri.authority().filter(|it| !it.as_str().contains('@')).ok_or(FetchError::Url)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(FetchError::Url);
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { host: host.to_ascii_lowercase().into(), port, tls, uri })
    }

    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// A place on the same host, over TLS if this one is.
    fn redirected(&self, location: Option<&HeaderValue>) -> Result<Self, FetchError> {
        let location = location.and_then(|it| it.to_str().ok()).ok_or(FetchError::Redirect)?;
        let next = match location.starts_with('/') && !location.starts_with("//") {
            true => {
                let mut parts = self.uri.clone().into_parts();
                parts.path_and_query = Some(location.parse().map_err(|_| FetchError::Redirect)?);
                let uri = Uri::from_parts(parts).map_err(|_| FetchError::Redirect)?;
                Self { uri, ..self.clone() }
            }
            false => Self::parse(location).map_err(|_| FetchError::Redirect)?,
        };
        let same = next.host == self.host && next.port == self.port && next.tls == self.tls;
        same.then_some(next).ok_or(FetchError::Redirect)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

impl Ask {
    pub fn get(reach: Reach, bytes_max: usize) -> Self {
        Self { method: Method::GET, headers: HeaderMap::new(), body: Bytes::new(), reach, bytes_max }
    }

    /// A form, as the token and introspection endpoints of OAuth want it.
    pub fn form(reach: Reach, bytes_max: usize, body: String) -> Self {
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, form)]);
        Self { method: Method::POST, headers, body: body.into(), reach, bytes_max }
    }
}

impl Fetcher {
    /// Trusts what the machine trusts. One without any root certificate can still call private addresses.
    pub fn platform() -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_platform_verifier());
        match config {
            Ok(config) => Self::new(config.with_no_client_auth()),
            Err(error) => {
                tracing::warn!(%error, "no root certificates: https of identity providers cannot be verified");
                Self { tls: None, timeout: TIMEOUT }
            }
        }
    }

    pub fn new(mut tls: ClientConfig) -> Self {
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { tls: Some(Arc::new(tls)), timeout: TIMEOUT }
    }

    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The answer, if it is 200 and within the bounds. A GET follows redirects that stay on its host.
    pub async fn fetch(&self, endpoint: &Endpoint, ask: &Ask) -> Result<Answer, FetchError> {
        let following = async {
            let mut endpoint = endpoint.clone();
            for _ in 0..=REDIRECTS_MAX {
                match self.once(&endpoint, ask).await? {
                    Outcome::Answer(answer) => return Ok(answer),
                    Outcome::Redirect(location) => endpoint = endpoint.redirected(location.as_ref())?,
                }
            }
            Err(FetchError::Redirect)
        };
        timeout(self.timeout, following).await.unwrap_or(Err(FetchError::Timeout(self.timeout)))
    }

    async fn once(&self, endpoint: &Endpoint, ask: &Ask) -> Result<Outcome, FetchError> {
        let stream = connect(endpoint, ask.reach).await?;
        if !endpoint.tls {
            return converse(stream, endpoint, ask).await;
        }
        let tls = self.tls.clone().ok_or(FetchError::NoRoots)?;
        let name = ServerName::try_from(endpoint.host.to_string()).map_err(|_| FetchError::Url)?;
        let stream = TlsConnector::from(tls).connect(name, stream).await;
        converse(stream.map_err(|error| FetchError::Tls(error.to_string()))?, endpoint, ask).await
    }
}

enum Outcome {
    Answer(Answer),
    Redirect(Option<HeaderValue>),
}

/// Connects to an address that was judged, never to a name again: nobody can change what it means in between.
async fn connect(endpoint: &Endpoint, reach: Reach) -> Result<TcpStream, FetchError> {
    let found = match endpoint.host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, endpoint.port)],
        Err(_) => tokio::net::lookup_host((&*endpoint.host, endpoint.port))
            .await
            .map_err(|error| FetchError::Resolve(error.to_string()))?
            .collect(),
    };
    let mut why = FetchError::Resolve("no address".into());
    for address in found.into_iter().take(ADDRESSES_MAX) {
        if let Err(refused) = admissible(address.ip(), reach, endpoint.tls) {
            why = refused;
            continue;
        }
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => why = FetchError::Connect(error.to_string()),
            Err(_) => why = FetchError::Connect(format!("nothing within {CONNECT_TIMEOUT:?}")),
        }
    }
    Err(why)
}

/// Whether an address may be connected to.
fn admissible(ip: IpAddr, reach: Reach, tls: bool) -> Result<(), FetchError> {
    if !reach.takes(ip) {
        return Err(FetchError::Address(ip));
    }
    // Keys that came in the clear over the open network could be anybody's.
    if !tls && place(ip) == Place::Public {
        return Err(FetchError::Cleartext(ip));
    }
    Ok(())
}

async fn converse<S>(stream: S, endpoint: &Endpoint, ask: &Ask) -> Result<Outcome, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let http = |error: hyper::Error| FetchError::Http(error.to_string());
    let mut client = http1::Builder::new();
    client.max_buf_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await.map_err(http)?;
    let request = request(endpoint, ask)?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(http)?;
        let (head, body) = response.into_parts();
        if head.status.is_redirection() && ask.method == Method::GET {
            return Ok(Outcome::Redirect(head.headers.get(header::LOCATION).cloned()));
        }
        if head.status != http::StatusCode::OK {
            return Err(FetchError::Status(head.status.as_u16()));
        }
        let body = Limited::new(body, ask.bytes_max).collect().await.map_err(|error| match error.downcast() {
            Ok(error) => http(*error),
            Err(_) => FetchError::TooLarge(ask.bytes_max),
        })?;
        Ok(Outcome::Answer(Answer { headers: head.headers, body: body.to_bytes() }))
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        done = &mut exchange => done,
        _ = &mut connection => exchange.await,
    }
}

fn request(endpoint: &Endpoint, ask: &Ask) -> Result<Request<Full<Bytes>>, FetchError> {
    let path = endpoint.uri.path_and_query().map_or("/", |it| it.as_str());
    let host = endpoint.uri.authority().map_or("", |it| it.as_str());
    let mut request = Request::builder()
        .method(ask.method.clone())
        .uri(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .body(Full::new(ask.body.clone()))
        .map_err(|_| FetchError::Url)?;
    request.headers_mut().extend(ask.headers.clone());
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_absolute_and_has_no_user() {
        let check = |url: &str, expected: Option<(&str, u16, bool)>| {
            let parsed = Endpoint::parse(url).ok();
            let parsed = parsed.as_ref().map(|it| (&*it.host, it.port, it.tls));
            assert_eq!(parsed, expected, "{url}");
        };
        check("https://idp.test/jwks", Some(("idp.test", 443, true)));
        check("https://IDP.test:8443", Some(("idp.test", 8443, true)));
        check("http://[::1]:80/x?y", Some(("::1", 80, false)));
        for url in ["", "/jwks", "idp.test", "ftp://idp.test", "file:///etc/passwd", "https://a@idp.test", "https://"] {
            check(url, None);
        }
    }

    #[test]
    fn the_open_network_wants_https_and_the_own_one_leave() {
        let check = |ip: &str, reach: Reach, tls: bool, expected: fn(IpAddr) -> Result<(), FetchError>| {
            let ip = ip.parse().unwrap();
            assert_eq!(admissible(ip, reach, tls), expected(ip), "{ip} {reach:?} {tls}");
        };
        for reach in [Reach::Public, Reach::Private] {
            check("1.1.1.1", reach, true, |_| Ok(()));
            check("1.1.1.1", reach, false, |ip| Err(FetchError::Cleartext(ip)));
            check("169.254.169.254", reach, true, |ip| Err(FetchError::Address(ip)));
        }
        check("10.0.0.1", Reach::Public, true, |ip| Err(FetchError::Address(ip)));
        check("10.0.0.1", Reach::Private, false, |_| Ok(()));
    }

    #[test]
    fn a_redirect_stays_on_its_host() {
        let check = |location: &'static str, expected: Option<&str>| {
            let from = Endpoint::parse("https://idp.test/jwks").unwrap();
            let next = from.redirected(Some(&HeaderValue::from_static(location))).ok();
            assert_eq!(next.map(|it| it.uri.to_string()).as_deref(), expected, "{location}");
        };
        check("/keys", Some("https://idp.test/keys"));
        check("https://idp.test/keys", Some("https://idp.test/keys"));
        check("http://idp.test/keys", None);
        check("https://idp.test:444/keys", None);
        check("https://evil.test/keys", None);
        check("//evil.test/keys", None);
        check("https://idp.test@evil.test/keys", None);
        check("file:///etc/passwd", None);
    }
}
