//! The stored form of every command, record and journal entry, byte for byte: what one release wrote the next must read.
//!
//! To add one: add its sample, run `GOLDEN=add cargo test -p quorumgate-model --test golden`, commit the new file. Files
//! that are there are never rewritten; one that no longer fits is a break of the format, not of the test.
#![allow(clippy::disallowed_methods, reason = "the wall is for the model; its tests read files")]

mod common;

use std::{collections::BTreeSet, fs, num::NonZeroU32, path::Path, sync::Arc};

use common::{command, credential_state, full_state, node, route, secs, upstream};
use prost::Message;
use prost_types::FileDescriptorSet;
use quorumgate_model::{
    command::{
        AddBans, Body, ChangeResources, Command, DecideChange, Expect, GrantBonus, HoldChange, LiftBans, NewBan,
        NewCredential, NodeRecord, NoteChain, PurgeCache, Refound, RefoundCause, Resealed, ResetLimit, ResourceChange,
        Role, RotateCa, RotateCredential, RotateSealingKey, RotateTicketKeys, Standing, TrialEnd, UpdateNode, Verdict,
    },
    convert,
    credential::Grants,
    digest::Digest,
    ledger::{
        Ledger,
        command::{
            Dated, Key as LedgerKey, Kind, LeaseBatch, LeaseItem, LedgerCommand, Mode, NoQuorum, OpenSession, Rule,
        },
    },
    purge::PurgeTarget,
    resource::{Every, Kind as ResourceKind},
    snapshot,
    state::{AuditHead, ChainKind, PendingChange, RevisionDiff, State},
};
use quorumgate_proto::{
    DESCRIPTORS,
    admin::v1 as admin,
    store::v1::{self as store, snapshot_record::Record},
};
use serde_json::json;

/// The bytes of the file `name`, which must be the sample's.
fn golden(name: &str, sample: &[u8]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.hex"));
    let hex = data_encoding::HEXLOWER.encode(sample);
    if !path.exists() && std::env::var_os("GOLDEN").is_some_and(|word| word == "add") {
        fs::write(&path, format!("{hex}\n")).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(hex, written.trim(), "the stored form of {name} has changed");
    sample.to_vec()
}

/// The field names of a message, from the descriptors.
fn fields(message: &str, oneof: bool) -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let file = set.file.iter().find(|file| file.package() == "quorumgate.store.v1").unwrap();
    let message = file.message_type.iter().find(|it| it.name() == message).unwrap();
    let fields = message.field.iter().filter(|field| field.oneof_index.is_some() == oneof);
    fields.map(|field| field.name().to_owned()).collect()
}

fn commands() -> Vec<Command> {
    let (_, mut commands) = full_state();
    let etag = Digest::of(b"etag");
    let rich = ChangeResources {
        changes: [
            ResourceChange { key: common::key("upstream/x"), after: None, expect: Expect::Etag(etag) },
            ResourceChange {
                key: common::key("route/a"),
                after: Some(route("a", "x", "/a", "team-a")),
                expect: Expect::Missing,
            },
            ResourceChange {
                key: common::key("upstream/y"),
                after: Some(upstream("y", 80, "")),
                expect: Expect::Anything,
            },
        ]
        .into(),
        expected_revision: Some(0),
        message: "why".into(),
        trial: Some(secs(30)),
        rollback_of: Some(7),
        ..ChangeResources::default()
    };
    let rest = [
        Body::ChangeResources(rich),
        Body::EndTrial { revision: 9, end: TrialEnd::Expire },
        Body::RemoveJoinToken { id: "t1".into() },
        Body::UpdateNode(UpdateNode {
            id: 5,
            standing: Some(Standing::Draining),
            wanted_role: Some(Role::Voter),
            peer_address: Some("n2.test:7001".into()),
            level: Some(2),
            version: Some("0.2.0".into()),
        }),
        Body::RemoveAdminToken { name: "ci".parse().unwrap() },
        Body::SetMaxRtt { max_rtt: secs(1) },
        Body::Refound(Arc::new(Refound {
            cluster_id: [5; 16],
            node: node(30, "n9", Role::Voter),
            cause: RefoundCause::Recovered,
            reset_budgets: false,
        })),
        Body::Tick,
        Body::ResetLimit(ResetLimit {
            limit: "free".parse().unwrap(),
            key: Some("acme".into()),
            reason: "an outage".into(),
        }),
        Body::GrantBonus(GrantBonus {
            limit: "free".parse().unwrap(),
            key: "acme".into(),
            amount: 50,
            lasts: Some(secs(60)),
            reason: "a launch".into(),
        }),
        purge(),
        bans(),
        Body::LiftBans(LiftBans { subjects: ["consumer:acme".parse().unwrap()].into(), reason: "a mistake".into() }),
        ticket_key(3),
        introduce(),
        resealing(),
        hold(),
        decide(),
        note(7),
        Body::EraseActor(Digest::of(b"ann")),
        Body::Ledger(LedgerCommand::Batches([batch()].into())),
    ];
    commands.extend(rest.into_iter().map(command));
    commands.extend(credential_state().1.split_off(2));
    commands
}

/// A key that somebody makes for himself, and its rotation.
fn of_a_portal() -> (Command, Command) {
    let grants = Grants { label: "the \u{fc}bung".into(), ..Grants::default() };
    let (keys_max, old) = (NonZeroU32::new(5), common::new_key("own", "acme"));
    let (id, overlap) = (old.id, secs(30));
    let (new_id, kind) = common::api_key("own, later");
    let new = NewCredential { grants: Some(Arc::new(grants)), ttl: Some(secs(60)), keys_max, ..old };
    let rotate = RotateCredential { id, new_id, kind, overlap, keys_max };
    (command(Body::CreateCredentials([new].into())), command(Body::RotateCredential(rotate)))
}

fn purge() -> Body {
    let targets = [
        PurgeTarget::Everything,
        PurgeTarget::key("api.test/a?b").unwrap(),
        PurgeTarget::prefix("api.test/a/").unwrap(),
        PurgeTarget::tag("red").unwrap(),
    ];
    Body::PurgeCache(PurgeCache { targets: targets.into(), reason: "a release".into() })
}

fn bans() -> Body {
    let ban = |text: &str, ttl| NewBan { subject: text.parse().unwrap(), ttl: secs(ttl) };
    let bans = [ban("203.0.113.0/24", 60), ban("consumer:acme", 600), ban("credential:0123", 1)];
    Body::AddBans(AddBans { bans: bans.into(), reason: "a walk through orders".into() })
}

fn ticket_key(newest: u64) -> Body {
    Body::RotateTicketKeys(RotateTicketKeys { sealed: b"sealed".as_slice().into(), newest })
}

fn introduce() -> Body {
    Body::RotateCa(RotateCa::Introduce {
        certificate: b"certificate".as_slice().into(),
        sealed_key: b"sealed".as_slice().into(),
    })
}

fn resealing() -> Body {
    let resealed = Resealed { before: b"sealed".as_slice().into(), after: b"anew".as_slice().into() };
    Body::RotateSealingKey(RotateSealingKey::Reseal { number: 9, resealed: [resealed].into() })
}

fn hold() -> Body {
    let change = ResourceChange { key: common::key("route/a"), after: None, expect: Expect::Etag(Digest::of(b"etag")) };
    let change = ChangeResources { changes: [change].into(), message: "why".into(), ..ChangeResources::default() };
    Body::HoldChange(HoldChange { change, ttl: secs(60) })
}

fn decide() -> Body {
    let verdict = Verdict::Approved {
        guardrails: Some(Digest::of(b"guardrails")),
        findings: ["guardrail a (warn): route/b".to_owned()].into(),
    };
    Body::DecideChange(DecideChange { id: 9, verdict, reason: "seen".into() })
}

fn introduce_sealing() -> Body {
    Body::RotateSealingKey(RotateSealingKey::Introduce { sealed_key: b"sealed".as_slice().into() })
}

fn note(node: u64) -> Body {
    let head = AuditHead { count: 12, hash: Digest::of(b"head") };
    Body::NoteChain(NoteChain { node, kind: ChainKind::Denials, head })
}

fn batch() -> LeaseBatch {
    let key = LedgerKey { limit: 1, who: "acme".into() };
    let item = LeaseItem {
        demand: 40_000,
        want: 3,
        release_free: 1,
        release_used: vec![Dated { in_us: 7_000_000, count: 2 }],
        report: vec![Dated { in_us: 9_000_000, count: 4 }],
        chunk_unused: 5,
        period: 6,
        ..LeaseItem::of(key)
    };
    LeaseBatch { node: 1, session: 3, seq: 2, attempt: 1, applied: 4, items: vec![item], wall_ahead_us: 0 }
}

/// A limit that was lowered, a session that holds slots, a seat, a key.
fn ledger_state() -> State {
    let (mut state, _) = full_state();
    let rule = |limit| {
        let kind = Kind::Sliding { limit, window_us: 60_000_000 };
        let name = "free".parse().unwrap();
        LedgerCommand::DefineLimit(Rule { name, kind, mode: Mode::Leased, on_no_quorum: NoQuorum::Allow })
    };
    let ledger = &mut state.ledger;
    *ledger = Ledger::default();
    ledger.apply(1, &rule(100));
    ledger.apply(2, &LedgerCommand::ShareEpoch { divisor: 1 });
    let open = OpenSession { node: 1, boot: [7; 16], open: 1, length_us: 5_000_000 };
    ledger.apply(3, &LedgerCommand::OpenSession(open));
    let ask = LeaseItem { release_used: Vec::new(), report: Vec::new(), release_free: 0, ..batch().items[0].clone() };
    let first = LeaseBatch { seq: 1, items: vec![ask], ..batch() };
    ledger.apply(4, &LedgerCommand::Batches([first].into()));
    ledger.apply(5, &LedgerCommand::Batches([batch()].into()));
    ledger.apply(6, &rule(90));
    state
}

#[test]
fn a_ledger_survives_its_records() {
    let state = ledger_state();
    let mut rebuild = snapshot::Rebuild::default();
    snapshot::records(&state).for_each(|record| rebuild.push(record).unwrap());
    assert_eq!(rebuild.finish().unwrap(), state);
    let mut orphan = snapshot::Rebuild::default();
    let kept = snapshot::records(&state).filter(|it| !matches!(it.record, Some(Record::LedgerSession(_))));
    kept.for_each(|record| orphan.push(record).unwrap());
    assert_eq!(orphan.finish().unwrap_err().field, "session");
}

#[test]
fn commands_are_stored_as_ever() {
    let mut seen = BTreeSet::new();
    // The last of each kind: it is the richest.
    for sample in commands().iter().rev() {
        if !seen.insert(sample.body.word().to_owned()) {
            continue;
        }
        let name = format!("command.{}", sample.body.word());
        let bytes = golden(&name, &convert::command_to(sample).encode_to_vec());
        let found = convert::command_from(store::Command::decode(&*bytes).unwrap()).unwrap();
        assert_eq!(found, *sample);
    }
    assert_eq!(seen, fields("Command", true), "a command without a sample");
    let governed = ChangeResources {
        bounded: true,
        guardrails: Some(Digest::of(b"guardrails")),
        findings: ["guardrail a (warn): route/b".to_owned()].into(),
        ..ChangeResources::default()
    };
    let governed = command(Body::ChangeResources(governed));
    let bytes = golden("command.change_resources.governed", &convert::command_to(&governed).encode_to_vec());
    assert_eq!(convert::command_from(store::Command::decode(&*bytes).unwrap()).unwrap(), governed);
    assert_eq!(governed.min_level, 3);
    let (made, rotated) = of_a_portal();
    for (name, sample) in [("create_credentials", made), ("rotate_credential", rotated)] {
        let bytes = golden(&format!("command.{name}.portal"), &convert::command_to(&sample).encode_to_vec());
        assert_eq!(convert::command_from(store::Command::decode(&*bytes).unwrap()).unwrap(), sample);
        assert_eq!(sample.min_level, 6);
    }
}

#[test]
fn snapshot_records_are_stored_as_ever() {
    let (state, _) = full_state();
    let word = |record: &Record| match record {
        Record::Head(_) => "head",
        Record::Resource(_) => "resource",
        Record::Revision(_) => "revision",
        Record::Node(_) => "node",
        Record::RemovedNode(_) => "removed_node",
        Record::JoinToken(_) => "join_token",
        Record::AdminToken(_) => "admin_token",
        Record::Dedup(_) => "dedup",
        Record::Trial(_) => "trial",
        Record::TrialPrior(_) => "trial_prior",
        Record::LedgerHead(_) => "ledger_head",
        Record::LedgerLimit(_) => "ledger_limit",
        Record::LedgerSession(_) => "ledger_session",
        Record::LedgerSeat(_) => "ledger_seat",
        Record::LedgerPool(_) => "ledger_pool",
        Record::Secret(_) => "secret",
        Record::Jwks(_) => "jwks",
        Record::Chain(_) => "chain",
        Record::ErasedActor(_) => "erased_actor",
        Record::TicketKey(_) => "ticket_key",
        Record::Purge(_) => "purge",
        Record::Ban(_) => "ban",
        Record::Pending(_) => "pending",
        Record::Credential(_) => "credential",
        Record::RevocationNote(_) => "revocation_note",
        Record::Revocation(_) => "revocation",
    };
    let mut seen = BTreeSet::new();
    let (second, _) = credential_state();
    golden("record.head.credentials", &snapshot::records(&second).next().unwrap().encode_to_vec());
    let third = ledger_state();
    let (mut fourth, _) = credential_state();
    fourth.apply(fourth.index + 1, &command(ticket_key(0))).0.outcome.unwrap();
    let node = *fourth.nodes.keys().next().unwrap();
    fourth.apply(fourth.index + 1, &command(note(node))).0.outcome.unwrap();
    let mut rotating = fourth.clone();
    rotating.apply(rotating.index + 1, &command(introduce())).0.outcome.unwrap();
    golden("record.head.rotating", &snapshot::records(&rotating).next().unwrap().encode_to_vec());
    for node in fourth.nodes.clone().values() {
        let newer = NodeRecord { level: 5, ..NodeRecord::clone(node) };
        rotating.nodes.insert(node.id, Arc::new(newer));
    }
    rotating.apply(rotating.index + 1, &command(introduce_sealing())).0.outcome.unwrap();
    let replace = RotateSealingKey::Replace { number: rotating.index };
    rotating.apply(rotating.index + 1, &command(Body::RotateSealingKey(replace))).0.outcome.unwrap();
    golden("record.head.resealing", &snapshot::records(&rotating).next().unwrap().encode_to_vec());
    let mut rebuild = snapshot::Rebuild::default();
    snapshot::records(&rotating).for_each(|record| rebuild.push(record).unwrap());
    assert_eq!(rebuild.finish().unwrap(), rotating);
    fourth.apply(fourth.index + 1, &command(purge())).0.outcome.unwrap();
    fourth.apply(fourth.index + 1, &command(bans())).0.outcome.unwrap();
    let Body::HoldChange(held) = hold() else { panic!() };
    let pending = PendingChange {
        id: fourth.index,
        actor: command(Body::Tick).actor,
        change: held.change,
        revision: fourth.revision,
        wall_ms: fourth.wall_ms,
        expires_at_us: fourth.clock_us + 60_000_000,
        token: None,
    };
    let asked_with = PendingChange { token: Some(Digest::of(b"secret")), ..pending.clone() };
    let mut with_token = fourth.clone();
    with_token.pending.insert(pending.id, Arc::new(asked_with));
    let record = snapshot::records(&with_token).find(|it| matches!(it.record, Some(Record::Pending(_)))).unwrap();
    golden("record.pending.token", &record.encode_to_vec());
    let mut rebuild = snapshot::Rebuild::default();
    snapshot::records(&with_token).for_each(|record| rebuild.push(record).unwrap());
    assert_eq!(rebuild.finish().unwrap(), with_token);
    fourth.pending.insert(pending.id, Arc::new(pending));
    fourth.apply(fourth.index + 1, &command(Body::EraseActor(Digest::of(b"ann")))).0.outcome.unwrap();
    let all = snapshot::records(&state).chain(snapshot::records(&third)).chain(snapshot::records(&second));
    let all = all.chain(snapshot::records(&fourth));
    for record in all {
        let word = word(record.record.as_ref().unwrap());
        if seen.insert(word.to_owned()) {
            let name = match word {
                "dedup" => "dedup.asked",
                "ledger_pool" => "ledger_pool.destroyed",
                word => word,
            };
            golden(&format!("record.{name}"), &record.encode_to_vec());
        }
    }
    assert_eq!(seen, fields("SnapshotRecord", true), "a record without a sample");
}

/// Before `destroyed`, what was destroyed in use was forgotten.
#[test]
fn an_older_pool_is_still_read() {
    let mut records: Vec<_> = snapshot::records(&ledger_state()).collect();
    let Some(Record::LedgerPool(pool)) = &mut records.last_mut().unwrap().record else { panic!("pools are last") };
    assert!(!pool.destroyed.is_empty());
    pool.destroyed.clear();
    golden("record.ledger_pool", &records.last().unwrap().encode_to_vec());
    let mut rebuild = snapshot::Rebuild::default();
    records.into_iter().for_each(|record| rebuild.push(record).unwrap());
    let state = rebuild.finish().unwrap();
    assert!(state.ledger.keys.values().all(|pool| pool.destroyed.is_empty()));
}

/// A key with a bonus, of a limit that was reset.
#[test]
fn what_was_given_and_forgiven_is_stored_as_ever() {
    let mut state = ledger_state();
    let key = LedgerKey { limit: 1, who: "acme".into() };
    state.ledger.reset_usage(7, 1, None).unwrap();
    state.ledger.grant_bonus(8, &key, 5, 60_000_000).unwrap();
    let records: Vec<_> = snapshot::records(&state).collect();
    golden("record.ledger_pool.relief", &records.last().unwrap().encode_to_vec());
    let mut rebuild = snapshot::Rebuild::default();
    records.into_iter().for_each(|record| rebuild.push(record).unwrap());
    let read = rebuild.finish().unwrap();
    assert_eq!(read.ledger.pool(&key), state.ledger.pool(&key));
}

/// What level 6 added to limits: debts of nodes, and limits whose window or cycle was edited while they were in use.
#[test]
fn what_nodes_owe_and_edits_of_limits_are_stored_as_ever() {
    let item = LeaseItem { settle: 7, refund: 8, reserve: 9, owed: 10, ..batch().items[0].clone() };
    let owes = LeaseBatch { items: vec![item], wall_ahead_us: 11, ..batch() };
    let change = ResourceChange { key: common::key("limit/free"), after: None, expect: Expect::Anything };
    let edit = ChangeResources { changes: [change].into(), keeps_counters: true, ..ChangeResources::default() };
    for (name, body) in [
        ("ledger.batches.owed", Body::Ledger(LedgerCommand::Batches([owes].into()))),
        ("command.change_resources.keeps_counters", Body::ChangeResources(edit)),
    ] {
        let sample = command(body);
        let bytes = golden(name, &convert::command_to(&sample).encode_to_vec());
        assert_eq!(convert::command_from(store::Command::decode(&*bytes).unwrap()).unwrap(), sample);
        assert_eq!(sample.min_level, 6);
    }
    let mut state = ledger_state();
    let rule = |kind| {
        let name = "free".parse().unwrap();
        Rule { name, kind, mode: Mode::Leased, on_no_quorum: NoQuorum::Allow }
    };
    let ask = LeaseItem { owed: 90, ..LeaseItem::of(LedgerKey { limit: 1, who: "acme".into() }) };
    let owes = LeaseBatch { seq: 3, items: vec![ask], ..batch() };
    state.ledger.apply(7, &LedgerCommand::Batches([owes].into()));
    for (at_us, window_us) in [(8, 30_000_000), (9, 45_000_000)] {
        state.ledger.edit_limit(at_us, &rule(Kind::Sliding { limit: 90, window_us }));
    }
    let mut recycled = ledger_state();
    recycled.ledger.edit_limit(7, &rule(Kind::Calendar { limit: 90, every: Every::Minute }));
    let says = LeaseBatch { seq: 3, items: Vec::new(), wall_ahead_us: 1_728_000_000_000_000, ..batch() };
    let id = recycled.ledger.version;
    let (period, ends_us) = (1_728_000_000, 1_728_000_060_000_000);
    recycled.ledger.apply(8, &LedgerCommand::Batches([says].into()));
    recycled.ledger.apply(9, &LedgerCommand::RollPeriod { limit: id, period, ends_us });
    recycled.ledger.edit_limit(10, &rule(Kind::Calendar { limit: 90, every: Every::Hour }));
    let is_pool: fn(&Record) -> bool =
        |record| matches!(record, Record::LedgerPool(it) if it.holders.iter().any(|it| it.owed > 0));
    let is_edited: fn(&Record) -> bool = |record| matches!(record, Record::LedgerLimit(it) if it.rests.len() == 2);
    let is_recycled: fn(&Record) -> bool = |record| matches!(record, Record::LedgerLimit(it) if it.recycled);
    let samples = [
        ("ledger_pool.owed", &state, is_pool),
        ("ledger_limit.edited", &state, is_edited),
        ("ledger_limit.recycled", &recycled, is_recycled),
    ];
    for (name, state, is_meant) in samples {
        let record = snapshot::records(state).find(|it| it.record.as_ref().is_some_and(is_meant));
        golden(&format!("record.{name}"), &record.expect("it is in the snapshot").encode_to_vec());
        let mut rebuild = snapshot::Rebuild::default();
        snapshot::records(state).for_each(|record| rebuild.push(record).unwrap());
        assert_eq!(rebuild.finish().unwrap(), *state);
    }
}

/// Before `asked`, an answered request was kept without what it asked for.
#[test]
fn an_older_answer_is_still_read() {
    let (state, _) = full_state();
    let mut records: Vec<_> = snapshot::records(&state).collect();
    let at = records.iter().position(|it| matches!(it.record, Some(Record::Dedup(_)))).unwrap();
    let Some(Record::Dedup(dedup)) = &mut records[at].record else { panic!("found above") };
    dedup.asked.clear();
    golden("record.dedup", &records[at].encode_to_vec());
    let mut rebuild = snapshot::Rebuild::default();
    records.into_iter().for_each(|record| rebuild.push(record).unwrap());
    let mut state = rebuild.finish().unwrap();
    let other = Command { request_id: Some([0; 16]), ..command(Body::Tick) };
    assert_eq!(state.apply(state.index + 1, &other).0.index, 1, "any repeat passes");
}

#[test]
fn what_was_asked_is_stored_as_ever() {
    let sample = Command { request_id: Some([3; 16]), asked: Some(Digest::of(b"asked")), ..command(Body::Tick) };
    let bytes = golden("command.asked", &convert::command_to(&sample).encode_to_vec());
    assert_eq!(convert::command_from(store::Command::decode(&*bytes).unwrap()).unwrap(), sample);
}

#[test]
fn the_journal_is_stored_as_ever() {
    let (mut state, _) = full_state();
    let (_, effects) = state.apply(20, &command(Body::EndTrial { revision: 0, end: TrialEnd::Abort }));
    let diff: RevisionDiff = effects.diff.unwrap();
    let bytes = golden("journal.revision_diff", &convert::diff_to(&diff).encode_to_vec());
    assert_eq!(convert::diff_from(store::RevisionDiff::decode(&*bytes).unwrap()).unwrap(), diff);
    let entry = effects.audit.unwrap();
    let bytes = golden("journal.audit", &convert::audit_to(&entry).encode_to_vec());
    assert_eq!(convert::audit_from(store::AuditRecord::decode(&*bytes).unwrap()).unwrap(), entry);
}

/// Each of the ledger's commands, in one file each.
#[test]
fn ledger_commands_are_stored_as_ever() {
    let name = || "free".parse().unwrap();
    let rule = |kind, mode, on_no_quorum| LedgerCommand::DefineLimit(Rule { name: name(), kind, mode, on_no_quorum });
    let samples = [
        ("sliding", rule(Kind::Sliding { limit: 9, window_us: 8 }, Mode::Exact, NoQuorum::Reserve)),
        ("concurrency", rule(Kind::Concurrency { limit: 9, max_hold_us: 8 }, Mode::Leased, NoQuorum::Deny)),
        ("calendar", rule(Kind::Calendar { limit: 9, every: Every::Minute }, Mode::Leased, NoQuorum::Allow)),
        ("bucket", rule(Kind::Bucket { rate: 9, window_us: 8, burst: 7 }, Mode::Leased, NoQuorum::Deny)),
        ("remove", LedgerCommand::RemoveLimit { name: name() }),
        ("open", LedgerCommand::OpenSession(OpenSession { node: 1, boot: [2; 16], open: 3, length_us: 4 })),
        ("tick", LedgerCommand::Tick),
        ("epoch", LedgerCommand::ShareEpoch { divisor: 5 }),
        ("retire", LedgerCommand::RetireNode { node: 6 }),
        ("roll", LedgerCommand::RollPeriod { limit: 7, period: 8, ends_us: 0 }),
        ("restore", LedgerCommand::Restore { incarnation: [9; 16], reset_budgets: false }),
    ];
    for (word, sample) in samples {
        let sample = command(Body::Ledger(sample));
        let bytes = golden(&format!("ledger.{word}"), &convert::command_to(&sample).encode_to_vec());
        assert_eq!(convert::command_from(store::Command::decode(&*bytes).unwrap()).unwrap(), sample);
    }
}

#[test]
fn resources_of_every_kind_are_stored_as_ever() {
    for (name, kind, words) in [
        (
            "route",
            ResourceKind::Route,
            json!({
                "name": "r", "upstream": "u", "match": { "path_template": "/u/{id}" },
                "auth": { "all_of": ["a", "b"], "anonymous": "c" },
                "authorize": [
                    { "name": "n", "deny": { "cel": "true", "cidrs": ["10.0.0.0/8"], "paths": ["/u"], "consumers": ["c"] } },
                    { "log": { "groups": ["g"], "scopes_any": ["s"] } },
                    { "allow": { "scopes_all": ["t"], "methods": ["GET"], "claims": { "k": ["v", "w"] },
                                 "params_equal": { "id": "jwt.sub" } } },
                ],
                "limits": ["l"],
            }),
        ),
        ("receiver", ResourceKind::Route, json!({ "name": "r", "respond": { "receiver": "jwks", "auth": "a" } })),
        ("upstream", ResourceKind::Upstream, json!({ "name": "u", "targets": ["a:1"], "auth": "b" })),
        ("consumer", ResourceKind::Consumer, json!({ "name": "c", "groups": ["g"], "plan": "p", "owner": "o" })),
        ("auth.api_key", ResourceKind::Auth, json!({ "name": "a", "api_key": { "query": "k" } })),
        (
            "auth.jwt",
            ResourceKind::Auth,
            json!({ "name": "a", "jwt": {
                "issuer": "i", "audience": ["x"], "jwks_inline": { "keys": [{ "kty": "EC" }] }, "consumer_claim": "azp",
                "groups_claim": "g", "typ": "at+jwt", "allow_private": true,
            } }),
        ),
        ("auth.mtls", ResourceKind::Auth, json!({ "name": "a", "mtls": { "ca": "c", "consumer_from": "subject" } })),
        ("auth.basic", ResourceKind::Auth, json!({ "name": "a", "basic": { "realm": "r" } })),
        (
            "auth.signature",
            ResourceKind::Auth,
            json!({ "name": "a", "signature": { "keys": [
                { "id": "k", "algorithm": "hmac-sha256", "secret": "sealed:0123456789abcdef", "consumer": "c" },
            ] } }),
        ),
        (
            "auth.introspection",
            ResourceKind::Auth,
            json!({ "name": "a", "introspection": {
                "endpoint": "https://i.test/", "client_id": "c", "client_secret": "sealed:0123456789abcdef",
                "on_error": "allow_cached", "consumer_claim": "sub",
            } }),
        ),
        (
            "auth.oidc_login",
            ResourceKind::Auth,
            json!({ "name": "a", "oidc_login": {
                "issuer": "https://i.test/", "client_id": "c", "client_secret": "sealed:0123456789abcdef",
            } }),
        ),
        (
            "auth.client_credentials",
            ResourceKind::Auth,
            json!({ "name": "a", "client_credentials": {
                "token_endpoint": "https://i.test/", "client_id": "c", "client_secret": "sealed:0123456789abcdef",
                "scopes": ["s"],
            } }),
        ),
        (
            "auth.upstream_key",
            ResourceKind::Auth,
            json!({ "name": "a", "upstream_key": { "header": "x-api-key", "scheme": "Key", "key": "sealed:0123456789abcdef" } }),
        ),
        (
            "certificate_authority",
            ResourceKind::CertificateAuthority,
            json!({
                "name": "c", "pem": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "crl": "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
            }),
        ),
        (
            "certificate",
            ResourceKind::Certificate,
            json!({
                "name": "c", "hosts": ["a.test", "*.b.test"], "key": "sealed:0123456789abcdef", "ocsp": "MAA=",
                "chain": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            }),
        ),
        (
            "listener.https",
            ResourceKind::Listener,
            json!({ "name": "l", "address": "0.0.0.0:8443", "certificates": ["c"], "client_ca": "ca",
                    "client_auth": "request", "http3": true, "proxy_protocol_from": ["10.0.0.0/8"],
                    "merge_slashes": false }),
        ),
        (
            "listener.tcp",
            ResourceKind::Listener,
            json!({ "name": "l", "address": "[::]:5432", "protocol": "tcp", "upstream": "u" }),
        ),
        (
            "policy.ip",
            ResourceKind::Policy,
            json!({ "name": "p", "ip": { "allow": ["10.0.0.0/8", "2001:db8::/32"], "deny": ["10.6.6.0/24"] } }),
        ),
        (
            "policy.ai",
            ResourceKind::Policy,
            json!({ "name": "p", "ai": { "provider": "anthropic", "max_tokens_default": 7, "max_tokens_max": 9, "strict": false,
                    "media_tokens": 5, "body_max": "1KiB", "prompt_deny": ["a+"], "prompt_messages_max": 3,
                    "response_deny": ["b"], "models": [{ "name": "small", "targets": [
                        { "model": "m/1", "upstream": "u", "weight": 3, "priority": 1, "input_price": 15, "output_price": 60 }] }] } }),
        ),
        (
            "policy.anomaly",
            ResourceKind::Policy,
            json!({ "name": "p", "anomaly": { "per": "ip", "v4_prefix": 24, "v6_prefix": 56, "window": "2m",
                    "over": { "requests": 1, "failures": 2, "objects": 3, "credentials": 4, "sequential": 5, "bytes_out": 6, "countries": 7 },
                    "object": "query.id", "failure_statuses": [401, 429], "action": "ban", "hold": "1h",
                    "exempt_cidrs": ["10.0.0.0/8"],
                    "webhook": { "url": "http://h.test:81/a?b", "secret": "sealed:0123456789abcdef", "allow_private": true } } }),
        ),
        (
            "policy.bot",
            ResourceKind::Policy,
            json!({ "name": "p", "bot": { "mode": "detect", "allow": ["^a"], "deny": ["b+"], "missing": "refuse", "scanners": "allow" } }),
        ),
        (
            "policy.mask",
            ResourceKind::Policy,
            json!({ "name": "p", "mask": { "fields": [{ "pointer": "/a/*", "with": "last4" }, { "pointer": "/**/b", "with": "remove" }],
                    "patterns": [{ "class": "card", "with": "last4" }, { "class": "email" }],
                    "headers": [{ "name": "X-Iban", "with": "last4" }, { "name": "x-b" }, { "name": "x-c", "with": "remove" }],
                    "unless": { "groups": ["g"], "scopes_any": ["s"] }, "body_max": "2KiB", "other_types": "allow" } }),
        ),
        (
            "policy.contract.parts",
            ResourceKind::Policy,
            json!({ "name": "p", "contract": { "schemas": { "A": {} }, "operations": [{ "method": "POST", "path": "/a",
                    "parameters": [{ "in": "query", "name": "q", "style": "deep_object", "schema": { "type": "object" } }],
                    "body": { "content": [
                        { "type": "multipart/form-data", "schema": true, "encoding": [{ "name": "f", "types": ["image/*", "a/b"] }] },
                        { "type": "application/x-www-form-urlencoded", "schema": true,
                          "encoding": [{ "name": "t", "style": "form", "explode": false }, { "name": "j", "style": "json" }] }] } }] } }),
        ),
        (
            "tenant",
            ResourceKind::Tenant,
            json!({ "name": "t", "owners": ["a", "b"], "hosts": ["a.test", "*.b.test"], "path_prefixes": ["/a"],
                    "quotas": { "upstreams": 1, "routes": 2, "consumers": 3, "auth": 4, "certificate_authorities": 5,
                                "limits": 6, "certificates": 7, "policies": 0 } }),
        ),
        (
            "guardrail",
            ResourceKind::Guardrail,
            json!({ "name": "g", "kinds": ["routes", "upstreams"], "require": "object.tls != null", "effect": "audit",
                    "message": "why", "except_owners": ["a"] }),
        ),
        (
            "limit.sliding",
            ResourceKind::Limit,
            json!({ "name": "l", "per": ["consumer", { "ip": 24 }], "limit": 5, "window": "1m", "soft": true,
                    "cost": { "response_header": "x", "reserve": 3 } }),
        ),
        (
            "limit.bucket",
            ResourceKind::Limit,
            json!({ "name": "l", "per": { "claim": "sub" }, "kind": "bucket", "rate": 5, "burst": 9,
                    "cost": { "ai_tokens": "total" } }),
        ),
        (
            "limit.calendar",
            ResourceKind::Limit,
            json!({ "name": "l", "per": "global", "kind": "calendar", "limit": 5, "every": "month", "zone": "Europe/Berlin",
                    "cost": { "request_header": "x" } }),
        ),
        (
            "limit.concurrency",
            ResourceKind::Limit,
            json!({ "name": "l", "per": "route", "kind": "concurrency", "limit": 5 }),
        ),
    ] {
        let resource = kind.parse(words).unwrap();
        let bytes = golden(&format!("resource.{name}"), &convert::resource_to(&resource).encode_to_vec());
        assert_eq!(convert::stored_resource_from(admin::Resource::decode(&*bytes).unwrap()).unwrap(), resource);
    }
}

/// What must stop consensus rather than be skipped.
#[test]
fn a_command_that_is_not_understood_is_an_error() {
    let good = convert::command_to(&command(Body::Tick));
    let check = |field: &str, change: &dyn Fn(&mut store::Command)| {
        let mut bad = good.clone();
        change(&mut bad);
        assert_eq!(convert::command_from(bad).unwrap_err().field, field);
    };
    check("min_level", &|it| it.min_level = quorumgate_model::LEVEL + 1);
    check("body", &|it| it.body = None);
    check("asked", &|it| it.asked = vec![1; 31]);
    check("request_id", &|it| it.request_id = vec![1; 15]);
    let body = |body| move |it: &mut store::Command| it.body = Some(body);
    let end = store::EndTrial { revision: 1, end: 9 };
    check("end", &|it| body(store::command::Body::EndTrial(end))(it));
    let update = |update: store::UpdateNode| store::command::Body::UpdateNode(update);
    check("standing", &|it| body(update(store::UpdateNode { standing: Some(0), ..Default::default() }))(it));
    check("role", &|it| body(update(store::UpdateNode { wanted_role: Some(3), ..Default::default() }))(it));
    let mut short = convert::node_to(&node(1, "n1", Role::Voter));
    short.spki_sha256.pop();
    let admit = store::AdmitNode { token_secret_hash: vec![0; 32], node: Some(short), ..Default::default() };
    check("node.spki_sha256", &|it| body(store::command::Body::AdmitNode(admit.clone()))(it));
    let change = store::ResourceChange {
        kind: 1,
        name: "x".into(),
        after: Some(convert::resource_to(&upstream("y", 80, ""))),
        expected_etag: None,
    };
    let changes = store::ChangeResources { changes: vec![change], ..Default::default() };
    check("changes[0].after", &|it| body(store::command::Body::ChangeResources(changes.clone()))(it));
}
