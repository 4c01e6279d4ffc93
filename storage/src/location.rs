//! Where a folder is: what a path or URI says.

use std::path::{Component, Path, PathBuf};

use flott_schema::nearest::nearest;
use flott_schema::{Error, Result};

use crate::s3::Bucket;

/// Schemes that this build can read and write.
const SCHEMES: [&str; 4] = ["file", "s3", "s3a", "s3p"];

/// Schemes of Flink's that it cannot, so that none of ours is taken for what was meant.
const OTHERS: [&str; 13] = [
    "hdfs", "viewfs", "webhdfs", "gs", "oss", "abfs", "abfss", "wasb", "wasbs", "azure", "http", "https",
    "ftp",
];

/// A place that a path or URI names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// A path of the file system, absolute and without `.` and `..`.
    Local(PathBuf),
    /// A folder in a bucket of S3.
    Bucket(Bucket),
}

/// Reads a path (`/data`, `data`) or URI (`file:///data`, `file:/data`, `s3://bucket/data`). A relative path counts from the process's folder.
pub(crate) fn parse(uri: &str) -> Result<Location> {
    let wrong = |reason: &str| Err(Error::configuration(format!("'{uri}' names no folder: {reason}")));
    if uri.trim().is_empty() {
        return wrong("it is empty");
    }
    let Some((scheme, rest)) = scheme_of(uri) else { return local(uri, Path::new(uri)) };
    match scheme.to_ascii_lowercase().as_str() {
        "file" => match rest.strip_prefix("//") {
            // A host, of which only this one is meant.
            Some(rest) => match rest.split_once('/') {
                Some(("" | "localhost", path)) => {
                    local(uri, &Path::new("/").join(path.trim_start_matches('/')))
                }
                Some((host, _)) => wrong(&format!(
                    "'{host}' would be a host, and files of other hosts cannot be reached; write file:///{rest} if it is a folder"
                )),
                None => wrong("write file:///PATH with three slashes"),
            },
            None if rest.starts_with('/') => local(uri, Path::new(rest)),
            None => wrong("write file:///PATH"),
        },
        "s3" | "s3a" | "s3p" => match rest.strip_prefix("//") {
            Some(rest) => Bucket::parse(rest).map(Location::Bucket).or_else(|reason| wrong(&reason)),
            None => wrong("write s3://BUCKET/PATH"),
        },
        other => {
            let near = nearest(other, SCHEMES.iter().copied()).filter(|_| !OTHERS.contains(&other));
            let near = near.map_or_else(String::new, |near| format!(", the nearest is '{near}'"));
            wrong(&format!(
                "scheme '{other}' is not built in{near}; there are plain paths and {}",
                SCHEMES.map(|scheme| format!("{scheme}://")).join(", ")
            ))
        }
    }
}

/// Scheme and rest of a URI; nothing for a path. One letter is a drive, not a scheme.
fn scheme_of(uri: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = uri.split_once(':')?;
    let is_scheme = scheme.len() > 1
        && scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.chars().all(|letter| letter.is_ascii_alphanumeric() || "+-.".contains(letter))
        && rest.starts_with('/');
    is_scheme.then_some((scheme, rest))
}

fn local(uri: &str, path: &Path) -> Result<Location> {
    let path = std::path::absolute(path).map_err(|error| Error::io(uri, error))?;
    Ok(Location::Local(plain(&path)))
}

/// The path without `.` and `..`; a link on the way is not followed.
pub(crate) fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(uri: &str) -> String {
        match parse(uri).unwrap() {
            Location::Local(path) => path.display().to_string(),
            Location::Bucket(bucket) => bucket.uri(),
        }
    }

    #[test]
    fn paths_and_file_uris_name_the_same_folder() {
        for uri in ["/data/a", "file:///data/a", "file:/data/a", "FILE://localhost/data/a", "/data/./b/../a/"]
        {
            assert_eq!(path(uri), "/data/a", "{uri}");
        }
        assert_eq!(path("file:////data/a"), "/data/a");
        assert_eq!(path("a:b/c"), std::path::absolute("a:b/c").unwrap().display().to_string());
        assert_eq!(path("data"), std::path::absolute("data").unwrap().display().to_string());
    }

    #[test]
    fn all_schemes_of_s3_name_the_same_folder() {
        for uri in ["s3://bucket/a/b", "s3a://bucket/a/b/", "S3P://bucket//a/./b"] {
            assert_eq!(path(uri), "s3://bucket/a/b", "{uri}");
        }
    }

    #[test]
    fn what_cannot_be_reached_is_refused_with_what_can() {
        let refusal = |uri| parse(uri).unwrap_err().to_string();
        assert!(refusal("file://data/a").contains("'data' would be a host"), "{}", refusal("file://data/a"));
        assert!(refusal("file://data").contains("three slashes"));
        let hdfs = refusal("hdfs://host/a");
        assert!(
            hdfs.contains("scheme 'hdfs' is not built in; there are plain paths and file://, s3://"),
            "{hdfs}"
        );
        assert!(refusal("gs://bucket/a").contains("scheme 'gs' is not built in; there"));
        assert!(refusal("s3:/bucket/a").contains("write s3://BUCKET/PATH"));
        assert!(refusal("s3:///a").contains("no name of a bucket"));
        assert!(refusal("fiel:///data").contains("the nearest is 'file'"), "{}", refusal("fiel:///data"));
        assert!(refusal(" ").contains("it is empty"));
    }
}
