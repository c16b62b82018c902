//! Consumers, their groups, and what there is of their credentials. Keys and passwords are no configuration: they are told
//! with the command that takes them over.

use std::collections::BTreeSet;

use quorumgate_model::resource::Kind;
use serde_json::{Map, Value as Json, json};

use super::{Caller, Kong, META, Scope, reference};
use crate::cli::{
    convert::{common, out::plain, reader::Item},
    failure::Outcome,
};

/// Lists of credentials, at the top or in consumers, and what they are called in what is told.
const CREDENTIALS: [(&str, &str); 5] = [
    ("keyauth_credentials", "key"),
    ("basicauth_credentials", "Basic user"),
    ("hmacauth_credentials", "hmac-auth credential"),
    ("oauth2_credentials", "oauth2 credential"),
    ("mtls_auth_credentials", "client certificate"),
];

impl<'d> Kong<'d, '_> {
    /// Consumer groups, which are no groups of acls: they have names of their own.
    pub(super) fn groups(&mut self, document: &Item<'d>) -> Outcome {
        for it in document.list("consumer_groups")? {
            it.skip_fields(&META);
            it.skip_fields(&["tags"]);
            let Some(name) = it.text("name")? else { return Err(it.wrong("a consumer group with a name")) };
            for known in super::names(&it)? {
                self.tiers.insert(known, tier(&name));
            }
            for member in it.list("consumers")? {
                let member = if member.is_map() { reference_of(&member)? } else { member.as_text()? };
                self.members.entry(member).or_default().insert(tier(&name));
            }
            for plugin in it.list("plugins")? {
                self.collect_plugin(plugin, Scope::All, Some(Caller::Group(name.clone())))?;
            }
        }
        Ok(())
    }

    /// Who is in which group, where that is said apart.
    pub(super) fn members(&mut self, document: &Item<'d>) -> Outcome {
        for it in document.list("acls")? {
            it.skip_fields(&META);
            it.skip_fields(&["tags"]);
            if let (Some(consumer), Some(group)) = (reference(&it, "consumer")?, it.text("group")?) {
                self.members.entry(consumer).or_default().insert(group);
            }
        }
        for it in document.list("consumer_group_consumers")? {
            it.skip_fields(&META);
            it.skip_fields(&["tags"]);
            let (consumer, group) = (reference(&it, "consumer")?, reference(&it, "consumer_group")?);
            let (Some(consumer), Some(group)) = (consumer, group) else {
                return Err(it.wrong("a consumer and a consumer_group"));
            };
            let Some(tier) = self.tiers.get(&group).cloned() else {
                return Err(it.wrong("a consumer_group in the files"));
            };
            self.members.entry(consumer).or_default().insert(tier);
        }
        Ok(())
    }

    pub(super) fn consumers(&mut self, document: &Item<'d>) -> Outcome {
        for it in document.list("consumers")? {
            self.consumer(&it)?;
        }
        Ok(())
    }

    fn consumer(&mut self, it: &Item<'d>) -> Outcome {
        it.skip_fields(&META);
        let known = super::names(it)?;
        let custom = it.text("custom_id")?;
        let Some(called) = known.first().or(custom.as_ref()) else {
            return Err(it.wrong("a consumer with username or custom_id"));
        };
        if known.iter().any(|name| self.consumers.contains_key(name)) {
            return Err(it.wrong("each consumer once"));
        }
        let name = self.out.name(Kind::Consumer, called);
        if name != *called {
            it.differs(format!("it is called {name}, which is what servers are told (X-Consumer-Name)"));
        }
        let mut of: BTreeSet<String> =
            known.iter().filter_map(|name| self.members.get(name)).flatten().cloned().collect();
        for acl in it.list("acls")? {
            acl.skip_fields(&META);
            acl.skip_fields(&["tags"]);
            of.extend(acl.text("group")?);
        }
        for group in it.list("groups")? {
            let named = if group.is_map() { reference_of(&group)? } else { group.as_text()? };
            of.insert(self.tiers.get(&named).cloned().unwrap_or_else(|| tier(&named)));
        }
        let labels = common::labels(it, &["custom_id", "tags"])?;
        let mut words = Map::new();
        if !of.is_empty() {
            words.insert("groups".into(), json!(of));
        }
        if !labels.is_empty() {
            words.insert("labels".into(), Json::Object(labels));
        }
        for known in &known {
            self.consumers.insert(known.clone(), name.clone());
        }
        for plugin in it.list("plugins")? {
            self.collect_plugin(plugin, Scope::All, Some(Caller::Consumer(called.clone())))?;
        }
        self.consumers.insert(called.clone(), name.clone());
        self.out.put_named(Kind::Consumer, it, name.clone(), Json::Object(words));
        for (list, _) in CREDENTIALS {
            for credential in it.list(list)? {
                self.credential(&name, list, &credential);
            }
        }
        self.jwt_secrets.extend(it.list("jwt_secrets")?);
        Ok(())
    }

    /// Those that name their consumer.
    pub(super) fn loose_credentials(&mut self, document: &Item<'d>) -> Outcome {
        for (list, _) in CREDENTIALS {
            for it in document.list(list)? {
                let consumer = reference(&it, "consumer")?.unwrap_or_default();
                let name = self.consumers.get(&consumer).cloned().unwrap_or_else(|| plain(&consumer));
                self.credential(&name, list, &it);
            }
        }
        for it in document.list("jwt_secrets")? {
            reference(&it, "consumer")?;
            self.jwt_secrets.push(it);
        }
        Ok(())
    }

    fn credential(&mut self, consumer: &str, list: &'static str, it: &Item<'d>) {
        it.skip();
        let known = self.credentials.entry((consumer.to_owned(), list)).or_insert_with(|| (0, it.clone()));
        known.0 += 1;
    }

    pub(super) fn tell_credentials(&self) {
        for ((consumer, list), (count, it)) in &self.credentials {
            let what = CREDENTIALS.iter().find(|(other, _)| other == list).map_or(*list, |(_, what)| *what);
            let by_hand = match *list {
                "keyauth_credentials" => {
                    format!("take each over once the consumer is there: quorumgate key create {consumer} --key-file F")
                }
                "basicauth_credentials" => format!(
                    "once the consumer is there, for each: quorumgate key create {consumer} --basic-user NAME --password-file F"
                ),
                "mtls_auth_credentials" => {
                    "an auth of kind mtls says what in a certificate names the consumer".to_owned()
                }
                _ => format!("give the consumer a key instead: quorumgate key create {consumer}"),
            };
            it.left_out(format!("{count} × {what} of {consumer}: credentials are not configuration; {by_hand}"));
        }
    }
}

/// What a consumer group is called among the groups of a consumer.
pub(super) fn tier(name: &str) -> String {
    format!("tier.{name}")
}

fn reference_of(it: &Item<'_>) -> Outcome<String> {
    for field in ["username", "name", "id"] {
        if let Some(text) = it.text(field)? {
            it.skip();
            return Ok(text);
        }
    }
    Err(it.wrong("a consumer's username or id"))
}
