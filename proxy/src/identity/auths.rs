//! The auths of the configuration as requests need them: compiled once for all workers, and kept while their object stays
//! the same.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use imbl::OrdMap;
use quorumgate_model::resource::{
    self, Algorithm as Word, Auth, AuthKind, CertificateAuthority, JwtAuth, JwtKeys, Key, Kind as ResourceKind,
    MtlsAuth, Name, Resource, Resources, Secret, VerifyingKey,
};
use quorumgate_model::state::Jwks;

use super::{
    client_credentials::{ClientCredentials, ClientCredentialsPlan},
    directory::Opened,
    egress::Reach,
    fetch::{Endpoint, Fetcher},
    introspection::{Introspection, IntrospectionPlan, OnError},
    jwks::KeySet,
    jwt::{JwtPlan, PlanId},
    keeper::{Keeper, Location, Source, Wanted},
    login::Login,
    mtls::Mtls,
    signature::{SignatureKey, SignaturePlan},
    verified::Keys,
};

/// The cluster's secret that cookies of browser logins are sealed under.
const COOKIE_KEY: &str = "cookie-key";
/// Where no auth says how long its tokens live.
const LIFE_DEFAULT: Duration = Duration::from_secs(24 * 3600);

/// All auths, and which upstreams want a token of ours.
#[derive(Debug, Default)]
pub(crate) struct Auths {
    by_name: HashMap<Name, Arc<Plan>>,
    for_upstreams: HashMap<Name, Arc<Plan>>,
}

/// What fetches from identity providers.
pub(crate) struct Outside {
    pub(crate) fetcher: Fetcher,
    pub(crate) keeper: Arc<Keeper>,
}

/// One auth. Its address tells it from what it was before a change.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) auth: Arc<Auth>,
    /// What else it is made of.
    parts: Parts,
    pub(crate) kind: Kind,
    /// What a client is asked for with a 401.
    pub(crate) challenge: HeaderValue,
}

pub(crate) enum Kind {
    ApiKey {
        header: HeaderName,
        query: Option<Box<str>>,
    },
    Jwt {
        plan: JwtPlan,
        keys: Keys,
    },
    Mtls(Mtls),
    Basic,
    Introspection(Arc<Introspection>),
    Signature(SignaturePlan),
    OidcLogin(Arc<Login>),
    /// For upstreams, never for clients.
    ClientCredentials(Arc<ClientCredentials>),
    /// The same, as it is.
    UpstreamKey(HeaderName, HeaderValue),
    /// This node cannot carry it out: nobody gets in by it.
    Broken(&'static str),
}

#[derive(Debug, Clone, Default)]
struct Parts {
    ca: Option<Arc<CertificateAuthority>>,
    /// How many of its secrets are open.
    secrets: usize,
    outside: bool,
}

/// What changes of a set of auths; the rest is shared with the set before.
pub(crate) fn compile(before: &Auths, resources: &Resources, opened: &Opened, outside: Option<&Outside>) -> Auths {
    let mut auths = Auths::default();
    let mut for_upstreams = false;
    for auth in all(resources) {
        let parts = parts(&auth, resources, opened, outside);
        let same = |plan: &&Arc<Plan>| Arc::ptr_eq(&plan.auth, &auth) && plan.parts.is_same(&parts);
        let plan = match before.find(&auth.name).filter(same) {
            Some(plan) => plan.clone(),
            None => Arc::new(Plan::new(auth.clone(), parts, opened, outside)),
        };
        for_upstreams |= auth.proves_ourselves();
        auths.by_name.insert(auth.name.clone(), plan);
    }
    // There are many upstreams and hardly ever such an auth.
    if for_upstreams {
        for upstream in of_kind(resources, ResourceKind::Upstream) {
            let Resource::Upstream(upstream) = upstream else { continue };
            let plan = upstream.auth.as_ref().and_then(|name| auths.find(name)).cloned();
            auths.for_upstreams.extend(plan.map(|plan| (upstream.name.clone(), plan)));
        }
    }
    auths
}

impl Auths {
    pub(crate) fn find(&self, name: &str) -> Option<&Arc<Plan>> {
        self.by_name.get(name)
    }

    /// What an upstream wants to be shown; None for nearly all.
    pub(crate) fn for_upstream(&self, name: &str) -> Option<&Arc<Plan>> {
        if self.for_upstreams.is_empty() { None } else { self.for_upstreams.get(name) }
    }
}

/// Every auth; costs what there are of them, however many consumers there may be.
pub(crate) fn all(resources: &Resources) -> impl Iterator<Item = Arc<Auth>> + '_ {
    of_kind(resources, ResourceKind::Auth).filter_map(|resource| match resource {
        Resource::Auth(auth) => Some(auth.clone()),
        _ => None,
    })
}

fn of_kind(resources: &Resources, kind: ResourceKind) -> impl Iterator<Item = &Resource> {
    // No name is before this one.
    let first = Key { kind, name: "0".parse().expect("a name") };
    resources.range(first..).take_while(move |(key, _)| key.kind == kind).map(|(_, stored)| &stored.resource)
}

/// Where the keys of a token's issuer are to be fetched; None: they need not be.
pub(crate) fn source(auth: &Auth) -> Option<Source> {
    let jwt = match &auth.kind {
        AuthKind::Jwt(jwt) => jwt,
        AuthKind::OidcLogin(it) => {
            let (issuer, reach) = (it.issuer.clone(), reach(it.allow_private));
            return Some(Source { issuer, location: Location::Discovery, reach });
        }
        _ => return None,
    };
    let location = match &jwt.keys {
        JwtKeys::Url(url) => Location::Url(url.clone()),
        JwtKeys::Discovery => Location::Discovery,
        JwtKeys::Inline(_) | JwtKeys::Secret(_) => return None,
    };
    Some(Source { issuer: jwt.issuer.clone(), location, reach: reach(jwt.allow_private) })
}

/// Every auth whose keys are to be fetched, with what the cluster saw last.
pub(crate) fn wanted<'a>(
    resources: &'a Resources,
    jwks: &'a OrdMap<Name, Arc<Jwks>>,
) -> impl Iterator<Item = Wanted> + 'a {
    all(resources).filter_map(|auth| {
        let last_good = jwks.get(&auth.name).map(|jwks| Bytes::copy_from_slice(&jwks.body));
        Some(Wanted { auth: auth.name.clone(), source: source(&auth)?, last_good })
    })
}

/// How long the longest-lived token or session of any auth may go on.
pub(crate) fn longest_life(resources: &Resources) -> Duration {
    let lives = all(resources).filter_map(|auth| match &auth.kind {
        AuthKind::Jwt(it) => Some(it.max_lifetime.0),
        AuthKind::OidcLogin(it) => Some(it.session.0.max(LIFE_DEFAULT)),
        _ => None,
    });
    lives.max().unwrap_or(LIFE_DEFAULT)
}

fn parts(auth: &Auth, resources: &Resources, opened: &Opened, outside: Option<&Outside>) -> Parts {
    let ca = match &auth.kind {
        AuthKind::Mtls(MtlsAuth { ca, .. }) => {
            let key = Key { kind: ResourceKind::CertificateAuthority, name: ca.clone() };
            resources.get(&key).and_then(|stored| match &stored.resource {
                Resource::CertificateAuthority(ca) => Some(ca.clone()),
                _ => None,
            })
        }
        _ => None,
    };
    let secrets = auth.secrets().iter().filter(|(_, secret)| open(secret, opened).is_some()).count();
    let sealer = matches!(auth.kind, AuthKind::OidcLogin(_)) && opened.secrets.contains_key(COOKIE_KEY);
    let secrets = secrets + usize::from(sealer);
    Parts { ca, secrets, outside: outside.is_some() }
}

fn open<'a>(secret: &Secret, opened: &'a Opened) -> Option<&'a [u8]> {
    opened.of_resource(secret.fingerprint()?)
}

impl Parts {
    fn is_same(&self, other: &Self) -> bool {
        let same_ca = match (&self.ca, &other.ca) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        same_ca && (self.secrets, self.outside) == (other.secrets, other.outside)
    }
}

impl Plan {
    fn new(auth: Arc<Auth>, parts: Parts, opened: &Opened, outside: Option<&Outside>) -> Self {
        let kind = kind(&auth, &parts, opened, outside).unwrap_or_else(Kind::Broken);
        if let Kind::Broken(reason) = kind {
            tracing::warn!(auth = %auth.name, reason, "this node cannot carry out the auth: it lets nobody in");
        }
        let challenge = challenge(&auth);
        Self { auth, parts, kind, challenge }
    }

    pub(crate) fn name(&self) -> &Name {
        &self.auth.name
    }
}

fn kind(auth: &Auth, parts: &Parts, opened: &Opened, outside: Option<&Outside>) -> Result<Kind, &'static str> {
    const CLOSED: &str = "the auth's secret cannot be opened";
    const INSIDE: &str = "nothing fetches from the auth's provider";
    let secret = |secret: &Secret| {
        let secret = open(secret, opened).ok_or(CLOSED)?;
        String::from_utf8(secret.to_vec()).map_err(|_| CLOSED)
    };
    let endpoint = |url: &str| Endpoint::parse(url).map_err(|_| "the auth's address is none");
    Ok(match &auth.kind {
        AuthKind::ApiKey(it) => Kind::ApiKey {
            header: HeaderName::try_from(&it.header).map_err(|_| "the auth's header is no header name")?,
            query: it.query.as_deref().map(Into::into),
        },
        AuthKind::Jwt(it) => Kind::Jwt { plan: jwt(it), keys: keys(&auth.name, it, opened, outside)? },
        AuthKind::Mtls(it) => {
            let ca = parts.ca.as_ref().ok_or("the certificate authority of the auth is missing")?;
            Kind::Mtls(Mtls::new(ca, it.consumer_from).map_err(|error| {
                tracing::warn!(auth = %auth.name, error, "a certificate authority cannot be read");
                "the certificate authority of the auth cannot be read"
            })?)
        }
        AuthKind::Basic(_) => Kind::Basic,
        AuthKind::Introspection(it) => {
            let plan = IntrospectionPlan {
                endpoint: endpoint(&it.endpoint)?,
                client_id: it.client_id.clone(),
                client_secret: secret(&it.client_secret)?,
                cache: it.cache.0,
                on_error: match it.on_error {
                    resource::OnError::Deny => OnError::Deny,
                    resource::OnError::AllowCached => OnError::AllowCached,
                },
                consumer_claim: it.consumer_claim.clone(),
                groups_claim: None,
                scopes_claim: "scope".into(),
                skew_s: 0,
                reach: reach(it.allow_private),
            };
            Kind::Introspection(Introspection::new(plan, outside.ok_or(INSIDE)?.fetcher.clone()))
        }
        AuthKind::ClientCredentials(it) => {
            let plan = ClientCredentialsPlan {
                token_endpoint: endpoint(&it.token_endpoint)?,
                client_id: it.client_id.clone(),
                client_secret: secret(&it.client_secret)?,
                scopes: it.scopes.clone(),
                reach: reach(it.allow_private),
            };
            Kind::ClientCredentials(ClientCredentials::new(plan, outside.ok_or(INSIDE)?.fetcher.clone()))
        }
        AuthKind::UpstreamKey(it) => {
            let header = HeaderName::try_from(&it.header).map_err(|_| "the auth's header is no header name")?;
            let shown = match (it.scheme(), secret(&it.key)?) {
                ("", key) => key,
                (scheme, key) => format!("{scheme} {key}"),
            };
            let mut shown = HeaderValue::try_from(shown).map_err(|_| "the auth's key cannot be in a header")?;
            shown.set_sensitive(true);
            Kind::UpstreamKey(header, shown)
        }
        AuthKind::Signature(it) => {
            let key = |key: &resource::SignatureKey| match &key.key {
                VerifyingKey::Public(pem) => {
                    SignatureKey::public(key.id.clone(), key.consumer.clone(), key.algorithm, pem)
                }
                VerifyingKey::Secret(secret) => {
                    let secret = open(secret, opened).ok_or(CLOSED)?;
                    SignatureKey::secret(key.id.clone(), key.consumer.clone(), secret)
                }
            };
            let keys = it.keys.iter().map(key).collect::<Result<_, _>>()?;
            let components = it.components.clone();
            Kind::Signature(SignaturePlan { components, max_age_s: it.max_age.0.as_secs(), keys })
        }
        AuthKind::OidcLogin(it) => {
            let outside = outside.ok_or(INSIDE)?;
            let key = opened.secrets.get(COOKIE_KEY).ok_or("the cluster has not made its cookie key yet")?;
            let keys = outside.keeper.slot(&auth.name).map(Keys::Kept).ok_or(INSIDE)?;
            let client_secret = secret(&it.client_secret)?;
            Kind::OidcLogin(Login::new(&auth.name, it, client_secret, keys, key, outside.fetcher.clone()))
        }
    })
}

fn keys(name: &Name, jwt: &JwtAuth, opened: &Opened, outside: Option<&Outside>) -> Result<Keys, &'static str> {
    match &jwt.keys {
        JwtKeys::Inline(json) => match KeySet::parse(json.as_bytes()) {
            Ok(set) => Ok(Keys::Fixed(Arc::new(set))),
            Err(_) => Err("the auth's keys cannot be read"),
        },
        JwtKeys::Secret(secret) => {
            let secret = open(secret, opened).ok_or("the auth's secret cannot be opened")?;
            let set = KeySet::secret(secret).map_err(|_| "the auth's secret is too short")?;
            Ok(Keys::Fixed(Arc::new(set)))
        }
        JwtKeys::Url(_) | JwtKeys::Discovery => {
            let slot = outside.and_then(|outside| outside.keeper.slot(name));
            slot.map(Keys::Kept).ok_or("nothing fetches the keys of the auth")
        }
    }
}

fn reach(allow_private: bool) -> Reach {
    if allow_private { Reach::Private } else { Reach::Public }
}

pub(super) fn jwt(it: &JwtAuth) -> JwtPlan {
    let seconds = |span: quorumgate_model::units::Span| span.0.as_secs();
    let algorithm = |word: &Word| word.word().parse().ok();
    JwtPlan {
        id: PlanId::next(),
        issuer: it.issuer.clone(),
        audience: it.audience.clone(),
        algorithms: it.algorithms.iter().filter_map(algorithm).collect(),
        consumer_claim: it.consumer_claim.clone(),
        groups_claim: it.groups_claim.clone(),
        scopes_claim: it.scopes_claim.clone(),
        skew_s: seconds(it.skew),
        max_lifetime_s: seconds(it.max_lifetime),
        typ: it.typ.clone(),
    }
}

/// RFC 6750, RFC 7617; for the kinds that have no registered scheme, a word that says what is wanted.
fn challenge(auth: &Auth) -> HeaderValue {
    let text = match &auth.kind {
        AuthKind::ApiKey(it) => format!("ApiKey realm=\"{}\", header=\"{}\"", auth.name, it.header),
        AuthKind::Basic(it) => {
            let realm = it.realm.as_deref().unwrap_or(&auth.name);
            let realm: String = realm.chars().filter(|c| !matches!(c, '"' | '\\') && !c.is_control()).collect();
            format!("Basic realm=\"{realm}\", charset=\"UTF-8\"")
        }
        AuthKind::Mtls(_) => format!("ClientCertificate realm=\"{}\"", auth.name),
        AuthKind::Signature(_) => format!("Signature realm=\"{}\"", auth.name),
        AuthKind::Jwt(_)
        | AuthKind::Introspection(_)
        | AuthKind::OidcLogin(_)
        | AuthKind::ClientCredentials(_)
        | AuthKind::UpstreamKey(_) => {
            format!("Bearer realm=\"{}\"", auth.name)
        }
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("Bearer"))
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ApiKey { .. } => "ApiKey",
            Self::Jwt { .. } => "Jwt",
            Self::Mtls(_) => "Mtls",
            Self::Basic => "Basic",
            Self::Introspection(_) => "Introspection",
            Self::Signature(_) => "Signature",
            Self::OidcLogin(_) => "OidcLogin",
            Self::ClientCredentials(_) => "ClientCredentials",
            Self::UpstreamKey(..) => "UpstreamKey",
            Self::Broken(reason) => reason,
        })
    }
}
