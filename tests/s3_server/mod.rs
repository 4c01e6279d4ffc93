//! A real S3 server over a temporary folder, on a free port. `scripts/lib/s3-server.sh` builds it once.

// Each test binary uses its share of these.
#![allow(dead_code)]

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Exit code of the script where the server cannot be built on this machine.
const LEFT_OUT: i32 = 77;

/// It is up long before, even on a machine that does other work.
const DEADLINE: Duration = Duration::from_secs(60);

pub const ACCESS_KEY: &str = "flott";
pub const SECRET_KEY: &str = "as-secret-as-can-be";

pub struct S3Server {
    process: Child,
    folder: TempDir,
    pub endpoint: String,
}

impl S3Server {
    /// Starts it, with a bucket named `bucket`. Nothing where it cannot be had; the reason is printed.
    pub fn start(root: &Path) -> Option<Self> {
        let script = root.join("scripts/lib/s3-server.sh");
        let fetched = Command::new(&script).arg("fetch").output().expect("the script runs");
        if fetched.status.code() == Some(LEFT_OUT) {
            eprintln!("{}", String::from_utf8_lossy(&fetched.stderr));
            return None;
        }
        assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
        let folder = tempfile::tempdir().expect("a folder can be made");
        std::fs::create_dir(folder.path().join("bucket")).expect("a folder can be made");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("there is a free port");
        let mut process = Command::new(&script)
            .args(["run", &address.port().to_string()])
            .arg(folder.path())
            .env("ROOT_ACCESS_KEY", ACCESS_KEY)
            .env("ROOT_SECRET_KEY", SECRET_KEY)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the script runs");
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Ok(Some(status)) = process.try_wait() {
                panic!("the S3 server has ended: {status}");
            }
            assert!(started.elapsed() < DEADLINE, "the S3 server is not up");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(S3Server { process, folder, endpoint: format!("http://{address}") })
    }

    /// The configuration of who may use it.
    pub fn keys(&self) -> [(&'static str, String); 3] {
        [
            ("s3.endpoint", self.endpoint.clone()),
            ("s3.access-key", ACCESS_KEY.into()),
            ("s3.secret-key", SECRET_KEY.into()),
        ]
    }

    /// The same as `-D` flags.
    pub fn flags(&self) -> Vec<String> {
        let pairs = self.keys().into_iter().map(|(key, value)| format!("{key}={value}"));
        pairs.flat_map(|pair| ["-D".to_string(), pair]).collect()
    }

    /// Where an object of the bucket lies.
    pub fn object(&self, key: &str) -> PathBuf {
        self.folder.path().join("bucket").join(key)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
