//! What can go wrong with a call, and what to do then.

use flott_schema::{Error, ErrorKind};
use thiserror::Error as ThisError;

/// A call that did not succeed.
#[derive(Debug, ThisError)]
pub enum ClientError {
    /// No coordinator could be asked.
    #[error(
        "no coordinator answers at {addresses} ({reason}); scripts/start-cluster.sh starts a cluster, -m HOST:PORT or \
         FLOTT_COORDINATOR names another"
    )]
    Unreachable {
        /// Those that were tried.
        addresses: String,
        /// What the last one did.
        reason: String,
    },
    /// A coordinator answers, but there is no leader to decide.
    #[error("the cluster at {address} cannot answer now: {message}; try again in a moment")]
    Unavailable {
        /// Who answered.
        address: String,
        /// What it said.
        message: String,
    },
    /// The call was refused.
    #[error("{message}{}", advice(*status))]
    Refused {
        /// HTTP status.
        status: u16,
        /// What the coordinator said.
        message: String,
    },
    /// The answer is none of this API.
    #[error("{address} gives no answer of a Flott coordinator to {path}: {reason}")]
    Strange {
        /// Who answered.
        address: String,
        /// The path that was called.
        path: String,
        /// What is wrong with the answer.
        reason: String,
    },
}

fn advice(status: u16) -> &'static str {
    match status {
        401 | 403 => {
            "; the cluster asks for a token: set security.token or security.token-file with -D, or in the environment \
             (FLOTT_CONF_SECURITY_TOKEN_FILE)"
        }
        413 => "; rest.server.max-content-length of the coordinator says how much it takes",
        _ => "",
    }
}

impl ClientError {
    /// Whether the same call may succeed a little later.
    pub fn is_transient(&self) -> bool {
        matches!(self, ClientError::Unreachable { .. } | ClientError::Unavailable { .. })
    }

    /// Whether what was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, ClientError::Refused { status: 404, .. })
    }

    /// The error as job authors and the command line see it.
    pub fn into_error(self) -> Error {
        let kind = match &self {
            ClientError::Unreachable { .. }
            | ClientError::Unavailable { .. }
            | ClientError::Strange { .. } => ErrorKind::Io,
            ClientError::Refused { status: 401 | 403, .. } => ErrorKind::Configuration,
            ClientError::Refused { status: 500.., .. } => ErrorKind::Internal,
            ClientError::Refused { .. } => ErrorKind::BadInput,
        };
        Error::new(kind, self.to_string())
    }
}
