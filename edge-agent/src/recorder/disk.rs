//! The recordings on the disk: a bounded number of bytes, a floor of free space, the oldest goes first.
//!
//! A recording that goes on is called `BEGIN.webm` (milliseconds since the Unix epoch), one that has ended
//! `BEGIN-END.webm`; with H.264 they end with `.mkv`. A cluster is on the disk before the next one is written. Files that are called otherwise are left
//! alone.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use nix::sys::statvfs::statvfs;
use serde::Serialize;

/// How much the recordings may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all of them together.
    pub most: u64,
    /// Bytes that stay free on the disk.
    pub keep_free: u64,
}

/// One recording. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recording {
    /// Name of the file.
    pub name: String,
    pub from_ms: i64,
    /// Of one that goes on: when it was last written to.
    pub to_ms: i64,
    pub bytes: u64,
    pub going: bool,
}

/// As it is called once it has ended.
fn ended(recording: &Recording, to_ms: i64) -> String {
    let kind = if recording.name.ends_with(".mkv") {
        "mkv"
    } else {
        "webm"
    };
    format!("{}-{}.{kind}", recording.from_ms, to_ms.max(recording.from_ms))
}

fn times(name: &str) -> Option<(i64, Option<i64>)> {
    let stem = name.strip_suffix(".webm").or_else(|| name.strip_suffix(".mkv"))?;
    match stem.split_once('-') {
        Some((from, to)) => Some((from.parse().ok()?, Some(to.parse().ok()?))),
        None => Some((stem.parse().ok()?, None)),
    }
}

/// A time for people: `2026-03-01 08:30:00`, of Greenwich.
pub fn utc(ms: i64) -> String {
    let (days, second) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000) / 1000);
    // Days of the Gregorian calendar in eras of 400 years that begin in March.
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let shown_month = if month < 10 { month + 3 } else { month - 9 };
    let shown_year = era * 400 + year + i64::from(shown_month <= 2);
    let (hours, minutes, seconds) = (second / 3600, second / 60 % 60, second % 60);
    format!("{shown_year:04}-{shown_month:02}-{of_month:02} {hours:02}:{minutes:02}:{seconds:02}")
}

/// All recordings in a folder, oldest first; none where there is no folder.
///
/// # Errors
/// The folder cannot be read.
pub fn list(dir: &Path) -> std::io::Result<Vec<Recording>> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let (Some((from_ms, to_ms)), Ok(data)) = (times(&name), entry.metadata()) else {
            continue;
        };
        let written = data
            .modified()
            .ok()
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let written_ms = written.map_or(from_ms, |age| age.as_millis() as i64);
        found.push(Recording {
            name,
            from_ms,
            to_ms: to_ms.unwrap_or(written_ms),
            bytes: data.len(),
            going: to_ms.is_none(),
        });
    }
    found.sort_by(|a, b| (a.from_ms, &a.name).cmp(&(b.from_ms, &b.name)));
    Ok(found)
}

/// The folder, and the recording that goes on.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    limits: Limits,
    open: Option<(File, Recording)>,
}

impl Disk {
    /// Takes the folder, and closes what a power cut left open.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn open(dir: &Path, limits: Limits) -> std::io::Result<Self> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
        for left in list(dir)?.iter().filter(|left| left.going) {
            std::fs::rename(dir.join(&left.name), dir.join(ended(left, left.to_ms)))?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            limits,
            open: None,
        })
    }

    /// Begins a recording with these bytes.
    ///
    /// # Errors
    /// No room, or the disk does not take it.
    pub fn begin(&mut self, from_ms: i64, header: &[u8]) -> std::io::Result<()> {
        self.end(from_ms)?;
        self.make_room(header.len() as u64)?;
        // The type of document stands near the beginning.
        let is_matroska = header.windows(8).take(128).any(|word| word == b"matroska");
        let name = format!("{from_ms}.{}", if is_matroska { "mkv" } else { "webm" });
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(self.dir.join(&name))?;
        file.write_all(header)?;
        file.sync_all()?;
        File::open(&self.dir)?.sync_all()?;
        let recording = Recording {
            name,
            from_ms,
            to_ms: from_ms,
            bytes: header.len() as u64,
            going: true,
        };
        self.open = Some((file, recording));
        Ok(())
    }

    /// Adds a cluster that ends at this time. On an error the recording has ended with the one before.
    ///
    /// # Errors
    /// No room, or the disk does not take it.
    pub fn add(&mut self, to_ms: i64, cluster: &[u8]) -> std::io::Result<()> {
        let room = self.make_room(cluster.len() as u64);
        let Some((file, recording)) = &mut self.open else {
            return Ok(());
        };
        let added = room
            .and_then(|()| file.write_all(cluster))
            .and_then(|()| file.sync_data());
        if let Err(error) = added {
            let whole = recording.bytes;
            let _ = file.set_len(whole);
            let ended = recording.to_ms;
            self.end(ended)?;
            return Err(error);
        }
        recording.bytes += cluster.len() as u64;
        recording.to_ms = to_ms;
        Ok(())
    }

    /// Ends the recording, if one goes on.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn end(&mut self, to_ms: i64) -> std::io::Result<()> {
        let Some((file, recording)) = self.open.take() else {
            return Ok(());
        };
        file.sync_all()?;
        let name = ended(&recording, to_ms);
        std::fs::rename(self.dir.join(recording.name), self.dir.join(name))?;
        File::open(&self.dir)?.sync_all()
    }

    /// All of them as they are now, oldest first.
    pub fn list(&self) -> Vec<Recording> {
        list(&self.dir).unwrap_or_default()
    }

    /// Removes as many of the oldest as make room for so many bytes more; none where all of them would not. The one that
    /// goes on is never removed.
    fn make_room(&self, more: u64) -> std::io::Result<()> {
        let all = list(&self.dir)?;
        let used: u64 = all.iter().map(|one| one.bytes).sum();
        let disk = statvfs(&self.dir).map_err(std::io::Error::from)?;
        let free = disk.blocks_available() * disk.fragment_size();
        let over = used.saturating_add(more).saturating_sub(self.limits.most);
        let short = self.limits.keep_free.saturating_add(more).saturating_sub(free);
        let ended: Vec<_> = all.into_iter().filter(|one| !one.going).collect();
        let Some(going) = oldest_that_make_room(&ended, over.max(short)) else {
            let full = "no room for the recording: its bound, or the floor of free space, is reached";
            return Err(std::io::Error::new(std::io::ErrorKind::StorageFull, full));
        };
        for oldest in going {
            tracing::info!(name = oldest.name, "the oldest recording makes room");
            std::fs::remove_file(self.dir.join(&oldest.name))?;
        }
        Ok(())
    }
}

/// The fewest, from the first, that together have so many bytes; `None` where all of them have not.
fn oldest_that_make_room(recordings: &[Recording], bytes: u64) -> Option<&[Recording]> {
    let mut freed = 0_u64;
    let mut count = 0;
    while freed < bytes {
        freed = freed.saturating_add(recordings.get(count)?.bytes);
        count += 1;
    }
    recordings.get(..count)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: Limits = Limits {
        most: 1000,
        keep_free: 0,
    };

    fn names(disk: &Disk) -> Vec<String> {
        disk.list().into_iter().map(|one| one.name).collect()
    }

    #[test]
    fn a_recording_that_a_power_cut_left_open_is_closed_at_the_next_start() {
        let dir = tempfile::tempdir().expect("folder");
        let mut disk = Disk::open(dir.path(), PLENTY).expect("opened");
        disk.begin(5, b"head").expect("begun");
        disk.add(9, b"cluster").expect("added");
        assert_eq!(names(&disk), ["5.webm"]);
        assert!(disk.list()[0].going);
        drop(disk);
        let disk = Disk::open(dir.path(), PLENTY).expect("opened");
        let all = disk.list();
        assert!(
            all.len() == 1 && !all[0].going && all[0].from_ms == 5 && all[0].bytes == 11,
            "{all:?}"
        );
    }

    #[test]
    fn the_oldest_goes_first_and_other_files_are_left_alone() {
        let dir = tempfile::tempdir().expect("folder");
        std::fs::write(dir.path().join("notes.txt"), b"mine").expect("written");
        let mut disk = Disk::open(dir.path(), PLENTY).expect("opened");
        for from_ms in [10, 20, 30] {
            disk.begin(from_ms, &[0; 100]).expect("begun");
            disk.add(from_ms + 5, &[0; 200]).expect("added");
        }
        disk.end(36).expect("ended");
        assert_eq!(names(&disk), ["10-20.webm", "20-30.webm", "30-36.webm"]);
        disk.begin(40, &[0; 100]).expect("begun");
        disk.add(45, &[0; 500]).expect("added");
        assert_eq!(names(&disk), ["30-36.webm", "40.webm"]);
        // It has the whole bound to itself, and no more.
        disk.add(46, &[0; 300]).expect("added");
        assert_eq!(names(&disk), ["40.webm"]);
        let full = disk.add(47, &[0; 200]).expect_err("the bound is reached");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        assert_eq!(names(&disk), ["40-46.webm"]);
        assert!(dir.path().join("notes.txt").exists());
    }

    #[test]
    fn times_are_told_for_people() {
        assert_eq!(utc(0), "1970-01-01 00:00:00");
        assert_eq!(utc(1_582_979_696_789), "2020-02-29 12:34:56");
    }

    #[test]
    fn a_floor_of_free_space_is_kept() {
        let dir = tempfile::tempdir().expect("folder");
        let limits = Limits {
            most: u64::MAX,
            keep_free: u64::MAX / 2,
        };
        let mut disk = Disk::open(dir.path(), limits).expect("opened");
        let full = disk.begin(1, b"head").expect_err("no disk is so large");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        assert!(disk.list().is_empty());
    }

    #[test]
    fn a_disk_that_others_have_filled_costs_no_recording() {
        let dir = tempfile::tempdir().expect("folder");
        let mut disk = Disk::open(dir.path(), PLENTY).expect("opened");
        for from_ms in [10, 20, 30] {
            disk.begin(from_ms, &[0; 100]).expect("begun");
        }
        disk.end(36).expect("ended");
        drop(disk);
        // As if others had taken all but a little: to remove all three would be of no help.
        let limits = Limits {
            most: 1000,
            keep_free: u64::MAX / 2,
        };
        let mut disk = Disk::open(dir.path(), limits).expect("opened");
        let full = disk.begin(40, b"head").expect_err("too full");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        assert_eq!(names(&disk), ["10-20.webm", "20-30.webm", "30-36.webm"]);
        drop(disk);
        // Nor does one that is larger than the whole bound.
        let mut disk = Disk::open(dir.path(), PLENTY).expect("opened");
        disk.begin(40, &[0; 1001]).expect_err("too large");
        assert_eq!(names(&disk), ["10-20.webm", "20-30.webm", "30-36.webm"]);
    }

    #[test]
    fn no_more_recordings_go_than_must() {
        let of = |bytes| Recording {
            name: String::new(),
            from_ms: 0,
            to_ms: 0,
            bytes,
            going: false,
        };
        let all = [of(100), of(50), of(200)];
        let going = |bytes| oldest_that_make_room(&all, bytes).map(<[_]>::len);
        let counts = [0, 1, 100, 101, 150, 151, 350].map(going);
        assert_eq!(counts, [0, 1, 1, 2, 2, 3, 3].map(Some));
        assert_eq!(going(351), None);
        assert!(oldest_that_make_room(&[], 1).is_none());
    }
}
