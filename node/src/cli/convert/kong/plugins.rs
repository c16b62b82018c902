//! Plugins as words of the routes that they are on. One that is not known here may keep somebody out, and so the route is
//! closed; only what is known to keep nobody out is left out.

use quorumgate_model::resource::Kind;
use serde_json::{Map, Value as Json, json};

use super::{Caller, Kong, Plugin};
use crate::cli::{
    convert::{
        common,
        effects::{CLOSED, Effects},
        reader::Item,
    },
    failure::Outcome,
};

const AUTHS: [&str; 3] = ["key-auth", "basic-auth", "jwt"];
/// What the gateway does of itself.
const BUILT_IN: [&str; 13] = [
    "prometheus",
    "file-log",
    "http-log",
    "tcp-log",
    "udp-log",
    "syslog",
    "loggly",
    "kafka-log",
    "statsd",
    "datadog",
    "zipkin",
    "opentelemetry",
    "app-dynamics",
];
/// What keeps nobody out.
const HARMLESS: [&str; 8] = [
    "grpc-web",
    "response-ratelimiting",
    "rate-limiting-advanced",
    "request-transformer-advanced",
    "response-transformer-advanced",
    "proxy-cache-advanced",
    "canary",
    "upstream-timeout",
];
/// What says who comes in.
const DEMANDS: [&str; 6] = ["key-auth", "basic-auth", "jwt", "acl", "ip-restriction", "bot-detection"];
const MIB: u64 = 1 << 20;

impl<'d> Kong<'d, '_> {
    pub(super) fn plugins(&mut self, plugins: &[Plugin<'d>], effects: &mut Effects) -> Outcome {
        let is_auth = |it: &&Plugin<'d>| AUTHS.contains(&it.name.as_str()) && it.caller.is_none();
        // Others ask who is there, and whether anybody is.
        let auths = plugins.iter().filter(is_auth).count();
        for plugin in plugins.iter().filter(is_auth).chain(plugins.iter().filter(|it| !is_auth(it))) {
            match &plugin.caller {
                None => self.plugin(plugin, auths, effects)?,
                Some(caller) => self.of_caller(plugin, caller, effects),
            }
        }
        let Some(first) = plugins.first() else { return Ok(()) };
        if effects.is_mixed() {
            effects.close();
            first.item.closed(format!(
                "some of the route's auths have an anonymous consumer, and others none or another one: its routes let nobody in; write \
                 auth by hand, and take the rule {CLOSED} away"
            ));
        }
        let names_nobody = effects.is_any && plugins.iter().any(|it| it.name == "jwt");
        if names_nobody && !(effects.denied.is_empty() && effects.allowed.is_empty()) {
            effects.close();
            first.item.closed(format!(
                "tokens (jwt) name no consumer here, so whom acl and other plugins mean is not known: its routes let nobody in; give \
                 the auth a consumer_claim, and take the rule {CLOSED} away"
            ));
        }
        Ok(())
    }

    fn plugin(&mut self, it: &Plugin<'d>, auths: usize, effects: &mut Effects) -> Outcome {
        let item = &it.item;
        if item.get("_config").is_some() {
            item.skip();
            effects.close();
            item.closed(format!(
                "its _config is elsewhere: its routes let nobody in; write it out (`deck file render`), or take the rule {CLOSED} away \
                 once it is written by hand"
            ));
            return Ok(());
        }
        // One that says nothing has no fields of these names itself.
        let config = &item.map("config")?.unwrap_or_else(|| item.clone());
        match it.name.as_str() {
            "key-auth" => self.key_auth(item, config, effects)?,
            "basic-auth" => self.basic_auth(item, config, effects)?,
            "jwt" => self.jwt(item, config, auths == 1, effects)?,
            "acl" => acl(config, effects)?,
            "ip-restriction" => self.addresses(item, config, effects)?,
            "rate-limiting" => self.rates(item, config, auths > 0, effects)?,
            "cors" => cors(config, effects)?,
            "request-size-limiting" => sizes(config, effects)?,
            "request-transformer" => super::transformer::request(config, effects)?,
            "response-transformer" => super::transformer::response(config, effects)?,
            "redirect" => {
                let status = config.int("status_code")?.unwrap_or(301);
                let location = config.text("location")?.unwrap_or_default();
                let keep = config.flag("keep_incoming_path")?.unwrap_or(false);
                effects.redirect = Some(common::redirect(config, &location, status, keep));
            }
            "request-termination" => terminate(item, config, effects)?,
            "proxy-cache" => {
                effects.cache = Some(common::cache(Some(config.number("cache_ttl")?.unwrap_or(300.0))));
                config.skip();
                item.differs("answers are kept as they allow it themselves (RFC 9111), the time counts for those that do not say");
            }
            "bot-detection" => {
                let words = json!({ "bot": { "allow": config.texts("allow")?, "deny": config.texts("deny")? } });
                let name = self.out.once(Kind::Policy, item, "bot", "bots", words);
                effects.policies.push(name);
            }
            "correlation-id" => {
                let header =
                    config.text("header_name")?.unwrap_or_else(|| "Kong-Request-ID".into()).to_ascii_lowercase();
                effects.request.set.insert(header.clone(), "${request_id}".into());
                if config.flag("echo_downstream")?.unwrap_or(false) {
                    effects.response.set.insert(header, "${request_id}".into());
                }
                config.skip();
                item.differs("the id is the one of x-request-id, whatever the client said");
            }
            name if BUILT_IN.contains(&name) => {
                item.skip();
                item.note("built in, nothing to convert: metrics, access log and traces are settings of the nodes");
            }
            name if HARMLESS.contains(&name) => {
                item.skip();
                item.left_out("there is no such plugin here, and the routes go without it");
            }
            _ => {
                item.skip();
                effects.close();
                item.closed(format!(
                    "it is not known here, and may keep somebody out: its routes let nobody in; see to what it does, then take \
                     the rule {CLOSED} away"
                ));
            }
        }
        if DEMANDS.contains(&it.name.as_str()) && item.has_unread() {
            effects.close();
            item.closed(format!(
                "a field of it is not known here: its routes let nobody in; see to it, then take the rule {CLOSED} away"
            ));
        }
        Ok(())
    }

    /// What is for one consumer or one group alone.
    fn of_caller(&mut self, plugin: &Plugin<'d>, caller: &Caller, effects: &mut Effects) {
        let item = &plugin.item;
        item.skip();
        let name = plugin.name.as_str();
        let keeps_out = !BUILT_IN.contains(&name)
            && !HARMLESS.contains(&name)
            && !matches!(
                name,
                "rate-limiting"
                    | "cors"
                    | "request-transformer"
                    | "response-transformer"
                    | "proxy-cache"
                    | "correlation-id"
            );
        let (who, field, word) = match caller {
            Caller::Consumer(name) => {
                let Some(ours) = self.consumer_named(name) else {
                    effects.close();
                    item.closed("its consumer is not in the files: its routes let nobody in");
                    return;
                };
                (format!("consumer {ours}"), "consumers", ours)
            }
            Caller::Group(name) => {
                let Some(tier) = self.tiers.get(name).cloned() else {
                    effects.close();
                    item.closed("its consumer group is not in the files: its routes let nobody in");
                    return;
                };
                (format!("group {name}"), "groups", tier)
            }
        };
        match (keeps_out, name) {
            (true, _) => {
                effects.deny(field, &[word]);
                item.closed(format!(
                    "plugins of one {who} are not known here: the {who} is not let in; see to it by hand"
                ));
            }
            (_, "rate-limiting") => item.left_out(format!(
                "a limit of one {who}: give those consumers a plan, and write limits with plans: [...] by hand"
            )),
            _ => item.left_out(format!("a plugin of one {who}; there is nothing of the kind here")),
        }
    }

    fn key_auth(&mut self, item: &Item<'d>, config: &Item<'d>, effects: &mut Effects) -> Outcome {
        let names = config.texts("key_names")?;
        let name = names.first().cloned().unwrap_or_else(|| "apikey".into());
        if names.len() > 1
            && let Some(list) = config.get("key_names")
        {
            list.differs(format!("keys are read by the name {name} alone (and from Authorization)"));
        }
        let mut words = Map::new();
        words.insert("header".into(), json!(name));
        if config.flag("key_in_query")?.unwrap_or(true) {
            words.insert("query".into(), json!(name));
        }
        if config.flag("key_in_header")? == Some(false) {
            config.differs("keys are read from the header too");
        }
        if config.flag("key_in_body")? == Some(true) {
            config.left_out("keys are not read from bodies");
        }
        let anonymous = self.shared_auth_words(config)?;
        let auth = self.out.once(Kind::Auth, item, "auth", &format!("key-auth-{name}"), json!({ "api_key": words }));
        effects.ask(auth, anonymous);
        Ok(())
    }

    fn basic_auth(&mut self, item: &Item<'d>, config: &Item<'d>, effects: &mut Effects) -> Outcome {
        let realm = config.text("realm")?;
        let anonymous = self.shared_auth_words(config)?;
        let auth = self.out.once(Kind::Auth, item, "auth", "basic-auth", json!({ "basic": { "realm": realm } }));
        effects.ask(auth, anonymous);
        Ok(())
    }

    /// The consumer that a request without credentials counts as.
    fn shared_auth_words(&self, config: &Item<'d>) -> Outcome<Option<String>> {
        if config.flag("hide_credentials")? != Some(true) {
            config.differs(
                "servers do not get the credential any more (X-Consumer-Name and X-Credential-Id say whose it was)",
            );
        }
        config.skip_fields(&["run_on_preflight", "realm", "identity_realms"]);
        let Some(consumer) = config.text("anonymous")?.filter(|it| !it.is_empty()) else { return Ok(None) };
        let name = self.consumer_named(&consumer);
        match &name {
            Some(_) => {
                config.differs("anonymous: who comes with wrong credentials is refused; before, it was let in as that")
            }
            None => config.left_out("anonymous: the consumer is not in the files, so credentials are needed"),
        }
        Ok(name)
    }

    /// Each secret is an issuer of its own. Who a token is for was not asked, and is here.
    fn jwt(&mut self, item: &Item<'d>, config: &Item<'d>, is_alone: bool, effects: &mut Effects) -> Outcome {
        let claim = config.text("key_claim_name")?.unwrap_or_else(|| "iss".into());
        let mut made = Vec::new();
        let secrets = self.jwt_secrets.clone();
        let is_encoded = config.flag("secret_is_base64")? == Some(true);
        let has_end = config.number("maximum_expiration")?.is_some_and(|it| it > 0.0);
        for field in ["cookie_names", "uri_param_names", "header_names"] {
            if let Some(names) = config.get(field) {
                names.skip();
                names.differs("tokens are read from Authorization alone");
            }
        }
        let can = claim == "iss" && !self.audience.is_empty() && !is_encoded && !has_end;
        for it in secrets.iter().filter(|_| can) {
            let algorithm = it.text("algorithm")?.unwrap_or_else(|| "HS256".into());
            let (issuer, secret) = (it.text("key")?, it.text("secret")?);
            let (Some(issuer), Some(secret)) =
                (issuer, secret.filter(|it| algorithm.starts_with("HS") && !common::is_placeholder(it)))
            else {
                continue;
            };
            it.skip();
            let wanted = format!("jwt-{}", made.len() + 1);
            let words = json!({ "jwt": {
                "issuer": issuer, "audience": self.audience, "algorithms": [algorithm], "secret": format!("plain:{secret}"),
            } });
            it.differs("such tokens name no consumer (consumer_claim), and must say whom they are for (--audience)");
            made.push(self.out.once(Kind::Auth, it, "jwt", &wanted, words));
        }
        let all = secrets.len() == made.len() && !made.is_empty();
        if let Some(anonymous) = config.get("anonymous") {
            anonymous.left_out("credentials are needed");
        }
        config.skip();
        secrets.iter().for_each(Item::skip);
        if is_alone && all {
            made.into_iter().for_each(|it| effects.ask(it, None));
            effects.is_any = true;
            return Ok(());
        }
        effects.close();
        item.closed(format!(
            "whose tokens these are and for whom is not said as it is here: its routes let nobody in; write an auth of kind jwt (issuer, \
             audience, jwks_url or secret_file), name it in auth, and take the rule {CLOSED} away; secrets (HS256) of claim iss are \
             translated with --audience A"
        ));
        Ok(())
    }

    fn addresses(&mut self, item: &Item<'d>, config: &Item<'d>, effects: &mut Effects) -> Outcome {
        let (mut allow, mut deny) = (config.texts("allow")?, config.texts("deny")?);
        allow.extend(config.texts("whitelist")?);
        deny.extend(config.texts("blacklist")?);
        refusal_words(config)?;
        common::addresses(self.out, item, "addresses", (allow, deny), effects);
        Ok(())
    }

    fn rates(&mut self, item: &Item<'d>, config: &Item<'d>, is_known: bool, effects: &mut Effects) -> Outcome {
        let by = config.text("limit_by")?.unwrap_or_else(|| "consumer".into());
        let per = match by.as_str() {
            "consumer" | "credential" if is_known => json!(by),
            // Nobody is known: the other gateway takes the address then, too.
            "consumer" | "credential" | "ip" => common::per_ip(),
            "header" => match config.text("header_name")? {
                Some(header) => json!({ "header": header }),
                None => common::per_ip(),
            },
            "service" => json!("global"),
            "path" => {
                config.differs("limit_by path: what is counted apart are routes");
                json!("route")
            }
            other => {
                config.differs(format!("limit_by {other}: addresses are counted apart"));
                common::per_ip()
            }
        };
        let is_local = config.text("policy")?.is_none_or(|it| it == "local");
        let status = config.int("error_code")?.unwrap_or(429);
        config.skip_fields(&["hide_client_headers", "redis", "sync_rate", "fault_tolerant", "header_name", "path"]);
        config.skip_fields(&[
            "redis_host",
            "redis_port",
            "redis_password",
            "redis_username",
            "redis_database",
            "redis_timeout",
        ]);
        config.skip_fields(&["redis_ssl", "redis_ssl_verify", "redis_server_name"]);
        if let Some(message) = config.get("error_message") {
            message.left_out("refusals say what they are as problems (RFC 9457)");
        }
        for (field, every) in [
            ("second", None),
            ("minute", Some("minute")),
            ("hour", Some("hour")),
            ("day", Some("day")),
            ("month", Some("month")),
        ] {
            let Some(limit) = config.int(field)? else { continue };
            let mut words = json!({ "per": per, "limit": limit, "exceeded_status": status });
            match every {
                None => {
                    words["window"] = json!("1s");
                    words["mode"] = json!(if is_local { "local" } else { "leased" });
                }
                Some(every) => {
                    words["kind"] = json!("calendar");
                    words["every"] = json!(every);
                    if is_local {
                        item.differs("policy local: the limit is one of the whole cluster, no longer of each node");
                    }
                }
            }
            let name = self.limit(item, &format!("{field}/{per}"), &format!("per-{field}"), words);
            push_once(&mut effects.limits, name);
        }
        if let Some(year) = config.get("year") {
            year.left_out("limits of a year: write one of a month by hand");
        }
        Ok(())
    }
}

pub(super) fn push_once(list: &mut Vec<String>, name: String) {
    if !list.contains(&name) {
        list.push(name);
    }
}

/// How refusals look there; here all look alike.
fn refusal_words(config: &Item<'_>) -> Outcome {
    for field in ["status", "message"] {
        if let Some(it) = config.get(field) {
            it.differs("refusals say what they are as problems (RFC 9457), with 403");
        }
    }
    Ok(())
}

fn acl(config: &Item<'_>, effects: &mut Effects) -> Outcome {
    let (mut allow, mut deny) = (config.texts("allow")?, config.texts("deny")?);
    allow.extend(config.texts("whitelist")?);
    deny.extend(config.texts("blacklist")?);
    config.skip_fields(&["hide_groups_header", "always_use_authenticated_groups"]);
    if config.flag("include_consumer_groups")? == Some(true) {
        for list in [&mut allow, &mut deny] {
            let tiers: Vec<String> = list.iter().map(|it| super::consumers::tier(it)).collect();
            list.extend(tiers);
        }
    }
    if allow.is_empty() && deny.is_empty() {
        effects.close();
        config.closed(format!("it has no groups: see to which are meant, then take the rule {CLOSED} away"));
    }
    if effects.auths.is_empty() && allow.is_empty() {
        // Who has no consumer was refused.
        config.closed(format!(
            "no auth of the route that is known says who calls, and nobody unknown was let in; see to it, then take the rule {CLOSED} away"
        ));
        effects.close();
    }
    effects.deny("groups", &deny);
    if !allow.is_empty() {
        effects.allow("groups", allow);
    }
    Ok(())
}

fn cors(config: &Item<'_>, effects: &mut Effects) -> Outcome {
    let mut origins = Vec::new();
    for it in config.list("origins")? {
        let text = it.as_text()?;
        let is_plain = text == "*"
            || text.split_once("://").is_some_and(|(_, host)| {
                host.trim_start_matches("*.").bytes().all(|b| b.is_ascii_alphanumeric() || b".-:".contains(&b))
            });
        match is_plain {
            true => origins.push(text),
            false => it.left_out("an origin that is a regular expression: name the origins, or https://*.host"),
        }
    }
    if config.get("origins").is_none() {
        origins.push("*".into());
    }
    if origins.iter().any(|it| it == "*") {
        origins = vec!["*".into()];
    }
    let mut credentials = config.flag("credentials")?.unwrap_or(false);
    if credentials && origins == ["*"] {
        config.differs("credentials beside origins *: credentials are left out, since browsers take no * with them; name the origins");
        credentials = false;
    }
    let mut words =
        Map::from_iter([("origins".to_owned(), json!(origins)), ("credentials".to_owned(), json!(credentials))]);
    for (theirs, ours) in [("methods", "methods"), ("headers", "headers"), ("exposed_headers", "expose_headers")] {
        let list = config.texts(theirs)?;
        if !list.is_empty() {
            words.insert(ours.into(), json!(list));
        }
    }
    if let Some(age) = config.number("max_age")? {
        words.insert("max_age".into(), json!(common::seconds(age)));
    }
    config.skip_fields(&["private_network"]);
    if config.flag("preflight_continue")? == Some(true) {
        config.differs("preflight_continue: preflights are answered by the gateway all the same");
    }
    if !origins.is_empty() {
        effects.cors = Some(Json::Object(words));
    }
    Ok(())
}

fn sizes(config: &Item<'_>, effects: &mut Effects) -> Outcome {
    let size = config.int("allowed_payload_size")?.unwrap_or(128).max(0) as u64;
    let unit = match config.text("size_unit")?.as_deref() {
        Some("bytes") => 1,
        Some("kilobytes") => 1 << 10,
        _ => MIB,
    };
    if config.flag("require_content_length")? == Some(true) {
        config.left_out("require_content_length: bodies without it are counted as they come");
    }
    if size == 0 {
        // With us none would be no limit.
        effects.close();
        config.closed(format!(
            "no body may have a byte, which cannot be said: its routes let nobody in; allow methods without bodies by hand, and take \
             the rule {CLOSED} away"
        ));
        return Ok(());
    }
    effects.body_max = Some(size.saturating_mul(unit));
    Ok(())
}

fn terminate(item: &Item<'_>, config: &Item<'_>, effects: &mut Effects) -> Outcome {
    if config.get("trigger").is_some() || config.flag("echo")? == Some(true) {
        config.skip();
        effects.close();
        item.closed(format!(
            "only some requests are answered so: its routes let nobody in; see to it, then take the rule {CLOSED} away"
        ));
        return Ok(());
    }
    let status = config.int("status_code")?.unwrap_or(503);
    let kind = config.text("content_type")?;
    let (body, message) = (config.text("body")?, config.text("message")?);
    let mut words = Map::from_iter([("status".to_owned(), json!(status))]);
    let kind = match (&body, &message) {
        (Some(_), _) => kind.unwrap_or_else(|| "application/json; charset=utf-8".into()),
        _ => "application/json".into(),
    };
    if let Some(text) = body.or_else(|| message.map(|it| json!({ "message": it }).to_string())) {
        words.insert("body".into(), json!(text));
        words.insert("headers".into(), json!({ "content-type": kind }));
    }
    effects.respond = Some(Json::Object(words));
    Ok(())
}
