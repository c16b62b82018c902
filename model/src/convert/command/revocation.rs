//! Revocations between model and the stored form.

use std::{sync::Arc, time::Duration};

use prost::Message;
use quorumgate_proto::store::v1 as store;

use super::words::*;
use crate::{
    command::{NewRevocation, Revoke},
    digest::Digest,
    invalid::Invalid,
    revocation::{Revocation, RevocationNote, Selector},
};

/// What the entry adds to the sum of its keyspace: BLAKE3 of its stored form and of its note's.
pub(crate) fn revocation_hash(it: &Revocation) -> Digest {
    let mut bytes = Vec::with_capacity(256);
    revocation_to(it).encode_length_delimited(&mut bytes).expect("a Vec grows as needed");
    note_to(&it.note).encode(&mut bytes).expect("a Vec grows as needed");
    Digest::of(&bytes)
}

pub(crate) fn revocation_to(it: &Revocation) -> store::RevocationRecord {
    store::RevocationRecord {
        selector: it.selector.bytes().to_vec(),
        expires_at_us: it.expires_at_us,
        not_before_s: it.not_before_s,
        note: it.note.index,
    }
}

/// `note` is the one of the index that the record names.
pub(crate) fn revocation_from(it: store::RevocationRecord, note: Arc<RevocationNote>) -> Result<Revocation, Invalid> {
    Ok(Revocation {
        selector: Selector::from_bytes(&it.selector)?,
        expires_at_us: it.expires_at_us,
        not_before_s: it.not_before_s,
        note,
    })
}

pub(crate) fn note_to(it: &RevocationNote) -> store::RevocationNote {
    let RevocationNote { index, wall_ms, reason, actor } = it.clone();
    store::RevocationNote { index, wall_ms, reason, actor }
}

pub(crate) fn note_from(it: store::RevocationNote) -> RevocationNote {
    RevocationNote { index: it.index, wall_ms: it.wall_ms, reason: it.reason, actor: it.actor }
}

pub(super) fn revoke_to(it: &Revoke) -> store::Revoke {
    let entry = |it: &NewRevocation| store::NewRevocation {
        selector: it.selector.bytes().to_vec(),
        ttl_us: micros(it.ttl),
        not_before_s: it.not_before_s,
    };
    store::Revoke { entries: it.entries.iter().map(entry).collect(), reason: it.reason.clone() }
}

pub(super) fn revoke_from(it: store::Revoke) -> Result<Revoke, Invalid> {
    let entry = |(at, it): (usize, store::NewRevocation)| {
        Ok(NewRevocation {
            selector: Selector::from_bytes(&it.selector).map_err(|why| why.under(format!("entries[{at}]")))?,
            ttl: Duration::from_micros(it.ttl_us),
            not_before_s: it.not_before_s,
        })
    };
    let entries = it.entries.into_iter().enumerate().map(entry).collect::<Result<_, Invalid>>()?;
    Ok(Revoke { entries, reason: it.reason })
}
