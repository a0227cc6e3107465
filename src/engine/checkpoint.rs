//! What stages and engines hand each other for `checkpoint` and `restore`. The words are CRIU's: see criu(8).

use super::InitProcess;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// What CRIU does with cgroups (criu(8), `--manage-cgroups`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupsMode {
    Soft,
    Full,
    Strict,
    Ignore,
}

/// What `checkpoint` and `restore` have in common.
#[derive(Debug)]
pub struct CriuOptions {
    pub program: PathBuf,
    /// Directory of the image files.
    pub images: PathBuf,
    /// Directory of logs and work files; by default that of the images.
    pub work: Option<PathBuf>,
    pub tcp_established: bool,
    pub ext_unix_sk: bool,
    pub shell_job: bool,
    pub lazy_pages: bool,
    pub file_locks: bool,
    pub auto_dedup: bool,
    pub cgroups_mode: Option<CgroupsMode>,
    /// `CLONE_NEW*` of the namespaces whose content is left out.
    pub empty_namespaces: i32,
}

/// A container that is to be saved.
#[derive(Debug)]
pub struct CheckpointRequest {
    pub criu: CriuOptions,
    /// The images of an earlier pre-dump, relative to those of this one.
    pub parent: Option<PathBuf>,
    pub leave_running: bool,
    /// The memory alone.
    pub pre_dump: bool,
    /// Gets a zero byte once lazy pages can be served.
    pub status: Option<OwnedFd>,
    pub page_server: Option<(String, u16)>,
    pub link_remap: bool,
    pub tcp_skip_in_flight: bool,
}

impl CheckpointRequest {
    /// Whether the container is to live on.
    pub fn leaves_running(&self) -> bool {
        self.leave_running || self.pre_dump
    }
}

/// A container that is to be made from images.
#[derive(Debug)]
pub struct RestoreRequest {
    pub criu: CriuOptions,
    pub lsm_profile: Option<String>,
    pub lsm_mount_context: Option<String>,
}

/// A container that runs again. Its init is a child of this process.
pub struct Restored {
    pub init: InitProcess,
    /// The master of its terminal, if it has one.
    pub console: Option<OwnedFd>,
}
