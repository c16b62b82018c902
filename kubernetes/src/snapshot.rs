//! Every object that is known, as one value that a translation reads.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::Deserialize;
use serde_json::Value;

use crate::api::{
    Id, Kind, Meta, Object,
    core::{ConfigMap, EndpointSlice, Namespace, Secret, Service},
};

/// Objects of one kind; a list that is longer is refused.
pub const OBJECTS_MAX: usize = 100_000;
const SLICE_SERVICE: &str = "kubernetes.io/service-name";

pub type Table<T> = BTreeMap<Id, Arc<T>>;

/// A clone shares the objects.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Of the Gateway API, by kind.
    pub objects: HashMap<Kind, Table<Object>>,
    pub services: Table<Service>,
    pub secrets: Table<Secret>,
    pub config_maps: Table<ConfigMap>,
    pub namespaces: Table<Namespace>,
    pub slices: Table<EndpointSlice>,
}

impl Snapshot {
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = (&Id, &Arc<Object>)> {
        self.objects.get(&kind).into_iter().flatten()
    }

    pub fn get(&self, kind: Kind, id: &Id) -> Option<&Arc<Object>> {
        self.objects.get(&kind)?.get(id)
    }

    /// The slices of each service.
    pub fn slices_by_service(&self) -> HashMap<Id, Vec<&EndpointSlice>> {
        let mut by_service: HashMap<Id, Vec<&EndpointSlice>> = HashMap::new();
        for slice in self.slices.values() {
            if let Some(service) = slice.metadata.labels.get(SLICE_SERVICE) {
                by_service.entry(Id::new(&slice.metadata.namespace, service)).or_default().push(slice);
            }
        }
        by_service
    }

    /// Puts an object in, or says why it cannot be read.
    pub fn put(&mut self, kind: Kind, object: Value) -> Result<(), String> {
        fn into<T: for<'de> Deserialize<'de>>(
            table: &mut Table<T>,
            object: Value,
            meta: fn(&T) -> &Meta,
        ) -> Result<(), String> {
            let object: T = serde_json::from_value(object).map_err(|error| error.to_string())?;
            let id = meta(&object).id();
            if table.len() >= OBJECTS_MAX && !table.contains_key(&id) {
                return Err(format!("there are more than {OBJECTS_MAX} of them"));
            }
            table.insert(id, Arc::new(object));
            Ok(())
        }
        match kind {
            Kind::Service => into(&mut self.services, object, |it| &it.metadata),
            Kind::EndpointSlice => into(&mut self.slices, object, |it| &it.metadata),
            Kind::Secret => into(&mut self.secrets, object, |it| &it.metadata),
            Kind::ConfigMap => into(&mut self.config_maps, authorities_alone(object), |it| &it.metadata),
            Kind::Namespace => into(&mut self.namespaces, object, |it| &it.metadata),
            _ => into(self.objects.entry(kind).or_default(), object, |it| &it.metadata),
        }
    }

    pub fn remove(&mut self, kind: Kind, id: &Id) {
        match kind {
            Kind::Service => drop(self.services.remove(id)),
            Kind::EndpointSlice => drop(self.slices.remove(id)),
            Kind::Secret => drop(self.secrets.remove(id)),
            Kind::ConfigMap => drop(self.config_maps.remove(id)),
            Kind::Namespace => drop(self.namespaces.remove(id)),
            _ => drop(self.objects.entry(kind).or_default().remove(id)),
        }
    }

    /// All of a kind at once, from a snapshot that has nothing else.
    pub fn replace(&mut self, kind: Kind, mut from: Snapshot) {
        match kind {
            Kind::Service => self.services = from.services,
            Kind::EndpointSlice => self.slices = from.slices,
            Kind::Secret => self.secrets = from.secrets,
            Kind::ConfigMap => self.config_maps = from.config_maps,
            Kind::Namespace => self.namespaces = from.namespaces,
            _ => drop(self.objects.insert(kind, from.objects.remove(&kind).unwrap_or_default())),
        }
    }
}

/// Of a ConfigMap, which may be large, what could be asked for.
fn authorities_alone(mut object: Value) -> Value {
    let ca = object["data"][ConfigMap::CA].take();
    if let Some(fields) = object.as_object_mut() {
        fields.retain(|name, _| name == "metadata");
        if ca.is_string() {
            fields.insert("data".into(), serde_json::json!({ ConfigMap::CA: ca }));
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_config_map_the_authority_is_kept() {
        let mut it = Snapshot::default();
        let meta = json!({ "name": "a", "namespace": "n" });
        it.put(Kind::ConfigMap, json!({ "metadata": meta, "data": { "ca.crt": "PEM", "big": "x" }, "binaryData": {} }))
            .unwrap();
        it.put(Kind::ConfigMap, json!({ "metadata": { "name": "b", "namespace": "n" } })).unwrap();
        let kept = &it.config_maps[&Id::new("n", "a")].data;
        assert_eq!(kept.iter().collect::<Vec<_>>(), [(&"ca.crt".to_owned(), &"PEM".to_owned())]);
        assert!(it.config_maps[&Id::new("n", "b")].data.is_empty());
        it.remove(Kind::ConfigMap, &Id::new("n", "a"));
        assert_eq!(it.config_maps.len(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_told_and_changes_nothing() {
        let mut it = Snapshot::default();
        it.put(Kind::Service, json!({ "metadata": { "name": "a", "namespace": "n" }, "spec": {} })).unwrap();
        assert!(it.put(Kind::Service, json!({ "metadata": { "name": "b" }, "spec": { "ports": 7 } })).is_err());
        assert_eq!(it.services.len(), 1);
    }
}
