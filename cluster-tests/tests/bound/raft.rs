//! Raft as far as the bound stands on it: elections with up-to-date logs, replication, commits of the leader's own term,
//! and a read index that a round of the quorum confirms which starts after the question.

use std::collections::BTreeMap;

pub type Node = usize;

/// How a node comes to call itself fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    Sound,
    CountsFromTheAnswer,
    LeaderAnswersAlone,
    /// Fresh once the state is there, whether or not the tables show it.
    CountsTheAppliedIndex,
}

/// An entry: its term, and the token that it revokes (none: blank).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub term: u64,
    pub token: Option<u32>,
}

#[derive(Debug, Clone)]
pub enum Message {
    Append { term: u64, round: u64, start: usize, before: u64, entries: Vec<Entry>, commit: usize },
    Appended { term: u64, round: u64, length: Option<usize> },
    Vote { term: u64, length: usize, last: u64 },
    Voted { term: u64 },
    Probe { probe: u64 },
    Answer { probe: u64, index: usize },
}

#[derive(Debug, Default)]
pub struct Member {
    pub me: Node,
    pub term: u64,
    voted: Option<Node>,
    votes: Vec<Node>,
    pub leader: Option<Node>,
    pub log: Vec<Entry>,
    pub commit: usize,
    /// Of the leader: how far each follower is, and the last round that it confirmed.
    matched: Vec<usize>,
    confirmed: Vec<u64>,
    round: u64,
    /// Questions that wait for a round: by the round, who asked and what to answer.
    reads: BTreeMap<u64, Vec<(Node, u64, usize)>>,
}

pub type Out = Vec<(Node, Message)>;

impl Member {
    pub fn new(me: Node, nodes: usize) -> Self {
        Self { me, matched: vec![0; nodes], confirmed: vec![0; nodes], ..Self::default() }
    }

    fn nodes(&self) -> usize {
        self.matched.len()
    }

    fn others(&self) -> impl Iterator<Item = Node> + use<> {
        let me = self.me;
        (0..self.nodes()).filter(move |node| *node != me)
    }

    pub fn leads(&self) -> bool {
        self.leader == Some(self.me)
    }

    fn last_term(&self) -> u64 {
        self.log.last().map_or(0, |entry| entry.term)
    }

    pub fn stand(&mut self, out: &mut Out) {
        self.term += 1;
        (self.voted, self.leader, self.votes) = (Some(self.me), None, vec![self.me]);
        self.reads.clear();
        let (term, length, last) = (self.term, self.log.len(), self.last_term());
        out.extend(self.others().map(|to| (to, Message::Vote { term, length, last })));
    }

    pub fn propose(&mut self, token: Option<u32>, out: &mut Out) {
        self.log.push(Entry { term: self.term, token });
        self.append(out);
    }

    /// A round of its own: what it confirms has started now.
    pub fn append(&mut self, out: &mut Out) {
        self.round += 1;
        for to in self.others() {
            let start = self.matched[to];
            out.push((
                to,
                Message::Append {
                    term: self.term,
                    round: self.round,
                    start,
                    before: start.checked_sub(1).map_or(0, |at| self.log[at].term),
                    entries: self.log[start..].to_vec(),
                    commit: self.commit,
                },
            ));
        }
    }

    pub fn take(&mut self, from: Node, message: Message, rule: Rule, out: &mut Out) -> Option<(u64, usize)> {
        match message {
            Message::Vote { term, length, last } => {
                self.follow(term);
                let current = (last, length) >= (self.last_term(), self.log.len());
                if term == self.term && current && self.voted.is_none_or(|node| node == from) {
                    self.voted = Some(from);
                    out.push((from, Message::Voted { term }));
                }
            }
            Message::Voted { term } => {
                if term == self.term && self.leader.is_none() && !self.votes.contains(&from) {
                    self.votes.push(from);
                    if self.votes.len() * 2 > self.nodes() {
                        self.lead(out);
                    }
                }
            }
            Message::Append { term, round, start, before, entries, commit } => {
                self.follow(term);
                if term < self.term {
                    return None;
                }
                self.leader = Some(from);
                let fits = start == 0 || self.log.get(start - 1).is_some_and(|entry| entry.term == before);
                let length = fits.then(|| self.store(start, &entries));
                if let Some(length) = length {
                    self.commit = self.commit.max(commit.min(length));
                }
                out.push((from, Message::Appended { term, round, length }));
            }
            Message::Appended { term, round, length } => {
                self.follow(term);
                if term == self.term && self.leads() {
                    self.confirmed[from] = self.confirmed[from].max(round);
                    match length {
                        Some(length) => self.matched[from] = self.matched[from].max(length),
                        None => self.matched[from] = self.matched[from].saturating_sub(1),
                    }
                    self.advance(out);
                }
            }
            Message::Probe { probe } => self.ask(from, probe, rule, out),
            Message::Answer { probe, index } => return Some((probe, index)),
        }
        None
    }

    /// Asked on the leader, and only once an entry of its own term is committed.
    pub fn ask(&mut self, from: Node, probe: u64, rule: Rule, out: &mut Out) {
        if !self.leads() || self.commit == 0 || self.log[self.commit - 1].term != self.term {
            return;
        }
        if rule == Rule::LeaderAnswersAlone {
            return out.push((from, Message::Answer { probe, index: self.commit }));
        }
        let read = (from, probe, self.commit);
        self.append(out);
        self.reads.entry(self.round).or_default().push(read);
        self.advance(out);
    }

    fn follow(&mut self, term: u64) {
        if term > self.term {
            (self.term, self.voted, self.leader) = (term, None, None);
            self.reads.clear();
        }
    }

    fn lead(&mut self, out: &mut Out) {
        self.leader = Some(self.me);
        self.matched = vec![0; self.nodes()];
        self.confirmed = vec![self.round; self.nodes()];
        self.propose(None, out);
    }

    fn store(&mut self, start: usize, entries: &[Entry]) -> usize {
        for (at, entry) in (start..).zip(entries) {
            if self.log.get(at).is_none_or(|own| own.term != entry.term) {
                assert!(at >= self.commit, "a committed entry is overwritten");
                self.log.truncate(at);
                self.log.push(*entry);
            }
        }
        start + entries.len()
    }

    fn advance(&mut self, out: &mut Out) {
        let most = |mut values: Vec<u64>| {
            values.sort_unstable();
            values[(values.len() - 1) / 2]
        };
        let of = |node: Node, own: u64, others: u64| if node == self.me { own } else { others };
        let stored = (0..self.nodes()).map(|node| of(node, self.log.len() as u64, self.matched[node] as u64));
        let stored = most(stored.collect()) as usize;
        if stored > self.commit && self.log[stored - 1].term == self.term {
            self.commit = stored;
        }
        let confirmed = most((0..self.nodes()).map(|node| of(node, self.round, self.confirmed[node])).collect());
        let open = self.reads.split_off(&(confirmed + 1));
        for (from, probe, index) in std::mem::replace(&mut self.reads, open).into_values().flatten() {
            out.push((from, Message::Answer { probe, index }));
        }
    }
}
