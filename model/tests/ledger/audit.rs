//! The independent auditor. It sees every admission, knows nothing of slots, and asks one question: is there an order
//! of events under which no window held more than the limit? An admission happened at some instant between its
//! request's first byte and its answer.

/// Real time, microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Admission {
    pub first_us: u64,
    pub answer_us: u64,
    /// Where the node itself would place it.
    pub said_us: u64,
    pub cost: u64,
    /// Where; no question of the auditor's.
    pub node: usize,
}

/// The limit was `budget` from `from_us` on; a lower one holds once `settle_us` has passed.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    pub from_us: u64,
    pub budget: u64,
}

/// From then until then so much more may be admitted: a bonus, or what was forgiven. Of one key, or of all.
#[derive(Debug, Clone, Copy)]
pub struct Extra {
    pub key: Option<usize>,
    pub from_us: u64,
    pub until_us: u64,
    pub amount: u64,
}

/// What is promised of one key.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    pub budgets: Vec<Budget>,
    pub settle_us: u64,
    pub extras: Vec<Extra>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Excess {
    pub window_start_us: u64,
    pub admitted: u64,
    pub allowed: u64,
}

/// Where an admission may be placed.
const ORDERS: [fn(&Admission) -> u64; 3] =
    [|it| it.first_us, |it| it.answer_us, |it| it.said_us.clamp(it.first_us, it.answer_us)];

/// The worst window under the kindest of the orders that were tried, or none over the limit.
pub fn audit(admissions: &[Admission], window_us: u64, promised: &Allowed) -> Option<Excess> {
    let mut kindest = None;
    for order in ORDERS {
        let mut placed: Vec<(u64, u64)> = admissions.iter().map(|it| (order(it), it.cost)).collect();
        placed.sort_unstable();
        match worst(&placed, window_us, promised) {
            None => return None,
            Some(excess) => kindest = Some(excess),
        }
    }
    kindest
}

fn worst(placed: &[(u64, u64)], window_us: u64, promised: &Allowed) -> Option<Excess> {
    let (mut sum, mut end, mut worst): (u64, usize, Option<Excess>) = (0, 0, None);
    for (start_us, cost) in placed {
        while end < placed.len() && placed[end].0 < start_us + window_us {
            sum += placed[end].1;
            end += 1;
        }
        let allowed = promised.within(*start_us, window_us);
        if sum > allowed && worst.is_none_or(|it| sum - allowed > it.admitted - it.allowed) {
            worst = Some(Excess { window_start_us: *start_us, admitted: sum, allowed });
        }
        sum -= cost;
    }
    worst
}

/// Periods of equal length that begin at multiples of it, each up to `off_us` early or late: whether some placing of
/// their ends leaves none over the budget; None: it does. A period is closed as late as it may be, which leaves the least
/// to the next.
pub fn audit_periods(admissions: &[Admission], length_us: u64, off_us: u64, promised: &Allowed) -> Option<Excess> {
    let mut kindest = None;
    for order in ORDERS {
        let mut placed: Vec<(u64, u64)> = admissions.iter().map(|it| (order(it), it.cost)).collect();
        placed.sort_unstable();
        match worst_period(&placed, length_us, off_us, promised) {
            None => return None,
            Some(excess) => kindest = Some(excess),
        }
    }
    kindest
}

fn worst_period(placed: &[(u64, u64)], length_us: u64, off_us: u64, promised: &Allowed) -> Option<Excess> {
    let mut n = 0;
    for end_us in (1..).map(|k| k * length_us) {
        let begin_us = end_us - length_us;
        let allowed = promised.within(begin_us.saturating_sub(off_us), length_us + 2 * off_us);
        let mut sum = 0;
        while let Some((at_us, cost)) = placed.get(n).filter(|(at_us, _)| *at_us < end_us + off_us) {
            if sum + cost > allowed {
                if *at_us < end_us - off_us {
                    return Some(Excess { window_start_us: begin_us, admitted: sum + cost, allowed });
                }
                break;
            }
            sum += cost;
            n += 1;
        }
        if n == placed.len() {
            return None;
        }
    }
    None
}

/// What is in flight: from when it was let in until it ended.
pub fn audit_in_flight(flights: &[(u64, u64)], promised: &Allowed) -> Option<Excess> {
    let mut steps: Vec<(u64, i64)> = flights.iter().flat_map(|(from, to)| [(*from, 1), (*to, -1)]).collect();
    // What ends at an instant is not there any more when another begins.
    steps.sort_unstable();
    let (mut sum, mut worst): (i64, Option<Excess>) = (0, None);
    for (at_us, step) in steps {
        sum += step;
        let (admitted, allowed) = (sum.max(0) as u64, promised.within(at_us, 1));
        if admitted > allowed && worst.is_none_or(|it| admitted - allowed > it.admitted - it.allowed) {
            worst = Some(Excess { window_start_us: at_us, admitted, allowed });
        }
    }
    worst
}

impl Allowed {
    /// The largest budget that may have been in force somewhere within the window, and all that came beside it.
    fn within(&self, start_us: u64, window_us: u64) -> u64 {
        let Self { budgets, settle_us, extras } = self;
        let end_us = start_us.saturating_add(window_us);
        let until = |n: usize| budgets.get(n + 1).map_or(u64::MAX, |next| next.from_us.saturating_add(*settle_us));
        let in_force = |n: usize| budgets[n].from_us < end_us && start_us < until(n);
        let beside = extras.iter().filter(|it| it.from_us < end_us && start_us < it.until_us).map(|it| it.amount);
        (0..budgets.len()).filter(|n| in_force(*n)).map(|n| budgets[n].budget).max().unwrap_or(0) + beside.sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Admission {
        Admission { first_us: us, answer_us: us, said_us: us, cost: 1, node: 0 }
    }

    fn budget(budget: u64) -> Allowed {
        Allowed { budgets: vec![Budget { from_us: 0, budget }], ..Allowed::default() }
    }

    #[test]
    fn the_window_is_half_open_and_every_one_counts() {
        assert_eq!(audit(&[at(0), at(5), at(10), at(15)], 10, &budget(2)), None);
        let excess = audit(&[at(0), at(5), at(9)], 10, &budget(2)).unwrap();
        assert_eq!((excess.admitted, excess.allowed), (3, 2));
    }

    #[test]
    fn an_admission_may_be_anywhere_up_to_its_answer() {
        let late = Admission { first_us: 9, answer_us: 12, said_us: 10, cost: 1, node: 0 };
        assert_eq!(audit(&[at(0), at(5), late], 10, &budget(2)), None);
    }

    #[test]
    fn a_period_may_end_a_little_late_and_then_counts_what_came_before() {
        let two_and_two = [at(1), at(9), at(11), at(12)];
        assert_eq!(audit_periods(&two_and_two, 10, 1, &budget(2)), None);
        let three = [at(1), at(7), at(8)];
        assert!(audit_periods(&three, 10, 1, &budget(2)).is_some());
        // The third is of the next period only if that began early; then there is one too many there.
        let early = [at(1), at(2), at(9), at(15), at(16)];
        assert!(audit_periods(&early, 10, 1, &budget(2)).is_some());
    }

    #[test]
    fn what_has_ended_is_not_in_flight() {
        assert_eq!(audit_in_flight(&[(0, 5), (5, 9), (2, 4)], &budget(2)), None);
        assert!(audit_in_flight(&[(0, 5), (1, 9), (2, 4)], &budget(2)).is_some());
    }

    #[test]
    fn a_lower_budget_holds_once_it_has_settled() {
        let budgets = vec![Budget { from_us: 0, budget: 3 }, Budget { from_us: 100, budget: 1 }];
        let allowed = Allowed { budgets, settle_us: 10, extras: Vec::new() };
        assert_eq!(audit(&[at(105), at(106), at(107)], 10, &allowed), None);
        assert!(audit(&[at(115), at(116)], 10, &allowed).is_some());
    }

    #[test]
    fn a_bonus_counts_as_long_as_it_lasts() {
        let extra = Extra { key: None, from_us: 100, until_us: 110, amount: 2 };
        let allowed = Allowed { extras: vec![extra], ..budget(1) };
        assert_eq!(audit(&[at(105), at(106), at(107)], 10, &allowed), None);
        assert!(audit(&[at(110), at(111)], 10, &allowed).is_some());
    }
}
