//! How many files and connections a process may have open.
//!
//! A state backend keeps a file open for each part of its state, and every connection is one too: the 1,024 that a shell starts a process with are soon
//! used up. They are that few for programs that wait with `select`, which this one does not.

use std::io::Result;

/// Below this there is something to warn of.
pub const ENOUGH: u64 = 4096;

/// Raises the limit of this process, and of those that it starts from now on, as far as it may. Gives the limit.
pub fn raise_limit() -> Result<u64> {
    let mut limit = limit()?;
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the limit is read, and nothing else.
        checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    }
    Ok(limit.rlim_cur)
}

/// What to warn of, after a try to raise the limit.
pub fn complaint(raised: &Result<u64>) -> Option<String> {
    match raised {
        Ok(limit) if *limit >= ENOUGH => None,
        Ok(limit) => Some(format!(
            "this process may open no more than {limit} files and connections, too few for a job with much state or many \
             tasks; raise the hard limit (ulimit -Hn, or LimitNOFILE= of its service) to {ENOUGH} or more"
        )),
        Err(error) => Some(format!("the limit of open files cannot be raised: {error}")),
    }
}

fn limit() -> Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is written, and nothing else.
    checked(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    Ok(limit)
}

fn checked(result: libc::c_int) -> Result<()> {
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_it_may_be() {
        let libc::rlimit { rlim_max, .. } = limit().unwrap();
        // By one, which no other test minds.
        let lowered = libc::rlimit { rlim_cur: rlim_max - 1, rlim_max };
        // SAFETY: the limit is read, and nothing else.
        checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &lowered) }).unwrap();
        assert_eq!(limit().unwrap().rlim_cur, rlim_max - 1);
        assert_eq!(raise_limit().unwrap(), rlim_max);
        assert_eq!(limit().unwrap().rlim_cur, rlim_max);
        assert_eq!(raise_limit().unwrap(), rlim_max);
    }

    #[test]
    fn a_low_limit_is_complained_of_with_what_to_do() {
        assert_eq!(complaint(&Ok(ENOUGH)), None);
        let low = complaint(&Ok(1024)).unwrap();
        assert!(low.contains("1024") && low.contains("ulimit -Hn"), "{low}");
        let failed = complaint(&Err(std::io::Error::other("no"))).unwrap();
        assert!(failed.ends_with("cannot be raised: no"), "{failed}");
    }
}
