//! A program that embeds rtx: runs a bundle in a supervised container and tells what became of it.
//!
//!     cargo run --example supervise -- STATE_DIRECTORY BUNDLE

use anyhow::{Context, Result};
use std::ffi::OsString;
use std::time::Duration;

fn main() -> Result<()> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // rtx executes the program that it is part of, to be a container's first process or its smaster.
    if let Some(code) = rtx::called_by_itself(&arguments) {
        std::process::exit(code);
    }
    let [_, root, bundle] = arguments.as_slice() else { anyhow::bail!("supervise STATE_DIRECTORY BUNDLE") };
    let supervisor = rtx::Supervisor::new(root);
    let container = supervisor.container("example").bundle(bundle).restart("on-failure:1").create()?;
    let outcome = watch(&container);
    container.delete(true)?;
    outcome
}

fn watch(container: &rtx::Container) -> Result<()> {
    container.start()?;
    let code = container.wait(Some(Duration::from_secs(60))).context("wait for the example")?;
    println!("ended with {code} after {} restarts", container.state()?.restarts);
    container.output(|stream, bytes| {
        println!("{} {}", stream.name(), String::from_utf8_lossy(bytes).trim_end());
        Ok(())
    })?;
    for event in container.events(0)?.until_deleted(false) {
        let event = event?;
        println!("{} {}", event.seq, event.kind);
    }
    Ok(())
}
