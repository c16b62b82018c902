//! The JSON access log: one line per exchange through a bounded queue to one writer thread, which drops rather than waits.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use anyhow::Context;

/// Lines that may wait for the writer; at ~500 bytes each some 8 MiB.
const QUEUE_LINES_MAX: usize = 16_384;
/// Lines written at once.
const BATCH_LINES_MAX: u64 = 1024;
/// How often the writer looks whether the file was moved away.
const ROTATION_CHECK: Duration = Duration::from_secs(1);

enum Entry {
    Line(Vec<u8>),
    Reopen,
    Flush(SyncSender<()>),
}

/// The queue's near end; each worker has one.
#[derive(Clone)]
pub(crate) struct AccessLog {
    queue: SyncSender<Entry>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    dropped: AtomicU64,
}

impl AccessLog {
    /// Opens the file (None: stdout) and starts the writer, which ends when the last `AccessLog` is gone.
    pub(crate) fn start(path: Option<PathBuf>) -> anyhow::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE_LINES_MAX);
        let counts = Arc::new(Counts::default());
        let out = Out::open(path.as_deref())?;
        let writer = Writer { lines, path, out, counts: counts.clone() };
        std::thread::Builder::new().name("access-log".into()).spawn(move || writer.run())?;
        Ok(Self { queue, counts })
    }

    /// Never waits: a line that finds the queue full is dropped and counted.
    pub(crate) fn line(&self, line: Vec<u8>) {
        if self.queue.try_send(Entry::Line(line)).is_err() {
            self.counts.dropped.fetch_add(1, Relaxed);
        }
    }

    /// The next lines go to a file that is opened anew.
    pub(crate) fn reopen(&self) {
        let _ = self.queue.try_send(Entry::Reopen);
    }

    /// Waits until what was queued before is written, at most `patience`.
    pub(crate) fn flush(&self, patience: Duration) {
        let (done, written) = sync_channel(1);
        if self.queue.try_send(Entry::Flush(done)).is_ok() {
            let _ = written.recv_timeout(patience);
        }
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.counts.dropped.load(Relaxed)
    }

    pub(crate) fn metrics(&self, out: &mut String) {
        use std::fmt::Write;
        let _ = write!(
            out,
            "# HELP quorumgate_access_log_lines_total Access log lines written.\n\
             # TYPE quorumgate_access_log_lines_total counter\n\
             quorumgate_access_log_lines_total {}\n\
             # HELP quorumgate_access_log_dropped_total Access log lines lost: the queue was full or the file could not be written.\n\
             # TYPE quorumgate_access_log_dropped_total counter\n\
             quorumgate_access_log_dropped_total {}\n",
            self.counts.written.load(Relaxed),
            self.counts.dropped.load(Relaxed),
        );
    }
}

enum Out {
    Stdout(io::Stdout),
    File { file: File, inode: u64 },
}

impl Out {
    fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::Stdout(io::stdout())) };
        let open = || {
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            let inode = file.metadata()?.ino();
            io::Result::Ok(Self::File { file, inode })
        };
        open().with_context(|| format!("access log {}", path.display()))
    }

    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout(out) => out.write_all(batch).and_then(|()| out.flush()),
            Self::File { file, .. } => file.write_all(batch),
        }
    }
}

struct Writer {
    lines: Receiver<Entry>,
    path: Option<PathBuf>,
    out: Out,
    counts: Arc<Counts>,
}

impl Writer {
    fn run(mut self) {
        let mut batch = Vec::new();
        let mut looked = Instant::now();
        loop {
            let mut next = match self.lines.recv_timeout(ROTATION_CHECK) {
                Ok(entry) => Some(entry),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if looked.elapsed() >= ROTATION_CHECK {
                looked = Instant::now();
                self.reopen_if_moved();
            }
            let mut lines = 0;
            let mut flushed = None;
            while let Some(entry) = next.take() {
                match entry {
                    Entry::Line(line) => {
                        batch.extend_from_slice(&line);
                        lines += 1;
                    }
                    Entry::Reopen => self.reopen(),
                    Entry::Flush(done) => flushed = Some(done),
                }
                if lines < BATCH_LINES_MAX && flushed.is_none() {
                    next = self.lines.try_recv().ok();
                }
            }
            let outcome = match self.out.write(&batch) {
                Ok(()) => &self.counts.written,
                Err(_) => &self.counts.dropped,
            };
            outcome.fetch_add(lines, Relaxed);
            batch.clear();
            // A full channel: nobody waits any more.
            flushed.map(|done| done.try_send(()));
        }
    }

    fn reopen_if_moved(&mut self) {
        let (Some(path), Out::File { inode, .. }) = (&self.path, &self.out) else { return };
        if std::fs::metadata(path).map(|it| it.ino()).ok() != Some(*inode) {
            self.reopen();
        }
    }

    fn reopen(&mut self) {
        match Out::open(self.path.as_deref()) {
            Ok(out) => self.out = out,
            Err(error) => tracing::warn!(%error, "cannot reopen the access log"),
        }
    }
}
