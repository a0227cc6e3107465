//! `rtx state`: the state of one container (runtime-spec runtime.md, State) with what runc adds to it.

use super::Context;
use super::args::IdArgs;
use super::output;
use crate::stages::lifecycle::Live;
use crate::stages::supervisor::view::View;
use crate::state::{Brief, Status};
use anyhow::Result;
use serde::Serialize;
use std::borrow::Cow;
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
    #[serde(skip_serializing_if = "is_empty")]
    pub annotations: Cow<'a, BTreeMap<String, String>>,
    pub owner: String,
    /// Nothing for a container that is not supervised.
    #[serde(flatten)]
    pub supervision: Option<View>,
}

fn is_empty(annotations: &BTreeMap<String, String>) -> bool {
    annotations.is_empty()
}

/// The process that is shown: none of a container that has stopped.
pub fn pid(record: &Brief, status: Status) -> i32 {
    record.init.filter(|_| status != Status::Stopped).map_or(0, |init| init.pid)
}

impl<'a> Shown<'a> {
    /// `owner` is empty in `state`, as runc has it, and a name in `list`.
    ///
    /// # Errors
    /// None that can be expected.
    pub fn new(record: &Brief<'a>, status: Status, owner: String, supervision: Option<View>) -> Result<Self> {
        let annotations = record.annotations()?;
        let Brief { id, bundle, rootfs, created, .. } = *record;
        let (oci_version, pid) = (crate::OCI_VERSION, pid(record, status));
        Ok(Self { oci_version, id, pid, status, bundle, rootfs, created, annotations, owner, supervision })
    }
}

#[inline(never)]
pub fn state(context: &Context, args: IdArgs) -> Result<i32> {
    let live = Live::open(&context.root, &args.id)?;
    let status = live.status()?;
    let supervision = View::of(&live.container.state, &live.container.record)?;
    let shown = Shown::new(&Brief::from(&live.container.record), status, String::new(), supervision)?;
    output::print_pretty(&shown)?;
    Ok(0)
}
