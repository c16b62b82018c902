//! The key that secrets are sealed under is replaced: introduced and written down by every node, then it seals, then what
//! was sealed before is sealed anew, then the old one is gone.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    ClusterFacts, OtherCa, PendingChange, State, TicketKey, apply::Done,
    secrets::SEALED_BYTES_MAX as SEALED_KEY_BYTES_MAX,
};
use crate::{
    command::{Reason, Rejected, Resealed, ResourceChange, RotateSealingKey},
    invalid::Invalid,
    resource::{Key, Kind, Resource, Resources, SEALED_BYTES_MAX, Stored},
    sealed::key_number,
};

/// How many secrets one command seals anew.
pub const RESEALED_MAX: usize = 64;
/// Whose objects have secrets.
pub const SECRETIVE: [Kind; 3] = [Kind::Auth, Kind::Certificate, Kind::Policy];

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sealing {
    /// Of the key that seals: the index of its introduction, 0 for the one that the cluster was founded with.
    pub number: u64,
    pub rotation: Option<Arc<SealingRotation>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealingRotation {
    pub stage: SealingStage,
    /// The number of the key that does not seal.
    pub other: u64,
    /// The new key, sealed under the old one.
    pub sealed_key: Arc<[u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealingStage {
    /// The other one is to seal next.
    Introduced,
    /// The other one sealed before.
    Replaced,
}

impl Sealing {
    /// The number of the newest key.
    pub fn newest(&self) -> u64 {
        match self.rotation.as_deref() {
            Some(SealingRotation { stage: SealingStage::Introduced, other, .. }) => *other,
            _ => self.number,
        }
    }

    /// The numbers of the keys that every node needs.
    pub fn needs(&self, number: u64) -> bool {
        number == self.number || self.rotation.as_ref().is_some_and(|it| it.other == number)
    }

    /// Nothing new may be sealed under a key that is gone, or that some node may not have.
    pub(super) fn check(&self, sealed: &[u8]) -> Result<(), Rejected> {
        let number = key_number(sealed);
        let before = |it: &Arc<SealingRotation>| it.stage == SealingStage::Replaced && it.other == number;
        if number == self.number || self.rotation.as_ref().is_some_and(before) {
            return Ok(());
        }
        let message = "a secret is sealed under a key that has been replaced: try again, or give the secret itself";
        Err(Reason::Conflict.because(message))
    }

    /// The field of a secret that `check` refuses.
    pub(super) fn outdated(&self, resource: &Resource) -> Option<String> {
        let gone = |bytes: &Arc<[u8]>| self.check(bytes).is_err();
        resource.secrets().into_iter().find(|(_, secret)| secret.bytes().is_some_and(gone)).map(|(field, _)| field)
    }
}

impl State {
    pub(super) fn rotate_sealing_key(&mut self, it: &RotateSealingKey) -> Result<Done, Rejected> {
        let Some(rotation) = self.sealing.rotation.clone() else {
            let RotateSealingKey::Introduce { sealed_key } = it else {
                return Err(Reason::NotFound.because("the sealing key is not being replaced"));
            };
            check_length("sealed_key", sealed_key.len(), SEALED_KEY_BYTES_MAX)?;
            self.sealing.check(sealed_key)?;
            let (stage, sealed_key) = (SealingStage::Introduced, sealed_key.clone());
            self.sealing.rotation = Some(Arc::new(SealingRotation { stage, other: self.index, sealed_key }));
            return Ok(Done::changed("a new sealing key introduced: it does not seal yet".into()));
        };
        match (it, rotation.stage) {
            (RotateSealingKey::Introduce { .. }, _) => {
                Err(Reason::AlreadyExists.because("the sealing key is being replaced already"))
            }
            (RotateSealingKey::Abandon, SealingStage::Introduced) => {
                self.sealing.rotation = None;
                Ok(Done::changed("the new sealing key given up before it sealed".into()))
            }
            (RotateSealingKey::Abandon, SealingStage::Replaced) => {
                Err(Reason::Conflict.because("the new sealing key seals already: it can only be gone on with"))
            }
            (RotateSealingKey::Replace { number }, SealingStage::Introduced) if *number == rotation.other => {
                let before = SealingRotation {
                    stage: SealingStage::Replaced,
                    other: self.sealing.number,
                    sealed_key: rotation.sealed_key.clone(),
                };
                self.sealing = Sealing { number: *number, rotation: Some(Arc::new(before)) };
                Ok(Done::changed("the sealing key replaced: what the old one has sealed is sealed anew".into()))
            }
            (RotateSealingKey::Reseal { number, resealed }, SealingStage::Replaced)
                if *number == self.sealing.number =>
            {
                self.reseal(resealed)
            }
            (RotateSealingKey::End { number, nodes_upto }, SealingStage::Replaced)
                if *number == self.sealing.number =>
            {
                if let Some(late) = self.nodes.values().find(|node| node.id > *nodes_upto) {
                    let message = format!("node {} was not asked whether it holds the new sealing key", late.name);
                    return Err(Reason::Conflict.because(message));
                }
                let left = self.sealed_before();
                if left > 0 {
                    return Err(Reason::Conflict.because(format!("{left} secrets are sealed under the old key")));
                }
                self.sealing.rotation = None;
                Ok(Done::changed("the old sealing key is gone".into()))
            }
            _ => Err(Reason::Conflict.because("the sealing key is at another step of its replacement")),
        }
    }

    /// How many secrets are sealed under another key than the one that seals.
    pub fn sealed_before(&self) -> usize {
        let number = self.sealing.number;
        self.all_sealed().filter(|bytes| key_number(bytes) != number).count()
    }

    /// Everything that is sealed.
    pub fn all_sealed(&self) -> impl Iterator<Item = &[u8]> {
        let cas = self.cluster.iter().map(|it| &it.sealed_ca_key).chain(self.other_ca.iter().map(|it| &it.sealed_key));
        let own = self.secrets.values().chain(self.ticket_keys.iter().map(|it| &it.sealed));
        let prior = self.trial.iter().flat_map(|it| secretive(&it.prior));
        let resources = secretive(&self.resources).chain(prior).map(|(_, it)| &it.resource);
        let resources = resources.chain(self.pending_objects()).flat_map(Resource::secrets);
        cas.map(|it| &**it)
            .chain(own.map(|it| &**it))
            .chain(resources.filter_map(|(_, secret)| secret.bytes().map(|it| &**it)))
    }

    /// What changes that wait would write.
    pub fn pending_objects(&self) -> impl Iterator<Item = &Resource> {
        self.pending.values().flat_map(|it| it.change.changes.iter()).filter_map(|it| it.after.as_ref())
    }

    /// Nothing that anybody sees changes: neither fingerprints nor etags nor the revision.
    fn reseal(&mut self, resealed: &[Resealed]) -> Result<Done, Rejected> {
        crate::resource::check::count("resealed", resealed.len(), RESEALED_MAX)?;
        for one in resealed {
            check_length("resealed.after", one.after.len(), SEALED_BYTES_MAX)?;
            if key_number(&one.after) != self.sealing.number {
                return Err(Invalid::field("resealed.after").found("another key").allowed("the one that seals").into());
            }
        }
        let anew = Anew(resealed.iter().map(|it| (&*it.before, &it.after)).collect());
        let left = self.sealed_before();
        if let Some(facts) = &self.cluster
            && let Some(key) = anew.of(&facts.sealed_ca_key)
        {
            self.cluster = Some(Arc::new(ClusterFacts { sealed_ca_key: key.to_vec(), ..ClusterFacts::clone(facts) }));
        }
        if let Some(other) = &self.other_ca
            && let Some(key) = anew.of(&other.sealed_key)
        {
            self.other_ca = Some(Arc::new(OtherCa { sealed_key: key.to_vec(), ..OtherCa::clone(other) }));
        }
        for (name, sealed) in self.secrets.clone() {
            if let Some(after) = anew.of(&sealed) {
                self.secrets.insert(name, after.clone());
            }
        }
        for key in self.ticket_keys.iter_mut() {
            if let Some(sealed) = anew.of(&key.sealed).cloned() {
                *key = Arc::new(TicketKey { sealed, ..TicketKey::clone(key) });
            }
        }
        self.resources = anew.within(&self.resources);
        if let Some(trial) = &mut self.trial {
            trial.prior = anew.within(&trial.prior);
        }
        for (id, pending) in self.pending.clone() {
            self.pending.insert(id, anew.pending(pending));
        }
        match left - self.sealed_before() {
            0 => Ok(Done::noop()),
            count => Ok(Done::changed(format!("{count} secrets sealed anew"))),
        }
    }
}

/// By what was there before.
struct Anew<'a>(BTreeMap<&'a [u8], &'a Arc<[u8]>>);

impl Anew<'_> {
    fn of(&self, before: &[u8]) -> Option<&Arc<[u8]>> {
        self.0.get(before).copied()
    }

    /// An object that is not there yet has no etag to keep.
    fn pending(&self, mut pending: Arc<PendingChange>) -> Arc<PendingChange> {
        let is_concerned = |it: &ResourceChange| {
            let secrets = it.after.iter().flat_map(Resource::secrets);
            secrets.filter_map(|(_, it)| it.bytes()).any(|it| self.of(it).is_some())
        };
        if !pending.change.changes.iter().any(is_concerned) {
            return pending;
        }
        let mut changes = pending.change.changes.to_vec();
        for (_, secret) in changes.iter_mut().filter_map(|it| it.after.as_mut()).flat_map(Resource::secrets_mut) {
            if let Some(anew) = secret.bytes().and_then(|bytes| self.of(bytes)).cloned() {
                secret.seal_anew(anew, None);
            }
        }
        Arc::make_mut(&mut pending).change.changes = changes.into();
        pending
    }

    fn within(&self, resources: &Resources) -> Resources {
        let mut after = resources.clone();
        for (key, stored) in secretive(resources) {
            let concerned =
                stored.resource.secrets().iter().any(|(_, it)| it.bytes().is_some_and(|it| self.of(it).is_some()));
            if !concerned {
                continue;
            }
            let mut stored = stored.clone();
            for (_, secret) in stored.resource.secrets_mut() {
                if let Some(anew) = secret.bytes().and_then(|bytes| self.of(bytes)).cloned() {
                    secret.seal_anew(anew, Some(stored.etag));
                }
            }
            after.insert(key.clone(), stored);
        }
        after
    }
}

fn check_length(field: &str, bytes: usize, max: usize) -> Result<(), Invalid> {
    match (1..=max).contains(&bytes) {
        true => Ok(()),
        false => Err(Invalid::field(field).found(format!("{bytes} bytes")).allowed(format!("1 to {max} bytes"))),
    }
}

/// Without a look at the others, of which there may be a million.
fn secretive(resources: &Resources) -> impl Iterator<Item = (&Key, &Stored)> {
    SECRETIVE.into_iter().flat_map(|kind| {
        let first = Key { kind, name: "0".parse().expect("the least of all names is one") };
        resources.range(first..).take_while(move |(key, _)| key.kind == kind)
    })
}
