//! The devices of a container (runtime-spec config-linux.md, Devices and Default Devices), as smaster sees them.

use super::mounts::relative;
use super::sources::{clone_device, make_room};
use crate::rpc::RpcClient;
use crate::rpc::client::Batch;
use crate::rpc::operation::{DeviceOperation, Operation};
use anyhow::{Context, Result};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use std::collections::HashSet;
use std::path::Path;

/// Path below the root, major and minor number of what every container has.
const DEFAULT: [(&str, u32, u32); 6] = [
    ("dev/null", 1, 3),
    ("dev/random", 1, 8),
    ("dev/full", 1, 7),
    ("dev/tty", 5, 0),
    ("dev/zero", 1, 5),
    ("dev/urandom", 1, 9),
];

/// All devices in the order they are made: the defaults, but for those that the configuration has itself, then the
/// configuration's.
pub fn plan(devices: &[LinuxDevice]) -> Vec<DeviceOperation> {
    let mut paths = HashSet::new();
    // The first of one path is what there is under runc; the check has told of the others.
    let first = devices.iter().enumerate().filter(|(_, device)| paths.insert(device.path().as_os_str()));
    let listed: Vec<DeviceOperation> = first.map(listed).collect();
    let defaults = DEFAULT.iter().filter(|(path, _, _)| !listed.iter().any(|device| device.path == *path)).map(default);
    defaults.chain(listed.iter().filter(|device| !is_made_otherwise(&device.path)).cloned()).collect()
}

/// /dev/ptmx belongs to the container's own devpts.
fn is_made_otherwise(path: &str) -> bool {
    path == "dev/ptmx"
}

fn default((path, major, minor): &(&str, u32, u32)) -> DeviceOperation {
    DeviceOperation {
        pointer: String::new(),
        path: (*path).to_owned(),
        mode: libc::S_IFCHR | 0o666,
        major: *major,
        minor: *minor,
        uid: 0,
        gid: 0,
        tree: None,
        host_path: Some(format!("/{path}")),
    }
}

fn listed((index, device): (usize, &LinuxDevice)) -> DeviceOperation {
    let kind = match device.typ() {
        LinuxDeviceType::B => libc::S_IFBLK,
        LinuxDeviceType::P => libc::S_IFIFO,
        LinuxDeviceType::C | LinuxDeviceType::U | LinuxDeviceType::A => libc::S_IFCHR,
    };
    DeviceOperation {
        pointer: format!("/linux/devices/{index}"),
        path: relative(device.path()),
        mode: kind | (device.file_mode().unwrap_or(0o666) & 0o7777),
        major: device.major() as u32,
        minor: device.minor() as u32,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        tree: None,
        host_path: Some(device.path().display().to_string()),
    }
}

/// Adds the devices to the batch. In a user namespace no node can be made: there the host's are bound, by clones where
/// smaster can make them.
///
/// # Errors
/// Where the host lacks a device that has to be bound.
pub fn add(devices: &[DeviceOperation], batch: &mut Batch, rpc: &mut RpcClient, binds_clones: bool) -> Result<()> {
    let mut operations = Vec::with_capacity(devices.len());
    for device in devices {
        let mut device = device.clone();
        if binds_clones && device.mode & libc::S_IFMT != libc::S_IFIFO {
            let path = device.host_path.clone().unwrap_or_default();
            let tree = clone_device(Path::new(&path)).with_context(|| format!("{}: device", device.pointer))?;
            if batch.is_full(1) {
                batch.push(Operation::Devices { devices: std::mem::take(&mut operations) });
                make_room(1, batch, rpc)?;
            }
            device.tree = Some(batch.fd(tree));
        }
        operations.push(device);
    }
    batch.push(Operation::Devices { devices: operations });
    Ok(())
}
