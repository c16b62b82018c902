//! Mistakes that tests must notice, in one build, chosen by name at run time: `QUORUMGATE_MUTANT=stale_vote`, several with
//! commas between them. Without the feature `mutants` every question answers no and costs nothing.
//! `scripts/mutants.txt` says which test notices which, and `scripts/mutants` whether it does.

macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One rule broken on purpose, of whatever crate.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mutant { $($(#[$doc])* $name,)* }

        impl Mutant {
            pub const ALL: &[Mutant] = &[$(Mutant::$name,)*];
        }
    };
}

mutants! {
    // The ledger.
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
    /// After an edit of the window nobody knows how long slots rested before it.
    RestsForgotten,
    /// A longer window does not count for what the ledger knows to be in use.
    RestNotLengthened,
    /// The same of what a node has in use.
    MovedAsTheyRest,
    /// What is in use under the old window is free under the new one.
    UsedUnderTheOldFree,
    /// Whoever asks what is used hears nothing of what is in use under the window before.
    UsedBeforeUntold,
    /// A client is told to come again at once, as if there were somebody to recall slots from.
    NobodyRecalledFrom,
    /// What was lent for later than the edited window reaches is forgotten.
    BeyondReachLost,
    /// What rests in the old window is not given back.
    OldLeasesKept,
    /// What a lost session had in use rests by the window that it had not heard of.
    BuriedByTheNewRest,
    /// An exchange is taken to end by a hold that its node had not heard of.
    HoldTakenForHeard,
    /// Where an edit ends shares they are not counted from the next moment on.
    SharesEndUnheard,
    /// A lease goes on with what its limit did without a quorum before an edit.
    OnNoQuorumUnheard,
    /// A reset forgives what was used after it under a window that was shorter.
    ForgivenByLongerWindow,
    /// A period ends sooner than every node can have heard of it.
    PeriodCutUnheard,
    /// Another cycle begins the period again.
    PeriodBegunAnew,
    /// What nodes owe is not heard.
    OwedUnheard,
    /// What is owed is not asked back of others.
    OwedNotRecalled,
    /// Others are lent to while something is owed.
    LentWhileOwed,
    /// A node may owe more than there ever is.
    OwedUncapped,
    /// A reset forgives no debt.
    ResetKeepsDebt,
    /// What is owed to a period is owed to the next.
    DebtOutlivesPeriod,
    /// What is owed stays with a lease that gave way.
    DebtLeftBehind,
    /// What is asked back for debts is told to be out of use before it is.
    WithdrawnInUse,
    /// What older builds do not know is written although one of them is there.
    LevelUnasked,

    // The state.
    /// Entries are applied in whatever order they come.
    AnyOrder,
    /// The log clock follows the leader's back.
    LogClockSteps,
    /// A request id that is known is carried out again.
    RepeatAppliedAgain,
    /// A known request id answers whatever is asked under it.
    OtherRequestAnswered,
    /// An audit entry does not name the hash of the one before it.
    AuditUnlinked,
    /// The chain that a node keeps may lose its end.
    ChainGetsShorter,
    /// A change counts though it was held against other guardrails.
    GuardrailsOvertaken,
    /// `--if-revision` is not compared.
    RevisionIgnored,
    /// An object's etag is not compared.
    EtagIgnored,
    /// A change goes through while a revision is on trial.
    TrialOvertaken,
    /// An actor with an owner writes objects of others.
    OwnerIgnored,
    /// A tenant takes what another owns.
    TenantUnbounded,
    /// The secret of a join token is not compared.
    JoinSecretIgnored,
    /// A join token is not used up.
    JoinTokenReused,
    /// A join token is good beyond its end.
    JoinTokenOutlivesItself,
    /// A token for replicas lets a voter in.
    ReplicaMayVote,
    /// The only voter may leave.
    LastVoterGoes,
    /// A removed node is not remembered.
    RemovedForgotten,
    /// A build that does not know what is in use is let in.
    OldBuildLetIn,
    /// Who votes is planned without a majority in reach.
    PlansWithoutMajority,
    /// Two or four may vote.
    EvenVoters,
    /// A learner votes however far it is behind.
    LaggardVotes,
    /// A node goes though the voters that stay are no quorum.
    LossUnasked,
    /// Whether a node may go is judged without those that were let go a moment ago.
    JudgedApart,
    /// A node is ready before it serves what the leader had committed.
    ReadyTooEarly,
    /// A later entry of a selector ends the earlier one sooner.
    RevocationCutShort,
    /// A revocation is forgotten with its end, whatever clocks lag behind.
    RevocationForgottenAtOnce,
    /// Tokens of the last second before the instant are spared.
    InstantTooEarly,
    /// A credential that was revoked is made active.
    RevokedComesBack,
    /// Credentials stay when their consumer goes.
    KeysOutliveConsumer,
    /// A later ban ends the earlier one sooner.
    BanCutShort,
    /// What is protected changes without an approval.
    ApprovalSkipped,
    /// Who asked for a change approves it.
    OwnApprovalCounts,
    /// A change waits beyond its time.
    HeldTooLong,

    // What lies on the disk.
    /// The log is acknowledged and not synced.
    LogSyncSkipped,
    /// A sync that failed counts as done.
    FailedSyncPassed,
    /// The head of a new segment is not synced.
    SegmentHeadUnsynced,
    /// The name of a new segment is not synced.
    SegmentNameUnsynced,
    /// A purged segment is used again before its name is durably gone.
    PurgedNameUnsynced,
    /// What a restart found in the page cache counts as durable.
    PageCacheTrusted,
    /// A vote is given before it is durable.
    VoteBeforeSync,
    /// A restart finds the first vote, not the last.
    StaleVote,
    /// Truncated entries are read where others have taken their places.
    TruncatedComesBack,
    /// What was torn off the end of the log stays behind it.
    TornTailKept,
    /// A damaged record counts as torn off, with all behind it.
    DamageTakenForTorn,
    /// The checksum of a record is not compared.
    ChecksumIgnored,
    /// A log of another node or incarnation is read.
    ForeignLogTaken,
    /// Segments go as soon as raft purges, whatever the snapshots hold.
    PurgedPastSnapshot,
    /// The log may go up to the newest snapshot, though only the older one is behind it.
    NewestSnapshotAlone,
    /// A snapshot gets its name before its bytes are durable.
    SnapshotUnsynced,
    /// The name of a snapshot is not synced.
    SnapshotNameUnsynced,
    /// The checksum of a snapshot is not compared.
    SnapshotUnchecked,
    /// A snapshot is installed that is not the one that was announced.
    OtherSnapshotTaken,
    /// A snapshot is taken before the journal has what it stands for.
    JournalBehindSnapshot,
    /// An entry of a node's own chain need not name the one before it.
    ChainUnlinked,
    /// A log that a failed sync has ended is read from clean pages, which no sync brings to the disk.
    CleanPagesTrusted,
    /// A sync that failed is tried once more, and believed.
    FailedSyncRetried,
    /// What was written in part counts as written.
    ShortWritePassed,
    /// A node whose log is lost begins another under the same identity.
    LostLogTakenForNew,
    /// A snapshot says who was a member when the process started.
    MembershipLeftBehind,
    /// An installed snapshot leaves the ledger as it was.
    InstalledKeepsLedger,

    // What requests meet.
    /// What is revoked is let in.
    RevocationUnasked,
    /// A stream goes on though what let it in was revoked.
    StreamOutlivesRevocation,
    /// A token is asked about by its hash and its subject alone.
    SelectorsOfTokensUnasked,
    /// An entry that is gone hides those behind it.
    GoneEndsTheSearch,
    /// A node is fresh from when the leader's answer came, not from when it was asked for.
    FreshFromReceipt,
    /// A route that is closed while the node is stale is open.
    OnStaleIgnored,
    /// A banned address is let in.
    BannedLetIn,
    /// An address that a policy shuts out is let in.
    AddressLetIn,
    /// A key is good from any address.
    KeyFromAnywhere,
    /// A disabled key is taken.
    DisabledKeyTaken,
    /// Of two credentials in one request the first decides.
    FirstOfTwoCredentials,
    /// Credentials of two consumers go together.
    TwoConsumersAtOnce,
    /// A token that is bound to a certificate is taken without it.
    BindingIgnored,
    /// A token for others is taken.
    AudienceIgnored,
    /// A token of another issuer is taken.
    IssuerIgnored,
    /// A token is taken after its end.
    TokenExpiryIgnored,
    /// A token may be signed by an algorithm that the plan does not name.
    AnyAlgorithm,
    /// What one plan has verified is taken by all, and after its keys were replaced.
    VerifiedForAnyPlan,
    /// An ID token that was made for another sign-in is taken.
    NonceIgnored,
    /// Who has signed in is sent to another site.
    BackToAnotherSite,
    /// A body is passed on that is not what was signed.
    DigestIgnored,
    /// Metadata services are connected to.
    MetadataInReach,
    /// A credential that was used goes on to the upstream.
    CredentialPassedOn,
    /// X-Consumer-* of a client goes on to the upstream.
    ClientSaysWhoItIs,
    /// The same, in trailers.
    TrailersSayWhoItIs,
    /// What a caller is not to see of an answer is shown.
    MaskLifted,
    /// The same, in the answer's head.
    MaskedHeadersShown,
    /// The same, in trailers.
    MaskedTrailersShown,
    /// What is named at any depth is hidden nowhere but at its name.
    MaskAtRootAlone,
    /// Tools that look for holes come in.
    ScannersWelcome,
    /// Who is allowed by what he calls himself is looked at like anybody else.
    AllowedBotsDenied,
    /// What one node sees of a caller is not added to what the others see.
    NodesSeeApart,
    /// Who was found already is found again in each round.
    FoundAgain,
    /// Any number of callers may be banned in a minute.
    BansUnbounded,
    /// Who is exempt is banned all the same.
    ExemptBanned,
    /// What a policy has found holds after it says something else.
    VerdictOutlivesPolicy,
    /// A leader of before is still heard.
    PastLeaderHeard,
    /// Messages to webhooks are not signed with the policy's secret.
    WebhookUnsigned,
    /// X-Forwarded-For is believed whoever sends it.
    AnybodyIsTrusted,
    /// A path is not brought into its one form.
    PathAsItCame,
    /// Connection, and what it names, goes on.
    HopFieldsKept,
    /// Content-Length beside Transfer-Encoding is no reason to refuse.
    LengthBesideChunked,
    /// Of two Host fields the first counts.
    FirstOfTwoHosts,
    /// An answer with Content-Length beside Transfer-Encoding is passed on.
    AnswerOfTwoLengths,
    /// A body is passed on however long it is.
    BodyLimitIgnored,
    /// A request that is not idempotent is tried again.
    RetriedThoughUnsafe,
    /// What one limit refuses, those before it have counted.
    RefusedCounts,
    /// A limit counts a client that left while a later one had it wait.
    LeaverCounts,
    /// A limit of which nothing is known yet is told as used up.
    UnknownToldAsUsedUp,
    /// An answer to one caller is kept for all.
    OnesAnswerForAll,
    /// An answer that sets a cookie is kept for all.
    CookieKept,
    /// Answers are not kept apart by what they vary on.
    VaryIgnored,
    /// What was reserved for an answer of a model is what it costs, whatever the provider says.
    ReserveSettled,
    /// A stream of a model that broke off costs nothing.
    AbortedFree,
    /// A stream of a model is believed although it did not say its last word.
    UnfinishedBelieved,
    /// What is asked of a model by a name of ours is not looked at.
    AliasUnguarded,
    /// A request may ask a model for as much as it likes.
    MaxTokensUnclamped,
    /// What a model thought before it answered is not counted.
    ThoughtUncounted,
    /// What models are asked by paths that nobody counts goes on.
    UncountedPath,
    /// A part of a form is taken for what it says that it is.
    PartTypeUnasked,

    // What operators and peers meet.
    /// A read that must see everything is answered from what is here.
    StaleRead,
    /// An admin token is taken after its end.
    AdminTokenOutlivesItself,
    /// A stream of events goes on after its token's end.
    WatchOutlivesToken,
    /// Every user of the machine is an admin.
    SocketForAll,
    /// A viewer may do what an operator may.
    RoleIgnored,
    /// An actor with an owner does what concerns the whole cluster.
    ScopeIgnored,
    /// A page of another site acts with a person's session.
    AnyPageCalls,
    /// A guardrail denies nothing.
    GuardrailUnasked,
    /// A call that was refused is not noted.
    DenialUnnoted,
    /// A key that was warned of in one period is not warned of in the next.
    WarnedOfAnotherPeriod,
    /// An actor that is to be forgotten is still known.
    ErasedActorKept,
    /// A sealed secret opens wherever it is put.
    SealedForAnyField,
    /// A peer says it is another than its certificate says.
    CertificateBorrowed,
    /// A member whose directory was wiped goes on as if it had not been.
    WipedNodeLetIn,
    /// Another node than the one that was dialled is spoken to.
    WhoeverAnswers,
    /// A certificate need not be of the cluster's CA.
    AnyIssuer,
    /// A joiner sends its token to whoever answers.
    AnyCaPinned,
    /// A certificate is renewed for a key that was not let in.
    RenewedForAnotherKey,
}

impl Mutant {
    /// `regrant_at_expiry`
    pub fn word(self) -> String {
        let mut word = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_ascii_uppercase() && !word.is_empty() {
                word.push('_');
            }
            word.push(letter.to_ascii_lowercase());
        }
        word
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|mutant| mutant.word() == word)
    }
}

/// What the mutant leaves out.
#[inline]
pub fn unless<E>(mutant: Mutant, step: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
    if is(mutant) { Ok(()) } else { step() }
}

#[cfg(feature = "mutants")]
mod chosen {
    use std::{cell::Cell, env, sync::LazyLock};

    use super::Mutant;

    const VARIABLE: &str = "QUORUMGATE_MUTANT";

    #[expect(clippy::disallowed_methods, reason = "the mutants are no part of what the cluster agrees on")]
    static OF_PROCESS: LazyLock<Vec<Mutant>> = LazyLock::new(|| {
        let words = env::var(VARIABLE).unwrap_or_default();
        let mutant =
            |word| Mutant::from_word(word).unwrap_or_else(|| panic!("{VARIABLE}: there is no mutant {word:?}"));
        words.split(',').filter(|word| !word.is_empty()).map(mutant).collect()
    });

    thread_local! {
        static OF_THREAD: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// From here on this thread makes that mistake too.
    pub fn choose(mutant: Option<Mutant>) {
        OF_THREAD.set(mutant);
    }

    pub fn is(mutant: Mutant) -> bool {
        OF_THREAD.get() == Some(mutant) || OF_PROCESS.contains(&mutant)
    }
}

#[cfg(feature = "mutants")]
pub use chosen::{choose, is};

#[cfg(not(feature = "mutants"))]
#[inline]
pub const fn is(_: Mutant) -> bool {
    false
}
