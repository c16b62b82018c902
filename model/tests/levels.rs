//! What the newest level adds to limits, on both sides of it: while some node is of a lower one nothing is written that its
//! build does not know, and limits go as they went there; from that level on they go as RATE-LIMITS.md says.

mod common;

use std::sync::Arc;

use common::{bootstrap, command};
use prost::Message;
use quorumgate_model::{
    command::{Body, ChangeResources, Command, Expect, KEEPS_COUNTERS_LEVEL, OWED_LEVEL, ResourceChange, Stamp},
    convert,
    ledger::command::{Key, LeaseBatch, LeaseItem, LedgerCommand, OpenSession},
    resource::{Kind, Resource},
    snapshot,
    state::State,
};
use quorumgate_proto::store::v1::{self as store, snapshot_record::Record};
use serde_json::json;

const S: u64 = 1_000_000;

fn key() -> Key {
    Key { limit: 1, who: "acme".into() }
}

fn batch(seq: u64, item: LeaseItem) -> Body {
    let items = vec![item];
    let batch = LeaseBatch { node: 1, session: 2, seq, attempt: 0, applied: u64::MAX, items, wall_ahead_us: 0 };
    Body::Ledger(LedgerCommand::Batches([batch].into()))
}

fn limit(words: serde_json::Value) -> Body {
    let after: Resource = Kind::Limit.parse(words).unwrap();
    let changes = [ResourceChange { key: after.key(), after: Some(after), expect: Expect::Anything }].into();
    Body::ChangeResources(ChangeResources { changes, ..ChangeResources::default() })
}

fn window(window: &str) -> Body {
    limit(json!({ "name": "free", "per": "consumer", "limit": 100, "window": window }))
}

fn bytes(body: &Body) -> Vec<u8> {
    convert::command_to(&command(body.clone())).encode_to_vec()
}

/// As the log has it where every node understands `level`: it is read back from its bytes.
fn written(body: &Body, level: u32) -> Command {
    let bytes = bytes(&body.for_level(level));
    convert::command_from(store::Command::decode(&*bytes).unwrap()).unwrap()
}

/// Limit 1, `free`, of which session 2 of node 1 holds something.
struct World {
    state: State,
    level: u32,
}

impl World {
    fn of(level: u32, first: &Body) -> Self {
        let mut world = Self { state: State::default(), level };
        let open = OpenSession { node: 1, boot: [1; 16], open: 1, length_us: 5 * S };
        world.apply(1, &Body::Bootstrap(Arc::new(bootstrap())));
        world.apply(1, first);
        world.apply(1, &Body::Ledger(LedgerCommand::OpenSession(open)));
        world.apply(2, &batch(1, LeaseItem { demand: 100_000, want: 100, ..LeaseItem::of(key()) }));
        assert!(world.state.ledger.pool(&key()).is_some_and(|pool| pool.held(2).is_some_and(|it| it.slots == 100)));
        world
    }

    fn apply(&mut self, at_s: u64, body: &Body) {
        let stamp = Stamp { clock_us: at_s * S, wall_ms: 1_700_000_000_000 };
        let command = Command { stamp, ..written(body, self.level) };
        self.state.apply(self.state.index + 1, &command).0.outcome.unwrap();
    }

    /// What a snapshot has of the limit and its keys.
    fn stored(&self) -> (store::LedgerLimit, Vec<store::LedgerPool>) {
        let (mut limits, mut pools) = (Vec::new(), Vec::new());
        for record in snapshot::records(&self.state) {
            match store::SnapshotRecord::decode(&*record.encode_to_vec()).unwrap().record {
                Some(Record::LedgerLimit(it)) => limits.push(it),
                Some(Record::LedgerPool(it)) => pools.push(it),
                _ => {}
            }
        }
        (limits.pop().unwrap(), pools)
    }
}

#[test]
fn what_nodes_owe_is_what_they_want_where_an_older_build_reads() {
    let item = |want, owed| LeaseItem { want, owed, ..LeaseItem::of(key()) };
    let body = batch(1, item(3, 8));
    assert_eq!(bytes(&body.for_level(OWED_LEVEL - 1)), bytes(&batch(1, item(11, 0))));
    assert_eq!(bytes(&body.for_level(OWED_LEVEL)), bytes(&body));
    let min_levels = [OWED_LEVEL - 1, OWED_LEVEL].map(|level| written(&body, level).min_level);
    assert_eq!(min_levels, [1, OWED_LEVEL]);
    // Who owes nothing is understood by everybody.
    assert_eq!(written(&batch(1, item(3, 0)), OWED_LEVEL).min_level, 1);
}

#[test]
fn below_the_level_a_debt_is_asked_for_like_anything_else() {
    let owes = batch(2, LeaseItem { demand: 100_000, owed: 8, ..LeaseItem::of(key()) });
    for (level, want, owed) in [(OWED_LEVEL - 1, 8, 0), (OWED_LEVEL, 0, 8)] {
        let mut world = World::of(level, &window("1m"));
        world.apply(3, &owes);
        let (_, pools) = world.stored();
        let held = &pools[0].holders[0];
        assert_eq!((held.want, held.owed), (want, owed), "level {level}");
    }
}

#[test]
fn below_the_level_an_edited_window_begins_anew_and_from_it_on_it_goes_on() {
    for (level, keeps) in [(KEEPS_COUNTERS_LEVEL - 1, false), (KEEPS_COUNTERS_LEVEL, true)] {
        let edit = window("2m");
        let Body::ChangeResources(found) = written(&edit, level).body else { panic!("as it was") };
        assert_eq!(found.keeps_counters, keeps);
        assert_eq!(bytes(&edit.for_level(level)) == bytes(&edit), !keeps, "nothing else differs");
        let mut world = World::of(level, &window("1m"));
        world.apply(3, &edit);
        let (limit, pools) = world.stored();
        assert_eq!((limit.id == 1, limit.rests.len(), pools.len()), (keeps, usize::from(keeps), usize::from(keeps)));
        let known = world.state.cluster.as_ref().map(|facts| facts.level);
        assert_eq!(known, Some(if keeps { level } else { 1 }), "older builds may join as long as nothing was written");
    }
}

#[test]
fn below_the_level_another_cycle_begins_anew_too() {
    let every =
        |every| limit(json!({ "name": "free", "per": "consumer", "kind": "calendar", "limit": 100, "every": every }));
    for (level, keeps) in [(KEEPS_COUNTERS_LEVEL - 1, false), (KEEPS_COUNTERS_LEVEL, true)] {
        let mut world = World::of(level, &window("1m"));
        world.apply(3, &every("hour"));
        // A limit of another kind, which begins anew on either side.
        let (id, unix_us) = (world.stored().0.id, 1_728_000_000 * S);
        assert_ne!(id, 1);
        let says = LeaseBatch { wall_ahead_us: unix_us, ..said(&batch(2, LeaseItem::of(key()))) };
        world.apply(4, &Body::Ledger(LedgerCommand::ShareEpoch { divisor: 1 }));
        world.apply(4, &Body::Ledger(LedgerCommand::Batches([says].into())));
        let (period, ends_us) = (unix_us / S, unix_us + 3_600 * S);
        world.apply(5, &Body::Ledger(LedgerCommand::RollPeriod { limit: id, period, ends_us }));
        assert!(world.stored().0.period.is_some());
        world.apply(6, &every("day"));
        let (limit, _) = world.stored();
        assert_eq!((limit.id == id, limit.period.is_some(), limit.recycled), (keeps, keeps, keeps));
    }
}

fn said(body: &Body) -> LeaseBatch {
    let Body::Ledger(LedgerCommand::Batches(batches)) = body else { panic!("a batch") };
    batches[0].clone()
}

/// As where a leader of before had not heard that the last node is of this build by now.
#[test]
fn once_something_of_the_level_was_written_every_edit_keeps_counters() {
    let mut world = World::of(KEEPS_COUNTERS_LEVEL, &window("1m"));
    world.apply(3, &window("2m"));
    world.level = KEEPS_COUNTERS_LEVEL - 1;
    world.apply(4, &window("3m"));
    let (limit, pools) = world.stored();
    assert_eq!((limit.id, limit.rests.len(), pools.len()), (1, 2, 1));
}
