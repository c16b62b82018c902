//! Who comes in by what it calls itself, and by where it is.

use quorumgate_model::resource::AnomalyFeature;
use quorumgate_proxy::geo::Files;
use serde_json::json;

use crate::{
    mmdb::{database, map, text, u32},
    support::*,
};

#[tokio::test]
async fn clients_that_call_themselves_so_are_refused_or_told_of() {
    let route = |name: &str| json!({"name": name, "match": {"path_prefix": format!("/{name}")}, "respond": {"status": 200}, "policies": [name]});
    let it = Gateway::start(json!({
        "policies": [
            {"name": "strict", "bot": {"deny": ["(?i)curl"], "allow": ["monitor"], "missing": "refuse"}},
            {"name": "watch", "bot": {"mode": "detect", "missing": "refuse"}},
            {"name": "off", "bot": {"mode": "off", "missing": "refuse"}},
        ],
        "routes": [route("strict"), route("watch"), route("off")],
    }));
    let agent = |path: &str, agents: &[&str]| {
        let (line, fields): (_, Vec<_>) =
            (format!("GET /{path}"), agents.iter().map(|it| format!("user-agent: {it}")).collect());
        let address = it.address;
        async move { ask(address, &line, &fields.iter().map(String::as_str).collect::<Vec<_>>(), "").await }
    };
    for (agents, expected) in [
        (&["Mozilla/5.0"][..], 200),
        (&["curl/8"], 403),
        (&["curl/8 monitor"], 200),
        (&["Mozilla/5.0", "cURL/8"], 403),
        (&["sqlmap/1.8"], 403),
        (&[], 403),
        (&[""], 403),
    ] {
        assert_eq!(status(&agent("strict", agents).await), expected, "{agents:?}");
    }
    check_problem(&agent("strict", &[]).await, 403, "bot_denied");
    for path in ["watch", "off"] {
        assert_eq!(status(&agent(path, &["nuclei"]).await), 200);
    }
    it.metric_becomes("quorumgate_policy_total{policy=\"strict\",result=\"refused\"}", 6).await;
    assert_eq!(it.metric("quorumgate_policy_total{policy=\"watch\",result=\"detected\"}"), 1);
}

#[tokio::test]
async fn a_caller_from_many_countries_is_seen_from_each() {
    let mut settings = settings();
    settings.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let it = Gateway::with(
        settings,
        json!({
            "policies": [{"name": "travels", "anomaly": {"per": "ip", "v4_prefix": 8, "over": {"countries": 1}}}],
            "routes": [{"name": "r", "match": {"path_prefix": "/"}, "respond": {"status": 200}, "policies": ["travels"]}],
        }),
    );
    let dir = tempfile::tempdir().unwrap();
    let files = Files { country: Some(dir.path().join("c.mmdb")), asn: None };
    for code in ["DE", "FR", "FR"] {
        let country = map(&[("country", map(&[("iso_code", text(code))]))]);
        std::fs::write(files.country.as_ref().unwrap(), database(&country, &country)).unwrap();
        it.proxy.directory().geo.load(&files).unwrap();
        assert_eq!(status(&ask(it.address, "GET /", &["x-forwarded-for: 203.0.113.9"], "").await), 200);
    }
    let expected = [(AnomalyFeature::Requests, 3), (AnomalyFeature::Countries, 2)];
    crate::anomalies::sees(&it, "travels", "203.0.0.0/8", &expected).await;
}

#[tokio::test]
async fn clients_come_in_by_where_the_files_say_that_they_are() {
    let route = |name: &str| json!({"name": name, "match": {"path_prefix": format!("/{name}")}, "respond": {"status": 200}, "policies": [name]});
    let it = Gateway::start(json!({
        "policies": [
            {"name": "german", "ip": {"allow_countries": ["DE"]}},
            {"name": "not-french", "ip": {"deny_countries": ["FR"]}},
            {"name": "not-them", "ip": {"deny_asns": [64500], "unknown_place": "deny"}},
        ],
        "routes": [route("german"), route("not-french"), route("not-them")],
    }));
    let ask_all = async || {
        let mut all = Vec::new();
        for path in ["german", "not-french", "not-them"] {
            all.push(status(&ask(it.address, &format!("GET /{path}"), &[], "").await));
        }
        all
    };
    assert_eq!(ask_all().await, [403, 200, 403], "nothing is known of any address");
    let dir = tempfile::tempdir().unwrap();
    let files = Files { country: Some(dir.path().join("c.mmdb")), asn: Some(dir.path().join("a.mmdb")) };
    for (country, asn, expected) in [("DE", 1, [200, 200, 200]), ("FR", 64_500, [403, 403, 403])] {
        let country = map(&[("country", map(&[("iso_code", text(country))]))]);
        let asn = map(&[("autonomous_system_number", u32(asn))]);
        std::fs::write(files.country.as_ref().unwrap(), database(&country, &country)).unwrap();
        std::fs::write(files.asn.as_ref().unwrap(), database(&asn, &asn)).unwrap();
        it.proxy.directory().geo.load(&files).unwrap();
        assert_eq!(ask_all().await, expected);
    }
}
