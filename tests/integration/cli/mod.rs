//! The command line as callers use it: outputs and their formats, what stays in the background, descriptors, sockets.

mod background;
mod descriptors;
mod outputs;
mod signals;

use crate::support::{Bundle, Container, Runtime};

/// A bundle whose payload says "up" and waits.
fn waiting() -> Bundle {
    Bundle::shell("echo up; exec sleep 600")
}

/// A container that was started in the background and is up.
fn running<'a>(runtime: &'a Runtime, bundle: &'a Bundle) -> Container<'a> {
    let container = Container::new(runtime, bundle);
    container.run_detached(&[]).ok();
    container.wait_stdout("up");
    container
}
