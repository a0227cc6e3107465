//! rtx as the runtime of the packaged podman, through conmon, as root and as an ordinary user. podman never mentions
//! rtx's name on its own: these tests see what a user of podman sees. `make test-integrations` runs them with the packaged
//! runc as well (RTX_TEST_RUNTIME), the control.

mod codes;
mod host;
mod lifecycle;
mod limits;
mod options;
mod pods;
mod rootless;
mod services;
mod storms;
mod streams;
mod terminals;
mod volumes;

use std::time::Duration;

use crate::support::Output;
use crate::support::children::poll_until;
use crate::support::runtime::{Invocation, next_number};
use host::{Host, IMAGE, Who};

/// How long to wait for what podman and conmon do on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The flag that leaves a container in podman's own cgroups.
const NO_CGROUPS: &str = "--cgroups=disabled";

/// A name for a container, or a pod, that is removed at the end of a test, however that comes.
struct Named {
    host: &'static Host,
    who: Who,
    name: String,
}

impl Named {
    fn new(host: &'static Host) -> Named {
        Named::of(host, Who::Root)
    }

    fn of(host: &'static Host, who: Who) -> Named {
        Named { host, who, name: format!("rtxpod-{}-{}", std::process::id(), next_number()) }
    }

    /// Prepares `podman VERB FLAGS NAME WORDS`.
    fn call(&self, verb: &[&str], words: &[&str]) -> Invocation {
        self.host.call_as(self.who, &[verb, &[&*self.name], words].concat())
    }

    /// `podman VERB FLAGS NAME WORDS`.
    fn podman(&self, verb: &[&str], words: &[&str]) -> Output {
        self.call(verb, words).run()
    }

    /// Prepares `podman run` without a network.
    fn run_call(&self, flags: &[&str], words: &[&str]) -> Invocation {
        let parent = self.host.cgroup_parent();
        // podman refuses a parent for what gets no cgroup.
        let place: &[&str] = match self.who {
            Who::Root if flags.contains(&NO_CGROUPS) => &[],
            Who::Root => &[&*parent],
            Who::User => &[],
        };
        let fixed = ["run", "--network", "none", "--name", &*self.name];
        self.host.call_as(self.who, &[&fixed, place, flags, &[IMAGE], words].concat())
    }

    /// `podman run` without a network.
    fn run(&self, flags: &[&str], words: &[&str]) -> Output {
        self.run_call(flags, words).run()
    }

    /// `podman run --detach` of a shell script, which is past its `echo up` when this returns.
    #[track_caller]
    fn start(&self, flags: &[&str], script: &str) {
        self.run(&[&["--detach"], flags].concat(), &["sh", "-c", script]).ok();
        self.wait_logs("up");
    }

    /// Waits until the log contains `text`.
    #[track_caller]
    fn wait_logs(&self, text: &str) {
        let seen = || self.podman(&["logs"], &[]).stdout.contains(text).then_some(());
        assert!(poll_until(PATIENCE, seen).is_some(), "{text:?} never came: {:?}", self.podman(&["logs"], &[]));
    }

    /// One property of `podman inspect`.
    fn inspect(&self, property: &str) -> String {
        let format = format!("{{{{{property}}}}}");
        self.podman(&["inspect", "--format", &format], &[]).ok().stdout.trim().to_owned()
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.podman(&["rm", "--force", "--ignore", "--time", "0"], &[]);
    }
}

/// podman with rtx, or the end of the test that says why not.
macro_rules! podman {
    () => {{
        $crate::support::needs_root!();
        match $crate::podman::host::host() {
            Ok(host) => host,
            Err(reason) => $crate::support::skip!("{reason}"),
        }
    }};
}

/// podman as root and, where that works, as an ordinary user.
macro_rules! everyone {
    () => {{
        let host = $crate::podman::podman!();
        let user = host.prepare_user();
        if let Err(reason) = &user {
            $crate::support::report_skip(
                &$crate::support::test_name(),
                &format!("the part of an ordinary user: {reason}"),
            );
        }
        let everyone = [$crate::podman::host::Who::Root, $crate::podman::host::Who::User];
        everyone.into_iter().take(1 + usize::from(user.is_ok())).map(move |who| (host, who))
    }};
}

/// podman with rtx, for what the control cannot do, and why.
macro_rules! podman_with_rtx {
    ($reason:expr) => {{
        let host = $crate::podman::podman!();
        if !host.is_rtx() {
            $crate::support::skip!($reason);
        }
        host
    }};
}

pub(crate) use {everyone, podman, podman_with_rtx};
