//! The data folder of a demonstration: made, locked, and on request emptied.
//!
//! Only what a demonstration puts there is ever deleted, and only in a folder that it made (its lock file is
//! the proof). One process at a time: the lock goes with it, however it ends.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::session::write_private;

const LOCK: &str = "demo.lock";
/// A dozen agents write some megabytes; SQLite must never be the one to find out.
const LEAST_FREE_BYTES: u64 = 200 << 20;

pub struct DataFolder {
    path: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Makes and locks the folder. `fresh` deletes what is left of the last time.
    pub fn open(path: &Path, fresh: bool) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| match error.kind() {
            ErrorKind::StorageFull => disk_full(path),
            _ => Failure::Refused(format!(
                "cannot use the data folder {}: {error}; choose another with --data",
                path.display()
            )),
        };
        let made_before = path.join(LOCK).exists();
        fs::create_dir_all(path).map_err(failed)?;
        if !made_before && fs::read_dir(path).map_err(failed)?.next().is_some() {
            return Err(Failure::Usage(format!(
                "{} holds other files: give --data a folder of its own",
                path.display()
            )));
        }
        let lock = File::create(path.join(LOCK)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::Refused(format!(
                    "another demo runs on {}: end it with Ctrl-C, or give --data another folder",
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let path = path.canonicalize().map_err(failed)?;
        if fresh {
            empty(&path).map_err(failed)?;
        }
        check_free_space(&path)?;
        Ok(Self { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn control_plane(&self) -> PathBuf {
        self.path.join("control-plane")
    }

    pub fn relay(&self) -> PathBuf {
        self.path.join("relay")
    }

    pub fn agent(&self, site: &str) -> PathBuf {
        self.path.join("agents").join(site)
    }

    /// Where the log of `name` goes; the folder is made.
    pub fn log(&self, name: &str) -> std::io::Result<PathBuf> {
        let folder = self.path.join("logs");
        fs::create_dir_all(&folder)?;
        Ok(folder.join(format!("{name}.log")))
    }

    /// The password of the demonstration's account: made at the first start and kept.
    pub fn password(&self) -> Result<String, Failure> {
        let path = self.path.join("password");
        match fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::Refused(format!("{}: {error}", path.display()))),
        }
        let password = new_password();
        write_private(&path, format!("{password}\n").as_bytes())?;
        Ok(password)
    }
}

pub fn disk_full(path: &Path) -> Failure {
    Failure::Refused(format!(
        "the disk of {} is full: free some space, then start again",
        path.display()
    ))
}

fn check_free_space(path: &Path) -> Result<(), Failure> {
    let space = nix::sys::statvfs::statvfs(path)
        .map_err(|error| Failure::Refused(format!("{}: {error}", path.display())))?;
    let free = space.blocks_available() * space.fragment_size();
    if free < LEAST_FREE_BYTES {
        return Err(Failure::Refused(format!(
            "the disk of {} has {} MiB left, {} are needed: free some space, then start again",
            path.display(),
            free >> 20,
            LEAST_FREE_BYTES >> 20
        )));
    }
    Ok(())
}

fn empty(path: &Path) -> std::io::Result<()> {
    for name in ["control-plane", "relay", "agents", "logs"] {
        match fs::remove_dir_all(path.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    match fs::remove_file(path.join("password")) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Four groups of four letters and digits that are not easily mistaken: 80 bits.
fn new_password() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bits = rand::random::<u128>();
    let mut password = String::new();
    for position in 0..16 {
        if position > 0 && position % 4 == 0 {
            password.push('-');
        }
        password.push(char::from(LETTERS[(bits % 32) as usize]));
        bits /= 32;
    }
    password
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_kept_until_a_fresh_start() {
        let root = tempfile::tempdir().expect("temporary folder");
        let path = root.path().join("demo");
        let first = DataFolder::open(&path, false)
            .and_then(|folder| folder.password())
            .expect("first start");
        let second = DataFolder::open(&path, false)
            .and_then(|folder| folder.password())
            .expect("second start");
        let third = DataFolder::open(&path, true)
            .and_then(|folder| folder.password())
            .expect("fresh start");
        assert_eq!(first, second);
        assert_ne!(first, third);
        assert_eq!(first.len(), 19);
    }

    #[test]
    fn two_demos_do_not_share_a_folder() {
        let root = tempfile::tempdir().expect("temporary folder");
        let _held = DataFolder::open(root.path(), false).expect("first");
        match DataFolder::open(root.path(), false).map(|_| ()) {
            Err(Failure::Refused(message)) => assert!(message.contains("another demo"), "{message}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_folder_of_others_is_neither_used_nor_emptied() {
        let root = tempfile::tempdir().expect("temporary folder");
        fs::write(root.path().join("thesis.txt"), "years of work").expect("write");
        assert!(matches!(
            DataFolder::open(root.path(), true).map(|_| ()),
            Err(Failure::Usage(_))
        ));
        assert!(root.path().join("thesis.txt").exists());
    }
}
