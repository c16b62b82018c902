//! Classes, Gateways, their listeners and certificates, and who attaches to them.

use super::*;
use crate::conditions::ListenerStatus;

fn gateway(name: &str, day: u8, listeners: &str) -> String {
    format!(
        "kind: Gateway\nmetadata: {{name: {name}, namespace: infra, generation: 2, creationTimestamp: '2026-03-{day:02}T00:00:00Z'}}\n\
         spec: {{gatewayClassName: qg, listeners: [{listeners}]}}\n"
    )
}

fn told<'t>(translation: &'t Translation, name: &str) -> (&'t [Condition], &'t [ListenerStatus], &'t [Value]) {
    let it = translation.told.iter().find(|it| it.kind == Kind::Gateway && it.id.name == name).unwrap();
    let Status::Gateway { conditions, listeners, addresses } = &it.status else { panic!() };
    (conditions, listeners, addresses)
}

fn listener(translation: &Translation, gateway: &str, name: &str) -> String {
    let (_, listeners, _) = told(translation, gateway);
    said(&listeners.iter().find(|it| it.name == name).unwrap().conditions)
}

const GOOD: &str =
    "Accepted=True/Accepted Conflicted=False/NoConflicts ResolvedRefs=True/ResolvedRefs Programmed=True/Programmed";

const SECRET: &str = "kind: Secret\ntype: kubernetes.io/tls\nmetadata: {name: cert, namespace: infra}\n\
    data: {tls.crt: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCkFBQUEKLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo=, tls.key: S0VZ}\n";
const TLS: &str = "tls: {certificateRefs: [{name: cert}]}";

#[test]
fn a_class_is_ours_by_its_controller() {
    let with = "kind: GatewayClass\nmetadata: {name: with}\n\
                spec: {controllerName: quorumgate.io/gateway-controller, parametersRef: {group: a, kind: b, name: c}}\n";
    let translation = translated(&[with]);
    let classes: Vec<(String, String)> = translation
        .told
        .iter()
        .filter(|it| it.kind == Kind::GatewayClass)
        .map(|it| match &it.status {
            Status::Class(conditions) => (it.id.name.clone(), said(conditions)),
            _ => panic!(),
        })
        .collect();
    let expected = [("qg", "Accepted=True/Accepted"), ("with", "Accepted=False/InvalidParameters")];
    assert_eq!(classes, expected.map(|(name, said)| (name.to_owned(), said.to_owned())));
    let of_others =
        "kind: Gateway\nmetadata: {name: x, namespace: infra}\nspec: {gatewayClassName: other, listeners: []}\n";
    assert!(translated(&[of_others]).told.iter().all(|it| it.id.name != "x"));
}

#[test]
fn each_port_is_one_listener_with_the_certificates_of_all() {
    let more = gateway(
        "tls",
        1,
        &format!(
            "{{name: a, port: 443, protocol: HTTPS, hostname: a.test, {TLS}}}, \
             {{name: b, port: 443, protocol: HTTPS, hostname: '*.b.test', {TLS}}}, \
             {{name: any, port: 443, protocol: HTTPS, {TLS}}}, {{name: also, port: 80, protocol: HTTP, hostname: c.test}}"
        ),
    );
    let translation = translated(&[&more, SECRET]);
    let config = translation.config();
    let listeners: Vec<(&str, &str, &str)> =
        config.listeners.iter().map(|it| (it.name.as_str(), it.address.as_str(), it.protocol.as_str())).collect();
    assert_eq!(listeners, [("k8s-443", "0.0.0.0:443", "https"), ("k8s-80", "0.0.0.0:80", "http")]);
    let certificates: Vec<(&str, Vec<String>)> =
        config.certificates.iter().map(|it| (it.name.as_str(), it.hosts.clone())).collect();
    let named = vec!["*.b.test".to_owned(), "a.test".to_owned()];
    assert_eq!(certificates, [("k8s.infra.cert.443", named), ("k8s.infra.cert.443.default", Vec::new())]);
    assert_eq!(config.listeners[0].certificates, ["k8s.infra.cert.443", "k8s.infra.cert.443.default"]);
    assert_eq!(config.certificates[0].key.as_ref().unwrap().plain, "KEY");
    for name in ["a", "b", "any", "also"] {
        assert_eq!(listener(&translation, "tls", name), GOOD, "{name}");
    }
    // Elsewhere on the nodes, and behind a service.
    let service = "kind: Service\nmetadata: {name: lb, namespace: infra}\nspec: {clusterIP: 10.9.9.9}\n\
                   status: {loadBalancer: {ingress: [{ip: 192.0.2.1}, {hostname: lb.test}]}}\n";
    let snapshot = snapshot(&[WORLD, service]);
    let settings = Settings {
        ports: BTreeMap::from([(80, 8080)]),
        bind: "::".parse().unwrap(),
        service: Some(Id::new("infra", "lb")),
    };
    let translation = translate(&snapshot, &settings, &Refusals::new());
    assert_eq!(translation.config().listeners[0].address, "[::]:8080");
    let (conditions, _, addresses) = told(&translation, "gw");
    assert_eq!(said(conditions), "Accepted=True/Accepted Programmed=True/Programmed");
    assert_eq!(addresses[0]["value"], "192.0.2.1");
    assert_eq!((&addresses[1]["type"], &addresses[1]["value"]), (&"Hostname".into(), &"lb.test".into()));
}

#[test]
fn listeners_that_cannot_be_are_told_and_the_others_stand() {
    let check = |words: &str, more: &str, expected: &str| {
        let two = gateway("two", 1, &format!("{{name: bad, {words}}}, {{name: good, port: 8000, protocol: HTTP}}"));
        let none = "kind: Namespace\nmetadata: {name: none}\n";
        let translation = translated(&[&two, if more.is_empty() { none } else { more }]);
        assert_eq!(listener(&translation, "two", "bad"), expected, "{words}");
        assert_eq!(listener(&translation, "two", "good"), GOOD, "{words}");
        let (conditions, ..) = told(&translation, "two");
        assert_eq!(said(conditions), "Accepted=True/ListenersNotValid Programmed=True/Programmed", "{words}");
        assert!(translation.config().listeners.iter().any(|it| it.name == "k8s-8000"), "{words}");
    };
    let no_reference = "Accepted=True/Accepted Conflicted=False/NoConflicts ResolvedRefs=False/InvalidCertificateRef Programmed=False/Invalid";
    let https = "port: 443, protocol: HTTPS";
    check(&format!("{https}, {TLS}"), "", no_reference);
    check(https, SECRET, no_reference);
    check(&format!("{https}, tls: {{certificateRefs: [{{name: cert}}, {{name: cert}}]}}"), SECRET, no_reference);
    check(&format!("{https}, tls: {{certificateRefs: [{{kind: ConfigMap, name: cert}}]}}"), SECRET, no_reference);
    let bad = SECRET.replace("S0VZ", "'*'");
    check(&format!("{https}, {TLS}"), &bad, no_reference);
    let no_pem = SECRET.replace("LS0tLS1CRUdJTi", "AAAA");
    check(&format!("{https}, {TLS}"), &no_pem, no_reference);
    let far = SECRET.replace("namespace: infra", "namespace: far");
    let not_permitted = "Accepted=True/Accepted Conflicted=False/NoConflicts ResolvedRefs=False/RefNotPermitted Programmed=False/Invalid";
    check(&format!("{https}, tls: {{certificateRefs: [{{name: cert, namespace: far}}]}}"), &far, not_permitted);
    let refused = |reason: &str| {
        format!(
            "Accepted=False/{reason} Conflicted=False/NoConflicts ResolvedRefs=True/ResolvedRefs Programmed=False/Invalid"
        )
    };
    check("port: 53, protocol: UDP", "", &refused("UnsupportedProtocol"));
    check("port: 443, protocol: TLS", "", &refused("UnsupportedProtocol"));
    check(&format!("port: 443, protocol: HTTP, {TLS}"), SECRET, &refused("UnsupportedValue"));
    check(&format!("{https}, tls: {{mode: Passthrough}}"), "", &refused("UnsupportedValue"));
    check(
        &format!("{https}, tls: {{certificateRefs: [{{name: cert}}], options: {{a: b}}}}"),
        SECRET,
        &refused("UnsupportedValue"),
    );
    // The port is another Gateway's, which is older, for HTTP.
    check(&format!("port: 80, protocol: HTTPS, {TLS}"), SECRET, &refused("PortUnavailable"));
    let kinds = "allowedRoutes: {kinds: [{kind: HTTPRoute}, {kind: TCPRoute}]}";
    let two = gateway("two", 1, &format!("{{name: l, port: 81, protocol: HTTP, {kinds}}}"));
    let translation = translated(&[&two]);
    assert!(listener(&translation, "two", "l").contains("ResolvedRefs=False/InvalidRouteKinds"));
    assert_eq!(told(&translation, "two").1[0].kinds, [Kind::HttpRoute]);
}

#[test]
fn conflicts_within_a_gateway_stop_both() {
    let check = |one: &str, two: &str, reason: &str| {
        let both = gateway("two", 1, &format!("{{name: one, {one}}}, {{name: two, {two}}}"));
        let translation = translated(&[&both, SECRET]);
        for name in ["one", "two"] {
            let said = listener(&translation, "two", name);
            assert!(said.starts_with(&format!("Accepted=False/{reason} Conflicted=True/{reason}")), "{said}");
        }
        let (conditions, ..) = told(&translation, "two");
        assert_eq!(said(conditions), "Accepted=False/ListenersNotValid Programmed=False/Invalid");
    };
    let host = |host: &str| format!("port: 90, protocol: HTTP, hostname: {host}");
    check(&host("a.test"), &host("A.test"), "HostnameConflict");
    check("port: 90, protocol: HTTP", &format!("port: 90, protocol: HTTPS, {TLS}"), "ProtocolConflict");
}

#[test]
fn a_gateway_that_is_not_understood_says_so_of_everything_in_it() {
    for (words, reason) in [
        (
            "gatewayClassName: qg, listeners: [{name: l, port: 81, protocol: HTTP}], addresses: [{value: 192.0.2.1}]",
            "UnsupportedAddress",
        ),
        (
            "gatewayClassName: qg, listeners: [{name: l, port: 81, protocol: HTTP}], infrastructure: {labels: {a: b}}",
            "Invalid",
        ),
        ("gatewayClassName: qg, listeners: [{name: l, port: 81, protocol: HTTP, frontend: 1}]", "Invalid"),
    ] {
        let bad = format!("kind: Gateway\nmetadata: {{name: bad, namespace: infra}}\nspec: {{{words}}}\n");
        let parent = http(&format!("[{{{BACKEND}}}]")).replace("name: gw,", "name: bad,");
        let translation = translated(&[&bad, &parent]);
        let (conditions, listeners, _) = told(&translation, "bad");
        assert_eq!(said(conditions), format!("Accepted=False/{reason} Programmed=False/Invalid"), "{words}");
        assert_eq!(listeners[0].name, "l", "{words}");
        assert!(of_route(&translation, Kind::HttpRoute, "r").starts_with("Accepted=False/Pending"), "{words}");
        assert!(translation.config().listeners.iter().all(|it| it.name == "k8s-80"));
    }
}

#[test]
fn routes_attach_where_they_are_let_in() {
    let more = gateway(
        "gw2",
        1,
        &format!(
            "{{name: same, port: 81, protocol: HTTP}}, \
             {{name: team, port: 82, protocol: HTTP, allowedRoutes: {{namespaces: {{from: Selector, selector: {{matchLabels: {{team: shop}}}}}}}}}}, \
             {{name: grpc, port: 83, protocol: HTTP, allowedRoutes: {{namespaces: {{from: All}}, kinds: [{{kind: GRPCRoute}}]}}}}, \
             {{name: host, port: 84, protocol: HTTP, hostname: '*.b.test', allowedRoutes: {{namespaces: {{from: All}}}}}}, \
             {{name: tls, port: 85, protocol: HTTPS, {TLS}, allowedRoutes: {{namespaces: {{from: All}}}}}}"
        ),
    );
    let namespace = "kind: Namespace\nmetadata: {name: shop, labels: {team: shop}}\n";
    let check = |parent: &str, hosts: &str, expected: Result<&[&str], &str>| {
        let route = http(&format!("[{{{BACKEND}}}]"));
        let route = route.replace("{name: gw, namespace: infra}", &format!("{{{parent}}}"));
        let route = route.replace("hostnames: [a.test]", &format!("hostnames: [{hosts}]"));
        let translation = translated(&[&more, namespace, &route]);
        match expected {
            Ok(lines) => {
                let lines: Vec<String> =
                    lines.iter().map(|it| format!("{it} prefix=/ -> k8s.shop.orders.80")).collect();
                check_lines(&translation, &lines.iter().map(String::as_str).collect::<Vec<_>>());
            }
            Err(reason) => {
                let said = of_route(&translation, Kind::HttpRoute, "r");
                assert!(said.starts_with(&format!("Accepted=False/{reason} ")), "{parent}: {said}");
                assert!(routes(&translation).is_empty(), "{parent}");
            }
        }
    };
    let gw2 = "name: gw2, namespace: infra";
    check("name: gw, namespace: infra", "a.test", Ok(&["h00.000.80 a.test"]));
    check("name: gw, namespace: infra", "", Ok(&["h00.000.80"]));
    check(&format!("{gw2}, sectionName: team"), "a.test", Ok(&["h00.000.82 a.test"]));
    check(&format!("{gw2}, port: 82"), "a.test", Ok(&["h00.000.82 a.test"]));
    check(&format!("{gw2}, sectionName: host"), "x.b.test, a.test", Ok(&["h00.000.84 x.b.test"]));
    check(gw2, "x.b.test", Ok(&["h00.000.82 x.b.test", "h00.000.84 x.b.test"]));
    check(&format!("{gw2}, sectionName: none"), "a.test", Err("NoMatchingParent"));
    check(&format!("{gw2}, sectionName: team, port: 81"), "a.test", Err("NoMatchingParent"));
    check(&format!("{gw2}, sectionName: same"), "a.test", Err("NotAllowedByListeners"));
    check(&format!("{gw2}, sectionName: grpc"), "a.test", Err("NotAllowedByListeners"));
    check(&format!("{gw2}, sectionName: host"), "a.test", Err("NoMatchingListenerHostname"));
    check(&format!("{gw2}, sectionName: tls"), "a.test", Err("Pending"));
    // Of Gateways that are not ours, or not there, others speak.
    for parent in ["name: nobody, namespace: infra", "name: gw", "kind: Service, group: '', name: orders"] {
        let route = http(&format!("[{{{BACKEND}}}]")).replace("{name: gw, namespace: infra}", &format!("{{{parent}}}"));
        let translation = translated(&[&route]);
        assert!(translation.told.iter().all(|it| it.kind != Kind::HttpRoute), "{parent}");
    }
}

#[test]
fn each_parent_is_answered_and_listeners_count_their_routes() {
    let more = gateway("gw2", 1, "{name: same, port: 81, protocol: HTTP}");
    let route = http(&format!("[{{{BACKEND}}}]"));
    let both = "{name: gw, namespace: infra}, {name: gw2, namespace: infra}";
    let translation = translated(&[&more, &route.replace("{name: gw, namespace: infra}", both)]);
    let parties = parties(&translation, Kind::HttpRoute, "r");
    let said: Vec<(String, String)> =
        parties.iter().map(|it| (it.reference["name"].to_string(), said(&it.conditions[..1]))).collect();
    let expected = [("\"gw\"", "Accepted=True/Accepted"), ("\"gw2\"", "Accepted=False/NotAllowedByListeners")];
    assert_eq!(said, expected.map(|(name, said)| (name.to_owned(), said.to_owned())));
    assert_eq!(told(&translation, "gw").1[0].attached, 1);
    assert_eq!(told(&translation, "gw2").1[0].attached, 0);
}

#[test]
fn a_host_is_of_http_or_of_grpc_routes() {
    let rule = format!("[{{{BACKEND}}}]");
    let (http, grpc) = (http(&rule), route("GRPCRoute", "g", &rule));
    // Of one age; its name is first.
    let translation = translated(&[&http, &grpc]);
    check_lines(&translation, &["g00.000.80 a.test -> k8s.shop.orders.80.grpc"]);
    assert!(of_route(&translation, Kind::HttpRoute, "r").starts_with("Accepted=False/HostnameConflict"));
    let elsewhere = grpc.replace("hostnames: [a.test]", "hostnames: ['*.b.test']");
    let translation = translated(&[&http, &elsewhere]);
    assert_eq!(routes(&translation).len(), 2);
}

#[test]
fn what_was_ours_and_is_no_more_is_taken_back() {
    let route = format!(
        "{}status: {{parents: [{{controllerName: quorumgate.io/gateway-controller, parentRef: {{name: gw}}}}]}}\n",
        http("[]").replace("name: gw,", "name: nobody,")
    );
    let translation = translated(&[&route]);
    let told = translation.told.iter().find(|it| it.kind == Kind::HttpRoute).unwrap();
    assert_eq!(told.status, Status::Parents(Vec::new()));
}
