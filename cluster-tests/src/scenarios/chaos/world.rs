//! What clients and faults of one round share: the nodes as they were at its begin, and a timeline of what happened.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Instant,
};

use crate::Member;

#[derive(Debug, Clone)]
pub struct Node {
    pub name: Arc<str>,
    pub socket: PathBuf,
    pub proxy: SocketAddr,
}

impl Node {
    pub fn of(member: &Member) -> Self {
        Self { name: member.name.as_str().into(), socket: member.socket(), proxy: member.proxy }
    }
}

/// What happened to the cluster, in microseconds of the run.
#[derive(Debug, Clone)]
pub struct Timeline {
    since: Instant,
    events: Arc<Mutex<Vec<(u64, String)>>>,
}

impl Timeline {
    pub fn new(since: Instant) -> Self {
        Self { since, events: Arc::default() }
    }

    pub fn note(&self, what: impl Into<String>) {
        let at_us = self.since.elapsed().as_micros() as u64;
        self.events.lock().expect("no panic while it is held").push((at_us, what.into()));
    }

    pub fn events(&self) -> Vec<(u64, String)> {
        self.events.lock().expect("no panic while it is held").clone()
    }
}

/// The processes behind the nodes, as those see them who must know whether it is still the same.
#[derive(Debug, Clone, Default)]
pub struct Processes(Arc<Mutex<Vec<Process>>>);

#[derive(Debug, Clone, Copy, Default)]
pub struct Process {
    pub incarnation: u64,
    /// What it serves, by what it, or a receipt, has said.
    pub serves: u64,
}

impl Processes {
    pub fn new(count: usize) -> Self {
        Self(Arc::new(Mutex::new(vec![Process::default(); count])))
    }

    pub fn of(&self, node: usize) -> Process {
        self.all()[node]
    }

    pub fn all(&self) -> Vec<Process> {
        self.0.lock().expect("no panic while it is held").clone()
    }

    /// Before a process is ended.
    pub fn end(&self, node: usize) {
        if let Some(process) = self.0.lock().expect("no panic while it is held").get_mut(node) {
            *process = Process { incarnation: process.incarnation + 1, serves: 0 };
        }
    }

    /// It serves this much, if it is still the same process.
    pub fn serves(&self, node: usize, incarnation: u64, much: u64) {
        let mut all = self.0.lock().expect("no panic while it is held");
        if let Some(process) = all.get_mut(node).filter(|it| it.incarnation == incarnation) {
            process.serves = process.serves.max(much);
        }
    }
}
