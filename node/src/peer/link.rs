//! One outgoing connection to one peer for one use: dialled when it is needed, once at a time, with bounded back-off.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use quinn::Connection;
use tokio::sync::watch;

use super::{CallError, Peers, Target};
use crate::peer::hello::Use;

/// The first pause after a failed dial, doubled up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

pub(super) struct Link {
    state: watch::Sender<State>,
    heard: Mutex<Option<Heard>>,
}

/// What had come over the connection at the last look, and when there was last something new.
#[derive(Clone, Copy)]
struct Heard {
    datagrams: u64,
    at: Instant,
}

#[derive(Clone)]
enum State {
    Idle,
    Dialling,
    Up(Connection),
    Down { error: CallError, until: Instant, pause: Duration },
}

impl Link {
    pub(super) fn new() -> Self {
        Self { state: watch::Sender::new(State::Idle), heard: Mutex::default() }
    }

    /// A look, to be taken at intervals: for how long nothing has come. None where nobody was ever dialled. A connection
    /// that is gone is dialled anew, so that the peer's return is noticed.
    pub(super) fn silence(
        self: &Arc<Self>,
        peers: &Peers,
        target: &Target,
        r#use: Use,
        now: Instant,
    ) -> Option<Duration> {
        let datagrams = match &*self.state.borrow() {
            State::Idle => return None,
            State::Up(connection) if connection.close_reason().is_none() => Some(connection.stats().udp_rx.datagrams),
            _ => None,
        };
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *heard;
        let last = heard.get_or_insert(Heard { datagrams: datagrams.unwrap_or_default(), at: now });
        match datagrams {
            Some(datagrams) if before.is_none_or(|before| before.datagrams != datagrams) => {
                *last = Heard { datagrams, at: now };
            }
            Some(_) => {}
            None => self.dial(peers, target, r#use),
        }
        Some(now.saturating_duration_since(last.at))
    }

    /// The open connection, or the outcome of the dial under way. A dial goes on when its caller gives up.
    pub(super) async fn connection(
        self: &Arc<Self>,
        peers: &Peers,
        target: &Target,
        r#use: Use,
    ) -> Result<Connection, CallError> {
        let mut states = self.state.subscribe();
        loop {
            match &*states.borrow_and_update() {
                State::Up(connection) if connection.close_reason().is_none() => return Ok(connection.clone()),
                State::Down { error, until, .. } if Instant::now() < *until => return Err(error.clone()),
                _ => {}
            }
            self.dial(peers, target, r#use);
            let still_dialling = states.wait_for(|state| !matches!(state, State::Dialling)).await;
            match still_dialling.as_deref() {
                Ok(State::Up(connection)) => return Ok(connection.clone()),
                Ok(State::Down { error, .. }) => return Err(error.clone()),
                Ok(State::Idle | State::Dialling) => {}
                Err(_) => return Err(CallError::Unreachable("the node is shutting down".into())),
            }
        }
    }

    /// Starts a dial unless one is under way or its outcome is still good.
    fn dial(self: &Arc<Self>, peers: &Peers, target: &Target, r#use: Use) {
        let mut pause = PAUSE_FIRST;
        let starts = self.state.send_if_modified(|state| {
            match state {
                State::Dialling => return false,
                State::Up(connection) if connection.close_reason().is_none() => return false,
                State::Down { until, .. } if Instant::now() < *until => return false,
                State::Down { pause: last, .. } => pause = (*last * 2).min(PAUSE_MAX),
                State::Idle | State::Up(_) => {}
            }
            *state = State::Dialling;
            true
        });
        if !starts {
            return;
        }
        let (link, peers, target) = (self.clone(), peers.clone(), target.clone());
        peers.clone().tasks().detach(async move {
            let state = match peers.dial(&target, r#use).await {
                Ok(connection) => State::Up(connection),
                Err(error) => {
                    tracing::debug!(peer = target.id, address = target.address, %error, "dial failed");
                    State::Down { error, until: Instant::now() + pause, pause }
                }
            };
            link.state.send_replace(state);
        });
    }

    pub(super) fn stats(&self) -> Option<quinn::ConnectionStats> {
        match &*self.state.borrow() {
            State::Up(connection) if connection.close_reason().is_none() => Some(connection.stats()),
            _ => None,
        }
    }

    pub(super) fn close(&self, reason: &[u8]) {
        if let State::Up(connection) = &*self.state.borrow() {
            connection.close(0u32.into(), reason);
        }
    }
}
