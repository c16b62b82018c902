//! Who asks? What the request shows is judged by the auths of its route, in their order.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
};

use http::{
    HeaderValue, Response,
    header::{AUTHORIZATION, HOST},
    request::Parts,
    uri::Authority,
};
use quorumgate_model::{
    credential::{Credential, CredentialKind, Standing},
    mutants::{self, Mutant},
    resource::{Combine, Consumer, Key, Kind as ResourceKind, Name, Resource, RouteAuth},
};

use super::{
    AuthFailure, AuthMethod, Caller, CredentialRef, Identity, RevocationSubject, Scopes,
    auths::{Kind, Plan},
    content_digest::Digested,
    directory::{Directory, Facts},
    fields::Fields,
    jwt::VerifiedToken,
    login::{self, Login, Whence},
    mtls::Certificate,
    passwords::{Denied, Passwords},
    presented::Presented,
    shown::{Ambiguous, Place, Shown},
    signature::{self, Message, SignaturePlan},
};
use crate::{body::ResponseBody, connection::Conn, live::Ended, metrics::AuthResult, refusal::Refusal, worker::wall_s};

/// Identities and consumers that a worker keeps at hand.
const KEPT_MAX: usize = 4096;

const NO_SUCH_CONSUMER: AuthFailure = AuthFailure::Invalid("the consumer is not known here");

/// Who asks, and what of the request was used to find out.
pub(crate) struct Proven {
    pub(crate) identity: Rc<Identity>,
    pub(crate) used: Vec<Place>,
    /// What the body must be: a signature covers it.
    pub(crate) digest: Option<Digested>,
    /// For the client to keep, whatever becomes of its request.
    pub(crate) cookies: Vec<HeaderValue>,
}

/// What came of asking who it is.
pub(crate) enum Admission {
    Proven(Proven),
    /// A step of a browser's sign-in, which is no request for an upstream.
    Answered(Response<ResponseBody>),
}

/// A worker's memory of what it has looked up; only ever a short cut.
#[derive(Default)]
pub(crate) struct Kept {
    facts: RefCell<Option<Arc<Facts>>>,
    consumers: RefCell<HashMap<Name, Option<Arc<Consumer>>>>,
    /// By the addresses of what was shown and of the auth, which are held on to so that nothing else can take them.
    identities: RefCell<Identities>,
    auths: RefCell<HashMap<Name, Arc<crate::metrics::AuthMetrics>>>,
    /// The state that streams were last held against.
    pub(crate) swept_index: Cell<u64>,
}

type Identities = HashMap<(usize, usize), (Evidence, Rc<Identity>)>;

enum Evidence {
    Credential(#[allow(dead_code)] Arc<Credential>, #[allow(dead_code)] Arc<Plan>),
    Token(#[allow(dead_code)] Arc<VerifiedToken>, #[allow(dead_code)] Arc<Plan>),
}

/// One request at its auths.
struct Attempt<'a> {
    conn: &'a Conn,
    directory: &'a Directory,
    facts: &'a Arc<Facts>,
    shown: Shown<'a>,
    parts: &'a Parts,
    client_ip: IpAddr,
    now_s: u64,
    cookies: RefCell<Vec<HeaderValue>>,
}

/// How a token was found to be good.
#[derive(Clone, Copy)]
struct By {
    method: AuthMethod,
    /// The auth says which claim does.
    names_consumer: bool,
    skew_s: u64,
}

/// One credential that was good.
struct One {
    identity: Rc<Identity>,
    place: Place,
    /// A signature of it covers the digest of the body.
    covers_body: bool,
}

enum Miss {
    Failure(AuthFailure),
    Ambiguous,
    Guessing(u64),
}

/// Whether the request may go on, and as whom. Waits only where keys, an endpoint or a password's hash must be waited for.
pub(crate) async fn authenticate(
    conn: &Conn,
    wanted: &RouteAuth,
    parts: &Parts,
    client_ip: IpAddr,
    whence: Whence<'_>,
) -> Result<Admission, Refusal> {
    let worker = &conn.worker;
    let directory = &worker.shared.directory;
    let facts = worker.kept.facts(directory);
    let plans: Vec<&Arc<Plan>> = wanted.names.iter().filter_map(|name| facts.auths.find(name)).collect();
    if plans.len() != wanted.names.len() {
        // A route never names an auth that is not there; a state in between might.
        return Err(Refusal::Unauthenticated(
            AuthFailure::Unavailable("an auth of this route is not known yet"),
            Vec::new(),
        ));
    }
    let challenges = |failure: Option<&AuthFailure>| challenges(&plans, failure);
    let shown = match Shown::read(&parts.headers, parts.uri.query()) {
        Ok(shown) => shown,
        Err(Ambiguous) => return Err(Refusal::AmbiguousCredentials(challenges(None))),
    };
    let now_s = wall_s();
    let login = plans.iter().find_map(|plan| match &plan.kind {
        Kind::OidcLogin(login) => Some(login),
        _ => None,
    });
    if let Some(login) = login
        && let Some(answer) = sign_in_step(login, directory, parts, client_ip, whence, now_s).await
    {
        let answer = answer.map_err(|failure| Refusal::Unauthenticated(failure, Vec::new()));
        return answer.map(Admission::Answered);
    }
    let cookies = RefCell::default();
    let attempt = Attempt { conn, directory, facts: &facts, shown, client_ip, now_s, parts, cookies };
    // A person who has shown nothing else is asked to sign in; a program is told what is missing.
    let sign_in = login.filter(|_| login::is_navigation(parts) && attempt.shows_nothing_else(&plans));
    let outcome = match wanted.combine {
        Combine::AnyOf => attempt.any_of(&plans).await,
        Combine::AllOf => attempt.all_of(&plans).await,
    };
    let proven = match outcome {
        Ok(proven) => proven,
        Err(Miss::Failure(AuthFailure::Missing)) => match &wanted.anonymous {
            Some(name) => anonymous(worker.kept.consumer(&facts, name), &wanted.names),
            None => match sign_in {
                Some(login) => return begin(login, whence, parts, now_s).await,
                None => return Err(Refusal::Unauthenticated(AuthFailure::Missing, challenges(None))),
            },
        },
        Err(Miss::Failure(failure)) => {
            if let Some(login) = sign_in {
                return begin(login, whence, parts, now_s).await;
            }
            let challenges = challenges(Some(&failure));
            return Err(Refusal::Unauthenticated(failure, challenges));
        }
        Err(Miss::Ambiguous) => return Err(Refusal::AmbiguousCredentials(challenges(None))),
        Err(Miss::Guessing(seconds)) => return Err(Refusal::TooManyFailures(seconds)),
    };
    // On every request, however well its credential is known.
    if let Some(revoked) = proven.identity.callers().find(|caller| is_revoked(directory, caller)) {
        worker.kept.count(&worker.metrics, &revoked.auth, AuthResult::Revoked);
        if let Some(token) = &revoked.subject.token {
            directory.verified.forget(&token.sha256);
            if let Some(Kind::Introspection(it)) = facts.auths.find(&revoked.auth).map(|plan| &plan.kind) {
                it.forget(&token.sha256);
            }
        }
        if let Some(login) = sign_in.filter(|_| revoked.method == AuthMethod::OidcLogin) {
            return begin(login, whence, parts, now_s).await;
        }
        return Err(Refusal::Unauthenticated(AuthFailure::Revoked, challenges(Some(&AuthFailure::Revoked))));
    }
    for caller in proven.identity.callers() {
        worker.kept.count(&worker.metrics, &caller.auth, AuthResult::Ok);
    }
    Ok(Admission::Proven(proven))
}

async fn begin(login: &Arc<Login>, whence: Whence<'_>, parts: &Parts, now_s: u64) -> Result<Admission, Refusal> {
    let begun = login.begin(whence, parts.uri.query(), now_s).await;
    begun.map(Admission::Answered).map_err(|failure| Refusal::Unauthenticated(failure, Vec::new()))
}

/// Where the browser comes back from the provider, or wants to sign out. None: it is a request like any other.
pub(crate) async fn sign_in_step(
    login: &Arc<Login>,
    directory: &Directory,
    parts: &Parts,
    client_ip: IpAddr,
    whence: Whence<'_>,
    now_s: u64,
) -> Option<Result<Response<ResponseBody>, AuthFailure>> {
    if login.is_callback(whence.path) {
        return Some(login.callback(&parts.headers, parts.uri.query(), now_s).await);
    }
    if login.is_logout(whence.path) {
        return Some(login.logout(&parts.headers, directory, client_ip, now_s).await);
    }
    None
}

pub(super) fn is_revoked(directory: &Directory, caller: &Caller) -> bool {
    directory.is_revoked(&caller.subject).is_some() && !mutants::is(Mutant::RevocationUnasked)
}

/// What an exchange is refused with that may not go on before it was answered.
pub(crate) fn over(directory: &Directory, identity: Option<&Identity>, ended: Ended) -> Refusal {
    let failure = match ended {
        Ended::Revoked => AuthFailure::Revoked,
        Ended::Expired => AuthFailure::Expired,
        Ended::Stale => return Refusal::StateStale,
        Ended::Banned => {
            let of = |caller| directory.bans.of_caller(caller, || directory.now_us());
            return Refusal::Banned(identity.and_then(|it| it.callers().find_map(of)));
        }
        Ended::HeldTooLong => return Refusal::UpstreamTimeout,
        Ended::Draining => return Refusal::Overloaded,
    };
    let facts = directory.load_facts();
    let plan = identity.and_then(|identity| facts.auths.find(&identity.caller.auth));
    let challenges = challenges(plan.as_slice(), Some(&failure));
    Refusal::Unauthenticated(failure, challenges)
}

/// Wherever it was decided, a 401 says what the client may show instead (RFC 9110 15.5.2).
pub(crate) fn challenged(refusal: Refusal, directory: &Directory, wanted: Option<&RouteAuth>) -> Refusal {
    match (refusal, wanted) {
        (Refusal::Unauthenticated(failure, said), Some(wanted)) if said.is_empty() => {
            let facts = directory.load_facts();
            let plans: Vec<_> = wanted.names.iter().filter_map(|name| facts.auths.find(name)).collect();
            // Of other failures it is not known that they are a token's.
            let of_token = matches!(failure, AuthFailure::Revoked | AuthFailure::Expired).then_some(&failure);
            let challenges = challenges(&plans, of_token);
            Refusal::Unauthenticated(failure, challenges)
        }
        (refusal, _) => refusal,
    }
}

/// What the client may show instead; RFC 6750 wants to hear what was wrong with a token.
fn challenges(plans: &[&Arc<Plan>], failure: Option<&AuthFailure>) -> Vec<HeaderValue> {
    let of = |plan: &&Arc<Plan>| {
        let text = plan.challenge.to_str().ok()?;
        let bearer = text.starts_with("Bearer").then_some(failure).flatten();
        let full = bearer.map(|failure| format!("{text}, error=\"invalid_token\", error_description=\"{failure}\""));
        Some(full.and_then(|text| HeaderValue::try_from(text).ok()).unwrap_or_else(|| plan.challenge.clone()))
    };
    plans.iter().filter_map(of).collect()
}

/// To whoever came with a token (RFC 6750 3.1).
pub(crate) fn lacks_scope(identity: Option<&Identity>) -> Vec<HeaderValue> {
    let with_token = identity.is_some_and(|identity| identity.callers().any(|caller| caller.claims.is_some()));
    let challenge = HeaderValue::from_static("Bearer error=\"insufficient_scope\"");
    with_token.then_some(challenge).into_iter().collect()
}

fn anonymous(consumer: Option<Arc<Consumer>>, names: &[Name]) -> Proven {
    let caller = Caller {
        subject: RevocationSubject { consumer: consumer.as_ref().map(|it| it.name.clone()), ..Default::default() },
        consumer,
        credential: None,
        method: AuthMethod::Anonymous,
        auth: names[0].clone(),
        scopes: Scopes::default(),
        groups: Arc::default(),
        claims: None,
        expires: None,
    };
    Proven { identity: Rc::new(Identity::of(caller, 0)), used: Vec::new(), digest: None, cookies: Vec::new() }
}

impl Attempt<'_> {
    /// The first auth that is satisfied decides; two credentials in the head of a request are one too many.
    async fn any_of(&self, plans: &[&Arc<Plan>]) -> Result<Proven, Miss> {
        let mut worst = AuthFailure::Missing;
        let mut places: Vec<Place> = Vec::new();
        for plan in plans {
            if let Some(place) = self.place(plan)?
                && !place.comes_by_itself()
                && !places.contains(&place)
            {
                places.push(place);
            }
        }
        if places.len() > 1 && !mutants::is(Mutant::FirstOfTwoCredentials) {
            return Err(Miss::Ambiguous);
        }
        for plan in plans {
            match self.one(plan).await {
                Ok(One { identity, place, covers_body }) => {
                    let digest = self.digest(covers_body)?;
                    return Ok(Proven { identity, used: vec![place], digest, cookies: self.cookies.take() });
                }
                Err(Miss::Failure(failure)) => worst = graver(worst, failure),
                Err(miss) => return Err(miss),
            }
        }
        Err(Miss::Failure(worst))
    }

    async fn all_of(&self, plans: &[&Arc<Plan>]) -> Result<Proven, Miss> {
        let (mut callers, mut used, mut missing) = (Vec::new(), Vec::new(), 0);
        let mut presented = Vec::new();
        let mut ends_at: Option<u64> = None;
        let mut covered = false;
        for plan in plans {
            match self.one(plan).await {
                Ok(One { identity, place, covers_body }) => {
                    covered |= covers_body;
                    callers.push(identity.caller.clone());
                    presented.extend_from_slice(&identity.presented);
                    ends_at = ends_at.into_iter().chain(identity.ends_at).min();
                    used.push(place);
                }
                Err(Miss::Failure(AuthFailure::Missing)) => missing += 1,
                Err(miss) => return Err(miss),
            }
        }
        match missing {
            0 => {
                let digest = self.digest(covered)?;
                let identity = Rc::new(Identity { presented, ..Identity::of_all(callers, ends_at)? });
                Ok(Proven { identity, used, digest, cookies: self.cookies.take() })
            }
            all if all == plans.len() => Err(Miss::Failure(AuthFailure::Missing)),
            _ => Err(Miss::Failure(AuthFailure::Invalid("this route needs all of its credentials"))),
        }
    }

    /// Where the request shows a credential for this auth.
    fn place(&self, plan: &Plan) -> Result<Option<Place>, Miss> {
        let authorization = || Place::Field(AUTHORIZATION);
        Ok(match &plan.kind {
            Kind::ApiKey { header, query } => self.shown.api_key(header, query.as_deref())?.map(|(_, place)| place),
            Kind::Jwt { .. } | Kind::Introspection(_) => self.shown.bearer().map(|_| authorization()),
            Kind::Basic => self.shown.basic().map(|_| authorization()),
            Kind::Mtls(_) => self.conn.client_chain.get().map(|_| Place::Connection),
            Kind::OidcLogin(login) => login.is_shown(&self.parts.headers).then_some(Place::Cookie),
            // It is no secret: the upstream may look at it too.
            Kind::Signature(_) | Kind::ClientCredentials(_) | Kind::UpstreamKey(..) | Kind::Broken(_) => None,
        })
    }

    fn digest(&self, covered: bool) -> Result<Option<Digested>, AuthFailure> {
        if covered { Digested::new(&self.parts.headers).map(Some) } else { Ok(None) }
    }

    fn shows_nothing_else(&self, plans: &[&Arc<Plan>]) -> bool {
        let by_itself = |plan| matches!(self.place(plan), Ok(None | Some(Place::Cookie | Place::Connection)));
        plans.iter().all(|plan| by_itself(plan)) && !self.parts.headers.contains_key("signature-input")
    }

    async fn one(&self, plan: &Arc<Plan>) -> Result<One, Miss> {
        let outcome = match &plan.kind {
            Kind::ApiKey { header, query } => match self.shown.api_key(header, query.as_deref())? {
                Some((text, place)) => {
                    self.api_key(plan, text).map(|identity| One { identity, place, covers_body: false })
                }
                None => Err(AuthFailure::Missing.into()),
            },
            Kind::Jwt { plan: jwt, keys } => match self.shown.bearer() {
                Some(token) => {
                    let verified = self.directory.verified.verify(jwt, keys, token, self.now_s).await;
                    let names_consumer = jwt.consumer_claim.is_some();
                    let by = By { method: AuthMethod::Jwt, names_consumer, skew_s: jwt.skew_s };
                    let proven = verified.and_then(|token| self.token(plan, by, token));
                    proven
                        .map(|identity| One { identity, place: Place::Field(AUTHORIZATION), covers_body: false })
                        .map_err(Into::into)
                }
                None => Err(AuthFailure::Missing.into()),
            },
            Kind::Introspection(introspection) => match self.shown.bearer() {
                Some(token) => {
                    let asked = introspection.plan();
                    let names_consumer = asked.consumer_claim.is_some();
                    let by = By { method: AuthMethod::Introspection, names_consumer, skew_s: asked.skew_s };
                    let active = introspection.introspect(token, self.now_s).await;
                    let proven = active.and_then(|token| self.token(plan, by, token));
                    proven
                        .map(|identity| One { identity, place: Place::Field(AUTHORIZATION), covers_body: false })
                        .map_err(Into::into)
                }
                None => Err(AuthFailure::Missing.into()),
            },
            Kind::Signature(signature) => self.signature(plan, signature).map_err(Into::into),
            Kind::OidcLogin(login) => {
                let session = login.resume(&self.parts.headers, self.now_s).await;
                let by = By { method: AuthMethod::OidcLogin, names_consumer: login.names_consumer(), skew_s: 0 };
                let proven = session.and_then(|(open, cookies)| {
                    self.cookies.borrow_mut().extend(cookies);
                    self.token(plan, by, open.token.clone())
                });
                proven.map(|identity| One { identity, place: Place::Cookie, covers_body: false }).map_err(Into::into)
            }
            Kind::ClientCredentials(_) | Kind::UpstreamKey(..) => {
                Err(AuthFailure::Unavailable("the auth is for upstreams").into())
            }
            Kind::Basic => match self.shown.basic() {
                Some(shown) => {
                    let identity = self.basic(plan, shown).await;
                    identity.map(|identity| One { identity, place: Place::Field(AUTHORIZATION), covers_body: false })
                }
                None => Err(AuthFailure::Missing.into()),
            },
            Kind::Mtls(mtls) => match self.conn.client_chain.get() {
                Some(chain) => {
                    let judged = self.conn.judged(plan, self.now_s, || mtls.judge(chain, self.now_s).map(Arc::new));
                    let proven = judged.and_then(|certificate| self.certificate(plan, &certificate));
                    proven
                        .map(|identity| One { identity, place: Place::Connection, covers_body: false })
                        .map_err(Into::into)
                }
                None => Err(AuthFailure::Missing.into()),
            },
            Kind::Broken(reason) => Err(AuthFailure::Unavailable(reason).into()),
        };
        let worker = &self.conn.worker;
        if let Err(miss) = &outcome {
            worker.kept.count(&worker.metrics, plan.name(), miss.into());
        }
        outcome
    }

    fn api_key(&self, plan: &Arc<Plan>, text: &str) -> Result<Rc<Identity>, Miss> {
        let Some(credential) = self.directory.keys.find(text) else {
            return Err(AuthFailure::Invalid("no such API key").into());
        };
        Ok(self.stored(plan, AuthMethod::ApiKey, credential)?)
    }

    async fn basic(&self, plan: &Arc<Plan>, shown: Option<super::shown::UserPassword>) -> Result<Rc<Identity>, Miss> {
        let Some(shown) = shown else {
            return Err(AuthFailure::Invalid("the user and password are malformed").into());
        };
        let credential = self.directory.keys.user(&shown.user);
        let user = credential.as_ref().and_then(|it| match &it.kind {
            CredentialKind::Basic(user) => Some(&**user),
            CredentialKind::ApiKey { .. } => None,
        });
        let passwords: &Passwords = &self.directory.passwords;
        passwords.verify(user, shown, self.client_ip, self.now_s).await?;
        match credential {
            Some(credential) => Ok(self.stored(plan, AuthMethod::Basic, credential)?),
            None => Err(Denied::Wrong.into()),
        }
    }

    fn stored(
        &self,
        plan: &Arc<Plan>,
        method: AuthMethod,
        credential: Arc<Credential>,
    ) -> Result<Rc<Identity>, AuthFailure> {
        let now_us = self.directory.now_us();
        match credential.standing(now_us) {
            Standing::Active | Standing::Rotating => (),
            Standing::Disabled if mutants::is(Mutant::DisabledKeyTaken) => (),
            Standing::Disabled => return Err(AuthFailure::Invalid("the credential is disabled")),
            Standing::Expired => return Err(AuthFailure::Expired),
            Standing::Revoked => return Err(AuthFailure::Revoked),
        }
        let cidrs = credential.cidrs();
        let is_for = |net: &ipnet::IpNet| net.contains(&self.client_ip) || mutants::is(Mutant::KeyFromAnywhere);
        if !cidrs.is_empty() && !cidrs.iter().any(is_for) {
            return Err(AuthFailure::Invalid("the credential is not for this address"));
        }
        let key = (Arc::as_ptr(&credential) as usize, Arc::as_ptr(plan) as usize);
        self.kept(key, Evidence::Credential(credential.clone(), plan.clone()), || {
            let consumer = self.consumer(&credential.consumer)?;
            let id: Arc<str> = credential.id.to_string().into();
            let caller = Caller {
                subject: RevocationSubject {
                    consumer: Some(consumer.name.clone()),
                    credential: Some(id.clone()),
                    ..Default::default()
                },
                consumer: Some(consumer),
                credential: Some(CredentialRef { id }),
                method,
                auth: plan.name().clone(),
                scopes: Scopes::shared(credential.grants.as_ref().map(|grants| grants.scopes.clone())),
                groups: Arc::default(),
                claims: None,
                // Its end is the log clock's, which may turn back: it is looked up while streams go on.
                expires: None,
            };
            Ok(Identity::of(caller, 0))
        })
    }

    fn token(&self, plan: &Arc<Plan>, by: By, token: Arc<VerifiedToken>) -> Result<Rc<Identity>, AuthFailure> {
        // RFC 8705 3: whoever stole the token has not the key of the certificate.
        if let Some(bound) = &token.certificate_sha256
            && self.conn.certificate_sha256() != Some(bound)
            && !mutants::is(Mutant::BindingIgnored)
        {
            return Err(AuthFailure::Invalid("the token is bound to another client certificate"));
        }
        let key = (Arc::as_ptr(&token) as usize, Arc::as_ptr(plan) as usize);
        self.kept(key, Evidence::Token(token.clone(), plan.clone()), || {
            let consumer = consumer_of(&token, by.names_consumer, |name| self.consumer(name).ok())?;
            let marks = &token.marks;
            let id = marks.jti.as_deref().or(marks.subject.as_deref());
            let caller = Caller {
                subject: RevocationSubject {
                    consumer: consumer.as_ref().map(|it| it.name.clone()),
                    token: Some(marks.clone()),
                    ..Default::default()
                },
                consumer,
                credential: id.map(|id| CredentialRef { id: id.into() }),
                method: by.method,
                auth: plan.name().clone(),
                scopes: token.scopes.clone(),
                groups: token.groups.iter().cloned().collect(),
                claims: Some(token.claims.clone()),
                expires: Some(token.expires),
            };
            let presented = vec![Presented::token(token.clone(), plan.clone())];
            Ok(Identity { presented, ..Identity::of(caller, by.skew_s) })
        })
    }

    fn certificate(&self, plan: &Arc<Plan>, certificate: &Certificate) -> Result<Rc<Identity>, AuthFailure> {
        let Some(name) = &certificate.consumer else {
            return Err(AuthFailure::Invalid(
                "the client's certificate names no consumer: one of a-z, 0-9, '.', '_' and '-', as it stands there",
            ));
        };
        let consumer = self.consumer(name)?;
        let caller = Caller {
            subject: RevocationSubject {
                consumer: Some(consumer.name.clone()),
                certificate: Some(certificate.marks.clone()),
                ..Default::default()
            },
            consumer: Some(consumer),
            credential: Some(CredentialRef { id: certificate.fingerprint.clone() }),
            method: AuthMethod::Mtls,
            auth: plan.name().clone(),
            scopes: Scopes::default(),
            groups: Arc::default(),
            claims: None,
            expires: Some(certificate.expires),
        };
        let chain = self.conn.client_chain.get().cloned().unwrap_or_default();
        let presented = vec![Presented::certificate(chain, name.clone(), plan.clone())];
        Ok(Rc::new(Identity { presented, ..Identity::of(caller, 0) }))
    }

    fn signature(&self, plan: &Arc<Plan>, wanted: &SignaturePlan) -> Result<One, AuthFailure> {
        let host = || self.parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let message = Message {
            method: &self.parts.method,
            scheme: if self.conn.tls { "https" } else { "http" },
            authority: self.parts.uri.authority().map(Authority::as_str).or_else(host).unwrap_or_default(),
            path: self.parts.uri.path(),
            query: self.parts.uri.query(),
            headers: &self.parts.headers,
        };
        let signed = signature::verify(wanted, &message, self.now_s)?;
        let consumer = self.consumer(&signed.key.consumer)?;
        let id: Arc<str> = signed.key.id.as_str().into();
        let caller = Caller {
            subject: RevocationSubject {
                consumer: Some(consumer.name.clone()),
                credential: Some(id.clone()),
                ..Default::default()
            },
            consumer: Some(consumer),
            credential: Some(CredentialRef { id: id.clone() }),
            method: AuthMethod::Signature,
            auth: plan.name().clone(),
            scopes: Scopes::default(),
            groups: Arc::default(),
            claims: None,
            // It says when the request was made, not how long it may take.
            expires: None,
        };
        let presented = vec![Presented::signature_key(id, plan.clone())];
        let identity = Rc::new(Identity { presented, ..Identity::of(caller, 0) });
        Ok(One { identity, place: Place::Connection, covers_body: signed.covers_body })
    }

    fn consumer(&self, name: &Name) -> Result<Arc<Consumer>, AuthFailure> {
        self.conn.worker.kept.consumer(self.facts, name).ok_or(NO_SUCH_CONSUMER)
    }

    fn kept(
        &self,
        key: (usize, usize),
        evidence: Evidence,
        make: impl FnOnce() -> Result<Identity, AuthFailure>,
    ) -> Result<Rc<Identity>, AuthFailure> {
        let identities = &self.conn.worker.kept.identities;
        if let Some((_, identity)) = identities.borrow().get(&key) {
            return Ok(identity.clone());
        }
        let identity = Rc::new(make()?);
        let mut identities = identities.borrow_mut();
        if identities.len() >= KEPT_MAX {
            identities.clear();
        }
        identities.insert(key, (evidence, identity.clone()));
        Ok(identity)
    }
}

impl Kept {
    /// The facts of now; what was looked up in other resources is forgotten.
    fn facts(&self, directory: &Directory) -> Arc<Facts> {
        let now = directory.load_facts();
        let mut kept = self.facts.borrow_mut();
        match &*kept {
            Some(kept) if Arc::ptr_eq(kept, &now) => return kept.clone(),
            Some(kept) if kept.resources.ptr_eq(&now.resources) => (),
            _ => {
                self.consumers.borrow_mut().clear();
                self.identities.borrow_mut().clear();
            }
        }
        kept.insert(Arc::clone(&now)).clone()
    }

    fn consumer(&self, facts: &Facts, name: &Name) -> Option<Arc<Consumer>> {
        if let Some(known) = self.consumers.borrow().get(name) {
            return known.clone();
        }
        let found = find_consumer(facts, name);
        let mut consumers = self.consumers.borrow_mut();
        if consumers.len() >= KEPT_MAX {
            consumers.clear();
        }
        consumers.insert(name.clone(), found.clone());
        found
    }

    fn count(&self, metrics: &crate::metrics::WorkerMetrics, auth: &Name, result: AuthResult) {
        let mut auths = self.auths.borrow_mut();
        match auths.get(auth) {
            Some(counts) => counts.count(result),
            None => auths.entry(auth.clone()).or_insert(metrics.auth(auth)).count(result),
        }
    }
}

/// Whom a good token speaks for, where the auth says which claim names the consumer.
pub(super) fn consumer_of(
    token: &VerifiedToken,
    names_consumer: bool,
    find: impl Fn(&Name) -> Option<Arc<Consumer>>,
) -> Result<Option<Arc<Consumer>>, AuthFailure> {
    match &token.consumer {
        Some(name) => name.parse::<Name>().ok().and_then(|name| find(&name)).map(Some).ok_or(NO_SUCH_CONSUMER),
        None if names_consumer => Err(AuthFailure::Invalid("the token names no consumer")),
        None => Ok(None),
    }
}

pub(super) fn find_consumer(facts: &Facts, name: &Name) -> Option<Arc<Consumer>> {
    let key = Key { kind: ResourceKind::Consumer, name: name.clone() };
    match &facts.resources.get(&key)?.resource {
        Resource::Consumer(consumer) => Some(consumer.clone()),
        _ => None,
    }
}

impl Identity {
    fn of(caller: Caller, skew_s: u64) -> Self {
        let fields = Fields::of(&caller);
        let ends_at = caller.expires.map(|expires| expires.saturating_add(skew_s));
        Self { caller, also: Vec::new(), ends_at, fields, presented: Vec::new() }
    }

    /// Speaks for one consumer, if for any; scopes are those of all, since each was asked for.
    fn of_all(mut callers: Vec<Caller>, ends_at: Option<u64>) -> Result<Self, AuthFailure> {
        let mut consumers = callers.iter().filter_map(|caller| caller.consumer.as_ref());
        let first = consumers.next().map(|consumer| consumer.name.clone());
        let differs = consumers.any(|consumer| Some(&consumer.name) != first.as_ref());
        if differs && !mutants::is(Mutant::TwoConsumersAtOnce) {
            return Err(AuthFailure::Invalid("the credentials are of different consumers"));
        }
        let at = callers.iter().position(|caller| caller.consumer.is_some()).unwrap_or(0);
        let mut caller = callers.remove(at);
        let also = callers;
        if !also.is_empty() {
            let all = std::iter::once(&caller).chain(&also).flat_map(|caller| caller.scopes.iter().map(Box::from));
            caller.scopes = Scopes::new(all.collect::<Vec<Box<str>>>());
            let groups = std::iter::once(&caller).chain(&also).flat_map(|caller| caller.groups.iter().cloned());
            caller.groups = groups.collect();
            caller.claims = caller.claims.or_else(|| also.iter().find_map(|it| it.claims.clone()));
            caller.expires = also.iter().filter_map(|it| it.expires).chain(caller.expires).min();
        }
        let fields = Fields::of(&caller);
        Ok(Self { caller, also, ends_at, fields, presented: Vec::new() })
    }

    pub(crate) fn callers(&self) -> impl Iterator<Item = &Caller> {
        std::iter::once(&self.caller).chain(&self.also)
    }
}

/// What the client learns where several auths failed: what was closest to right.
fn graver(one: AuthFailure, other: AuthFailure) -> AuthFailure {
    let rank = |failure: &AuthFailure| match failure {
        AuthFailure::Missing => 0,
        AuthFailure::Invalid(_) => 1,
        AuthFailure::SignatureInvalid => 2,
        AuthFailure::Unavailable(_) => 3,
        AuthFailure::Expired => 4,
        AuthFailure::Revoked => 5,
    };
    if rank(&other) > rank(&one) { other } else { one }
}

impl From<AuthFailure> for Miss {
    fn from(failure: AuthFailure) -> Self {
        Self::Failure(failure)
    }
}

impl From<Ambiguous> for Miss {
    fn from(_: Ambiguous) -> Self {
        Self::Ambiguous
    }
}

impl From<Denied> for Miss {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Wrong => Self::Failure(AuthFailure::Invalid("wrong user or password")),
            Denied::Guessing(seconds) => Self::Guessing(seconds),
            Denied::Overloaded => Self::Failure(AuthFailure::Unavailable("too many passwords wait to be verified")),
        }
    }
}

impl From<&Miss> for AuthResult {
    fn from(miss: &Miss) -> Self {
        match miss {
            Miss::Ambiguous => Self::Ambiguous,
            Miss::Guessing(_) => Self::RateLimited,
            Miss::Failure(failure) => match failure {
                AuthFailure::Missing => Self::Missing,
                AuthFailure::Invalid(_) => Self::Invalid,
                AuthFailure::Expired => Self::Expired,
                AuthFailure::Revoked => Self::Revoked,
                AuthFailure::SignatureInvalid => Self::SignatureInvalid,
                AuthFailure::Unavailable(_) => Self::Unavailable,
            },
        }
    }
}
