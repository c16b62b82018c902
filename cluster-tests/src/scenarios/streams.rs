//! Streams that are open when their token is revoked: how soon each of them ends, on every node, and in what way.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use quorumgate_proto::admin::v1::{self as admin, selector::By};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use super::apply_file;
use crate::{
    Cluster,
    cluster::{Member, PATIENCE},
    issuer::{AUDIENCE, ISSUER, Issuer},
    origin::Origin,
};

const TOKEN_LIFE: Duration = Duration::from_secs(3_600);
const EVENTS: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";
const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                        sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\u{1}\u{1}a";
const CALL: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Events,
    WebSocket,
    Grpc,
}

#[derive(Debug)]
pub struct Closed {
    pub streams: usize,
    /// From the call that revokes to the end of the slowest stream of each kind.
    pub slowest: [(Kind, Duration); 3],
}

impl Closed {
    pub fn worst(&self) -> Duration {
        self.slowest.iter().map(|(_, took)| *took).max().unwrap_or_default()
    }
}

/// In each round one token has a stream of every kind open on every node, and is revoked through one of them.
pub async fn close(cluster: &Cluster, rounds: usize) -> anyhow::Result<Closed> {
    let issuer = Issuer::new()?;
    let mut origins = Vec::new();
    for kind in Kind::ALL {
        origins.push((kind, Origin::silent_after(kind.begins()).await?));
    }
    apply_file(cluster, &config(&issuer, &origins)).await?;
    let mut closed = Closed { streams: 0, slowest: Kind::ALL.map(|kind| (kind, Duration::ZERO)) };
    for round in 0..rounds {
        let jti = format!("stream-{round}");
        let token = issuer.token("carol", &jti, TOKEN_LIFE)?;
        let mut endings = JoinSet::new();
        for member in &cluster.members {
            for kind in Kind::ALL {
                let open = kind.open(member, &token).await.with_context(|| format!("{kind:?} on {}", member.name))?;
                endings
                    .spawn(async move { anyhow::Ok((kind, open.ended().await.with_context(|| format!("{kind:?}"))?)) });
            }
        }
        let asked = cluster.members[round % cluster.members.len()].client().await?;
        let start = Instant::now();
        let selector = Some(admin::Selector { by: Some(By::Jti(jti)), issuer: ISSUER.into() });
        let revocation = Some(admin::NewRevocation { selector, ..Default::default() });
        asked.revocations().revoke_token(admin::RevokeTokenRequest { revocation, ..Default::default() }).await?;
        let all = async {
            while let Some(ending) = endings.join_next().await {
                let (kind, ended) = ending??;
                closed.streams += 1;
                let slowest = closed.slowest.iter_mut().find(|(it, _)| *it == kind).context("a kind")?;
                slowest.1 = slowest.1.max(ended.duration_since(start));
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, all).await.context("a stream does not end")??;
    }
    Ok(closed)
}

fn config(issuer: &Issuer, origins: &[(Kind, Origin)]) -> Value {
    let upstreams =
        origins.iter().map(|(kind, origin)| json!({ "name": kind.name(), "targets": [origin.address.to_string()] }));
    let routes = origins.iter().map(|(kind, _)| {
        json!({
            "name": kind.name(), "match": { "hosts": [kind.host()] }, "upstream": kind.name(),
            "auth": { "any_of": ["stream-idp"] },
        })
    });
    json!({
        "upstreams": upstreams.collect::<Vec<_>>(),
        "auth": [{ "name": "stream-idp", "jwt": {
            "issuer": ISSUER, "audience": [AUDIENCE], "algorithms": ["ES256"], "jwks_inline": issuer.jwks(),
        } }],
        "routes": routes.collect::<Vec<_>>(),
    })
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Events, Kind::WebSocket, Kind::Grpc];

    fn name(self) -> &'static str {
        match self {
            Kind::Events => "events",
            Kind::WebSocket => "sockets",
            Kind::Grpc => "calls",
        }
    }

    fn host(self) -> String {
        format!("{}.test", self.name())
    }

    fn begins(self) -> &'static str {
        match self {
            Kind::Events => EVENTS,
            Kind::WebSocket => ACCEPTED,
            Kind::Grpc => CALL,
        }
    }

    /// A stream whose first part has come.
    async fn open(self, member: &Member, token: &str) -> anyhow::Result<Open> {
        let stream = TcpStream::connect(member.proxy).await?;
        let opening = async {
            match self {
                Kind::Events => {
                    raw(stream, &self.host(), token, "accept: text/event-stream\r\n", b"data: 1\n\n\r\n").await
                }
                Kind::WebSocket => {
                    let handshake = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                                     sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
                    raw(stream, &self.host(), token, handshake, b"\x01\x01a").await
                }
                Kind::Grpc => call(stream, &self.host(), token).await,
            }
        };
        tokio::time::timeout(PATIENCE, opening).await.context("it does not begin")?
    }
}

enum Open {
    /// Over HTTP/1.1, and how it was asked for.
    Raw(TcpStream, Kind),
    Call(Incoming, http2::SendRequest<Empty<Bytes>>),
}

async fn raw(mut stream: TcpStream, host: &str, token: &str, fields: &str, until: &[u8]) -> anyhow::Result<Open> {
    let head = format!("GET / HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n{fields}\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut read = Vec::new();
    while !read.ends_with(until) {
        let byte = stream.read_u8().await;
        read.push(byte.with_context(|| String::from_utf8_lossy(&read).into_owned())?);
    }
    let kind = if fields.contains("upgrade") { Kind::WebSocket } else { Kind::Events };
    Ok(Open::Raw(stream, kind))
}

async fn call(stream: TcpStream, host: &str, token: &str) -> anyhow::Result<Open> {
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::post(format!("http://{host}/pkg.Service/Watch"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {token}"))
        .body(Empty::new())?;
    let answer = sender.send_request(request).await?;
    ensure!(answer.status() == 200, "{}: {:?}", answer.status(), answer.headers());
    let mut body = answer.into_body();
    let first = body.frame().await.context("a first message")??.into_data();
    ensure!(first.as_ref().is_ok_and(|it| *it == "abc"), "{first:?}");
    Ok(Open::Call(body, sender))
}

impl Open {
    /// When it ended; wrong where it did not end as its kind should: in good order, with 1008, with status 16.
    async fn ended(self) -> anyhow::Result<Instant> {
        match self {
            Open::Raw(mut stream, kind) => {
                let wanted: &[u8] = match kind {
                    Kind::WebSocket => b"\x88\x0f\x03\xf0token_revoked",
                    _ => b"0\r\n\r\n",
                };
                let mut rest = vec![0; wanted.len()];
                stream.read_exact(&mut rest).await?;
                ensure!(rest == wanted, "it ended with {:?}", String::from_utf8_lossy(&rest));
            }
            Open::Call(mut body, _connection) => {
                let trailers = body.frame().await.context("trailers")??.into_trailers();
                let status = trailers.as_ref().ok().and_then(|it| it.get("grpc-status"));
                ensure!(status.is_some_and(|it| it == "16"), "it ended with {trailers:?}");
            }
        }
        Ok(Instant::now())
    }
}
