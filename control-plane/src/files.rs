//! How many files and sockets this process may have open.
//!
//! The soft limit of a login is often 1024, where the hard one is a hundred times that: it is raised at the start. Some are
//! kept back for the database, the bus and the certificates, so that no crowd of connections can take them.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Kept for everything but connections of callers.
const RESERVE: usize = 256;

/// Raises the limit to the hard one and tells how many connections there may be beside all else.
pub fn for_connections() -> usize {
    let limit = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) => match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => hard,
            Err(error) => {
                tracing::warn!(%error, soft, hard, "cannot raise the limit of open files");
                soft
            }
        },
        Err(error) => {
            tracing::warn!(%error, "the limit of open files is not known");
            1024
        }
    };
    beside_all_else(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Of few, half are kept.
fn beside_all_else(limit: usize) -> usize {
    limit - RESERVE.min(limit / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_files_are_kept_back_and_the_limit_is_the_hard_one() {
        assert_eq!(beside_all_else(1024), 768);
        assert_eq!(beside_all_else(100), 50);
        for_connections();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        assert_eq!(soft, hard);
    }
}
