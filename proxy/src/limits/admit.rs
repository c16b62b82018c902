//! Phase 12: all limits of a route admit a request, or none of them counts it.

use std::{
    cell::RefCell,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::HeaderMap;
use quorumgate_model::{
    ledger::{
        bucket::Taken,
        command::Key,
        holder::Ask,
        lease::{Denied, Lease},
    },
    mutants::{self, Mutant},
    resource::{AiTokens, LimitCost, LimitKind, Name, OnNoQuorum},
};
use tokio::time::{Instant, timeout_at};

pub(crate) use super::key::Asked;
use super::{
    LOCAL_KEYS_MAX, Limits,
    answer::OverLimit,
    count::Handle,
    key,
    plan::{Plan, count},
};
use crate::{freshness::boottime_ns, refusal::Refusal};

/// How long an exchange waits where its node has no share of a limit yet.
const FIRST_WAIT_MAX: Duration = Duration::from_millis(500);
const SECOND_US: u64 = 1_000_000;
/// Whoever waited so long without an entry of the log has no quorum.
const ROUND_MAX: Duration = Duration::from_secs(1);
/// How many exchanges may wait for slots of one key.
const WAITERS_MAX: u32 = 1_024;
/// A permit's exchange is ended this long before the permit comes back to others by itself: the clock that ends it ticks.
const HOLD_SLACK_US: u64 = 200_000;
/// A share is told to run low below this part of it.
const LOW_PART: u64 = 4;

thread_local! {
    /// Where a worker writes keys; used within one poll only.
    static WHO: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What an exchange has taken. Permits go back when it is dropped, which is when the exchange ends.
#[derive(Default)]
pub(crate) struct Admitted {
    pub(super) grants: Vec<Grant>,
    /// When the first permit is over, on CLOCK_BOOTTIME.
    pub(crate) ends_at_us: Option<u64>,
    /// Not all limits have decided yet: whoever leaves now was not let in.
    deciding: bool,
}

/// Of one limit.
pub(super) struct Grant {
    pub(super) plan: Arc<Plan>,
    pub(super) handle: Handle,
    /// None: the request costs nothing, or was let through without being counted.
    taken: Option<Taken>,
    /// What a soft limit has no slots for: it is owed once all have let the request in.
    owes: Option<u32>,
    unsettled: Option<Unsettled>,
}

/// Why one limit does not admit.
enum Over {
    /// Slots come back at this instant, as far as is known.
    Until(Option<u64>),
    /// The cluster cannot be asked, and the limit denies then.
    Unavailable,
}

/// What a request may cost of the tokens of models, or has cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tokens {
    pub(crate) input: u64,
    pub(crate) output: u64,
}

impl Tokens {
    fn of(self, kind: AiTokens) -> u64 {
        match kind {
            AiTokens::Total => self.input.saturating_add(self.output),
            AiTokens::Input => self.input,
            AiTokens::Output => self.output,
        }
    }
}

/// What is known of a request that asks to be let in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Known {
    /// All there will be: it asks no model.
    Head,
    /// It asks a model, and how much of it is told once its body was read.
    HeadBefore,
    /// That, by a request whose head was let in.
    Body(Tokens),
}

/// Takes from all limits in their order, or from none; what was `admitted` before goes back then too.
pub(crate) async fn admit(
    limits: &Arc<Limits>,
    names: &[Name],
    asked: &Asked<'_>,
    known: Known,
    admitted: Option<Box<Admitted>>,
) -> Result<Option<Box<Admitted>>, Refusal> {
    if names.is_empty() {
        return Ok(None);
    }
    let none = || Box::new(Admitted { grants: Vec::with_capacity(names.len()), ends_at_us: None, deciding: true });
    let mut admitted = admitted.unwrap_or_else(none);
    admitted.deciding = true;
    let before = admitted.grants.len();
    let head_alone = matches!(known, Known::HeadBefore);
    let several = names.len() > 1 || head_alone;
    for name in names {
        // One load each: a change in between is a change between two limits, which no request can tell.
        let plan = limits.plans.load().get(name).cloned();
        let Some(plan) = plan.filter(|it| it.broken.is_none()) else {
            admitted.undo();
            return Err(Refusal::BrokenRule);
        };
        if !asked.is_meant(&plan.limit.plans) {
            continue;
        }
        let cost = match (&plan.limit.cost, known) {
            (LimitCost::AiTokens(kind), Known::Body(tokens)) => tokens.of(*kind),
            (LimitCost::AiTokens(_), Known::HeadBefore) | (_, Known::Body(_)) => continue,
            // Nobody counts tokens on this route: what the limit is for would be let through.
            (LimitCost::AiTokens(_), Known::Head) => {
                admitted.undo();
                return Err(Refusal::BrokenRule);
            }
            (cost, Known::Head | Known::HeadBefore) => self::cost(cost, asked.headers),
        };
        let mut unsettled = None;
        match limits.take(&plan, asked, cost, several, &mut unsettled).await {
            Ok((handle, taken, owes)) => {
                if let (LimitKind::Concurrency { .. }, Some(taken)) = (&plan.limit.kind, &taken) {
                    // Where the hold was just edited the lease may still go by another one.
                    let hold_us = handle.lease().map_or(plan.window_us, |it| it.window_us().min(plan.window_us));
                    let ends_us = (taken.at_us + hold_us).saturating_sub(HOLD_SLACK_US.min(hold_us / 4));
                    admitted.ends_at_us = Some(admitted.ends_at_us.map_or(ends_us, |it| it.min(ends_us)));
                }
                admitted.grants.push(Grant { plan, handle, taken, owes, unsettled });
            }
            // Whatever the reason: it refuses nobody.
            Err(_) if plan.limit.soft => count(&plan.keys.tally.let_through),
            Err((handle, Over::Until(at_us))) => {
                count(&plan.keys.tally.refused);
                admitted.undo();
                let over = OverLimit::new(&plan, handle.as_ref(), limits, at_us, now_us());
                return Err(Refusal::OverLimit(Box::new(over)));
            }
            Err((_, Over::Unavailable)) => {
                count(&plan.keys.tally.unavailable);
                admitted.undo();
                return Err(Refusal::LimitUnavailable(plan.limit.name.clone()));
            }
        }
    }
    admitted.decided(limits, before, head_alone);
    Ok(Some(admitted))
}

/// What one request costs. A header that is missing or not a number costs 1; a number that no limit has is more than any.
fn cost(cost: &LimitCost, headers: &HeaderMap) -> u64 {
    match cost {
        LimitCost::Fixed(cost) => *cost,
        LimitCost::RequestHeader(name) => number(headers, name).unwrap_or(1),
        LimitCost::ResponseHeader { reserve, .. } => *reserve,
        // Told by `Tokens`.
        LimitCost::AiTokens(_) => 0,
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    let text = headers.get(name)?.to_str().ok()?.trim();
    let digits = !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

impl Admitted {
    /// The request is not let in after all: nothing of it counts.
    fn undo(&mut self) {
        self.deciding = false;
        for grant in self.grants.drain(..).filter(|_| !mutants::is(Mutant::RefusedCounts)) {
            match (grant.taken, &grant.unsettled) {
                (Some(taken), _) => grant.handle.put_back(taken),
                (None, Some(Unsettled { lease, owed: Some((epoch, cost)) })) if lease.epoch() == *epoch => {
                    lease.owe_less(*cost);
                }
                (None, _) => {}
            }
        }
    }

    /// All have let it in, from this grant on: that counts, and what no answer settles may go where it is needed. Where the body
    /// has yet to be asked about, what its head took stays.
    fn decided(&mut self, limits: &Limits, from: usize, head_alone: bool) {
        self.deciding = false;
        for grant in &mut self.grants[from..] {
            count(&grant.plan.keys.tally.admitted);
            grant.owe(limits);
        }
        if !head_alone {
            self.grants.iter_mut().filter(|it| !settles(&it.plan)).for_each(|it| it.unsettled = None);
        }
    }

    /// The answer says what it cost: what was reserved beyond goes back, and what is missing is taken, now or as soon as
    /// there is something. An answer that does not say, or that never came, costs what was reserved.
    pub(crate) fn settle(&mut self, limits: &Limits, headers: &HeaderMap) {
        for grant in &mut self.grants {
            let LimitCost::ResponseHeader { header, reserve } = &grant.plan.limit.cost else { continue };
            let Some(real) = number(headers, header) else { continue };
            let reserve = *reserve;
            grant.settle(limits, reserve, real);
        }
    }

    /// The same of tokens of models, by what they were in the end.
    pub(crate) fn settle_tokens(&mut self, limits: &Limits, real: Tokens) {
        for grant in &mut self.grants {
            let LimitCost::AiTokens(kind) = grant.plan.limit.cost else { continue };
            let owed = grant.unsettled.as_ref().and_then(|it| it.owed).map(|(_, cost)| cost);
            let Some(reserved) = grant.taken.as_ref().map(|it| u64::from(it.cost())).or(owed) else { continue };
            grant.settle(limits, reserved, real.of(kind));
        }
    }
}

impl Grant {
    /// Let in all the same, and counted as soon as there is something.
    fn owe(&mut self, limits: &Limits) {
        let (Some(cost), Some(lease)) = (self.owes.take(), self.handle.lease()) else { return };
        lease.owe(u64::from(cost), self.plan.slots);
        if let Some(unsettled) = &mut self.unsettled {
            unsettled.owed = Some((lease.epoch(), u64::from(cost)));
        }
        limits.signal(&self.handle);
    }

    /// What is owed is asked of the cluster at once: nobody is let in on it meanwhile.
    fn settle(&mut self, limits: &Limits, reserved: u64, real: u64) {
        let Some(taken) = &mut self.taken else { return self.settle_owed(limits, reserved, real) };
        match real.checked_sub(reserved) {
            None => self.handle.put_back(taken.part(small(reserved - real))),
            // No more than there ever is: whatever an answer says, the key is back after a window for each node.
            Some(missing) if missing > 0 && self.handle.owe(taken, missing, self.plan.slots, now_us()) > 0 => {
                limits.signal(&self.handle);
            }
            Some(_) => {}
        }
        self.unsettled = None;
    }

    /// Of a soft limit that let in what it had no slots for: all of it is owed.
    fn settle_owed(&mut self, limits: &Limits, reserved: u64, real: u64) {
        let Some(Unsettled { lease, owed: Some((epoch, _)) }) = &self.unsettled else { return };
        if lease.epoch() != *epoch {
            // Of a period or a lease that is over.
            return;
        }
        match real.checked_sub(reserved) {
            None => lease.owe_less(reserved - real),
            Some(missing) => lease.owe(missing, self.plan.slots),
        }
        if lease.pay(now_us()) > 0 {
            limits.signal(&self.handle);
        }
        self.unsettled = None;
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if self.deciding && !mutants::is(Mutant::LeaverCounts) {
            return self.undo();
        }
        for grant in &mut self.grants {
            if let (LimitKind::Concurrency { .. }, Some(taken)) = (&grant.plan.limit.kind, grant.taken.take()) {
                grant.handle.put_back(taken);
            }
        }
    }
}

/// The last of what let it in: what is owed for that.
type Took = Result<(Handle, Option<Taken>, Option<u32>), (Option<Handle>, Over)>;

impl Limits {
    /// `unsettled` is set before anything is taken that an answer may give back, or, where there are `several` limits, a refusal by another one.
    async fn take(
        &self,
        plan: &Arc<Plan>,
        asked: &Asked<'_>,
        cost: u64,
        several: bool,
        unsettled: &mut Option<Unsettled>,
    ) -> Took {
        if plan.id.is_some() && self.expected_until_us.load(Ordering::Relaxed) > 0 {
            Box::pin(self.first_session(plan.limit.grant_wait.0)).await;
        }
        let Some(mut handle) = self.handle(plan, asked) else { return Err((None, Over::Unavailable)) };
        if cost == 0 {
            return Ok((handle, None, None));
        }
        // It could never be admitted.
        if cost > plan.slots.min(u64::from(plan.slots_u32())) {
            return Err((Some(handle), Over::Until(None)));
        }
        let cost = small(cost);
        // What is lent one by one goes home as soon as it was used.
        let holds = several && plan.is_on_demand(self.divisor());
        *unsettled = Unsettled::begin(plan, &handle, holds);
        let mut waits: Option<Waits> = None;
        loop {
            // Before the first look, so that nothing is missed after it.
            let mut applied = waits.is_some().then(|| self.applied.subscribe());
            let now_us = now_us();
            let next_us = match handle.take(cost, now_us) {
                Ok(taken) => {
                    if taken.left < self.low(plan, &handle) {
                        self.signal(&handle);
                    }
                    return Ok((handle, Some(taken), None));
                }
                Err(Denied::Short { next_us }) => next_us,
                Err(Denied::NoSession) if handle.is_retired() => None,
                Err(Denied::NoSession) if plan.limit.on_no_quorum == OnNoQuorum::Allow => {
                    return Ok((handle, None, None));
                }
                Err(Denied::NoSession) => return Err((Some(handle), Over::Unavailable)),
            };
            if handle.is_retired() {
                forget(plan, &handle);
                match self.handle(plan, asked) {
                    Some(fresh) => handle = fresh,
                    None => return Err((Some(handle), Over::Unavailable)),
                }
                *unsettled = Unsettled::begin(plan, &handle, holds);
                // It waits for slots of the other one, no longer than it would have.
                if let Some(waiting) = waits.take() {
                    waits = Waits::until(&handle, cost, waiting.until, waiting.seen);
                }
                continue;
            }
            if plan.id.is_none() {
                return Err((Some(handle), Over::Until(next_us)));
            }
            let on_demand = plan.is_on_demand(self.divisor());
            if !on_demand && handle.holds_any(now_us) {
                self.signal(&handle);
                return Err((Some(handle), Over::Until(next_us)));
            }
            if let Some(until_us) = self.denied_until(&handle, now_us) {
                return Err((Some(handle), Over::Until(Some(until_us))));
            }
            if plan.limit.soft {
                // A permit that came later would not go back with the exchange.
                return match plan.limit.kind {
                    LimitKind::Concurrency { .. } => Err((Some(handle), Over::Until(next_us))),
                    _ => Ok((handle, None, Some(cost))),
                };
            }
            let seen = *self.applied.borrow();
            let until = || Instant::now() + plan.limit.grant_wait.0.min(longest(on_demand));
            let waiting = match &waits {
                Some(waiting) => waiting,
                None => match Waits::until(&handle, cost, until(), seen) {
                    Some(waiting) => {
                        count(&plan.keys.tally.waited);
                        applied = Some(self.applied.subscribe());
                        self.signal(&handle);
                        waits.insert(waiting)
                    }
                    None => return Err((Some(handle), Over::Unavailable)),
                },
            };
            let Some(applied) = &mut applied else { continue };
            let (until, seen) = (waiting.until, waiting.seen);
            // It may have come between the look and the subscription.
            if let Ok(taken) = handle.take(cost, self::now_us()) {
                return Ok((handle, Some(taken), None));
            }
            match timeout_at(until, applied.changed()).await {
                Ok(Ok(())) => {}
                // There is a cluster, and nothing for this node.
                Err(_) if !on_demand => return Err((Some(handle), Over::Until(Some(self::now_us() + SECOND_US)))),
                Err(_) if self.is_led(&handle, seen) => {
                    let ends_us = handle.of_period().map(|(ends_us, _)| ends_us);
                    return Err((Some(handle), Over::Until(ends_us.or(next_us))));
                }
                // An entry takes longer than this wait may: that says nothing of a quorum, and the session still lasts.
                Err(_)
                    if plan.limit.grant_wait.0 < ROUND_MAX
                        && handle.lease().is_some_and(|it| it.is_covered(self::now_us())) =>
                {
                    return Err((Some(handle), Over::Until(Some(self::now_us() + SECOND_US))));
                }
                Ok(Err(_)) | Err(_) if plan.limit.on_no_quorum == OnNoQuorum::Allow => {
                    return Ok((handle, None, None));
                }
                Ok(Err(_)) | Err(_) => return Err((Some(handle), Over::Unavailable)),
            }
        }
    }

    /// Waits until this node may spend for the first time since its start, at most for so long.
    async fn first_session(&self, wait: Duration) {
        let mut applied = self.applied.subscribe();
        let until_us = self.expected_until_us.load(Ordering::Relaxed);
        let until = Instant::now() + wait.min(Duration::from_micros(until_us.saturating_sub(now_us())));
        loop {
            let now_us = now_us();
            if now_us >= until_us || self.spends_until_us() > now_us {
                return self.expected_until_us.store(0, Ordering::Relaxed);
            }
            if !matches!(timeout_at(until, applied.changed()).await, Ok(Ok(()))) {
                return;
            }
        }
    }

    /// Whether the cluster has answered since it had applied `seen`: then there is nothing, and not nobody.
    fn is_led(&self, handle: &Handle, seen: u64) -> bool {
        let lasts = handle.lease().is_some_and(|it| it.is_covered(now_us()));
        lasts && *self.applied.borrow() != seen
    }

    /// Decides one request of a key by what is here, without waiting for more; None: the limit is unknown, or has no room
    /// for the key.
    pub fn decide(&self, limit: &Name, who: &str, cost: u32) -> Option<bool> {
        let plans = self.plans.load();
        let plan = plans.get(limit)?;
        let found = plan.keys.found(who);
        let handle = found.or_else(|| self.first_of(plan, who))?;
        Some(handle.take(cost, now_us()).is_ok())
    }

    /// The count of this request's key, made at its first request.
    fn handle(&self, plan: &Arc<Plan>, asked: &Asked<'_>) -> Option<Handle> {
        WHO.with_borrow_mut(|who| {
            key::write(&plan.limit.per, asked, who);
            plan.keys.found(who).or_else(|| self.first_of(plan, who))
        })
    }

    #[cold]
    fn first_of(&self, plan: &Arc<Plan>, who: &str) -> Option<Handle> {
        let who: Arc<str> = who.into();
        let handle = match plan.id {
            Some(limit) => {
                let mut holder = self.holder();
                Handle::Leased(holder.as_mut()?.lease(&Key { limit, who }, now_us())?)
            }
            None if self.local_keys.load(Ordering::Relaxed) >= LOCAL_KEYS_MAX => return None,
            None => Handle::local(who, plan.local.clone(), now_us()),
        };
        let is_local = handle.lease().is_none();
        let handles = plan.keys.handles.pin();
        loop {
            if handles.try_insert(handle.clone(), ()).is_ok() {
                self.local_keys.fetch_add(usize::from(is_local), Ordering::Relaxed);
                return Some(handle);
            }
            // Another worker was faster, with the same lease.
            if let Some((there, ())) = handles.get_key_value(&handle) {
                return Some(there.clone());
            }
        }
    }

    /// Whether slots that are lent one by one are all out, and until when.
    fn denied_until(&self, handle: &Handle, now_us: u64) -> Option<u64> {
        let lease = handle.lease()?;
        let version = *self.applied.borrow();
        if let Some(until_us) = lease.denied_until(version, now_us) {
            return Some(until_us);
        }
        match self.holder().as_ref()?.ask(&lease.key(), now_us)? {
            Ask::Wait => None,
            Ask::DenyUntil(until_us) => {
                lease.deny_until(version, until_us);
                Some(until_us)
            }
        }
    }

    /// Below this a share runs low.
    fn low(&self, plan: &Plan, handle: &Handle) -> u64 {
        if let (true, Some(lease)) = (plan.is_calendar(), handle.lease()) {
            return lease.low();
        }
        match self.divisor.load(Ordering::Relaxed) {
            0 => 0,
            divisor => plan.slots / divisor / LOW_PART,
        }
    }

    /// The holder looks at the key soon; never waits for it.
    fn signal(&self, handle: &Handle) {
        let Some(lease) = handle.lease() else { return };
        if lease.signal() && self.signals.try_send(lease.key()).is_err() {
            lease.signal_seen();
        }
        self.wake.notify_one();
    }
}

pub(super) fn forget(plan: &Plan, handle: &Handle) {
    if handle.lease().is_some() {
        // Whoever was faster has put another one there. One that gave way to another goes as well.
        let _ = plan.keys.handles.pin().remove_if(handle, |there, ()| there.is(handle) || there.is_retired());
    }
}

/// Whether answers say what a request cost.
fn settles(plan: &Plan) -> bool {
    matches!(plan.limit.cost, LimitCost::ResponseHeader { .. } | LimitCost::AiTokens(_))
}

/// As long as an exchange's answer has yet to say what it cost, or another limit whether it is let in: what it took stays on
/// this node until then.
pub(super) struct Unsettled {
    lease: Arc<Lease>,
    /// What a soft limit let in without slots, and to which epoch of the lease that is owed.
    owed: Option<(u16, u64)>,
}

impl Unsettled {
    fn begin(plan: &Plan, handle: &Handle, holds: bool) -> Option<Self> {
        // A permit stays in any case.
        let holds = holds && !matches!(plan.limit.kind, LimitKind::Concurrency { .. });
        let lease = handle.lease().filter(|_| holds || settles(plan))?.clone();
        lease.unsettled();
        Some(Self { lease, owed: None })
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        self.lease.settled();
    }
}

/// An exchange's place among those that wait for slots of a key.
struct Waits {
    lease: Arc<Lease>,
    cost: u32,
    until: Instant,
    /// What was applied when it began to wait.
    seen: u64,
}

impl Waits {
    /// None: too many wait already.
    fn until(handle: &Handle, cost: u32, until: Instant, seen: u64) -> Option<Self> {
        let lease = handle.lease()?.clone();
        lease.wait(cost, WAITERS_MAX).then(|| Self { lease, cost, until, seen })
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.lease.wait_over(self.cost);
    }
}

fn longest(on_demand: bool) -> Duration {
    if on_demand { Duration::MAX } else { FIRST_WAIT_MAX }
}

pub(super) fn now_us() -> u64 {
    boottime_ns() / 1_000
}

fn small(cost: u64) -> u32 {
    u32::try_from(cost).unwrap_or(u32::MAX)
}
