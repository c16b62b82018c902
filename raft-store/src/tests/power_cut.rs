//! Random work on a disk that loses what was not synced: what was acknowledged is there afterwards, and what is there
//! is exactly a prefix of what was written.

use std::{
    panic::catch_unwind,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use openraft::storage::{RaftLogReader, RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine};
use quorumgate_model::state::State;

use super::{
    IDENTITY, command, log_id, memory_dir,
    rng::Rng,
    sim_disk::{Faults, SimDisk},
    small,
};
use crate::{
    Entry, LogId, Opened, Vote,
    store::{open_on, prepare_on},
};

/// One record, as the log was given it.
#[derive(Debug, Clone)]
enum Given {
    Entry(Box<Entry>),
    Vote(Vote),
    Truncate(Option<LogId>),
    Purge(LogId),
}

/// What a log must hold after so many records.
#[derive(Debug, Clone, Default, PartialEq)]
struct Expected {
    vote: Option<Vote>,
    entries: Vec<Entry>,
    purged: Option<LogId>,
}

impl Expected {
    fn take(&mut self, given: &Given) {
        match given {
            Given::Entry(entry) => self.entries.push(Entry::clone(entry)),
            Given::Vote(vote) => self.vote = Some(*vote),
            Given::Truncate(after) => self.entries.truncate(after.map_or(0, |id| id.index as usize + 1)),
            Given::Purge(upto) => self.purged = Some(*upto),
        }
    }
}

struct Work {
    opened: Opened,
    given: Vec<Given>,
    now: Expected,
    /// How many of `given` are acknowledged.
    acked: Arc<AtomicUsize>,
    snapshot: Option<u64>,
    states: Vec<State>,
    term: u64,
}

impl Work {
    /// Steps until the power goes.
    async fn run(&mut self, rng: &mut Rng, steps: u64) {
        for _ in 0..steps {
            let went = match rng.below(16) {
                0..8 => self.append(rng).await,
                8 | 9 => self.vote(rng).await,
                10 => self.truncate(rng).await,
                11 => self.opened.log.save_committed(self.opened.machine.applied).await.is_ok(),
                12 | 13 => self.apply(rng).await,
                14 => self.snapshot().await,
                _ => self.purge().await,
            };
            if !went {
                return;
            }
        }
    }

    async fn append(&mut self, rng: &mut Rng) -> bool {
        let first = self.now.entries.len() as u64;
        let bytes_max = if rng.chance(20) { 9000 } else { 500 };
        let entries: Vec<_> = (first..=first + rng.below(6))
            .map(|index| command(log_id(self.term, index), rng.below(bytes_max) as usize))
            .collect();
        entries.iter().for_each(|entry| self.give(Given::Entry(Box::new(entry.clone()))));
        let (acked, upto) = (self.acked.clone(), self.given.len());
        let (told, done) = tokio::sync::oneshot::channel();
        let queued = self.opened.log.append_with(entries, move |outcome| {
            if outcome.is_ok() {
                acked.fetch_max(upto, Ordering::SeqCst);
            }
            let _ = told.send(outcome.is_ok());
        });
        queued.await.is_ok() && (!rng.chance(2) || done.await == Ok(true))
    }

    async fn vote(&mut self, rng: &mut Rng) -> bool {
        self.term += rng.below(2);
        let vote = if rng.chance(2) { Vote::new(self.term, 3) } else { Vote::new_committed(self.term, 3) };
        self.give(Given::Vote(vote));
        let upto = self.given.len();
        let saved = self.opened.log.save_vote(&vote).await.is_ok();
        if saved {
            self.acked.fetch_max(upto, Ordering::SeqCst);
        }
        saved
    }

    async fn truncate(&mut self, rng: &mut Rng) -> bool {
        let kept = self.opened.machine.applied.map_or(0, |id| id.index + 1);
        let length = self.now.entries.len() as u64;
        if kept == 0 || kept >= length {
            return true;
        }
        let last = self.now.entries[(kept - 1 + rng.below(length - kept)) as usize].log_id;
        self.give(Given::Truncate(Some(last)));
        self.term += 1;
        self.opened.log.truncate_after(Some(last)).await.is_ok()
    }

    /// What is acknowledged and not truncated since counts as committed.
    async fn apply(&mut self, rng: &mut Rng) -> bool {
        let acked = self.acked.load(Ordering::SeqCst);
        let mut durable = Expected::default();
        self.given[..acked].iter().for_each(|given| durable.take(given));
        let from = self.opened.machine.applied.map_or(0, |id| id.index as usize + 1);
        let same = durable.entries.iter().zip(&self.now.entries).take_while(|(a, b)| a == b).count();
        let upto = same.min(from + rng.below(40) as usize).max(from);
        for entry in &self.now.entries[from..upto] {
            let items = futures_util::stream::iter([Ok((entry.clone(), None))]);
            if self.opened.machine.apply(items).await.is_err() {
                return false;
            }
            self.states.push(self.opened.machine.state.clone());
        }
        true
    }

    async fn snapshot(&mut self) -> bool {
        let Some(applied) = self.opened.machine.applied else { return true };
        let built = self.opened.machine.get_snapshot_builder().await.build_snapshot().await.is_ok();
        if built {
            self.snapshot = Some(applied.index);
        }
        built
    }

    async fn purge(&mut self) -> bool {
        let Some(upto) = self.snapshot else { return true };
        let upto = self.now.entries[upto as usize].log_id;
        self.give(Given::Purge(upto));
        self.opened.log.purge(upto).await.is_ok()
    }

    fn give(&mut self, given: Given) {
        self.now.take(&given);
        self.given.push(given);
    }

    /// Compares what a restart finds with every state that the log may be in.
    async fn check(self, disk: &SimDisk, dir: &Path, acked: usize) {
        let Work { opened, given, snapshot, states, .. } = self;
        drop(opened);
        let mut found = open_on(Arc::new(disk.clone()), dir, small()).unwrap();
        let applied = found.machine.applied;
        assert!(applied.map(|id| id.index) >= snapshot, "a snapshot at {snapshot:?} was lost: {applied:?}");
        if let Some(applied) = applied {
            assert_eq!(found.machine.state, states[applied.index as usize], "the state differs at {applied}");
        }
        let log_state = found.log.get_log_state().await.unwrap();
        let vote = found.log.read_vote().await.unwrap();
        let first = applied.map_or(0, |id| id.index as usize + 1);
        let entries = found.log.try_get_log_entries(first as u64..).await.unwrap();

        let mut expected = Expected::default();
        given[..acked].iter().for_each(|given| expected.take(given));
        let mut rest = given[acked..].iter();
        loop {
            let purged = expected.purged.map(|id| id.index).min(applied.map(|id| id.index));
            let last = expected.entries.last().map(|entry| entry.log_id);
            if expected.vote == vote
                && expected.entries.get(first..).unwrap_or_default() == entries
                && last.max(log_state.last_purged_log_id) == log_state.last_log_id
                && purged == log_state.last_purged_log_id.map(|id| id.index)
            {
                break;
            }
            let Some(next) = rest.next() else {
                panic!(
                    "found {vote:?} {log_state:?} and {} entries from {first}, acknowledged were {acked} of {} records; \
                     expected {:?} purged {:?} last {:?}",
                    entries.len(),
                    given.len(),
                    expected.vote,
                    expected.purged,
                    expected.entries.last().map(|entry| entry.log_id),
                );
            };
            expected.take(next);
        }
        // It goes on from there.
        let next = log_state.last_log_id.map_or(0, |id| id.index + 1);
        let more = vec![command(log_id(1000, next), 10)];
        let (told, done) = tokio::sync::oneshot::channel();
        found
            .log
            .append_with(more.clone(), move |outcome| told.send(outcome.is_ok()).unwrap_or_default())
            .await
            .unwrap();
        assert_eq!(done.await, Ok(true));
        assert_eq!(found.log.try_get_log_entries(next..).await.unwrap(), more);
    }
}

/// A log that has worked until its disk died. None: that did not let it be opened.
async fn worked(rng: &mut Rng, dir: &Path, faults: Faults) -> Option<(SimDisk, Work)> {
    let prepared = SimDisk::default();
    prepare_on(&prepared, dir, IDENTITY, &small()).unwrap();
    let disk = SimDisk::dying_after(&prepared, 20 + rng.below(300));
    disk.set_faults(faults);
    if rng.chance(3) {
        disk.fail_once(20 + rng.below(200));
    }
    let opened = open_on(Arc::new(disk.clone()), dir, small()).ok()?;
    let mut work = Work {
        opened,
        given: Vec::new(),
        now: Expected::default(),
        acked: Arc::default(),
        snapshot: None,
        states: Vec::new(),
        term: 1,
    };
    work.run(rng, 400).await;
    Some((disk, work))
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

fn cut(seed: u64, faults: Faults) {
    let (mut rng, dir) = (Rng(seed), memory_dir());
    run(async {
        let Some((disk, work)) = worked(&mut rng, dir.path(), faults).await else { return };
        // Before the cut: what a log that lives on acknowledges afterwards is not promised by what is left of the disk.
        let acked = work.acked.load(Ordering::SeqCst);
        let survived = if rng.chance(4) { disk.after_kill() } else { disk.after_power_cut(&mut rng) };
        work.check(&survived, dir.path(), acked).await;
    });
}

/// The process was killed, not the machine: what it had written and not synced is read by the next one, which counts on it
/// from then on.
fn read_and_cut(seed: u64) {
    let (mut rng, dir) = (Rng(seed), memory_dir());
    let read = async |disk: SimDisk| {
        let mut found = open_on(Arc::new(disk), dir.path(), small()).unwrap();
        let (vote, log) = (found.log.read_vote().await.unwrap(), found.log.get_log_state().await.unwrap());
        let (last, purged) = (log.last_log_id, log.last_purged_log_id);
        let first = purged.map_or(0, |id| id.index + 1);
        let entries = found.log.try_get_log_entries(first..).await.unwrap();
        (vote, last, purged, entries, found.machine.applied)
    };
    run(async {
        let Some((disk, work)) = worked(&mut rng, dir.path(), Faults::default()).await else { return };
        drop(work);
        disk.revive();
        let before = read(disk.clone()).await;
        assert_eq!(read(disk.after_power_cut(&mut rng)).await, before);
    });
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|number| number.parse().unwrap())
}

/// `scripts/soak --disk`: POWER_CUT_FROM and POWER_CUT_SEEDS say which schedules.
#[test]
fn a_power_cut_loses_nothing_that_was_acknowledged() {
    let (from, seeds) = (setting("POWER_CUT_FROM").unwrap_or(0), setting("POWER_CUT_SEEDS").unwrap_or(250));
    let failed = (from..from + seeds).find(|seed| catch_unwind(|| cut(*seed, Faults::default())).is_err());
    assert!(failed.is_none(), "something was lost; again by: scripts/soak --disk --seed {}", failed.unwrap());
    println!("{seeds} schedules of a failing disk from {from} on, nothing that was acknowledged lost");
}

#[test]
fn what_a_restart_has_read_survives_the_next_cut() {
    let failed = (0..100).find(|seed| catch_unwind(|| read_and_cut(*seed)).is_err());
    assert_eq!(failed, None, "the seed with which something was read, and lost then");
}

#[test]
fn a_disk_that_lies_about_syncs_is_found_out() {
    let lies = [Faults { sync_lies: true, ..Faults::default() }, Faults { sync_dir_lies: true, ..Faults::default() }];
    for lie in lies {
        assert!((0..100).any(|seed| catch_unwind(|| cut(seed, lie)).is_err()), "nothing was lost: {lie:?}");
    }
}
