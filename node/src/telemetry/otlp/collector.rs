//! The other end: one request, over a connection of its own, and what the collector answers.

use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::TcpStream;

const SEND_WITHIN: Duration = Duration::from_secs(5);
/// Of what the collector answers.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Where the collector is: `http://host:port` and what comes before `/v1/traces`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    authority: String,
    path: String,
}

impl std::str::FromStr for Collector {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let wrong =
            || format!("telemetry.otlp_endpoint: found {text:?}; allowed: http://host:port, of a collector nearby");
        let uri: Uri = text.parse().with_context(wrong)?;
        ensure!(uri.scheme_str() == Some("http") && uri.query().is_none(), wrong());
        let authority = uri.authority().filter(|it| it.port().is_some()).with_context(wrong)?;
        Ok(Self { authority: authority.to_string(), path: uri.path().trim_end_matches('/').to_owned() })
    }
}

#[derive(Debug, Clone)]
pub struct Reply {
    pub status: StatusCode,
    pub retry_after: Option<Duration>,
    pub body: Bytes,
}

impl Collector {
    /// Whatever it answers, in time.
    pub async fn post(&self, path: &str, message: &impl Message) -> anyhow::Result<Reply> {
        let sent = tokio::time::timeout(SEND_WITHIN, self.ask(path, message.encode_to_vec())).await;
        sent.unwrap_or_else(|_| Err(anyhow!("no answer within {SEND_WITHIN:?}")))
    }

    async fn ask(&self, path: &str, body: Vec<u8>) -> anyhow::Result<Reply> {
        let stream = TcpStream::connect(&self.authority).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::post(format!("{}{path}", self.path))
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .body(Full::new(Bytes::from(body)))?;
        let asking = async move {
            let answer = sender.send_request(request).await?;
            let (status, after) = (answer.status(), answer.headers().get(header::RETRY_AFTER));
            let seconds = after.and_then(|it| it.to_str().ok()?.parse().ok());
            let retry_after = seconds.map(Duration::from_secs);
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow!("its answer: {error}"))?.to_bytes();
            anyhow::Ok(Reply { status, retry_after, body })
        };
        // The connection ends once its sender is gone.
        let (answered, _) = tokio::join!(asking, connection);
        answered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_an_http_address_with_a_port() {
        let parsed: Collector = "http://127.0.0.1:4318/base/".parse().unwrap();
        assert_eq!((parsed.authority.as_str(), parsed.path.as_str()), ("127.0.0.1:4318", "/base"));
        for wrong in ["127.0.0.1:4318", "https://c.test:4318", "http://c.test", "http://c.test:1/?x=1", ""] {
            let error = wrong.parse::<Collector>().unwrap_err();
            assert!(format!("{error:#}").contains("telemetry.otlp_endpoint"), "{wrong}: {error:#}");
        }
    }
}
