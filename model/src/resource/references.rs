//! Which objects name which: a reference must lead somewhere, and what is referred to cannot be deleted.

use std::sync::Arc;

use super::{Action, Auth, AuthKind, Key, Kind, Name, PolicyKind, Resource, Secret};
use crate::digest::Digest;

/// One object's mention of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Of the object that refers, such as `auth.any_of[0]`.
    pub field: String,
    pub key: Key,
    pub wants: Wants,
}

/// What an auth must be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    Anything,
    /// One that says who is calling: a route's.
    Callers,
    /// One that the gateway proves itself by: an upstream's.
    Ourselves,
}

impl Wants {
    pub fn met_by(self, auth: &Auth) -> bool {
        match self {
            Wants::Anything => true,
            Wants::Callers => !auth.proves_ourselves(),
            Wants::Ourselves => auth.proves_ourselves(),
        }
    }

    pub fn allowed(self) -> &'static str {
        match self {
            Wants::Anything => "an auth",
            Wants::Callers => {
                "an auth of another kind than client_credentials and upstream_key: these say nothing about callers"
            }
            Wants::Ourselves => "an auth of kind client_credentials or upstream_key",
        }
    }
}

impl Auth {
    /// Kinds client_credentials and upstream_key, those that are not for callers.
    pub fn proves_ourselves(&self) -> bool {
        matches!(self.kind, AuthKind::ClientCredentials(_) | AuthKind::UpstreamKey(_))
    }
}

fn to(field: impl Into<String>, kind: Kind, name: &Name, wants: Wants) -> Reference {
    Reference { field: field.into(), key: Key { kind, name: name.clone() }, wants }
}

impl Resource {
    /// Every object that this one names.
    pub fn references(&self) -> Vec<Reference> {
        let mut all = Vec::new();
        match self {
            Resource::Upstream(it) => {
                all.extend(it.auth.iter().map(|name| to("auth", Kind::Auth, name, Wants::Ourselves)));
                let ca = it.tls.iter().filter_map(|tls| tls.ca.as_ref());
                all.extend(ca.map(|name| to("tls.ca", Kind::CertificateAuthority, name, Wants::Anything)));
                let shown = it.tls.iter().filter_map(|tls| tls.client_certificate.as_ref());
                all.extend(shown.map(|name| to("tls.client_certificate", Kind::Certificate, name, Wants::Anything)));
            }
            Resource::Route(it) => {
                match &it.action {
                    Action::Forward { upstream } => {
                        all.push(to("upstream", Kind::Upstream, upstream, Wants::Anything));
                    }
                    Action::Split(split) => {
                        let arms = split.arms.iter().enumerate();
                        all.extend(arms.map(|(place, arm)| {
                            to(format!("split[{place}].upstream"), Kind::Upstream, &arm.upstream, Wants::Anything)
                        }));
                    }
                    Action::Receive(it) => all.push(to("respond.auth", Kind::Auth, &it.auth, Wants::Callers)),
                    Action::Redirect(_) | Action::Respond(_) => {}
                }
                let listeners = it.matches.listeners.iter().enumerate();
                all.extend(listeners.map(|(place, name)| {
                    to(format!("match.listeners[{place}]"), Kind::Listener, name, Wants::Anything)
                }));
                if let Some(mirror) = &it.mirror {
                    all.push(to("mirror.upstream", Kind::Upstream, &mirror.upstream, Wants::Anything));
                }
                if let Some(auth) = &it.auth {
                    let list = format!("auth.{}", auth.combine.word());
                    let named = auth.names.iter().enumerate();
                    all.extend(
                        named.map(|(place, name)| to(format!("{list}[{place}]"), Kind::Auth, name, Wants::Callers)),
                    );
                    let anonymous = auth.anonymous.iter();
                    all.extend(anonymous.map(|name| to("auth.anonymous", Kind::Consumer, name, Wants::Anything)));
                }
                let limits = it.limits.iter().enumerate();
                all.extend(
                    limits.map(|(place, name)| to(format!("limits[{place}]"), Kind::Limit, name, Wants::Anything)),
                );
                let policies = it.policies.iter().enumerate();
                all.extend(
                    policies.map(|(place, name)| to(format!("policies[{place}]"), Kind::Policy, name, Wants::Anything)),
                );
            }
            Resource::Auth(it) => match &it.kind {
                AuthKind::Mtls(it) => all.push(to("mtls.ca", Kind::CertificateAuthority, &it.ca, Wants::Anything)),
                AuthKind::Signature(it) => {
                    let keys = it.keys.iter().enumerate();
                    all.extend(keys.map(|(place, key)| {
                        let field = format!("signature.keys[{place}].consumer");
                        to(field, Kind::Consumer, &key.consumer, Wants::Anything)
                    }));
                }
                _ => {}
            },
            Resource::Listener(it) => {
                let certificates = it.certificates.iter().enumerate();
                all.extend(certificates.map(|(place, name)| {
                    to(format!("certificates[{place}]"), Kind::Certificate, name, Wants::Anything)
                }));
                let ca = it.client_ca.iter();
                all.extend(ca.map(|name| to("client_ca", Kind::CertificateAuthority, name, Wants::Anything)));
                let upstream = it.upstream.iter();
                all.extend(upstream.map(|name| to("upstream", Kind::Upstream, name, Wants::Anything)));
            }
            Resource::Policy(it) => {
                let PolicyKind::Ai(it) = &it.kind else { return all };
                for (at, model) in it.models.iter().enumerate() {
                    let targets = model.targets.iter().enumerate();
                    let named = targets.filter_map(|(place, target)| Some((place, target.upstream.as_ref()?)));
                    all.extend(named.map(|(place, name)| {
                        let field = format!("ai.models[{at}].targets[{place}].upstream");
                        to(field, Kind::Upstream, name, Wants::Anything)
                    }));
                }
            }
            Resource::Consumer(_)
            | Resource::CertificateAuthority(_)
            | Resource::Limit(_)
            | Resource::Certificate(_)
            | Resource::Tenant(_)
            | Resource::Guardrail(_) => {}
        }
        all
    }

    /// The secrets in it that are not sealed yet, by field: a state takes none.
    pub fn unsealed(&self) -> Option<String> {
        let open = |(_, secret): &(String, &Secret)| !matches!(secret, Secret::Sealed { .. });
        self.secrets().into_iter().find(open).map(|(field, _)| field)
    }

    /// The etag that it keeps although its secrets were sealed anew.
    pub(crate) fn kept_etag(&self) -> Option<Digest> {
        self.secrets().into_iter().find_map(|(_, secret)| match secret {
            Secret::Sealed { etag, .. } => *etag,
            Secret::Plain(_) | Secret::Kept(_) => None,
        })
    }

    /// With the secrets of `before` where they are the same, however they are sealed.
    pub(crate) fn keeping(mut self, before: Option<&Resource>) -> Self {
        if self.secrets().is_empty() {
            return self;
        }
        let known = before.map(Resource::secrets).unwrap_or_default();
        let is_sealed = |it: &Secret| matches!(it, Secret::Sealed { .. });
        for (field, secret) in self.secrets_mut() {
            let same = |(at, it): &&(String, &Secret)| *at == field && it.fingerprint() == secret.fingerprint();
            if is_sealed(&*secret)
                && let Some((_, same)) = known.iter().find(same).filter(|(_, it)| is_sealed(it))
            {
                *secret = (*same).clone();
            }
        }
        if before != Some(&self) {
            self.secrets_mut().into_iter().for_each(|(_, secret)| secret.forget_etag());
        }
        self
    }

    /// Every secret in it with its field, such as `jwt.secret`.
    pub fn secrets(&self) -> Vec<(String, &Secret)> {
        match self {
            Resource::Auth(it) => it.secrets(),
            Resource::Certificate(it) => vec![("key".into(), &it.key)],
            Resource::Policy(it) => it.secrets(),
            _ => Vec::new(),
        }
    }

    /// The same places as `secrets`, to be written to.
    pub fn secrets_mut(&mut self) -> Vec<(String, &mut Secret)> {
        match self {
            Resource::Auth(it) => Arc::make_mut(it).secrets_mut(),
            Resource::Certificate(it) => vec![("key".into(), &mut Arc::make_mut(it).key)],
            // Its lists may be long: it is not copied for nothing.
            Resource::Policy(it) if !it.secrets().is_empty() => Arc::make_mut(it).secrets_mut(),
            _ => Vec::new(),
        }
    }
}
