//! Removing a container's cgroups: rmdir first, because that is nearly always all there is to do.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;

use super::Cgroup;
use super::live::signal_below;
use super::placement::{Place, Placement};
use super::systemd::Standing;
use super::tree;

/// How often a directory is tried whose last process is just ending: with doubling pauses, two seconds in all.
const ATTEMPTS: u32 = 12;
/// The same where others may be in it, who can stay for long.
const ATTEMPTS_SHARED: u32 = 4;

impl Cgroup {
    /// Removes every directory of the container, with those that it made below them. Only where the kernel says that
    /// processes are left are they killed, and only where `is_ours` says that they are the container's: elsewhere a
    /// directory that is in use stays; so do those that others may share, and parents, as with runc. Nothing to remove is
    /// no error.
    pub fn remove(&self, is_ours: impl Fn(&Place) -> bool) -> Result<()> {
        let Some(unit) = &self.placement().unit else { return self.remove_directories(is_ours) };
        match unit.standing() {
            // Another container has the name now, and with it the directories.
            Ok(Standing::Anothers) => Ok(()),
            Ok(Standing::Absent) => self.remove_directories(is_ours),
            Ok(Standing::Ours) => {
                // systemd asks processes to end and waits a minute and a half for them; they are to end now.
                kill_what_is_left(&self.placement().places.iter().collect::<Vec<_>>());
                let stopped = unit.stop();
                self.remove_directories(is_ours)?;
                // Without a cgroup there is no scope; one that could not be stopped is no harm then.
                if self.exists() { stopped } else { Ok(()) }
            }
            // Whose it is cannot be told, so no process of it is ended.
            Err(error) => {
                let removed = self.remove_directories(|_| false);
                if self.exists() { Err(error) } else { removed }
            }
        }
    }

    /// Removes what a `create` left that was killed while it made the cgroups of v1 beside a first process, which ends by that. In
    /// the cgroup of v2 that process was born; of the others nothing says which were there before, so that an empty one goes, and
    /// who is in one stays there.
    ///
    /// # Errors
    /// The kernel's, for a directory that nothing keeps.
    pub fn remove_unsettled(&self) -> Result<()> {
        let Placement { places, found, shared, .. } = self.placement();
        let (born, joined): (Vec<Place>, Vec<Place>) = places.iter().cloned().partition(Place::is_unified);
        let is_ours = |place: &Place| !found.contains(&place.directory());
        // Without it the first process has ended.
        let is_over = !shared && !born.is_empty() && born.iter().all(is_ours);
        let born = Placement { places: born, shared: *shared, ..Placement::default() };
        let lock = self.placement().hold();
        born.open().remove_directories(is_ours)?;
        drop(lock);
        let attempts = match (is_over, shared) {
            (true, _) => 1,
            (false, true) => ATTEMPTS_SHARED,
            (false, false) => ATTEMPTS,
        };
        let mut busy: Vec<(&Place, Errno)> = joined.iter().map(|place| (place, Errno::EBUSY)).collect();
        for attempt in 0..attempts {
            if attempt > 0 {
                std::thread::sleep(pause(attempt - 1));
            }
            let _lock = self.placement().hold();
            busy = busy
                .into_iter()
                .filter_map(|(place, _)| Some((place, tree::rmdir(AT_FDCWD, &place.directory()).err()?)))
                .collect();
            if busy.is_empty() {
                break;
            }
        }
        // What others are in, and what this user did not make, stays.
        let stays = [Errno::EBUSY, Errno::EACCES, Errno::EPERM, Errno::EROFS];
        match busy.into_iter().find(|(_, errno)| !stays.contains(errno)) {
            Some((place, errno)) => Err(errno).with_context(|| format!("rmdir {}", place.directory().display())),
            None => Ok(()),
        }
    }

    fn remove_directories(&self, is_ours: impl Fn(&Place) -> bool) -> Result<()> {
        let _lock = self.placement().hold();
        let busy: Vec<&Place> =
            self.placement().places.iter().filter(|place| tree::rmdir(AT_FDCWD, &place.directory()).is_err()).collect();
        let busy = busy.into_iter().filter(|place| is_ours(place));
        let mut busy: Vec<&Place> = busy.filter(|place| tree::remove(&place.directory()).is_err()).collect();
        if self.placement().shared {
            for attempt in 0..ATTEMPTS_SHARED {
                if busy.is_empty() {
                    break;
                }
                std::thread::sleep(pause(attempt));
                busy.retain(|place| tree::remove(&place.directory()).is_err());
            }
            return Ok(());
        }
        for attempt in 0..ATTEMPTS {
            if busy.is_empty() {
                return Ok(());
            }
            kill_what_is_left(&busy);
            std::thread::sleep(pause(attempt));
            busy.retain(|place| tree::remove(&place.directory()).is_err());
        }
        for place in busy {
            let directory = place.directory();
            tree::remove(&directory).with_context(|| format!("rmdir {}", directory.display()))?;
        }
        Ok(())
    }
}

fn pause(attempt: u32) -> Duration {
    Duration::from_micros(500) * 2u32.pow(attempt)
}

/// Ends the processes below the busy directories. Failure shows in the next rmdir.
fn kill_what_is_left(busy: &[&Place]) {
    let placement = Placement { places: busy.iter().map(|place| (*place).clone()).collect(), ..Placement::default() };
    let _ = placement.open().kill_all(libc::SIGKILL);
    for place in busy {
        let _ = signal_below(&place.directory(), libc::SIGKILL);
    }
}
