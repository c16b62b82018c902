//! `demo`: a cluster of real processes on this machine that checks what Quorumgate promises and prints what it measured.

mod checks;
mod issuer;
mod load;
mod nodes;
mod origin;

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use self::nodes::Fleet;
use super::{
    args::{self, Global},
    failure::{Failure, Outcome},
};

/// How wide the sentences are, so that the figures stand in one column.
const SENTENCE_WIDTH: usize = 62;

/// Starts the cluster, runs the checks, and stays until a signal unless `--once`.
pub fn run(global: &Global, verb: &args::Demo) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Failure::internal)?;
    runtime.block_on(async {
        let mut interrupted = signal(SignalKind::interrupt()).map_err(Failure::internal)?;
        let mut terminated = signal(SignalKind::terminate()).map_err(Failure::internal)?;
        tokio::select! {
            outcome = show(global, verb) => outcome,
            _ = interrupted.recv() => Ok(()),
            _ = terminated.recv() => Ok(()),
        }
    })
}

/// Dropping the fleet ends its processes, whichever way this ends.
async fn show(global: &Global, verb: &args::Demo) -> Outcome {
    let mut report = Report::default();
    let room = Room::open(verb.keep.as_deref())?;
    let fleet = Fleet::plan(global, verb, &room.path).await.map_err(Failure::internal)?;
    if let Err(error) = checks::run(&fleet, &mut report).await {
        report.fails(&format!("{error:#}"));
    }
    if report.failed > 0 {
        for node in fleet.nodes.iter().filter(|node| !node.log_tail().is_empty()) {
            eprintln!("\nthe end of {}'s log:\n{}", node.name, node.log_tail());
        }
        say(&format!("\n{} of {} checks failed", report.failed, report.failed + report.held));
        return Err(Failure::negative());
    }
    if verb.once {
        say(&format!("\nall {} checks held", report.held));
        return Ok(());
    }
    say(&fleet.commands_to_paste());
    std::future::pending().await
}

/// What was checked so far, printed as it happens.
#[derive(Default)]
struct Report {
    held: usize,
    failed: usize,
}

impl Report {
    fn holds(&mut self, sentence: &str, figure: impl std::fmt::Display) {
        self.held += 1;
        say(format!("√ {sentence:<SENTENCE_WIDTH$} {figure}").trim_end());
    }

    fn fails(&mut self, why: &str) {
        self.failed += 1;
        say(&format!("× {why}"));
    }
}

/// A reader that has gone away ends the printing, not the demo.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// `41 ms`, `1.3 s`
fn figure(took: Duration) -> String {
    match took.as_millis() {
        millis @ 0..1000 => format!("{millis} ms"),
        _ => format!("{:.1} s", took.as_secs_f64()),
    }
}

/// Where the data directories stand: a temporary directory of this user alone that goes away, or one that the operator keeps.
struct Room {
    path: PathBuf,
    /// What cannot be removed stays.
    _goes_away: Option<TempDir>,
}

impl Room {
    fn open(keep: Option<&Path>) -> Outcome<Self> {
        let temporary = match keep {
            Some(_) => None,
            None => Some(tempfile::Builder::new().prefix("quorumgate-demo-").tempdir().map_err(Failure::internal)?),
        };
        let path = temporary.as_ref().map(TempDir::path).or(keep).expect("one of the two");
        let refused = |why: &dyn std::fmt::Display| Failure::usage(format!("{}: {why}", path.display()));
        if path.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(refused(&"it is not empty").help("name a new directory"));
        }
        std::fs::create_dir_all(path).map_err(|error| refused(&error))?;
        // Sockets and commands to paste need the whole path.
        let path = path.canonicalize().map_err(Failure::internal)?;
        Ok(Self { path, _goes_away: temporary })
    }
}
