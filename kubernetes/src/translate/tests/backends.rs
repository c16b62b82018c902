//! Services, endpoints, weights, grants and BackendTLSPolicies.

use super::*;

fn resolved(translation: &Translation) -> String {
    of_route(translation, Kind::HttpRoute, "r").split_once(' ').map(|(_, it)| it.to_owned()).unwrap_or_default()
}

#[track_caller]
fn check(backends: &str, action: &str, reason: &str) {
    let translation = translated(&[&http(&format!("[{{backendRefs: [{backends}]}}]"))]);
    check_lines(&translation, &[&format!("h00.000.80 a.test prefix=/ -> {action}")]);
    let status = if reason == "ResolvedRefs" { "True" } else { "False" };
    assert_eq!(resolved(&translation), format!("ResolvedRefs={status}/{reason}"), "{backends}");
}

#[test]
fn backends_are_upstreams_by_their_weights() {
    check("{name: orders, port: 80}", "k8s.shop.orders.80", "ResolvedRefs");
    check("{name: orders, port: 80}, {name: orders, port: 80, weight: 3}", "k8s.shop.orders.80", "ResolvedRefs");
    let both = "k8s.shop.canary.80:1 k8s.shop.orders.80:9";
    check("{name: orders, port: 80, weight: 9}, {name: canary, port: 80}", both, "ResolvedRefs");
    check("{name: orders, port: 80}, {name: canary, port: 80, weight: 0}", "k8s.shop.orders.80", "ResolvedRefs");
    check("{name: orders, port: 80, weight: 0}", "500", "ResolvedRefs");
    check("", "500", "ResolvedRefs");
}

#[test]
fn a_backend_that_cannot_be_asked_keeps_its_share() {
    check("{name: none, port: 80}", "500", "BackendNotFound");
    check("{name: orders, port: 7}", "500", "BackendNotFound");
    check("{name: orders}", "500", "BackendNotFound");
    check("{kind: ServiceImport, group: multicluster.x-k8s.io, name: orders, port: 80}", "500", "InvalidKind");
    check("{name: idle, port: 80}", "503", "ResolvedRefs");
    let share = "k8s.nowhere:2 k8s.shop.orders.80:1";
    check("{name: orders, port: 80}, {name: none, port: 80, weight: 2}", share, "BackendNotFound");
    check("{name: orders, port: 80}, {name: idle, port: 80, weight: 2}", share, "ResolvedRefs");
    check("{name: idle, port: 80}, {name: none, port: 80}", "500", "BackendNotFound");
    check("{name: orders, port: 80, namespace: other}", "500", "RefNotPermitted");
}

#[test]
fn endpoints_that_are_ready_are_targets() {
    let targets = |translation: &Translation, place: usize| {
        let upstream = translation.config().upstreams[place].clone();
        (upstream.targets.into_iter().map(|it| it.address).collect::<Vec<_>>(), upstream.protocol)
    };
    let translation = translated(&[&http("[{backendRefs: [{name: orders, port: 80}, {name: canary, port: 80}]}]")]);
    assert_eq!(targets(&translation, 0), (vec!["[2001:db8::1]:8080".into()], "http1".into()));
    assert_eq!(targets(&translation, 1), (vec!["10.0.0.1:8080".into(), "10.0.0.2:8080".into()], "http1".into()));
    let translation = translated(&[&http("[{backendRefs: [{name: orders, port: 81}]}]")]);
    assert_eq!(targets(&translation, 0), (vec!["10.0.0.1:8081".into(), "10.0.0.2:8081".into()], "http2".into()));
    // Another slice of the service adds to them; one endpoint in both counts once.
    let more = "kind: EndpointSlice\nmetadata: {name: orders-2, namespace: shop, labels: {kubernetes.io/service-name: orders}}\n\
                addressType: IPv4\nendpoints: [{addresses: [10.0.0.9]}, {addresses: [10.0.0.1]}]\nports: [{name: web, port: 8080}]\n";
    let translation = translated(&[&http(&format!("[{{{BACKEND}}}]")), more]);
    assert_eq!(targets(&translation, 0).0, ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.9:8080"]);
}

#[test]
fn protocols_that_are_not_spoken_are_told() {
    for (words, reason) in [
        ("appProtocol: kubernetes.io/wss", "UnsupportedProtocol"),
        ("appProtocol: https", "UnsupportedProtocol"),
        ("protocol: UDP", "UnsupportedProtocol"),
        ("appProtocol: kubernetes.io/ws", "ResolvedRefs"),
    ] {
        let service = format!(
            "kind: Service\nmetadata: {{name: s, namespace: shop}}\nspec: {{ports: [{{port: 80, {words}}}]}}\n"
        );
        let translation = translated(&[&http("[{backendRefs: [{name: s, port: 80}]}]"), &service]);
        assert!(resolved(&translation).ends_with(reason), "{words}: {}", resolved(&translation));
    }
    let external =
        "kind: Service\nmetadata: {name: s, namespace: shop}\nspec: {type: ExternalName, ports: [{port: 80}]}\n";
    let translation = translated(&[&http("[{backendRefs: [{name: s, port: 80}]}]"), external]);
    assert_eq!(resolved(&translation), "ResolvedRefs=False/UnsupportedValue");
}

#[test]
fn other_namespaces_are_for_those_who_are_granted_them() {
    let far = "kind: Service\nmetadata: {name: far, namespace: other}\nspec: {ports: [{port: 80}]}\n---\n\
               kind: EndpointSlice\nmetadata: {name: far-1, namespace: other, labels: {kubernetes.io/service-name: far}}\n\
               addressType: IPv4\nendpoints: [{addresses: [10.0.1.1]}]\nports: [{port: 80}]\n";
    let check = |namespace: &str, from: &str, to: &str, expected: bool| {
        let grant = format!(
            "kind: ReferenceGrant\nmetadata: {{name: g, namespace: {namespace}}}\nspec: {{from: [{{{from}}}], to: [{{{to}}}]}}\n"
        );
        let translation =
            translated(&[far, &grant, &http("[{backendRefs: [{name: far, namespace: other, port: 80}]}]")]);
        let said = resolved(&translation);
        assert_eq!(said == "ResolvedRefs=True/ResolvedRefs", expected, "{from} {to}: {said}");
        assert!(expected || said == "ResolvedRefs=False/RefNotPermitted", "{said}");
    };
    let from = "group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop";
    let to = "group: '', kind: Service";
    check("other", from, to, true);
    check("other", from, "group: '', kind: Service, name: far", true);
    check("other", from, "group: '', kind: Service, name: near", false);
    check("other", from, "group: '', kind: Secret", false);
    check("other", "group: gateway.networking.k8s.io, kind: GRPCRoute, namespace: shop", to, false);
    check("other", "group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: elsewhere", to, false);
    check("shop", from, to, false);
}

fn policy(name: &str, target: &str, validation: &str) -> String {
    format!(
        "kind: BackendTLSPolicy\nmetadata: {{name: {name}, namespace: shop, generation: 1, creationTimestamp: '2026-01-0{}T00:00:00Z'}}\n\
         spec: {{targetRefs: [{{group: '', kind: Service, {target}}}], validation: {{{validation}}}}}\n",
        name.len()
    )
}

const CA: &str = "kind: ConfigMap\nmetadata: {name: ca, namespace: shop}\n\
                  data:\n  ca.crt: |\n    -----BEGIN CERTIFICATE-----\n    AAAA\n    -----END CERTIFICATE-----\n";

#[test]
fn services_with_a_policy_are_asked_over_tls() {
    let rule = http(&format!("[{{{BACKEND}}}]"));
    let own = "hostname: in.test, caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]";
    let translation = translated(&[&rule, CA, &policy("p", "name: orders", own)]);
    let config = translation.config();
    let tls = config.upstreams[0].tls.clone().unwrap();
    assert_eq!((tls.server_name.as_str(), tls.ca.as_str(), tls.verify), ("in.test", "k8s.shop.ca", None));
    assert_eq!(config.certificate_authorities[0].name, "k8s.shop.ca");
    let [party] = parties(&translation, Kind::BackendTlsPolicy, "p") else { panic!() };
    assert_eq!(said(&party.conditions), "Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs");
    assert_eq!(party.reference["name"], "gw");

    // A port by its name goes before the service as a whole.
    let system = policy("pp", "name: orders, sectionName: web", "hostname: web.test, wellKnownCACertificates: System");
    let translation = translated(&[&rule, CA, &policy("p", "name: orders", own), &system]);
    let tls = translation.config().upstreams[0].tls.clone().unwrap();
    assert_eq!((tls.server_name.as_str(), tls.ca.as_str()), ("web.test", ""));
    assert!(translation.config().certificate_authorities.is_empty(), "no service is asked by it");
    let of_another_port =
        policy("pp", "name: orders, sectionName: h2", "hostname: h2.test, wellKnownCACertificates: System");
    let translation = translated(&[&rule, &of_another_port]);
    assert!(translation.config().upstreams[0].tls.is_none());
}

#[test]
fn a_service_whose_policy_is_not_valid_is_not_asked_in_cleartext() {
    let rule = http(&format!("[{{{BACKEND}}}]"));
    let check = |validation: &str, more: &str, expected: &str| {
        let bad = policy("p", "name: orders", validation);
        let translation = translated(&[&rule, &bad, more]);
        check_lines(&translation, &["h00.000.80 a.test prefix=/ -> 500"]);
        assert_eq!(resolved(&translation), "ResolvedRefs=False/InvalidBackendTLSPolicy", "{validation}");
        let [party] = parties(&translation, Kind::BackendTlsPolicy, "p") else { panic!("{validation}") };
        assert_eq!(said(&party.conditions), expected, "{validation}");
    };
    let ca = "caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]";
    let missing = "Accepted=False/NoValidCACertificate ResolvedRefs=False/InvalidCACertificateRef";
    let none = "kind: Namespace\nmetadata: {name: shop}\n";
    check(&format!("hostname: in.test, {ca}"), none, missing);
    let empty = "kind: ConfigMap\nmetadata: {name: ca, namespace: shop}\ndata: {ca.crt: 'no PEM'}\n";
    check(&format!("hostname: in.test, {ca}"), empty, missing);
    let kind = "Accepted=False/NoValidCACertificate ResolvedRefs=False/InvalidKind";
    check("hostname: in.test, caCertificateRefs: [{group: '', kind: Secret, name: ca}]", CA, kind);
    check("hostname: in.test", CA, "Accepted=False/Invalid");
    check("hostname: in.test, wellKnownCACertificates: Mozilla", CA, "Accepted=False/Invalid");
    let names = "subjectAltNames: [{type: Hostname, hostname: x}]";
    check(&format!("hostname: in.test, {ca}, {names}"), CA, "Accepted=False/Invalid");
    check(&format!("hostname: in.test, {ca}, pinned: x"), CA, "Accepted=False/Invalid");

    // Of two for one service the older counts; the other says so.
    let own = "hostname: in.test, wellKnownCACertificates: System";
    let translation = translated(&[&rule, &policy("p", "name: orders", own), &policy("pp", "name: orders", own)]);
    assert!(translation.config().upstreams[0].tls.is_some());
    assert_eq!(resolved(&translation), "ResolvedRefs=True/ResolvedRefs");
}
