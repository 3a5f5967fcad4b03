//! The words that labels of metrics are made of: closed sets, so that no producer can add a time series.
//!
//! Used by `metrics` and by whoever counts something. The name of a model is the one label that is not here: `metrics`
//! knows the models that are served and calls every other `other`.

/// A step of a job's walk that is timed by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Opening the envelope.
    Open,
    /// Reading the request.
    Decode,
    /// From the request to rows: tokenizing, checking.
    Prepare,
    /// Waiting for an executor.
    Queue,
    /// Running the batch.
    Run,
    /// Finding out why the model answered so, for jobs that ask.
    Explain,
    /// Sealing the reply.
    Seal,
    /// Publishing it, until the broker has confirmed.
    Publish,
}

impl Stage {
    /// Every stage, in the order of a job's walk.
    pub const ALL: [Self; 8] =
        [Self::Open, Self::Decode, Self::Prepare, Self::Queue, Self::Run, Self::Explain, Self::Seal, Self::Publish];

    /// Its word in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Decode => "decode",
            Self::Prepare => "prepare",
            Self::Queue => "queue",
            Self::Run => "run",
            Self::Explain => "explain",
            Self::Seal => "seal",
            Self::Publish => "publish",
        }
    }
}

/// Why a batch was as large as it was when it was run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DispatchReason {
    /// Every row that could share it was in it.
    Drained,
    /// It had as many rows or tokens as may be.
    Full,
    /// Other idle executors were left their share.
    Shared,
    /// One more row would have cost more than it saves.
    Costly,
    /// With one more row, one of them would have come late.
    Due,
    /// What a larger batch is run with was not compiled yet.
    Cold,
    /// A redelivered row has a batch to itself.
    Alone,
    /// To see what a batch of that size costs.
    Trial,
    /// A policy that learns nothing had it so.
    Fixed,
    /// Part of a batch that failed.
    Bisected,
}

impl DispatchReason {
    /// Every one of them.
    pub const ALL: [Self; 10] = [
        Self::Drained,
        Self::Full,
        Self::Shared,
        Self::Costly,
        Self::Due,
        Self::Cold,
        Self::Alone,
        Self::Trial,
        Self::Fixed,
        Self::Bisected,
    ];

    /// Its word in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Drained => "drained",
            Self::Full => "full",
            Self::Shared => "shared",
            Self::Costly => "costly",
            Self::Due => "due",
            Self::Cold => "cold",
            Self::Alone => "alone",
            Self::Trial => "trial",
            Self::Fixed => "fixed",
            Self::Bisected => "bisected",
        }
    }
}

/// Why a job went back into its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequeueReason {
    /// Nothing could be published in its place before its session ended.
    PublishFailed,
    /// Its session ended before it was run: the broker has it again.
    SessionEnded,
    /// Its task panicked, which dropped its receipt: a fault of this program.
    Dropped,
    /// The worker is stopping and could not finish it within the grace.
    Draining,
}

impl RequeueReason {
    /// Every one of them.
    pub const ALL: [Self; 4] = [Self::PublishFailed, Self::SessionEnded, Self::Dropped, Self::Draining];

    /// Its word in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PublishFailed => "publish_failed",
            Self::SessionEnded => "session_ended",
            Self::Dropped => "dropped",
            Self::Draining => "draining",
        }
    }
}

/// What has happened to a version of a model while it was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModelChange {
    /// A version that appeared or changed serves now.
    TakenUp,
    /// A version or its aliases were refused; what served before serves on.
    Refused,
    /// A version has gone from the repository.
    Retired,
    /// A version was let go from memory.
    Unloaded,
    /// A version that had been let go was loaded again.
    Reloaded,
    /// Other aliases hold.
    Realiased,
}

impl ModelChange {
    /// Every one of them.
    pub const ALL: [Self; 6] =
        [Self::TakenUp, Self::Refused, Self::Retired, Self::Unloaded, Self::Reloaded, Self::Realiased];

    /// Its word in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TakenUp => "taken_up",
            Self::Refused => "refused",
            Self::Retired => "retired",
            Self::Unloaded => "unloaded",
            Self::Reloaded => "reloaded",
            Self::Realiased => "realiased",
        }
    }
}

/// What came of reading the key ring again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReloadOutcome {
    /// It is in use.
    Renewed,
    /// It could not be read; the one before stays in use.
    Refused,
}

impl ReloadOutcome {
    /// Every one of them.
    pub const ALL: [Self; 2] = [Self::Renewed, Self::Refused];

    /// Its word in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Renewed => "renewed",
            Self::Refused => "refused",
        }
    }
}

/// Why a reply could not be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UndeliverableReason {
    /// No queue is bound for it.
    Returned,
    /// The reply queue is full.
    Refused,
}

impl UndeliverableReason {
    /// Every one of them.
    pub const ALL: [Self; 2] = [Self::Returned, Self::Refused];

    /// Its word in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Returned => "returned",
            Self::Refused => "refused",
        }
    }
}

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PublishOutcome {
    /// The broker has it.
    Confirmed,
    /// The broker gave it back: nothing is bound there.
    Returned,
    /// The broker refused it.
    Refused,
    /// No answer in time.
    TimedOut,
    /// The connection went away.
    Unavailable,
}

impl PublishOutcome {
    /// Every one of them.
    pub const ALL: [Self; 5] = [Self::Confirmed, Self::Returned, Self::Refused, Self::TimedOut, Self::Unavailable];

    /// Its word in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Returned => "returned",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Unavailable => "unavailable",
        }
    }
}
