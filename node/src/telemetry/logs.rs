//! Structured logs on stderr: lines for people on a terminal, JSON otherwise. The newest lines are kept for `logs`, and how
//! much is logged can be changed while the node runs.

use std::{
    collections::VecDeque,
    io::{self, IsTerminal},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use anyhow::Context;
use tokio::sync::broadcast;
use tracing_subscriber::{EnvFilter, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// Lines that are kept, and how much of a line.
pub const PAST_MAX: usize = 1_000;
const LINE_BYTES_MAX: usize = 8 << 10;
/// Lines that wait for one who follows.
const FOLLOW_MAX: usize = 1_024;

/// Of this process.
static LOGS: OnceLock<Logs> = OnceLock::new();

pub struct Logs {
    handle: reload::Handle<EnvFilter, Registry>,
    /// As it was last asked for.
    filter: Mutex<String>,
    past: Mutex<VecDeque<Arc<str>>>,
    live: broadcast::Sender<Arc<str>>,
}

/// `RUST_LOG` wins over the settings' filter.
pub fn start(filter: &str) -> anyhow::Result<()> {
    let (words, parsed) = match EnvFilter::try_from_default_env() {
        Ok(parsed) => (std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default(), parsed),
        Err(_) => (filter.to_owned(), parse(filter)?),
    };
    let (parsed, handle) = reload::Layer::new(parsed);
    let kept =
        Logs { handle, filter: Mutex::new(words), past: Mutex::default(), live: broadcast::Sender::new(FOLLOW_MAX) };
    let kept = LOGS.get_or_init(|| kept);
    let remembered = fmt::layer().json().flatten_event(true).with_writer(move || Remembered(kept));
    let subscriber = tracing_subscriber::registry().with(parsed).with(remembered);
    match io::stderr().is_terminal() {
        true => subscriber.with(fmt::layer().with_writer(io::stderr)).try_init()?,
        false => subscriber.with(fmt::layer().json().flatten_event(true).with_writer(io::stderr)).try_init()?,
    }
    Ok(())
}

/// None in a process that has not started its logs: a test.
pub fn of_process() -> Option<&'static Logs> {
    LOGS.get()
}

/// A single level is this program's own. Libraries are held to warnings: the node says what matters itself. openraft
/// is silent: it repeats each failed attempt at an unreachable peer, where one line at its loss and one at its return do.
fn parse(filter: &str) -> anyhow::Result<EnvFilter> {
    let quiet = format!(
        "warn,openraft=off,quorumgate_node={filter},quorumgate_proxy={filter},quorumgate_raft_store={filter},\
         quorumgate_kubernetes={filter}"
    );
    let words = match filter.contains(['=', ',']) {
        true => filter,
        false => &quiet,
    };
    EnvFilter::try_new(words)
        .with_context(|| format!("found {filter:?}; allowed: a level such as debug, or a log filter"))
}

impl Logs {
    pub fn filter(&self) -> String {
        locked(&self.filter).clone()
    }

    /// From now on; returns the filter of before.
    pub fn change(&self, filter: &str) -> anyhow::Result<String> {
        let parsed = parse(filter)?;
        self.handle.reload(parsed)?;
        Ok(std::mem::replace(&mut *locked(&self.filter), filter.to_owned()))
    }

    /// The newest lines, oldest first, and those that follow.
    pub fn lines(&self, count: usize) -> (Vec<Arc<str>>, broadcast::Receiver<Arc<str>>) {
        let past = locked(&self.past);
        let live = self.live.subscribe();
        (past.iter().skip(past.len().saturating_sub(count)).cloned().collect(), live)
    }

    fn remember(&self, line: &[u8]) {
        let line = String::from_utf8_lossy(&line[..line.len().min(LINE_BYTES_MAX)]);
        let line: Arc<str> = line.trim_end().into();
        let mut past = locked(&self.past);
        if past.len() >= PAST_MAX {
            past.pop_front();
        }
        past.push_back(line.clone());
        // Nobody follows: fine.
        let _ = self.live.send(line);
    }
}

fn locked<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Each write is one line.
struct Remembered(&'static Logs);

impl io::Write for Remembered {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.remember(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_a_level_or_the_words_of_tracing() {
        for good in ["info", "debug", "info,quorumgate_node=debug"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        assert!(parse("quorumgate_node=loud").is_err());
    }
}
