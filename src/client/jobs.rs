//! Jobs by id, or by the beginning of one.

use flott_schema::nearest::nearest;
use flott_schema::{Error, Result};

use super::error::ClientError;
use super::transport::Client;
use super::views::{ExceptionHistory, JobDetails, JobOverview, JobsOverview};

/// Candidates that an error names.
const NAMED_MAX: usize = 5;

impl Client {
    /// All jobs the cluster knows.
    pub fn jobs(&self) -> Result<Vec<JobOverview>, ClientError> {
        self.get::<JobsOverview>("/jobs/overview").map(|overview| overview.jobs)
    }

    /// A job by its whole id.
    pub fn job(&self, id: &str) -> Result<JobDetails, ClientError> {
        self.get(&format!("/jobs/{id}"))
    }

    /// The failures of a job, the latest first.
    pub fn exceptions(&self, id: &str) -> Result<ExceptionHistory, ClientError> {
        self.get(&format!("/jobs/{id}/exceptions"))
    }

    /// Asks for a job to be cancelled; it ends some time later.
    pub fn cancel(&self, id: &str) -> Result<(), ClientError> {
        self.patch(&format!("/jobs/{id}?mode=cancel"))
    }

    /// The job whose id begins with `text`, if there is one only.
    pub fn find_job(&self, text: &str) -> Result<JobOverview> {
        let jobs = self.jobs().map_err(ClientError::into_error)?;
        find(text, jobs)
    }
}

fn find(text: &str, jobs: Vec<JobOverview>) -> Result<JobOverview> {
    let wanted = text.to_ascii_lowercase();
    let matching: Vec<&JobOverview> = jobs.iter().filter(|job| job.jid.starts_with(&wanted)).collect();
    match matching.as_slice() {
        [job] if !wanted.is_empty() => Ok((*job).clone()),
        [] => Err(Error::bad_input(format!("there is no job {text}{}", advice(&wanted, text, &jobs)))),
        several => {
            let named: Vec<String> = several.iter().take(NAMED_MAX).map(|job| described(job)).collect();
            let more = if several.len() > NAMED_MAX { ", .." } else { "" };
            Err(Error::bad_input(format!(
                "several jobs have an id that begins with '{text}': {}{more}",
                named.join(", ")
            )))
        }
    }
}

fn described(job: &JobOverview) -> String {
    format!("{} ('{}', {})", job.jid, job.name, job.state)
}

/// What may have been meant.
fn advice(wanted: &str, text: &str, jobs: &[JobOverview]) -> String {
    if let Some(job) = jobs.iter().rev().find(|job| job.name == text) {
        return format!("; by that name there is {}: say its id", described(job));
    }
    // A beginning is compared with beginnings of its length; ids are ASCII.
    let beginnings = jobs.iter().filter_map(|job| job.jid.get(..wanted.len().min(job.jid.len())));
    let near = nearest(wanted, beginnings).filter(|_| wanted.len() >= 4);
    match near.and_then(|near| jobs.iter().find(|job| job.jid.starts_with(near))) {
        Some(job) => format!("; did you mean {}?", described(job)),
        None if jobs.is_empty() => "; the cluster has no jobs".into(),
        None => "; `flott list -a` shows the jobs of the cluster".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs() -> Vec<JobOverview> {
        let job = |jid: &str, name: &str| JobOverview {
            jid: jid.into(),
            name: name.into(),
            state: "RUNNING".into(),
            start_time: 0,
            end_time: -1,
            duration: 0,
            tasks: Default::default(),
        };
        vec![job("00aa11bb", "words"), job("00ab11bb", "hot items"), job("ff000000", "words")]
    }

    #[test]
    fn the_beginning_of_an_id_suffices_if_it_is_of_one_job_only() {
        assert_eq!(find("F", jobs()).unwrap().jid, "ff000000");
        assert_eq!(find("00ab", jobs()).unwrap().jid, "00ab11bb");
        let error = find("00a", jobs()).unwrap_err().to_string();
        assert!(
            error.contains("several jobs") && error.contains("00ab11bb ('hot items', RUNNING)"),
            "{error}"
        );
        assert!(find("", jobs()).unwrap_err().to_string().contains("several jobs"));
    }

    #[test]
    fn an_unknown_id_names_the_nearest_job_or_the_one_of_that_name() {
        let error = |text: &str| find(text, jobs()).unwrap_err().to_string();
        assert!(
            error("00ac11bb").contains("did you mean 00aa11bb ('words', RUNNING)?"),
            "{}",
            error("00ac11bb")
        );
        assert!(error("hot items").contains("by that name there is 00ab11bb"), "{}", error("hot items"));
        assert!(error("77").contains("flott list -a"), "{}", error("77"));
        assert!(find("77", Vec::new()).unwrap_err().to_string().contains("no jobs"));
    }
}
