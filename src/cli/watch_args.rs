//! The flags of the commands that are about what becomes of a container: `events`, `stop`, `wait`, `logs` and `attach`.

use super::values::{DetachKeys, parse_interval, parse_keys, parse_patience};
use clap::{Args, ValueEnum};
use std::time::Duration;

/// `events [--interval 5s] [--stats] ID`, `events [--follow] [--since SEQ|TIME] ID|--all`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Time between two reports, such as 5s or 500ms [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = parse_interval)]
    pub interval: Option<Duration>,
    /// Report the statistics once
    #[arg(long)]
    pub stats: bool,
    /// What happened to every supervised container, in the order of time
    #[arg(long, short)]
    pub all: bool,
    /// Go on with what happens, until the container is deleted
    #[arg(long, short)]
    pub follow: bool,
    /// Leave out what came before: the number of the last event that is known, a time, or how long ago that was
    #[arg(long, value_name = "SEQ|TIME")]
    pub since: Option<String>,
    /// Id of the container
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    pub id: Option<String>,
}

/// `stop [--timeout 10s] [--signal TERM] ID`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// How long the program may take before it gets SIGKILL
    #[arg(long, short, value_name = "TIME", value_parser = parse_patience, default_value = "10s")]
    pub timeout: Duration,
    /// Number or name, with or without SIG
    #[arg(long, short, value_name = "SIGNAL", default_value = "SIGTERM")]
    pub signal: String,
    /// Id of the container
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `wait [--timeout TIME] [--condition CONDITION] ID...`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Give up after so long, with exit code 124
    #[arg(long, short, value_name = "TIME", value_parser = parse_patience)]
    pub timeout: Option<Duration>,
    /// What to wait for
    #[arg(long, short, value_name = "CONDITION", value_enum, default_value = "stopped")]
    pub condition: WaitCondition,
    /// Ids of the containers
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
}

/// What `wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WaitCondition {
    Created,
    Running,
    Stopped,
}

/// `logs [--follow] [--since TIME] [--tail N] ID`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Go on with what is printed, until the container has ended
    #[arg(long, short)]
    pub follow: bool,
    /// Leave out what was printed before: a time, or how long ago that was
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only so many of the last lines
    #[arg(long, short = 'n', value_name = "N")]
    pub tail: Option<usize>,
    /// Put the time before each line
    #[arg(long, short)]
    pub timestamps: bool,
    /// Id of the container
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `attach [--detach-keys KEYS] [--no-stdin] ID`.
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// Keys that leave the container alone again: characters and ctrl-X, with commas between them; empty for none
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = parse_keys)]
    pub detach_keys: DetachKeys,
    /// Only show what is printed
    #[arg(long)]
    pub no_stdin: bool,
    /// Id of the container
    #[arg(value_name = "ID")]
    pub id: String,
}
