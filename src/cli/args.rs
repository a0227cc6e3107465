//! The whole command line as clap definitions: every command and flag of runc 1.5.1 under the same name, and rtx's own.
//! Nothing here acts. How an argument vector in Go's manner becomes one for clap is in [`argv`](super::argv).

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use super::values::{Optional, parse_optional, parse_optional_bytes, parse_patience, parse_rootless};

/// The parsed command line. Without a command, [`Globals::version`] asks for the version and its absence for the help.
#[derive(Debug, Parser)]
#[command(
    name = "rtx",
    bin_name = "rtx",
    about = "Run OCI containers under replaceable engines",
    long_about = "rtx creates and runs containers from OCI bundles. It takes the commands and flags of runc, so that \
                  podman, containerd and Docker can call it in runc's place. The isolation technique is an engine: \
                  Linux namespaces by default, others by name.",
    after_long_help = "Exit code: that of the program for `run` and `exec`, or 128 and the number of the signal that \
                       ended it; 255 where `exec` itself failed; 3 for an unknown command; 1 for any other error.\n\n\
                       To begin with: in a directory with a root file system in `rootfs`, `rtx spec` writes a \
                       config.json, `rtx check .` looks for mistakes in it, and `rtx run` runs it.",
    disable_version_flag = true,
    args_override_self = true
)]
pub struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Flags that stand before the command; all but `--rootless`, `--version` and `--criu` are taken after it as well.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// Directory that holds the state of the containers [default: /run/rtx; $XDG_RUNTIME_DIR/rtx without privileges]
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub root: Option<PathBuf>,
    /// Append messages to FILE as well
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub log: Option<PathBuf>,
    /// Form of the messages in the log file
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Say more about what is being done
    #[arg(long, global = true)]
    pub debug: bool,
    /// Let systemd make the cgroups; cgroupsPath is then "slice:prefix:name"
    #[arg(long, global = true)]
    pub systemd_cgroup: bool,
    /// Who makes the cgroups
    #[arg(long, global = true, value_name = "MANAGER", value_enum)]
    pub cgroup_manager: Option<CgroupManager>,
    /// Tolerate cgroups that may not be written: true, false or auto
    #[arg(long, value_name = "WHEN", value_parser = parse_rootless, default_value = "auto")]
    pub rootless: Rootless,
    /// Engine to use, before what the bundle and the configuration say (see `rtx engine list`)
    #[arg(long, global = true, value_name = "NAME")]
    pub engine: Option<String>,
    /// Configuration file of rtx (see `rtx engine schema`)
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// The criu program for checkpoint and restore
    #[arg(long, hide = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub criu: Option<PathBuf>,
    /// Print the version of rtx and of the specification
    #[arg(long, short = 'v')]
    pub version: bool,
}

/// Form of the lines in the `--log` file.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Value of the global `--rootless`: whether cgroup permission errors are tolerated.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Rootless {
    #[default]
    Auto,
    Always,
    Never,
}

/// Who makes a container's cgroups (crun's `--cgroup-manager`; podman passes `disabled` for `--cgroups=disabled`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CgroupManager {
    Cgroupfs,
    Systemd,
    Disabled,
}

/// Output form of `list` and `ps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a container; its program waits for `start`
    Create(CreateArgs),
    /// Start the program of a created container
    Start(IdArgs),
    /// Create a container, start it and wait for its end
    Run(RunArgs),
    /// Run another process in a container
    Exec(ExecArgs),
    /// Send a signal to a container's first process (default: TERM)
    Kill(KillArgs),
    /// End a container for good: a signal, and SIGKILL if it takes too long
    Stop(StopArgs),
    /// Wait for containers to end, and print their exit codes
    Wait(WaitArgs),
    /// Print what the program of a supervised container has printed
    Logs(LogsArgs),
    /// Connect to the program of a supervised container
    Attach(AttachArgs),
    /// Remove a stopped container and everything it holds
    Delete(DeleteArgs),
    /// Print the state of a container as JSON
    State(IdArgs),
    /// List the containers under the root directory
    List(ListArgs),
    /// Show the processes of a container
    Ps(PsArgs),
    /// Suspend every process of a container
    Pause(IdArgs),
    /// Let a paused container continue
    Resume(IdArgs),
    /// Change the resource limits of a container
    Update(UpdateArgs),
    /// Report statistics and out-of-memory events, or what happened to supervised containers, as JSON lines
    Events(EventsArgs),
    /// Write a config.json to start from
    Spec(SpecArgs),
    /// Remove what killed commands left
    Gc(GcArgs),
    /// Say what this host can do and what not, and how to mend that
    Doctor(DoctorArgs),
    /// Print what this runtime and this machine support, as JSON
    Features,
    /// Report every problem of a bundle, each with its JSON pointer
    Check(CheckArgs),
    /// Show the engines and their configuration
    #[command(arg_required_else_help = false)]
    Engine(EngineArgs),
    /// Save a running container to files, by CRIU
    Checkpoint(Box<CheckpointArgs>),
    /// Bring a saved container back
    Restore(Box<RestoreArgs>),
    /// Write the man pages or the shell completions
    #[command(hide = true, arg_required_else_help = false)]
    Docs(DocsArgs),
}

/// The container's id, where it is all that a command takes.
#[derive(Debug, Args)]
pub struct IdArgs {
    /// Id of the container
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `kill [--all] [--timeout TIME] ID [SIGNAL]`.
#[derive(Debug, Args)]
pub struct KillArgs {
    /// Signal every process of the container
    #[arg(long, short)]
    pub all: bool,
    /// Wait for the end, and send SIGKILL if it takes longer
    #[arg(long, value_name = "TIME", value_parser = parse_patience)]
    pub timeout: Option<Duration>,
    /// Id of the container
    #[arg(value_name = "ID")]
    pub id: String,
    /// Number or name, with or without SIG
    #[arg(value_name = "SIGNAL", default_value = "SIGTERM")]
    pub signal: String,
}

/// `delete [--force] ID`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Kill the container if it still runs; an id that does not exist is no error
    #[arg(long, short)]
    pub force: bool,
    /// Id of the container
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `list [--format table|json] [--quiet]`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Form of the output
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value = "table")]
    pub format: Format,
    /// Print the ids only
    #[arg(long, short)]
    pub quiet: bool,
}

/// `ps [--format table|json] ID [PS OPTIONS...]`.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Form of the output; json is the list of process ids
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value = "table")]
    pub format: Format,
    /// Id of the container
    #[arg(value_name = "ID")]
    pub id: String,
    /// Options for ps(1) [default: -ef]
    #[arg(value_name = "PS_OPTION", trailing_var_arg = true, allow_hyphen_values = true)]
    pub ps_options: Vec<String>,
}

/// `update [LIMITS] ID`. Sizes are bytes; a value that is absent stays as it is.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// Read the limits from FILE, or from standard input for `-`: the `linux.resources` object of config.json.
    /// The other flags are then ignored
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub resources: Option<PathBuf>,
    /// Relative weight of block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub blkio_weight: Option<u16>,
    /// Period of the CPU quota in microseconds
    #[arg(long, value_name = "USEC", value_parser = parse_optional::<u64>)]
    pub cpu_period: Option<Optional<u64>>,
    /// CPU time per period in microseconds; -1 for no limit
    #[arg(long, value_name = "USEC", value_parser = parse_optional::<i64>)]
    pub cpu_quota: Option<Optional<i64>>,
    /// CPU time that may be saved up for a burst, in microseconds
    #[arg(long, value_name = "USEC", value_parser = parse_optional::<u64>)]
    pub cpu_burst: Option<Optional<u64>>,
    /// Relative weight of CPU time
    #[arg(long, value_name = "SHARES", value_parser = parse_optional::<u64>)]
    pub cpu_share: Option<Optional<u64>>,
    /// Period of realtime CPU time in microseconds
    #[arg(long, value_name = "USEC", value_parser = parse_optional::<u64>)]
    pub cpu_rt_period: Option<Optional<u64>>,
    /// Realtime CPU time per period in microseconds
    #[arg(long, value_name = "USEC", value_parser = parse_optional::<i64>)]
    pub cpu_rt_runtime: Option<Optional<i64>>,
    /// 1 makes the cgroup run only when the CPU would be idle (SCHED_IDLE), 0 does not
    #[arg(long, value_name = "0|1", value_parser = parse_optional::<i64>)]
    pub cpu_idle: Option<Optional<i64>>,
    /// CPUs that may be used, such as 0-2,4
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes that may be used, such as 0-1
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Memory limit: a number of bytes, or with k, m, g, t; -1 for no limit
    #[arg(long, value_name = "BYTES", value_parser = parse_optional_bytes)]
    pub memory: Option<Optional<i64>>,
    /// Memory that is left to the container when memory is short
    #[arg(long, value_name = "BYTES", value_parser = parse_optional_bytes)]
    pub memory_reservation: Option<Optional<i64>>,
    /// Limit of memory and swap together; -1 for no limit
    #[arg(long, value_name = "BYTES", value_parser = parse_optional_bytes)]
    pub memory_swap: Option<Optional<i64>>,
    /// Ignored: Linux limits kernel memory by itself no more
    #[arg(long, hide = true, value_name = "BYTES", value_parser = parse_optional_bytes)]
    pub kernel_memory: Option<Optional<i64>>,
    /// Ignored like `--kernel-memory`
    #[arg(long, hide = true, value_name = "BYTES", value_parser = parse_optional_bytes)]
    pub kernel_memory_tcp: Option<Optional<i64>>,
    /// Number of processes and threads; -1 for no limit
    #[arg(long, value_name = "N")]
    pub pids_limit: Option<i64>,
    /// Intel RDT schema of the L3 cache
    #[arg(long, value_name = "SCHEMA")]
    pub l3_cache_schema: Option<String>,
    /// Intel RDT schema of the memory bandwidth
    #[arg(long, value_name = "SCHEMA")]
    pub mem_bw_schema: Option<String>,
    /// Id of the container
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `spec [--bundle DIR] [--rootless]`.
#[derive(Debug, Args)]
pub struct SpecArgs {
    /// Directory of the bundle [default: the working directory]
    #[arg(long, short, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub bundle: Option<PathBuf>,
    /// Write what runs without privileges: a user namespace that maps the caller
    #[arg(id = "spec_rootless", long = "rootless")]
    pub rootless: bool,
}

/// `gc [--dry-run]`.
#[derive(Debug, Args)]
pub struct GcArgs {
    /// Only say what would be removed
    #[arg(long)]
    pub dry_run: bool,
}

/// `doctor [--json]`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `check BUNDLE`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Directory of the bundle
    #[arg(value_name = "BUNDLE", value_hint = ValueHint::DirPath)]
    pub bundle: PathBuf,
}

/// `engine list|schema`.
#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub struct EngineArgs {
    #[command(subcommand)]
    pub command: EngineCommand,
}

/// What `engine` shows.
#[derive(Debug, Subcommand)]
pub enum EngineCommand {
    /// Name, availability and capabilities of each engine
    List,
    /// The JSON schema of the configuration file
    Schema,
}

/// `docs man|completions DIR`, for the Makefile and for packagers.
#[derive(Debug, Args)]
pub struct DocsArgs {
    #[command(subcommand)]
    pub command: DocsCommand,
}

/// What `docs` writes.
#[derive(Debug, Subcommand)]
pub enum DocsCommand {
    /// Write rtx.1 and a page for each command
    Man(DocsDir),
    /// Write the completions for bash, zsh and fish
    Completions(DocsDir),
}

/// Where `docs` writes.
#[derive(Debug, Args)]
pub struct DocsDir {
    /// Existing or new directory
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
}

pub use super::argv::{normalise_argv, parse, usage_error};
pub use super::criu_args::{CheckpointArgs, CriuArgs, ManageCgroups, RestoreArgs};
pub use super::launch_args::{CreateArgs, ExecArgs, LaunchArgs, RunArgs, SuperviseArgs};
pub use super::watch_args::{AttachArgs, EventsArgs, LogsArgs, StopArgs, WaitArgs, WaitCondition};
