//! Upstreams: servers with weights, how one is chosen, and how they are watched.

use quorumgate_model::resource::Kind;
use serde_json::{Map, Value as Json, json};

use super::{Apisix, META};
use crate::cli::{
    convert::{
        common::{self, HealthDefaults},
        reader::Item,
    },
    failure::Outcome,
};

/// Seconds, for each of connecting, sending and reading.
const TIMEOUT_S: f64 = 60.0;
const HEALTH: HealthDefaults = HealthDefaults {
    interval_s: 1.0,
    successes: 2,
    http_failures: 5,
    tcp_failures: 2,
    timeouts: 3,
    passive_http_failures: 5,
    passive_tcp_failures: 2,
    passive_timeouts: 7,
};

/// An upstream of ours, and what its servers are told of the host.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub name: Option<String>,
    /// None: as the client said it.
    pub host: Option<String>,
}

impl<'d> Apisix<'d, '_> {
    /// `timeout`: a route's own, for which the upstream is made once more.
    pub(super) fn upstream(&mut self, it: &Item<'d>, wanted: &str, timeout: Option<&Item<'d>>) -> Outcome<Asked> {
        it.skip_fields(&META);
        let host = match it.text("pass_host")?.as_deref() {
            None | Some("pass") => None,
            Some("rewrite") => it.text("upstream_host")?,
            Some(_) => Some("target".to_owned()),
        };
        it.skip_fields(&["upstream_host", "keepalive_pool"]);
        let scheme = it.text("scheme")?.unwrap_or_else(|| "http".into());
        let is_tls = matches!(scheme.as_str(), "https" | "grpcs");
        let targets = self.targets(it, is_tls)?;
        let mut words = Map::new();
        if let Some(text) = it.text("desc")? {
            words.insert("description".into(), json!(text));
        }
        let labels = common::labels(it, &["labels"])?;
        if !labels.is_empty() {
            words.insert("labels".into(), Json::Object(labels));
        }
        let mut is_left_out = false;
        match scheme.as_str() {
            "http" | "https" => {}
            "grpc" | "grpcs" => drop(words.insert("protocol".into(), json!("grpc"))),
            other => {
                it.left_out(format!("scheme {other}: write a listener of protocol tcp with an upstream by hand"));
                is_left_out = true;
            }
        }
        if let Some(discovery) = it.get("discovery_type") {
            it.skip_fields(&["service_name", "discovery_args"]);
            discovery
                .left_out("servers are found by DNS alone: write its targets by hand (a name is every address it has)");
            is_left_out = true;
        }
        self.balance(it, &mut words)?;
        if is_tls {
            let mut tls = Map::new();
            match it.map("tls")? {
                Some(theirs) => {
                    if theirs.flag("verify")? != Some(true) {
                        tls.insert("verify".into(), json!(false));
                    }
                    for field in ["client_cert", "client_key", "client_cert_id"] {
                        if let Some(found) = theirs.get(field) {
                            found.left_out("write it as a certificate, and name it by tls.client_certificate");
                        }
                    }
                }
                None => drop(tls.insert("verify".into(), json!(false))),
            }
            if tls.contains_key("verify") {
                it.differs("certificates of its servers are not verified (tls.verify: false), as before; better take that away");
            }
            words.insert("tls".into(), Json::Object(tls));
        } else {
            it.skip_fields(&["tls"]);
        }
        let count = targets.len() as i64;
        let retries = it.int("retries")?.unwrap_or((count - 1).max(0));
        words.insert("retries".into(), json!({ "attempts": common::attempts(it, retries) }));
        if let Some(found) = it.get("retry_timeout")
            && found.as_number()? > 0.0
        {
            found.differs("attempts end with timeouts.total of a route");
        }
        let own = it.map("timeout")?;
        words.insert("timeouts".into(), timeouts(timeout.or(own.as_ref()))?);
        common::health(it.map("checks")?, &HEALTH, &mut words)?;
        if let Some(active) = it.map("checks")?.map(|it| it.map("active")).transpose()?.flatten() {
            for (field, what) in [
                ("host", "servers are asked by their own name"),
                ("port", "servers are asked at the port that they serve at"),
                ("req_headers", "checks have no header fields of their own"),
            ] {
                if let Some(found) = active.get(field) {
                    found.skip();
                    found.differs(what);
                }
            }
            active.skip_fields(&["https_verify_certificate"]);
        }
        if targets.is_empty() && !is_left_out {
            it.left_out("it has no server: its routes answer 503 until they have an upstream");
        }
        if targets.is_empty() || is_left_out {
            return Ok(Asked { name: None, host });
        }
        words.insert("targets".into(), Json::Array(targets));
        let part = timeout.map_or_else(String::new, |it| format!("{:?}", it.identity()));
        let name = self.out.once(Kind::Upstream, it, &part, wanted, Json::Object(words));
        Ok(Asked { name: Some(name), host })
    }

    fn targets(&self, it: &Item<'d>, is_tls: bool) -> Outcome<Vec<Json>> {
        let default_port = if is_tls { 443 } else { 80 };
        let mut found: Vec<(String, u64, i64)> = Vec::new();
        let Some(nodes) = it.get("nodes") else { return Ok(Vec::new()) };
        if nodes.is_map() {
            for (address, weight) in nodes.members() {
                let (host, port) = common::split_port(address);
                match weight.as_int()? {
                    weight @ 1.. => {
                        found.push((common::authority(host, port.unwrap_or(default_port)), weight as u64, 0));
                    }
                    _ => weight.left_out("it has no weight, and gets no requests"),
                }
            }
        } else {
            for node in nodes.entries() {
                let Some(host) = node.text("host")? else { return Err(node.wrong("a node with a host")) };
                let port = node.int("port")?.unwrap_or(default_port);
                let priority = node.int("priority")?.unwrap_or_default();
                match node.int("weight")?.unwrap_or(1) {
                    weight @ 1.. => found.push((common::authority(&host, port), weight as u64, priority)),
                    _ => node.left_out("it has no weight, and gets no requests"),
                }
            }
        }
        // There the highest priority is asked first, here the lowest.
        let highest = found.iter().map(|(.., priority)| *priority).max().unwrap_or_default();
        let weights: Vec<u64> = found.iter().map(|(_, weight, _)| *weight).collect();
        let weights = common::weights(it, &weights);
        let target = |((address, _, priority), weight): ((String, u64, i64), u64)| match (
            weight,
            highest.saturating_sub(priority),
        ) {
            (1, 0) => json!(address),
            (weight, 0) => json!({ "address": address, "weight": weight }),
            (weight, priority) => json!({ "address": address, "weight": weight, "priority": priority }),
        };
        Ok(found.into_iter().zip(weights).map(target).collect())
    }

    fn balance(&self, it: &Item<'d>, words: &mut Map<String, Json>) -> Outcome {
        let kind = it.text("type")?.unwrap_or_else(|| "roundrobin".into());
        let policy = match kind.as_str() {
            "roundrobin" => "round_robin",
            "chash" => "maglev",
            "least_conn" => "least_requests",
            "ewma" => "p2c_ewma",
            other => {
                it.differs(format!("type {other}: p2c_ewma is taken"));
                "p2c_ewma"
            }
        };
        let mut balance = Map::from_iter([("policy".to_owned(), json!(policy))]);
        let hash_on = it.text("hash_on")?.unwrap_or_else(|| "vars".into());
        let key = it.get("key").map(|it| it.as_text()).transpose()?.unwrap_or_default();
        if policy == "maglev" {
            let hash = match (hash_on.as_str(), key.as_str()) {
                ("consumer", _) => json!("consumer"),
                ("header", key) => json!({ "header": key.trim_start_matches("http_").replace('_', "-") }),
                ("cookie", key) => json!({ "cookie": key.trim_start_matches("cookie_") }),
                ("vars", "remote_addr") => json!("ip"),
                ("vars", key) if key.starts_with("http_") => json!({ "header": key[5..].replace('_', "-") }),
                ("vars", key) if key.starts_with("cookie_") => json!({ "cookie": key[7..] }),
                _ => {
                    it.differs(format!("hash_on {hash_on} with {key}: the client's address is taken"));
                    json!("ip")
                }
            };
            balance.insert("hash_on".into(), hash);
        }
        words.insert("balance".into(), Json::Object(balance));
        Ok(())
    }
}

fn timeouts(it: Option<&Item<'_>>) -> Outcome<Json> {
    let of = |field: &str| it.map_or(Ok(None), |it| it.number(field)).map(|it| it.unwrap_or(TIMEOUT_S));
    let (connect, read, send) = (of("connect")?, of("read")?, of("send")?);
    if let Some(it) = it
        && send != read
    {
        it.differs("how long a server may take to take a request is not bounded apart");
    }
    Ok(json!({
        "connect": common::seconds(connect), "response_header": common::seconds(read), "idle": common::seconds(read),
    }))
}
