//! The ledger's commands and records between model and prost.

use std::{sync::Arc, time::Duration};

use quorumgate_proto::store::v1::{
    self as store, ledger_calendar::Every as Cycle, ledger_command::Command as Wire, ledger_rule,
};

use super::command::words::{self, array, name, present};
use crate::{
    command::{GrantBonus, ResetLimit},
    invalid::Invalid,
    ledger::{
        Epoch, Held, Ledger, Limit, Lowered, Period, Pool, Relief, RestBefore, Schedule, Seat, Session, Wall,
        command::{
            Dated, Key, Kind, LeaseBatch, LeaseItem, LedgerCommand, Mode, NoQuorum, OpenSession, Rule, SessionId,
        },
    },
    resource::Every,
};

pub(super) fn command_from(message: store::LedgerCommand) -> Result<LedgerCommand, Invalid> {
    let command =
        message.command.ok_or_else(|| Invalid::field("ledger").found("an unknown kind").allowed("a known command"))?;
    Ok(match command {
        Wire::DefineLimit(it) => LedgerCommand::DefineLimit(rule_from(it)?),
        Wire::RemoveLimit(it) => LedgerCommand::RemoveLimit { name: name("name", &it.name)? },
        Wire::OpenSession(it) => LedgerCommand::OpenSession(OpenSession {
            node: it.node,
            boot: array("boot", &it.boot)?,
            open: it.open,
            length_us: it.length_us,
        }),
        Wire::Batches(it) => {
            LedgerCommand::Batches(it.batches.into_iter().map(batch_from).collect::<Result<Arc<[_]>, _>>()?)
        }
        Wire::Tick(store::LedgerTick {}) => LedgerCommand::Tick,
        Wire::ShareEpoch(it) => LedgerCommand::ShareEpoch { divisor: it.divisor },
        Wire::RetireNode(it) => LedgerCommand::RetireNode { node: it.node },
        Wire::RollPeriod(it) => LedgerCommand::RollPeriod { limit: it.limit, period: it.period, ends_us: it.ends_us },
        Wire::Restore(it) => LedgerCommand::Restore {
            incarnation: array("incarnation", &it.incarnation)?,
            reset_budgets: it.reset_budgets,
        },
    })
}

pub(super) fn command_to(command: &LedgerCommand) -> store::LedgerCommand {
    let command = match command {
        LedgerCommand::DefineLimit(it) => Wire::DefineLimit(rule_to(it)),
        LedgerCommand::RemoveLimit { name } => Wire::RemoveLimit(store::LedgerRemoveLimit { name: name.to_string() }),
        LedgerCommand::OpenSession(it) => Wire::OpenSession(store::LedgerOpenSession {
            node: it.node,
            boot: it.boot.into(),
            open: it.open,
            length_us: it.length_us,
        }),
        LedgerCommand::Batches(it) => {
            Wire::Batches(store::LedgerBatches { batches: it.iter().map(batch_to).collect() })
        }
        LedgerCommand::Tick => Wire::Tick(store::LedgerTick {}),
        LedgerCommand::ShareEpoch { divisor } => Wire::ShareEpoch(store::LedgerShareEpoch { divisor: *divisor }),
        LedgerCommand::RetireNode { node } => Wire::RetireNode(store::LedgerRetireNode { node: *node }),
        LedgerCommand::RollPeriod { limit, period, ends_us } => {
            Wire::RollPeriod(store::LedgerRollPeriod { limit: *limit, period: *period, ends_us: *ends_us })
        }
        LedgerCommand::Restore { incarnation, reset_budgets } => {
            Wire::Restore(store::LedgerRestore { incarnation: (*incarnation).into(), reset_budgets: *reset_budgets })
        }
    };
    store::LedgerCommand { command: Some(command) }
}

pub(super) fn reset_from(it: store::ResetLimit) -> Result<ResetLimit, Invalid> {
    Ok(ResetLimit { limit: name("limit", &it.limit)?, key: it.key.map(Arc::from), reason: it.reason })
}

pub(super) fn reset_to(it: &ResetLimit) -> store::ResetLimit {
    let key = it.key.as_ref().map(ToString::to_string);
    store::ResetLimit { limit: it.limit.to_string(), key, reason: it.reason.clone() }
}

pub(super) fn bonus_from(it: store::GrantBonus) -> Result<GrantBonus, Invalid> {
    Ok(GrantBonus {
        limit: name("limit", &it.limit)?,
        key: it.key.into(),
        amount: it.amount,
        lasts: it.lasts_us.map(Duration::from_micros),
        reason: it.reason,
    })
}

pub(super) fn bonus_to(it: &GrantBonus) -> store::GrantBonus {
    store::GrantBonus {
        limit: it.limit.to_string(),
        key: it.key.to_string(),
        amount: it.amount,
        lasts_us: it.lasts.map(words::micros),
        reason: it.reason.clone(),
    }
}

/// For the peers' wire as well: what a node sends to the leader.
pub fn batch_from(it: store::LeaseBatch) -> Result<LeaseBatch, Invalid> {
    Ok(LeaseBatch {
        node: it.node,
        session: it.session,
        seq: it.seq,
        attempt: it.attempt,
        applied: it.applied,
        items: it.items.into_iter().map(item_from).collect::<Result<_, _>>()?,
        wall_ahead_us: it.wall_ahead_us,
    })
}

pub fn batch_to(it: &LeaseBatch) -> store::LeaseBatch {
    store::LeaseBatch {
        node: it.node,
        session: it.session,
        seq: it.seq,
        attempt: it.attempt,
        applied: it.applied,
        items: it.items.iter().map(item_to).collect(),
        wall_ahead_us: it.wall_ahead_us,
    }
}

fn item_from(it: store::LeaseItem) -> Result<LeaseItem, Invalid> {
    let dated = |it: store::SlotsAt| Dated { in_us: it.at_us, count: it.count };
    Ok(LeaseItem {
        key: key_from(it.key)?,
        demand: it.demand,
        want: it.want,
        release_free: it.release_free,
        release_used: it.release_used.into_iter().map(dated).collect(),
        report: it.report.into_iter().map(dated).collect(),
        chunk_unused: it.chunk_unused,
        period: it.period,
        settle: it.settle,
        refund: it.refund,
        reserve: it.reserve,
        owed: it.owed,
    })
}

fn item_to(it: &LeaseItem) -> store::LeaseItem {
    let dated = |it: &Dated| store::SlotsAt { at_us: it.in_us, count: it.count };
    store::LeaseItem {
        key: Some(key_to(&it.key)),
        demand: it.demand,
        want: it.want,
        release_free: it.release_free,
        release_used: it.release_used.iter().map(dated).collect(),
        report: it.report.iter().map(dated).collect(),
        chunk_unused: it.chunk_unused,
        period: it.period,
        settle: it.settle,
        refund: it.refund,
        reserve: it.reserve,
        owed: it.owed,
    }
}

fn key_from(it: Option<store::LedgerKey>) -> Result<Key, Invalid> {
    let it = present("key", it)?;
    Ok(Key { limit: it.limit, who: it.who.into() })
}

fn key_to(it: &Key) -> store::LedgerKey {
    store::LedgerKey { limit: it.limit, who: it.who.to_string() }
}

fn rule_from(it: store::LedgerRule) -> Result<Rule, Invalid> {
    let unknown = |field: &str| Invalid::field(field).found("an unknown word").allowed("a known one");
    let kind = match it.kind.ok_or_else(|| unknown("rule.kind"))? {
        ledger_rule::Kind::Sliding(it) => Kind::Sliding { limit: it.limit, window_us: it.window_us },
        ledger_rule::Kind::Concurrency(it) => Kind::Concurrency { limit: it.limit, max_hold_us: it.max_hold_us },
        ledger_rule::Kind::Calendar(it) => {
            let every = Cycle::try_from(it.every).map_err(|_| unknown("rule.calendar.every"))?;
            Kind::Calendar { limit: it.limit, every: every_from(every) }
        }
        ledger_rule::Kind::Bucket(it) => Kind::Bucket { rate: it.rate, window_us: it.window_us, burst: it.burst },
    };
    let mode = match ledger_rule::Mode::try_from(it.mode).map_err(|_| unknown("rule.mode"))? {
        ledger_rule::Mode::Leased => Mode::Leased,
        ledger_rule::Mode::Exact => Mode::Exact,
    };
    let on_no_quorum = ledger_rule::NoQuorum::try_from(it.on_no_quorum).map_err(|_| unknown("rule.on_no_quorum"))?;
    let on_no_quorum = match on_no_quorum {
        ledger_rule::NoQuorum::Deny => NoQuorum::Deny,
        ledger_rule::NoQuorum::Reserve => NoQuorum::Reserve,
        ledger_rule::NoQuorum::Allow => NoQuorum::Allow,
    };
    Ok(Rule { name: name("rule.name", &it.name)?, kind, mode, on_no_quorum })
}

fn rule_to(it: &Rule) -> store::LedgerRule {
    let kind = match it.kind {
        Kind::Sliding { limit, window_us } => ledger_rule::Kind::Sliding(store::LedgerSliding { limit, window_us }),
        Kind::Concurrency { limit, max_hold_us } => {
            ledger_rule::Kind::Concurrency(store::LedgerConcurrency { limit, max_hold_us })
        }
        Kind::Calendar { limit, every } => {
            ledger_rule::Kind::Calendar(store::LedgerCalendar { limit, every: every_to(every).into() })
        }
        Kind::Bucket { rate, window_us, burst } => {
            ledger_rule::Kind::Bucket(store::LedgerBucket { rate, window_us, burst })
        }
    };
    let mode = match it.mode {
        Mode::Leased => ledger_rule::Mode::Leased,
        Mode::Exact => ledger_rule::Mode::Exact,
    };
    let on_no_quorum = match it.on_no_quorum {
        NoQuorum::Deny => ledger_rule::NoQuorum::Deny,
        NoQuorum::Reserve => ledger_rule::NoQuorum::Reserve,
        NoQuorum::Allow => ledger_rule::NoQuorum::Allow,
    };
    store::LedgerRule {
        name: it.name.to_string(),
        kind: Some(kind),
        mode: mode.into(),
        on_no_quorum: on_no_quorum.into(),
    }
}

fn every_from(it: Cycle) -> Every {
    match it {
        Cycle::Minute => Every::Minute,
        Cycle::Hour => Every::Hour,
        Cycle::Day => Every::Day,
        Cycle::Month => Every::Month,
    }
}

fn every_to(it: Every) -> Cycle {
    match it {
        Every::Minute => Cycle::Minute,
        Every::Hour => Cycle::Hour,
        Every::Day => Cycle::Day,
        Every::Month => Cycle::Month,
    }
}

/// None while no ledger command has been applied.
pub(crate) fn head_to(it: &Ledger) -> Option<store::LedgerHead> {
    (it.version > 0).then_some(store::LedgerHead {
        version: it.version,
        now_us: it.now_us,
        epoch_version: it.epoch.version,
        divisor: it.epoch.divisor,
        divisor_before: it.epoch.before,
        epoch_complete_us: it.epoch.complete_us,
        void_us: it.void_us,
        shares_version: it.shares_version,
        wall_ahead_us: it.wall.map_or(0, |it| it.ahead_us),
        wall_at_us: it.wall.map_or(0, |it| it.at_us),
        wall_hold_us: it.wall.map_or(0, |it| it.hold_us),
        void_wall_us: it.void_wall_us,
    })
}

pub(crate) fn head_from(it: store::LedgerHead) -> Ledger {
    let epoch = Epoch {
        version: it.epoch_version,
        divisor: it.divisor,
        before: it.divisor_before,
        complete_us: it.epoch_complete_us,
    };
    let wall = Wall { ahead_us: it.wall_ahead_us, at_us: it.wall_at_us, hold_us: it.wall_hold_us };
    Ledger {
        version: it.version,
        now_us: it.now_us,
        epoch,
        void_us: it.void_us,
        shares_version: it.shares_version,
        wall: (it.wall_ahead_us > 0).then_some(wall),
        void_wall_us: it.void_wall_us,
        ..Ledger::default()
    }
}

pub(crate) fn limit_to(it: &Limit) -> store::LedgerLimit {
    store::LedgerLimit {
        id: it.id,
        rule: Some(rule_to(&it.rule)),
        defined_us: it.defined_us,
        lowered_version: it.lowered.map_or(0, |it| it.version),
        lowered_from: it.lowered.map_or(0, |it| it.from),
        lowered_complete_us: it.lowered.and_then(|it| it.complete_us),
        removed_us: it.removed_us,
        broken: it.broken.clone(),
        period: it.period.map(|it| store::LedgerPeriod { number: it.number, ends_us: it.ends_us }),
        forgiven_period: it.forgiven_period,
        rests: it.rests.iter().map(|it| store::LedgerRest { until_us: it.until_us, rest_us: it.rest_us }).collect(),
        recycled: it.recycled,
    }
}

pub(crate) fn limit_from(it: store::LedgerLimit) -> Result<Limit, Invalid> {
    let lowered = Lowered { from: it.lowered_from, version: it.lowered_version, complete_us: it.lowered_complete_us };
    Ok(Limit {
        id: it.id,
        rule: rule_from(present("rule", it.rule)?)?,
        defined_us: it.defined_us,
        lowered: (it.lowered_version > 0).then_some(lowered),
        removed_us: it.removed_us,
        broken: it.broken,
        period: it.period.map(|it| Period { number: it.number, ends_us: it.ends_us }),
        forgiven_period: it.forgiven_period,
        rests: it.rests.into_iter().map(|it| RestBefore { until_us: it.until_us, rest_us: it.rest_us }).collect(),
        recycled: it.recycled,
    })
}

pub(crate) fn session_to(id: SessionId, it: &Session) -> store::LedgerSession {
    store::LedgerSession {
        id,
        node: it.node,
        boot: it.boot.into(),
        open: it.open,
        length_us: it.length_us,
        renewed_us: it.renewed_us,
        seq: it.seq,
        attempt: it.attempt,
        acked: it.acked,
        fenced: it.fenced,
        wall_ahead_us: it.wall_ahead_us,
    }
}

/// Without the count of its keys, which follows from the pools.
pub(crate) fn session_from(it: store::LedgerSession) -> Result<(SessionId, Session), Invalid> {
    let session = Session {
        node: it.node,
        boot: array("boot", &it.boot)?,
        open: it.open,
        length_us: it.length_us,
        renewed_us: it.renewed_us,
        seq: it.seq,
        attempt: it.attempt,
        acked: it.acked,
        fenced: it.fenced,
        wall_ahead_us: it.wall_ahead_us,
        keys: 0,
    };
    Ok((it.id, session))
}

pub(crate) fn seat_to(node: u64, it: &Seat) -> store::LedgerSeat {
    store::LedgerSeat { node, session: it.session, since_us: it.since_us, spent_us: it.spent_us, retired: it.retired }
}

pub(crate) fn seat_from(it: store::LedgerSeat) -> (u64, Seat) {
    (it.node, Seat { session: it.session, since_us: it.since_us, spent_us: it.spent_us, retired: it.retired })
}

pub(crate) fn pool_to(key: &Key, it: &Pool) -> store::LedgerPool {
    let held = |(session, it): &(SessionId, Held)| store::LedgerHeld {
        session: *session,
        slots: it.slots,
        demand: it.demand,
        want: it.want,
        report: schedule_to(&it.report),
        report_seq: it.report_seq,
        reserve: it.reserve,
        owed: it.owed,
    };
    store::LedgerPool {
        key: Some(key_to(key)),
        free: it.free,
        excess: it.excess,
        recycling: schedule_to(&it.recycling),
        quarantine: schedule_to(&it.quarantine),
        destroyed: schedule_to(&it.destroyed),
        holders: it.holders.iter().map(held).collect(),
        recalled_us: it.recalled_us,
        active_us: it.active_us,
        due_us: it.due_us,
        relief: it.relief.as_deref().map(|it| store::LedgerRelief {
            bonus: schedule_to(&it.bonus),
            reset_us: it.reset_us,
            reset_version: it.reset_version,
        }),
        spent: it.spent,
        burnt: it.burnt,
        period: it.period,
    }
}

pub(crate) fn pool_from(it: store::LedgerPool) -> Result<(Key, Pool), Invalid> {
    let held = |it: store::LedgerHeld| {
        let held = Held {
            slots: it.slots,
            demand: it.demand,
            want: it.want,
            report: schedule_from(it.report),
            report_seq: it.report_seq,
            reserve: it.reserve,
            owed: it.owed,
        };
        (it.session, held)
    };
    let holders: Vec<_> = it.holders.into_iter().map(held).collect();
    if !holders.is_sorted_by(|(a, _), (b, _)| a < b) {
        return Err(Invalid::field("holders").found("out of order").allowed("ascending, each once"));
    }
    let pool = Pool {
        free: it.free,
        excess: it.excess,
        recycling: schedule_from(it.recycling),
        quarantine: schedule_from(it.quarantine),
        destroyed: schedule_from(it.destroyed),
        holders,
        relief: it.relief.map(|it| {
            let bonus = schedule_from(it.bonus);
            Box::new(Relief { bonus, reset_us: it.reset_us, reset_version: it.reset_version })
        }),
        recalled_us: it.recalled_us,
        active_us: it.active_us,
        due_us: it.due_us,
        spent: it.spent,
        burnt: it.burnt,
        period: it.period,
    };
    Ok((key_from(it.key)?, pool))
}

fn schedule_to(it: &Schedule) -> Vec<store::SlotsAt> {
    it.entries().iter().map(|(at_us, count)| store::SlotsAt { at_us: *at_us, count: *count }).collect()
}

fn schedule_from(it: Vec<store::SlotsAt>) -> Schedule {
    let mut schedule = Schedule::default();
    for it in it {
        schedule.push(it.at_us, it.count);
    }
    schedule
}
