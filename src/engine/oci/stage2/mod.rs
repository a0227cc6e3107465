//! The `oci` engine in stage2: what smaster asks for, done in the container's own namespaces.

mod console;
mod copy_up;
mod devices;
mod hierarchies;
mod identity;
mod masks;
mod mount2;
mod mounts;
mod payload;
mod program;
pub(in crate::engine::oci) mod root;
mod sysctl;

pub use payload::Payload;
pub use root::c_string;
