//! `rtx state`: the state of one container (runtime-spec runtime.md, State) with what runc adds to it.

use super::Context;
use super::args::IdArgs;
use super::output;
use crate::stages::lifecycle::Live;
use crate::stages::supervisor::view::View;
use crate::state::{Record, Status};
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// A container as `state` and `list` print it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown<'a> {
    pub oci_version: &'static str,
    pub id: &'a str,
    pub pid: i32,
    pub status: Status,
    pub bundle: &'a Path,
    pub rootfs: &'a Path,
    pub created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: &'a BTreeMap<String, String>,
    pub owner: String,
    /// Nothing for a container that is not supervised.
    #[serde(flatten)]
    pub supervision: Option<View>,
}

impl<'a> Shown<'a> {
    /// `owner` is empty in `state`, as runc has it, and a name in `list`.
    pub fn new(record: &'a Record, status: Status, owner: String, supervision: Option<View>) -> Self {
        let is_alive = status != Status::Stopped;
        Self {
            oci_version: crate::OCI_VERSION,
            id: &record.id,
            pid: record.init.as_ref().filter(|_| is_alive).map_or(0, |init| init.pid),
            status,
            bundle: &record.bundle,
            rootfs: &record.rootfs,
            created: &record.created,
            annotations: &record.annotations,
            owner,
            supervision,
        }
    }
}

#[inline(never)]
pub fn state(context: &Context, args: IdArgs) -> Result<i32> {
    let live = Live::open(&context.root, &args.id)?;
    let status = live.status()?;
    let supervision = View::of(&live.container.state, &live.container.record)?;
    let shown = Shown::new(&live.container.record, status, String::new(), supervision);
    output::print_pretty(&shown)?;
    Ok(0)
}
