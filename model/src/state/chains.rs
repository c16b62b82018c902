//! The heads of the chains that nodes keep for themselves, as the cluster has seen them last: a node that rewrites its own
//! chain contradicts what the others know of it.

use super::{AuditHead, ERASED_MAX, State, apply::Done};
use crate::{
    NodeId,
    command::{NoteChain, Reason, Rejected},
    digest::Digest,
    mutants::{self, Mutant},
};

/// What a node keeps a chain of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChainKind {
    /// Admin calls that it refused.
    Denials,
    /// Admin calls that it let in.
    Access,
}

impl ChainKind {
    pub const ALL: [ChainKind; 2] = [ChainKind::Denials, ChainKind::Access];

    /// `denials`
    pub fn word(self) -> &'static str {
        match self {
            ChainKind::Denials => "denials",
            ChainKind::Access => "access",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

impl State {
    /// Leaves no entry in the audit trail: it comes each minute.
    pub(super) fn note_chain(&mut self, it: &NoteChain) -> Result<Done, Rejected> {
        if !self.nodes.contains_key(&it.node) {
            return Err(Reason::NotFound.because(format!("no node has the id {}", it.node)));
        }
        let key = (it.node, it.kind);
        if let Some(known) =
            self.chains.get(&key).filter(|known| known.count > it.head.count && !mutants::is(Mutant::ChainGetsShorter))
        {
            let word = it.kind.word();
            return Err(Reason::Conflict.because(format!(
                "the chain of {word} of node {} had {} entries and has {} now",
                it.node, known.count, it.head.count
            )));
        }
        self.chains.insert(key, it.head);
        Ok(Done::default())
    }

    pub(super) fn erase_actor(&mut self, actor: Digest) -> Result<Done, Rejected> {
        self.erased.insert(actor, self.wall_ms);
        while self.erased.len() > ERASED_MAX {
            let (oldest, _) = self.erased.iter().min_by_key(|(_, at)| **at).expect("it is longer than its bound");
            let oldest = *oldest;
            self.erased.remove(&oldest);
        }
        Ok(Done::changed("an actor erased from the trails of accesses".into()))
    }

    pub(super) fn forget_chains_of(&mut self, node: NodeId) {
        for kind in ChainKind::ALL {
            self.chains.remove(&(node, kind));
        }
    }

    pub fn chain(&self, node: NodeId, kind: ChainKind) -> Option<AuditHead> {
        self.chains.get(&(node, kind)).copied()
    }
}
