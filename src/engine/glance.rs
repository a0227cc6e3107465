//! What becomes of a container, for a command that looks at many of them: by its record, a line of /proc, and two names in the
//! state directory.

use super::live::damaged;
use super::oci::cgroup::Freezer;
use crate::state::{Brief, Glance, Status};
use crate::sys::stat::Stat;
use anyhow::{Context, Result};

/// As [`super::live::status`]. `None` where it takes a closer look.
///
/// # Errors
/// As there.
pub fn status(record: &Brief, glance: &Glance) -> Result<Option<Status>> {
    let Some(init) = &record.init else { return Ok(Some(Status::Creating)) };
    let Some(stat) = init.look()?.filter(|stat| !stat.is_zombie()) else { return Ok(Some(Status::Stopped)) };
    if !record.complete {
        return Ok((!record.starting).then_some(Status::Creating));
    }
    if is_frozen(record, Some(&stat))? {
        return Ok(Some(Status::Paused));
    }
    let status = |is_waiting| if is_waiting { Status::Created } else { Status::Running };
    Ok(glance.is_waiting()?.map(status))
}

/// Whether a container is frozen, of whose init this has just been seen.
pub(super) fn is_frozen(record: &Brief, init: Option<&Stat>) -> Result<bool> {
    let Some(state) = record.engine_state else { return Ok(false) };
    if let Some(freezer) = Freezer::plain(state) {
        return freezer.is_frozen(init);
    }
    let freezer = Freezer::of(state).with_context(|| damaged(record.id))?;
    freezer.map_or(Ok(false), |freezer| freezer.is_frozen(init))
}
