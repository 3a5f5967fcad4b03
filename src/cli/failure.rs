//! How a command ends that did not succeed: an exit code, what is wrong in one line, and the way out.
//!
//! Made by commands out of the errors below them, printed by `cli::run` alone.

use std::process::ExitCode;

use crate::broker::amqp::{ConnectError, EndpointError};
use crate::envelope::{ChangeError, GenerateError, KeyringError};
use crate::model::ModelError;
use crate::settings::SettingsError;
use crate::telemetry::logging::LoggingError;

/// The exit codes; `inferq --help` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// A job was answered with an error, or a check found a fault.
    Failed,
    /// The command line is wrong.
    Usage,
    /// The settings, the key ring or the model repository are wrong.
    Invalid,
    /// The broker cannot be reached, or refused.
    Broker,
    /// No reply came in time.
    TimedOut,
    /// A run did not end: the worker has to be started again.
    Overdue,
    /// Interrupted by the user.
    Interrupted,
}

impl Exit {
    /// The number that the shell sees.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Invalid => 3,
            Self::Broker => 4,
            Self::TimedOut => 5,
            Self::Overdue => 6,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What is wrong.
    pub message: String,
    /// What the user can do about it.
    pub help: Option<String>,
}

impl Failure {
    /// A failure without a way out to tell.
    #[must_use]
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), help: None }
    }

    /// The same, with the way out.
    #[must_use]
    pub fn with_help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// Prints it on standard error: one line `error: ...`, and one `help: ...` where there is a way out.
    pub(super) fn report(&self) {
        eprint!("{}", self.text());
    }

    fn text(&self) -> String {
        let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let error = format!("error: {}\n", one_line(&self.message));
        match &self.help {
            Some(help) => format!("{error}help: {}\n", one_line(help)),
            None => error,
        }
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self::new(Exit::Invalid, error.to_string()).with_help(error.remedy())
    }
}

impl From<LoggingError> for Failure {
    fn from(error: LoggingError) -> Self {
        let help = "a filter is a level, or `module=level` parted by commas, such as info or warn,inferq::broker=debug";
        Self::new(Exit::Invalid, error.to_string()).with_help(help)
    }
}

impl From<KeyringError> for Failure {
    fn from(error: KeyringError) -> Self {
        let failure = Self::new(Exit::Invalid, error.to_string());
        match error {
            KeyringError::Folder { .. } => failure
                .with_help("set keys.directory to the key ring, or make one with `inferq keys generate --tenant NAME`"),
            KeyringError::Missing { tenant, .. } => failure.with_help(format!(
                "put the file back, or remove the folder and run `inferq keys generate --tenant {tenant}`"
            )),
            KeyringError::TenantName { .. } => {
                failure.with_help("the key ring holds folders of tenants and nothing else")
            }
            KeyringError::Tenant { .. } | KeyringError::Key { .. } => {
                failure.with_help("compare the file with one that `inferq keys generate` has made")
            }
            // These tell the way out themselves.
            KeyringError::Empty { .. } | KeyringError::Readable { .. } | KeyringError::Repeated { .. } => failure,
        }
    }
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Keyring(error) => error.into(),
            ChangeError::Write(error) => error.into(),
            ChangeError::Order { fault, help } => Self::new(Exit::Failed, fault).with_help(help),
            ChangeError::NoKey { .. } => {
                Self::new(Exit::Failed, error.to_string()).with_help("`inferq keys list` shows every key with its id")
            }
        }
    }
}

impl From<GenerateError> for Failure {
    fn from(error: GenerateError) -> Self {
        let exit = match error {
            GenerateError::TenantName(_) => Exit::Usage,
            GenerateError::Exists { .. } | GenerateError::Write { .. } | GenerateError::NoRandomness => Exit::Failed,
        };
        let failure = Self::new(exit, error.to_string());
        match error {
            GenerateError::Exists { .. } => {
                failure.with_help("name another tenant; or remove the folder first, if nothing uses its keys any more")
            }
            GenerateError::Write { .. } => failure.with_help("set keys.directory to a folder that may be written"),
            GenerateError::TenantName(_) | GenerateError::NoRandomness => failure,
        }
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        let help = match &error {
            // This one tells the way out itself.
            ModelError::Repository { .. } => None,
            ModelError::Empty { .. } => Some("set models.directory to a folder of <name>/<version>/model.toml"),
            ModelError::NotFound { .. } => Some("correct models.serve, or leave it empty to serve every model"),
            ModelError::Spec { .. } | ModelError::Load { .. } => {
                Some("correct the model's folder, or leave the model out of models.serve")
            }
            ModelError::File { .. } | ModelError::Digest { .. } | ModelError::Golden { .. } => {
                Some("copy the model's folder again from where it was made")
            }
            ModelError::Exists { .. } => Some("leave --version out for the next one, or name a free one"),
            ModelError::Refused { .. } => Some("`inferq models add --help` says what a model needs"),
            ModelError::Write { .. } => Some("set models.directory, or --directory, to a folder that may be written"),
        };
        Self { exit: Exit::Invalid, message: error.to_string(), help: help.map(str::to_owned) }
    }
}

impl From<EndpointError> for Failure {
    fn from(error: EndpointError) -> Self {
        Self::new(Exit::Invalid, error.to_string()).with_help(error.remedy())
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let help = match error {
            ConnectError::Endpoint(error) => return error.into(),
            ConnectError::NoAnswer { .. } | ConnectError::Broken(_) => {
                "check that the broker runs, and host and port in broker.url (or INFERQ_AMQP_URL)"
            }
            ConnectError::Refused { .. } => "check user, password and vhost in broker.url (or INFERQ_AMQP_URL)",
            ConnectError::Untrusted { .. } => {
                "broker.tls_ca_file names the authority that signed the broker's certificate, which must be made out to the host in \
                 broker.url; a broker that asks for one wants broker.tls_certificate_file and broker.tls_key_file"
            }
            ConnectError::Silent { .. } => "look at the broker's log and load; broker.connect_timeout_ms is the limit",
            ConnectError::Unreadable { .. } => {
                "give that user read permission on it, or name another user in broker.url: a worker's may, a tenant's may not"
            }
            ConnectError::NotTaken { .. } => {
                "the broker names the reason; another program may have the queue for itself"
            }
            ConnectError::Declare { .. } => {
                "`inferq topology show` prints what is declared; set the key back, or drain and delete the queue that differs"
            }
        };
        Self::new(Exit::Broker, error.to_string()).with_help(help)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_and_its_way_out_another() {
        let failure = Failure::new(Exit::Broker, "no broker\nanswers").with_help("start\n  one");
        assert_eq!(failure.text(), "error: no broker answers\nhelp: start one\n");
        assert_eq!(Failure::new(Exit::Failed, "it failed").text(), "error: it failed\n");
    }

    #[test]
    fn codes_are_distinct() {
        let all =
            [Exit::Failed, Exit::Usage, Exit::Invalid, Exit::Broker, Exit::TimedOut, Exit::Overdue, Exit::Interrupted];
        assert_eq!(all.map(Exit::code), [1, 2, 3, 4, 5, 6, 130]);
    }
}
