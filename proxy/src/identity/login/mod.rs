//! Browser login as an OpenID Connect relying party: authorization code with PKCE, state, nonce and the issuer check of
//! RFC 9207. The session is in the browser, sealed; what this node keeps is only ever a short cut.

pub(crate) mod cookie;
mod flow;
mod provider;
mod session;
pub mod sign_in;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use http::{HeaderMap, HeaderValue, Method, header, request::Parts};
use quorumgate_model::resource::{Name, OidcLoginAuth};

use self::{
    cookie::Sealer,
    provider::{NoTokens, Provider},
    session::Session,
};
use super::{
    AuthFailure,
    algorithm::Algorithm,
    egress::Reach,
    fetch::Fetcher,
    flights::Flights,
    jwt::{JwtPlan, PlanId, VerifiedToken, check, sha256},
    recent::Recent,
    verified::Keys,
};

/// Sessions that this node has opened lately, and the bytes of their cookies.
const KNOWN_MAX: usize = 8 * 1024;
const KNOWN_BYTES_MAX: usize = 16 * 1024 * 1024;
const REFRESHES_AT_ONCE_MAX: usize = 256;
/// Before an access token ends: the provider's clock is not ours.
const REFRESH_EARLY_S: u64 = 30;
const REFRESH_LEAST_S: u64 = 60;
/// Between two attempts while the provider does not answer.
const REFRESH_PAUSE_S: u64 = 10;
const SKEW_S: u64 = 30;
/// An ID token is looked at once; how long it would be good for says nothing about the session.
const ID_TOKEN_LIFE_MAX_S: u64 = 366 * 24 * 3600;

pub(crate) struct Login {
    auth: Name,
    /// Its name.
    cookie: String,
    asked: OidcLoginAuth,
    id_tokens: JwtPlan,
    keys: Keys,
    sealer: Sealer,
    provider: Arc<Provider>,
    /// By the SHA-256 of a cookie: what it says, and what came of it if it was renewed.
    known: Mutex<Recent<Arc<Open>>>,
    renewed: Mutex<Recent<Arc<Open>>>,
    flights: Arc<Flights<[u8; 32], Renewal>>,
    /// Seconds since 1970 until which no session is renewed: the provider did not answer.
    pausing_until_s: AtomicU64,
}

/// A session whose cookie was opened.
pub(crate) struct Open {
    session: Session,
    pub(crate) token: Arc<VerifiedToken>,
    /// The browser is to have these from now on.
    cookies: Vec<HeaderValue>,
}

#[derive(Clone)]
enum Renewal {
    Renewed(Arc<Open>),
    Over,
    Unavailable,
}

/// Where a request came in, as the browser sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whence<'a> {
    pub(crate) tls: bool,
    /// With brackets if it is an address of IPv6; empty if the request names none.
    pub(crate) host: &'a str,
    pub(crate) port: Option<u16>,
    /// Canonical.
    pub(crate) path: &'a str,
}

impl Login {
    /// `secret`: the cluster's cookie key.
    pub(crate) fn new(
        auth: &Name,
        asked: &OidcLoginAuth,
        client_secret: String,
        keys: Keys,
        secret: &[u8],
        fetcher: Fetcher,
    ) -> Arc<Self> {
        let cookie = format!("{}{auth}", cookie::PREFIX);
        Self::with_cookie(cookie, auth, asked, client_secret, keys, secret, fetcher)
    }

    fn with_cookie(
        cookie: String,
        auth: &Name,
        asked: &OidcLoginAuth,
        client_secret: String,
        keys: Keys,
        secret: &[u8],
        fetcher: Fetcher,
    ) -> Arc<Self> {
        let reach = if asked.allow_private { Reach::Private } else { Reach::Public };
        let id_tokens = JwtPlan {
            id: PlanId::next(),
            issuer: asked.issuer.clone(),
            audience: vec![asked.client_id.clone()],
            algorithms: ["RS256", "ES256", "PS256", "ES384", "EdDSA"]
                .iter()
                .filter_map(|word| word.parse::<Algorithm>().ok())
                .collect(),
            consumer_claim: None,
            groups_claim: None,
            scopes_claim: "scope".into(),
            skew_s: SKEW_S,
            max_lifetime_s: ID_TOKEN_LIFE_MAX_S,
            typ: None,
        };
        Arc::new(Self {
            auth: auth.clone(),
            cookie,
            id_tokens,
            keys,
            sealer: Sealer::new(secret, auth, &asked.client_id),
            provider: Provider::new(&asked.issuer, &asked.client_id, client_secret, reach, fetcher),
            known: Mutex::new(Recent::new(KNOWN_MAX, KNOWN_BYTES_MAX)),
            renewed: Mutex::new(Recent::new(KNOWN_MAX, KNOWN_BYTES_MAX)),
            flights: Flights::new(REFRESHES_AT_ONCE_MAX),
            pausing_until_s: AtomicU64::new(0),
            asked: asked.clone(),
        })
    }

    pub(crate) fn names_consumer(&self) -> bool {
        self.asked.consumer_claim.is_some()
    }

    /// What the provider's tokens must be, and whose keys they are signed with: for what it says by itself.
    pub(crate) fn signers(&self) -> (&JwtPlan, &Keys) {
        (&self.id_tokens, &self.keys)
    }

    pub(crate) fn logout_path(&self) -> &str {
        &self.asked.logout_path
    }

    /// Of a form that a session was shown, the same on every node.
    pub(crate) fn form_token(&self, parts: &[&[u8]]) -> blake3::Hash {
        self.sealer.mark("form", parts)
    }

    pub(crate) fn is_shown(&self, headers: &HeaderMap) -> bool {
        headers.contains_key(header::COOKIE) && cookie::find(headers, &self.cookie).is_some()
    }

    /// The session of a request, and what its browser is to be told. Waits only where it must be renewed.
    pub(crate) async fn resume(
        self: &Arc<Self>,
        headers: &HeaderMap,
        now_s: u64,
    ) -> Result<(Arc<Open>, Vec<HeaderValue>), AuthFailure> {
        if !self.is_shown(headers) {
            return Err(AuthFailure::Missing);
        }
        const BROKEN: AuthFailure = AuthFailure::Invalid("the session's cookie is not one of this gateway");
        let text = cookie::joined(headers, &self.cookie).ok_or(BROKEN)?;
        let sha256 = sha256(text.as_bytes());
        // Whoever still shows the cookie of before, as requests do that were under way together.
        let renewed = lock(&self.renewed).get(&sha256);
        let known = renewed.or_else(|| lock(&self.known).get(&sha256));
        let open = match known {
            Some(open) => open,
            None => {
                let session = self.sealer.open("session", &text).and_then(|json| serde_json::from_slice(&json).ok());
                let open = Arc::new(self.opened(session.ok_or(BROKEN)?, Vec::new()));
                lock(&self.known).insert(sha256, open.clone(), 2 * text.len());
                open
            }
        };
        if open.session.ends_s <= now_s {
            return Err(AuthFailure::Expired);
        }
        let due = open.session.refresh_token.is_some() && open.session.refresh_s.is_some_and(|at| at <= now_s);
        if !due || now_s < self.pausing_until_s.load(Ordering::Relaxed) {
            let cookies = open.cookies.clone();
            return Ok((open, cookies));
        }
        let had = cookie::pieces(headers, &self.cookie);
        let (this, before) = (self.clone(), open.clone());
        let flight = || async move { this.renew(before, sha256, had, now_s).await };
        match self.flights.join(sha256, flight).await.unwrap_or(Renewal::Unavailable) {
            Renewal::Renewed(open) => {
                let cookies = open.cookies.clone();
                Ok((open, cookies))
            }
            Renewal::Over => Err(AuthFailure::Expired),
            // The session has its own end; that the provider is away does not bring it nearer.
            Renewal::Unavailable => Ok((open, Vec::new())),
        }
    }

    fn opened(&self, session: Session, cookies: Vec<HeaderValue>) -> Open {
        let token = session.token(&self.asked.issuer, &self.asked.client_id, self.asked.consumer_claim.as_deref());
        Open { session, token: Arc::new(token), cookies }
    }

    /// OpenID Connect Core §12. A refresh token may be good only once: one request goes, all get what it brings.
    async fn renew(self: Arc<Self>, before: Arc<Open>, sha256: [u8; 32], had: usize, now_s: u64) -> Renewal {
        let mut session = before.session.clone();
        let Some(refresh_token) = session.refresh_token.take() else { return Renewal::Over };
        let grant = [("grant_type", "refresh_token"), ("refresh_token", &refresh_token)];
        let tokens = match self.provider.tokens(&grant).await {
            Ok(tokens) => tokens,
            Err(NoTokens::Refused) => return Renewal::Over,
            Err(NoTokens::Unavailable) => {
                self.pausing_until_s.store(now_s + REFRESH_PAUSE_S, Ordering::Relaxed);
                return Renewal::Unavailable;
            }
        };
        if let Some(id_token) = &tokens.id_token {
            let verified = self.verify(id_token, now_s).await;
            match verified {
                Ok(claims) if claims.get("sub").and_then(|it| it.as_str()) == Some(&session.sub) => {
                    session.take_claims(&claims);
                }
                Err(AuthFailure::Unavailable(_)) => return Renewal::Unavailable,
                _ => return Renewal::Over,
            }
        }
        session.refresh_token = Some(tokens.refresh_token.unwrap_or(refresh_token));
        session.refresh_s = tokens.expires_in_s.map(|left| refresh_at(now_s, left));
        session.scope = tokens.scope.unwrap_or(session.scope);
        let Ok(cookies) = self.cookies(&session, had, now_s) else { return Renewal::Unavailable };
        let weight = 2 * cookies.iter().map(HeaderValue::len).sum::<usize>();
        let open = Arc::new(self.opened(session, cookies));
        lock(&self.renewed).insert(sha256, open.clone(), weight);
        Renewal::Renewed(open)
    }

    /// The claims of an ID token that is good now.
    async fn verify(&self, id_token: &str, now_s: u64) -> Result<Arc<super::Claims>, AuthFailure> {
        let hash = sha256(id_token.as_bytes());
        let token = self.keys.judge(|set| check(&self.id_tokens, set, id_token, &hash, now_s)).await;
        let token = token.map_err(|failure| match failure {
            // It is new: it was never good, and the session has a time of its own.
            AuthFailure::Expired => AuthFailure::Invalid("the ID token has expired already"),
            failure => failure,
        })?;
        // OpenID Connect Core §3.1.3.7: the token of another client that names us too is not ours.
        match token.claims.get("azp").map(|azp| azp.as_str()) {
            Some(azp) if azp != Some(&self.asked.client_id) => {
                Err(AuthFailure::Invalid("the ID token is for another client"))
            }
            None if token.claims.get("aud").is_some_and(|aud| aud.as_array().is_some_and(|all| all.len() > 1)) => {
                Err(AuthFailure::Invalid("the ID token does not say for which of its audiences it is"))
            }
            _ => Ok(token.claims.clone()),
        }
    }

    fn cookies(&self, session: &Session, had: usize, now_s: u64) -> Result<Vec<HeaderValue>, AuthFailure> {
        const TOO_LONG: AuthFailure = AuthFailure::Invalid("the provider says too much for a cookie");
        let json = serde_json::to_vec(session).map_err(|_| TOO_LONG)?;
        let text = self.sealer.seal("session", &json).ok_or(NO_RANDOM)?;
        cookie::set(&self.cookie, &text, session.ends_s.saturating_sub(now_s), had).ok_or(TOO_LONG)
    }
}

const NO_RANDOM: AuthFailure = AuthFailure::Unavailable("this machine has no randomness");

fn refresh_at(now_s: u64, left_s: u64) -> u64 {
    now_s.saturating_add(left_s.saturating_sub(REFRESH_EARLY_S).max(REFRESH_LEAST_S))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a person waits for a page: only then does it make sense to send the client to the provider.
pub(crate) fn is_navigation(parts: &Parts) -> bool {
    let says = |name: &str| parts.headers.get(name).map(|value| value.as_bytes());
    let accepts = parts.headers.get_all(header::ACCEPT).iter().filter_map(|it| it.to_str().ok());
    let wants_html =
        accepts.flat_map(|it| it.split(',')).any(|it| it.trim().to_ascii_lowercase().starts_with("text/html"));
    matches!(parts.method, Method::GET | Method::HEAD)
        && wants_html
        && says("sec-fetch-mode").is_none_or(|mode| mode == b"navigate")
        && says("sec-fetch-dest").is_none_or(|dest| dest == b"document")
        && says("x-requested-with").is_none()
        && !parts.headers.contains_key(header::AUTHORIZATION)
}

#[cfg(test)]
mod tests;
