//! A file mapped into memory, read-only. A CJK font is 20 MB: mapped, its pages are shared by all agents of a machine
//! and only those that are looked at are read; copied, 140 agents would hold 3 GB for a moment.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::path::Path;

/// The bytes of a file, as long as the value lives.
pub struct MappedFile {
    start: *mut libc::c_void,
    length: usize,
}

impl MappedFile {
    /// Maps a whole file.
    ///
    /// # Errors
    /// What the system says; an empty file is an error too.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        // SAFETY: a fresh private mapping at an address of the kernel's choice touches no memory of ours; the
        // descriptor is open for the call, and the mapping outlives it by the rules of mmap(2).
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start, length })
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start..start + length` is mapped readable until drop. The file is one that the system installs and
        // replaces by rename, so that its bytes do not change under the mapping.
        unsafe { std::slice::from_raw_parts(self.start.cast::<u8>(), self.length) }
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `open` made; no slice of it outlives `self`.
        unsafe { libc::munmap(self.start, self.length) };
    }
}
