//! Log files of a process: their list, and their text in pieces.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use actix_web::body::SizedStream;
use actix_web::http::header;
use actix_web::web::{self, Bytes};
use actix_web::{HttpResponse, error as actix_error};
use flott_schema::answer::FilePart;
use flott_schema::error::{Error, Result as SchemaResult};
use flott_schema::ids::WorkerId;
use flott_schema::stats::LogFile;
use futures_util::stream;
use serde_json::json;

use super::json;
use crate::live::AskWorkers;
use crate::rest::error::ApiError;

/// Bytes that are fetched at once.
const PIECE_BYTES: u32 = 256 << 10;

/// Whose files.
#[derive(Clone)]
pub(super) enum Files {
    /// This process's, in a folder.
    Own(PathBuf),
    /// A worker's.
    Worker(Arc<dyn AskWorkers>, WorkerId),
}

impl Files {
    pub(super) fn of_worker(workers: Arc<dyn AskWorkers>, worker: WorkerId) -> Self {
        Files::Worker(workers, worker)
    }

    async fn list(&self) -> Result<Vec<LogFile>, ApiError> {
        let mut files = match self {
            Files::Worker(workers, worker) => workers.list_logs(*worker).await?,
            Files::Own(folder) => {
                let folder = folder.clone();
                web::block(move || list_folder(&folder)).await.map_err(overloaded)??
            }
        };
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    async fn part(&self, name: &str, offset: u64) -> Result<FilePart, ApiError> {
        Ok(match self {
            Files::Worker(workers, worker) => {
                workers.read_log(*worker, name.to_owned(), offset, PIECE_BYTES).await?
            }
            Files::Own(folder) => {
                let path = folder.join(name);
                web::block(move || read_part(&path, offset)).await.map_err(overloaded)??
            }
        })
    }
}

fn overloaded(error: actix_error::BlockingError) -> ApiError {
    ApiError::unavailable(format!("Files cannot be read at the moment: {error}"))
}

/// The files of a folder; folders in it and files that vanish meanwhile are left out.
fn list_folder(folder: &Path) -> SchemaResult<Vec<LogFile>> {
    let entries = fs::read_dir(folder).map_err(|error| Error::io(folder.display(), error))?;
    let file = |entry: fs::DirEntry| {
        let meta = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        let modified = meta.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        let name = entry.file_name().into_string().ok()?;
        Some(LogFile { name, size: meta.len(), modified_ms: u64::try_from(modified.as_millis()).ok()? })
    };
    Ok(entries.flatten().filter_map(file).collect())
}

fn read_part(path: &Path, offset: u64) -> SchemaResult<FilePart> {
    let wrong = |error| Error::io(path.display(), error);
    let mut file = File::open(path).map_err(wrong)?;
    let size = file.metadata().map_err(wrong)?.len();
    file.seek(SeekFrom::Start(offset)).map_err(wrong)?;
    let mut bytes = Vec::new();
    file.take(u64::from(PIECE_BYTES)).read_to_end(&mut bytes).map_err(wrong)?;
    Ok(FilePart { bytes, size })
}

/// `/…/logs`.
pub(super) async fn list(files: &Files) -> Result<HttpResponse, ApiError> {
    let files = files.list().await?;
    let files =
        files.iter().map(|file| json!({ "name": file.name, "size": file.size, "mtime": file.modified_ms }));
    Ok(json(&json!({ "logs": files.collect::<Vec<_>>() })))
}

/// `/…/logs/:name`, or without a name the latest file of the process itself with this extension. Only names that the
/// list has are read, so no path leads out of the folder. The text is that of the moment the request came: what is
/// appended meanwhile is left for the next one.
pub(super) async fn read(
    files: Files,
    name: Option<&str>,
    extension: &str,
) -> Result<HttpResponse, ApiError> {
    let known = files.list().await?;
    let found = match name {
        Some(name) => known.into_iter().find(|file| file.name == name),
        None => {
            let own = |file: &LogFile| {
                Path::new(&file.name).extension().is_some_and(|found| found == extension)
                    && !file.name.contains("executor")
            };
            known.into_iter().filter(own).max_by_key(|file| file.modified_ms)
        }
    };
    let Some(file) = found else {
        let name = name.map_or_else(|| format!("*.{extension}"), str::to_owned);
        return Err(ApiError::not_found(format!("This file does not exist: {name}")));
    };
    // The first piece decides whether there is an answer; later trouble cuts it short.
    let first = files.part(&file.name, 0).await?;
    let end = first.size;
    let pieces =
        stream::unfold((files, file.name, 0, Some(first)), move |(files, name, offset, ready)| async move {
            if offset >= end {
                return None;
            }
            let part = match ready {
                Some(part) => part,
                None => match files.part(&name, offset).await {
                    Ok(part) => part,
                    Err(error) => {
                        return Some((Err(actix_error::ErrorBadGateway(error)), (files, name, end, None)));
                    }
                },
            };
            if part.bytes.is_empty() {
                return None;
            }
            let mut bytes = part.bytes;
            bytes.truncate(usize::try_from(end - offset).unwrap_or(usize::MAX));
            let next = offset + bytes.len() as u64;
            Some((Ok(Bytes::from(bytes)), (files, name, next, None)))
        });
    let kind = (header::CONTENT_TYPE, "text/plain; charset=UTF-8");
    Ok(HttpResponse::Ok().insert_header(kind).body(SizedStream::new(end, Box::pin(pieces))))
}
