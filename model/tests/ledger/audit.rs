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
}

/// The limit was `budget` from `from_us` on; a lower one holds once `settle_us` has passed.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    pub from_us: u64,
    pub budget: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Excess {
    pub window_start_us: u64,
    pub admitted: u64,
    pub allowed: u64,
}

/// The worst window under the kindest of the orders that were tried, or none over the limit.
pub fn audit(admissions: &[Admission], window_us: u64, budgets: &[Budget], settle_us: u64) -> Option<Excess> {
    let orders: [fn(&Admission) -> u64; 3] =
        [|it| it.first_us, |it| it.answer_us, |it| it.said_us.clamp(it.first_us, it.answer_us)];
    let mut kindest = None;
    for order in orders {
        let mut placed: Vec<(u64, u64)> = admissions.iter().map(|it| (order(it), it.cost)).collect();
        placed.sort_unstable();
        match worst(&placed, window_us, budgets, settle_us) {
            None => return None,
            Some(excess) => kindest = Some(excess),
        }
    }
    kindest
}

fn worst(placed: &[(u64, u64)], window_us: u64, budgets: &[Budget], settle_us: u64) -> Option<Excess> {
    let (mut sum, mut end, mut worst): (u64, usize, Option<Excess>) = (0, 0, None);
    for (start_us, cost) in placed {
        while end < placed.len() && placed[end].0 < start_us + window_us {
            sum += placed[end].1;
            end += 1;
        }
        let allowed = allowed(*start_us, window_us, budgets, settle_us);
        if sum > allowed && worst.is_none_or(|it| sum - allowed > it.admitted - it.allowed) {
            worst = Some(Excess { window_start_us: *start_us, admitted: sum, allowed });
        }
        sum -= cost;
    }
    worst
}

/// The largest budget that may have been in force somewhere within the window.
fn allowed(start_us: u64, window_us: u64, budgets: &[Budget], settle_us: u64) -> u64 {
    let until = |n: usize| budgets.get(n + 1).map_or(u64::MAX, |next| next.from_us.saturating_add(settle_us));
    let in_force = |n: usize| budgets[n].from_us < start_us.saturating_add(window_us) && start_us < until(n);
    (0..budgets.len()).filter(|n| in_force(*n)).map(|n| budgets[n].budget).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Admission {
        Admission { first_us: us, answer_us: us, said_us: us, cost: 1 }
    }

    fn budget(budget: u64) -> Vec<Budget> {
        vec![Budget { from_us: 0, budget }]
    }

    #[test]
    fn the_window_is_half_open_and_every_one_counts() {
        assert_eq!(audit(&[at(0), at(5), at(10), at(15)], 10, &budget(2), 0), None);
        let excess = audit(&[at(0), at(5), at(9)], 10, &budget(2), 0).unwrap();
        assert_eq!((excess.admitted, excess.allowed), (3, 2));
    }

    #[test]
    fn an_admission_may_be_anywhere_up_to_its_answer() {
        let late = Admission { first_us: 9, answer_us: 12, said_us: 10, cost: 1 };
        assert_eq!(audit(&[at(0), at(5), late], 10, &budget(2), 0), None);
    }

    #[test]
    fn a_lower_budget_holds_once_it_has_settled() {
        let budgets = [Budget { from_us: 0, budget: 3 }, Budget { from_us: 100, budget: 1 }];
        assert_eq!(audit(&[at(105), at(106), at(107)], 10, &budgets, 10), None);
        assert!(audit(&[at(115), at(116)], 10, &budgets, 10).is_some());
    }
}
