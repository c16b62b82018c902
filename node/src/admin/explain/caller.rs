//! Who asks in an imagined request: what a route would want to see, and what its rules would say to a caller whom the
//! question names. Nothing is proven here.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use quorumgate_model::resource::{
    AuthKind, Combine, Consumer, Key, Kind, Limit, LimitKind, LimitPart, Name, Resource, Resources, Route,
};
use quorumgate_proto::admin::v1::{ExplainMatchRequest, HeaderField};
use quorumgate_proxy::identity::{
    AuthMethod, Caller, Claims, RevocationSubject, Scopes,
    authorize::{self, Authorization, Callers, Verdict},
};
use tonic::Status;

use super::super::failure;

/// The caller that the question names.
#[derive(Default)]
pub struct Named {
    consumer: Option<Name>,
    scopes: Vec<String>,
    claims: Option<Arc<Claims>>,
}

/// What a phase comes to.
pub enum Step {
    Pass(String),
    Refused { status: u32, code: &'static str, why: String },
}

/// Who the rules are asked about.
pub enum Who {
    /// As far as it is known: nobody on a route without auth.
    Known(Option<Box<Caller>>),
    /// There are credentials, and nobody has looked at them.
    Unknown,
}

impl Named {
    pub fn parse(request: &ExplainMatchRequest) -> Result<Self, Status> {
        let consumer = match request.consumer.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|why: String| failure::bad_field("consumer", &why))?),
        };
        let claims = match request.claims.as_str() {
            "" => None,
            text => Some(serde_json::from_str(text).map_err(|error| {
                failure::bad_field("claims", &format!("found {error}; allowed: a JSON object of claims"))
            })?),
        };
        Ok(Self { consumer, scopes: request.scopes.clone(), claims })
    }

    pub fn is(&self, consumer: &Name) -> bool {
        self.consumer.as_ref() == Some(consumer)
    }

    fn is_nobody(&self) -> bool {
        self.consumer.is_none() && self.scopes.is_empty() && self.claims.is_none()
    }

    /// Which auths would be asked, and who the request counts as.
    pub fn authenticate(
        &self,
        route: &Route,
        resources: &Resources,
        fields: &[HeaderField],
        query: Option<&str>,
    ) -> Option<(Step, Who)> {
        let auth = route.auth.as_ref()?;
        let found = |name: &Name| match resources.get(&Key { kind: Kind::Auth, name: name.clone() }) {
            Some(stored) => match &stored.resource {
                Resource::Auth(auth) => Some(auth.clone()),
                _ => None,
            },
            None => None,
        };
        let auths: Vec<_> = auth.names.iter().filter_map(found).collect();
        let listed: Vec<_> = auths.iter().map(|it| format!("{} ({})", it.name, it.kind.word())).collect();
        let asked = match auth.combine {
            Combine::AnyOf => format!("one of {}", listed.join(", ")),
            Combine::AllOf => format!("all of {}", listed.join(", ")),
        };
        if !self.is_nobody() {
            let consumer = self.consumer.as_ref().and_then(|name| consumer(resources, name));
            if let (Some(name), None) = (&self.consumer, &consumer) {
                let why = format!("consumer {name} does not exist; asked for: {asked}");
                return Some((Step::Refused { status: 401, code: "credentials_invalid", why }, Who::Known(None)));
            }
            let called = self.consumer.as_ref().map_or("a caller without a consumer".to_owned(), |it| it.to_string());
            let caller = self.caller(consumer, AuthMethod::Jwt, auth.names[0].clone());
            return Some((Step::Pass(format!("{asked}; taken as {called}")), Who::Known(Some(Box::new(caller)))));
        }
        let shown = auths.iter().any(|it| shows(&it.kind, fields, query));
        match &auth.anonymous {
            _ if shown => Some((Step::Pass(format!("{asked}; the credentials are not checked here")), Who::Unknown)),
            Some(name) => {
                let caller = self.caller(consumer(resources, name), AuthMethod::Anonymous, auth.names[0].clone());
                Some((
                    Step::Pass(format!("{asked}; without credentials it counts as {name}")),
                    Who::Known(Some(Box::new(caller))),
                ))
            }
            None => {
                let why = format!("no credentials; asked for: {asked}");
                Some((Step::Refused { status: 401, code: "credentials_missing", why }, Who::Known(None)))
            }
        }
    }

    fn caller(&self, consumer: Option<Arc<Consumer>>, method: AuthMethod, auth: Name) -> Caller {
        Caller {
            consumer,
            credential: None,
            method,
            auth,
            scopes: Scopes::new(self.scopes.iter().map(String::as_str)),
            groups: Arc::default(),
            claims: self.claims.clone(),
            subject: RevocationSubject::default(),
            expires: None,
        }
    }
}

fn consumer(resources: &Resources, name: &Name) -> Option<Arc<Consumer>> {
    match &resources.get(&Key { kind: Kind::Consumer, name: name.clone() })?.resource {
        Resource::Consumer(consumer) => Some(consumer.clone()),
        _ => None,
    }
}

/// Whether the request has what this auth would look at. Certificates, sessions and signatures cannot be imagined.
fn shows(kind: &AuthKind, fields: &[HeaderField], query: Option<&str>) -> bool {
    let has = |name: &str| fields.iter().any(|field| field.name.eq_ignore_ascii_case(name));
    match kind {
        AuthKind::ApiKey(it) => {
            let pairs = query.unwrap_or_default().split('&').map(|pair| pair.split('=').next().unwrap_or_default());
            has(&it.header)
                || has("authorization")
                || it.query.as_ref().is_some_and(|name| pairs.into_iter().any(|it| it == name))
        }
        AuthKind::Jwt(_) | AuthKind::Introspection(_) | AuthKind::Basic(_) => has("authorization"),
        AuthKind::Signature(_) => has("signature"),
        AuthKind::OidcLogin(_) => has("cookie"),
        AuthKind::Mtls(_) | AuthKind::ClientCredentials(_) | AuthKind::UpstreamKey(_) => false,
    }
}

/// What the route's rules say, with the one that decides.
pub fn authorize(route: &Route, asked: &authorize::Asked<'_>, who: &Who) -> Option<(Step, String)> {
    let rules = match Authorization::compile(route) {
        Ok(rules) => rules?,
        Err(invalid) => {
            let step = Step::Refused { status: 500, code: "broken_rule", why: invalid.to_string() };
            return Some((step, String::new()));
        }
    };
    let Who::Known(caller) = who else {
        let told = "goes with the caller; name one by consumer, scopes or claims".to_owned();
        return Some((Step::Pass(told), String::new()));
    };
    let decision = rules.decide(asked, Callers { first: caller.as_deref(), also: &[] });
    let rule = decision.rule.unwrap_or_default().to_owned();
    let logged = match decision.logged.is_empty() {
        true => String::new(),
        false => format!("; logged by {}", decision.logged.join(", ")),
    };
    let refused = |code, why: &str| Step::Refused { status: 403, code, why: format!("{why}{logged}") };
    let step = match decision.verdict {
        Verdict::Allow => Step::Pass(format!("allowed{logged}")),
        Verdict::Deny if rule.is_empty() => refused("access_denied", "no rule lets it in"),
        Verdict::Deny => refused("access_denied", "denied"),
        Verdict::LacksScope => refused("insufficient_scope", "a scope is missing"),
        Verdict::Failed => refused("access_denied", "the expression came to no answer"),
    };
    Some((step, rule))
}

/// `100 in any 1m, per consumer`
pub fn limits<'r>(route: &'r Route, resources: &'r Resources) -> impl Iterator<Item = (&'r Limit, String)> {
    route.limits.iter().filter_map(|name| {
        match &resources.get(&Key { kind: Kind::Limit, name: name.clone() })?.resource {
            Resource::Limit(limit) => Some((&**limit, words(limit))),
            _ => None,
        }
    })
}

/// Whose budget the request counts against; None: that goes with a caller who is not known.
pub fn limit_key(
    limit: &Limit,
    route: &Route,
    who: &Who,
    client_ip: std::net::IpAddr,
    headers: &HeaderMap,
) -> Option<String> {
    let asks_who = |part: &LimitPart| match part {
        LimitPart::Consumer | LimitPart::Credential | LimitPart::Tenant | LimitPart::Claim(_) => true,
        LimitPart::Route | LimitPart::Global | LimitPart::Ip { .. } | LimitPart::Header(_) => false,
    };
    let callers = match who {
        Who::Known(caller) => Callers { first: caller.as_deref(), also: &[] },
        Who::Unknown if limit.per.iter().any(asks_who) => return None,
        Who::Unknown => Callers::default(),
    };
    Some(quorumgate_proxy::limits::key_text(&limit.per, &route.name, callers, client_ip, headers))
}

fn words(limit: &Limit) -> String {
    let amount = match &limit.kind {
        LimitKind::Sliding { limit, window } => format!("{limit} in any {window}"),
        LimitKind::Bucket { rate, window, burst } => format!("{rate} per {window}, {burst} at once"),
        LimitKind::Calendar { limit, every, zone } => format!("{limit} per {} ({zone})", every.word()),
        LimitKind::Concurrency { limit, .. } => format!("{limit} in flight"),
    };
    let part = |part: &LimitPart| match part {
        LimitPart::Consumer => "consumer".to_owned(),
        LimitPart::Credential => "credential".to_owned(),
        LimitPart::Route => "route".to_owned(),
        LimitPart::Tenant => "tenant".to_owned(),
        LimitPart::Global => "cluster".to_owned(),
        LimitPart::Ip { v4, v6 } => format!("address (/{v4}, /{v6})"),
        LimitPart::Header(name) => format!("header {name}"),
        LimitPart::Claim(name) => format!("claim {name}"),
    };
    let plans = match limit.plans.is_empty() {
        true => String::new(),
        false => format!(", for plan {}", limit.plans.join(" or ")),
    };
    format!("{amount}, per {}{plans}", limit.per.iter().map(part).collect::<Vec<_>>().join(" and "))
}

/// What of the question's fields can be header fields at all.
pub fn header_map(fields: &[HeaderField]) -> HeaderMap {
    let pair = |field: &HeaderField| {
        Some((HeaderName::try_from(&field.name).ok()?, HeaderValue::try_from(&field.value).ok()?))
    };
    let mut headers = HeaderMap::new();
    for (name, value) in fields.iter().filter_map(pair) {
        headers.append(name, value);
    }
    headers
}
