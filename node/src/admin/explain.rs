//! `route match`: one imagined request walked through the phases, in the order in which the proxy does.

mod addresses;
mod agents;
mod caller;
mod inspections;
mod traffic;
mod version;
mod watches;

use std::{net::IpAddr, sync::Arc};

use quorumgate_model::{
    ban::{Ban, BanSubject},
    canonical::{self, Slashes},
    resource::{Action, EncodedSlash, Name, OnStale, Resources},
    ruleset::{Beaten as Lost, Found, HeaderLookup, Rule, Ruleset, View},
    state::State,
};
use quorumgate_proto::admin::v1::{
    ExplainMatchRequest, ExplainMatchResponse, HeaderField,
    explain_match_response::{Beaten, Phase},
};
use quorumgate_proxy::{geo::Geo, identity::authorize};
use tonic::Status;

use self::caller::{Named, Step, Who};
use super::failure;

/// The request that is asked about.
pub struct Asked<'a> {
    method: String,
    host: String,
    uri: http::Uri,
    headers: Fields<'a>,
    client_ip: IpAddr,
    listener: Option<&'a str>,
    named: Named,
}

/// A limit that would count the request, the key that it would count it for, and which phase says so.
pub struct Counted {
    pub phase: usize,
    pub limit: Name,
    pub key: String,
}

struct Fields<'a>(&'a [HeaderField]);

impl HeaderLookup for Fields<'_> {
    fn any(&self, name: &str, test: &mut dyn FnMut(&str) -> bool) -> bool {
        self.0.iter().any(|field| field.name.eq_ignore_ascii_case(name) && test(&field.value))
    }
}

impl<'a> Asked<'a> {
    pub fn parse(request: &'a ExplainMatchRequest, client_ip: IpAddr) -> Result<Self, Status> {
        let wrong =
            || failure::bad_field("url", &format!("found {:?}; allowed: an absolute http or https URL", request.url));
        let uri: http::Uri = request.url.parse().map_err(|_| wrong())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(wrong());
        }
        // A port that is no number up to 65535 is no port to http, and would be passed over.
        let authority = uri.authority().map_or("", |it| it.as_str());
        let behind_user = authority.rsplit_once('@').map_or(authority, |(_, rest)| rest);
        if uri.port().is_none() && Some(behind_user) != uri.host() {
            return Err(wrong());
        }
        let host = uri.host().ok_or_else(wrong)?.to_ascii_lowercase();
        let method = match request.method.as_str() {
            "" => "GET".to_owned(),
            method => method.to_ascii_uppercase(),
        };
        let listener = Some(request.listener.as_str()).filter(|name| !name.is_empty());
        Ok(Self {
            method,
            host,
            uri,
            headers: Fields(&request.headers),
            client_ip,
            listener,
            named: Named::parse(request)?,
        })
    }

    /// And the keys of the limits that would count it, where they are known.
    pub fn explain(
        &self,
        rules: &Ruleset,
        state: &State,
        now_us: u64,
        geo: &Geo,
    ) -> (ExplainMatchResponse, Vec<Counted>) {
        let mut counted = Vec::new();
        let banned = self.banned(state, now_us);
        (self.walk(rules, &state.resources, banned, geo, &mut counted), counted)
    }

    /// Who of those whom the question names is banned: the client's address comes before its consumer.
    fn banned(&self, state: &State, now_us: u64) -> Option<Arc<Ban>> {
        let address = self.client_ip.to_canonical();
        let holds = |ban: &&Arc<Ban>| ban.expires_at_us > now_us;
        let covers = |ban: &&Arc<Ban>| match &ban.subject {
            BanSubject::Net(net) => net.contains(&address),
            BanSubject::Consumer(name) => self.named.is(name),
            BanSubject::Credential(_) => false,
        };
        state.bans.entries().values().filter(holds).find(covers).cloned()
    }

    fn walk(
        &self,
        rules: &Ruleset,
        resources: &Resources,
        banned: Option<Arc<Ban>>,
        geo: &Geo,
        counted: &mut Vec<Counted>,
    ) -> ExplainMatchResponse {
        let mut walk = Walk::default();
        let path = match canonical::path(self.uri.path(), Slashes::Merge) {
            Ok(path) => path,
            Err(bad) => return walk.refused("canonical_path", 400, "bad_path", &bad.to_string()),
        };
        walk.pass("canonical_path", &path, "");
        let view = self.view(&path);
        let explanation = rules.explain(&view);
        let named = |it: Lost| Beaten { route: it.route.to_string(), why: it.why };
        walk.response.beaten = explanation.beaten.into_iter().map(named).collect();
        walk.response.near_misses = explanation.near_misses.into_iter().map(named).collect();
        match rules.find(&view) {
            Found::NoRoute => walk.refused("route", 404, "no_route", "no route takes this host and path"),
            Found::MethodNotAllowed(allowed) => {
                let allow = format!("allowed here: {}", allowed.join(", "));
                walk.refused("route", 405, "method_not_allowed", &allow)
            }
            Found::Rule(rule) => {
                walk.banned = banned;
                walk.by_address = addresses::told(rules, rule, resources, self.client_ip, geo);
                walk.along(rules, rule, &path, self, resources, counted)
            }
        }
    }

    fn view<'v>(&'v self, path: &'v str) -> View<'v> {
        View {
            method: &self.method,
            host: &self.host,
            path,
            query: self.uri.query(),
            headers: &self.headers,
            client_ip: self.client_ip,
            sni: (self.uri.scheme_str() == Some("https")).then_some(self.host.as_str()),
            listener: self.listener,
        }
    }
}

#[derive(Default)]
struct Walk {
    response: ExplainMatchResponse,
    banned: Option<Arc<Ban>>,
    /// In words, by which policies, and whether it is shut out.
    by_address: Option<(String, String, bool)>,
}

impl Walk {
    fn pass(&mut self, phase: &str, decision: &str, rule: &str) {
        let phase = Phase { phase: phase.into(), decision: decision.into(), rule: rule.into() };
        self.response.phases.push(phase);
    }

    fn refused(mut self, phase: &str, status: u32, code: &str, why: &str) -> ExplainMatchResponse {
        self.pass(phase, &format!("refused: {why}"), "");
        ExplainMatchResponse { status, code: code.to_owned(), ..self.response }
    }

    /// The entry is in force: who is shut out, and why.
    fn shut_out(mut self, ban: &Ban) -> ExplainMatchResponse {
        let why = if ban.reason.is_empty() { String::new() } else { format!(": {}", ban.reason) };
        self.pass("ban", &format!("refused: banned by {}{why}", ban.actor), &ban.subject.to_string());
        ExplainMatchResponse { status: 403, code: "banned".into(), ..self.response }
    }

    /// From the route that takes the request to what it does with it.
    fn along(
        mut self,
        rules: &Ruleset,
        rule: &Rule,
        path: &str,
        asked: &Asked<'_>,
        resources: &Resources,
        counted: &mut Vec<Counted>,
    ) -> ExplainMatchResponse {
        let route = &rule.route;
        self.response.route = route.name.to_string();
        self.pass("route", "matched", &route.name);
        if let Some((told, policy, shut)) = self.by_address.take() {
            self.pass("ip", &told, &policy);
            if shut {
                return ExplainMatchResponse { status: 403, code: "ip_denied".into(), ..self.response };
            }
        }
        let banned = self.banned.take();
        if let Some(ban) = banned.as_ref().filter(|ban| matches!(ban.subject, BanSubject::Net(_))) {
            return self.shut_out(ban);
        }
        if let Some(why) = &rule.broken {
            return self.refused("route", 500, "broken_rule", why);
        }
        if canonical::has_encoded_slash(path) && route.encoded_slash == EncodedSlash::Refuse {
            return self.refused("encoded_slash", 400, "bad_path", "%2F or %5C in the path, and the route refuses it");
        }
        for (told, policy, refused) in agents::told(rules, rule, asked.headers.0) {
            self.pass("bot", &told, &policy);
            if refused {
                return ExplainMatchResponse { status: 403, code: "bot_denied".into(), ..self.response };
            }
        }
        if let Some(told) = version::told(rules, rule) {
            self.pass("version", &told.words, &told.policy);
            if let Some((status, code)) = told.refusal {
                return ExplainMatchResponse { status: status.into(), code: code.into(), ..self.response };
            }
        }
        let headers = caller::header_map(asked.headers.0);
        if let Some(told) = traffic::preflight(route, &asked.method, &headers) {
            self.pass("cors", &told, &route.name);
            return ExplainMatchResponse { status: 204, ..self.response };
        }
        let mut who = Who::Known(None);
        let query = asked.uri.query();
        if let Some((step, found)) = asked.named.authenticate(route, resources, asked.headers.0, query) {
            who = found;
            match step {
                Step::Pass(told) => self.pass("authentication", &told, &route.name),
                Step::Refused { status, code, why } => return self.refused("authentication", status, code, &why),
            }
        }
        if let Some(ban) = banned.filter(|_| route.auth.is_some()) {
            return self.shut_out(&ban);
        }
        let on_stale = match route.on_stale {
            OnStale::Allow => "served on a stale node too",
            OnStale::Deny => "refused with 503 state_stale on a stale node",
        };
        self.pass("freshness", on_stale, &route.name);
        let view = authorize::Asked {
            method: &asked.method,
            host: &asked.host,
            path,
            query,
            headers: &headers,
            client_ip: asked.client_ip,
        };
        if let Some((step, rule)) = caller::authorize(route, &view, &who) {
            match step {
                Step::Pass(told) => self.pass("authorization", &told, &rule),
                Step::Refused { status, code, why } => {
                    self.pass("authorization", &format!("refused: {why}"), &rule);
                    return ExplainMatchResponse { status, code: code.to_owned(), ..self.response };
                }
            }
        }
        for (limit, told) in caller::limits(route, resources) {
            if let Some(key) = caller::limit_key(limit, route, &who, asked.client_ip, &headers) {
                counted.push(Counted { phase: self.response.phases.len(), limit: limit.name.clone(), key });
            }
            self.pass("limit", &told, &limit.name);
        }
        for (told, policy) in watches::told(rules, rule) {
            self.pass("anomaly", &told, &policy);
        }
        for (told, policy) in inspections::told(rules, rule) {
            self.pass("validation", &told, &policy);
        }
        for (phase, told, rule) in traffic::told(rule, path, query) {
            self.pass(phase, &told, &rule);
        }
        match &route.action {
            Action::Forward { upstream } => {
                self.pass("upstream", "forwarded", upstream);
                ExplainMatchResponse { upstream: upstream.to_string(), ..self.response }
            }
            Action::Split(_) => {
                let (upstream, told) = traffic::arm(rule, &who, asked.client_ip, &headers);
                self.pass("split", &told, &route.name);
                if !upstream.is_empty() {
                    self.pass("upstream", "forwarded", &upstream);
                }
                ExplainMatchResponse { upstream, ..self.response }
            }
            Action::Receive(it) => {
                self.pass(
                    "respond",
                    &format!("answered by the {} endpoint of {}", it.receiver.word(), it.auth),
                    &route.name,
                );
                self.response
            }
            Action::Redirect(redirect) => {
                self.pass("redirect", &format!("answered {}", redirect.status), &route.name);
                ExplainMatchResponse { status: redirect.status.into(), ..self.response }
            }
            Action::Respond(respond) => {
                self.pass("respond", &format!("answered {}", respond.status), &route.name);
                ExplainMatchResponse { status: respond.status.into(), ..self.response }
            }
        }
    }
}
