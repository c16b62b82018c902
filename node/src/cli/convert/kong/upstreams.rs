//! Services with the upstreams that they ask, and certificates.

use std::collections::HashMap;

use quorumgate_model::resource::Kind;
use serde_json::{Map, Value as Json, json};

use super::{Kong, META, names, reference};
use crate::cli::{
    convert::{
        common::{self, HealthDefaults, Url},
        reader::Item,
    },
    failure::Outcome,
};

/// Milliseconds, for connecting and for reading.
const TIMEOUT_MS: f64 = 60_000.0;
const RETRIES: i64 = 5;
const TARGET_WEIGHT: i64 = 100;
const TARGET_PORT: i64 = 8_000;
/// All checks are off unless they are said.
const HEALTH: HealthDefaults = HealthDefaults {
    interval_s: 0.0,
    successes: 0,
    http_failures: 0,
    tcp_failures: 0,
    timeouts: 0,
    passive_http_failures: 0,
    passive_tcp_failures: 0,
    passive_timeouts: 0,
};

/// What routes of a service need to know of it.
#[derive(Clone, Default)]
pub(super) struct Service<'d> {
    pub names: Vec<String>,
    /// Ours; None: it has no server that could be asked.
    pub upstream: Option<String>,
    /// Without the slash at its end.
    pub path: String,
    /// What the servers are told where the client's host is not.
    pub host: String,
    pub is_off: bool,
    /// Fields that are not known here.
    pub unread: Vec<Item<'d>>,
}

impl<'d> Kong<'d, '_> {
    pub(super) fn collect_upstreams(&mut self, document: &Item<'d>) -> Outcome {
        for it in document.list("upstreams")? {
            it.skip_fields(&META);
            for name in names(&it)? {
                if self.upstreams.insert(name, it.clone()).is_some() {
                    return Err(it.wrong("each upstream once"));
                }
            }
        }
        for it in document.list("targets")? {
            let Some(upstream) = reference(&it, "upstream")? else { return Err(it.wrong("a target with an upstream")) };
            self.targets.entry(upstream).or_default().push(it);
        }
        Ok(())
    }

    pub(super) fn service(&mut self, it: &Item<'d>) -> Outcome<Service<'d>> {
        it.skip_fields(&META);
        let mut service = Service { names: names(it)?, host: "target".into(), ..Service::default() };
        let name = service.names.first().cloned().unwrap_or_else(|| "service".into());
        if it.flag("enabled")? == Some(false) {
            it.note("it is not enabled: it and its routes are left out");
            service.is_off = true;
        }
        let url = it.text("url")?;
        if url.as_ref().is_some_and(|it| it.contains('@')) {
            it.left_out("the user of its url: write an auth of kind upstream_key, and name it in the upstream's auth");
        }
        let url = url.map(|text| Url::parse(&text));
        let of_url = |get: fn(&Url) -> Option<String>| url.as_ref().and_then(get);
        let protocol = it.text("protocol")?.or_else(|| of_url(|it| it.scheme.clone())).unwrap_or_else(|| "http".into());
        let host = it.text("host")?.or_else(|| of_url(|it| Some(it.host.clone()))).unwrap_or_default();
        let is_tls = matches!(protocol.as_str(), "https" | "grpcs" | "tls" | "wss");
        let port = it.int("port")?.or_else(|| url.as_ref().and_then(|it| it.port));
        let path = it.text("path")?.or_else(|| of_url(|it| Some(it.path.clone()))).unwrap_or_default();
        service.path = path.trim_end_matches('/').to_owned();
        let labels = common::labels(it, &["tags"])?;
        let mut words = Map::new();
        if !labels.is_empty() {
            words.insert("labels".into(), Json::Object(labels));
        }
        match protocol.as_str() {
            "http" | "https" | "ws" | "wss" => {}
            "grpc" | "grpcs" => drop(words.insert("protocol".into(), json!("grpc"))),
            other => {
                it.left_out(format!(
                    "protocol {other}: write a listener of protocol tcp or tls_passthrough with an upstream by hand"
                ));
                it.skip();
                service.is_off = true;
                return Ok(service);
            }
        }
        self.timeouts(it, &mut words)?;
        let default_port = if is_tls { 443 } else { 80 };
        let upstream = self.upstreams.get(&host).cloned();
        self.asked.insert(host.clone());
        let targets = match &upstream {
            Some(upstream) => self.balance(upstream, &mut words, &mut service)?,
            None if host.is_empty() => Vec::new(),
            None => {
                // Nobody has said that errors keep a server from being asked.
                words.insert("outlier".into(), json!({ "consecutive_errors": 0 }));
                vec![json!(common::authority(&host, port.unwrap_or(default_port)))]
            }
        };
        if is_tls {
            words.insert("tls".into(), self.tls(it, upstream.is_none().then_some(&*host))?);
        } else {
            it.skip_fields(&["tls_verify", "tls_verify_depth", "client_certificate", "ca_certificates"]);
        }
        if targets.is_empty() && !service.is_off {
            it.left_out(format!("{host:?} has no server: its routes answer 503 until they have an upstream"));
        } else if !service.is_off {
            words.insert("targets".into(), Json::Array(targets));
            service.upstream = Some(self.out.put(Kind::Upstream, it, &name, Json::Object(words)));
        }
        service.unread = it.unread(&["plugins", "routes", "filter_chains"]);
        Ok(service)
    }

    fn timeouts(&self, it: &Item<'d>, words: &mut Map<String, Json>) -> Outcome {
        let connect = it.number("connect_timeout")?.unwrap_or(TIMEOUT_MS);
        let read = it.number("read_timeout")?.unwrap_or(TIMEOUT_MS);
        if let Some(write) = it.get("write_timeout")
            && write.as_number()? != read
        {
            write.differs("how long a server may take to take a request is not bounded apart");
        }
        let timeouts = json!({
            "connect": common::millis(connect), "response_header": common::millis(read), "idle": common::millis(read),
        });
        words.insert("timeouts".into(), timeouts);
        let retries = it.int("retries")?.unwrap_or(RETRIES);
        words.insert("retries".into(), json!({ "attempts": common::attempts(it, retries) }));
        Ok(())
    }

    fn tls(&mut self, it: &Item<'d>, host: Option<&str>) -> Outcome<Json> {
        let mut tls = Map::new();
        if let Some(host) = host.filter(|it| !it.bytes().all(|b| b.is_ascii_digit() || b".:".contains(&b))) {
            tls.insert("server_name".into(), json!(host));
        }
        if it.flag("tls_verify")? != Some(true) {
            // Else a server that was good enough would be none any more.
            tls.insert("verify".into(), json!(false));
            it.differs(
                "certificates of its servers are not verified (tls.verify: false), as before; better take that away",
            );
        }
        it.skip_fields(&["tls_verify_depth"]);
        let authorities = it.list("ca_certificates")?;
        for (at, authority) in authorities.iter().enumerate() {
            match self.authorities.get(&authority.as_text()?) {
                Some(name) if at == 0 => drop(tls.insert("ca".into(), json!(name))),
                Some(_) => authority.left_out("one authority is asked; put the certificates of all into one"),
                None => {
                    authority
                        .left_out("it is not in the files: servers are held against the machine's own authorities");
                    tls.insert("verify".into(), json!(true));
                }
            }
        }
        if let Some(id) = reference(it, "client_certificate")? {
            match self.certificates.get(&id) {
                Some(name) => drop(tls.insert("client_certificate".into(), json!(name))),
                None => it.left_out(format!("client_certificate {id} is not in the files")),
            }
        }
        Ok(Json::Object(tls))
    }

    /// The targets of an upstream, with how they are chosen and watched.
    fn balance(
        &self,
        upstream: &Item<'d>,
        words: &mut Map<String, Json>,
        service: &mut Service<'d>,
    ) -> Outcome<Vec<Json>> {
        common::health(upstream.map("healthchecks")?, &HEALTH, words)?;
        if let Some(checks) = upstream.map("healthchecks")? {
            checks.skip_fields(&["threshold"]);
        }
        if let Some(host) = upstream.text("host_header")? {
            service.host = host;
        }
        upstream.skip_fields(&["slots", "use_srv_name", "tags"]);
        let algorithm = upstream.text("algorithm")?.unwrap_or_else(|| "round-robin".into());
        let hash_on = upstream.text("hash_on")?.unwrap_or_else(|| "none".into());
        let policy = match algorithm.as_str() {
            "round-robin" if hash_on != "none" => "maglev",
            "round-robin" => "round_robin",
            "consistent-hashing" => "maglev",
            "least-connections" => "least_requests",
            "latency" => "p2c_ewma",
            other => {
                upstream.differs(format!("algorithm {other}: p2c_ewma is taken"));
                "p2c_ewma"
            }
        };
        let mut balance = Map::from_iter([("policy".to_owned(), json!(policy))]);
        let hash = match hash_on.as_str() {
            "none" => None,
            "consumer" => Some(json!("consumer")),
            "ip" => Some(json!("ip")),
            "header" => upstream.text("hash_on_header")?.map(|it| json!({ "header": it })),
            "cookie" => upstream.text("hash_on_cookie")?.map(|it| json!({ "cookie": it })),
            other => {
                upstream.differs(format!("hash_on {other}: the client's address is taken"));
                Some(json!("ip"))
            }
        };
        if let Some(hash) = hash.filter(|_| policy == "maglev") {
            balance.insert("hash_on".into(), hash);
        }
        words.insert("balance".into(), Json::Object(balance));
        let mut all = upstream.list("targets")?;
        for name in names(upstream)? {
            all.extend(self.targets.get(&name).into_iter().flatten().cloned());
        }
        let mut targets: Vec<(String, u64)> = Vec::new();
        for it in &all {
            it.skip_fields(&META);
            it.skip_fields(&["tags", "upstream"]);
            let Some(target) = it.text("target")? else { return Err(it.wrong("a target, host:port")) };
            let (host, port) = common::split_port(&target);
            match it.int("weight")?.unwrap_or(TARGET_WEIGHT) {
                weight @ 1.. => targets.push((common::authority(host, port.unwrap_or(TARGET_PORT)), weight as u64)),
                _ => it.left_out("it has no weight, and gets no requests"),
            }
        }
        let weights: Vec<u64> = targets.iter().map(|(_, weight)| *weight).collect();
        let weights = common::weights(upstream, &weights);
        let target = |((address, _), weight): ((String, u64), u64)| match weight {
            1 => json!(address),
            weight => json!({ "address": address, "weight": weight }),
        };
        Ok(targets.into_iter().zip(weights).map(target).collect())
    }

    pub(super) fn certificates(&mut self, document: &Item<'d>) -> Outcome {
        let mut snis: HashMap<String, Vec<String>> = HashMap::new();
        for it in document.list("snis")? {
            it.skip_fields(&META);
            it.skip_fields(&["tags"]);
            if let (Some(name), Some(certificate)) = (it.text("name")?, reference(&it, "certificate")?) {
                snis.entry(certificate).or_default().push(name);
            }
        }
        for it in document.list("certificates")? {
            it.skip_fields(&["tags", "created_at", "updated_at"]);
            let id = it.text("id")?.unwrap_or_default();
            let mut hosts = snis.remove(&id).unwrap_or_default();
            for sni in it.list("snis")? {
                sni.skip_fields(&META);
                sni.skip_fields(&["tags"]);
                hosts.push(if sni.is_map() { sni.text("name")?.unwrap_or_default() } else { sni.as_text()? });
            }
            let wanted = hosts.first().map_or_else(|| format!("certificate-{id}"), |host| host.replace('*', "any"));
            let (chain, key) = (it.text("cert")?.unwrap_or_default(), it.text("key")?.unwrap_or_default());
            for field in ["cert_alt", "key_alt"] {
                if let Some(other) = it.get(field) {
                    other.left_out("a certificate has one key; write another certificate for it by hand");
                }
            }
            let words = json!({ "hosts": hosts, "chain": chain, "key": format!("plain:{key}") });
            let name = self.out.put(Kind::Certificate, &it, &wanted, words);
            it.note(format!(
                "its private key is in what is written, and sealed when that is applied; listeners show it once they name \
                 it: listeners: [{{ name: https, address: \"0.0.0.0:443\", certificates: [{name}] }}]"
            ));
            self.certificates.insert(id, name);
        }
        for it in document.list("ca_certificates")? {
            it.skip_fields(&["tags", "created_at", "updated_at", "cert_digest"]);
            let id = it.text("id")?.unwrap_or_default();
            let words = json!({ "pem": it.text("cert")?.unwrap_or_default() });
            let name = self.out.put(Kind::CertificateAuthority, &it, &format!("ca-{id}"), words);
            self.authorities.insert(id, name);
        }
        Ok(())
    }
}
