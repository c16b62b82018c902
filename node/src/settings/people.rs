//! `[admin.oidc]`: where people sign in to the web page, and what each of them may do there.

use std::{fs, path::PathBuf};

use anyhow::Context;
use quorumgate_model::{
    command::AdminRole,
    resource::{Auth, Kind, Resource},
    units::Span,
};
use quorumgate_proxy::identity::sign_in::SESSION_MAX;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Where the browser comes back to from the provider: `https://HOST:PORT` and this.
pub const CALLBACK_PATH: &str = "/ui/callback";
const LOGOUT_PATH: &str = "/ui/logout";
/// Of the auth that the sign-in is for those parts that it shares with routes.
const NAME: &str = "admin";
const RULES_MAX: usize = 256;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    pub issuer: String,
    pub client_id: String,
    pub client_secret_file: PathBuf,
    #[serde(default = "scopes_default")]
    pub scopes: Vec<String>,
    /// The claim of the ID token that the person is known by in the audit trail.
    #[serde(default = "name_claim_default")]
    pub name_claim: String,
    /// After so long a person signs in again.
    #[serde(default = "session_default")]
    pub session: Span,
    /// The provider may have a loopback or private address, and http.
    #[serde(default)]
    pub allow_private: bool,
    /// The first that is met decides; who meets none is refused.
    pub roles: Vec<RoleRule>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleRule {
    pub role: Role,
    /// A claim of the ID token, or a path into it with dots: `groups`, `realm_access.roles`.
    pub claim: String,
    /// What it is, or has among its words.
    pub value: String,
    /// Only objects of this owner may be written; empty: all.
    #[serde(default)]
    pub owner: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Viewer,
    Operator,
    Admin,
}

impl From<Role> for AdminRole {
    fn from(it: Role) -> Self {
        match it {
            Role::Viewer => Self::Viewer,
            Role::Operator => Self::Operator,
            Role::Admin => Self::Admin,
        }
    }
}

impl Oidc {
    /// What a route's sign-in would say, checked as that is; with the client's secret, read from its file.
    pub fn auth(&self) -> anyhow::Result<(Auth, String)> {
        let secret = fs::read_to_string(&self.client_secret_file)
            .with_context(|| format!("client_secret_file: {} cannot be read", self.client_secret_file.display()))?;
        let secret = secret.trim().to_owned();
        let words = json!({ "name": NAME, "oidc_login": {
            "issuer": self.issuer, "client_id": self.client_id, "client_secret": format!("plain:{secret}"),
            "scopes": self.scopes, "callback_path": CALLBACK_PATH, "logout_path": LOGOUT_PATH,
            "session": self.session, "allow_private": self.allow_private,
        } });
        let Resource::Auth(auth) = Kind::Auth.parse(words)? else { anyhow::bail!("it is no auth") };
        Ok((Auth::clone(&auth), secret))
    }

    pub(super) fn check(&self) -> anyhow::Result<()> {
        self.auth()?;
        anyhow::ensure!(
            self.session.0 <= SESSION_MAX && !self.session.0.is_zero(),
            "session: found {}; allowed: 1s to 24h",
            self.session
        );
        let rules = self.roles.len();
        anyhow::ensure!((1..=RULES_MAX).contains(&rules), "roles: found {rules} of them; allowed: 1 to {RULES_MAX}");
        for (at, rule) in self.roles.iter().enumerate() {
            let is_empty = rule.claim.is_empty() || rule.value.is_empty();
            anyhow::ensure!(
                !is_empty,
                "roles[{at}]: found an empty claim or value; allowed: a claim and what it must say"
            );
        }
        anyhow::ensure!(!self.name_claim.is_empty(), "name_claim: found none; allowed: a claim, such as sub or email");
        Ok(())
    }
}

fn scopes_default() -> Vec<String> {
    vec!["openid".into(), "profile".into()]
}

fn name_claim_default() -> String {
    "sub".into()
}

fn session_default() -> Span {
    Span::secs(8 * 3_600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        fs::write(&file, "hunter2\n").unwrap();
        let good = format!(
            "issuer = 'https://idp.test'\nclient_id = 'quorumgate'\nclient_secret_file = '{}'\n\
             session = '8h'\n[[roles]]\nrole = 'admin'\nclaim = 'groups'\nvalue = 'ops'\n",
            file.display()
        );
        let check = |from: &str, to: &str, expected: &str| {
            let text = good.replace(from, to);
            let found = toml::from_str::<Oidc>(&text).map_err(anyhow::Error::from).and_then(|it| it.check());
            let found = found.map_or_else(|error| format!("{error:#}"), |()| "good".into());
            assert!(found.contains(expected), "{to}: {found}");
        };
        check("", "", "good");
        check("https://idp", "http://idp", "issuer");
        check("'8h'", "'25h'", "session: found");
        check("value = 'ops'", "value = ''", "roles[0]: found an empty");
        check("'admin'", "'root'", "root");
        check("secret'", "missing'", "client_secret_file");
        check("session", "sesion", "sesion");
        check("client_id", "scopes = ['profile']\nclient_id", "openid among them");
        let (_, secret) = toml::from_str::<Oidc>(&good).unwrap().auth().unwrap();
        assert_eq!(secret, "hunter2");
    }
}
