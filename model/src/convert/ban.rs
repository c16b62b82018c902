//! Bans, as they are stored.

use std::{sync::Arc, time::Duration};

use prost::Message;
use quorumgate_proto::store::v1 as store;

use super::command::words::micros;
use crate::{
    ban::{Ban, BanSubject},
    command::{AddBans, LiftBans, NewBan},
    digest::Digest,
    invalid::Invalid,
};

/// What the entry adds to the sum of its keyspace: BLAKE3 of its stored form.
pub(crate) fn hash(it: &Ban) -> Digest {
    Digest::of(&to(it).encode_to_vec())
}

pub(crate) fn to(it: &Ban) -> store::BanRecord {
    store::BanRecord {
        subject: it.subject.to_string(),
        expires_at_us: it.expires_at_us,
        index: it.index,
        wall_ms: it.wall_ms,
        reason: it.reason.to_string(),
        actor: it.actor.to_string(),
    }
}

pub(crate) fn from(it: store::BanRecord) -> Result<Ban, Invalid> {
    Ok(Ban {
        subject: it.subject.parse().map_err(|why: Invalid| why.under("ban"))?,
        expires_at_us: it.expires_at_us,
        index: it.index,
        wall_ms: it.wall_ms,
        reason: it.reason.into(),
        actor: it.actor.into(),
    })
}

pub(super) fn add_to(it: &AddBans) -> store::AddBans {
    let ban = |it: &NewBan| store::NewBan { subject: it.subject.to_string(), ttl_us: micros(it.ttl) };
    store::AddBans { bans: it.bans.iter().map(ban).collect(), reason: it.reason.clone() }
}

pub(super) fn add_from(it: store::AddBans) -> Result<AddBans, Invalid> {
    let ban = |(at, it): (usize, store::NewBan)| {
        let subject = it.subject.parse().map_err(|why: Invalid| why.under(format!("bans[{at}]")))?;
        Ok(NewBan { subject, ttl: Duration::from_micros(it.ttl_us) })
    };
    let bans = it.bans.into_iter().enumerate().map(ban).collect::<Result<_, Invalid>>()?;
    Ok(AddBans { bans, reason: it.reason })
}

pub(super) fn lift_to(it: &LiftBans) -> store::LiftBans {
    store::LiftBans { subjects: it.subjects.iter().map(ToString::to_string).collect(), reason: it.reason.clone() }
}

pub(super) fn lift_from(it: store::LiftBans) -> Result<LiftBans, Invalid> {
    let subjects: Result<Arc<[BanSubject]>, Invalid> = it.subjects.iter().map(|text| text.parse()).collect();
    Ok(LiftBans { subjects: subjects?, reason: it.reason })
}
