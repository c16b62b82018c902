//! Limits: how much the cluster admits, counted apart by what.

mod words;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use words::{CostObject, CostWords, LimitWords, PartObject, PartWords, PerWords};

use super::{Name, word::word_enum};
use crate::units::Span;

/// How many parts a limit's key may have.
pub const PER_MAX: usize = 8;
/// How many plans of consumers a limit may be for.
pub const PLANS_MAX: usize = 16;
/// The most admissions, and the most that one request may cost: sums of many stay within 64 bits.
pub const LIMIT_MAX: u64 = 1 << 40;
/// The longest window of kind sliding or bucket.
pub const WINDOW_MAX: Span = Span::secs(31 * 24 * 3600);
/// The longest that a token of a bucket is reckoned to rest: 35 years, so that sums of instants stay within 64 bits.
const BUCKET_WINDOW_US_MAX: u64 = 1 << 50;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "LimitWords", into = "LimitWords")]
pub struct Limit {
    pub name: Name,
    pub labels: BTreeMap<String, String>,
    pub owner: String,
    pub description: String,
    /// What is counted apart; at least one part, none twice.
    pub per: Vec<LimitPart>,
    /// It is for consumers of these plans alone; none: for all requests.
    pub plans: Vec<String>,
    pub kind: LimitKind,
    pub mode: LimitMode,
    pub cost: LimitCost,
    pub on_no_quorum: OnNoQuorum,
    /// 400..=599.
    pub exceeded_status: u16,
    /// What is over the limit is told and counted, not refused.
    pub soft: bool,
    /// How long an exchange on a tiny or exact limit waits for a grant.
    pub grant_wait: Span,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitKind {
    /// At most `limit` in any window of this length.
    Sliding { limit: u64, window: Span },
    /// A token bucket: `rate` per `window`, up to `burst` at once.
    Bucket { rate: u64, window: Span, burst: u64 },
    /// `limit` per minute, hour, day or month of a time zone (IANA name).
    Calendar { limit: u64, every: Every, zone: String },
    /// At most `limit` in flight, each for `max_hold` at most.
    Concurrency { limit: u64, max_hold: Span },
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LimitPart {
    Consumer,
    Credential,
    Route,
    Tenant,
    Global,
    /// By the client's address, in networks of these sizes.
    Ip {
        v4: u8,
        v6: u8,
    },
    /// By this header's value; lower case.
    Header(String),
    /// By this claim of the token.
    Claim(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitCost {
    Fixed(u64),
    /// A request says in this header what it costs.
    RequestHeader(String),
    /// The response says it; `reserve` is taken before.
    ResponseHeader {
        header: String,
        reserve: u64,
    },
    AiTokens(AiTokens),
}

word_enum!(
    /// The four kinds as words; each has its own fields beside it.
    #[derive(Default)]
    LimitKindWord {
        #[default]
        Sliding = "sliding",
        Bucket = "bucket",
        Calendar = "calendar",
        Concurrency = "concurrency",
    }
);

word_enum!(Every { Minute = "minute", Hour = "hour", Day = "day", Month = "month" });

word_enum!(
    #[derive(Default)]
    LimitMode {
        /// Exact, without a wait in the usual case.
        #[default]
        Leased = "leased",
        /// Every admission is decided by the leader.
        Exact = "exact",
        /// Each node for itself: the cluster admits up to the limit times its nodes.
        Local = "local",
    }
);

word_enum!(
    /// What becomes of requests once the node has spent what it holds and no quorum is left.
    #[derive(Default)]
    OnNoQuorum {
        #[default]
        Deny = "deny",
        Reserve = "reserve",
        Allow = "allow",
    }
);

word_enum!(AiTokens { Total = "total", Input = "input", Output = "output" });

impl Limit {
    pub fn exceeded_status_default() -> u16 {
        429
    }
    pub fn grant_wait_default() -> Span {
        Span::secs(2)
    }
    pub fn max_hold_default() -> Span {
        Span::secs(300)
    }
    pub fn zone_default() -> String {
        "UTC".into()
    }
}

/// A token bucket as slots: `burst` of them, each back after the time in which `burst` tokens flow in. That admits at
/// most `burst` at once and `rate` in the long run, and never more in any time than the bucket would.
pub fn bucket_window_us(rate: u64, window_us: u64, burst: u64) -> u64 {
    let long = u128::from(burst) * u128::from(window_us) / u128::from(rate.max(1));
    u64::try_from(long).unwrap_or(u64::MAX).clamp(1, BUCKET_WINDOW_US_MAX)
}

impl LimitPart {
    pub const V4_DEFAULT: u8 = 32;
    pub const V6_DEFAULT: u8 = 64;
}
