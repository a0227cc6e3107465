//! The container's control groups: cgroups v1, v2 and both at once ("hybrid"), through cgroupfs or by systemd.
//!
//! stage1 calls [`plan`]; smaster calls [`Placement::begin`], makes the child in that, calls [`Created::go_on`] (or both at
//! once, [`Placement::create`]), hands [`Created::task_files`] to the child, then [`Created::apply_limits`] and
//! [`Created::commit`]; later commands use [`Placement::open`]. Creating, joining, limiting and removing are on the path of
//! every container, so they are own code with few system calls.
//! Runtime spec, config-linux.md, "Control groups"; cgroups(7).

mod apply;
mod create;
mod delegation;
mod devices;
pub mod entry;
mod file;
mod frozen;
mod hierarchy;
pub mod leaf;
mod limits;
mod limits_v1;
mod limits_v2;
mod live;
mod mountinfo;
mod oom;
mod placement;
mod remove;
mod scope;
mod shown;
mod stats;
mod stats_v1;
mod stats_v2;
mod systemd;
mod tree;

pub use create::Created;
pub use delegation::owner;
pub use frozen::Freezer;
pub use hierarchy::is_unified_host;
pub use live::Cgroup;
pub use oom::OomWatch;
pub use placement::{Place, Placement, Request, StartUnit, plan};
pub use scope::{orphans, plan_by_systemd, scopes};
pub use shown::{ContainerMount, membership};
pub use stats::Stats;
pub use systemd::{SystemdManagerUnavailable, Unit};
