//! What nodes say to the ledger becomes one entry for all of it, at most ten times a second, or after 20 ms where an
//! exchange waits: the load on the log follows neither requests nor keys, and hardly the number of nodes.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use quorumgate_model::{
    command::Body,
    convert,
    ledger::command::{LeaseBatch, LedgerCommand},
};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    drive::draft,
    member::Member,
    propose::{Attempt, COMMAND_BYTES_MAX},
};

/// How long the first to come waits for others.
const GATHER: Duration = Duration::from_millis(100);
/// And where somebody waits for slots.
const GATHER_URGENT: Duration = Duration::from_millis(20);
/// For a quorum to have an entry; whoever asked has given up before.
const WRITE_MAX: Duration = Duration::from_secs(2);
/// How many may wait: each node has one batch under way, and there is the leader's own word about time.
const WAITING_MAX: usize = 4_096;
/// Of an entry; the rest goes into the next one.
const BYTES_MAX: usize = COMMAND_BYTES_MAX / 2;

/// What has come since the last entry.
#[derive(Default)]
pub(super) struct Gather {
    waiting: Mutex<Vec<Waiting>>,
    wake: Notify,
}

struct Waiting {
    /// None: time has to go on, which any entry lets it do.
    batch: Option<LeaseBatch>,
    urgent: bool,
    bytes: usize,
    answer: oneshot::Sender<Attempt>,
}

impl Gather {
    /// None: this command is not one to gather.
    pub async fn submit(&self, body: &Body, ends: std::time::Instant) -> Option<Attempt> {
        let batches: &[LeaseBatch] = match body {
            Body::Ledger(LedgerCommand::Batches(batches)) if batches.len() <= 1 => batches,
            Body::Ledger(LedgerCommand::Tick) => &[],
            _ => return None,
        };
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting {
            urgent: batches.iter().flat_map(|it| &it.items).any(|item| item.want > 0 || item.owed > 0),
            bytes: convert::body_bytes(body),
            batch: batches.first().cloned(),
            answer,
        };
        {
            let mut all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() >= WAITING_MAX {
                return Some(Attempt::NotAppended("too many batches wait for the leader".into()));
            }
            all.push(waiting);
        }
        self.wake.notify_one();
        let answered = timeout_at(ends.into(), answered).await;
        let late = || Attempt::Unknown("no quorum has confirmed it within the deadline".into());
        Some(answered.ok().and_then(Result::ok).unwrap_or_else(late))
    }

    /// Until when the gathering that began then goes on; None: nothing waits.
    fn until(&self, began: Instant) -> Option<Instant> {
        let all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let urgent = all.iter().any(|it| it.urgent);
        (!all.is_empty()).then(|| began + if urgent { GATHER_URGENT } else { GATHER })
    }

    /// What fits into one entry, in the order of arrival.
    fn take(&self) -> (LedgerCommand, Vec<oneshot::Sender<Attempt>>) {
        let mut all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = 0;
        let count = all.iter().take_while(|it| {
            bytes += it.bytes;
            bytes <= BYTES_MAX
        });
        // One that is too large by itself goes alone, and is refused where that is known.
        let count = count.count().max(1).min(all.len());
        let (batches, answers): (Vec<_>, Vec<_>) = all.drain(..count).map(|it| (it.batch, it.answer)).unzip();
        let batches: Arc<[LeaseBatch]> = batches.into_iter().flatten().collect();
        let command = if batches.is_empty() { LedgerCommand::Tick } else { LedgerCommand::Batches(batches) };
        (command, answers)
    }
}

/// Writes what has come; several entries may be under way at a time, so that a far quorum holds nobody up.
pub(super) async fn run(member: Arc<Member>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut writing = FuturesUnordered::new();
    let mut began: Option<Instant> = None;
    loop {
        let until = began.and_then(|began| member.gather.until(began));
        if until.is_none() {
            began = None;
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = member.gather.wake.notified() => began = Some(began.unwrap_or_else(Instant::now)),
            Some(()) = writing.next(), if !writing.is_empty() => {}
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                let (command, answers) = member.gather.take();
                writing.push(write(&member, command, answers));
                // What did not fit begins anew.
                began = Some(Instant::now());
            }
        }
    }
}

async fn write(member: &Member, command: LedgerCommand, answers: Vec<oneshot::Sender<Attempt>>) {
    let ends = std::time::Instant::now() + WRITE_MAX;
    let attempt = member.append(&draft(Body::Ledger(command)), ends).await;
    for answer in answers {
        // Whoever has given up learns from the log.
        let _ = answer.send(attempt.clone());
    }
}

#[cfg(test)]
mod tests {
    use quorumgate_model::ledger::command::{Key, LeaseItem};

    use super::*;

    fn body(node: u64, want: u64) -> Body {
        let item = LeaseItem { want, ..LeaseItem::of(Key { limit: 1, who: "".into() }) };
        let batch =
            LeaseBatch { node, session: 1, seq: 1, attempt: 0, applied: 1, items: vec![item], wall_ahead_us: 0 };
        Body::Ledger(LedgerCommand::Batches([batch].into()))
    }

    #[tokio::test]
    async fn what_comes_within_a_tenth_of_a_second_is_one_entry() {
        let gather = Gather::default();
        let began = Instant::now();
        assert_eq!(gather.until(began), None);
        let ends = std::time::Instant::now() + Duration::from_secs(60);
        let (one, two, tick) = (body(1, 0), body(2, 0), Body::Ledger(LedgerCommand::Tick));
        let all =
            async { tokio::join!(gather.submit(&one, ends), gather.submit(&two, ends), gather.submit(&tick, ends)) };
        let entry = async {
            assert_eq!(gather.until(began), Some(began + GATHER));
            let (command, answers) = gather.take();
            let LedgerCommand::Batches(batches) = command else { panic!("{command:?}") };
            assert_eq!(batches.iter().map(|it| it.node).collect::<Vec<_>>(), [1, 2]);
            answers.into_iter().for_each(|it| it.send(Attempt::NotAppended("x".into())).unwrap());
        };
        let (answers, ()) = tokio::join!(all, entry);
        let expected = Some(Attempt::NotAppended("x".into()));
        assert_eq!(answers, (expected.clone(), expected.clone(), expected));
        assert_eq!(gather.until(began), None);
    }

    #[tokio::test]
    async fn who_waits_for_slots_waits_a_fifth_of_that() {
        let gather = Gather::default();
        let began = Instant::now();
        let ends = std::time::Instant::now() + Duration::from_secs(60);
        let urgent = body(1, 3);
        let look = async {
            assert_eq!(gather.until(began), Some(began + GATHER_URGENT));
            drop(gather.take());
        };
        let (answer, ()) = tokio::join!(gather.submit(&urgent, ends), look);
        assert!(matches!(answer, Some(Attempt::Unknown(_))));
        assert_eq!(gather.submit(&Body::Tick, ends).await, None, "of the state, not of the ledger");
    }
}
