//! `rtx checkpoint`: a running container becomes images, from which `restore` makes it again.

use super::Context;
use super::args::{CheckpointArgs, CriuArgs, ManageCgroups};
use crate::engine::CheckpointRequest;
use crate::engine::checkpoint::{CgroupsMode, CriuOptions};
use crate::stages::checkpoint;
use crate::sys::{On, fd};
use anyhow::{Result, bail};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Where images are without `--image-path`, in the working directory.
const IMAGES: &str = "checkpoint";

pub fn checkpoint(context: &Context, args: CheckpointArgs) -> Result<i32> {
    let request = CheckpointRequest {
        criu: criu_options(context, args.criu)?,
        parent: args.parent_path.filter(|path| !path.as_os_str().is_empty()).map(relative).transpose()?,
        leave_running: args.leave_running,
        pre_dump: args.pre_dump,
        status: args.status_fd.filter(|number| *number >= 0).map(status_descriptor).transpose()?,
        page_server: args.page_server.as_deref().filter(|text| !text.is_empty()).map(page_server).transpose()?,
        link_remap: args.link_remap,
        tcp_skip_in_flight: args.tcp_skip_in_flight,
    };
    let failed = checkpoint::checkpoint(&context.root, &args.id, &request)?;
    super::report::warn(&format!("rtx checkpoint {}", args.id), &failed);
    Ok(0)
}

/// The flags that `restore` has as well.
///
/// # Errors
/// What is wrong with one of them.
pub fn criu_options(context: &Context, args: CriuArgs) -> Result<CriuOptions> {
    let absolute = |path: PathBuf| std::path::absolute(path);
    let given = |path: Option<PathBuf>| path.filter(|path| !path.as_os_str().is_empty());
    Ok(CriuOptions {
        program: given(context.globals.criu.clone()).unwrap_or_else(|| PathBuf::from("criu")),
        images: absolute(given(args.image_path).unwrap_or_else(|| PathBuf::from(IMAGES)))?,
        work: given(args.work_path).map(absolute).transpose()?,
        tcp_established: args.tcp_established,
        ext_unix_sk: args.ext_unix_sk,
        shell_job: args.shell_job,
        lazy_pages: args.lazy_pages,
        file_locks: args.file_locks,
        auto_dedup: args.auto_dedup,
        cgroups_mode: args.manage_cgroups_mode.map(cgroups_mode),
        empty_namespaces: empty_namespaces(&args.empty_ns)?,
    })
}

fn cgroups_mode(mode: ManageCgroups) -> CgroupsMode {
    match mode {
        ManageCgroups::Soft => CgroupsMode::Soft,
        ManageCgroups::Full => CgroupsMode::Full,
        ManageCgroups::Strict => CgroupsMode::Strict,
        ManageCgroups::Ignore => CgroupsMode::Ignore,
    }
}

/// CRIU knows how to leave one kind empty.
fn empty_namespaces(names: &[String]) -> Result<i32> {
    match names.iter().find(|name| *name != "network") {
        Some(name) => bail!("--empty-ns: namespace {name:?} is not supported: only \"network\" can be left empty"),
        None if names.is_empty() => Ok(0),
        None => Ok(libc::CLONE_NEWNET),
    }
}

fn relative(parent: PathBuf) -> Result<PathBuf> {
    if parent.is_absolute() {
        bail!("--parent-path must be relative to --image-path: {}", parent.display());
    }
    Ok(parent)
}

fn page_server(text: &str) -> Result<(String, u16)> {
    let Some((address, port)) = text.rsplit_once(':').filter(|(address, _)| !address.is_empty()) else {
        bail!("--page-server takes ADDRESS:PORT, not {text:?}");
    };
    match port.parse() {
        Ok(port) if port != 0 => Ok((address.trim_matches(['[', ']']).to_owned(), port)),
        _ => bail!("--page-server: invalid port number {port:?}"),
    }
}

fn status_descriptor(number: i32) -> Result<OwnedFd> {
    Ok(fd::inherited_duplicate(number).on("open", format_args!("descriptor {number} of --status-fd"))?)
}
