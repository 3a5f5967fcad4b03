//! Which letters are meant.

use clap::Args;
use serde::Serialize;

use crate::envelope::{UnixSeconds, claimed_tenant};
use crate::error::ErrorCode;
use crate::protocol::properties::{
    HEADER_ERROR, HEADER_FAILED_AT, HEADER_FAILED_ATTEMPT, HEADER_REPLY_QUEUE, HEADER_WORKER, Message,
};

/// Which letters are meant: those that fit everything that is given.
#[derive(Debug, Args)]
pub(super) struct Filter {
    /// Replies that nobody took, instead of jobs that failed
    #[arg(long)]
    pub(super) undeliverable: bool,
    /// Letters of this model; may be repeated [default: every served model]
    #[arg(long = "model", value_name = "MODEL", conflicts_with = "undeliverable")]
    pub(super) models: Vec<String>,
    /// Letters that claim to be this tenant's
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Letters that failed with this code; docs/errors.md lists them
    #[arg(long, value_name = "CODE", value_parser = parse_code)]
    code: Option<ErrorCode>,
    /// Letters that failed at least so many seconds ago
    #[arg(long, value_name = "SECONDS")]
    older_than_s: Option<u64>,
    /// The letter with this message id
    #[arg(long = "id", value_name = "ID")]
    message_id: Option<String>,
}

/// What is known of a letter without opening it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Facts {
    pub(super) message_id: Option<String>,
    pub(super) queue: String,
    pub(super) tenant: Option<String>,
    pub(super) code: Option<String>,
    pub(super) attempt: Option<i64>,
    pub(super) worker: Option<String>,
    pub(super) reply_queue: Option<String>,
    pub(super) age_s: Option<u64>,
    pub(super) body_bytes: usize,
}

impl Facts {
    pub(super) fn of(message: &Message, queue: &str, now: UnixSeconds) -> Self {
        let properties = &message.properties;
        let text = |name: &str| properties.text_header(name).map(str::to_owned);
        let failed_at = properties.integer_header(HEADER_FAILED_AT).and_then(|at| u64::try_from(at).ok());
        Self {
            message_id: properties.message_id.clone(),
            queue: queue.to_owned(),
            tenant: claimed_tenant(message),
            code: text(HEADER_ERROR),
            attempt: properties.integer_header(HEADER_FAILED_ATTEMPT),
            worker: text(HEADER_WORKER),
            reply_queue: text(HEADER_REPLY_QUEUE),
            age_s: failed_at.map(|at| now.0.saturating_sub(at)),
            body_bytes: message.body.len(),
        }
    }
}

impl Filter {
    /// Whether a letter is meant.
    pub(super) fn takes(&self, facts: &Facts) -> bool {
        let fits = |wanted: Option<&str>, found: Option<&str>| wanted.is_none_or(|wanted| found == Some(wanted));
        fits(self.tenant.as_deref(), facts.tenant.as_deref())
            && fits(self.code.map(ErrorCode::as_str), facts.code.as_deref())
            && fits(self.message_id.as_deref(), facts.message_id.as_deref())
            && self.older_than_s.is_none_or(|least| facts.age_s.is_some_and(|age| age >= least))
    }

    /// The same, for the letter with this id alone.
    pub(super) fn is(&self, facts: &Facts, message_id: &str) -> bool {
        self.takes(facts) && facts.message_id.as_deref() == Some(message_id)
    }
}

fn parse_code(text: &str) -> Result<ErrorCode, String> {
    ErrorCode::parse(text).ok_or_else(|| "no such code; docs/errors.md lists them".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> Message {
        let mut message = Message { body: "x".into(), ..Message::default() };
        message.properties.message_id = Some("m".into());
        message.properties.headers.insert(HEADER_ERROR.into(), "ENVELOPE_REJECTED".into());
        message.properties.headers.insert(HEADER_FAILED_AT.into(), 100.into());
        message
    }

    fn filter() -> Filter {
        Filter {
            undeliverable: false,
            models: Vec::new(),
            tenant: None,
            code: None,
            older_than_s: None,
            message_id: None,
        }
    }

    #[test]
    fn a_letter_fits_everything_that_is_given() {
        let facts = Facts::of(&letter(), "q", UnixSeconds(160));
        assert_eq!(facts.age_s, Some(60));
        assert!(filter().takes(&facts) && filter().is(&facts, "m") && !filter().is(&facts, "n"));
        let fitting = Filter { code: Some(ErrorCode::EnvelopeRejected), older_than_s: Some(60), ..filter() };
        assert!(fitting.takes(&facts));
        for strict in [
            Filter { older_than_s: Some(61), ..filter() },
            Filter { code: Some(ErrorCode::ReplayConflict), ..filter() },
            Filter { tenant: Some("acme".into()), ..filter() },
            Filter { message_id: Some("n".into()), ..filter() },
        ] {
            assert!(!strict.takes(&facts), "{strict:?}");
        }
    }
}
