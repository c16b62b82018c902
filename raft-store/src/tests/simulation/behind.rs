//! A member that was cut off for so long that nobody holds what it lacks: it takes a snapshot over, every time.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use quorumgate_model::NodeId;
use tokio::time::Instant;

use super::{CLIENTS, Numbers, Schedule, World, host::Host, on_a_paused_clock};

/// In the cluster's time, which does not wait for the thread that writes a snapshot: far more than it ever takes.
const STEPPED_FOR: Duration = Duration::from_secs(600);
const SNAPSHOT_EVERY: Duration = Duration::from_millis(100);

fn purged(host: &Host) -> Option<u64> {
    host.raft.metrics().borrow_watched().purged.map(|id| id.index)
}

fn last_log_index(host: &Host) -> Option<u64> {
    host.raft.metrics().borrow_watched().last_log_index
}

impl World {
    fn host(&self, id: NodeId) -> Host {
        self.shared.net.host(id).expect("nobody dies in this story")
    }

    async fn until_whole(&mut self) {
        let ends = Instant::now() + STEPPED_FOR;
        while !self.is_whole() {
            assert!(Instant::now() < ends, "the cluster is never whole: {}", self.shown());
            self.step().await;
        }
    }

    /// Everybody else takes snapshots and purges the log, up to beyond all that this member holds.
    async fn leave_behind(&mut self, behind: NodeId) {
        let pairs = self.around(behind);
        self.shared.net.lines().cut.extend(&pairs);
        // What raft has taken already and not shown yet.
        self.step().await;
        let holds = last_log_index(&self.host(behind));
        let others: Vec<NodeId> = self.members.keys().copied().filter(|id| *id != behind).collect();
        let (ends, mut next) = (Instant::now() + STEPPED_FOR, Instant::now());
        while others.iter().any(|id| purged(&self.host(*id)) <= holds) {
            assert!(Instant::now() < ends, "somebody keeps what n{behind} lacks: {}", self.shown());
            if Instant::now() >= next {
                next = Instant::now() + SNAPSHOT_EVERY;
                for host in others.iter().map(|id| self.host(*id)) {
                    tokio::spawn(super::faults::snapshot(host.raft));
                }
            }
            self.step().await;
        }
        assert_eq!(last_log_index(&self.host(behind)), holds, "something reached n{behind}");
        assert_eq!(self.shared.net.lines().installed, 0, "nobody else needs one");
        self.shared.net.lines().cut.clear();
    }
}

fn left_behind(seed: u64) -> Numbers {
    on_a_paused_clock(async {
        let mut world = World::begin(seed, Schedule { founders: 3, clients: CLIENTS, faults: &[] }).await;
        world.until_whole().await;
        let leader = world.shared.any_leader().expect("a whole cluster has one").id;
        let behind = *world.members.keys().find(|id| **id != leader).expect("there are three");
        world.leave_behind(behind).await;
        world.mend().await;
        world.judge()
    })
}

#[test]
fn who_lacks_what_nobody_holds_takes_a_snapshot_over() {
    for seed in 0..2 {
        let numbers = left_behind(seed);
        assert!(numbers.installed > 0, "seed {seed}: no snapshot was taken over: {numbers:?}");
    }
}
