//! The three stages and how they hand over. stage1 decides, smaster creates and watches, stage2 becomes the payload.
//!
//! The *mode* says which process plays smaster and how long it lives: in the foreground it is the command itself until
//! the container has ended; in a handover it is the command until the container is created, and init then belongs to
//! the caller's subreaper; supervised, it is a process of its own for as long as the container lives.

pub mod checkpoint;
pub mod deletion;
pub mod doctor;
pub mod ending;
pub mod exec;
pub mod foreground;
pub mod gc;
pub mod lifecycle;
pub mod notify;
pub mod relay;
mod sealed;
pub mod smaster;
mod spawn;
pub mod stage1;
pub mod stage2;
pub mod supervisor;
pub mod update;

/// Which process plays smaster, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `run`, `exec`: this command, until the process has ended.
    Foreground,
    /// `create`, `run -d`, `exec -d`: this command, until the process is ready.
    Handover,
    /// `--supervise`: a process of its own, until the container has ended for good.
    Supervised,
}
