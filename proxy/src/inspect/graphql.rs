//! GraphQL queries held against the bounds of a policy: how deep, how many aliases and fields, once fragments are spread out. A
//! fragment is measured once, however often it is spread, so that no query costs more than it is long.

use std::{collections::HashMap, fmt};

use apollo_parser::{
    Parser,
    cst::{CstNode, Definition, Selection, SelectionSet},
};
use http::Uri;
use percent_encoding::percent_decode_str;
use quorumgate_model::resource::{GraphqlPolicy, Tolerance};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

use super::{
    found::{ERRORS_MAX, Place, Violation},
    media::Media,
};

/// Of one query.
const TOKENS_MAX: usize = 20_000;
/// Selections, types and values within one another, and fragments that spread fragments.
const NESTING_MAX: usize = 200;

/// One operation as JSON has it: its query, and whatever else a server could take for it, since some read names without
/// regard to case. Without a query it is one that the server knows already.
struct Asked {
    queries: Vec<String>,
}

impl<'de> Deserialize<'de> for Asked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Asked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a query")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Asked, A::Error> {
        let mut queries = Vec::new();
        while let Some(name) = members.next_key::<String>()? {
            if name.eq_ignore_ascii_case("query") {
                queries.extend(members.next_value::<Option<String>>()?);
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Asked { queries })
    }
}

/// A body; empty: it is as the policy wants it.
pub(super) fn check(media: &Media, bytes: &[u8], limits: &GraphqlPolicy) -> Vec<Violation> {
    let broken = |detail: String| vec![Violation::body(String::new(), "syntax", detail)];
    if media.is_graphql() {
        return match std::str::from_utf8(bytes) {
            Ok(query) => measure(query, Place::Body, "", limits),
            Err(error) => broken(format!("this is not GraphQL: {error}")),
        };
    }
    let no_json = |error: serde_json::Error| broken(format!("this is not JSON: {error}"));
    if !bytes.trim_ascii_start().starts_with(b"[") {
        return match serde_json::from_slice::<Asked>(bytes) {
            Ok(asked) => {
                let found = asked.queries.iter().flat_map(|query| measure(query, Place::Body, "/query", limits));
                found.take(ERRORS_MAX).collect()
            }
            Err(error) => no_json(error),
        };
    }
    let batch = match serde_json::from_slice::<Vec<Asked>>(bytes) {
        Ok(batch) => batch,
        Err(error) => return no_json(error),
    };
    let max = limits.max_batch as usize;
    if batch.len() > max {
        let detail = format!("more than {max} operations come at once");
        return vec![Violation::body(String::new(), "max_batch", detail)];
    }
    let queries = batch.iter().enumerate().flat_map(|(place, it)| it.queries.iter().map(move |query| (place, query)));
    let found = queries.flat_map(|(place, query)| measure(query, Place::Body, &format!("/{place}/query"), limits));
    found.take(ERRORS_MAX).collect()
}

/// `?query=` of a GET.
pub(super) fn check_head(uri: &Uri, limits: &GraphqlPolicy) -> Vec<Violation> {
    let parameters = uri.query().unwrap_or_default().split('&');
    let is_query = |name: &str| percent_decode_str(name).decode_utf8_lossy().eq_ignore_ascii_case("query");
    let queries =
        parameters.filter_map(|it| it.split_once('=').filter(|(name, _)| is_query(name))).flat_map(|(_, value)| {
            let query = value.replace('+', " ");
            measure(&percent_decode_str(&query).decode_utf8_lossy(), Place::Query, "/query", limits)
        });
    queries.take(ERRORS_MAX).collect()
}

fn measure(query: &str, place: Place, pointer: &str, limits: &GraphqlPolicy) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut find = |rule, detail: String| {
        found.push(Violation { place, pointer: pointer.to_owned(), rule, detail: detail.into() });
    };
    let tree = Parser::new(query).recursion_limit(NESTING_MAX).token_limit(TOKENS_MAX).parse();
    if let Some(error) = tree.errors().next() {
        match error.is_limit() {
            true if tree.token_limit().high > TOKENS_MAX => {
                find("max_complexity", format!("the query has more than {TOKENS_MAX} tokens"));
            }
            true => find("max_depth", format!("the query is nested deeper than {NESTING_MAX}")),
            false => find("syntax", format!("this is not GraphQL at byte {}", error.index())),
        }
        return found;
    }
    let definitions: Vec<_> = tree.document().definitions().collect();
    let mut fragments = Fragments::default();
    for it in &definitions {
        if let Definition::FragmentDefinition(it) = it
            && let (Some(name), Some(set)) = (it.fragment_name(), it.selection_set())
        {
            fragments.sets.insert(name.syntax().text().to_string().trim().to_owned(), set);
        }
    }
    let operations = definitions.iter().filter_map(|it| match it {
        Definition::OperationDefinition(it) => it.selection_set(),
        _ => None,
    });
    let costs = operations.map(|set| fragments.cost(&set, 0));
    let most = costs.fold(Cost::default(), |most, it| Cost {
        depth: most.depth.max(it.depth),
        aliases: most.aliases.max(it.aliases),
        fields: most.fields.max(it.fields),
    });
    if fragments.spreads_itself {
        find("syntax", "a fragment spreads itself".into());
    }
    if most.depth > limits.max_depth.into() || fragments.too_deep {
        find("max_depth", format!("fields are nested deeper than {}", limits.max_depth));
    }
    if most.aliases > limits.max_aliases.into() {
        find("max_aliases", format!("there are more than {} aliases", limits.max_aliases));
    }
    if most.fields > limits.max_complexity.into() {
        find("max_complexity", format!("more than {} fields are asked for", limits.max_complexity));
    }
    if fragments.introspects && limits.introspection == Tolerance::Refuse {
        find("introspection", "the schema is asked for".into());
    }
    found
}

#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    depth: u64,
    aliases: u64,
    fields: u64,
}

#[derive(Default)]
struct Fragments {
    sets: HashMap<String, SelectionSet>,
    /// None while it is measured.
    known: HashMap<String, Option<Cost>>,
    spreads_itself: bool,
    too_deep: bool,
    introspects: bool,
}

impl Fragments {
    fn cost(&mut self, set: &SelectionSet, nesting: usize) -> Cost {
        let mut sum = Cost::default();
        if nesting > NESTING_MAX {
            self.too_deep = true;
            return sum;
        }
        for selection in set.selections() {
            let cost = match selection {
                Selection::Field(field) => {
                    let name = field.name().map(|name| name.syntax().text().to_string()).unwrap_or_default();
                    self.introspects |= matches!(name.trim(), "__schema" | "__type");
                    let within = field.selection_set().map(|set| self.cost(&set, nesting + 1)).unwrap_or_default();
                    Cost {
                        depth: within.depth.saturating_add(1),
                        aliases: within.aliases.saturating_add(field.alias().is_some().into()),
                        fields: within.fields.saturating_add(1),
                    }
                }
                Selection::InlineFragment(it) => {
                    it.selection_set().map(|set| self.cost(&set, nesting + 1)).unwrap_or_default()
                }
                Selection::FragmentSpread(it) => match it.fragment_name() {
                    Some(name) => self.fragment(name.syntax().text().to_string().trim(), nesting + 1),
                    None => Cost::default(),
                },
            };
            sum.depth = sum.depth.max(cost.depth);
            sum.aliases = sum.aliases.saturating_add(cost.aliases);
            sum.fields = sum.fields.saturating_add(cost.fields);
        }
        sum
    }

    fn fragment(&mut self, name: &str, nesting: usize) -> Cost {
        match self.known.get(name) {
            Some(Some(cost)) => return *cost,
            Some(None) => {
                self.spreads_itself = true;
                return Cost::default();
            }
            None => {}
        }
        let Some(set) = self.sets.get(name).cloned() else { return Cost::default() };
        self.known.insert(name.to_owned(), None);
        let cost = self.cost(&set, nesting);
        self.known.insert(name.to_owned(), Some(cost));
        cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> GraphqlPolicy {
        GraphqlPolicy { max_depth: 3, max_aliases: 2, max_complexity: 10, max_batch: 2, ..GraphqlPolicy::default() }
    }

    #[track_caller]
    fn check(query: &str, expected: &[&str]) {
        let found = measure(query, Place::Body, "", &limits());
        assert_eq!(found.iter().map(|it| it.rule).collect::<Vec<_>>(), expected, "{query}");
    }

    #[test]
    fn queries_are_measured_with_their_fragments_spread_out() {
        check("{ a { b { c } } }", &[]);
        check("query Q($x: Int = 1) { a(first: $x) @include(if: true) { ... on T { b } __typename } }", &[]);
        check("{ a { b { c { d } } } }", &["max_depth"]);
        check("{ a { ...F } } fragment F on T { b { c { d } } }", &["max_depth"]);
        check("{ x: a y: a z: a }", &["max_aliases"]);
        check("{ a { ...F } b { ...F } } fragment F on T { x: c y: c }", &["max_aliases"]);
        check("{ a b c d e f g h i j k }", &["max_complexity"]);
        check("query A { a } query B { b { c { d { e } } } }", &["max_depth"]);
        check("{ __schema { types { name } } }", &["introspection"]);
        check("{ a { ...F } } fragment F on T { ...G } fragment G on T { ...F }", &["syntax"]);
        check("{ a ", &["syntax"]);
        check("mutation { a(x: {y: [1, \"}\"]}) { b } }", &[]);
    }

    #[test]
    fn it_is_found_in_json_in_batches_and_in_the_query() {
        let of = |kind: &'static str, body: &str| {
            let headers =
                http::HeaderMap::from_iter([(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind))]);
            let found = super::check(&Media::of(&headers), body.as_bytes(), &limits());
            found.iter().map(|it| format!("{} {}", it.rule, it.pointer)).collect::<Vec<_>>()
        };
        const JSON: &str = "application/json";
        assert_eq!(of("application/graphql", "{ a { b { c { d } } } }"), ["max_depth "]);
        assert_eq!(
            of(JSON, r#"{"query": "{ __type(name: \"x\") { name } }", "variables": {"a": [1]}}"#),
            ["introspection /query"]
        );
        assert_eq!(of(JSON, r#"[{"query": "{ a }"}, {"query": "{ a"}]"#), ["syntax /1/query"]);
        assert_eq!(of(JSON, r#"[{"query": "{a}"}, {"query": "{a}"}, {"query": "{a}"}]"#), ["max_batch "]);
        assert_eq!(of(JSON, r#"{"extensions": {"persistedQuery": 1}}"#), [""; 0]);
        assert_eq!(of(JSON, "{"), ["syntax "]);
        let uri = |text: &str| super::check_head(&text.parse().unwrap(), &limits()).len();
        assert_eq!((uri("/g?x=1&query=%7Ba%7D"), uri("/g?query=%7B__schema%7Bx%7D%7D"), uri("/g")), (0, 1, 0));
        assert_eq!(uri("/g?qu%65ry=%7B__schema%7Bx%7D%7D"), 1);
        assert_eq!(of(JSON, r#"{"query": "{a}", "Query": "{ __schema { x } }"}"#), ["introspection /query"]);
        assert_eq!(of(JSON, r#"{"query": null}"#), [""; 0]);
    }

    #[test]
    fn huge_queries_cost_what_reading_them_costs() {
        // Each fragment spreads the next one twice: a trillion fields.
        let doubling: String =
            (0..40).map(|n| format!("fragment F{n} on T {{ ...F{} ...F{} }} ", n + 1, n + 1)).collect();
        check(&format!("{{ ...F0 }} {doubling} fragment F40 on T {{ a }}"), &["max_complexity"]);
        let chain: String = (0..3_000).map(|n| format!("fragment F{n} on T {{ ...F{} }} ", n + 1)).collect();
        check(&format!("{{ ...F0 }} {chain}"), &["max_complexity"]);
        let chain: String = (0..500).map(|n| format!("fragment F{n} on T {{ ...F{} }} ", n + 1)).collect();
        check(&format!("{{ ...F0 }} {chain}"), &["max_depth"]);
        check(&"{ a ".repeat(1_000), &["max_depth"]);
        check(&format!("{{ {} }}", "a ".repeat(50_000)), &["max_complexity"]);
        check(&format!("{{ a(x: {}) }}", "[".repeat(5_000)), &["max_depth"]);
        check(&"{ a ".repeat(100_000), &["max_complexity"]);
    }
}
