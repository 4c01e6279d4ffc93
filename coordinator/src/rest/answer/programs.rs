//! Stored programs, in the place of Flink's jars.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use actix_multipart::{Field, Multipart, MultipartError};
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use flott_schema::answer::ProgramRun;
use flott_schema::job::{ProgramDigest, ProgramRef};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Asked, accepted, json, json_body, silent};
use crate::machine::programs::StoredProgram;
use crate::programs::Upload;
use crate::rest::body::Held;
use crate::rest::error::ApiError;
use crate::rest::gate::Api;
use crate::service::CoordinatorError;

/// Field of the upload that holds the program, as Flink's clients name it.
const FIELD: &str = "jarfile";

/// The stored programs by digest; refused where programs are switched off.
async fn stored(api: &Api) -> Result<BTreeMap<ProgramDigest, StoredProgram>, ApiError> {
    if !api.options.submit_enabled {
        return Err(ApiError::unavailable(
            "Uploading and running programs is switched off (`web.submit.enable`)",
        ));
    }
    Ok(api.services.handle.read("programs", |state| state.programs().clone()).await?)
}

/// `<sha256>_<filename>`.
fn id(digest: &ProgramDigest, name: &str) -> String {
    format!("{digest}_{name}")
}

/// `/jars`.
pub(super) async fn list(api: &Api) -> Result<HttpResponse, ApiError> {
    let mut stored: Vec<_> = stored(api).await?.into_iter().collect();
    stored.sort_by_key(|(digest, program)| (Reverse(program.stored_ms), *digest));
    let files = stored.iter().map(|(digest, program)| {
        json!({
            "id": id(digest, &program.name),
            "name": program.name,
            "uploaded": program.stored_ms,
            "entry": [{ "name": program.name, "description": null }],
        })
    });
    Ok(json(&json!({
        "address": format!("http://{}", api.address),
        "files": files.collect::<Vec<_>>(),
    })))
}

/// `POST /jars/upload`: the file of a multipart body.
pub(super) async fn upload(api: &Api, asked: Asked<'_>) -> Result<HttpResponse, ApiError> {
    stored(api).await?;
    let Some(programs) = &api.services.programs else {
        return Err(ApiError::unavailable("This cluster keeps no programs"));
    };
    let Asked { request, payload, .. } = asked;
    let broken = |error: MultipartError| {
        ApiError::bad_request(format!("The upload is no multipart/form-data with a field '{FIELD}': {error}"))
    };
    let silence = Duration::from_millis(api.options.idleness_timeout_ms);
    let mut parts = Multipart::new(request.headers(), payload);
    let mut received = None;
    while let Some(field) = timeout(silence, parts.next()).await.map_err(|_| silent())? {
        let field = field.map_err(broken)?;
        let disposition = field.content_disposition();
        let file_name = disposition.and_then(|disposition| disposition.get_filename()).map(str::to_owned);
        if received.is_some() || (field.name() != Some(FIELD) && file_name.is_none()) {
            return Err(ApiError::bad_request(format!("Exactly 1 file must be sent, as field '{FIELD}'.")));
        }
        let name = safe_name(file_name.as_deref().unwrap_or("program"))?;
        received = Some((name, receive(api, field, programs.upload()?).await?));
    }
    let Some((name, upload)) = received else {
        let message = format!("Exactly 1 file must be sent, as field '{FIELD}', received 0.");
        return Err(ApiError::bad_request(message));
    };
    let program = upload.finish(programs, None).await?;
    programs.replicate(program.digest).await?;
    api.services.handle.program_stored(program.digest, name.clone(), program.size_bytes).await?;
    let filename = format!("/programs/{}", id(&program.digest, &name));
    Ok(json(&json!({ "filename": filename, "status": "success" })))
}

/// Writes a field into the store, which bounds its size (`coordinator.programs.max-size`). What broke off is dropped with the
/// upload.
async fn receive(api: &Api, mut field: Field, mut upload: Upload) -> Result<Upload, ApiError> {
    let silence = Duration::from_millis(api.options.idleness_timeout_ms);
    while let Some(piece) = timeout(silence, field.next()).await.map_err(|_| silent())? {
        let piece = piece.map_err(|error| ApiError::bad_request(format!("The upload broke off: {error}")))?;
        upload.write(&piece)?;
    }
    Ok(upload)
}

/// The last part of a file name; it becomes part of ids and paths of the API.
fn safe_name(name: &str) -> Result<String, ApiError> {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let safe = !last.is_empty()
        && last.len() <= 200
        && !last.starts_with('.')
        && !last.chars().any(char::is_control);
    if safe {
        Ok(last.to_owned())
    } else {
        Err(ApiError::bad_request(format!("'{name}' is no name of a file")))
    }
}

/// `DELETE /jars/:jarid`. The file goes once no job needs it.
pub(super) async fn remove(api: &Api, digest: ProgramDigest) -> Result<HttpResponse, ApiError> {
    match api.services.handle.remove_program(digest).await {
        Ok(()) => Ok(accepted(StatusCode::OK)),
        // Flink's status for this call; others say 404.
        Err(CoordinatorError::UnknownProgram(_)) => Err(ApiError::bad_request(no_program(digest).message)),
        Err(other) => Err(other.into()),
    }
}

fn no_program(digest: ProgramDigest) -> ApiError {
    ApiError::not_found(format!("File {digest} does not exist in the store of programs."))
}

/// Body of a request to run a program; parameters of the address say the same.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RunRequest {
    entry_class: Option<String>,
    program_args: Option<String>,
    program_args_list: Option<Vec<String>>,
    parallelism: Option<u32>,
    savepoint_path: Option<String>,
    allow_non_restored_state: Option<bool>,
    claim_mode: Option<String>,
    flink_configuration: Option<BTreeMap<String, String>>,
}

/// `/jars/:jarid/run` and `/jars/:jarid/plan`: a worker runs the program's main.
pub(super) async fn run(
    api: &Api,
    digest: ProgramDigest,
    mut asked: Asked<'_>,
    plan_only: bool,
) -> Result<HttpResponse, ApiError> {
    let program = stored(api).await?.remove(&digest).ok_or_else(|| no_program(digest))?;
    let request: RunRequest = json_body(api, &mut asked.payload).await?;
    let parameters = &asked.parameters;
    // Flink ignores an entry class that is the default; a Flott program has one main.
    drop(request.entry_class);
    let arguments = match (request.program_args_list, request.program_args) {
        (Some(list), _) => list,
        (None, Some(words)) => words.split_whitespace().map(str::to_owned).collect(),
        (None, None) => match parameters.list("programArg") {
            Some(list) => list.into_iter().map(str::to_owned).collect(),
            None => parameters
                .get("program-args")
                .map(|words| words.split_whitespace().map(str::to_owned).collect())
                .unwrap_or_default(),
        },
    };
    let mut configuration: Vec<(String, String)> =
        request.flink_configuration.unwrap_or_default().into_iter().collect();
    let savepoint = request.savepoint_path.as_deref().or(parameters.get("savepointPath"));
    if let Some(savepoint) = savepoint.filter(|savepoint| !savepoint.is_empty()) {
        configuration.push(("execution.state-recovery.path".into(), savepoint.into()));
    }
    let non_restored = parameters.get("allowNonRestoredState").map(|flag| flag.eq_ignore_ascii_case("true"));
    if request.allow_non_restored_state.or(non_restored) == Some(true) {
        configuration.push(("execution.state-recovery.ignore-unclaimed-state".into(), "true".into()));
    }
    if let Some(mode) = request.claim_mode {
        configuration.push(("execution.state-recovery.claim-mode".into(), mode));
    }
    if let Some(parallelism) = request.parallelism.or(parameters.number("parallelism")?) {
        configuration.push(("parallelism.default".into(), parallelism.to_string()));
    }
    let reference = ProgramRef { digest, name: program.name, arguments, execution: 0, configuration };
    let workers = api.services.handle.read("workers", Held::all).await?;
    let Some(worker) = workers.iter().max_by_key(|held| held.record.free_slots()) else {
        return Err(ApiError::unavailable("No worker is registered that could run the program"));
    };
    let ran = api.services.workers.run_program(worker.id, reference, api.address.clone(), plan_only).await?;
    match ran {
        ProgramRun::Submitted(jobs) => match jobs.first() {
            Some(job) => Ok(json(&json!({ "jobid": job.to_string() }))),
            None => Err(ApiError::bad_request("The program ended without submitting a job")),
        },
        ProgramRun::Plan(plan) => {
            let plan: Value = serde_json::from_str(&plan).map_err(|error| {
                ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("The plan is no JSON: {error}"))
            })?;
            Ok(json(&json!({ "plan": plan })))
        }
    }
}
