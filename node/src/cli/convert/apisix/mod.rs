//! Configuration of APISIX: `apisix.yaml` of its standalone mode, or what its Admin API answers.

mod matching;
mod plugins;
mod routes;
mod upstreams;

use std::collections::HashMap;

use quorumgate_model::resource::Kind;
use serde_json::{Map, Value as Json, json};

use super::{common, out::Out, reader::Item};
use crate::cli::failure::{Failure, Outcome};

/// What says nothing of what a gateway does.
const META: [&str; 6] = ["id", "create_time", "update_time", "createdIndex", "modifiedIndex", "key"];
/// The lists that are read.
const LISTS: [&str; 8] =
    ["routes", "services", "upstreams", "consumers", "consumer_groups", "plugin_configs", "global_rules", "ssls"];
/// Those whose objects others name by their ids.
const NAMED: [&str; 3] = ["services", "upstreams", "plugin_configs"];
/// Plugins of consumers that say what they prove who they are with.
const CREDENTIALS: [&str; 6] = ["key-auth", "basic-auth", "jwt-auth", "hmac-auth", "ldap-auth", "wolf-rbac"];

struct Apisix<'d, 'o> {
    out: &'o mut Out<'d>,
    lists: HashMap<&'static str, Vec<Item<'d>>>,
    /// Where in its list the first of an id is.
    by_id: HashMap<(&'static str, String), usize>,
    /// Our names of consumers by theirs.
    consumers: HashMap<String, String>,
    /// Server names that are shown only to clients with certificates.
    certified: Vec<String>,
    /// Consumers, by our names, that no route lets in.
    shut_out: Vec<String>,
}

pub fn convert<'d>(documents: &[Item<'d>], out: &mut Out<'d>) -> Outcome {
    let mut it = Apisix {
        out,
        lists: HashMap::new(),
        by_id: HashMap::new(),
        consumers: HashMap::new(),
        certified: Vec::new(),
        shut_out: Vec::new(),
    };
    for document in documents {
        it.collect(document)?;
    }
    for list in NAMED {
        for (place, item) in it.lists.get(list).into_iter().flatten().enumerate() {
            if let Some(id) = item.text("id")? {
                it.by_id.entry((list, id)).or_insert(place);
            }
        }
    }
    if it.lists.values().all(Vec::is_empty) {
        let lists = LISTS.join(", ");
        return Err(Failure::usage(format!(
            "found none of the lists of APISIX; allowed: apisix.yaml with one of {lists}, or what the Admin API answers"
        )));
    }
    for ssl in it.all("ssls") {
        it.certificate(&ssl)?;
    }
    let groups = it.groups()?;
    for consumer in it.all("consumers") {
        it.consumer(&consumer, &groups)?;
    }
    it.routes()
}

/// Of an object of the Admin API: `/apisix/routes/7`.
fn list_of(key: &str) -> Option<&'static str> {
    let mut parts = key.rsplit('/');
    parts.next()?;
    let list = parts.next()?;
    LISTS.into_iter().find(|it| *it == list || (list == "ssl" && *it == "ssls"))
}

impl<'d> Apisix<'d, '_> {
    fn all(&self, list: &str) -> Vec<Item<'d>> {
        self.lists.get(list).cloned().unwrap_or_default()
    }

    fn collect(&mut self, document: &Item<'d>) -> Outcome {
        document.skip_fields(&["total", "createdIndex", "modifiedIndex", "plugins"]);
        for list in LISTS {
            for it in document.list(list)? {
                self.lists.entry(list).or_default().push(it);
            }
        }
        // What the Admin API answers: one object, or a list of them; older ones say node and nodes.
        let node = document.map("node")?;
        if let Some(node) = &node {
            node.skip_fields(&["dir", "createdIndex", "modifiedIndex"]);
        }
        let mut wrapped = document.list("list")?;
        if let Some(node) = node {
            wrapped.extend(node.list("nodes")?);
            wrapped.extend(node.get("value").is_some().then_some(node));
        }
        wrapped.extend(document.get("value").is_some().then(|| document.clone()));
        for it in wrapped {
            it.skip_fields(&["createdIndex", "modifiedIndex"]);
            let key = it.text("key")?.unwrap_or_default();
            let (Some(list), Some(value)) = (list_of(&key), it.map("value")?) else {
                it.left_out(format!("objects such as {key:?} are not read"));
                it.skip();
                continue;
            };
            self.lists.entry(list).or_default().push(value);
        }
        Ok(())
    }

    fn find(&self, list: &'static str, id: &str) -> Option<Item<'d>> {
        let place = self.by_id.get(&(list, id.to_owned()))?;
        self.lists.get(list)?.get(*place).cloned()
    }

    /// Plugins of groups, by the group's id; they are those of their consumers.
    fn groups(&mut self) -> Outcome<HashMap<String, Item<'d>>> {
        let mut groups = HashMap::new();
        for it in self.all("consumer_groups") {
            it.skip_fields(&["create_time", "update_time", "desc", "labels"]);
            groups.insert(it.text("id")?.unwrap_or_default(), it);
        }
        Ok(groups)
    }

    fn consumer(&mut self, it: &Item<'d>, groups: &HashMap<String, Item<'d>>) -> Outcome {
        it.skip_fields(&META);
        let Some(username) = it.text("username")? else { return Err(it.wrong("a consumer with username")) };
        let name = self.out.name(Kind::Consumer, &username);
        if name != username {
            it.differs(format!("it is called {name}, which is what servers are told (X-Consumer-Name)"));
        }
        self.consumers.insert(username, name.clone());
        let mut words = Map::new();
        let labels = common::labels(it, &["labels"])?;
        if !labels.is_empty() {
            words.insert("labels".into(), Json::Object(labels));
        }
        if let Some(text) = it.text("desc")? {
            words.insert("description".into(), json!(text));
        }
        if let Some(group) = it.text("group_id")? {
            words.insert("groups".into(), json!([group]));
            match groups.get(&group) {
                Some(group) => {
                    if let Some(plugins) = group.get("plugins") {
                        self.consumer_plugins(&name, &plugins)?;
                    }
                }
                None => {
                    self.shut_out.push(name.clone());
                    it.closed(format!(
                        "its group is not in the files, and plugins of that may keep it out: the consumer {name} is let in nowhere; see to \
                         it by hand"
                    ));
                }
            }
        }
        self.out.put_named(Kind::Consumer, it, name.clone(), Json::Object(words));
        if let Some(plugins) = it.map("plugins")? {
            self.consumer_plugins(&name, &plugins)?;
        }
        for credential in it.list("credentials")? {
            credential.skip_fields(&META);
            credential.skip_fields(&["name", "desc", "labels"]);
            if let Some(plugins) = credential.map("plugins")? {
                self.consumer_plugins(&name, &plugins)?;
            }
        }
        Ok(())
    }

    fn consumer_plugins(&mut self, consumer: &str, plugins: &Item<'d>) -> Outcome {
        for (name, config) in plugins.members() {
            config.skip();
            let by_hand = match name {
                "key-auth" => format!("take the key over: quorumgate key create {consumer} --key-file F"),
                "basic-auth" => {
                    format!("take the user over: quorumgate key create {consumer} --basic-user NAME --password-file F")
                }
                _ if CREDENTIALS.contains(&name) => {
                    format!("give the consumer a key instead: quorumgate key create {consumer}")
                }
                _ if plugins::is_built_in(name) => continue,
                _ if plugins::is_harmless(name) || plugins::is_limit(name) => {
                    config.left_out(
                        "a plugin of one consumer: limits can be of those of a plan (plan of the consumer, plans of the limit)",
                    );
                    continue;
                }
                _ => {
                    self.shut_out.push(consumer.to_owned());
                    config.closed(format!(
                        "a plugin of one consumer, which may keep it out: the consumer {consumer} is let in nowhere; see to it by hand"
                    ));
                    continue;
                }
            };
            config.left_out(format!("a credential of {consumer} is not configuration; {by_hand}"));
        }
        Ok(())
    }

    fn certificate(&mut self, it: &Item<'d>) -> Outcome {
        it.skip_fields(&META);
        it.skip_fields(&["labels", "type", "validity_start", "validity_end"]);
        let mut hosts = it.texts("snis")?;
        hosts.extend(it.text("sni")?);
        if it.int("status")? == Some(0) {
            it.note("it is not enabled, and left out");
            it.skip();
            return Ok(());
        }
        if let Some(client) = it.get("client") {
            client.skip();
            client.closed(
                "clients had to have a certificate: routes of these hosts let nobody in; name its authority by client_ca of a \
                 listener, and take the rule not-converted away",
            );
            match hosts.is_empty() {
                true => self.certified.push("*".into()),
                false => self.certified.extend(hosts.iter().cloned()),
            }
        }
        for field in ["certs", "keys", "ssl_protocols"] {
            if let Some(other) = it.get(field) {
                other.skip();
                other.left_out("a certificate has one key and the protocols are the node's; write others by hand");
            }
        }
        let wanted = hosts.first().map_or_else(|| "certificate".into(), |host| host.replace('*', "any"));
        let (chain, key) = (it.text("cert")?.unwrap_or_default(), it.get("key"));
        let key = key.map(|it| it.as_text()).transpose()?.unwrap_or_default();
        let words = json!({ "hosts": hosts, "chain": chain, "key": format!("plain:{key}") });
        let name = self.out.put(Kind::Certificate, it, &wanted, words);
        it.note(format!(
            "its private key is in what is written, and sealed when that is applied; listeners show it once they name it: \
             listeners: [{{ name: https, address: \"0.0.0.0:443\", certificates: [{name}] }}]"
        ));
        Ok(())
    }
}
