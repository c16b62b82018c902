//! The search for an order that explains a history (Wing and Gong, 1993), with a memory of what was tried (Lowe, 2017).

use std::{collections::HashSet, fmt::Debug, hash::Hash};

use super::Operation;

/// What operations do. Two laws keep the search short, and each model must obey them. Where X can follow an unknown write U
/// as well as come instead of it, it leaves what it would have left without U, or changes nothing in either place: then U
/// may be left out, or put behind X, and is tried only right before an operation that needs it. And where X changes nothing,
/// it takes nothing away from what could have come before it: it may as well come at once.
pub trait Model {
    type State: Clone + Eq + Hash + Debug + Default;

    /// None: it cannot have happened here as it was told.
    fn step(&self, state: &Self::State, operation: &Operation) -> Option<Self::State>;

    /// Two unknown writes do the same, wherever they take effect.
    fn alike(&self, one: &Operation, other: &Operation) -> bool;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    Broken(Broken),
    /// It would have taken more memory than was allowed.
    Undecided,
}

/// No order explains it; this is the longest that was found, by places in the history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Broken {
    pub explained: Vec<usize>,
    /// One of these had to come next, and none could.
    pub stuck: Vec<usize>,
}

/// Tries orders until one explains all known outcomes; of the unknown writes as many take effect as it needs.
pub fn search<M: Model>(model: &M, operations: &[Operation], configurations_max: usize) -> Verdict {
    let mut search = Search::new(model, operations);
    let mut seen = HashSet::new();
    let mut broken = Broken::default();
    let mut path = vec![search.frame(M::State::default(), None)];
    loop {
        if search.left == 0 {
            return Verdict::Linearizable;
        }
        let top = path.last_mut().expect("the first frame ends the search");
        let Some((place, state)) = top.next.pop() else {
            if path.len() > broken.explained.len() + 1 || broken.stuck.is_empty() {
                let explained = path.iter().filter_map(|frame| frame.taken);
                broken.explained = explained.map(|place| search.places[place]).collect();
                broken.stuck = search.due().into_iter().map(|place| search.places[place]).collect();
            }
            path.pop();
            let Some(top) = path.last_mut() else { return Verdict::Broken(broken) };
            search.put_back(top.taken.take().expect("the frame above was made by taking one"));
            continue;
        };
        let before = search.is_unknown(place).then(|| top.state.clone());
        search.take(place);
        if !seen.insert((state.clone(), before.clone(), search.taken())) {
            search.put_back(place);
            continue;
        }
        if seen.len() > configurations_max {
            return Verdict::Undecided;
        }
        top.taken = Some(place);
        let frame = search.frame(state, before);
        path.push(frame);
    }
}

struct Frame<S> {
    state: S,
    /// Those that may come next with what they leave, the best last.
    next: Vec<(usize, S)>,
    /// The one that came next.
    taken: Option<usize>,
}

struct Search<'a, M> {
    model: &'a M,
    operations: &'a [Operation],
    /// Of the history, those that say something: known outcomes in the order of their calls, then unknown ones likewise.
    places: Vec<usize>,
    known: usize,
    done: Vec<u64>,
    /// Known outcomes that are not explained yet, and the first of them.
    left: usize,
    first: usize,
    /// Of those, the ones that were told a revision, in its order, and the first that is not done: revisions only grow.
    ranked: Vec<usize>,
    lowest: usize,
    rank: Vec<usize>,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, operations: &'a [Operation]) -> Self {
        let mut places: Vec<usize> = (0..operations.len()).filter(|at| !operations[*at].is_void()).collect();
        places.sort_by_key(|at| (operations[*at].is_unknown(), operations[*at].invoked_us));
        let known = places.iter().filter(|at| !operations[**at].is_unknown()).count();
        let done = vec![0; places.len().div_ceil(64)];
        let told = |place: &usize| operations[places[*place]].told();
        let mut ranked: Vec<usize> = (0..known).filter(|place| told(place).is_some()).collect();
        ranked.sort_by_key(told);
        let mut rank = vec![usize::MAX; places.len()];
        ranked.iter().enumerate().for_each(|(at, place)| rank[*place] = at);
        Self { model, operations, places, known, done, left: known, first: 0, ranked, lowest: 0, rank }
    }

    fn operation(&self, place: usize) -> &'a Operation {
        &self.operations[self.places[place]]
    }

    fn is_unknown(&self, place: usize) -> bool {
        place >= self.known
    }

    fn is_done(&self, place: usize) -> bool {
        self.done[place / 64] & (1 << (place % 64)) != 0
    }

    fn take(&mut self, place: usize) {
        self.done[place / 64] |= 1 << (place % 64);
        self.left -= usize::from(!self.is_unknown(place));
        while self.first < self.known && self.is_done(self.first) {
            self.first += 1;
        }
        while self.lowest < self.ranked.len() && self.is_done(self.ranked[self.lowest]) {
            self.lowest += 1;
        }
    }

    fn put_back(&mut self, place: usize) {
        self.done[place / 64] &= !(1 << (place % 64));
        if !self.is_unknown(place) {
            self.left += 1;
            self.first = self.first.min(place);
            self.lowest = self.lowest.min(self.rank[place]);
        }
    }

    /// Which are done, without the beginning of which all are.
    fn taken(&self) -> Box<[u64]> {
        let from = self.first / 64;
        let unknown = self.known / 64;
        let last = self.done[..unknown].iter().rposition(|word| *word != 0).map_or(from, |at| at + 1).max(from);
        let words = self.done[from..last].iter().chain(&self.done[unknown.max(last)..]);
        std::iter::once(self.first as u64).chain(words.copied()).collect()
    }

    /// Known outcomes that may come next: none is left that was answered before their call.
    fn due(&self) -> Vec<usize> {
        let mut due = Vec::new();
        let mut answered_us = u64::MAX;
        for place in (self.first..self.known).filter(|place| !self.is_done(*place)) {
            let operation = self.operation(place);
            if operation.invoked_us > answered_us {
                break;
            }
            answered_us = answered_us.min(operation.returned_us);
            due.push(place);
        }
        due
    }

    /// What may come next, those first that were answered first; unknown writes only where nothing else goes on.
    fn frame(&self, state: M::State, before: Option<M::State>) -> Frame<M::State> {
        let mut due = self.due();
        let answered_us = due.iter().map(|place| self.operation(*place).returned_us).min().unwrap_or(u64::MAX);
        due.sort_by_key(|place| self.operation(*place).returned_us);
        for place in self.known..self.places.len() {
            if self.operation(place).invoked_us > answered_us {
                break;
            }
            let same = |it: usize| !self.is_done(it) && self.model.alike(self.operation(it), self.operation(place));
            if !self.is_done(place) && !(self.known..place).any(same) {
                due.push(place);
            }
        }
        let lowest = self.ranked.get(self.lowest).and_then(|place| self.operation(*place).told());
        let goes = |place: usize| {
            let operation = self.operation(place);
            if operation.told() > lowest {
                return None;
            }
            let needless = before.as_ref().is_some_and(|before| self.model.step(before, operation).is_some());
            let after = self.model.step(&state, operation).filter(|_| !needless)?;
            Some((place, after))
        };
        let mut next: Vec<_> = due.into_iter().rev().filter_map(goes).collect();
        // What changes nothing may as well come now: there is no need to try anything else first.
        if let Some(at) = next.iter().position(|(place, after)| *after == state && !self.is_unknown(*place)) {
            next = vec![next.swap_remove(at)];
        }
        Frame { state, next, taken: None }
    }
}
