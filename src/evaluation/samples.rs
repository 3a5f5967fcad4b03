//! Labelled texts: JSON lines of `text` and `label`. Every line that is none is named by its number.

use std::io::BufRead;

use serde_json::Value;

/// Faulty lines that a message names; the others are counted.
const NAMED_LINES: usize = 10;

/// A text whose label is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Its line in the file, from 1 on.
    pub line: usize,
    /// The text.
    pub text: String,
    /// What it is.
    pub label: String,
}

/// Why texts cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum SamplesError {
    /// The file cannot be read.
    #[error("{0}")]
    Unreadable(#[from] std::io::Error),
    /// Lines that are no labelled texts.
    #[error("{0}")]
    Lines(String),
    /// Nothing to evaluate.
    #[error("has no line; JSON lines of `text` and `label` were expected")]
    Empty,
}

/// Reads every line of `source`; empty ones are passed over.
///
/// # Errors
/// See [`SamplesError`].
pub fn read(source: impl BufRead) -> Result<Vec<Sample>, SamplesError> {
    let (mut samples, mut faults) = (Vec::new(), Vec::new());
    for (index, line) in source.lines().enumerate() {
        let line_number = index + 1;
        match line {
            Ok(line) if line.trim().is_empty() => {}
            Ok(line) => match sample(line_number, &line) {
                Ok(sample) => samples.push(sample),
                Err(fault) => faults.push(format!("line {line_number} {fault}")),
            },
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                faults.push(format!("line {line_number} is not UTF-8"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    told(faults)?;
    if samples.is_empty() { Err(SamplesError::Empty) } else { Ok(samples) }
}

fn sample(line: usize, text: &str) -> Result<Sample, String> {
    let read: Value = serde_json::from_str(text).map_err(|_| "is no JSON".to_owned())?;
    let Value::Object(mut members) = read else { return Err("is no JSON object".to_owned()) };
    let mut string = |name: &str| match members.remove(name) {
        Some(Value::String(string)) => Ok(string),
        Some(_) => Err(format!("has a `{name}` that is no string")),
        None => Err(format!("has no `{name}`")),
    };
    Ok(Sample { line, text: string("text")?, label: string("label")? })
}

/// Whether every label is one of the model's `labels`.
///
/// # Errors
/// [`SamplesError::Lines`], with the lines that have others.
pub fn check_labels(samples: &[Sample], labels: &[String]) -> Result<(), SamplesError> {
    let foreign = samples.iter().filter(|sample| !labels.contains(&sample.label));
    let faults = foreign.map(|Sample { line, label, .. }| {
        format!("line {line} has the label `{label}`, which the model does not have: {}", labels.join(", "))
    });
    told(faults.collect())
}

fn told(faults: Vec<String>) -> Result<(), SamplesError> {
    if faults.is_empty() {
        return Ok(());
    }
    let more = faults.len().saturating_sub(NAMED_LINES);
    let mut text = faults.into_iter().take(NAMED_LINES).collect::<Vec<_>>().join("; ");
    if more > 0 {
        text.push_str(&format!("; and {more} lines more"));
    }
    Err(SamplesError::Lines(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_their_numbers() {
        let text = "{\"text\": \"a\", \"label\": \"x\", \"id\": 7}\n\n{\"label\": \"y\", \"text\": \"b\"}\n";
        let samples = read(text.as_bytes()).unwrap();
        let found: Vec<_> = samples.iter().map(|s| (s.line, s.text.as_str(), s.label.as_str())).collect();
        assert_eq!(found, [(1, "a", "x"), (3, "b", "y")]);
    }

    #[test]
    fn every_bad_line_is_named() {
        let text = "{\"text\": \"a\", \"label\": \"x\"}\nno\n[1]\n{\"text\": \"a\"}\n{\"text\": 1, \"label\": \"x\"}\n\u{20}\n";
        let mut bytes = text.as_bytes().to_vec();
        bytes.extend(b"\xff\n");
        let error = read(bytes.as_slice()).unwrap_err().to_string();
        assert_eq!(
            error,
            "line 2 is no JSON; line 3 is no JSON object; line 4 has no `label`; line 5 has a `text` that is no string; \
             line 7 is not UTF-8"
        );
        let many = "no\n".repeat(12);
        assert!(read(many.as_bytes()).unwrap_err().to_string().ends_with("line 10 is no JSON; and 2 lines more"));
        assert!(matches!(read(&b"\n\n"[..]), Err(SamplesError::Empty)));
    }

    #[test]
    fn a_label_that_the_model_has_not_is_named_with_its_line() {
        let samples = read(&b"{\"text\": \"a\", \"label\": \"z\"}\n"[..]).unwrap();
        let error = check_labels(&samples, &["x".to_owned(), "y".to_owned()]).unwrap_err().to_string();
        assert_eq!(error, "line 1 has the label `z`, which the model does not have: x, y");
    }
}
