//! The envelope of a job and of its reply: what makes the broker carry ciphertext only.
//!
//! `jwe` is the cryptography, `claims` the protected headers, `keyring` the keys and grants, `open` the order of
//! validation of a request, `replay` what was seen before, `seal` the worker's replies, `producer` the other side of both,
//! `announce` what workers say of their models. Nothing here knows models,
//! tensors or the broker's I/O.

pub mod claims;
pub mod keyring;
pub mod open;
pub mod producer;
pub mod replay;
pub mod seal;

mod announce;
mod generate;
mod jwe;
mod jwk;
mod live;
mod rate;
mod rotate;
mod tenant;
mod time;

#[cfg(test)]
mod vectors_tests;

pub use announce::{AnnouncementContext, AnnouncementRejected, OpenedAnnouncement};
pub use claims::{ContentKind, RequestClaims};
pub use generate::{GenerateError, generate};
pub use keyring::{Direction, KeyAccess, Keyring, KeyringError, ListedKey};
pub use live::{Fingerprint, LiveKeyring};
pub use open::{OpenPolicy, OpenedJob, Rejection, ReplyContext, claimed_tenant, open_request};
pub use producer::{OpenedReply, PendingReply, ProducerKeys, ReplyRejected, RequestDraft};
pub use rate::RateLimiter;
pub use replay::{Admission, Admitted, JobIdentity, ReplayBounds, ReplayGuard};
pub use rotate::{ChangeError, Exported, activate, add_next, export, revoke};
pub use seal::{SealError, SealedReply, seal_reply};
pub use tenant::{Grant, Tenant, is_tenant_name};
pub use time::UnixSeconds;
