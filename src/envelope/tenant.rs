//! A tenant and what it may do: `tenant.toml` beside its keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::time::UnixSeconds;
use crate::limits::MAX_ID_CHARS;

/// What a tenant may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Names of models; `*` for all.
    pub models: Vec<String>,
    /// What the names of its reply queues begin with; ends in a dot, and begins no other tenant's.
    pub reply_prefix: String,
    /// Jobs that a worker runs for it in a second, on average; unbounded where nothing stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_jobs_per_second: Option<u32>,
    /// Ids of keys that are refused, whatever their files say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked_keys: Vec<String>,
    /// Ids of request keys with the second from which they are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub key_expires: BTreeMap<String, UnixSeconds>,
}

impl Grant {
    /// What a new tenant gets: the models named, and the prefix `<tenant>.`.
    #[must_use]
    pub fn new(tenant: &str, models: Vec<String>) -> Self {
        Self {
            models,
            reply_prefix: format!("{tenant}."),
            max_jobs_per_second: None,
            revoked_keys: Vec::new(),
            key_expires: BTreeMap::new(),
        }
    }
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its name: the name of its folder, and `iss` of its requests.
    pub name: String,
    /// What it may reach.
    pub grant: Grant,
}

impl Tenant {
    /// Whether it may use `model`.
    #[must_use]
    pub fn may_use(&self, model: &str) -> bool {
        self.grant.models.iter().any(|granted| granted == "*" || granted == model)
    }

    /// Whether it may be answered on `queue`.
    #[must_use]
    pub fn may_reply_to(&self, queue: &str) -> bool {
        queue.strip_prefix(&self.grant.reply_prefix).is_some_and(|rest| !rest.is_empty())
    }
}

/// Whether `name` can be a tenant's name: it is part of key ids, folder and queue names.
#[must_use]
pub fn is_tenant_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_ID_CHARS / 2
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_reaches_only_what_it_names() {
        let tenant = Tenant { name: "acme".into(), grant: Grant::new("acme", vec!["topic".into()]) };
        assert!(tenant.may_use("topic") && !tenant.may_use("other") && !tenant.may_use("*"));
        assert!(tenant.may_reply_to("acme.replies"));
        for queue in ["acme.", "acme", "acmereplies", "other.replies", "inferq.jobs.topic", ""] {
            assert!(!tenant.may_reply_to(queue), "{queue}");
        }
    }

    #[test]
    fn a_tenants_name_can_stand_in_the_name_of_a_queue() {
        let longest = "a".repeat(MAX_ID_CHARS / 2);
        for name in ["a", "7", "acme-2_x", &longest] {
            assert!(is_tenant_name(name), "{name}");
        }
        for name in ["", "-a", "_a", "a.b", "a b", "ä", "a*", "a/b", &(longest.clone() + "a")] {
            assert!(!is_tenant_name(name), "{name}");
        }
    }
}
