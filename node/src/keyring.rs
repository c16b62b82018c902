//! The cluster's keys on this node, as the state says which there are: a new one is opened and written down, one that
//! nothing is sealed under any more is forgotten.

use std::{
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
};

use anyhow::Context;
use quorumgate_model::state::State;

use crate::pki::{self, Keys};

/// What a new key is sealed for, under the one before.
const PURPOSE: &str = "sealing key";

pub struct Keyring {
    file: PathBuf,
    in_memory: RwLock<Keys>,
    /// The numbers of those that are in the file.
    on_disk: RwLock<Vec<u64>>,
}

impl Keyring {
    pub fn read(data_dir: &Path) -> anyhow::Result<Self> {
        let file = data_dir.join(pki::CLUSTER_KEY);
        let keys = Keys::from_bytes(&pki::read_private(&file)?)?;
        let on_disk = RwLock::new(keys.numbers());
        Ok(Self { file, in_memory: RwLock::new(keys), on_disk })
    }

    /// The keys as this state has them. A new one that it tells of is known from then on.
    pub fn at(&self, state: &State) -> Keys {
        let known = self.in_memory.read().unwrap_or_else(PoisonError::into_inner).clone();
        let known = match opened(&known, state) {
            None => known,
            Some(Ok(more)) => {
                let mut keys = self.in_memory.write().unwrap_or_else(PoisonError::into_inner);
                *keys = keys.and(&more);
                keys.clone()
            }
            Some(Err(error)) => {
                tracing::debug!(error = format!("{error:#}"), "the new sealing key is not opened");
                known
            }
        };
        known.sealing_by(state.sealing.number)
    }

    /// Writes down what this state has and the file has not.
    pub fn keep(&self, state: &State) -> anyhow::Result<()> {
        let keys = self.at(state);
        if let Some(missing) = opened(&keys, state) {
            missing.context("the new sealing key cannot be opened on this node")?;
        }
        match keys.numbers() == self.on_disk() {
            true => Ok(()),
            false => self.write(&keys),
        }
    }

    /// Whether there are keys that this state is done with. One of a later state than this is none of them.
    pub fn has_outlived(&self, state: &State) -> bool {
        let known = self.in_memory.read().unwrap_or_else(PoisonError::into_inner).numbers();
        known.iter().chain(&self.on_disk()).any(|number| outlived(*number, state))
    }

    /// Forgets them, in the file first.
    pub fn forget(&self, state: &State) -> anyhow::Result<()> {
        let keys = self.at(state).keeping(|number| !outlived(number, state));
        self.write(&keys)?;
        *self.in_memory.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    pub fn on_disk(&self) -> Vec<u64> {
        self.on_disk.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn write(&self, keys: &Keys) -> anyhow::Result<()> {
        pki::write_private(&self.file, &keys.to_bytes())?;
        *self.on_disk.write().unwrap_or_else(PoisonError::into_inner) = keys.numbers();
        Ok(())
    }
}

/// A new key, sealed for the state.
pub fn introduced(keys: &Keys) -> anyhow::Result<Vec<u8>> {
    keys.seal(PURPOSE, pki::ClusterKey::generate()?.bytes())
}

/// `keys` with the newest one of the state; None where it is among them, or the state is behind them.
pub fn opened(keys: &Keys, state: &State) -> Option<anyhow::Result<Keys>> {
    let rotation = state.sealing.rotation.as_ref()?;
    let newest = state.sealing.newest();
    if keys.get(newest).is_some() || keys.is_past(&rotation.sealed_key) {
        return None;
    }
    let open = || {
        let key = pki::ClusterKey::from_bytes(&keys.open(PURPOSE, &rotation.sealed_key)?)?;
        Ok(keys.with(key.numbered(newest)))
    };
    Some(open())
}

/// Every key has the index of its introduction for a number: the state has seen it come, and has seen it go.
fn outlived(number: u64, state: &State) -> bool {
    state.cluster.is_some() && number <= state.index && !state.sealing.needs(number)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use quorumgate_model::state::{ClusterFacts, Sealing, SealingRotation, SealingStage};

    use super::*;
    use crate::pki::ClusterKey;

    fn state(index: u64, number: u64, rotation: Option<(SealingStage, u64, &[u8])>) -> State {
        let rotation = rotation.map(|(stage, other, sealed_key)| {
            Arc::new(SealingRotation { stage, other, sealed_key: sealed_key.into() })
        });
        let facts = ClusterFacts {
            id: [1; 16],
            name: "c".into(),
            max_rtt: Default::default(),
            ca_certificate: Vec::new(),
            sealed_ca_key: Vec::new(),
            level: 5,
        };
        let cluster = Some(Arc::new(facts));
        State { index, cluster, sealing: Sealing { number, rotation }, ..State::default() }
    }

    fn first(dir: &Path) -> Keyring {
        pki::write_private(&dir.join(pki::CLUSTER_KEY), ClusterKey::generate().unwrap().bytes()).unwrap();
        Keyring::read(dir).unwrap()
    }

    #[test]
    fn a_key_comes_is_written_down_seals_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let keyring = first(dir.path());
        let file = || std::fs::read(dir.path().join(pki::CLUSTER_KEY)).unwrap();
        let (founded, old) = (state(5, 0, None), file());
        keyring.keep(&founded).unwrap();
        assert_eq!(
            (file().len(), keyring.has_outlived(&founded)),
            (32, false),
            "as it was before there could be others"
        );
        let before = keyring.at(&founded).seal("a", b"secret").unwrap();

        let sealed_key = introduced(&keyring.at(&founded)).unwrap();
        let introduced = state(9, 0, Some((SealingStage::Introduced, 9, &sealed_key)));
        keyring.keep(&introduced).unwrap();
        assert_eq!(keyring.on_disk(), [0, 9]);
        assert_eq!(keyring.at(&introduced).seal("a", b"").unwrap()[0], before[0], "it does not seal yet");

        // After a restart, and in a node that was away until then.
        let replaced = state(12, 9, Some((SealingStage::Replaced, 0, &sealed_key)));
        for keyring in [&Keyring::read(dir.path()).unwrap(), &keyring] {
            let keys = keyring.at(&replaced);
            assert_eq!(keys.open("a", &before).unwrap(), b"secret");
            assert_eq!(keys.open("a", &keys.seal("a", b"new").unwrap()).unwrap(), b"new");
            assert!(!keyring.has_outlived(&replaced));
        }
        let away = tempfile::tempdir().unwrap();
        pki::write_private(&away.path().join(pki::CLUSTER_KEY), &old).unwrap();
        let late = Keyring::read(away.path()).unwrap();
        let after = keyring.at(&replaced).seal("a", b"late").unwrap();
        assert_eq!(late.at(&replaced).open("a", &after).unwrap(), b"late");

        let ended = state(20, 9, None);
        assert!(keyring.has_outlived(&ended));
        keyring.forget(&ended).unwrap();
        assert_eq!((keyring.on_disk(), keyring.has_outlived(&ended)), (vec![9], false));
        assert!(!file().windows(32).any(|it| it == old));
        let keys = keyring.at(&ended);
        assert!(keys.open("a", &before).is_err() && keys.is_past(&before) && !keys.is_past(&after));
        assert_eq!(Keyring::read(dir.path()).unwrap().at(&ended).open("a", &after).unwrap(), b"late");
    }

    #[test]
    fn a_joiner_keeps_a_key_that_its_state_has_yet_to_hear_of() {
        let dir = tempfile::tempdir().unwrap();
        let keyring = first(dir.path());
        let newer = keyring.at(&state(5, 0, None)).with(ClusterKey::generate().unwrap().numbered(9));
        pki::write_private(&dir.path().join(pki::CLUSTER_KEY), &newer.to_bytes()).unwrap();
        let joined = Keyring::read(dir.path()).unwrap();
        for behind in [State::default(), state(5, 0, None)] {
            joined.keep(&behind).unwrap();
            assert_eq!((joined.on_disk(), joined.has_outlived(&behind)), (vec![0, 9], false));
        }
        // One that was given up was heard of, and is needed no more.
        assert!(joined.has_outlived(&state(11, 0, None)));
        joined.forget(&state(11, 0, None)).unwrap();
        assert_eq!(joined.on_disk(), [0]);
    }
}
