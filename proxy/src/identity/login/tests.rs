use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use quorumgate_model::resource::Auth;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{sign_in::SignIn, *};
use crate::identity::{
    jwks::KeySet,
    keeper::{Keeper, Location, Source, Wanted},
    schedule::Timing,
    tokens::{Signer, jwks},
};

const NOW: u64 = 1_700_000_000;

/// A token endpoint whose refresh tokens are good once, `r0` first.
#[derive(Clone)]
struct Endpoint {
    signer: Arc<Signer>,
    asked: Arc<AtomicUsize>,
    /// Another answer than the one that renews.
    instead: Arc<Mutex<Option<(u16, Value)>>>,
    claims: Arc<Mutex<Value>>,
    issuer: String,
}

impl Endpoint {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Self {
            signer: Arc::new(Signer::es256("k1")),
            asked: Arc::default(),
            instead: Arc::default(),
            claims: Arc::new(Mutex::new(json!({}))),
            issuer: format!("http://{}", listener.local_addr().unwrap()),
        };
        let it = endpoint.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let it = it.clone();
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let it = it.clone();
                    async move {
                        let path = request.uri().path().to_owned();
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let (status, answer) = it.answer(&path, &String::from_utf8_lossy(&body));
                        let body = Full::new(Bytes::from(answer.to_string()));
                        Ok::<_, std::convert::Infallible>(http::Response::builder().status(status).body(body).unwrap())
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        endpoint
    }

    fn answer(&self, path: &str, form: &str) -> (u16, Value) {
        if path == "/.well-known/openid-configuration" {
            let jwks = format!("{}/jwks", self.issuer);
            return (
                200,
                json!({"issuer": self.issuer, "jwks_uri": jwks, "token_endpoint": format!("{}/t", self.issuer)}),
            );
        }
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        if let Some(instead) = self.instead.lock().unwrap().clone() {
            return instead;
        }
        if form != format!("grant_type=refresh_token&refresh_token=r{number}") {
            return (400, json!({"error": "invalid_grant"}));
        }
        let mut claims = json!({
            "iss": self.issuer, "aud": "web", "sub": "ann", "iat": NOW + 600, "exp": NOW + 1200, "round": number + 1,
        });
        for (name, value) in self.claims.lock().unwrap().as_object().unwrap() {
            claims[name] = value.clone();
        }
        let (id_token, refresh_token) = (self.signer.token(&claims), format!("r{}", number + 1));
        (
            200,
            json!({
                "id_token": id_token, "refresh_token": refresh_token, "token_type": "Bearer", "expires_in": 600,
            }),
        )
    }

    fn login(&self) -> Arc<Login> {
        let asked = json!({
            "issuer": self.issuer, "client_id": "web", "client_secret": "plain:s", "allow_private": true,
        });
        let keys = KeySet::parse(jwks(&[&self.signer]).as_bytes()).unwrap();
        let keys = Keys::Fixed(Arc::new(keys));
        let (auth, asked) = ("login".parse().unwrap(), serde_json::from_value(asked).unwrap());
        Login::new(&auth, &asked, "s".into(), keys, &[1; 32], Fetcher::platform())
    }
}

/// What a browser has that signed in at `NOW`, for eight hours, with an access token of ten minutes.
fn browser(login: &Login) -> HeaderMap {
    let session = Session {
        id: "i".into(),
        sub: "ann".into(),
        sid: Some("s1".into()),
        signed_in_s: NOW,
        ends_s: NOW + 8 * 3600,
        refresh_s: Some(refresh_at(NOW, 600)),
        refresh_token: Some("r0".into()),
        scope: "openid".into(),
        claims: super::super::Claims::new(),
    };
    with(&login.cookies(&session, 0, NOW).unwrap())
}

fn with(cookies: &[HeaderValue]) -> HeaderMap {
    let pairs = cookies.iter().filter_map(|cookie| cookie.to_str().unwrap().split(';').next());
    let field = HeaderValue::try_from(pairs.collect::<Vec<_>>().join("; ")).unwrap();
    HeaderMap::from_iter([(header::COOKIE, field)])
}

fn round(open: &Open) -> Option<u64> {
    open.token.claims.get("round")?.as_u64()
}

#[tokio::test]
async fn a_session_is_renewed_once_for_all_who_show_it() {
    let endpoint = Endpoint::start().await;
    let login = endpoint.login();
    let first = browser(&login);
    let (open, cookies) = login.resume(&first, NOW + 569).await.unwrap();
    assert_eq!((round(&open), cookies.len()), (None, 0));
    let at_once = (0..20).map(|_| login.resume(&first, NOW + 570));
    let renewed = futures_util::future::try_join_all(at_once).await.map_err(|_| ()).unwrap();
    assert!(renewed.iter().all(|(open, cookies)| round(open) == Some(1) && cookies.len() == 1));
    // Requests that were under way with the cookie of before.
    let (late, cookies) = login.resume(&first, NOW + 571).await.unwrap();
    assert_eq!((round(&late), cookies.len()), (Some(1), 1));
    assert_eq!(endpoint.asked.load(Ordering::SeqCst), 1);
    let marks = &late.token.marks;
    assert_eq!((marks.sid.as_deref(), marks.issued_at), (Some("s1"), Some(NOW)));
    // Another node, by the new cookie.
    let second = with(&cookies);
    let elsewhere = endpoint.login();
    let (open, cookies) = elsewhere.resume(&second, NOW + 572).await.unwrap();
    assert_eq!((round(&open), cookies.len()), (Some(1), 0));
    let (open, _) = elsewhere.resume(&second, NOW + 1200).await.unwrap();
    assert_eq!(round(&open), Some(2));
    let over = elsewhere.resume(&second, NOW + 8 * 3600).await;
    assert_eq!(over.map(drop), Err(AuthFailure::Expired));
}

#[tokio::test]
async fn a_session_that_the_provider_does_not_renew_is_over_and_one_that_it_cannot_goes_on() {
    let endpoint = Endpoint::start().await;
    *endpoint.instead.lock().unwrap() = Some((503, json!({})));
    let login = endpoint.login();
    let cookie = browser(&login);
    assert_eq!(login.resume(&cookie, NOW + 600).await.map(|(open, _)| round(&open)), Ok(None));
    // Not asked again at once.
    assert_eq!(login.resume(&cookie, NOW + 609).await.map(|(open, _)| round(&open)), Ok(None));
    assert_eq!(endpoint.asked.load(Ordering::SeqCst), 1);
    *endpoint.instead.lock().unwrap() = Some((400, json!({"error": "invalid_grant"})));
    assert_eq!(login.resume(&cookie, NOW + 610).await.map(drop), Err(AuthFailure::Expired));

    let endpoint = Endpoint::start().await;
    *endpoint.claims.lock().unwrap() = json!({"sub": "bob"});
    let login = endpoint.login();
    assert_eq!(login.resume(&browser(&login), NOW + 600).await.map(drop), Err(AuthFailure::Expired));
}

#[tokio::test]
async fn a_cookie_of_another_key_is_no_session() {
    let endpoint = Endpoint::start().await;
    let login = endpoint.login();
    let asked: OidcLoginAuth = login.asked.clone();
    let keys = Keys::Fixed(Arc::new(KeySet::parse(jwks(&[&endpoint.signer]).as_bytes()).unwrap()));
    let other = Login::new(&login.auth, &asked, "s".into(), keys, &[2; 32], Fetcher::platform());
    let outcome = login.resume(&browser(&other), NOW).await.map(drop);
    assert!(matches!(outcome, Err(AuthFailure::Invalid(_))), "{outcome:?}");
    assert_eq!(login.resume(&HeaderMap::new(), NOW).await.map(drop), Err(AuthFailure::Missing));
}

#[tokio::test]
async fn a_cookie_from_before_a_renewal_is_renewed_again() {
    let endpoint = Endpoint::start().await;
    let login = endpoint.login();
    let first = browser(&login);
    for (after_s, expected) in [(570, 1), (571, 1), (1_140, 2), (1_141, 2)] {
        let (open, cookies) = login.resume(&first, NOW + after_s).await.unwrap();
        assert_eq!((round(&open), cookies.len()), (Some(expected), 1), "after {after_s} s");
    }
    assert_eq!(endpoint.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_one_provider_said_is_not_read_as_if_another_had() {
    let endpoint = Endpoint::start().await;
    let keeper = Keeper::new(Fetcher::platform(), Timing::default(), Arc::new(|_, _| ()));
    let sign_in = |issuer: &str, cookie_key: [u8; 32]| {
        let auth = json!({ "name": "admin", "oidc_login": {
            "issuer": issuer, "client_id": "web", "client_secret": "plain:s", "allow_private": true,
        } });
        let auth: Auth = serde_json::from_value(auth).unwrap();
        let source = Source { issuer: issuer.into(), location: Location::Discovery, reach: Reach::Private };
        keeper.publish([Wanted { auth: auth.name.clone(), source, last_good: None }]);
        let slot = keeper.slot(&auth.name).unwrap();
        SignIn::new(&auth, "s".into(), slot, &cookie_key, Fetcher::platform()).unwrap()
    };
    let ours = sign_in(&endpoint.issuer, [1; 32]);
    let cookie = browser(&ours.login);
    let opens = async |it: SignIn| it.resume(&cookie, NOW).await.map(drop);
    assert_eq!(opens(sign_in(&endpoint.issuer, [1; 32])).await, Ok(()));
    for other in [sign_in("http://other.test", [1; 32]), sign_in(&endpoint.issuer, [2; 32])] {
        let outcome = opens(other).await;
        assert!(matches!(outcome, Err(AuthFailure::Invalid(_))), "{outcome:?}");
    }
}
