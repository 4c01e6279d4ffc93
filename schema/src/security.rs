//! The secret of a cluster, and the rule by which a process may listen without one.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::config::{Configuration, options};
use crate::error::{Error, Result};

/// The protocol of the control connections, see `Hello.protocol`. A caller that speaks another is refused.
pub const CONTROL_PROTOCOL: u32 = 1;

/// Shortest secret that is accepted, bytes.
const LENGTH_MIN: usize = 8;

/// Longest secret that is accepted, bytes.
const LENGTH_MAX: usize = 1_024;

/// The secret that the processes and clients of a cluster share (`security.token`). Empty where none is configured. It is never
/// printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Token(Arc<str>);

impl Token {
    /// No secret: every caller is let in.
    pub fn none() -> Self {
        Self::default()
    }

    /// This secret; the blanks around it do not count. Refused if it is short, or could not stand in the header of a request.
    pub fn new(secret: &str) -> Result<Self> {
        let secret = secret.trim();
        if !(LENGTH_MIN..=LENGTH_MAX).contains(&secret.len()) {
            return Err(Error::configuration(format!(
                "the security token has {} bytes; {LENGTH_MIN} to {LENGTH_MAX} are wanted",
                secret.len()
            )));
        }
        if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::configuration(
                "the security token holds a blank or a sign that is not ASCII; letters, digits and signs are wanted",
            ));
        }
        Ok(Token(secret.into()))
    }

    /// The secret that `config` names. `read` gives the text of a file.
    pub fn from_configuration(
        config: &Configuration,
        read: impl FnOnce(&str) -> io::Result<String>,
    ) -> Result<Self> {
        if let Some(secret) = config.get(&options::SECURITY_TOKEN)? {
            return Token::new(&secret).map_err(|error| error.at(options::SECURITY_TOKEN.key()));
        }
        let Some(path) = config.get(&options::SECURITY_TOKEN_FILE)? else { return Ok(Token::none()) };
        let place = || format!("{}: {path}", options::SECURITY_TOKEN_FILE.key());
        let text = read(&path).map_err(|error| Error::io(place(), error))?;
        Token::new(text.lines().next().unwrap_or_default()).map_err(|error| error.at(place()))
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// The secret itself, to be sent to a peer. Empty: none.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether a caller that gave `offered` is let in: always, where there is no secret. Takes as long for a nearly right
    /// secret as for a wrong one, so that it cannot be guessed sign by sign.
    pub fn admits(&self, offered: &str) -> bool {
        if self.is_none() {
            return true;
        }
        let (own, offered) = (self.0.as_bytes(), offered.as_bytes());
        let mut differences = own.len() ^ offered.len();
        for (index, byte) in own.iter().enumerate() {
            let other = offered.get(index).copied().unwrap_or_default();
            differences |= usize::from(std::hint::black_box(byte ^ other));
        }
        std::hint::black_box(differences) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_none() { "Token(none)" } else { "Token(******)" })
    }
}

/// Whether `host` is an address of this machine that others cannot reach: an IP address of the loopback, or `localhost`. What
/// another name stands for is not looked up.
pub fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => match address.to_ipv4_mapped() {
            Some(address) => address.is_loopback(),
            None => address.is_loopback(),
        },
        Ok(address) => address.is_loopback(),
        Err(_) => bare.eq_ignore_ascii_case("localhost"),
    }
}

/// Refuses to listen on a host that others can reach while there is no secret. `option` is the key that names the host.
pub fn check_binding(option: &str, host: &str, token: &Token) -> Result<()> {
    if is_loopback(host) || !token.is_none() {
        return Ok(());
    }
    Err(Error::configuration(format!(
        "{option}: '{host}' can be reached from other machines, and without a secret anyone there could run programs here; set \
         {} or {} to the same secret on every machine of the cluster, or bind to 127.0.0.1",
        options::SECURITY_TOKEN.key(),
        options::SECURITY_TOKEN_FILE.key()
    )))
}

/// [`check_binding`] for an address that is resolved already.
pub fn check_bound_address(option: &str, address: SocketAddr, token: &Token) -> Result<()> {
    check_binding(option, &address.ip().to_string(), token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn token(secret: &str) -> Token {
        Token::new(secret).unwrap()
    }

    #[test]
    fn loopback_addresses_need_no_secret() {
        for host in ["127.0.0.1", "127.3.4.5", "localhost", "LOCALHOST", "::1", "[::1]", "::ffff:127.0.0.1"] {
            check_binding("rest.bind-address", host, &Token::none()).unwrap();
        }
    }

    #[test]
    fn other_addresses_are_refused_without_a_secret_and_the_reason_names_what_to_do() {
        for host in
            ["0.0.0.0", "::", "[::]", "10.0.0.7", "::ffff:10.0.0.7", "example.org", "localhost.evil.org", ""]
        {
            let error = check_binding("rest.bind-address", host, &Token::none()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            let text = error.to_string();
            for part in ["rest.bind-address", "security.token", "security.token-file", "127.0.0.1"] {
                assert!(text.contains(part), "{text} does not name {part}");
            }
            check_binding("rest.bind-address", host, &token("long-enough?")).unwrap();
        }
    }

    #[test]
    fn only_the_secret_itself_is_admitted() {
        let secret = token("correct-horse");
        assert!(secret.admits("correct-horse"));
        for wrong in
            ["", "correct-hors", "correct-horse ", "correct-horsf", "Correct-horse", "correct-horse-battery"]
        {
            assert!(!secret.admits(wrong), "'{wrong}' was let in");
        }
        assert!(!secret.admits(&"correct-horse".repeat(1 << 8)));
        assert!(Token::none().admits("") && Token::none().admits("anything"));
    }

    #[test]
    fn the_secret_is_never_printed() {
        assert_eq!(format!("{:?}", token("correct-horse")), "Token(******)");
        let config = Configuration::from_pairs(["security.token=correct-horse"]).unwrap();
        assert!(config.masked().all(|(_, value)| !value.contains("horse")));
    }

    #[test]
    fn the_value_goes_before_the_file_and_without_both_there_is_none() {
        let unread = |path: &str| -> io::Result<String> { panic!("{path} was read") };
        assert!(Token::from_configuration(&Configuration::new(), unread).unwrap().is_none());

        let both = ["security.token=from-the-value", "security.token-file=/secret"];
        let config = Configuration::from_pairs(both).unwrap();
        assert_eq!(Token::from_configuration(&config, unread).unwrap().reveal(), "from-the-value");

        let config = Configuration::from_pairs(["security.token-file=/secret"]).unwrap();
        let read = |path: &str| {
            assert_eq!(path, "/secret");
            Ok("from-the-file\nsecond line\n".into())
        };
        assert_eq!(Token::from_configuration(&config, read).unwrap().reveal(), "from-the-file");
    }

    #[test]
    fn a_secret_that_cannot_be_read_or_is_too_short_is_refused() {
        let config = Configuration::from_pairs(["security.token-file=/secret"]).unwrap();
        let missing = |_: &str| Err(io::Error::from(io::ErrorKind::NotFound));
        let error = Token::from_configuration(&config, missing).unwrap_err();
        assert!(error.to_string().starts_with("security.token-file: /secret: "), "{error}");
        // An empty file must not mean that everyone is let in.
        for text in ["", "\n", "short\n", "two words of it\n"] {
            let error = Token::from_configuration(&config, |_| Ok(text.into())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        }
        let config = Configuration::from_pairs(["security.token=''"]).unwrap();
        assert!(Token::from_configuration(&config, missing).is_err());
    }
}
