//! Who is notified of system calls (runtime-spec config-linux.md, Seccomp): smaster takes the listener of the filter out
//! of stage2 and hands it, with the ContainerProcessState, to the socket that the configuration names.

use crate::config::envelope::ListenerPlan;
use crate::engine::InitProcess;
use crate::rpc::RpcClient;
use crate::state::{OciState, Record, Status};
use crate::sys::process::pidfd_getfd;
use crate::sys::{Errno, On, socket};
use anyhow::{Context, Result};
use nix::sys::socket::SockType;
use serde::Serialize;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// What the kernel calls a listener in /proc/PID/fd.
const LISTENER: &str = "anon_inode:seccomp notify";

/// config-linux.md "The Container Process State".
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProcessState<'a> {
    oci_version: &'static str,
    fds: [&'static str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: OciState<'a>,
}

/// Hands over the listener of `process`, which is about to install its filter, and lets it go on. `status` and `init` are
/// the container's.
///
/// # Errors
/// Where stage2 could not install the filter; where nobody listens at the socket.
pub fn hand_over(
    plan: &ListenerPlan,
    record: &Record,
    (status, init): (Status, i32),
    process: &InitProcess,
    rpc: &mut RpcClient,
) -> Result<()> {
    let number = rpc.wait_listener()?;
    let listener = take(process, number, rpc)?;
    let state = ContainerProcessState {
        oci_version: crate::OCI_VERSION,
        fds: ["seccompFd"],
        pid: process.pid,
        metadata: &plan.metadata,
        state: record.oci_state(status, init),
    };
    send(&plan.path, &serde_json::to_vec(&state)?, &listener).context(
        "failed to connect with seccomp agent specified in the seccomp profile (/linux/seccomp/listenerPath)",
    )?;
    rpc.release()
}

/// stage2 cannot send the listener: by then its filter may forbid that, or have it wait for the one who has the listener.
fn take(process: &InitProcess, number: i32, rpc: &mut RpcClient) -> Result<OwnedFd> {
    loop {
        match pidfd_getfd(&process.pidfd, number) {
            Ok(fd) if is_listener(&fd) => return Ok(fd),
            Ok(_) | Err(Errno::EBADF) => rpc.pause()?,
            // It has ended; what it said before tells why.
            Err(Errno::ESRCH) => rpc.pause()?,
            Err(Errno::ENOSYS) => {
                return Err(Errno::ENOSYS)
                    .on("pidfd_getfd", "of the seccomp listener")
                    .context("SCMP_ACT_NOTIFY needs Linux 5.6");
            }
            Err(errno) => {
                return Err(errno)
                    .on("pidfd_getfd", "of the seccomp listener")
                    .context("SCMP_ACT_NOTIFY needs CAP_SYS_PTRACE where rtx runs");
            }
        }
    }
}

fn is_listener(fd: &OwnedFd) -> bool {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    link.is_ok_and(|target| target == Path::new(LISTENER))
}

fn send(path: &str, state: &[u8], listener: &OwnedFd) -> Result<()> {
    let agent = socket::dial(Path::new(path), SockType::Stream).on("connect to", path)?;
    Ok(socket::send(&agent, &[state], &[listener.as_raw_fd()]).on("send to", path)?)
}
