//! How S3 is reached: Flink's keys, and where they are silent the environment's `AWS_*` variables.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flott_schema::config::Configuration;
use flott_schema::nearest::nearest;
use flott_schema::{Error, Result};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{ClientOptions, RetryConfig};

/// Beginnings of the keys, the first that is set counts: Flink hands all of them to its file systems.
const PREFIXES: [&str; 4] = ["s3.", "s3a.", "s3p.", "fs.s3a."];

/// What stands behind a prefix; `-` counts as `.`.
const ACCESS_KEY: &str = "access.key";
const SECRET_KEY: &str = "secret.key";
const SESSION_TOKEN: &str = "session.token";
const ENDPOINT: &str = "endpoint";
const REGION: &str = "region";
const ENDPOINT_REGION: &str = "endpoint.region";
const PATH_STYLE: &str = "path.style.access";
const NAMES: [&str; 7] =
    [ACCESS_KEY, SECRET_KEY, SESSION_TOKEN, ENDPOINT, REGION, ENDPOINT_REGION, PATH_STYLE];

/// A request with its answer may take so long; parts are small enough for slow lines.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A request that failed is tried again within this time.
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);
const RETRIES_MAX: usize = 8;

/// The settings of this process. One for all buckets, as in Flink.
static SETTINGS: Mutex<Option<Settings>> = Mutex::new(None);

/// How S3 is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    values: BTreeMap<&'static str, String>,
}

/// Keys of a configuration that say how S3 is reached, with their values, secrets included: for processes that this one starts.
pub fn keys_of(configuration: &Configuration) -> Vec<(String, String)> {
    configuration.flattened().into_iter().filter(|(key, _)| is_key(key)).collect()
}

/// Whether the key says how S3 is reached.
pub fn is_key(key: &str) -> bool {
    PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

/// Sets how this process reaches S3 from now on, unless there is no word of it.
pub fn configure(pairs: &[(String, String)]) -> Result<()> {
    let settings = Settings::of(pairs)?;
    if !settings.values.is_empty() {
        *lock() = Some(settings);
    }
    Ok(())
}

/// The settings of this process.
pub(super) fn current() -> Settings {
    lock().clone().unwrap_or_default()
}

fn lock() -> MutexGuard<'static, Option<Settings>> {
    // Set as a whole: a holder of the lock that panicked has left it whole.
    SETTINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Settings {
    /// Reads and checks them. Keys that are Flink's and mean nothing here are left out with a warning.
    fn of(pairs: &[(String, String)]) -> Result<Self> {
        let mut values = BTreeMap::new();
        for prefix in PREFIXES {
            for (key, value) in pairs {
                let Some(name) = key.strip_prefix(prefix) else { continue };
                let name = name.replace('-', ".");
                match NAMES.iter().find(|known| **known == name) {
                    Some(known) => drop(values.entry(*known).or_insert_with(|| value.trim().to_string())),
                    None => {
                        let near = nearest(&name, NAMES).map(|near| format!("s3.{near}")).unwrap_or_default();
                        tracing::warn!(key, near, "this key of S3 has no effect");
                    }
                }
            }
        }
        let settings = Settings { values };
        settings.path_style()?;
        if settings.get(ACCESS_KEY).is_some() != settings.get(SECRET_KEY).is_some() {
            let wrong =
                "of s3.access-key and s3.secret-key one is set and the other is not; set both, or none";
            return Err(Error::configuration(wrong));
        }
        if let Some(endpoint) = settings.get(ENDPOINT) {
            settings.endpoint_of("bucket", endpoint)?;
        }
        Ok(settings)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn path_style(&self) -> Result<Option<bool>> {
        match self.get(PATH_STYLE).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => {
                Err(Error::configuration(format!("s3.path.style.access is '{other}'; write true or false")))
            }
        }
    }

    /// The endpoint of a bucket, and whether the bucket is in its name. Servers other than Amazon's are asked by path, unless the
    /// settings say otherwise: hardly any of them has a name for each bucket.
    fn endpoint_of(&self, bucket: &str, endpoint: &str) -> Result<(String, bool)> {
        let (scheme, host) = endpoint.split_once("://").unwrap_or(("https", endpoint));
        let host = host.trim_end_matches('/');
        let is_web = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
        if !is_web || host.is_empty() || host.contains(['/', '?', '#', '@', ' ']) {
            return Err(Error::configuration(format!(
                "s3.endpoint is '{endpoint}'; write it as http://HOST:PORT or https://HOST"
            )));
        }
        Ok(match self.path_style()? {
            Some(false) => (format!("{scheme}://{bucket}.{host}"), true),
            _ => (format!("{scheme}://{host}"), false),
        })
    }

    /// A client of the bucket.
    pub(super) fn client(&self, bucket: &str) -> Result<AmazonS3> {
        // Whatever the environment says, the configuration's word counts more; of who asks, they do not speak half and half: a token
        // of the environment belongs to its keys.
        let keys = self.get(ACCESS_KEY).zip(self.get(SECRET_KEY));
        let builder =
            if keys.is_some() { of_environment_without_keys() } else { AmazonS3Builder::from_env() };
        let mut builder = builder.with_bucket_name(bucket);
        let mut options = ClientOptions::new()
            .with_timeout(REQUEST_TIMEOUT)
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_http1_only();
        let of_environment =
            || std::env::var("AWS_ENDPOINT_URL").or_else(|_| std::env::var("AWS_ENDPOINT")).ok();
        match self.get(ENDPOINT).map(str::to_string).or_else(of_environment) {
            Some(endpoint) => {
                let (endpoint, is_in_name) = self.endpoint_of(bucket, &endpoint)?;
                options = options.with_allow_http(endpoint.starts_with("http:"));
                builder = builder.with_endpoint(endpoint).with_virtual_hosted_style_request(is_in_name);
            }
            // Names with dots match no certificate.
            None => {
                let is_in_name = !self.path_style()?.unwrap_or(bucket.contains('.'));
                builder = builder.with_virtual_hosted_style_request(is_in_name);
            }
        }
        if let Some(region) = self.get(REGION).or_else(|| self.get(ENDPOINT_REGION)) {
            builder = builder.with_region(region);
        }
        if let Some((key, secret)) = keys {
            builder = builder.with_access_key_id(key).with_secret_access_key(secret);
            if let Some(token) = self.get(SESSION_TOKEN) {
                builder = builder.with_token(token);
            }
        }
        let retry =
            RetryConfig { max_retries: RETRIES_MAX, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() };
        let built = builder.with_retry(retry).with_client_options(options).build();
        built
            .map_err(|error| Error::configuration(format!("bucket s3://{bucket} cannot be reached: {error}")))
    }
}

/// What the environment says of the store, but not who asks.
fn of_environment_without_keys() -> AmazonS3Builder {
    let region = std::env::var("AWS_REGION").or_else(|_| std::env::var("AWS_DEFAULT_REGION"));
    region.into_iter().fold(AmazonS3Builder::new(), AmazonS3Builder::with_region)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings> {
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        Settings::of(&pairs)
    }

    #[test]
    fn the_keys_have_the_names_that_flink_gives_them() {
        let plain =
            settings(&[("s3.access-key", "a"), ("s3.secret-key", "b"), ("s3.path.style.access", "true")]);
        let hadoop = [("fs.s3a.access.key", "a"), ("s3a.secret.key", "b"), ("s3.path-style-access", "true")];
        assert_eq!(plain.unwrap(), settings(&hadoop).unwrap());
        let both = settings(&[("fs.s3a.endpoint", "http://b"), ("s3.endpoint", "http://a")]).unwrap();
        assert_eq!(both.get(ENDPOINT), Some("http://a"));
        assert!(settings(&[("s3.entropy.key", "x"), ("state.backend.type", "y")]).unwrap().values.is_empty());
    }

    #[test]
    fn values_that_cannot_be_meant_are_refused() {
        let refused = |pairs: &[(&str, &str)]| settings(pairs).unwrap_err().to_string();
        assert!(refused(&[("s3.access-key", "secret-a")]).contains("the other is not"));
        assert!(!refused(&[("s3.access-key", "secret-a")]).contains("secret-a"));
        assert!(refused(&[("s3.path.style.access", "yes")]).contains("true or false"));
        for endpoint in ["ftp://host", "http://", "http://host/path", "http://user@host"] {
            assert!(refused(&[("s3.endpoint", endpoint)]).contains("http://HOST:PORT"), "{endpoint}");
        }
    }

    #[test]
    fn the_bucket_is_in_the_path_or_in_the_name() {
        let plain = settings(&[]).unwrap();
        let expected = ("http://localhost:9000".to_string(), false);
        assert_eq!(plain.endpoint_of("b", "http://localhost:9000/").unwrap(), expected);
        let named = settings(&[("s3.path.style.access", "false")]).unwrap();
        assert_eq!(
            named.endpoint_of("b", "minio.local").unwrap(),
            ("https://b.minio.local".to_string(), true)
        );
    }

    #[test]
    fn what_is_handed_on_is_what_the_configuration_says_of_s3() {
        let pairs = ["s3.access-key=a", "fs.s3a.endpoint=http://b", "parallelism.default=2", "fs.s3.x=y"];
        let configuration = Configuration::from_pairs(pairs).unwrap();
        let expected = [("fs.s3a.endpoint", "http://b"), ("s3.access-key", "a")];
        assert_eq!(keys_of(&configuration), expected.map(|(key, value)| (key.into(), value.into())));
        assert!(is_key("s3.secret-key") && !is_key("state.s3.x"));
    }
}
