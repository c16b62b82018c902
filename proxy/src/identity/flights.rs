//! Many who want the same thing at the same time: one goes, all get what it brings.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

pub(super) struct Flights<K, V> {
    running: Mutex<HashMap<K, watch::Receiver<Option<V>>>>,
    at_once_max: usize,
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new(at_once_max: usize) -> Arc<Self> {
        Arc::new(Self { running: Mutex::default(), at_once_max })
    }

    /// Waits for the flight of the key that is under way, or for this one, which then goes on by itself: it does not
    /// end with whoever wanted it first. None if too many are under way, or it broke off.
    pub(super) async fn join<F>(self: &Arc<Self>, key: K, flight: impl FnOnce() -> F) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut landed = self.start(key, flight)?;
        landed.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// The same without waiting.
    pub(super) fn start<F>(self: &Arc<Self>, key: K, flight: impl FnOnce() -> F) -> Option<watch::Receiver<Option<V>>>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(under_way) = running.get(&key) {
            return Some(under_way.clone());
        }
        if running.len() >= self.at_once_max {
            return None;
        }
        let (sender, receiver) = watch::channel(None);
        running.insert(key.clone(), receiver.clone());
        drop(running);
        // Taken off the list whatever becomes of the task.
        let entry = Entry { flights: self.clone(), key };
        let flight = flight();
        tokio::spawn(async move {
            let brought = flight.await;
            drop(entry);
            sender.send_replace(Some(brought));
        });
        Some(receiver)
    }
}

struct Entry<K: Eq + Hash, V> {
    flights: Arc<Flights<K, V>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Entry<K, V> {
    fn drop(&mut self) {
        self.flights.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn one_goes_and_all_get_what_it_brings() {
        let (flights, gate) = (Flights::new(2), Arc::new(Notify::new()));
        let fly = |gate: Arc<Notify>| async move {
            gate.notified().await;
            7
        };
        // Whoever wanted it first leaves.
        drop(flights.start("a", || fly(gate.clone())).unwrap());
        assert!(flights.start("b", || async { 8 }).is_some());
        assert!(flights.start("c", || async { 9 }).is_none());
        gate.notify_one();
        let joined = (0..10).map(|_| flights.join("a", || async { panic!("a second one went") }));
        assert_eq!(join_all(joined).await, [Some(7); 10]);
        assert_eq!(flights.join("b", || async { 8 }).await, Some(8));
        assert!(flights.running.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn one_that_panics_leaves_nothing_behind() {
        let flights: Arc<Flights<&str, u32>> = Flights::new(1);
        assert_eq!(flights.join("a", || async { panic!("on purpose") }).await, None);
        assert_eq!(flights.join("a", || async { 1 }).await, Some(1));
    }
}
