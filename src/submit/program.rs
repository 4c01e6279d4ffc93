//! The program's own file, and what it has to be started with to build the same graph again.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use flott_schema::config::{AnyOption, Configuration, options};
use flott_schema::job::ProgramDigest;
use flott_schema::{Error, Result};
use sha2::{Digest, Sha256};

/// The file this process was started from, whatever has become of its path since.
const OWN: &str = "/proc/self/exe";

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 256 << 10;

/// This program.
pub struct Own {
    /// Where its file can be read.
    pub path: PathBuf,
    /// Its file name.
    pub name: String,
    /// Its SHA-256.
    pub digest: ProgramDigest,
    /// Its size.
    pub size_bytes: u64,
}

/// This program, read to its end.
pub fn own() -> Result<Own> {
    let unreadable = |error| Error::io("the program's own file", error);
    let mut file = File::open(OWN).map_err(unreadable)?;
    let (mut hash, mut size_bytes) = (Sha256::new(), 0);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = file.read(&mut chunk).map_err(unreadable)?;
        if count == 0 {
            break;
        }
        hash.update(&chunk[..count]);
        size_bytes += count as u64;
    }
    let path = std::env::current_exe().map_err(unreadable)?;
    let name = path.file_name().map_or_else(|| "program".into(), |name| name.to_string_lossy().into_owned());
    Ok(Own { path: OWN.into(), name, digest: ProgramDigest(hash.finalize().into()), size_bytes })
}

/// The arguments of this process.
pub fn arguments() -> Result<Vec<String>> {
    let arguments = std::env::args_os().skip(1).map(std::ffi::OsString::into_string);
    arguments.collect::<std::result::Result<_, _>>().map_err(|argument| {
        Error::configuration(format!("argument {argument:?} is not UTF-8, so it cannot be sent to a cluster"))
    })
}

/// What the program must be configured with to build this graph in another process: everything that this process is, and the
/// parallelism that [`crate::env`] would else work out from the host. The secret of the cluster does not belong to the job, nor does how S3
/// is reached: workers know that.
pub fn configuration_of_the_job(configuration: &Configuration) -> Vec<(String, String)> {
    let mut pairs = configuration.flattened();
    let secrets = [options::SECURITY_TOKEN.key(), options::SECURITY_TOKEN_FILE.key()];
    pairs.retain(|(key, _)| !secrets.contains(&key.as_str()) && !flott_storage::is_key(key));
    if !configuration.is_set(&options::PARALLELISM_DEFAULT)
        && let Some(default) = options::PARALLELISM_DEFAULT.default_text()
    {
        pairs.push((options::PARALLELISM_DEFAULT.key().into(), default.into()));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_program_is_what_is_running() {
        let own = own().unwrap();
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(own.size_bytes, bytes.len() as u64);
        assert_eq!(own.digest.0, <[u8; 32]>::from(Sha256::digest(&bytes)));
        assert!(std::env::current_exe().unwrap().ends_with(&own.name));
    }

    #[test]
    fn a_job_gets_the_configuration_but_not_the_secrets_of_the_cluster() {
        let own = ["security.token=tell-nobody", "security.token-file=/x", "s3.secret-key=tell-nobody"];
        let pairs = own.into_iter().chain(["pipeline.name=a"]);
        let configuration = Configuration::from_pairs(pairs).unwrap();
        let wanted = [("pipeline.name", "a"), ("parallelism.default", "1")];
        assert_eq!(
            configuration_of_the_job(&configuration),
            wanted.map(|(key, value)| (key.into(), value.into()))
        );
        let configuration = Configuration::from_pairs(["parallelism.default=3"]).unwrap();
        assert_eq!(configuration_of_the_job(&configuration), [("parallelism.default".into(), "3".into())]);
    }
}
