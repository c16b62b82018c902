//! Mistakes that the simulation must notice, in one build, chosen by name at run time. Without the feature `mutants`
//! every question answers no and costs nothing.

/// One rule of the ledger broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// A dead session's slots are lent again when it ends, not a window later.
    RegrantAtExpiry,
    /// Entries are stamped with the leader's wall clock.
    WallClockStamps,
    /// A leader's clock goes on from its own earlier reading.
    ClockJumpsAhead,
    /// A session counts from when the renewal was seen applied, not from when it was sent.
    TtlFromReceipt,
    /// A repeated batch is applied again.
    NoDeduplication,
    /// A restarted process takes over what the ledger says its predecessor held.
    StaleLedgerAfterRestart,
    /// A holder spends on after its session's end.
    ExpiryIgnored,
    /// A report is believed though the session was renewed without it since.
    StaleReport,
    /// A restarted node has its implicit share at once.
    RestartedKeepsShare,
    /// An answer to a repeated batch renews the node's session, which the ledger did not.
    DuplicateAckRenews,
    /// A new divisor counts before every session has acknowledged it.
    EpochWithoutAck,
    /// Slots are released before they are taken out of use.
    ReleaseBeforeRemove,
    /// What a lost session had prepaid of a calendar period is lent again.
    BurntRegranted,
    /// What a node keeps for a time without a quorum is lent again as if it had stopped with the session.
    ReserveForgotten,
    /// A chunk is spent though its period is over.
    SpendsPastPeriod,
    /// What a node said of its chunk before it heard of a reset is believed after it.
    StaleChunk,
    /// What was told to rest until after the session is used again under it.
    ReusesTooLate,
}

impl Mutant {
    pub const ALL: [Mutant; 17] = [
        Mutant::RegrantAtExpiry,
        Mutant::WallClockStamps,
        Mutant::ClockJumpsAhead,
        Mutant::TtlFromReceipt,
        Mutant::NoDeduplication,
        Mutant::StaleLedgerAfterRestart,
        Mutant::ExpiryIgnored,
        Mutant::StaleReport,
        Mutant::RestartedKeepsShare,
        Mutant::DuplicateAckRenews,
        Mutant::EpochWithoutAck,
        Mutant::ReleaseBeforeRemove,
        Mutant::BurntRegranted,
        Mutant::ReserveForgotten,
        Mutant::SpendsPastPeriod,
        Mutant::StaleChunk,
        Mutant::ReusesTooLate,
    ];

    /// `regrant_at_expiry`
    pub fn word(self) -> &'static str {
        match self {
            Mutant::RegrantAtExpiry => "regrant_at_expiry",
            Mutant::WallClockStamps => "wall_clock_stamps",
            Mutant::ClockJumpsAhead => "clock_jumps_ahead",
            Mutant::TtlFromReceipt => "ttl_from_receipt",
            Mutant::NoDeduplication => "no_deduplication",
            Mutant::StaleLedgerAfterRestart => "stale_ledger_after_restart",
            Mutant::ExpiryIgnored => "expiry_ignored",
            Mutant::StaleReport => "stale_report",
            Mutant::RestartedKeepsShare => "restarted_keeps_share",
            Mutant::DuplicateAckRenews => "duplicate_ack_renews",
            Mutant::EpochWithoutAck => "epoch_without_ack",
            Mutant::ReleaseBeforeRemove => "release_before_remove",
            Mutant::BurntRegranted => "burnt_regranted",
            Mutant::ReserveForgotten => "reserve_forgotten",
            Mutant::SpendsPastPeriod => "spends_past_period",
            Mutant::StaleChunk => "stale_chunk",
            Mutant::ReusesTooLate => "reuses_too_late",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mutant| mutant.word() == word)
    }
}

#[cfg(feature = "mutants")]
mod chosen {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static CHOSEN: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// From here on this thread makes that mistake.
    pub fn choose(mutant: Option<Mutant>) {
        CHOSEN.set(mutant);
    }

    pub fn is(mutant: Mutant) -> bool {
        CHOSEN.get() == Some(mutant)
    }
}

#[cfg(feature = "mutants")]
pub use chosen::{choose, is};

#[cfg(not(feature = "mutants"))]
pub const fn is(_: Mutant) -> bool {
    false
}
