//! Writes by which the cluster loses a voter, from their judgement until what came of them is known. The next one is judged
//! as if all of them were carried out: two that come together would each find a quorum without the one node, and leave none
//! without both.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures_util::{FutureExt, future::BoxFuture};
use quorumgate_model::{
    NodeId,
    mutants::{self, Mutant},
};
use tokio::sync::oneshot;

/// Of this process, while it leads. At most one a node.
#[derive(Default)]
pub struct Departures {
    /// The write, where nobody waits for it any more.
    under_way: Mutex<BTreeMap<NodeId, Option<BoxFuture<'static, ()>>>>,
}

/// One of them. Dropped before its write has ended, it counts until then.
pub struct Departure<'d> {
    all: &'d Departures,
    node: NodeId,
    write: Option<BoxFuture<'static, ()>>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Denied {
    /// The same node is about to go already: what came of that is not known yet.
    UnderWay,
    Refused(String),
}

impl Departures {
    /// `judge` is told who is about to go, and reads what is applied only then.
    pub fn begin(
        &self,
        node: NodeId,
        judge: impl FnOnce(&BTreeSet<NodeId>) -> Result<(), String>,
    ) -> Result<Departure<'_>, Denied> {
        let mut under_way = self.lock();
        under_way.retain(|_, write| write.as_mut().is_none_or(|write| write.now_or_never().is_none()));
        if under_way.contains_key(&node) {
            return Err(Denied::UnderWay);
        }
        let going = match mutants::is(Mutant::JudgedApart) {
            true => BTreeSet::new(),
            false => under_way.keys().copied().collect(),
        };
        judge(&going).map_err(Denied::Refused)?;
        under_way.insert(node, None);
        Ok(Departure { all: self, node, write: None })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Option<BoxFuture<'static, ()>>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Departure<'_> {
    pub async fn carry_out<T: Send + 'static>(&mut self, write: impl Future<Output = T> + Send + 'static) -> T {
        let (told, outcome) = oneshot::channel();
        let write = async move { drop(told.send(write.await)) };
        self.write.insert(write.boxed()).await;
        self.write = None;
        outcome.await.expect("the write has told it")
    }
}

impl Drop for Departure<'_> {
    fn drop(&mut self) {
        let mut under_way = self.all.lock();
        match self.write.take() {
            Some(write) => drop(under_way.insert(self.node, Some(write))),
            None => drop(under_way.remove(&self.node)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn going(departures: &Departures) -> Vec<NodeId> {
        let mut seen = Vec::new();
        let refused = departures.begin(9, |going| {
            seen.extend(going);
            Err(String::new())
        });
        assert!(matches!(refused, Err(Denied::Refused(_))));
        seen
    }

    #[test]
    fn a_departure_counts_until_what_came_of_it_is_known() {
        let departures = Departures::default();
        let mut one = departures.begin(1, |_| Ok(())).ok().unwrap();
        let two = departures.begin(2, |_| Ok(())).ok().unwrap();
        assert_eq!(going(&departures), [1, 2]);
        // Never written.
        drop(two);
        assert_eq!(going(&departures), [1]);
        // Whoever asked gives up, and the write does not.
        let (write, written) = oneshot::channel::<()>();
        assert!(one.carry_out(written).now_or_never().is_none());
        drop(one);
        assert_eq!(going(&departures), [1]);
        assert_eq!(departures.begin(1, |_| Ok(())).err(), Some(Denied::UnderWay));
        write.send(()).unwrap();
        assert!(going(&departures).is_empty());
        let mut three = departures.begin(3, |_| Ok(())).ok().unwrap();
        assert_eq!(three.carry_out(std::future::ready(7)).now_or_never(), Some(7));
        drop(three);
        assert!(going(&departures).is_empty());
    }
}
