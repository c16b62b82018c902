//! A token of this gateway's own for an upstream (RFC 6749 §4.4): asked for once, shared by all requests, and asked
//! for again before it expires.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use http::{HeaderValue, header};
use serde_json::Value;
use tokio::time::Instant;

use super::{
    AuthFailure,
    claims::{object, seconds},
    egress::Reach,
    fetch::{Ask, Endpoint, FetchError, Fetcher},
    flights::Flights,
    form,
    jwt::TOKEN_BYTES_MAX,
};

/// Of a token that comes without an `expires_in`.
const LIFETIME: Duration = Duration::from_secs(60);
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// The share of its lifetime after which a token is replaced, and after which it is not used any more.
const REPLACE_PERCENT: u32 = 80;
const USE_PERCENT: u32 = 95;
/// Between two attempts that fail.
const PAUSE: Duration = Duration::from_secs(1);
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What an auth of kind `client_credentials` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCredentialsPlan {
    pub token_endpoint: Endpoint,
    pub client_id: String,
    pub client_secret: String,
    pub scopes: Vec<String>,
    pub reach: Reach,
}

/// One auth's token, shared by all workers.
pub struct ClientCredentials {
    plan: ClientCredentialsPlan,
    authorization: HeaderValue,
    fetcher: Fetcher,
    held: ArcSwapOption<Held>,
    flights: Arc<Flights<(), Option<Arc<Held>>>>,
    /// The last failure, while nothing has succeeded since.
    failed: Mutex<Option<Instant>>,
}

struct Held {
    bearer: HeaderValue,
    replace: Instant,
    until: Instant,
}

const UNAVAILABLE: AuthFailure = AuthFailure::Unavailable("no token for the upstream is to be had");

impl ClientCredentials {
    pub fn new(plan: ClientCredentialsPlan, fetcher: Fetcher) -> Arc<Self> {
        Arc::new(Self {
            authorization: form::basic(&plan.client_id, &plan.client_secret),
            plan,
            fetcher,
            held: ArcSwapOption::empty(),
            flights: Flights::new(1),
            failed: Mutex::default(),
        })
    }

    /// One with another plan must be made anew.
    pub fn plan(&self) -> &ClientCredentialsPlan {
        &self.plan
    }

    /// The `Authorization` for a request to the upstream that is made now.
    pub async fn bearer(self: &Arc<Self>, now: Instant) -> Result<HeaderValue, AuthFailure> {
        let flight = || {
            let this = self.clone();
            async move { this.ask(now).await }
        };
        if let Some(held) = self.held.load_full().filter(|held| now < held.until) {
            // Somebody has to fetch the next one, but nobody to wait for it.
            if held.replace <= now && !self.is_pausing(now) {
                self.flights.start((), flight);
            }
            return Ok(held.bearer.clone());
        }
        if self.is_pausing(now) {
            return Err(UNAVAILABLE);
        }
        let held = self.flights.join((), flight).await.flatten();
        held.map(|held| held.bearer.clone()).ok_or(UNAVAILABLE)
    }

    /// The upstream refused the token: it is not used again. One that has taken its place meanwhile is.
    pub fn refused(&self, bearer: &HeaderValue) {
        let held = self.held.load();
        if held.as_ref().is_some_and(|held| held.bearer == *bearer) {
            self.held.compare_and_swap(&held, None);
        }
    }

    fn is_pausing(&self, now: Instant) -> bool {
        let failed = *self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.is_some_and(|at| now.saturating_duration_since(at) < PAUSE)
    }

    /// The lifetime counts from `asked`: the endpoint makes the token later.
    async fn ask(&self, asked: Instant) -> Option<Arc<Held>> {
        let scopes = self.plan.scopes.join(" ");
        let mut pairs = vec![("grant_type", "client_credentials")];
        if !scopes.is_empty() {
            pairs.push(("scope", &scopes));
        }
        let mut ask = Ask::form(self.plan.reach, ANSWER_BYTES_MAX, form::encode(&pairs));
        ask.headers.insert(header::AUTHORIZATION, self.authorization.clone());
        let answer = self.fetcher.fetch(&self.plan.token_endpoint, &ask).await;
        let held = answer.and_then(|answer| {
            read(&answer.body, asked).ok_or(FetchError::Http("no bearer token in the answer".into()))
        });
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        match held {
            Ok(held) => {
                if failed.take().is_some() {
                    tracing::info!(endpoint = %self.plan.token_endpoint, "tokens for upstreams are to be had again");
                }
                let held = Arc::new(held);
                self.held.store(Some(held.clone()));
                Some(held)
            }
            Err(error) => {
                if failed.is_none() {
                    tracing::warn!(endpoint = %self.plan.token_endpoint, %error, "no token for an upstream");
                }
                *failed = Some(asked);
                None
            }
        }
    }
}

/// RFC 6749 §5.1.
fn read(json: &[u8], asked: Instant) -> Option<Held> {
    let answer = object(json)?;
    let text = |name: &str| answer.get(name).and_then(Value::as_str);
    if !text("token_type")?.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let token = text("access_token").filter(|it| !it.is_empty() && it.len() <= TOKEN_BYTES_MAX)?;
    let mut bearer = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    bearer.set_sensitive(true);
    let lifetime = match answer.get("expires_in") {
        None => LIFETIME,
        Some(value) => Duration::from_secs(seconds(value)?.try_into().ok()?).min(LIFETIME_MAX),
    };
    let share = |percent: u32| asked + lifetime * percent / 100;
    Some(Held { bearer, replace: share(REPLACE_PERCENT), until: share(USE_PERCENT) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bearer_token_is_taken() {
        let asked = Instant::now();
        let check = |json: &str, expected: Option<(u64, u64)>| {
            let held = read(json.as_bytes(), asked);
            let times = held.map(|it| ((it.replace - asked).as_secs(), (it.until - asked).as_secs()));
            assert_eq!(times, expected, "{json}");
        };
        check(r#"{"access_token":"t","token_type":"Bearer","expires_in":100}"#, Some((80, 95)));
        check(r#"{"access_token":"t","token_type":"bearer"}"#, Some((48, 57)));
        check(r#"{"access_token":"t","token_type":"bearer","expires_in":1e12}"#, Some((69_120, 82_080)));
        check(r#"{"access_token":"t","token_type":"bearer","expires_in":-1}"#, None);
        check(r#"{"access_token":"t","token_type":"bearer","expires_in":"100"}"#, None);
        check(r#"{"access_token":"t","token_type":"DPoP"}"#, None);
        check(r#"{"access_token":"t"}"#, None);
        check(r#"{"access_token":"","token_type":"bearer"}"#, None);
        check(r#"{"access_token":"t\r\nx: y","token_type":"bearer"}"#, None);
        check(r#"{"error":"invalid_client"}"#, None);
    }
}
