//! The same sign-in for people of another listener, the admin API's: nobody's route, a cookie of its own name, and keys
//! that only this listener's cookies are sealed with.

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Response, header, uri::Authority};
use quorumgate_model::resource::{Auth, AuthKind};
use serde_json::Value;

use super::{Login, Whence, cookie, session::Session};
use crate::{
    body::ResponseBody,
    identity::{
        AuthFailure, Claims, RevocationSubject,
        claims::{claim, words},
        directory::Directory,
        fetch::Fetcher,
        keeper::Slot,
        verified::Keys,
    },
};

/// Derives what seals these cookies from the cluster's cookie key.
const CONTEXT: &str = "quorumgate 2026 cookies of the admin API's people";
/// No auth's name has a tilde.
const COOKIE: &str = "~admin";

/// Signs people in, of one provider.
pub struct SignIn {
    pub(super) login: Arc<Login>,
}

/// Somebody whom the provider has signed in.
#[derive(Debug, Clone)]
pub struct Person {
    claims: Arc<Claims>,
    /// By which the session can be revoked.
    pub subject: RevocationSubject,
    /// Seconds since 1970.
    pub ends_s: u64,
}

impl SignIn {
    /// `auth` is of kind `oidc_login`, else there is none; `cookie_key` is the cluster's.
    pub fn new(
        auth: &Auth,
        client_secret: String,
        slot: Arc<Slot>,
        cookie_key: &[u8],
        fetcher: Fetcher,
    ) -> Option<Self> {
        let AuthKind::OidcLogin(asked) = &auth.kind else { return None };
        // What one provider said of somebody is not to be judged as if another had.
        let secret = blake3::keyed_hash(&blake3::derive_key(CONTEXT, cookie_key), asked.issuer.as_bytes());
        let name = format!("{}{COOKIE}", cookie::PREFIX);
        let keys = Keys::Kept(slot);
        let login = Login::with_cookie(name, &auth.name, asked, client_secret, keys, secret.as_bytes(), fetcher);
        Some(Self { login })
    }

    pub fn is_shown(&self, headers: &HeaderMap) -> bool {
        self.login.is_shown(headers)
    }

    /// Sends a browser to the provider; it comes back to the callback path of this very host, and from there to `place`.
    pub async fn begin(
        &self,
        host: &Authority,
        place: &str,
        now_s: u64,
    ) -> Result<Response<ResponseBody>, AuthFailure> {
        let whence = Whence { tls: true, host: host.host(), port: host.port_u16(), path: place };
        self.login.begin(whence, None, now_s).await
    }

    /// The browser is back: who it is, and the answer that gives it its session.
    pub async fn arrive(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        now_s: u64,
    ) -> Result<(Person, Response<ResponseBody>), AuthFailure> {
        let (session, response) = self.login.arrive(headers, query, now_s).await?;
        Ok((self.person(&session), response))
    }

    /// Who shows a session, and what its browser is to keep from now on.
    pub async fn resume(&self, headers: &HeaderMap, now_s: u64) -> Result<(Person, Vec<HeaderValue>), AuthFailure> {
        let (open, cookies) = self.login.resume(headers, now_s).await?;
        Ok((self.person(&open.session), cookies))
    }

    /// Ends the session on every node: the cookies to take away, and the provider's own sign-out if it has one.
    pub async fn leave(
        &self,
        headers: &HeaderMap,
        directory: &Directory,
        client_ip: IpAddr,
        now_s: u64,
    ) -> Result<Response<ResponseBody>, AuthFailure> {
        self.login.logout(headers, directory, client_ip, now_s).await
    }

    fn person(&self, session: &Session) -> Person {
        let token = session.token(&self.login.asked.issuer, &self.login.asked.client_id, None);
        let subject = RevocationSubject { token: Some(token.marks), ..RevocationSubject::default() };
        let mut claims = session.claims.clone();
        claims.insert("sub".into(), session.sub.clone().into());
        Person { claims: Arc::new(claims), subject, ends_s: session.ends_s }
    }
}

impl Person {
    /// A text that the provider vouches for. An address of mail counts when it says that it has looked (OpenID Connect Core §5.1).
    pub fn text(&self, name: &str) -> Option<&str> {
        self.found(name)?.as_str()
    }

    /// Whether the claim is this word, or has it in a list or between spaces.
    pub fn says(&self, name: &str, word: &str) -> bool {
        let found = self.found(name);
        found.is_some_and(|it| it.as_str() == Some(word) || words(it).contains(&word))
    }

    fn found(&self, name: &str) -> Option<&Value> {
        let is_vouched_for = name != "email" || self.claims.get("email_verified") == Some(&Value::Bool(true));
        claim(&self.claims, name).filter(|_| is_vouched_for)
    }
}

/// Where an answer sends a browser.
pub fn location(response: &Response<ResponseBody>) -> Option<&str> {
    response.headers().get(header::LOCATION)?.to_str().ok()
}

/// The longest session: what shuts subjects out is kept for longer.
pub const SESSION_MAX: Duration = Duration::from_secs(24 * 3_600);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn person(claims: Value) -> Person {
        let Value::Object(claims) = claims else { panic!() };
        Person { claims: Arc::new(claims), subject: RevocationSubject::default(), ends_s: 0 }
    }

    #[test]
    fn a_rule_is_met_by_a_whole_word() {
        let check = |claims: Value, name: &str, word: &str, expected: bool| {
            assert_eq!(person(claims.clone()).says(name, word), expected, "{claims} {name} {word}");
        };
        check(json!({"groups": ["ops", "dev"]}), "groups", "ops", true);
        check(json!({"groups": "ops dev"}), "groups", "dev", true);
        check(json!({"groups": "ops dev"}), "groups", "ops dev", true);
        check(json!({"groups": ["ops-admins"]}), "groups", "ops", false);
        check(json!({"groups": [["ops"]]}), "groups", "ops", false);
        check(json!({"realm_access": {"roles": ["ops"]}}), "realm_access.roles", "ops", true);
        check(json!({"admin": true}), "admin", "true", false);
        check(json!({}), "groups", "", false);
        check(json!({"email": "a@b.test", "email_verified": true}), "email", "a@b.test", true);
        check(json!({"email": "a@b.test", "email_verified": "true"}), "email", "a@b.test", false);
        check(json!({"email": "a@b.test"}), "email", "a@b.test", false);
    }
}
