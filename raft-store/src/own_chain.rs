//! What one node writes down for itself and must not be able to deny: entries in files, each bound to the one before it by
//! its hash. What they say is not known here.
//!
//! A frame is: length of the payload (4), CRC32C of what follows (4), sequence (8), hash of the frame before (32), payload;
//! numbers are big-endian. A frame's hash is BLAKE3 over sequence, previous hash and payload.

use std::{
    cmp::Reverse,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use quorumgate_model::{
    digest::Digest,
    mutants::{self, Mutant},
};

use crate::journal::{Checked, What};

/// A file is closed at this size, and so many are kept.
const FILE_BYTES: u64 = 4 << 20;
const FILES_MAX: usize = 16;
/// The longest payload.
pub const PAYLOAD_BYTES_MAX: usize = 16 << 10;
const HEAD: &str = "head";
const PREFIX_BYTES: usize = 8;
const LINK_BYTES: usize = 40;
/// A head that is further ahead of the frames is wrong: no file that lost its end has held so many.
const AHEAD_MAX: u64 = 2 * FILE_BYTES / (PREFIX_BYTES + LINK_BYTES) as u64;

/// The newest entry: how many there were, and its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    pub count: u64,
    pub hash: Digest,
}

impl Head {
    /// As the newest frame that is right. A head that is somewhat ahead has seen entries that were cut off since, and one
    /// with another hash an entry that was altered since: what comes next bears witness to that.
    fn contradicts(self, head: Head) -> bool {
        match head.count.checked_sub(self.count) {
            Some(0) => false,
            Some(ahead) => head.hash == self.hash || ahead > AHEAD_MAX,
            None => true,
        }
    }
}

/// One entry as it was read, with the hash of its frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub sequence: u64,
    pub hash: Digest,
    /// Of the one before.
    pub previous: Digest,
    pub payload: Vec<u8>,
}

/// What the newest entry of a file says of the file's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    Over,
    Kept,
    /// It is of a clock that was ahead: the file is as old as the one behind it at least.
    Ahead,
}

/// The writing end; one of a directory.
pub struct OwnChain {
    dir: PathBuf,
    file: Option<(File, u64)>,
    head: Head,
    files_max: usize,
    /// Whether files may have been removed since `take_removed`.
    removed: bool,
}

impl OwnChain {
    /// What a crash left half written is cut off; anything else stays, for `check` to name.
    pub fn open(dir: &Path) -> Result<Self> {
        Self::open_keeping(dir, FILES_MAX)
    }

    /// With so many files at most.
    pub fn open_keeping(dir: &Path, files_max: usize) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
        let head = read_head(dir).unwrap_or_default();
        // By a process that has ended before it said so.
        let mut chain = Self { dir: dir.to_owned(), file: None, head, files_max, removed: true };
        if let Some((_, path)) = files(dir)?.pop() {
            let bytes = fs::read(&path)?;
            let (frames, whole) = frames(&bytes);
            let file = File::options().append(true).open(&path)?;
            if whole < bytes.len() {
                file.set_len(whole as u64)?;
            }
            // Written, and the head not yet.
            for frame in frames.iter().flatten() {
                if chain.head.count.checked_add(1) == Some(frame.sequence) && frame.previous == chain.head.hash {
                    chain.head = Head { count: frame.sequence, hash: frame.hash() };
                }
            }
            chain.file = Some((file, whole as u64));
        }
        if let Some(newest) = newest(dir)?.filter(|newest| newest.contradicts(chain.head)) {
            chain.head = newest;
        }
        Ok(chain)
    }

    pub fn head(&self) -> Head {
        self.head
    }

    /// Durable once it returns.
    pub fn append(&mut self, payloads: &[Vec<u8>]) -> Result<()> {
        let mut bytes = Vec::new();
        let mut head = self.head;
        for payload in payloads {
            ensure!(payload.len() <= PAYLOAD_BYTES_MAX, "an entry of {} bytes", payload.len());
            let frame = Frame { sequence: head.count + 1, previous: head.hash, payload };
            frame.encode(&mut bytes);
            head = Head { count: frame.sequence, hash: frame.hash() };
        }
        let first = self.head.count + 1;
        let (file, length) = match self.file.take() {
            Some((file, length)) if length < FILE_BYTES => (file, length),
            _ => (self.roll(first)?, 0),
        };
        let (file, length) = self.file.insert((file, length));
        file.write_all(&bytes)?;
        file.sync_data()?;
        *length += bytes.len() as u64;
        self.head = head;
        Ok(write_head(&self.dir, head)?)
    }

    /// The first entry of the file that is written to.
    pub fn first_of_file(&self) -> Result<Option<Vec<u8>>> {
        let Some((_, path)) = files(&self.dir)?.pop().filter(|_| self.file.is_some()) else { return Ok(None) };
        let bytes = fs::read(path)?;
        Ok(frames(&bytes).0.into_iter().flatten().next().map(|frame| frame.payload.to_vec()))
    }

    /// What comes next goes to another file.
    pub fn close_file(&mut self) {
        self.file = None;
    }

    /// Removes the oldest files while the newest entry of each is over; never the newest file.
    pub fn forget(&mut self, age: impl Fn(&[u8]) -> Age) -> Result<()> {
        let mut files = files(&self.dir)?;
        files.pop();
        let mut ahead = Vec::new();
        for (_, path) in files {
            let bytes = fs::read(&path)?;
            let newest = frames(&bytes).0.into_iter().flatten().next_back();
            ahead.push(path);
            match newest.map_or(Age::Kept, |frame| age(frame.payload)) {
                Age::Over => {}
                Age::Ahead => continue,
                Age::Kept => break,
            }
            self.removed = true;
            for path in ahead.drain(..) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Whether files may have been removed since this was asked last.
    pub fn take_removed(&mut self) -> bool {
        std::mem::take(&mut self.removed)
    }

    /// Looks at every entry that is kept.
    pub fn each(&self, mut look: impl FnMut(&[u8])) -> Result<()> {
        for (_, path) in files(&self.dir)? {
            let bytes = fs::read(path)?;
            frames(&bytes).0.into_iter().flatten().for_each(|frame| look(frame.payload));
        }
        Ok(())
    }

    fn roll(&mut self, first: u64) -> Result<File> {
        let file = File::options().append(true).create(true).open(self.dir.join(format!("{first:020}.chain")))?;
        let files = files(&self.dir)?;
        for (_, oldest) in files.iter().take(files.len().saturating_sub(self.files_max)) {
            self.removed = true;
            fs::remove_file(oldest)?;
        }
        Ok(file)
    }
}

/// Newest first, below that sequence number. Blocks on the disk.
pub fn read(dir: &Path, before: u64, limit: usize) -> Result<Vec<Link>> {
    let mut links = Vec::new();
    for (first, path) in files(dir)?.into_iter().rev() {
        if links.len() >= limit {
            break;
        }
        if first >= before {
            continue;
        }
        let Some(bytes) = kept(&path)? else { continue };
        let sound = frames(&bytes).0.into_iter().flatten().filter(|it| it.sequence < before);
        let mut of_file: Vec<_> = sound.map(|it| it.link()).collect();
        of_file.reverse();
        links.extend(of_file);
    }
    links.truncate(limit);
    Ok(links)
}

/// Oldest first, from that sequence number on. Blocks on the disk.
pub fn read_from(dir: &Path, first: u64, limit: usize) -> Result<Vec<Link>> {
    let files = files(dir)?;
    let begins = files.partition_point(|(from, _)| *from <= first).saturating_sub(1);
    let mut links = Vec::new();
    for (_, path) in &files[begins..] {
        if links.len() >= limit {
            break;
        }
        let Some(bytes) = kept(path)? else { continue };
        let sound = frames(&bytes).0.into_iter().flatten().filter(|it| it.sequence >= first);
        links.extend(sound.take(limit - links.len()).map(|it| it.link()));
    }
    Ok(links)
}

/// Follows the chain through all files, and holds it against what others have noted of it. Blocks on the disk.
pub fn check(dir: &Path, noted: Option<Head>) -> Result<Checked> {
    let files = if dir.exists() { files(dir)? } else { Vec::new() };
    let head = read_head(dir);
    let mut checked = Checked { last: head.map_or(0, |it| it.count), ..Checked::default() };
    let Some((first, _)) = files.first() else {
        if let Some(noted) = noted {
            checked.add(noted.count, What::Missing, "the cluster knows of it".into());
        }
        return Ok(checked.done());
    };
    checked.first = *first;
    let mut next = *first;
    let mut before: Option<Digest> = None;
    let mut flaws = Vec::new();
    let (mut at_noted, mut at_head) = (None, None);
    for (_, path) in &files {
        let bytes = fs::read(path)?;
        for frame in frames(&bytes).0 {
            let Some(frame) = frame else {
                flaws.push((next, next, What::Altered, "its bytes do not match their checksum".to_owned()));
                (next, before) = (next.saturating_add(1), None);
                continue;
            };
            checked.checked += 1;
            if frame.sequence > next {
                flaws.push((next, frame.sequence - 1, What::Missing, "it is not there".into()));
            } else if let Some(hash) =
                before.filter(|hash| *hash != frame.previous && !mutants::is(Mutant::ChainUnlinked))
            {
                let (sequence, previous) = (frame.sequence.saturating_sub(1), frame.previous);
                let why = format!("its hash is {hash}, and the next entry says {previous}");
                flaws.push((sequence, sequence, What::Altered, why));
            }
            let hash = frame.hash();
            (next, before) = (frame.sequence.saturating_add(1), Some(hash));
            if noted.is_some_and(|noted| noted.count == frame.sequence) {
                at_noted = before;
            }
            if head.is_some_and(|head| head.count == frame.sequence) {
                at_head = before;
            }
        }
    }
    let newest = next.saturating_sub(1);
    match head {
        Some(head) if head.count != newest && before == Some(head.hash) => {
            flaws.push((newest, newest, What::Altered, format!("the head says that it is entry {}", head.count)));
        }
        Some(head) if head.count > newest => {
            flaws.push((next, head.count, What::Missing, "it was cut off".into()));
        }
        Some(head) => {
            if let Some(hash) = at_head.filter(|hash| *hash != head.hash) {
                let why = format!("its hash is {hash}, and the head says {}", head.hash);
                flaws.push((head.count, head.count, What::Altered, why));
            }
        }
        None => {}
    }
    if let Some(noted) = noted.filter(|noted| noted.count >= *first) {
        if newest < noted.count {
            flaws.push((next, noted.count, What::Missing, "the cluster knows of it".into()));
        }
        if let Some(hash) = at_noted.filter(|hash| *hash != noted.hash) {
            let why = format!("its hash is {hash}, and the cluster knows {}", noted.hash);
            flaws.push((noted.count, noted.count, What::Altered, why));
        }
    }
    // Of two runs that begin alike, the longer.
    flaws.sort_by_key(|(sequence, until, what, _)| (Reverse(*sequence), *what, Reverse(*until)));
    flaws.dedup_by_key(|(sequence, ..)| *sequence);
    flaws.into_iter().for_each(|(sequence, until, what, why)| checked.add_run(sequence, until, what, why));
    Ok(checked.done())
}

struct Frame<'a> {
    sequence: u64,
    previous: Digest,
    payload: &'a [u8],
}

impl Frame<'_> {
    fn linked(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LINK_BYTES + self.payload.len());
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.previous.0);
        bytes.extend(self.payload);
        bytes
    }

    fn hash(&self) -> Digest {
        Digest::of(&self.linked())
    }

    fn link(&self) -> Link {
        Link { sequence: self.sequence, hash: self.hash(), previous: self.previous, payload: self.payload.to_vec() }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let linked = self.linked();
        out.extend((self.payload.len() as u32).to_be_bytes());
        out.extend(crc32c::crc32c(&linked).to_be_bytes());
        out.extend(linked);
    }
}

/// The frame at the start of the bytes and how many it takes; None where there is none that is right.
fn frame(bytes: &[u8]) -> Option<(Frame<'_>, usize)> {
    let (prefix, rest) = bytes.split_first_chunk::<PREFIX_BYTES>()?;
    let length = length(prefix)?;
    let linked = rest.get(..LINK_BYTES + length)?;
    let sum = u32::from_be_bytes([prefix[4], prefix[5], prefix[6], prefix[7]]);
    if crc32c::crc32c(linked) != sum {
        return None;
    }
    let sequence = u64::from_be_bytes(*linked.first_chunk()?);
    let previous = Digest::from_bytes(&linked[8..LINK_BYTES])?;
    Some((Frame { sequence, previous, payload: &linked[LINK_BYTES..] }, PREFIX_BYTES + linked.len()))
}

fn length(prefix: &[u8; PREFIX_BYTES]) -> Option<usize> {
    let length = u32::from_be_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]) as usize;
    (length <= PAYLOAD_BYTES_MAX).then_some(length)
}

/// All frames, None for each stretch that is damaged; and how far the file is written in whole frames.
fn frames(bytes: &[u8]) -> (Vec<Option<Frame<'_>>>, usize) {
    let (mut found, mut at, mut whole) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        if let Some((frame, taken)) = frame(&bytes[at..]) {
            found.push(Some(frame));
            at += taken;
            whole = at;
            continue;
        }
        // Where the next one that is right begins. None: this one was never written to its end, or is the last.
        match (at + 1..bytes.len()).find(|next| frame(&bytes[*next..]).is_some()) {
            Some(next) => {
                found.push(None);
                at = next;
            }
            None => {
                let prefix = bytes[at..].first_chunk::<PREFIX_BYTES>().and_then(length);
                let is_whole = prefix.is_some_and(|length| bytes.len() - at >= PREFIX_BYTES + LINK_BYTES + length);
                if is_whole {
                    found.push(None);
                    whole = bytes.len();
                }
                break;
            }
        }
    }
    (found, whole)
}

/// The newest frame that is right.
fn newest(dir: &Path) -> io::Result<Option<Head>> {
    for (_, path) in files(dir)?.into_iter().rev() {
        let bytes = fs::read(path)?;
        if let Some(frame) = frames(&bytes).0.into_iter().flatten().next_back() {
            return Ok(Some(Head { count: frame.sequence, hash: frame.hash() }));
        }
    }
    Ok(None)
}

/// None: it has been removed since the directory was looked at.
fn kept(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// By their first sequence number.
fn files(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let is_ours = path.extension().is_some_and(|it| it == "chain");
        if let Some(first) = path.file_stem().and_then(|it| it.to_str()?.parse().ok()).filter(|_| is_ours) {
            files.push((first, path));
        }
    }
    files.sort();
    Ok(files)
}

fn read_head(dir: &Path) -> Option<Head> {
    let bytes = fs::read(dir.join(HEAD)).ok()?;
    let (count, hash) = bytes.split_first_chunk::<8>()?;
    Some(Head { count: u64::from_be_bytes(*count), hash: Digest::from_bytes(hash)? })
}

/// Written aside and renamed; after a crash the one before is found again from the frames.
fn write_head(dir: &Path, head: Head) -> io::Result<()> {
    let fresh = dir.join("head.new");
    File::create(&fresh)?.write_all(&[&head.count.to_be_bytes()[..], &head.hash.0].concat())?;
    fs::rename(fresh, dir.join(HEAD))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::memory_dir;

    fn overwrite(file: &Path, bytes: &[u8]) {
        File::create(file).unwrap().write_all(bytes).unwrap();
    }

    fn payloads(numbers: std::ops::Range<u32>) -> Vec<Vec<u8>> {
        numbers.map(|number| format!("entry number {number}").into_bytes()).collect()
    }

    fn altered(dir: &Path) -> Vec<(u64, What)> {
        check(dir, None).unwrap().flaws.iter().map(|flaw| (flaw.sequence, flaw.what)).collect()
    }

    fn path(dir: &Path) -> PathBuf {
        files(dir).unwrap().pop().unwrap().1
    }

    #[test]
    fn entries_come_back_newest_first_and_the_chain_goes_on_after_a_restart() {
        let dir = memory_dir();
        OwnChain::open(dir.path()).unwrap().append(&payloads(0..3)).unwrap();
        let mut chain = OwnChain::open(dir.path()).unwrap();
        assert_eq!(chain.head().count, 3);
        chain.append(&payloads(3..5)).unwrap();
        let links = read(dir.path(), u64::MAX, 10).unwrap();
        assert_eq!(links.iter().map(|it| it.sequence).collect::<Vec<_>>(), [5, 4, 3, 2, 1]);
        assert_eq!(links[1].payload, b"entry number 3");
        assert_eq!(read(dir.path(), 3, 1).unwrap()[0].sequence, 2);
        assert_eq!((links[0].previous, links[4].previous), (links[1].hash, Digest::default()));
        let from = |first, limit| {
            let links = read_from(dir.path(), first, limit).unwrap();
            links.iter().map(|it| it.sequence).collect::<Vec<_>>()
        };
        assert_eq!((from(1, 2), from(4, 10), from(6, 10)), (vec![1, 2], vec![4, 5], vec![]));
        let checked = check(dir.path(), None).unwrap();
        assert_eq!((checked.checked, checked.first, checked.last, checked.flaws), (5, 1, 5, vec![]));
    }

    #[test]
    fn a_file_that_goes_while_it_is_read_takes_nothing_else_with_it() {
        let dir = memory_dir();
        let mut chain = OwnChain::open(dir.path()).unwrap();
        chain.append(&payloads(0..3)).unwrap();
        chain.close_file();
        chain.append(&payloads(3..5)).unwrap();
        let oldest = files(dir.path()).unwrap().remove(0).1;
        fs::remove_file(&oldest).unwrap();
        // It is still listed.
        std::os::unix::fs::symlink("nowhere", &oldest).unwrap();
        let sequences = |links: Vec<Link>| links.iter().map(|it| it.sequence).collect::<Vec<_>>();
        assert_eq!(sequences(read_from(dir.path(), 1, 10).unwrap()), [4, 5]);
        assert_eq!(sequences(read(dir.path(), u64::MAX, 10).unwrap()), [5, 4]);
    }

    #[test]
    fn any_byte_that_is_changed_names_its_entry() {
        let dir = memory_dir();
        OwnChain::open(dir.path()).unwrap().append(&payloads(0..4)).unwrap();
        let file = path(dir.path());
        let bytes = fs::read(&file).unwrap();
        let frame_bytes = bytes.len() / 4;
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            overwrite(&file, &changed);
            let sequence = (at / frame_bytes) as u64 + 1;
            let first = altered(dir.path()).first().map(|(sequence, _)| *sequence);
            assert_eq!(first, Some(sequence), "byte {at}");
        }
    }

    #[test]
    fn any_byte_of_the_head_that_is_changed_is_named_and_the_chain_goes_on() {
        let dir = memory_dir();
        OwnChain::open(dir.path()).unwrap().append(&payloads(0..4)).unwrap();
        let (file, at_head) = (path(dir.path()), dir.path().join(HEAD));
        let (bytes, head) = (fs::read(&file).unwrap(), fs::read(&at_head).unwrap());
        for at in 0..head.len() {
            let mut changed = head.clone();
            changed[at] ^= 0x10;
            overwrite(&file, &bytes);
            overwrite(&at_head, &changed);
            assert_eq!(altered(dir.path()), [(4, What::Altered)], "byte {at}");
            let mut chain = OwnChain::open(dir.path()).unwrap();
            chain.append(&payloads(4..5)).unwrap();
            // Whether the entry or the head was altered cannot be told from a hash.
            let left = if at < PREFIX_BYTES { vec![] } else { vec![(4, What::Altered)] };
            assert_eq!((chain.head().count, altered(dir.path())), (5, left), "byte {at}");
        }
        overwrite(&file, &bytes);
        overwrite(&at_head, &[&[0xff; 8][..], &[0; 32]].concat());
        let flaws = check(dir.path(), None).unwrap().flaws;
        let runs: Vec<_> = flaws.iter().map(|it| (it.sequence, it.until, it.what)).collect();
        assert_eq!(runs, [(5, u64::MAX, What::Missing)]);
        assert_eq!(OwnChain::open(dir.path()).unwrap().head().count, 4);
        fs::remove_file(&at_head).unwrap();
        assert_eq!(OwnChain::open(dir.path()).unwrap().head().count, 4);
    }

    #[test]
    fn a_forged_entry_with_a_right_checksum_breaks_the_chain() {
        let dir = memory_dir();
        OwnChain::open(dir.path()).unwrap().append(&payloads(0..4)).unwrap();
        let bytes = fs::read(path(dir.path())).unwrap();
        let mut forged = Vec::new();
        for frame in frames(&bytes).0.into_iter().flatten() {
            let payload = if frame.sequence == 2 { b"something else" } else { frame.payload };
            Frame { payload, ..frame }.encode(&mut forged);
        }
        overwrite(&path(dir.path()), &forged);
        assert_eq!(altered(dir.path()), [(2, What::Altered)]);
    }

    #[test]
    fn files_go_whole_once_all_of_them_is_over_and_what_is_left_is_whole() {
        let dir = memory_dir();
        let mut chain = OwnChain::open_keeping(dir.path(), 100).unwrap();
        for part in [0..2, 2..4, 4..6] {
            chain.append(&payloads(part)).unwrap();
            chain.close_file();
        }
        let numbers = |dir: &Path| read(dir, u64::MAX, 10).unwrap().iter().map(|it| it.sequence).collect::<Vec<_>>();
        let from = |first, limit| {
            let links = read_from(dir.path(), first, limit).unwrap();
            links.iter().map(|it| it.sequence).collect::<Vec<_>>()
        };
        assert_eq!((from(2, 2), from(4, 10)), (vec![2, 3], vec![4, 5, 6]), "over files");
        // The second file has one that is not over.
        chain.forget(|payload| if payload == b"entry number 3" { Age::Kept } else { Age::Over }).unwrap();
        assert_eq!(from(1, 2), [3, 4], "the oldest that is there");
        assert_eq!(numbers(dir.path()), [6, 5, 4, 3]);
        assert_eq!(altered(dir.path()), []);
        chain.forget(|_| Age::Over).unwrap();
        assert_eq!(numbers(dir.path()), [6, 5], "the newest stays");
    }

    #[test]
    fn a_chain_that_was_written_anew_contradicts_what_others_have_noted() {
        let dir = memory_dir();
        let mut chain = OwnChain::open(dir.path()).unwrap();
        chain.append(&payloads(0..3)).unwrap();
        let noted = chain.head();
        chain.append(&payloads(3..5)).unwrap();
        let against = |noted| {
            let flaws = check(dir.path(), noted).unwrap().flaws;
            flaws.iter().map(|flaw| (flaw.sequence, flaw.what)).collect::<Vec<_>>()
        };
        assert_eq!(against(Some(noted)), []);
        assert_eq!(against(Some(Head { count: 6, ..noted })), [(6, What::Missing)]);
        fs::remove_dir_all(dir.path()).unwrap();
        assert_eq!(against(Some(noted)), [(3, What::Missing)]);
        OwnChain::open(dir.path()).unwrap().append(&payloads(10..14)).unwrap();
        assert_eq!(against(Some(noted)), [(3, What::Altered)]);
    }

    #[test]
    fn what_was_cut_off_is_missed_and_what_a_crash_left_half_written_is_not() {
        let dir = memory_dir();
        let mut chain = OwnChain::open(dir.path()).unwrap();
        chain.append(&payloads(0..3)).unwrap();
        let bytes = fs::read(path(dir.path())).unwrap();
        overwrite(&path(dir.path()), &[&bytes[..], &[0, 0, 0]].concat());
        let mut chain = OwnChain::open(dir.path()).unwrap();
        chain.append(&payloads(3..4)).unwrap();
        assert_eq!(altered(dir.path()), []);
        overwrite(&path(dir.path()), &bytes[..bytes.len() / 3 * 2]);
        assert_eq!(altered(dir.path()), [(3, What::Missing)]);
    }
}
