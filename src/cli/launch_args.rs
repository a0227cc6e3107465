//! The flags of the commands that start a program: `create`, `run` and `exec`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueHint};

use super::values::parse_bytes;
use crate::config::supervision::{OutputFormat, RestartPolicy};

/// What `create` and `run` have in common.
#[derive(Debug, Default, Args)]
pub struct LaunchArgs {
    /// Directory of the bundle [default: the working directory]
    #[arg(long, short, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub bundle: Option<PathBuf>,
    /// Unix socket that receives the master end of the container's terminal
    #[arg(long, value_name = "SOCKET", value_hint = ValueHint::FilePath)]
    pub console_socket: Option<PathBuf>,
    /// Unix socket that receives a pidfd of the container's first process
    #[arg(long, value_name = "SOCKET", value_hint = ValueHint::FilePath)]
    pub pidfd_socket: Option<PathBuf>,
    /// Write the process id of the container's first process to FILE
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub pid_file: Option<PathBuf>,
    /// Change the root by chroot, where pivot_root is impossible (a root file system on an initial ramdisk)
    #[arg(long)]
    pub no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Pass N file descriptors on, after stdio and those of LISTEN_FDS
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Write where the time went, step by step and call by call: a Chrome trace, or a picture if FILE ends in .svg
    /// (repeatable)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub timeline: Vec<PathBuf>,
    /// Agree to an engine that does not confine the container
    #[arg(long)]
    pub allow_unconfined: bool,
    #[command(flatten)]
    pub supervise: SuperviseArgs,
    /// Id of the container, unique under the root directory [default: a new ULID, which is printed]
    #[arg(value_name = "ID")]
    pub id: Option<String>,
}

/// What makes a container a supervised one, and how. The others need the first, or the configuration file.
#[derive(Debug, Default, Args)]
pub struct SuperviseArgs {
    /// Leave a process behind that watches the container (see `wait`, `logs`, `attach`, `stop` and `events`)
    #[arg(long)]
    pub supervise: bool,
    /// Make the container anew when it has ended: no, on-failure, on-failure:N or always
    #[arg(long, value_name = "POLICY", value_parser = RestartPolicy::from_str)]
    pub restart: Option<RestartPolicy>,
    /// Keep standard input open for `attach`
    #[arg(long, short)]
    pub interactive: bool,
    /// How the program's output is kept: k8s-file, json-lines, plain or none
    #[arg(long, value_name = "FORMAT", value_parser = OutputFormat::from_str)]
    pub output_format: Option<OutputFormat>,
    /// Where the program's output is kept [default: with the state, until the container is deleted]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output_file: Option<PathBuf>,
    /// Size after which a new file is begun, or -1 for never [default: 16m]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub output_max_size: Option<i64>,
    /// How many of these files are kept [default: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub output_max_files: Option<u32>,
}

/// `create [FLAGS] [ID]`.
#[derive(Debug, Default, Args)]
pub struct CreateArgs {
    #[command(flatten)]
    pub launch: LaunchArgs,
}

/// `run [FLAGS] [ID]`.
#[derive(Debug, Default, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub launch: LaunchArgs,
    /// Return once the container runs
    #[arg(long, short)]
    pub detach: bool,
    /// Keep the stopped container until it is deleted
    #[arg(long)]
    pub keep: bool,
    /// Leave orphans of the container to the caller
    #[arg(long)]
    pub no_subreaper: bool,
}

/// `exec [FLAGS] ID [COMMAND ARGS...]`; the command may come from `--process` instead.
#[derive(Debug, Default, Args)]
#[command(
    override_usage = "rtx exec [OPTIONS] <ID> <COMMAND> [ARGS]...\n       rtx exec [OPTIONS] --process FILE <ID>"
)]
pub struct ExecArgs {
    /// Unix socket that receives the master end of the process's terminal
    #[arg(long, value_name = "SOCKET", value_hint = ValueHint::FilePath)]
    pub console_socket: Option<PathBuf>,
    /// Unix socket that receives a pidfd of the process
    #[arg(long, value_name = "SOCKET", value_hint = ValueHint::FilePath)]
    pub pidfd_socket: Option<PathBuf>,
    /// Working directory in the container
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// Add an environment variable (repeatable)
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Give the process a terminal
    #[arg(long, short)]
    pub tty: bool,
    /// User to run as
    #[arg(long, short, value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// Add a supplementary group (repeatable)
    #[arg(long, short = 'g', value_name = "GID")]
    pub additional_gids: Vec<u32>,
    /// File with the process as JSON, the `process` object of config.json
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub process: Option<PathBuf>,
    /// Return once the process runs
    #[arg(long, short)]
    pub detach: bool,
    /// Write the process id to FILE
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub pid_file: Option<PathBuf>,
    /// SELinux label of the process
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// Set no_new_privs; with `=false`, do without the container's
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub no_new_privs: Option<bool>,
    /// Add a capability (repeatable)
    #[arg(long, short, value_name = "CAP")]
    pub cap: Vec<String>,
    /// Pass N file descriptors on, after stdio
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Write where the time went, step by step and call by call: a Chrome trace, or a picture if FILE ends in .svg
    /// (repeatable)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub timeline: Vec<PathBuf>,
    /// Existing cgroup below the container's to run in (repeatable on cgroup v1)
    #[arg(long, value_name = "[CONTROLLER:]PATH")]
    pub cgroup: Vec<String>,
    /// Start the process in a paused container; it begins when the container is resumed
    #[arg(long)]
    pub ignore_paused: bool,
    /// Id of the container
    #[arg(value_name = "ID")]
    pub id: String,
    /// Program and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true, value_hint = ValueHint::CommandWithArguments)]
    pub args: Vec<String>,
}
