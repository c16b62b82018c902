//! Keys of identity providers: real servers that are slow, huge, gone, or somewhere they must not be.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::support::{soon, until};
use crate::tokens::{Signer, jwks};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use quorumgate_proxy::identity::{
    AuthFailure,
    algorithm::Algorithm,
    discovery::{DiscoveryError, discover},
    egress::Reach,
    fetch::{Ask, Endpoint, FetchError, Fetcher},
    jwks::{JWKS_BYTES_MAX, KeySet},
    jwt::{JwtPlan, PlanId, VerifiedToken},
    keeper::{Keeper, Location, Slot, Source, Wanted},
    schedule::Timing,
    verified::{Keys, Verified},
};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::json;
use tokio::{io::AsyncReadExt, net::TcpListener};
use tokio_util::sync::{CancellationToken, DropGuard};

const NOW: u64 = 1_800_000_000;

/// What the provider answers at each path, and how often it was asked.
#[derive(Clone, Default)]
struct Provider {
    keys: Arc<Mutex<String>>,
    location: Arc<Mutex<String>>,
    status: Arc<AtomicU64>,
    hits: Arc<AtomicU64>,
}

impl Provider {
    async fn start(signers: &[&Signer]) -> (Self, SocketAddr) {
        let provider = Self::default();
        provider.publish(signers);
        let it = provider.clone();
        let address = crate::support::upstream(move |request| {
            let answer = it.answer(&request);
            async move { answer }
        })
        .await;
        (provider, address)
    }

    fn publish(&self, signers: &[&Signer]) {
        *self.keys.lock().unwrap() = jwks(signers);
    }

    fn hits(&self) -> u64 {
        self.hits.load(Ordering::SeqCst)
    }

    fn fail(&self, status: u64) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        self.hits.fetch_add(1, Ordering::SeqCst);
        let status = self.status.load(Ordering::SeqCst);
        let host = request.headers()[header::HOST].to_str().unwrap();
        let mut response = Response::new(Full::new(match request.uri().path() {
            "/moved" => {
                let location = self.location.lock().unwrap().clone();
                return Response::builder().status(302).header("location", location).body(Full::default()).unwrap();
            }
            "/.well-known/openid-configuration" => {
                let document = json!({"issuer": format!("http://{host}"), "jwks_uri": format!("http://{host}/jwks")});
                document.to_string().into()
            }
            "/huge" => vec![b' '; 10 << 20].into(),
            _ => self.keys.lock().unwrap().clone().into(),
        }));
        if status != 0 {
            *response.status_mut() = StatusCode::from_u16(status as u16).unwrap();
        }
        response
    }
}

fn fetcher() -> Fetcher {
    tls_fetcher(RootCertStore::empty())
}

fn tls_fetcher(roots: RootCertStore) -> Fetcher {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Fetcher::new(builder.with_root_certificates(roots).with_no_client_auth())
}

fn endpoint(url: String) -> Endpoint {
    Endpoint::parse(&url).unwrap()
}

async fn get(url: String, reach: Reach) -> Result<Bytes, FetchError> {
    let fetcher = fetcher().with_timeout(Duration::from_secs(10));
    fetcher.fetch(&endpoint(url), &Ask::get(reach, JWKS_BYTES_MAX)).await.map(|it| it.body)
}

fn name(word: &str) -> quorumgate_model::resource::Name {
    word.parse().unwrap()
}

/// A keeper with one auth `idp`, and whatever it hands to the cluster.
struct World {
    keeper: Arc<Keeper>,
    told: Arc<Mutex<Vec<Bytes>>>,
    verified: Verified,
    plan: JwtPlan,
    _stop: DropGuard,
}

impl World {
    fn start(url: String, timing: Timing, last_good: Option<String>) -> Self {
        let told: Arc<Mutex<Vec<Bytes>>> = Arc::default();
        let on_jwks = {
            let told = told.clone();
            Arc::new(move |_: &_, body: &Bytes| told.lock().unwrap().push(body.clone()))
        };
        let keeper = Arc::new(Keeper::new(fetcher(), timing, on_jwks));
        let stop = CancellationToken::new();
        tokio::spawn(keeper.clone().run(stop.clone()));
        let plan = JwtPlan {
            id: PlanId::next(),
            issuer: "https://idp.test".into(),
            audience: vec!["orders".into()],
            algorithms: vec![Algorithm::RS256, Algorithm::ES256],
            consumer_claim: None,
            groups_claim: None,
            scopes_claim: "scope".into(),
            skew_s: 30,
            max_lifetime_s: 86_400,
            typ: None,
        };
        let world = Self { keeper, told, verified: Verified::default(), plan, _stop: stop.drop_guard() };
        world.publish(url, last_good);
        world
    }

    fn publish(&self, url: String, last_good: Option<String>) {
        let source = Source { issuer: "https://idp.test".into(), location: Location::Url(url), reach: Reach::Private };
        self.keeper.publish([Wanted { auth: name("idp"), source, last_good: last_good.map(Bytes::from) }]);
    }

    fn slot(&self) -> Arc<Slot> {
        self.keeper.slot(&name("idp")).unwrap()
    }

    async fn ask(&self, token: &str) -> Result<Arc<VerifiedToken>, AuthFailure> {
        let keys = Keys::Kept(self.slot());
        soon("a token is verified", self.verified.verify(&self.plan, &keys, token, NOW)).await
    }
}

fn token(signer: &Signer, id: usize) -> String {
    signer.token(&json!({"iss": "https://idp.test", "aud": "orders", "exp": NOW + 300, "jti": id.to_string()}))
}

const UNKNOWN: AuthFailure = AuthFailure::Invalid("no key of the issuer has the token's key id");
const NO_KEYS: AuthFailure = AuthFailure::Unavailable("the issuer's keys are not to be had");

#[tokio::test]
async fn the_first_token_waits_for_the_first_keys() {
    let signer = Signer::es256("k1");
    let (provider, address) = Provider::start(&[&signer]).await;
    let world = World::start(format!("http://{address}/jwks"), Timing::default(), None);
    world.ask(&token(&signer, 1)).await.unwrap();
    assert_eq!(provider.hits(), 1);
}

#[tokio::test]
async fn a_rotation_costs_not_a_single_token() {
    let (old, new) = (Signer::es256("k1"), Signer::es256("k2"));
    let (provider, address) = Provider::start(&[&old]).await;
    let world = World::start(format!("http://{address}/jwks"), Timing::default(), None);
    world.ask(&token(&old, 0)).await.unwrap();
    provider.publish(&[&old, &new]);
    let asked = (0..100).map(async |id| world.ask(&token(if id % 2 == 0 { &new } else { &old }, id)).await);
    for outcome in join_all(asked).await {
        outcome.unwrap();
    }
    assert_eq!(provider.hits(), 2);
    assert_eq!(world.told.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_flood_of_unknown_key_ids_is_one_fetch_and_no_wait_for_others() {
    let signer = Signer::es256("k1");
    let (provider, address) = Provider::start(&[&signer]).await;
    let world = World::start(format!("http://{address}/jwks"), Timing::default(), None);
    world.ask(&token(&signer, 0)).await.unwrap();
    let forged: Vec<String> = (0..3000)
        .map(|id| {
            let header = json!({"alg": "ES256", "kid": format!("made-up-{id}")});
            let claims = json!({"iss": "https://idp.test"});
            let [header, claims] = [header, claims].map(|it| crate::tokens::base64url(it.to_string()));
            format!("{header}.{claims}.AAAA")
        })
        .collect();
    for outcome in join_all(forged.iter().map(|it| world.ask(it))).await {
        assert_eq!(outcome, Err(UNKNOWN));
    }
    world.ask(&token(&signer, 1)).await.unwrap();
    assert_eq!(provider.hits(), 2);
}

#[tokio::test]
async fn a_token_of_another_issuer_is_no_reason_to_fetch() {
    let signer = Signer::es256("k1");
    let (provider, address) = Provider::start(&[&signer]).await;
    let world = World::start(format!("http://{address}/jwks"), Timing::default(), None);
    world.ask(&token(&signer, 0)).await.unwrap();
    let others = Signer::es256("made-up");
    for claims in [json!({"iss": "https://other.test"}), json!({"iss": ["https://idp.test"]}), json!({})] {
        let other = AuthFailure::Invalid("the token is of another issuer");
        assert_eq!(world.ask(&others.token(&claims)).await, Err(other));
    }
    assert_eq!(provider.hits(), 1);
}

#[tokio::test]
async fn known_keys_go_on_while_the_provider_is_down() {
    let signer = Signer::es256("k1");
    let (provider, address) = Provider::start(&[&signer]).await;
    let every = Duration::from_millis(5);
    let timing = Timing {
        refresh: every,
        refresh_min: every,
        retry_min: every,
        retry_max: every,
        stale: Duration::from_secs(3600),
        ..Timing::default()
    };
    let world = World::start(format!("http://{address}/jwks"), timing, None);
    world.ask(&token(&signer, 0)).await.unwrap();
    provider.fail(503);
    let before = provider.hits();
    until("it was asked in vain", || (provider.hits() > before + 3).then_some(())).await;
    world.ask(&token(&signer, 1)).await.unwrap();
    // Nothing was learnt about other keys.
    assert_eq!(world.ask(&token(&Signer::es256("k2"), 2)).await, Err(UNKNOWN));
}

#[tokio::test]
async fn keys_that_nobody_confirms_for_too_long_are_gone() {
    let signer = Signer::es256("k1");
    let (provider, address) = Provider::start(&[&signer]).await;
    let every = Duration::from_millis(5);
    let timing = Timing {
        refresh: every,
        refresh_min: every,
        retry_min: every,
        retry_max: every,
        stale: Duration::from_millis(50),
        ..Timing::default()
    };
    let world = World::start(format!("http://{address}/jwks"), timing, None);
    world.ask(&token(&signer, 0)).await.unwrap();
    provider.fail(503);
    until("the keys are gone", || world.slot().keys().is_none().then_some(())).await;
    assert_eq!(world.ask(&token(&signer, 1)).await, Err(NO_KEYS));
    provider.fail(0);
    until("they are there again", || world.slot().keys()).await;
    world.ask(&token(&signer, 1)).await.unwrap();
}

#[tokio::test]
async fn a_node_starts_with_the_clusters_keys_while_the_provider_is_down() {
    let signer = Signer::es256("k1");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    drop(listener);
    let world = World::start(url.clone(), Timing::default(), Some(jwks(&[&signer])));
    world.ask(&token(&signer, 0)).await.unwrap();
    // Another node could reach the provider and saw other keys.
    let next = Signer::es256("k2");
    until("a fetch has failed", || {
        world.publish(url.clone(), Some(jwks(&[&signer, &next])));
        (world.slot().keys().unwrap().len() == 2).then_some(()).or_else(|| {
            world.publish(url.clone(), Some(jwks(&[&signer])));
            None
        })
    })
    .await;
    world.ask(&token(&next, 1)).await.unwrap();
    assert!(world.told.lock().unwrap().is_empty());
}

#[tokio::test]
async fn without_keys_and_provider_it_cannot_be_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    drop(listener);
    let world = World::start(url, Timing::default(), None);
    assert_eq!(world.ask(&token(&Signer::es256("k1"), 0)).await, Err(NO_KEYS));
}

#[tokio::test]
async fn the_cluster_is_told_of_keys_it_does_not_have() {
    let (one, two) = (Signer::es256("k1"), Signer::es256("k2"));
    let (provider, address) = Provider::start(&[&one, &two]).await;
    let url = format!("http://{address}/jwks");
    // The same keys in another order are no news.
    let world = World::start(url.clone(), Timing::default(), Some(jwks(&[&two, &one])));
    until("it was fetched", || (provider.hits() == 1).then_some(())).await;
    let three = Signer::es256("k3");
    provider.publish(&[&one, &two, &three]);
    world.ask(&token(&three, 0)).await.unwrap();
    assert_eq!(*world.told.lock().unwrap(), [Bytes::from(jwks(&[&one, &two, &three]))]);
}

#[tokio::test]
async fn a_key_set_of_10_mib_is_not_read() {
    let (_, address) = Provider::start(&[]).await;
    let url = format!("http://{address}/huge");
    assert_eq!(get(url.clone(), Reach::Private).await, Err(FetchError::TooLarge(JWKS_BYTES_MAX)));
    let signer = Signer::es256("k1");
    let world = World::start(url, Timing::default(), Some(jwks(&[&signer])));
    world.ask(&token(&signer, 0)).await.unwrap();
}

#[tokio::test]
async fn private_and_metadata_addresses_are_never_connected_to() {
    let (provider, address) = Provider::start(&[]).await;
    let port = address.port();
    for host in ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "[::ffff:127.0.0.1]"] {
        let outcome = get(format!("http://{host}:{port}/jwks"), Reach::Public).await;
        let refused = matches!(outcome, Err(FetchError::Address(_) | FetchError::Resolve(_)));
        assert!(refused, "{host}: {outcome:?}");
    }
    for host in ["169.254.169.254", "[::ffff:169.254.169.254]", "[fd00:ec2::254]", "0.0.0.0", "2852039166"] {
        let outcome = get(format!("http://{host}:{port}/latest/meta-data"), Reach::Private).await;
        let refused = matches!(outcome, Err(FetchError::Address(_) | FetchError::Resolve(_)));
        assert!(refused, "{host}: {outcome:?}");
    }
    assert_eq!(provider.hits(), 0);
    assert!(get(format!("http://localhost:{port}/jwks"), Reach::Private).await.is_ok());
}

#[tokio::test]
async fn a_redirect_leads_nowhere_else() {
    let (provider, address) = Provider::start(&[]).await;
    let (elsewhere, other) = Provider::start(&[]).await;
    let check = async |location: String, expected: Result<(), FetchError>| {
        *provider.location.lock().unwrap() = location.clone();
        let outcome = get(format!("http://{address}/moved"), Reach::Private).await;
        assert_eq!(outcome.map(|_| ()), expected, "{location}");
    };
    check("/jwks".into(), Ok(())).await;
    check(format!("http://{address}/jwks"), Ok(())).await;
    check(format!("http://{other}/jwks"), Err(FetchError::Redirect)).await;
    check("http://169.254.169.254/".into(), Err(FetchError::Redirect)).await;
    check("/moved".into(), Err(FetchError::Redirect)).await;
    assert_eq!(elsewhere.hits(), 0);
}

#[tokio::test]
async fn a_silent_provider_is_given_up_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let patience = Duration::from_millis(50);
    let fetcher = fetcher().with_timeout(patience);
    let begun = Instant::now();
    let outcome = fetcher.fetch(&endpoint(url), &Ask::get(Reach::Private, 1024)).await;
    assert_eq!(outcome.map(|_| ()).unwrap_err(), FetchError::Timeout(patience));
    assert!(begun.elapsed() >= patience);
}

#[tokio::test]
async fn https_is_verified() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let signer = Signer::rsa("k1");
    let body = jwks(&[&signer]);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, body) = (acceptor.clone(), body.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper::service::service_fn(move |_| {
                    let body = body.clone();
                    async move { Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(body)))) }
                });
                let server = hyper::server::conn::http1::Builder::new();
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let ask = Ask::get(Reach::Private, JWKS_BYTES_MAX);
    let at = |host: &str| endpoint(format!("https://{host}:{port}/jwks"));
    let trusting = tls_fetcher(roots);
    let answer = trusting.fetch(&at("localhost"), &ask).await.unwrap();
    assert_eq!(KeySet::parse(&answer.body).unwrap().len(), 1);
    let tls = |outcome: Result<_, FetchError>| assert!(matches!(outcome, Err(FetchError::Tls(_))));
    tls(trusting.fetch(&at("127.0.0.1"), &ask).await);
    tls(fetcher().fetch(&at("localhost"), &ask).await);
}

#[tokio::test]
async fn discovery_leads_to_the_keys_of_that_issuer_only() {
    let signer = Signer::es256("k1");
    let (_, address) = Provider::start(&[&signer]).await;
    let issuer = format!("http://{address}");
    let found = discover(&fetcher(), &issuer, Reach::Private).await.unwrap();
    assert_eq!(found.jwks, endpoint(format!("{issuer}/jwks")));
    let other = discover(&fetcher(), &format!("{issuer}/"), Reach::Private).await;
    assert_eq!(other, Err(DiscoveryError::Issuer(issuer.clone())));
    let refused = discover(&fetcher(), &issuer, Reach::Public).await;
    assert_eq!(refused, Err(DiscoveryError::Fetch(FetchError::Address(address.ip()))));
    let keeper = Arc::new(Keeper::new(fetcher(), Timing::default(), Arc::new(|_: &_, _: &_| {})));
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio::spawn(keeper.clone().run(stop));
    let source = Source { issuer, location: Location::Discovery, reach: Reach::Private };
    keeper.publish([Wanted { auth: name("idp"), source, last_good: None }]);
    assert_eq!(soon("keys", keeper.slot(&name("idp")).unwrap().first_keys()).await.unwrap().len(), 1);
}
