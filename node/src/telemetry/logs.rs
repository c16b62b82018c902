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
    level: Mutex<Level>,
    past: Mutex<VecDeque<Arc<str>>>,
    live: broadcast::Sender<Arc<str>>,
}

struct Level {
    /// As it was last asked for.
    filter: String,
    /// What comes back when a filter that was set for a while is over.
    lasting: String,
    /// Of the filter: whose while is over must not end a later one's.
    changes: u64,
}

/// `RUST_LOG` wins over the settings' filter.
pub fn start(filter: &str) -> anyhow::Result<()> {
    let (words, parsed) = match EnvFilter::try_from_default_env() {
        Ok(parsed) => (std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default(), parsed),
        Err(_) => (filter.to_owned(), parse(filter)?),
    };
    let (parsed, handle) = reload::Layer::new(parsed);
    let kept = LOGS.get_or_init(|| Logs::new(handle, words));
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

/// One into which nobody writes but the test.
#[cfg(test)]
pub fn of_test() -> &'static Logs {
    let (_, handle) = reload::Layer::<EnvFilter, Registry>::new(EnvFilter::default());
    LOGS.get_or_init(|| Logs::new(handle, "info".into()))
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
    fn new(handle: reload::Handle<EnvFilter, Registry>, filter: String) -> Self {
        let level = Mutex::new(Level { lasting: filter.clone(), filter, changes: 0 });
        Self { handle, level, past: Mutex::default(), live: broadcast::Sender::new(FOLLOW_MAX) }
    }

    pub fn filter(&self) -> String {
        locked(&self.level).filter.clone()
    }

    /// From now on; returns the filter of before.
    pub fn change(&self, filter: &str) -> anyhow::Result<String> {
        let mut level = locked(&self.level);
        let before = level.filter.clone();
        self.reload(&mut level, filter)?;
        level.lasting = filter.to_owned();
        Ok(before)
    }

    /// Until `put_back` is asked with what this returns.
    pub fn change_for_a_while(&self, filter: &str) -> anyhow::Result<u64> {
        let mut level = locked(&self.level);
        self.reload(&mut level, filter)?;
        Ok(level.changes)
    }

    /// The filter that lasts, which is in force again; None where there was another change after that one.
    pub fn put_back(&self, change: u64) -> Option<String> {
        let mut level = locked(&self.level);
        if level.changes != change {
            return None;
        }
        let lasting = level.lasting.clone();
        self.reload(&mut level, &lasting).ok().map(|()| lasting)
    }

    fn reload(&self, level: &mut Level, filter: &str) -> anyhow::Result<()> {
        self.handle.reload(parse(filter)?)?;
        level.filter = filter.to_owned();
        level.changes += 1;
        Ok(())
    }

    /// The newest lines, oldest first, and those that follow.
    pub fn lines(&self, count: usize) -> (Vec<Arc<str>>, broadcast::Receiver<Arc<str>>) {
        let past = locked(&self.past);
        let live = self.live.subscribe();
        (past.iter().skip(past.len().saturating_sub(count)).cloned().collect(), live)
    }

    pub(crate) fn remember(&self, line: &[u8]) {
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

    #[test]
    fn the_last_of_filters_for_a_while_stays_until_it_is_over_itself() {
        let (_layer, handle) = reload::Layer::<EnvFilter, Registry>::new(parse("info").unwrap());
        let logs = Logs::new(handle, "info".into());
        let [first, second] = ["debug", "debug"].map(|filter| logs.change_for_a_while(filter).unwrap());
        assert_eq!((logs.put_back(first), logs.filter()), (None, "debug".to_owned()));
        assert_eq!((logs.put_back(second), logs.filter()), (Some("info".to_owned()), "info".to_owned()));
        let third = logs.change_for_a_while("trace").unwrap();
        logs.change("warn").unwrap();
        assert_eq!((logs.put_back(third), logs.filter()), (None, "warn".to_owned()));
        let fourth = logs.change_for_a_while("debug").unwrap();
        assert_eq!(logs.put_back(fourth).unwrap(), "warn");
    }
}
