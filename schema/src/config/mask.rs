//! Keeps secrets out of what is shown.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::known::{self, Meaning};
use super::value::ConfigValue;

/// What stands in the place of a secret.
pub const MASKED: &str = "******";

/// Parts of a key, in lower case, that make its value a secret.
const SECRET_PARTS: &[&str] = &[
    "password",
    "passwd",
    "secret",
    "token",
    "fs.azure.account.key",
    "apikey",
    "api-key",
    "access-key",
    "access.key",
    "service-key",
    "private-key",
    "auth-params",
    "basic-auth",
    "credential",
    "jaas.config",
    "http-headers",
    "client.authorization",
];

/// Whether the value of `key` must not be shown.
pub fn is_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    SECRET_PARTS.iter().any(|part| key.contains(part))
}

/// The value of `key` as it may be shown. In a map the entries are masked one by one.
pub fn masked_value<'a>(key: &str, value: &'a str) -> Cow<'a, str> {
    if is_secret(key) {
        return Cow::Borrowed(MASKED);
    }
    match known::meaning(key) {
        Meaning::Option(option) if option.is_map() => match BTreeMap::<String, String>::parse(value) {
            Ok(mut map) if map.keys().any(|key| is_secret(key)) => {
                for (_, value) in map.iter_mut().filter(|(key, _)| is_secret(key)) {
                    *value = MASKED.into();
                }
                Cow::Owned(map.render())
            }
            Ok(_) => Cow::Borrowed(value),
            // What cannot be read may hold anything.
            Err(_) => Cow::Borrowed(MASKED),
        },
        _ => Cow::Borrowed(value),
    }
}
