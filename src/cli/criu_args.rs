//! The flags of `checkpoint` and `restore`, which are CRIU's words: see criu(8).

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

/// What CRIU does with cgroups (criu(8), `--manage-cgroups`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ManageCgroups {
    Soft,
    Full,
    Strict,
    Ignore,
}

/// What `checkpoint` and `restore` have in common.
#[derive(Debug, Args)]
pub struct CriuArgs {
    /// Directory of the image files
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub image_path: Option<PathBuf>,
    /// Directory of CRIU's work files and logs
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub work_path: Option<PathBuf>,
    /// Allow open TCP connections
    #[arg(long)]
    pub tcp_established: bool,
    /// Allow Unix sockets that are connected outside the container
    #[arg(long)]
    pub ext_unix_sk: bool,
    /// Allow a terminal that was inherited from outside
    #[arg(long)]
    pub shell_job: bool,
    /// Load memory pages lazily, by userfaultfd
    #[arg(long)]
    pub lazy_pages: bool,
    /// Handle file locks
    #[arg(long)]
    pub file_locks: bool,
    /// How cgroups are handled
    #[arg(long, value_name = "MODE", value_enum)]
    pub manage_cgroups_mode: Option<ManageCgroups>,
    /// Make a namespace of this type empty instead of restoring it (repeatable)
    #[arg(long, value_name = "NAMESPACE")]
    pub empty_ns: Vec<String>,
    /// Drop pages from older images that a newer one holds
    #[arg(long)]
    pub auto_dedup: bool,
}

/// `checkpoint [FLAGS] ID`.
#[derive(Debug, Args)]
pub struct CheckpointArgs {
    #[command(flatten)]
    pub criu: CriuArgs,
    /// Directory of the images of an earlier pre-dump, relative to the image path
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub parent_path: Option<PathBuf>,
    /// Let the container run on
    #[arg(long)]
    pub leave_running: bool,
    /// Save the memory only and let the container run on
    #[arg(long)]
    pub pre_dump: bool,
    /// Descriptor on which CRIU writes a zero byte once lazy pages can be served
    #[arg(long, value_name = "FD")]
    pub status_fd: Option<i32>,
    /// Send the pages to the page server at this address
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub page_server: Option<String>,
    /// Give unlinked files a name again, so that they can be restored
    #[arg(long)]
    pub link_remap: bool,
    /// Leave out TCP connections that are not established yet
    #[arg(long)]
    pub tcp_skip_in_flight: bool,
    /// Id of the container
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `restore [FLAGS] ID`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    pub criu: CriuArgs,
    /// Directory of the bundle [default: the working directory]
    #[arg(long, short, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub bundle: Option<PathBuf>,
    /// Unix socket that receives the master end of the container's terminal
    #[arg(long, value_name = "SOCKET", value_hint = ValueHint::FilePath)]
    pub console_socket: Option<PathBuf>,
    /// Return once the container runs
    #[arg(long, short)]
    pub detach: bool,
    /// Write the process id of the container's first process to FILE
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub pid_file: Option<PathBuf>,
    /// Leave orphans of the container to the caller
    #[arg(long)]
    pub no_subreaper: bool,
    /// Change the root by chroot, where pivot_root is impossible
    #[arg(long)]
    pub no_pivot: bool,
    /// Security module profile to restore with
    #[arg(long, value_name = "TYPE:NAME")]
    pub lsm_profile: Option<String>,
    /// SELinux mount context to restore with
    #[arg(long, value_name = "CONTEXT")]
    pub lsm_mount_context: Option<String>,
    /// Id of the container
    #[arg(value_name = "ID")]
    pub id: String,
}
