//! Log lines on standard error: for people, or one JSON object a line.
//!
//! Set up once by `cli`. Standard output belongs to the commands' answers. Identifiers stand in fields; nothing here
//! sees a payload.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::settings::{LogFormat, TelemetrySettings};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is none.
    #[error("`telemetry.log_filter` is {filter:?}: {reason}")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something in this process has set up logging before.
    #[error("logging was already set up: {0}")]
    AlreadySet(String),
}

/// Sends the log lines that `settings` ask for to standard error, from now until the process ends.
///
/// # Errors
/// See [`LoggingError`].
pub fn init(settings: &TelemetrySettings) -> Result<(), LoggingError> {
    let colours = io::stderr().is_terminal();
    let subscriber = subscriber(settings, colours, io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|error| LoggingError::AlreadySet(error.to_string()))
}

fn subscriber<W>(
    settings: &TelemetrySettings,
    colours: bool,
    writer: W,
) -> Result<Box<dyn tracing::Subscriber + Send + Sync>, LoggingError>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .parse(&settings.log_filter)
        .map_err(|error| LoggingError::Filter { filter: settings.log_filter.clone(), reason: error.to_string() })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    Ok(match settings.log_format {
        LogFormat::Human => Box::new(lines.with_ansi(colours).finish()),
        LogFormat::Json => {
            Box::new(lines.json().flatten_event(true).with_current_span(true).with_span_list(false).finish())
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A place that log lines are written to.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(log_format: LogFormat, log_filter: &str) -> String {
        let settings = TelemetrySettings { log_format, log_filter: log_filter.to_owned(), listen: None };
        let page = Page::default();
        let writer = page.clone();
        let subscriber = subscriber(&settings, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("job", job.id = "j-1");
            let _entered = span.enter();
            tracing::info!(model.name = "topic", "replied");
            tracing::debug!("a detail");
        });
        String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn json_lines_are_objects_with_the_fields_of_event_and_span() {
        let page = written(LogFormat::Json, "info");
        let line: serde_json::Value = serde_json::from_str(page.trim_end()).unwrap();
        assert_eq!(line["message"], "replied");
        assert_eq!(line["model.name"], "topic");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["span"]["job.id"], "j-1");
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
    }

    #[test]
    fn lines_for_people_carry_the_same_and_the_filter_holds_back_the_rest() {
        let page = written(LogFormat::Human, "info");
        assert!(page.contains("replied") && page.contains("model.name=\"topic\""), "{page}");
        assert_eq!(page.lines().count(), 1, "{page}");
        assert_eq!(written(LogFormat::Human, "debug").lines().count(), 2);
        assert_eq!(written(LogFormat::Human, "error").lines().count(), 0);
    }

    #[test]
    fn a_filter_that_is_none_names_its_key() {
        let settings = TelemetrySettings { log_format: LogFormat::Json, log_filter: "a=b=c".into(), listen: None };
        let error = subscriber(&settings, false, io::sink).err().unwrap().to_string();
        assert!(error.starts_with("`telemetry.log_filter` is \"a=b=c\""), "{error}");
    }
}
