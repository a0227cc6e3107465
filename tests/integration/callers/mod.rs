//! rtx in runc's place under the programs that call a runtime, as their Debian packages have them. Every test runs
//! with the packaged runc first: a check that fails there says something of the machine, not of rtx.
//!
//! They take minutes, so they run only with RTX_TEST_CALLERS=1, as `make test-integrations` does.

mod buildah;
mod containerd;
mod cri;
mod docker;
mod kubernetes;
mod machines;
mod site;
mod slurm;
mod storms;
mod swarm;
mod systemd;

use std::sync::Once;

use crate::support::report_skip;
use crate::support::runtime::engine;
use site::{Caller, Site};

/// Whether these tests are wanted; says so once when not.
fn wanted() -> bool {
    static SAID: Once = Once::new();
    if std::env::var_os("RTX_TEST_CALLERS").is_none() {
        SAID.call_once(|| report_skip("callers", "they take minutes: make test-integrations"));
        return false;
    }
    // A caller has no way to choose an engine.
    engine().is_none()
}

/// A caller with the control and with rtx, or the end of the test that says why not.
macro_rules! sites {
    ($caller:expr) => {{
        if !$crate::callers::wanted() {
            return;
        }
        $crate::support::needs_root!();
        match $caller.sites() {
            Ok(sites) => sites,
            Err(reason) => $crate::support::skip!("{reason}"),
        }
    }};
}

pub(crate) use sites;
