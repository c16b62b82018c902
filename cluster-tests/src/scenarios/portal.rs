//! A portal over several nodes: somebody who signed in at one makes keys at any, as many as he may and not one more.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use super::apply_file;
use crate::{Cluster, cluster::until, issuer::Issuer, load::Connection, origin::Origin};

const PORTAL: &str = "dev.test";
const API: &str = "api.test";
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Keys of a consumer, and how many are asked for at once beyond the first.
const KEYS_MAX: usize = 3;
const AT_ONCE: usize = 8;

#[derive(Debug, Default)]
pub struct Made {
    /// Of those that were asked for at once.
    pub good: usize,
    pub refused: usize,
}

/// An OpenID provider that signs everybody in as `ann` of the team `acme`.
struct Provider {
    address: SocketAddr,
    /// The nonce of each code.
    nonces: Arc<Mutex<BTreeMap<String, String>>>,
    accepting: JoinHandle<()>,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Provider {
    async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let nonces = Arc::<Mutex<BTreeMap<String, String>>>::default();
        let (issuer, known) = (Arc::new(Issuer::new()?), nonces.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (issuer, known) = (issuer.clone(), known.clone());
                let answer = service_fn(move |request| answer(address, issuer.clone(), known.clone(), request));
                tokio::spawn(async move {
                    let _ =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        Ok(Self { address, nonces, accepting })
    }

    /// The person says yes: the query with which the browser is sent back.
    fn consent(&self, location: &str) -> anyhow::Result<String> {
        let asked = pairs(location.split_once('?').context("no query")?.1);
        let mut nonces = self.nonces.lock().expect("no panic while it is held");
        let code = format!("c{}", nonces.len());
        nonces.insert(code.clone(), asked.get("nonce").context("no nonce")?.clone());
        Ok(format!("code={code}&state={}", asked.get("state").context("no state")?))
    }
}

fn pairs(form: &str) -> BTreeMap<String, String> {
    let all = form.split('&').filter_map(|pair| pair.split_once('='));
    all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

async fn answer(
    address: SocketAddr,
    issuer: Arc<Issuer>,
    nonces: Arc<Mutex<BTreeMap<String, String>>>,
    request: Request<Incoming>,
) -> anyhow::Result<Response<Full<Bytes>>> {
    let url = format!("http://{address}");
    let (head, body) = request.into_parts();
    let words = match head.uri.path() {
        "/.well-known/openid-configuration" => json!({
            "issuer": url, "jwks_uri": format!("{url}/jwks"), "token_endpoint": format!("{url}/token"),
            "authorization_endpoint": format!("{url}/auth"),
        }),
        "/jwks" => issuer.jwks(),
        _ => {
            let form = body.collect().await?.to_bytes();
            let form = pairs(std::str::from_utf8(&form)?);
            let nonce = nonces.lock().expect("no panic while it is held").get(&form["code"]).cloned();
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
            let claims = json!({
                "iss": url, "aud": "web", "sub": "ann", "nonce": nonce, "iat": now, "exp": now + 300, "team": "acme",
            });
            json!({ "id_token": issuer.sign(&claims)?, "access_token": "a", "token_type": "Bearer" })
        }
    };
    let response = Response::builder().header("content-type", "application/json");
    Ok(response.body(Full::new(Bytes::from(words.to_string())))?)
}

/// One request of a browser; the whole answer.
async fn ask(node: SocketAddr, line: &str, cookies: &str, form: &str) -> anyhow::Result<String> {
    let asking = async {
        let mut stream = TcpStream::connect(node).await?;
        let fields = format!(
            "origin: http://{PORTAL}\r\naccept: text/html\r\ncookie: {cookies}\r\ncontent-length: {}\r\n\
             content-type: application/x-www-form-urlencoded",
            form.len()
        );
        let head = format!("{line} HTTP/1.1\r\nhost: {PORTAL}\r\nconnection: close\r\n{fields}\r\n\r\n{form}");
        stream.write_all(head.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    tokio::time::timeout(ANSWER_MAX, asking).await.context("no answer in time")?
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

fn field<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// The pair that the browser is to keep.
fn kept(answer: &str) -> anyhow::Result<String> {
    let set = field(answer, "set-cookie").with_context(|| format!("no cookie: {answer}"))?;
    Ok(set.split(';').next().unwrap_or_default().to_owned())
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> anyhow::Result<&'a str> {
    let rest = text.split_once(before).with_context(|| format!("no {before}: {text}"))?.1;
    Ok(rest.split(after).next().unwrap_or_default())
}

/// Wants a cluster of three.
pub async fn make_keys(cluster: &Cluster) -> anyhow::Result<Made> {
    let (origin, provider) = (Origin::start("origin").await?, Provider::start().await?);
    std::fs::write(cluster.dir.path().join("secret"), "s3cret\n")?;
    let login = json!({
        "issuer": format!("http://{}", provider.address), "client_id": "web", "client_secret_file": "secret",
        "consumer_claim": "team", "allow_private": true,
    });
    let portal = json!({ "keys": { "max": KEYS_MAX, "scopes": ["orders:read"], "expires": "1d" } });
    let config = json!({
        "upstreams": [{ "name": "origin", "targets": [origin.address.to_string()] }],
        "consumers": [{ "name": "acme" }, { "name": "guest" }],
        "auth": [{ "name": "login", "oidc_login": login }, { "name": "keys", "api_key": {} }],
        "policies": [
            { "name": "developers", "portal": portal },
            { "name": "orders-v1", "version": { "api": "orders", "version": "v1" } },
        ],
        "routes": [
            { "name": "orders", "match": { "hosts": [API] }, "upstream": "origin", "policies": ["orders-v1"],
              "auth": { "any_of": ["keys"] }, "authorize": [{ "allow": { "scopes_all": ["orders:read"] } }] },
            { "name": "developers", "match": { "hosts": [PORTAL] }, "respond": { "receiver": "portal", "auth": "login" },
              "auth": { "any_of": ["login"], "anonymous": "guest" }, "policies": ["developers"] },
        ],
    });
    apply_file(cluster, &config).await?;
    let nodes: Vec<SocketAddr> = cluster.members.iter().map(|member| member.proxy).collect();
    let (one, two, three) = (nodes[0], nodes[1], nodes[2]);
    for node in &nodes {
        let home = ask(*node, "GET /", "", "").await?;
        ensure!(status(&home) == "200" && home.contains("/apis/orders/v1"), "{home}");
    }

    // The keys of the provider come by themselves.
    let mut session = String::new();
    let sign_in = async || {
        let away = ask(one, "GET /sign-in", "", "").await?;
        ensure!(status(&away) == "303", "{away}");
        let query = provider.consent(field(&away, "location").context("no location")?)?;
        let back = ask(two, &format!("GET /callback?{query}"), &kept(&away)?, "").await?;
        ensure!(status(&back) == "303", "{back}");
        session = kept(&back)?;
        Ok(())
    };
    until("somebody to be signed in", sign_in).await?;

    let page = ask(three, "GET /keys", &session, "").await?;
    let token = between(&page, "name=\"token\" value=\"", "\"")?.to_owned();
    let form = format!("token={token}&label=first&scope%3Aorders%3Aread=on");
    let made = ask(one, "POST /keys", &session, &form).await?;
    let secret = between(&made, "<pre id=\"secret\">", "</pre>")?.to_owned();
    everywhere(&nodes, &secret, 200).await?;

    let mut asking = JoinSet::new();
    for n in 0..AT_ONCE {
        let (node, session, form) = ([two, three][n % 2], session.clone(), format!("token={token}&label=more-{n}"));
        asking.spawn(async move { ask(node, "POST /keys", &session, &form).await });
    }
    let mut result = Made::default();
    while let Some(answer) = asking.join_next().await {
        let answer = answer??;
        match status(&answer) {
            "200" => result.good += 1,
            "409" => result.refused += 1,
            _ => ensure!(false, "{answer}"),
        }
    }
    let keys = listed(cluster)?;
    ensure!(keys.len() == KEYS_MAX, "{keys:?}");
    let first = keys.iter().find(|it| it["label"] == "first").context("no first key")?;
    let id = first["id"].as_str().context("no id")?;
    let revoke = format!("POST /keys/{id}/revoke");
    let gone = ask(three, &revoke, &session, &format!("token={token}")).await?;
    ensure!(status(&gone) == "303", "{gone}");
    everywhere(&nodes, &secret, 401).await?;
    let audit = cluster.members[0].cli(&["audit", "ls", "-o", "json"])?;
    let audit: Value = serde_json::from_str(&audit)?;
    let ours = audit["entries"].as_array().context("no entries")?.iter().filter(|it| it["actor"] == "portal/acme/ann");
    ensure!(ours.count() == KEYS_MAX + 1, "{audit}");
    Ok(result)
}

fn listed(cluster: &Cluster) -> anyhow::Result<Vec<Value>> {
    let listed = cluster.members[1].cli(&["key", "ls", "--consumer", "acme", "-o", "json"])?;
    let listed: Value = serde_json::from_str(&listed)?;
    listed["keys"].as_array().cloned().context("no keys")
}

async fn everywhere(nodes: &[SocketAddr], key: &str, expected: u16) -> anyhow::Result<()> {
    for node in nodes {
        let answer = Connection::open(*node).await?.get_with(API, "/", &[("x-api-key", key)]).await?;
        ensure!(answer.status == expected, "{} instead of {expected}: {}", answer.status, answer.body);
    }
    Ok(())
}
