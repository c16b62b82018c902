//! Where each object stands in a request, so that a complaint of the state about `routes/orders.upstream` becomes one
//! about `routes[3].upstream`, which the CLI maps to a file and a line.

use std::collections::HashMap;

use quorumgate_model::{
    command::{Applied, Rejected},
    convert,
    resource::Key,
};
use quorumgate_proto::admin::v1::{ConfigSet, ResourceRef};
use tonic::Status;

use crate::admin::{
    desk::{self, Written},
    failure,
};

/// `routes/orders` → `routes[3]`
#[derive(Debug, Default)]
pub struct Places(HashMap<String, String>);

impl Places {
    pub fn of(config: &ConfigSet, deleted: &[ResourceRef]) -> Self {
        let mut places = HashMap::new();
        for (at, it) in deleted.iter().enumerate() {
            let Ok(kind) = convert::kind_from(it.kind) else { continue };
            places.insert(format!("{}/{}", kind.list(), it.name), format!("delete[{at}]"));
        }
        for (kind, names) in convert::names_of(config) {
            for (at, name) in names.into_iter().enumerate() {
                places.insert(format!("{}/{name}", kind.list()), format!("{}[{at}]", kind.list()));
            }
        }
        Self(places)
    }

    /// A request with one object in a field of its own.
    pub fn one(key: &Key, field: &str) -> Self {
        Self(HashMap::from([(word(key), field.to_owned())]))
    }

    pub fn place(&self, key: &Key) -> String {
        let word = word(key);
        self.0.get(&word).cloned().unwrap_or(word)
    }

    /// The field path as the request has it. Names may hold dots: the longest known one counts.
    pub fn locate(&self, field: &str) -> String {
        let ends = field.char_indices().filter(|(_, c)| matches!(c, '.' | '[')).map(|(at, _)| at);
        let ends = ends.chain([field.len()]);
        let known = |end: usize| self.0.get(&field[..end]).map(|place| format!("{place}{}", &field[end..]));
        ends.filter_map(known).next_back().unwrap_or_else(|| field.to_owned())
    }

    pub fn rejected(&self, rejected: &Rejected) -> Status {
        let field = self.locate(&rejected.field);
        let message = rejected.message.replacen(&rejected.field, &field, usize::from(!rejected.field.is_empty()));
        failure::rejected(&Rejected { reason: rejected.reason, field, message })
    }

    pub fn written(&self, applied: &Applied) -> Result<Written, Status> {
        match &applied.outcome {
            Ok(_) => desk::written(applied),
            Err(rejected) => Err(self.rejected(rejected)),
        }
    }
}

fn word(key: &Key) -> String {
    format!("{}/{}", key.kind.list(), key.name)
}

#[cfg(test)]
mod tests {
    use quorumgate_proto::admin::v1::{Kind, Route};

    use super::*;

    fn check(field: &str, expected: &str) {
        let route = |name: &str| Route { name: name.into(), ..Route::default() };
        let config = ConfigSet { routes: vec![route("a"), route("a.b")], ..ConfigSet::default() };
        let gone = ResourceRef { kind: Kind::Upstream.into(), name: "old".into() };
        assert_eq!(Places::of(&config, &[gone]).locate(field), expected);
    }

    #[test]
    fn a_complaint_about_an_object_becomes_one_about_a_field() {
        check("routes/a", "routes[0]");
        check("routes/a.upstream", "routes[0].upstream");
        check("routes/a.b", "routes[1]");
        check("routes/a.b.match.hosts[0]", "routes[1].match.hosts[0]");
        check("upstreams/old", "delete[0]");
        check("routes/other.upstream", "routes/other.upstream");
        check("message", "message");
        check("", "");
    }
}
