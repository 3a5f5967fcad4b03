//! How good a model is on labelled texts: what it answers, compared with what is known.
//!
//! Used by `inferq models evaluate`. `samples` reads the texts, `run` takes them through a loaded model as jobs are
//! taken, `answer` reads what came back (from here or from a worker); the rest is arithmetic on that, and a page to
//! look at. Knows nothing of the broker.

mod answer;
mod calibration;
mod compare;
mod html;
mod report;
mod run;
mod samples;
mod scores;
mod significance;

pub use answer::{Answered, Ranked, Refusal, labels_of};
pub use compare::{Comparison, Difference, compare};
pub use html::page;
pub use report::{Measured, Report, report};
pub use run::{request, run};
pub use samples::{Sample, SamplesError, check_labels, read};
