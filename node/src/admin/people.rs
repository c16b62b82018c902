//! People who sign in at an OpenID provider: who they are, what they may, and until when. The web page's own calls are made
//! with their session; gRPC and scripts have tokens and certificates.

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
};

use anyhow::Context;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN, SET_COOKIE},
    uri::Authority,
};
use http_body_util::{BodyExt, Full};
use quorumgate_model::{
    mutants::{self, Mutant},
    resource::Auth,
};
use quorumgate_proxy::{
    body::ResponseBody,
    identity::{
        AuthFailure,
        directory::Directory,
        egress::Reach,
        fetch::Fetcher,
        keeper::{Keeper, Location, Source, Wanted},
        schedule::Timing,
        sign_in::{self, Person, SignIn},
    },
};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, body::Body};

use super::{
    failure,
    gate::{Gate, address},
    identity::{self, Held, Identity, Peer, Session},
    json,
};
use crate::{publish::wall_ms, secrets::COOKIE_KEY, settings::Oidc};

/// The field that scripts of the page alone can send: from elsewhere a browser asks first, and is not answered.
const PAGE: &str = "quorumgate-page";
const PLACE: &str = "/ui/";
const NAME_CHARS_MAX: usize = 128;

/// Paths of the web page that are no files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Whether one may sign in here, and has.
    Look,
    Begin,
    Arrive,
    Leave,
}

impl Door {
    pub fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/ui/session" => Self::Look,
            "/ui/login" => Self::Begin,
            "/ui/callback" => Self::Arrive,
            "/ui/logout" => Self::Leave,
            _ => return None,
        })
    }

    fn method(self) -> Method {
        if self == Self::Leave { Method::POST } else { Method::GET }
    }
}

pub struct People {
    settings: Oidc,
    auth: Auth,
    client_secret: String,
    fetcher: Fetcher,
    keeper: Arc<Keeper>,
    directory: Arc<Directory>,
    /// Made once the cluster's cookie key is here.
    sign_in: OnceLock<Arc<SignIn>>,
}

type Cookies = Vec<HeaderValue>;

impl People {
    pub fn new(settings: Oidc, directory: Arc<Directory>) -> anyhow::Result<Self> {
        let (auth, client_secret) = settings.auth()?;
        let fetcher = Fetcher::platform();
        let keeper = Arc::new(Keeper::new(fetcher.clone(), Timing::default(), Arc::new(|_, _| ())));
        let reach = if settings.allow_private { Reach::Private } else { Reach::Public };
        let source = Source { issuer: settings.issuer.clone(), location: Location::Discovery, reach };
        keeper.publish([Wanted { auth: auth.name.clone(), source, last_good: None }]);
        Ok(Self { settings, auth, client_secret, fetcher, keeper, directory, sign_in: OnceLock::new() })
    }

    pub async fn run(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        self.keeper.clone().run(stop).await;
        Ok(())
    }

    fn sign_in(&self) -> Result<Arc<SignIn>, Status> {
        if let Some(made) = self.sign_in.get() {
            return Ok(made.clone());
        }
        let made = self.made().context("the cluster has not made its cookie key yet");
        let made = made.map_err(|error| failure::status(Code::Unavailable, "NOT_READY", error.to_string()))?;
        Ok(self.sign_in.get_or_init(|| Arc::new(made)).clone())
    }

    fn made(&self) -> Option<SignIn> {
        let facts = self.directory.facts();
        let key = facts.opened.secrets.get(COOKIE_KEY)?;
        let slot = self.keeper.slot(&self.auth.name)?;
        SignIn::new(&self.auth, self.client_secret.clone(), slot, key, self.fetcher.clone())
    }

    fn is_shown(&self, headers: &HeaderMap) -> bool {
        self.sign_in().is_ok_and(|it| it.is_shown(headers))
    }

    /// Whose session a call of the page shows, and what its browser is to keep from now on.
    async fn resume<T>(&self, request: &Request<T>) -> Result<(Identity, Cookies), Status> {
        if !is_of_the_page(request) {
            let message = format!("a session counts for calls of the page itself: {PAGE}: 1, and from the same origin");
            return Err(failure::status(Code::PermissionDenied, "CROSS_SITE", message));
        }
        let now_s = wall_ms() / 1_000;
        let (person, cookies) = self.sign_in()?.resume(request.headers(), now_s).await.map_err(failed)?;
        if self.directory.is_revoked(&person.subject).is_some() {
            return Err(failed(AuthFailure::Revoked));
        }
        Ok((self.identity(&person)?, cookies))
    }

    fn identity(&self, person: &Person) -> Result<Identity, Status> {
        let denied = |reason, message: String| Err(failure::status(Code::PermissionDenied, reason, message));
        let claim = &self.settings.name_claim;
        let is_plain = |name: &&str| !name.is_empty() && !name.chars().any(char::is_control);
        let Some(name) = person.text(claim).filter(is_plain) else {
            return denied("NO_NAME", format!("the ID token has no claim {claim} that a person can be known by"));
        };
        let name = format!("oidc/{}", name.chars().take(NAME_CHARS_MAX).collect::<String>());
        let Some(rule) = self.settings.roles.iter().find(|rule| person.says(&rule.claim, &rule.value)) else {
            return denied("NO_ROLE", format!("{name} is signed in, and no rule of admin.oidc.roles gives a role"));
        };
        let (ends_s, subject, directory) = (person.ends_s, person.subject.clone(), self.directory.clone());
        let held = Some(Held::Session(Session { ends_s, subject, directory }));
        Ok(Identity { name, role: rule.role.into(), owner_scope: rule.owner.clone(), held })
    }
}

impl Gate {
    /// None: the call is not one of somebody who signed in.
    pub(super) async fn person<T>(
        &self,
        peer: &Peer,
        request: &Request<T>,
    ) -> Option<Result<(Identity, Cookies), Status>> {
        let people = self.people.as_ref().filter(|_| matches!(peer, Peer::Tls { certificate: None, .. }))?;
        if request.headers().contains_key(AUTHORIZATION) || !people.is_shown(request.headers()) {
            return None;
        }
        Some(people.resume(request).await)
    }

    pub(super) async fn sign_in<T>(&self, peer: &Peer, door: Door, request: &Request<T>) -> Response<Body> {
        if request.method() != door.method() {
            return plain(StatusCode::METHOD_NOT_ALLOWED, format!("allowed: {}\n", door.method()));
        }
        if door == Door::Look {
            return self.look(peer, request).await;
        }
        let path = request.uri().path();
        let answered = match (&self.people, door) {
            (None, _) => Err(failure::status(Code::NotFound, "NO_PROVIDER", "nobody signs in here: no admin.oidc")),
            (Some(people), Door::Begin) => begin(people, request).await,
            (Some(people), Door::Arrive) => self.arrive(people, peer, request).await,
            (Some(people), _) => return self.leave(people, peer, request).await,
        };
        answered.unwrap_or_else(|refused| {
            let refused = self.noted(peer, path, refused);
            let status = json::refused(&refused).status();
            plain(status, format!("Not signed in: {}.\nThe page: {PLACE}\n", refused.message()))
        })
    }

    async fn look<T>(&self, peer: &Peer, request: &Request<T>) -> Response<Body> {
        let issuer = self.people.as_ref().map(|people| people.settings.issuer.clone());
        let is_signed_in = matches!(self.person(peer, request).await, Some(Ok(_)));
        json::told(StatusCode::OK, &json!({ "issuer": issuer, "signed_in": is_signed_in }))
    }

    async fn arrive<T>(&self, people: &People, peer: &Peer, request: &Request<T>) -> Result<Response<Body>, Status> {
        let (headers, query) = (request.headers(), request.uri().query());
        let arrived = people.sign_in()?.arrive(headers, query, wall_ms() / 1_000).await;
        let (person, response) = arrived.map_err(failed)?;
        // Who has no role gets no session either.
        let identity = people.identity(&person)?;
        self.accessed(&identity::actor(&identity, peer, request.uri().path()), None);
        tracing::info!(name = identity.name, role = identity.role.word(), source = peer.source(), "signed in");
        Ok(without_body(response))
    }

    /// Told as JSON: it is a script that asks, and that then goes to the provider's own sign-out.
    async fn leave<T>(&self, people: &People, peer: &Peer, request: &Request<T>) -> Response<Body> {
        let left = async {
            if !is_of_the_page(request) {
                return Err(failure::status(Code::PermissionDenied, "CROSS_SITE", "allowed: from the page itself"));
            }
            let now_s = wall_ms() / 1_000;
            people.sign_in()?.leave(request.headers(), &people.directory, address(peer), now_s).await.map_err(failed)
        };
        match left.await {
            Ok(left) => {
                let (status, location) = (left.status(), sign_in::location(&left));
                // The cluster could not be told: the session is gone here, and a copy of it is not.
                let is_over = status != StatusCode::SERVICE_UNAVAILABLE;
                let mut response = json::told(StatusCode::OK, &json!({ "location": location, "everywhere": is_over }));
                let cookies = left.headers().get_all(SET_COOKIE).iter().cloned();
                response.headers_mut().extend(cookies.map(|cookie| (SET_COOKIE, cookie)));
                response
            }
            Err(refused) => json::refused(&self.noted(peer, request.uri().path(), refused)),
        }
    }

    /// In the node's own chain, but for what is nobody's fault.
    fn noted(&self, peer: &Peer, path: &str, refused: Status) -> Status {
        match refused.code() {
            Code::NotFound | Code::Unavailable => refused,
            _ => self.refuse(peer, path, refused),
        }
    }
}

async fn begin<T>(people: &People, request: &Request<T>) -> Result<Response<Body>, Status> {
    let host = host(request).and_then(|host| host.parse::<Authority>().ok());
    let host = host.ok_or_else(|| failure::bad_field("host", "allowed: the host to come back to"))?;
    people.sign_in()?.begin(&host, PLACE, wall_ms() / 1_000).await.map(without_body).map_err(failed)
}

/// A browser sends the field only where the page's own origin asked; where it says whence it asks, that counts as well.
fn is_of_the_page<T>(request: &Request<T>) -> bool {
    let headers = request.headers();
    let text = |name: &str| headers.get(name).map(|it| it.as_bytes());
    let own = host(request).map(|host| format!("https://{host}"));
    (text(PAGE) == Some(b"1") || mutants::is(Mutant::AnyPageCalls))
        && text("sec-fetch-site").is_none_or(|site| site == b"same-origin")
        && text(ORIGIN.as_str()).is_none_or(|origin| own.is_some_and(|own| own.as_bytes() == origin))
}

/// `:authority`, or the field of HTTP/1.
fn host<T>(request: &Request<T>) -> Option<&str> {
    let authority = request.uri().authority().map(Authority::as_str);
    authority.or_else(|| request.headers().get(HOST)?.to_str().ok())
}

fn failed(failure: AuthFailure) -> Status {
    let (code, reason) = match failure {
        AuthFailure::Missing => (Code::Unauthenticated, "NO_CREDENTIALS"),
        AuthFailure::Expired => (Code::Unauthenticated, "SESSION_EXPIRED"),
        AuthFailure::Revoked => (Code::Unauthenticated, "SESSION_REVOKED"),
        AuthFailure::Invalid(_) | AuthFailure::SignatureInvalid => (Code::Unauthenticated, "SESSION_INVALID"),
        AuthFailure::Unavailable(_) => (Code::Unavailable, "PROVIDER_UNAVAILABLE"),
    };
    failure::status(code, reason, failure.to_string())
}

fn without_body(response: Response<ResponseBody>) -> Response<Body> {
    response.map(|_| Body::empty())
}

fn plain(status: StatusCode, text: String) -> Response<Body> {
    let mut response =
        Response::new(Body::new(Full::new(Bytes::from(text)).map_err(|never: Infallible| match never {})));
    *response.status_mut() = status;
    let fields = [
        (CONTENT_TYPE, "text/plain; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (http::header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (http::header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ];
    response.headers_mut().extend(fields.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response
}
