//! A restart, in a child of smaster: the container is made anew in the state directory that it has, from the configuration
//! that it has, and started. Its init is smaster's child when this process has ended.

use super::Supervision;
use crate::config::bundle::Bundle;
use crate::config::rtx_config::RtxConfig;
use crate::engine::Outcome;
use crate::rpc::frame::{self, Kind};
use crate::rpc::{Failure, Reply};
use crate::stages::lifecycle::{self, Live};
use crate::stages::{smaster, stage1};
use crate::state::StateDir;
use crate::sys::fd;
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// What is said when the container is not to be restarted after all.
pub const STOPPED: &str = "the container was stopped";

pub fn main(root: &Path, id: &str, arguments: &[OsString]) -> i32 {
    let number = arguments.first().and_then(|number| number.to_str()).and_then(|number| number.parse().ok());
    let Some(Ok(socket)) = number.map(fd::inherited) else { return super::not_a_command() };
    let _ = fd::cloexec_from(3);
    match restart(root, id) {
        Ok((pid, warnings, console)) => {
            let told = Reply { warnings, moved_to: Some(pid), ..Reply::default() };
            let console: Vec<_> = console.iter().map(AsFd::as_fd).collect();
            i32::from(frame::send(&socket, Kind::Reply, &told, &console).is_err())
        }
        Err(error) => {
            let failure = Some(Failure::from_error(&error));
            let _ = frame::send(&socket, Kind::Reply, &Reply { failure, ..Reply::default() }, &[]);
            1
        }
    }
}

fn restart(root: &Path, id: &str) -> Result<(i32, Vec<String>, Option<OwnedFd>)> {
    let mut live = Live::open_locked(root, id)?;
    if live.container.state.is_to_stop() {
        bail!(STOPPED);
    }
    let supervision: Supervision = live.container.state.supervision()?.context("nothing is known of smaster")?;
    if !supervision.cleaned {
        live.engine.cleanup_container(Outcome::Deleted { container: &live.container, force: true })?;
    }
    let launch = supervision.settings.launch;
    let Live { container, .. } = live;
    let bundle = Bundle::parse(container.record.bundle.clone(), container.state.config()?)?;
    let mut config = RtxConfig::default();
    config.engines.insert(launch.engine.clone(), launch.engine_config.clone());
    let request = stage1::Request {
        id: Some(id.to_owned()),
        bundle: &container.record.bundle,
        engine: Some(&launch.engine),
        config: &config,
        options: launch.options(),
        root: root.to_owned(),
    };
    let prepared = stage1::decide(id.to_owned(), bundle, request)?;
    container.state.remove_barrier();
    container.state.set_started(false)?;
    let before = container.record.clone();
    let created = smaster::create_in(prepared, container.state, true);
    let mut created = created.inspect_err(|_| {
        // The record of what could not be made must not pass for that of a container that was never there.
        let _ = StateDir::open_locked(root, id).and_then(|state| state.write_record(&before));
    })?;
    let console = created.console.take();
    if let Err(error) = lifecycle::start_created(&mut created.container, &mut *created.engine, None) {
        // What was made of it ends with `created`, and is removed before the next restart.
        let _ = created.engine.kill(&mut created.container, libc::SIGKILL, true);
        return Err(error);
    }
    let pid = created.container.record.init.as_ref().map_or(0, |init| init.pid);
    if let Some(stage2) = &mut created.stage2 {
        stage2.release();
    }
    let warnings = std::mem::take(&mut created.warnings);
    Ok((pid, warnings, console))
}
