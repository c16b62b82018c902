//! TLS to upstreams, and the PROXY protocol before it: who is believed, what is agreed on, what servers are told.

use std::{convert::Infallible, io::Read, net::SocketAddr, sync::Arc};

use crate::upstream_support::*;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use quorumgate_model::resource::{CertificateAuthority, Name, Protocol, ProxyProtocol, Upstream, UpstreamTls};
use quorumgate_proxy::{body::RequestBody, upstream::Failure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::{RootCertStore, ServerConfig, crypto::aws_lc_rs, server::WebPkiClientVerifier, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn resource(&self) -> CertificateAuthority {
        let words = serde_json::json!({ "name": "internal", "pem": self.0.pem() });
        serde_json::from_value(words).unwrap()
    }

    fn issue(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let chain = vec![params.signed_by(&key, &self.0).unwrap().der().clone()];
        (chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    fn server(&self, name: &str, alpn: &[&str]) -> ServerConfig {
        let (chain, key) = self.issue(name);
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
        config
    }

    /// One that speaks only with whom this authority vouches for.
    fn strict_server(&self, name: &str) -> ServerConfig {
        let (chain, key) = self.issue(name);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        builder.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap()
    }

    /// A certificate for the gateway to show.
    fn shown(&self) -> Arc<CertifiedKey> {
        let (chain, key) = self.issue("gateway.internal");
        Arc::new(CertifiedKey::new(chain, aws_lc_rs::sign::any_supported_type(&key).unwrap()))
    }
}

/// Answers with the name that the client asked for, and the version of HTTP.
async fn origin(config: ServerConfig) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::task::spawn_local(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::task::spawn_local(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let name = stream.get_ref().1.server_name().unwrap_or("none").to_owned();
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let service = service_fn(move |request: Request<Incoming>| {
                    let scheme = request.uri().scheme_str().unwrap_or("-");
                    let body = format!("{name} {:?} {scheme}", request.version());
                    async move { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(body)))) }
                });
                let io = TokioIo::new(stream);
                let _ = match http2 {
                    true => {
                        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                            .serve_connection(io, service)
                            .await
                    }
                    false => hyper::server::conn::http1::Builder::new().serve_connection(io, service).await,
                };
            });
        }
    });
    address
}

fn secured(address: SocketAddr, protocol: Protocol, tls: UpstreamTls) -> Upstream {
    let mut upstream = upstream(&[address]);
    upstream.protocol = protocol;
    upstream.tls = Some(tls);
    upstream
}

fn trusting() -> UpstreamTls {
    UpstreamTls {
        server_name: Some("orders.internal".into()),
        ca: Some("internal".parse().unwrap()),
        ..UpstreamTls::default()
    }
}

fn publish(worker: &Worker, upstream: Upstream, authorities: &[&Authority]) {
    let mut rules = quorumgate_model::ruleset::Ruleset::clone(&ruleset([upstream]));
    for authority in authorities {
        let authority = Arc::new(authority.resource());
        rules.authorities.insert(authority.name.clone(), authority);
    }
    worker.registry.publish(&rules);
}

fn worker(upstream: Upstream, authority: &Authority) -> Worker {
    let worker = Worker::new(upstream.clone());
    publish(&worker, upstream, &[authority]);
    worker
}

#[test]
fn a_server_that_the_authority_vouches_for_is_spoken_to_by_its_name() {
    run(async {
        let authority = Authority::new();
        let address = origin(authority.server("orders.internal", &["http/1.1"])).await;
        let worker = worker(secured(address, Protocol::Http1, trusting()), &authority);
        for _ in 0..2 {
            assert_eq!(worker.fetch(get()).await, "orders.internal HTTP/1.1 -");
        }
        assert_eq!(worker.metric(r#"connections{upstream="origin",state="idle"}"#), 1, "its connection is kept");
    });
}

#[test]
fn without_a_server_name_the_targets_host_must_be_in_the_certificate() {
    run(async {
        let authority = Authority::new();
        let tls = || UpstreamTls { server_name: None, ..trusting() };
        let right = origin(authority.server("127.0.0.1", &[])).await;
        assert_eq!(worker(secured(right, Protocol::Http1, tls()), &authority).fetch(get()).await, "none HTTP/1.1 -");
        let wrong = origin(authority.server("127.0.0.2", &[])).await;
        let sent = worker(secured(wrong, Protocol::Http1, tls()), &authority).send(get()).await;
        assert!(matches!(sent, Err(Failure::Tls(_))), "{sent:?}");
    });
}

#[test]
fn a_server_that_nobody_or_another_vouches_for_is_not_spoken_to() {
    run(async {
        let (authority, other) = (Authority::new(), Authority::new());
        let address = origin(authority.server("orders.internal", &[])).await;
        let sent = worker(secured(address, Protocol::Http1, trusting()), &other).send(post("secret")).await;
        assert!(matches!(sent, Err(Failure::Tls(_))), "{sent:?}");
        // The machine's own authorities know nothing of it either.
        let tls = UpstreamTls { ca: None, ..trusting() };
        let sent = worker(secured(address, Protocol::Http1, tls), &authority).send(get()).await;
        assert!(matches!(sent, Err(Failure::Tls(_) | Failure::NoTls)), "{sent:?}");
        let tls = UpstreamTls { verify: false, ..trusting() };
        let body = worker(secured(address, Protocol::Http1, tls), &other).fetch(get()).await;
        assert_eq!(body, "orders.internal HTTP/1.1 -", "unless the operator wants it so");
    });
}

#[test]
fn an_authority_that_is_replaced_counts_for_the_next_connection() {
    run(async {
        let (before, after) = (Authority::new(), Authority::new());
        let address = origin(after.server("orders.internal", &[])).await;
        let upstream = secured(address, Protocol::Http1, trusting());
        let worker = worker(upstream.clone(), &before);
        assert!(matches!(worker.send(get()).await, Err(Failure::Tls(_))));
        publish(&worker, upstream, &[&after]);
        assert_eq!(worker.fetch(get()).await, "orders.internal HTTP/1.1 -");
    });
}

#[test]
fn a_server_that_asks_is_shown_the_gateways_certificate_and_then_its_next_one() {
    run(async {
        let (authority, other) = (Authority::new(), Authority::new());
        let address = origin(authority.strict_server("orders.internal")).await;
        let name: Name = "gw-client".parse().unwrap();
        let tls = UpstreamTls { client_certificate: Some(name.clone()), ..trusting() };
        let worker = worker(secured(address, Protocol::Http1, tls), &authority);
        let sent = worker.send(get()).await;
        assert!(matches!(sent, Err(Failure::NoTls)), "without its key nothing is sent: {sent:?}");
        let show = |shown| worker.registry.show([(name.clone(), shown)].into());
        show(other.shown());
        assert!(worker.send(get()).await.is_err(), "nobody vouches for it");
        show(authority.shown());
        assert_eq!(worker.fetch(get()).await, "orders.internal HTTP/1.1 -");
        worker.registry.show([].into());
        assert!(matches!(worker.send(get()).await, Err(Failure::NoTls)));
    });
}

#[test]
fn a_server_that_refuses_who_shows_nothing_is_one_that_tls_fails_with() {
    run(async {
        let authority = Authority::new();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(authority.strict_server("orders.internal")));
        tokio::task::spawn_local(async move {
            // Kept open, so that no reset overtakes the alert.
            let mut refused = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                refused.push(acceptor.accept(stream).into_fallible().await);
            }
        });
        let sent = worker(secured(address, Protocol::Http1, trusting()), &authority).send(get()).await;
        assert!(matches!(sent, Err(Failure::Tls(_))), "{sent:?}");
    });
}

#[test]
fn http2_is_agreed_on_where_it_is_wanted_and_there() {
    run(async {
        let authority = Authority::new();
        let (h1, h2) = ("orders.internal HTTP/1.1 -", "orders.internal HTTP/2.0 https");
        for (protocol, offered, expected) in [
            (Protocol::Http2, &["h2", "http/1.1"][..], Some(h2)),
            (Protocol::Grpc, &["h2"], Some(h2)),
            (Protocol::Auto, &["h2", "http/1.1"], Some(h2)),
            (Protocol::Auto, &["http/1.1"], Some(h1)),
            (Protocol::Auto, &[], Some(h1)),
            (Protocol::Http1, &["h2", "http/1.1"], Some(h1)),
            (Protocol::Http2, &["http/1.1"], None),
            (Protocol::Http2, &[], None),
        ] {
            let address = origin(authority.server("orders.internal", offered)).await;
            let worker = worker(secured(address, protocol, trusting()), &authority);
            let at_once = (0..3).map(|_| worker.send(get()));
            for sent in futures_util::future::join_all(at_once).await {
                match (sent, expected) {
                    (Ok(response), Some(expected)) => assert_eq!(read(response).await.unwrap(), expected),
                    (Err(Failure::Tls(_)), None) => (),
                    (sent, _) => panic!("{protocol:?} with {offered:?}: {sent:?}"),
                }
            }
        }
    });
}

#[test]
fn auto_without_tls_is_http1() {
    run(async {
        let good = good("fine");
        let mut upstream = upstream(&[good.address]);
        upstream.protocol = Protocol::Auto;
        assert_eq!(Worker::new(upstream).fetch(get()).await, "fine");
    });
}

#[test]
fn servers_are_told_whom_a_connection_is_for_and_it_serves_nobody_else() {
    run(async {
        let origin = crate::upstream_support::origin(|mut stream, _| {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                line.push(byte[0]);
            }
            while answer(&mut stream, std::str::from_utf8(&line).unwrap()) {}
        });
        let mut upstream = upstream(&[origin.address]);
        upstream.proxy_protocol = Some(ProxyProtocol::V1);
        let worker = Worker::new(upstream);
        let port = origin.address.port();
        for _ in 0..2 {
            let body = worker.fetch(request(Method::GET, RequestBody::Empty)).await;
            assert_eq!(body, format!("PROXY TCP4 192.0.2.1 127.0.0.1 50000 {port}\r\n"));
        }
        assert_eq!(origin.connections.load(std::sync::atomic::Ordering::SeqCst), 2);
    });
}
