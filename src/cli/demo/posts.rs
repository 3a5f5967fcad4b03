//! The labelled posts of the demo.

use std::path::Path;

use serde::Deserialize;

use crate::cli::failure::{Exit, Failure};

/// A post whose topic is known.
#[derive(Debug, Deserialize)]
pub(super) struct Post {
    pub(super) id: String,
    pub(super) text: String,
    pub(super) label: String,
}

/// Reads lines of `{"id", "text", "label"}`.
pub(super) fn read(path: &Path) -> Result<Vec<Post>, Failure> {
    let fault = |reason: String| {
        Failure::new(Exit::Usage, format!("posts `{}`: {reason}", path.display()))
            .with_help("run the demo in the folder of the project, or name a file with --posts FILE")
    };
    let text = std::fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
    let read = |(index, line): (usize, &str)| {
        let lacks = |_| fault(format!("line {} has no strings `id`, `text` and `label`", index + 1));
        serde_json::from_str(line).map_err(lacks)
    };
    let posts: Vec<Post> = text.lines().enumerate().map(read).collect::<Result<_, _>>()?;
    if posts.is_empty() { Err(fault("has no line".to_owned())) } else { Ok(posts) }
}
