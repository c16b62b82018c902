//! Tokens that only their issuer can read (RFC 7662): it is asked, and the answer kept for a moment.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderValue, header};
use serde_json::Value;
use tokio::time::Instant;

use super::{
    AuthFailure, Claims, Scopes, TokenMarks,
    claims::{claim, object, seconds, words},
    egress::Reach,
    fetch::{Ask, Endpoint, FetchError, Fetcher},
    flights::Flights,
    form,
    jwt::{TOKEN_BYTES_MAX, VerifiedToken, certificate, sha256},
    recent::Recent,
    twin,
};

/// The longest that an answer is kept.
pub const CACHE_MAX: Duration = Duration::from_secs(30);
/// How long a token that is not active is not asked about again.
const NEGATIVE: Duration = Duration::from_secs(5);
/// How long nobody is asked after a failure: one that hangs would hold every request for its time.
const PAUSE: Duration = Duration::from_secs(1);
/// How long an answer that says no expiry outlives an endpoint that fails, under `allow_cached`.
const STALE_WITHOUT_EXPIRY_S: u64 = 300;
const ANSWERS_MAX: usize = 16 * 1024;
const ANSWERS_BYTES_MAX: usize = 16 * 1024 * 1024;
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const ASKED_AT_ONCE_MAX: usize = 256;

/// What an auth of kind `introspection` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntrospectionPlan {
    pub endpoint: Endpoint,
    pub client_id: String,
    pub client_secret: String,
    /// At most `CACHE_MAX`.
    pub cache: Duration,
    pub on_error: OnError,
    pub consumer_claim: Option<String>,
    pub groups_claim: Option<String>,
    pub scopes_claim: String,
    pub skew_s: u64,
    pub reach: Reach,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// 503: it cannot be told.
    Deny,
    /// What was active stays so until it expires.
    AllowCached,
}

/// One auth's endpoint and what it answered lately. Shared by all workers.
pub struct Introspection {
    plan: IntrospectionPlan,
    authorization: HeaderValue,
    fetcher: Fetcher,
    answers: Mutex<Recent<Answered>>,
    flights: Arc<Flights<[u8; 32], Outcome>>,
    /// The last failure, while nothing has succeeded since.
    failed: Mutex<Option<Instant>>,
}

type Outcome = Result<Arc<VerifiedToken>, AuthFailure>;

#[derive(Clone)]
struct Answered {
    outcome: Outcome,
    at_s: u64,
}

const UNAVAILABLE: AuthFailure = AuthFailure::Unavailable("the introspection endpoint does not answer");

impl Introspection {
    pub fn new(plan: IntrospectionPlan, fetcher: Fetcher) -> Arc<Self> {
        Arc::new(Self {
            authorization: form::basic(&plan.client_id, &plan.client_secret),
            plan,
            fetcher,
            answers: Mutex::new(Recent::new(ANSWERS_MAX, ANSWERS_BYTES_MAX)),
            flights: Flights::new(ASKED_AT_ONCE_MAX),
            failed: Mutex::default(),
        })
    }

    /// One with another plan must be made anew.
    pub fn plan(&self) -> &IntrospectionPlan {
        &self.plan
    }

    /// `now_s`: seconds since 1970.
    pub async fn introspect(self: &Arc<Self>, token: &str, now_s: u64) -> Outcome {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthFailure::Invalid("the token is too long"));
        }
        let sha256 = sha256(token.as_bytes());
        let known = self.answers().get(&sha256);
        if let Some(Answered { outcome, at_s }) = &known {
            let kept = if outcome.is_ok() { self.plan.cache.min(CACHE_MAX) } else { NEGATIVE };
            // A clock that was set back makes an answer old, not new.
            if (*at_s..at_s + kept.as_secs()).contains(&now_s) {
                return self.still(outcome.clone()?, now_s);
            }
        }
        let outcome = match self.is_pausing() {
            true => Err(UNAVAILABLE),
            false => {
                let (this, token) = (self.clone(), token.to_owned());
                let flight = || async move { this.ask(&token, sha256, now_s).await };
                self.flights.join(sha256, flight).await.unwrap_or(Err(UNAVAILABLE))
            }
        };
        match (outcome, self.plan.on_error, known) {
            (Err(UNAVAILABLE), OnError::AllowCached, Some(Answered { outcome: Ok(token), .. })) => {
                self.still(token, now_s)
            }
            (outcome, ..) => outcome,
        }
    }

    /// For a token that was revoked: what was heard of it is not to be believed any more.
    pub fn forget(&self, sha256: &[u8; 32]) {
        self.answers().remove(sha256);
    }

    fn still(&self, token: Arc<VerifiedToken>, now_s: u64) -> Outcome {
        match token.expires.saturating_add(self.plan.skew_s) > now_s {
            true => Ok(token),
            false => Err(AuthFailure::Expired),
        }
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, Recent<Answered>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_pausing(&self) -> bool {
        let failed = *self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.is_some_and(|at| at.elapsed() < PAUSE)
    }

    async fn ask(&self, token: &str, sha256: [u8; 32], now_s: u64) -> Outcome {
        let body = form::encode(&[("token", token), ("token_type_hint", "access_token")]);
        let mut ask = Ask::form(self.plan.reach, ANSWER_BYTES_MAX, body);
        ask.headers.insert(header::AUTHORIZATION, self.authorization.clone());
        let answer = self.fetcher.fetch(&self.plan.endpoint, &ask).await;
        let read = answer.and_then(|it| object(&it.body).ok_or(FetchError::Http("not a JSON object".into())));
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let claims = match read {
            Ok(claims) => claims,
            Err(error) => {
                if failed.is_none() {
                    tracing::warn!(endpoint = %self.plan.endpoint, %error, "tokens cannot be introspected");
                }
                *failed = Some(Instant::now());
                return Err(UNAVAILABLE);
            }
        };
        if failed.take().is_some() {
            tracing::info!(endpoint = %self.plan.endpoint, "tokens can be introspected again");
        }
        drop(failed);
        let outcome = self.verified(claims, token, sha256, now_s).map(Arc::new);
        self.answers().insert(sha256, Answered { outcome: outcome.clone(), at_s: now_s }, token.len());
        outcome
    }

    fn verified(
        &self,
        claims: Claims,
        token: &str,
        sha256: [u8; 32],
        now_s: u64,
    ) -> Result<VerifiedToken, AuthFailure> {
        if claims.get("active") != Some(&Value::Bool(true)) {
            return Err(AuthFailure::Invalid("the token is not active"));
        }
        let time = |name: &str| match claims.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match seconds(value).and_then(|it| u64::try_from(it).ok()) {
                Some(seconds) => Ok(Some(seconds)),
                None => Err(AuthFailure::Invalid("a time of the token is no number of seconds since 1970")),
            },
        };
        let expires = time("exp")?.unwrap_or(now_s + STALE_WITHOUT_EXPIRY_S);
        if expires.saturating_add(self.plan.skew_s) <= now_s {
            return Err(AuthFailure::Expired);
        }
        if time("nbf")?.is_some_and(|it| it > now_s.saturating_add(self.plan.skew_s)) {
            return Err(AuthFailure::Invalid("the token is not yet valid"));
        }
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let marks = TokenMarks {
            sha256,
            twin_sha256: twin::twin_sha256(token),
            issuer: text("iss").map(Into::into),
            subject: text("sub").map(Into::into),
            jti: text("jti").map(Into::into),
            sid: text("sid").map(Into::into),
            client: text("client_id").or_else(|| text("azp")).map(Into::into),
            kid: None,
            issued_at: time("iat")?,
        };
        let named = |name: &Option<String>| name.as_deref().and_then(|name| claim(&claims, name));
        Ok(VerifiedToken {
            marks: Arc::new(marks),
            scopes: Scopes::new(claim(&claims, &self.plan.scopes_claim).map(words).unwrap_or_default()),
            consumer: named(&self.plan.consumer_claim).and_then(Value::as_str).map(Into::into),
            groups: named(&self.plan.groups_claim).map(words).unwrap_or_default().into_iter().map(Into::into).collect(),
            expires,
            certificate_sha256: certificate(&claims)?,
            claims: Arc::new(claims),
            signed_by: None,
        })
    }
}
