//! The ways of forming batches that are measured against each other.

use std::str::FromStr;
use std::time::Duration;

use crate::settings::BatchingPolicy;

/// Tokens of a batch of `fifo` where none are named.
const FIFO_TOKENS: usize = 1_024;
/// Milliseconds and rows of `delay` where none are named.
const DELAY: (u64, usize) = (4, 32);

/// One way of forming batches, with the name that it is reported under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arm {
    pub(super) name: String,
    pub(super) policy: BatchingPolicy,
}

impl Arm {
    /// Every row by itself: what the loads are multiples of.
    pub(super) fn single() -> Self {
        Self { name: "single".to_owned(), policy: BatchingPolicy::Single }
    }

    /// The same once more, under another name: what differs between the two is noise.
    pub(super) fn twin(&self) -> Self {
        Self { name: format!("{} (again)", self.name), policy: self.policy }
    }
}

impl FromStr for Arm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("`{text}`: expected adaptive, single, fifo[:TOKENS] or delay[:MILLISECONDS:ROWS]");
        let count = |part: &str| part.parse::<usize>().ok().filter(|count| *count > 0);
        let policy = match text.split(':').collect::<Vec<_>>().as_slice() {
            ["adaptive"] => Some(BatchingPolicy::Adaptive),
            ["single"] => Some(BatchingPolicy::Single),
            ["fifo"] => Some(BatchingPolicy::Fifo { max_tokens: FIFO_TOKENS }),
            ["fifo", tokens] => count(tokens).map(|max_tokens| BatchingPolicy::Fifo { max_tokens }),
            ["delay"] => Some(BatchingPolicy::Delay { wait: Duration::from_millis(DELAY.0), rows: DELAY.1 }),
            ["delay", wait, rows] => wait
                .parse()
                .ok()
                .zip(count(rows))
                .map(|(wait, rows)| BatchingPolicy::Delay { wait: Duration::from_millis(wait), rows }),
            _ => None,
        };
        policy.map(|policy| Self { name: text.to_owned(), policy }).ok_or_else(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arm_is_a_policy_with_its_numbers() {
        let policy = |text: &str| text.parse::<Arm>().map(|arm| arm.policy);
        assert_eq!(policy("adaptive"), Ok(BatchingPolicy::Adaptive));
        assert_eq!(policy("fifo"), Ok(BatchingPolicy::Fifo { max_tokens: 1_024 }));
        assert_eq!(policy("fifo:256"), Ok(BatchingPolicy::Fifo { max_tokens: 256 }));
        let delay = BatchingPolicy::Delay { wait: Duration::from_millis(2), rows: 8 };
        assert_eq!(policy("delay:2:8"), Ok(delay));
        for wrong in ["", "greedy", "fifo:", "fifo:0", "delay:2", "single:1"] {
            assert!(policy(wrong).unwrap_err().contains("expected adaptive"), "{wrong}");
        }
    }
}
