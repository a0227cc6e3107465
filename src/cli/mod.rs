//! The command line: one file a command, with runc's names for commands and flags.

mod announce;
pub mod args;
pub(crate) mod argv;
mod attach;
mod check;
mod checkpoint;
mod create;
mod criu_args;
mod delete;
pub mod docs;
mod doctor;
mod engine;
mod events;
mod exec;
mod features;
mod gc;
pub(crate) mod inherited;
mod kill;
mod launch;
mod launch_args;
mod list;
mod logs;
mod output;
mod pause;
mod plain;
mod ps;
mod recorded_events;
mod report;
mod restore;
mod run;
mod spec;
mod start;
mod state_command;
mod stop;
mod supervise;
mod timeline;
mod update;
pub(crate) mod values;
pub mod version;
mod wait;
mod watch_args;

use crate::config::rtx_config::{self, RtxConfig};
use crate::engine::LaunchOptions;
use crate::state;
use anyhow::{Result, bail};
use args::{CgroupManager, Cli, Command, Globals, Rootless};
use clap::{CommandFactory, builder::StyledStr};
use report::Report;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;

/// What every command has.
pub struct Context {
    pub globals: Globals,
    pub config: RtxConfig,
    /// The state directory.
    pub root: PathBuf,
    /// How many descriptors from 3 upwards the caller left open.
    pub inherited: u32,
}

impl Context {
    fn new(globals: Globals, inherited: u32) -> Result<Self> {
        let config = rtx_config::load(globals.config.as_deref())?;
        let root = globals.root.clone().or_else(|| config.root.clone()).unwrap_or_else(state::default_root);
        if root.as_os_str().is_empty() {
            bail!("--root must not be empty");
        }
        Ok(Self { globals, config, root: std::path::absolute(root)?, inherited })
    }

    /// The part of a launch that the global flags decide.
    fn launch_options(&self) -> LaunchOptions {
        let rootless = match self.globals.rootless {
            Rootless::Always => true,
            Rootless::Never => false,
            Rootless::Auto => state::is_rootless(),
        };
        let manager = self.globals.cgroup_manager;
        LaunchOptions {
            systemd_cgroup: self.globals.systemd_cgroup || manager == Some(CgroupManager::Systemd),
            no_cgroup: manager == Some(CgroupManager::Disabled),
            rootless,
            ..LaunchOptions::default()
        }
    }

    /// What was left out of what was asked for. A caller that has a log reads one error in it and nothing else, and the
    /// container has the standard error of this command: it is told on demand.
    fn warn(&self, warnings: &[String]) {
        if self.globals.debug || self.globals.log.is_none() {
            warnings.iter().for_each(|warning| report::remark(&format!("rtx: warning: {warning}")));
        }
    }
}

/// Leaves a configuration to the end of the process: some hundred strings would be freed one by one, and before the
/// container's program is started, for memory that nothing asks for again.
fn never_free<T>(shared: &Arc<T>) {
    std::mem::forget(Arc::clone(shared));
}

/// Runs the command line. Returns the exit code.
pub fn main(arguments: Vec<OsString>) -> i32 {
    // Nothing that a caller left open reaches a container or a hook, unless it was asked for.
    let inherited = inherited::find();
    let _ = crate::sys::fd::cloexec_from(3);
    let cli = match args::parse(arguments.clone()) {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => return print_help(&error.render(), &Report::default()),
        Err(error) => {
            let (code, text) = args::usage_error(error, &arguments);
            return Report::from_arguments(&arguments).fail(&text, code);
        }
    };
    let report = Report::new(cli.globals.log.as_deref(), cli.globals.log_format);
    match report {
        Ok(report) => run(cli, &report, inherited),
        Err(error) => Report::default().fail(&report::explain(&error), 1),
    }
}

fn print_help(help: &StyledStr, report: &Report) -> i32 {
    let is_styled = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let help = if is_styled { help.ansi().to_string() } else { help.to_string() };
    match output::print(&help) {
        Err(error) if !report::is_broken_pipe(&error) => report.fail(&report::explain(&error), 1),
        _ => 0,
    }
}

fn run(cli: Cli, report: &Report, inherited: u32) -> i32 {
    let Cli { globals, command } = cli;
    let Some(command) = command else {
        if globals.version {
            return match output::print(&(version::text() + "\n")) {
                Ok(()) => 0,
                Err(error) => report.fail(&report::explain(&error), 1),
            };
        }
        return print_help(&Cli::command().render_long_help(), report);
    };
    let (what, failure_code) = describe(&command);
    let streams = matches!(command, Command::Logs(_) | Command::Events(_) | Command::Attach(_));
    match Context::new(globals, inherited).and_then(|context| dispatch(&context, command)) {
        Ok(code) => code,
        // A reader of what has no end has seen enough: what other programs die of then is no failure to tell.
        Err(error) if streams && report::is_broken_pipe(&error) => 128 + libc::SIGPIPE,
        Err(error) => report.fail(&format!("{what}: {}", report::explain(&error)), failure_code),
    }
}

/// What an error says was being done, and the exit code it gets.
fn describe(command: &Command) -> (String, i32) {
    let of = |verb: &str, id: &str| format!("rtx {verb} {id}").trim_end().to_owned();
    let launch = |verb: &str, id: &Option<String>| match id {
        Some(id) => of(verb, id),
        None => format!("rtx {verb}"),
    };
    let text = match command {
        Command::Create(args) => launch("create", &args.launch.id),
        Command::Run(args) => launch("run", &args.launch.id),
        Command::Exec(args) => return (format!("rtx exec {}: exec failed", args.id), 255),
        Command::Start(args) => of("start", &args.id),
        Command::Kill(args) => of("kill", &args.id),
        Command::Delete(args) => of("delete", &args.id),
        Command::State(args) => of("state", &args.id),
        Command::List(_) => "rtx list".into(),
        Command::Ps(args) => of("ps", &args.id),
        Command::Pause(args) => of("pause", &args.id),
        Command::Resume(args) => of("resume", &args.id),
        Command::Update(args) => of("update", &args.id),
        Command::Events(args) => of("events", args.id.as_deref().unwrap_or_default()),
        Command::Stop(args) => of("stop", &args.id),
        Command::Wait(args) => of("wait", &args.ids.join(" ")),
        Command::Logs(args) => of("logs", &args.id),
        Command::Attach(args) => of("attach", &args.id),
        Command::Spec(_) => "rtx spec".into(),
        Command::Gc(_) => "rtx gc".into(),
        Command::Doctor(_) => "rtx doctor".into(),
        Command::Features => "rtx features".into(),
        Command::Check(_) => "rtx check".into(),
        Command::Engine(_) => "rtx engine".into(),
        Command::Checkpoint(args) => of("checkpoint", &args.id),
        Command::Restore(args) => of("restore", &args.id),
        Command::Docs(_) => "rtx docs".into(),
    };
    (text, 1)
}

// None of these is inlined: each would have the room for the others between its stack and that of `main`, a page fault for
// every page.
fn dispatch(context: &Context, command: Command) -> Result<i32> {
    match command {
        Command::Create(args) => {
            timeline::record(&args.launch.timeline.clone(), "create", || create::create(context, args))
        }
        Command::Run(args) => timeline::record(&args.launch.timeline.clone(), "run", || run::run(context, args)),
        Command::Exec(args) => timeline::record(&args.timeline.clone(), "exec", || exec::exec(context, args)),
        Command::Start(args) => start::start(context, args),
        Command::Kill(args) => kill::kill(context, args),
        Command::Delete(args) => delete::delete(context, args),
        Command::State(args) => state_command::state(context, args),
        Command::List(args) => list::list(context, args),
        command => dispatch_rare(context, command),
    }
}

/// What callers seldom ask for. Apart, because the commands before are called for each container, and would have its code and
/// the room for it on their stacks between theirs.
#[inline(never)]
fn dispatch_rare(context: &Context, command: Command) -> Result<i32> {
    match command {
        Command::Ps(args) => ps::ps(context, args),
        Command::Update(args) => update::update(context, args),
        Command::Events(args) => events::events(context, args),
        Command::Stop(args) => stop::stop(context, args),
        Command::Wait(args) => wait::wait(context, args),
        Command::Logs(args) => logs::logs(context, args),
        Command::Attach(args) => attach::attach(context, args),
        Command::Pause(args) => pause::pause(context, args),
        Command::Resume(args) => pause::resume(context, args),
        Command::Spec(args) => spec::spec(args),
        Command::Gc(args) => gc::gc(context, args),
        Command::Doctor(args) => doctor::doctor(context, args),
        Command::Features => features::features(),
        Command::Check(args) => check::check(context, args),
        Command::Engine(args) => engine::engine(args),
        Command::Docs(args) => docs::docs(args),
        Command::Checkpoint(args) => checkpoint::checkpoint(context, *args),
        Command::Restore(args) => restore::restore(context, *args),
        Command::Create(_)
        | Command::Run(_)
        | Command::Exec(_)
        | Command::Start(_)
        | Command::Kill(_)
        | Command::Delete(_)
        | Command::State(_)
        | Command::List(_) => dispatch(context, command),
    }
}
