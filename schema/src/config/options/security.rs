//! Who may talk to the processes of a cluster.

use crate::config::option::options;

options! {
    "Security";

    /// Secret that all processes and clients of a cluster share. Needed as soon as one of them listens on an address that is not
    /// of the loopback. Not set: taken from `security.token-file`, else anyone who reaches a port may use it.
    SECURITY_TOKEN: Option<String> = "security.token";

    /// File whose first line is that secret, so that it stands neither in the configuration nor in a command line.
    SECURITY_TOKEN_FILE: Option<String> = "security.token-file";
}
