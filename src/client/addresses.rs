//! Where the coordinators of a cluster answer.

use std::fmt;
use std::str::FromStr;

use flott_schema::{Error, Result};

/// The variable that names the cluster to the command line, as `-m` does.
pub const COORDINATOR_VARIABLE: &str = "FLOTT_COORDINATOR";

/// The port that is meant where none is given.
const REST_PORT: u16 = 8081;

/// `HOST:PORT[,HOST:PORT..]` of the REST API of one coordinator or several; any of them answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses(Vec<String>);

impl Addresses {
    /// `host:port` of each, in the order given.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// How many there are; one at least.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

impl FromStr for Addresses {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let addresses: Vec<String> = parts.map(address).collect::<Result<_>>()?;
        if addresses.is_empty() {
            return Err(Error::configuration("no coordinator is named; expected HOST:PORT[,HOST:PORT..]"));
        }
        Ok(Addresses(addresses))
    }
}

/// One address, with its port.
fn address(text: &str) -> Result<String> {
    let wrong = |reason: &str| {
        Error::configuration(format!(
            "'{text}' names no coordinator: {reason}; expected HOST:PORT, such as localhost:{REST_PORT}"
        ))
    };
    if text.starts_with("https://") {
        return Err(wrong("its REST API speaks http, not https"));
    }
    let plain = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    if plain.contains(['/', '@', ' ', '?', '#']) {
        return Err(wrong("there is more in it than host and port"));
    }
    // An IPv6 address stands in brackets, so its colons are none of ours.
    let (host, port) = match plain.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (plain, None),
    };
    let host_is_bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    if host_is_bare_v6 {
        return Err(wrong("an IPv6 address stands in brackets"));
    }
    if host.is_empty() {
        return Err(wrong("the host is missing"));
    }
    let port = match port {
        Some(port) => port.parse().ok().filter(|port: &u16| *port != 0),
        None => Some(REST_PORT),
    };
    let port = port.ok_or_else(|| wrong("the port is no number from 1 to 65535"))?;
    Ok(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> std::result::Result<String, String> {
        text.parse().map(|addresses: Addresses| addresses.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn addresses_are_read_with_and_without_port_and_scheme() {
        for (text, wanted) in [
            ("localhost:9000", "localhost:9000"),
            ("localhost", "localhost:8081"),
            ("http://a:1/", "a:1"),
            ("a:1, b:2,", "a:1,b:2"),
            ("[::1]:9000", "[::1]:9000"),
            ("[::1]", "[::1]:8081"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "no coordinator is named"),
            (",", "no coordinator is named"),
            (":8081", "the host is missing"),
            ("a:0", "the port is no number"),
            ("a:x", "the port is no number"),
            ("https://a:1", "not https"),
            ("a:1/jobs", "more in it than host and port"),
            ("::1", "stands in brackets"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
