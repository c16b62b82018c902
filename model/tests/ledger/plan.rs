//! One schedule: a cluster, a limit, a load and what goes wrong when. Everything follows from the seed.

use crate::chance::Chance;

pub const S: u64 = 1_000_000;
pub const MS: u64 = 1_000;
/// When a schedule of `Plan::killed` kills, or up to 2 s later.
pub const KILLED_US: u64 = 61 * S;

#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub nodes: usize,
    /// Nodes that are there from the start; the others join.
    pub founders: usize,
    /// One way, between two nodes.
    pub delay_us: Vec<Vec<u64>>,
    pub drift_ppm: Vec<i64>,
    pub wall_us: Vec<u64>,
    pub kind: What,
    pub limit: u64,
    /// The window, the length of a calendar period, or how long an exchange may hold a permit.
    pub window_us: u64,
    pub poll_us: u64,
    pub heartbeat_us: u64,
    pub exact: bool,
    /// A part is kept for a time without a quorum.
    pub reserve: bool,
    /// Of each node; where there are several, each has a part of every lease.
    pub workers: usize,
    pub session_us: u64,
    /// When the first request comes.
    pub from_us: u64,
    pub until_us: u64,
    pub load: Load,
    /// Requests a second, over all nodes and keys.
    pub per_second: f64,
    pub cost: u64,
    pub keys: u64,
    pub loss_percent: u64,
    pub twice_percent: u64,
    pub stall_percent: u64,
    /// Of `Load::Killed`: how much is on that node.
    pub killed_percent: u64,
    /// Of how many of a hundred requests the answer says that they cost more.
    pub late_percent: u64,
    /// Edits are those of builds that keep counters over them.
    pub keeps_counters: bool,
    /// Whether it is noted where slots are.
    pub sampled: bool,
    pub faults: Vec<(u64, Fault)>,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Sliding,
    /// Periods as long as the window, from the beginning of Unix time on.
    Calendar,
    Concurrency,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    Even,
    /// Most of it on one node.
    Skewed,
    /// The one node changes every so often.
    Moving {
        every_us: u64,
    },
    /// All at once, then nothing, then all at once.
    Bursts {
        every_us: u64,
    },
    /// A part of it on one node until that is killed, and then all on the others.
    Killed {
        node: usize,
        at_us: u64,
    },
    /// One node only.
    Alone,
    #[cfg_attr(not(feature = "mutants"), expect(dead_code, reason = "of a schedule made for a mistake"))]
    /// Most of it on node 1, then three times as much everywhere.
    Surge {
        at_us: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    Crash {
        node: usize,
        for_us: u64,
    },
    Pause {
        node: usize,
        for_us: u64,
    },
    Partition {
        group: Vec<u8>,
        for_us: u64,
    },
    MoveLeader,
    KillLeader {
        for_us: u64,
    },
    PauseLeader {
        for_us: u64,
    },
    Edit {
        limit: u64,
    },
    /// Of the window, the hold, or the cycle of a calendar limit, which is as the plan says or twice as long.
    EditWindow {
        window_us: u64,
    },
    /// Of what goes without saying: whether nodes have a share beforehand, and what they do without a quorum.
    EditMode {
        exact: bool,
        reserve: bool,
    },
    Drain {
        node: usize,
        for_us: u64,
    },
    Retire {
        node: usize,
    },
    Join {
        node: usize,
    },
    /// All stop, and a backup of so many entries ago is restored.
    Restore {
        entries: usize,
    },
    /// What was used counts no more, of one key or of all.
    Reset {
        key: Option<usize>,
    },
    /// Its wall clock shows another time from here on, ahead or behind, in seconds.
    WallStep {
        node: usize,
        by_s: i64,
    },
    Bonus {
        key: usize,
        amount: u64,
        lasts_us: u64,
    },
}

impl Plan {
    /// Nothing goes wrong: for measurements.
    pub fn calm(seed: u64, nodes: usize, limit: u64, window_us: u64, load: Load, percent: u64) -> Self {
        let mut chance = Chance::of(seed);
        let per_second = limit as f64 * S as f64 / window_us as f64 * percent as f64 / 100.0;
        let delay_us = delays(&mut chance, nodes, 160 * MS);
        Self {
            seed,
            nodes,
            founders: nodes,
            delay_us,
            drift_ppm: (0..nodes).map(|_| chance.within(0, 1_000) as i64 - 500).collect(),
            wall_us: vec![0; nodes],
            kind: What::Sliding,
            limit,
            window_us,
            poll_us: if window_us >= 20 * S { 100 * MS } else { 50 * MS },
            heartbeat_us: 200 * MS,
            exact: false,
            reserve: false,
            workers: 1,
            session_us: 15 * S,
            from_us: S,
            until_us: 6 * window_us,
            load,
            per_second,
            cost: 1,
            keys: 1,
            loss_percent: 0,
            twice_percent: 0,
            stall_percent: 0,
            killed_percent: 0,
            late_percent: 0,
            keeps_counters: true,
            sampled: true,
            faults: Vec::new(),
        }
    }

    /// Nodes that are near each other, and all ask for half as much again as there is: the leader is killed, or another one
    /// that half of the clients are on. Its clients go to the others.
    pub fn killed(seed: u64, nodes: usize, leader: bool) -> Self {
        let at_us = KILLED_US + seed % 7 * 300 * MS;
        let node = if leader { 0 } else { 1 };
        let window_us = 30 * S;
        let mut plan = Self::calm(seed, nodes, 1_000, window_us, Load::Killed { node, at_us }, 150);
        plan.delay_us = vec![vec![500; nodes]; nodes];
        (plan.poll_us, plan.heartbeat_us, plan.session_us) = (50 * MS, 100 * MS, 5 * S);
        plan.killed_percent = if leader { 100 / nodes as u64 } else { 50 };
        plan.until_us = at_us + 5 * window_us;
        plan.faults = vec![(at_us, Fault::Crash { node, for_us: 10 * window_us })];
        plan
    }

    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::of(seed);
        let c = &mut chance;
        let nodes = c.one_of(&[3, 5, 7]);
        let rtt_us = c.one_of(&[80, 160, 200]) * MS;
        let window_us = c.one_of(&[1, 1, 2, 5, 10, 20, 60]) * S;
        let limit = match c.within(0, 3) {
            0 => c.within(5, 8 * nodes as u64),
            1 => c.within(5, 200),
            _ => 5 * 10u64.pow(c.within(0, 3) as u32) * c.within(1, 20) / 10,
        }
        .clamp(5, 10_000);
        let load = match c.within(0, 5) {
            0 => Load::Even,
            1 => Load::Skewed,
            2 => Load::Moving { every_us: c.within(1, 15) * S },
            3 => Load::Bursts { every_us: window_us / 2 + c.within(0, window_us) },
            4 => Load::Alone,
            _ => Load::Moving { every_us: window_us + 500 * MS },
        };
        let until_us = (4 * window_us).clamp(25 * S, 100 * S).max(2 * window_us);
        let percent = c.one_of(&[60, 90, 120, 200, 400]);
        let wanted = limit as f64 * S as f64 / window_us as f64 * percent as f64 / 100.0;
        // The same load in fewer, dearer requests where there would be too many to simulate.
        let most = 8_000.0 * S as f64 / until_us as f64;
        let cost = ((wanted / most).ceil() as u64).clamp(1, (limit / 20).max(1));
        let per_second = (wanted / cost as f64).min(most * 3.0);
        let founders = if c.percent(15) { nodes - 1 } else { nodes };
        let mut plan = Self {
            seed,
            nodes,
            founders,
            delay_us: delays(c, nodes, rtt_us),
            drift_ppm: (0..nodes).map(|_| c.one_of(&[-500, 500, 0, c.clone().within(0, 1_000) as i64 - 500])).collect(),
            wall_us: (0..nodes).map(|_| c.within(0, 10 * S)).collect(),
            kind: What::Sliding,
            limit,
            window_us,
            poll_us: if window_us >= 20 * S { 100 * MS } else { 50 * MS },
            heartbeat_us: 200 * MS,
            exact: c.percent(8),
            reserve: c.clone().percent(10),
            workers: if seed.is_multiple_of(2) { 1 } else { 3 },
            session_us: c.one_of(&[5, 5, 15]) * S,
            from_us: S,
            until_us,
            load,
            per_second,
            cost,
            keys: c.one_of(&[1, 1, 2]),
            loss_percent: c.one_of(&[0, 2, 10, 30]),
            twice_percent: c.one_of(&[0, 5, 30]),
            stall_percent: c.one_of(&[0, 1, 5]),
            killed_percent: 0,
            late_percent: if seed % 3 == 1 { 10 } else { 0 },
            keeps_counters: seed % 4 == 1 || seed % 5 > 1,
            sampled: false,
            faults: Vec::new(),
        };
        plan.faults = faults(c, &plan);
        plan
    }

    /// A quota by the calendar; what a clock shows is off by up to a tenth of a second.
    pub fn calendar(seed: u64) -> Self {
        let mut plan = Self::of(seed);
        let mut chance = Chance::of(!seed);
        plan.kind = What::Calendar;
        plan.window_us = chance.one_of(&[10, 20, 30]) * S;
        plan.cost = plan.cost.min(1 + plan.limit / 50);
        plan.until_us = 90 * S;
        plan.per_second = (plan.limit * chance.one_of(&[1, 2, 3]) * S / plan.window_us) as f64 / plan.cost as f64;
        plan.per_second = plan.per_second.min(150.0);
        plan.wall_us = (0..plan.nodes).map(|_| chance.within(0, 200 * MS)).collect();
        plan.faults = faults(&mut chance, &plan);
        plan
    }

    /// The same, and one node's wall clock jumps by up to an hour and back, again and again.
    pub fn calendar_with_steps(seed: u64) -> Self {
        let mut plan = Self::calendar(seed);
        let mut chance = Chance::of(seed ^ 0x57e9);
        let node = chance.within(0, plan.nodes as u64 - 1) as usize;
        let most = chance.one_of(&[2, 60, 3_600]);
        let mut at_us = 0;
        let mut off = 0;
        while at_us < plan.until_us {
            at_us += chance.within(S, 20 * S);
            let to = chance.within(0, 2 * most) as i64 - most as i64;
            plan.faults.push((at_us, Fault::WallStep { node, by_s: to - off }));
            off = to;
        }
        plan.faults.sort_by_key(|(at_us, _)| *at_us);
        plan
    }

    /// Permits; exchanges of all lengths, some longer than they may be.
    pub fn concurrency(seed: u64) -> Self {
        let mut plan = Self::of(seed);
        let mut chance = Chance::of(!seed);
        plan.kind = What::Concurrency;
        plan.window_us = chance.one_of(&[2, 5, 10]) * S;
        plan.limit = chance.one_of(&[5, 10, 10, 30, 100, 400]);
        plan.cost = 1;
        plan.until_us = 60 * S;
        plan.per_second = plan.limit as f64 * chance.one_of(&[1.0, 3.0, 6.0]) * S as f64 / plan.window_us as f64;
        plan.per_second = plan.per_second.min(150.0);
        plan.faults = faults(&mut chance, &plan);
        plan
    }

    /// Any of the above, and once in its middle a backup is restored.
    pub fn restored(seed: u64) -> Self {
        let mut plan = match seed % 3 {
            0 => Self::calendar(seed),
            1 => Self::concurrency(seed),
            _ => Self::of(seed),
        };
        let mut chance = Chance::of(seed ^ 0xbac);
        let entries = chance.within(0, 200) as usize;
        let at_us = chance.within(plan.until_us / 4, plan.until_us / 2);
        // Who was retired or has joined since the backup is another story.
        plan.founders = plan.nodes;
        plan.faults.retain(|(_, it)| !matches!(it, Fault::Retire { .. } | Fault::Join { .. }));
        plan.faults.push((at_us, Fault::Restore { entries }));
        plan.faults.sort_by_key(|(at_us, _)| *at_us);
        plan
    }

    /// A million a day over three nodes, asked for a little faster than that, and twenty crashes.
    pub fn day(seed: u64) -> Self {
        let day_us = 86_400 * S;
        let mut plan = Self::calm(seed, 3, 1_000_000, day_us, Load::Even, 110);
        let mut chance = Chance::of(seed);
        plan.kind = What::Calendar;
        (plan.poll_us, plan.heartbeat_us) = (500 * MS, S);
        plan.cost = 5;
        plan.per_second /= plan.cost as f64;
        plan.until_us = day_us;
        let crash = |n: u64| (n * day_us / 22, Fault::Crash { node: (n % 3) as usize, for_us: 3 * S });
        plan.faults = (1..=20).map(crash).collect();
        plan.loss_percent = chance.one_of(&[0, 2]);
        plan
    }
}

fn delays(chance: &mut Chance, nodes: usize, rtt_us: u64) -> Vec<Vec<u64>> {
    // Three regions; within one it is near.
    let region: Vec<usize> = (0..nodes).map(|n| n % 3).collect();
    let mut between = |a: usize, b: usize| match region[a] == region[b] {
        true => 500,
        false => rtt_us / 2 * chance.within(80, 120) / 100,
    };
    (0..nodes).map(|a| (0..nodes).map(|b| between(a, b)).collect()).collect()
}

fn faults(chance: &mut Chance, plan: &Plan) -> Vec<(u64, Fault)> {
    let count = chance.within(1, 2 + plan.until_us / (6 * S));
    let mut faults = Vec::new();
    for _ in 0..count {
        let at_us = chance.within(S, plan.until_us);
        let node = chance.within(0, plan.nodes as u64 - 1) as usize;
        // From a blink to longer than a session.
        let for_us = match chance.within(0, 2) {
            0 => chance.within(50 * MS, 2 * S),
            1 => chance.within(S, plan.session_us),
            _ => chance.within(plan.session_us, 2 * plan.session_us + S),
        };
        let fault = match chance.within(0, 19) {
            0..=4 => Fault::Crash { node, for_us },
            5..=7 => Fault::Pause { node, for_us },
            8..=10 => Fault::Partition { group: (0..plan.nodes).map(|_| chance.within(0, 1) as u8).collect(), for_us },
            11..=12 => Fault::Partition { group: (0..plan.nodes).map(|n| u8::from(n == node)).collect(), for_us },
            13..=14 => Fault::MoveLeader,
            15 => Fault::KillLeader { for_us },
            16 => Fault::PauseLeader { for_us },
            17 => Fault::Edit { limit: chance.within(5, plan.limit * 2) },
            18 => Fault::Drain { node, for_us },
            _ if plan.nodes > 3 && chance.percent(30) => Fault::Retire { node },
            _ => Fault::Crash { node, for_us: chance.within(50 * MS, 500 * MS) },
        };
        faults.push((at_us, fault));
    }
    faults.extend(reliefs(plan));
    faults.extend(edits(plan));
    faults.extend(edits_of_modes(plan));
    if plan.founders < plan.nodes {
        faults.push((chance.within(2 * S, plan.until_us / 2), Fault::Join { node: plan.nodes - 1 }));
    }
    faults.sort_by_key(|(at_us, _)| *at_us);
    faults
}

/// In one schedule of four an operator changes the window, and most often changes it back.
fn edits(plan: &Plan) -> Vec<(u64, Fault)> {
    let mut chance = Chance::of(plan.seed ^ 0xed17);
    let count = if plan.seed % 4 == 1 { chance.within(1, 6) } else { 0 };
    let mut edits = Vec::new();
    let mut at_us = chance.within(2 * S, plan.until_us / 3);
    for n in 0..count {
        let w = plan.window_us;
        let other = chance.one_of(&[2 * w, w + w / 20, w - w / 20, w / 2, 3 * w]);
        let window_us = match plan.kind {
            _ if n % 2 == 1 => w,
            What::Calendar => 2 * w,
            What::Sliding | What::Concurrency => other.max(S / 2),
        };
        edits.push((at_us, Fault::EditWindow { window_us }));
        at_us += chance.one_of(&[100 * MS, S, w / 2, 2 * w]);
    }
    edits
}

/// In one schedule of six an operator changes whose the slots are.
fn edits_of_modes(plan: &Plan) -> Vec<(u64, Fault)> {
    let mut chance = Chance::of(plan.seed ^ 0x30de);
    let count = if plan.seed % 6 == 5 { chance.within(1, 4) } else { 0 };
    let mut edits = Vec::new();
    for _ in 0..count {
        let at_us = chance.within(2 * S, plan.until_us);
        edits.push((at_us, Fault::EditMode { exact: chance.percent(40), reserve: chance.percent(40) }));
    }
    edits
}

/// In one schedule of eight an operator gives and forgives; what the auditor allows is less sharp there.
fn reliefs(plan: &Plan) -> Vec<(u64, Fault)> {
    let mut chance = Chance::of(plan.seed ^ 0xb0);
    let count = if plan.seed.is_multiple_of(8) { chance.within(1, 3) } else { 0 };
    let mut reliefs = Vec::new();
    for _ in 0..count {
        let key = chance.within(0, plan.keys - 1) as usize;
        let at_us = chance.within(2 * S, plan.until_us / 2);
        reliefs.push(match chance.within(0, 2) {
            0 => (at_us, Fault::Reset { key: Some(key) }),
            1 => (at_us, Fault::Reset { key: None }),
            _ => {
                let (amount, lasts_us) = (chance.within(1, plan.limit), chance.within(S, 2 * plan.window_us));
                (at_us, Fault::Bonus { key, amount, lasts_us })
            }
        });
    }
    reliefs
}

/// Schedules made for one mistake each.
#[cfg(feature = "mutants")]
impl Plan {
    /// All ask for more than there is, of a short window; now and then one is cut off for longer than its session.
    pub fn cut_off(seed: u64, window_us: u64) -> Self {
        let mut plan = Self::calm(seed, 3, 600, window_us, Load::Even, 300);
        let isolate = |n: u64| {
            let group = (0..3).map(|node| u8::from(node == 1 + n % 2)).collect();
            ((8 + n * 14) * S, Fault::Partition { group, for_us: 9 * S })
        };
        plan.session_us = 5 * S;
        plan.until_us = 80 * S + window_us;
        plan.faults = (0..5).map(isolate).collect();
        plan
    }

    /// The same, and a part of what is held outlasts the session.
    pub fn cut_off_with_reserve(seed: u64) -> Self {
        let mut plan = Self::cut_off(seed, 2 * S);
        plan.reserve = true;
        for (_, fault) in &mut plan.faults {
            if let Fault::Partition { for_us, .. } = fault {
                *for_us = 13 * S;
            }
        }
        plan
    }

    /// Every node spends its share, which it has had for less than the window that the limit is edited to.
    pub fn shares_edited(seed: u64) -> Self {
        let mut plan = Self::calm(seed, 3, 300, 10 * S, Load::Even, 150);
        plan.session_us = 5 * S;
        plan.from_us = 14 * S;
        plan.until_us = 40 * S;
        let at_us = plan.from_us + S + seed % 5 * 300 * MS;
        plan.faults = vec![(at_us, Fault::EditWindow { window_us: 30 * S })];
        plan
    }

    /// Every node spends its share when an edit ends them all.
    pub fn shares_ended(seed: u64) -> Self {
        let mut plan = Self::shares_edited(seed);
        for (_, fault) in &mut plan.faults {
            *fault = Fault::EditMode { exact: seed.is_multiple_of(2), reserve: !seed.is_multiple_of(2) };
        }
        plan
    }

    /// Permits are lent for as long as a node that is cut off has heard, while others are lent to by a shorter hold.
    pub fn hold_edited(seed: u64) -> Self {
        let mut plan = Self::calm(seed, 3, 60, 10 * S, Load::Even, 1_500);
        plan.kind = What::Concurrency;
        plan.session_us = 5 * S;
        plan.until_us = 70 * S;
        let isolated = |n: u64| {
            let group = (0..3).map(|node| u8::from(node == 1 + n % 2)).collect();
            [
                ((15 + n * 25) * S, Fault::Partition { group, for_us: 15 * S }),
                ((16 + n * 25) * S, Fault::EditWindow { window_us: 2 * S }),
                ((38 + n * 25) * S, Fault::EditWindow { window_us: 10 * S }),
            ]
        };
        plan.faults = (0..2).flat_map(isolated).collect();
        plan
    }

    /// One node alone spends its share, and starts anew again and again.
    pub fn crash_loop(seed: u64) -> Self {
        let mut plan = Self::calm(seed, 3, 300, 20 * S, Load::Alone, 160);
        plan.session_us = 5 * S;
        // Later than every seat has its share, which takes a rest after the last one has come: the key is not in the ledger.
        plan.from_us = 60 * S;
        plan.until_us = 100 * S;
        plan.faults = (0..13).map(|n| (plan.from_us + n * 3 * S, Fault::Crash { node: 2, for_us: 50 * MS })).collect();
        plan
    }

    /// A node joins while another cannot hear that shares are smaller from now on, and spends more than that.
    pub fn join_unheard(seed: u64) -> Self {
        let mut plan = Self::calm(seed, 3, 5_000, 2 * S, Load::Surge { at_us: 25 * S }, 60);
        plan.founders = 2;
        plan.from_us = 10 * S;
        plan.until_us = 50 * S;
        let group = vec![0, 1, 0];
        plan.faults = vec![(18 * S, Fault::Join { node: 2 }), (18 * S, Fault::Partition { group, for_us: 20 * S })];
        plan
    }
}
