//! Precedence, 405, HEAD, preflight and host fall-through as tables.

use std::collections::BTreeMap;

use super::*;
use crate::{
    digest::Digest,
    resource::{Route, Stored},
};

impl HeaderLookup for BTreeMap<String, Vec<String>> {
    fn any(&self, name: &str, test: &mut dyn FnMut(&str) -> bool) -> bool {
        self.get(name).is_some_and(|values| values.iter().any(|value| test(value)))
    }
}

/// A ruleset of routes written as JSON without `name` and action: `("a", r#"{"match": …}"#)`.
pub(super) fn ruleset(routes: &[(&str, &str)]) -> Ruleset {
    let mut state = State::default();
    for (name, words) in routes {
        let mut words: serde_json::Value = serde_json::from_str(words).unwrap();
        words["name"] = (*name).into();
        words["upstream"] = "u".into();
        let route: Route = serde_json::from_value(words).unwrap();
        let resource = Resource::Route(Arc::new(route));
        let etag = Digest::of(name.as_bytes());
        state.resources.insert(resource.key(), Stored { resource, etag });
    }
    Ruleset::compile(&state, None)
}

#[test]
fn smoke() {
    let rules = ruleset(&[
        ("any", "{}"),
        ("orders", r#"{"match": {"hosts": ["*.acme.test"], "path_prefix": "/orders/", "methods": ["get"]}}"#),
        ("order", r#"{"match": {"path_template": "/orders/{id}"}}"#),
    ]);
    let headers = BTreeMap::new();
    let view = View {
        method: "HEAD",
        host: "api.acme.test",
        path: "/orders/1",
        query: None,
        headers: &headers,
        client_ip: [127, 0, 0, 1].into(),
        sni: None,
    };
    let Found::Rule(rule) = rules.find(&view) else { panic!() };
    assert_eq!(&*rule.route.name, "orders");
}
