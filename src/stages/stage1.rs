//! stage1: everything about a container that can be decided and checked before anything of it exists.

use crate::config::bundle::Bundle;
use crate::config::rtx_config::RtxConfig;
use crate::config::{envelope, id};
use crate::engine::{self, EngineOperations, LaunchConfig, LaunchOptions, table};
use crate::state::AlreadyExists;
use crate::trace;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// The annotation that names an engine.
pub const ENGINE_ANNOTATION: &str = "org.rtx.engine";
const DEFAULT_ENGINE: &str = "oci";

/// What a caller asks for.
pub struct Request<'a> {
    /// Absent: one is made.
    pub id: Option<String>,
    pub bundle: &'a Path,
    /// `--engine`.
    pub engine: Option<&'a str>,
    pub config: &'a RtxConfig,
    pub options: LaunchOptions,
    /// The state directory.
    pub root: PathBuf,
}

/// A container that is ready to be made.
pub struct Prepared {
    /// Apart, because it is large, and handed from one to the next.
    pub launch: Box<LaunchConfig>,
    pub engine: Box<dyn EngineOperations>,
}

/// Loads and checks the bundle, chooses the engine, and lets it decide.
///
/// # Errors
/// Everything that is wrong with the request. Nothing has been created then.
pub fn prepare(request: Request<'_>) -> Result<Prepared> {
    let id = match &request.id {
        Some(id) => {
            id::validate(id)?;
            id.clone()
        }
        None => id::generate(),
    };
    let root = request.root.clone();
    let _mark = trace::span("stage1: prepare");
    let mark = trace::span("read the bundle");
    let bundle = Bundle::load(request.bundle);
    drop(mark);
    let prepared = bundle.and_then(|bundle| decide(id.clone(), bundle, request));
    // An id in use is what the caller has to know first, whatever the bundle is like. Where there is nothing else to be told, or
    // to be opened, the making of its directory says so.
    let is_plain =
        |prepared: &Prepared| prepared.launch.warnings.is_empty() && !prepared.launch.oci_config.process.terminal;
    let is_in_use = || crate::state::exists(&root, &id) && !crate::state::is_abandoned(&root, &id);
    if !prepared.as_ref().is_ok_and(is_plain) && is_in_use() {
        return Err(AlreadyExists { id }.into());
    }
    prepared
}

/// The rest, for a bundle that is at hand.
///
/// # Errors
/// As [`prepare`].
pub(super) fn decide(id: String, bundle: Bundle, request: Request<'_>) -> Result<Prepared> {
    let provider = choose_engine(request.engine, &bundle, request.config)?;
    let mut options = request.options;
    options.allow_unconfined |= request.config.allow_unconfined;
    check_terminal(&bundle, &options)?;
    let warnings = bundle.warnings.clone();
    let mut launch = Box::new(LaunchConfig {
        id,
        bundle,
        options,
        engine_config: request.config.engines.get(provider.name).cloned().unwrap_or_default(),
        starter: envelope::Starter::default(),
        oci_config: envelope::OciConfig::default(),
        root: request.root,
        engine_state: None,
        warnings,
    });
    let mut engine = (provider.make)();
    let _mark = trace::span("prepare_config");
    engine.prepare_config(&mut launch)?;
    if launch.options.supervised {
        engine.check_supervision()?;
    }
    Ok(Prepared { launch, engine })
}

fn choose_engine(flag: Option<&str>, bundle: &Bundle, config: &RtxConfig) -> Result<&'static engine::Provider> {
    let annotation = bundle.spec.annotations().as_ref().and_then(|annotations| annotations.get(ENGINE_ANNOTATION));
    let name = flag.or(annotation.map(String::as_str)).or(config.engine.as_deref()).unwrap_or(DEFAULT_ENGINE);
    table::find(name)
}

/// A terminal needs somebody who holds its other end.
fn check_terminal(bundle: &Bundle, options: &LaunchOptions) -> Result<()> {
    let terminal = bundle.spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false);
    check_console_socket(terminal, options)
}

/// The rules of `--console-socket`, for containers and for processes that join one.
///
/// # Errors
/// Where the flag is missing, or is there without a terminal.
pub fn check_console_socket(terminal: bool, options: &LaunchOptions) -> Result<()> {
    match (terminal, options.relays(), options.console_socket.is_some()) {
        (true, false, false) => {
            bail!("cannot allocate tty if rtx will detach without setting console socket: give --console-socket")
        }
        (true, true, true) => {
            bail!("cannot use console socket if rtx will not detach or allocate tty: leave out --console-socket")
        }
        (false, _, true) => {
            bail!(
                "cannot use console socket if rtx will not detach or allocate tty: ask for a terminal, or leave out --console-socket"
            )
        }
        _ => Ok(()),
    }
}
