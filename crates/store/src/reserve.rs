//! The reserve: space of the file system that writes leave free, so that a full disk never stops a member.
//!
//! ```text
//! write ─▶ quota ─▶ free ≥ reserve + next checkpoint? ─ no ─▶ NOSPACE: proposed, as for the quota
//! ```
//! A log that the disk has no room for is a failed write: the member stops. The reserve is there for what
//! is written without being asked for: the log of deletes and compactions, checkpoints, proofs. The memory
//! engine writes all its data anew at a checkpoint, so that much has to be free beside the reserve.
//!
//! Invariant: what a member sees of its own disk decides what it proposes, and nothing else. Apply never
//! looks here.

use crate::error::StoreError;
use std::{
    fmt, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

/// Free space that is kept, where nothing else is said: sixteen segments of the log.
pub const RESERVE_DISK_BYTES: u64 = 256 << 20;

/// Of a small file system, a default reserve takes this part at most.
const RESERVE_PART: u64 = 20;

/// A look lasts for this part of the room that it found: a request takes its bytes several times over,
/// in the log, the engine and the history.
const LOOK_LASTS_FOR: u64 = 32;

/// A look lasts for this long: others write to the same file system.
const LOOK_LASTS_MS: u64 = 250;

/// Counted for each request beside its own bytes: what is stored with it.
const REQUEST_BYTES: u64 = 512;

/// What a file system says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// What may still be written, without the part that is kept for the superuser.
    pub free_bytes: u64,
    /// All of it.
    pub size_bytes: u64,
}

/// Says how much space there is: the file system of the data directory, unless a quota of another kind
/// bounds it, or a test.
pub trait DiskProbe: fmt::Debug + Send + Sync {
    /// Looks now. Called beside writes, so it must not take long.
    ///
    /// # Errors
    /// What the system said. Writes are refused with it: nobody knows then how much there is.
    fn look(&self) -> io::Result<DiskSpace>;
}

/// The file system that a path is on.
#[derive(Clone, Debug)]
pub(crate) struct FileSystemOf(pub(crate) PathBuf);

impl DiskProbe for FileSystemOf {
    fn look(&self) -> io::Result<DiskSpace> {
        let found = rustix::fs::statvfs(&self.0)?;
        Ok(DiskSpace {
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            size_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        })
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Reserve {
    probe: Arc<dyn DiskProbe>,
    /// 0: nothing is looked at.
    reserve_bytes: u64,
    begun: Instant,
    /// Beyond the reserve, at the last look.
    room_bytes: AtomicU64,
    /// Requested since.
    since_bytes: AtomicU64,
    /// When the last look ends to count, since `begun`.
    expires_ms: AtomicU64,
}

impl Reserve {
    /// Looks at the file system, to find a default where no reserve is given.
    pub(crate) fn new(probe: Arc<dyn DiskProbe>, given: Option<u64>) -> io::Result<Self> {
        let reserve_bytes = match given {
            Some(given) => given,
            None => RESERVE_DISK_BYTES.min(probe.look()?.size_bytes / RESERVE_PART),
        };
        Ok(Self {
            probe,
            reserve_bytes,
            begun: Instant::now(),
            room_bytes: AtomicU64::new(0),
            since_bytes: AtomicU64::new(0),
            expires_ms: AtomicU64::new(0),
        })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.reserve_bytes
    }

    /// Whether there is room for a request of this size, beside the reserve and `also_bytes`.
    pub(crate) fn has_room(
        &self,
        size_bytes: usize,
        now: Instant,
        also_bytes: impl FnOnce() -> Result<u64, StoreError>,
    ) -> Result<bool, StoreError> {
        if self.reserve_bytes == 0 {
            return Ok(true);
        }
        let added = size_bytes as u64 + REQUEST_BYTES;
        let since = self.since_bytes.fetch_add(added, Ordering::Relaxed) + added;
        let mut room = self.room_bytes.load(Ordering::Relaxed);
        let elapsed = now.saturating_duration_since(self.begun);
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let has_expired = elapsed_ms >= self.expires_ms.load(Ordering::Relaxed);
        if has_expired || since > room / LOOK_LASTS_FOR {
            let kept = self.reserve_bytes.saturating_add(also_bytes()?);
            let found =
                self.probe.look().map_err(|error| StoreError::UnknownSpace(Arc::new(error)));
            room = found?.free_bytes.saturating_sub(kept);
            self.room_bytes.store(room, Ordering::Relaxed);
            self.since_bytes.store(0, Ordering::Relaxed);
            self.expires_ms.store(elapsed_ms.saturating_add(LOOK_LASTS_MS), Ordering::Relaxed);
        }
        Ok(added <= room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[derive(Debug, Default)]
    struct Disk {
        free_bytes: AtomicU64,
        looks: AtomicU64,
    }

    impl DiskProbe for Disk {
        fn look(&self) -> io::Result<DiskSpace> {
            self.looks.fetch_add(1, Ordering::Relaxed);
            let free_bytes = self.free_bytes.load(Ordering::Relaxed);
            Ok(DiskSpace { free_bytes, size_bytes: 1 << 30 })
        }
    }

    fn reserve(free_bytes: u64, given: Option<u64>) -> (Arc<Disk>, Reserve) {
        let disk = Arc::new(Disk { free_bytes: free_bytes.into(), ..Disk::default() });
        let reserve = Reserve::new(Arc::clone(&disk) as _, given).unwrap();
        disk.looks.store(0, Ordering::Relaxed);
        (disk, reserve)
    }

    fn has_room(reserve: &Reserve, at: Instant) -> bool {
        reserve.has_room(488, at, || Ok(1_000)).unwrap()
    }

    #[test]
    fn a_default_is_a_part_of_a_small_file_system_and_is_capped_on_a_large_one() {
        assert_eq!(reserve(0, None).1.bytes(), (1 << 30) / 20);
        assert_eq!(reserve(0, Some(7)).1.bytes(), 7);
        #[derive(Debug)]
        struct Large;
        impl DiskProbe for Large {
            fn look(&self) -> io::Result<DiskSpace> {
                Ok(DiskSpace { free_bytes: 0, size_bytes: 1 << 40 })
            }
        }
        assert_eq!(Reserve::new(Arc::new(Large), None).unwrap().bytes(), RESERVE_DISK_BYTES);
    }

    #[test]
    fn with_much_room_a_look_lasts_and_ends_with_the_bytes_or_the_time() {
        // Room for 3,200 requests of 1,000 bytes: a look lasts for a hundred.
        let (disk, reserve) = reserve(3_200_000 + 51_000, Some(50_000));
        let now = Instant::now();
        assert!((0..100).all(|_| has_room(&reserve, now)));
        assert_eq!(disk.looks.load(Ordering::Relaxed), 1);
        assert!((0..2).all(|_| has_room(&reserve, now)));
        assert_eq!(disk.looks.load(Ordering::Relaxed), 2);
        assert!(has_room(&reserve, now + Duration::from_millis(LOOK_LASTS_MS)));
        assert_eq!(disk.looks.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn at_the_reserve_every_request_looks_and_room_is_noticed_again() {
        let (disk, reserve) = reserve(51_000 + 999, Some(50_000));
        let now = Instant::now();
        assert!(!has_room(&reserve, now) && !has_room(&reserve, now));
        assert_eq!(disk.looks.load(Ordering::Relaxed), 2);
        disk.free_bytes.store(51_000 + 1_000, Ordering::Relaxed);
        assert!(has_room(&reserve, now));
    }

    #[test]
    fn without_a_reserve_nobody_looks() {
        let (disk, reserve) = reserve(0, Some(0));
        assert!(has_room(&reserve, Instant::now()));
        assert_eq!(disk.looks.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_file_system_of_a_directory_says_what_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let found = FileSystemOf(dir.path().to_owned()).look().unwrap();
        assert!(found.free_bytes > 0 && found.free_bytes <= found.size_bytes, "{found:?}");
        assert!(FileSystemOf(dir.path().join("none")).look().is_err());
    }
}
