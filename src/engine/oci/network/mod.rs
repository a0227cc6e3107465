//! `linux.netDevices` (runtime-spec config-linux.md, Network Devices): devices of the host that move into the container's
//! network namespace, with their addresses.
//!
//! When that namespace ends, the kernel moves the physical ones back to the host and ends the others; the specification
//! forbids a runtime to take them out before. What is left to do then is to give a device its name back. Only where the
//! creation fails are they moved back from here.

mod rtnetlink;

use super::namespaces;
use crate::engine::LaunchOptions;
use crate::sys::net::Netlink;
use crate::sys::process::is_own_namespace;
use crate::sys::{Errno, On};
use anyhow::{Context, Result, bail};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use oci_spec::runtime::Linux;
use rtnetlink::{Devices, Link};
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// One device to move.
#[derive(Debug, Clone)]
pub struct Device {
    name: String,
    /// Its name in the container; with `%d` in it, the first number that is free there takes its place.
    inside: String,
}

/// A device that the kernel returns to the host when the container's network namespace ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Returning {
    name: String,
    inside: String,
    index: u32,
    address: Vec<u8>,
}

/// What stage1 decides.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    pub devices: Vec<Device>,
    pub returning: Vec<Returning>,
}

const OWN_NAMESPACE: &str = "/proc/self/ns/net";

impl Plan {
    /// Looks the devices up.
    ///
    /// # Errors
    /// Where one does not exist or belongs to the host alone; where this process or the namespace cannot take any.
    pub fn new(linux: &Linux, namespaces: &namespaces::Plan, options: &LaunchOptions) -> Result<Self> {
        let mut plan = Self::default();
        let Some(devices) = linux.net_devices().as_ref().filter(|devices| !devices.is_empty()) else {
            return Ok(plan);
        };
        if options.rootless {
            bail!(
                "/linux/netDevices: network devices of the host are its root's to move: run rtx as root, or remove it"
            );
        }
        check_namespace(namespaces)?;
        let mut host = Devices::new(Netlink::open().on("open", "a netlink socket")?);
        for (name, device) in devices {
            let inside = device.name().clone().filter(|inside| !inside.is_empty()).unwrap_or_else(|| name.clone());
            let Some(link) = host.find(name).on("look for network device", name)? else {
                bail!("/linux/netDevices/{name}: the host has no network device of this name");
            };
            if link.loopback {
                bail!(
                    "/linux/netDevices/{name}: a loopback device belongs to its network namespace and cannot be moved"
                );
            }
            if !link.is_virtual && namespaces.makes(libc::CLONE_NEWNET) {
                let (name, inside) = (name.clone(), inside.clone());
                plan.returning.push(Returning { name, inside, index: link.index, address: link.address });
            }
            plan.devices.push(Device { name: name.clone(), inside });
        }
        // The order in which templates get their numbers must not change from run to run.
        plan.devices.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(plan)
    }
}

fn check_namespace(namespaces: &namespaces::Plan) -> Result<()> {
    if namespaces.makes(libc::CLONE_NEWNET) {
        return Ok(());
    }
    match namespaces.path(libc::CLONE_NEWNET) {
        Some(path) if !is_own_namespace(path, "net") => Ok(()),
        _ => bail!("/linux/netDevices: unable to move network devices without a private NET namespace"),
    }
}

/// The devices that were moved into a container; until [`Moved::commit`] dropping this moves them back.
pub struct Moved {
    host: Devices,
    host_namespace: OwnedFd,
    inside: Devices,
    moved: Vec<Was>,
}

/// What a device was like on the host.
struct Was {
    name: String,
    inside: String,
    up: bool,
    addresses: Vec<AddressMessage>,
}

impl Moved {
    /// Moves the devices into the namespace at `path`.
    ///
    /// # Errors
    /// Where one cannot be moved; those that were are back then.
    pub fn new(devices: &[Device], path: &Path) -> Result<Self> {
        let open = |path: &Path| {
            open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).on("open the namespace", path.display())
        };
        let namespace = open(path)?;
        let inside = Netlink::open_in(&namespace).on("open", "a netlink socket of the container")?;
        let mut moved = Self {
            host: Devices::new(Netlink::open().on("open", "a netlink socket")?),
            host_namespace: open(Path::new(OWN_NAMESPACE))?,
            inside: Devices::new(inside),
            moved: Vec::new(),
        };
        for device in devices {
            moved
                .take(device, &namespace)
                .with_context(|| format!("/linux/netDevices/{}: move the network device", device.name))?;
        }
        Ok(moved)
    }

    /// The devices stay in the container.
    pub fn commit(mut self) {
        self.moved.clear();
    }

    fn take(&mut self, device: &Device, namespace: &OwnedFd) -> Result<()> {
        let name = &device.name;
        let Some(link) = self.host.find(name).on("look for network device", name)? else {
            bail!("the host has no network device of this name");
        };
        let inside = self.free_name(&device.inside)?;
        // Before anything else: the addresses of IPv6 go when the device goes down, and all go when it moves.
        let mut addresses = self.host.addresses(link.index).on("read the addresses of", name)?;
        addresses.retain(is_kept);
        self.host.set_up(link.index, false).on("set down", name)?;
        let was = |inside: &str| Was {
            name: name.clone(),
            inside: inside.to_owned(),
            up: link.up,
            addresses: addresses.clone(),
        };
        if let Err(errno) = self.host.transfer(link.index, &inside, namespace) {
            match self.host.find(name) {
                // The kernel moves first and renames then.
                Ok(None) => self.moved.push(was(name)),
                _ => restore(&mut self.host, &link, &addresses),
            }
            let error = Err(errno).on("move", name);
            return match errno {
                Errno::EINVAL => error.context("it is of a kind that belongs to its network namespace")?,
                _ => error?,
            };
        }
        self.moved.push(was(&inside));
        let Some(link) = self.inside.find(&inside).on("look for network device", &inside)? else {
            bail!("{inside} did not arrive in the container");
        };
        for address in addresses {
            match self.inside.add_address(for_device(address, name, &link)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => Err(errno).on("keep an address of", &inside)?,
            }
        }
        Ok(self.inside.set_up(link.index, true).on("set up", &inside)?)
    }

    fn free_name(&mut self, wanted: &str) -> Result<String> {
        let taken = self.inside.all().on("list", "the network devices of the container")?;
        let is_free = |name: &str| taken.iter().all(|link| link.name != name);
        match wanted.split_once("%d") {
            None if is_free(wanted) => Ok(wanted.to_owned()),
            None => Err(Errno::EEXIST).on("name", wanted).context("the container has a network device of this name")?,
            Some((before, after)) => (0..=taken.len())
                .map(|number| format!("{before}{number}{after}"))
                .find(|name| is_free(name))
                .context("no number is free"),
        }
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        while let Some(was) = self.moved.pop() {
            let Ok(Some(link)) = self.inside.find(&was.inside) else { continue };
            let _ = self.inside.set_up(link.index, false);
            if self.inside.transfer(link.index, &was.name, &self.host_namespace).is_ok()
                && let Ok(Some(link)) = self.host.find(&was.name)
            {
                restore(&mut self.host, &Link { up: was.up, ..link }, &was.addresses);
            }
        }
    }
}

/// Gives a device of the host back what it has lost. What fails here is not what the user has to hear of.
fn restore(host: &mut Devices, link: &Link, addresses: &[AddressMessage]) {
    for address in addresses {
        let _ = host.add_address(for_device(address.clone(), &link.name, link));
    }
    if link.up {
        let _ = host.set_up(link.index, true);
    }
}

/// Addresses that somebody has configured, for the whole network: others were made by the kernel or a protocol for where
/// the device was.
fn is_kept(address: &AddressMessage) -> bool {
    address.header.scope == AddressScope::Universe && address.header.flags.contains(AddressHeaderFlags::Permanent)
}

/// The request for an address as it was read, for another index and name of the device.
fn for_device(mut address: AddressMessage, old: &str, link: &Link) -> AddressMessage {
    address.header.index = link.index;
    // Detection of duplicates starts anew.
    let stale = AddressFlags::Tentative | AddressFlags::Dadfailed;
    address.header.flags &= !AddressHeaderFlags::from_bits_retain(stale.bits() as u8);
    address.attributes.retain_mut(|attribute| match attribute {
        AddressAttribute::Flags(flags) => {
            *flags &= !stale;
            true
        }
        AddressAttribute::Label(label) => {
            if let Some(rest) = label.strip_prefix(old) {
                *label = format!("{}{rest}", link.name);
            }
            true
        }
        AddressAttribute::CacheInfo(_) | AddressAttribute::TargetNetNsId(_) => false,
        _ => true,
    });
    address
}

/// How long the kernel may take to end a network namespace, which it does in its own time.
const RETURN_TIMEOUT: Duration = Duration::from_secs(2);

/// Gives the devices that the kernel has returned, or is about to, their names back.
pub fn rename_returned(returning: &[Returning]) {
    let Ok(socket) = Netlink::open() else { return };
    let mut host = Devices::new(socket);
    let deadline = Instant::now() + RETURN_TIMEOUT;
    let mut pending: Vec<_> = returning.iter().collect();
    loop {
        let Ok(links) = host.all() else { return };
        pending.retain(|device| match links.iter().find(|link| device.is(link)) {
            // Somebody else's by now, or a rule of the host was faster: both are as good.
            _ if links.iter().any(|link| link.name == device.name) => false,
            Some(link) => host.rename(link.index, &device.name).is_err(),
            None => true,
        });
        if pending.is_empty() || Instant::now() > deadline {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Returning {
    /// Whether `link` is this device: under the name that it had in the container, or the one that the kernel gives where
    /// that is taken.
    fn is(&self, link: &Link) -> bool {
        let inside = match self.inside.split_once("%d") {
            Some((before, after)) => is_numbered(&link.name, before, after),
            None => link.name == self.inside,
        };
        let same = if self.address.is_empty() { link.index == self.index } else { link.address == self.address };
        same && (inside || is_numbered(&link.name, "dev", ""))
    }
}

fn is_numbered(name: &str, before: &str, after: &str) -> bool {
    let number = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, address: &[u8]) -> Link {
        Link { index, name: name.to_owned(), address: address.to_vec(), ..Link::default() }
    }

    #[test]
    fn a_returned_device_is_known_by_its_address_and_its_name() {
        let device = |inside: &str, address: &[u8]| Returning {
            name: "eth1".to_owned(),
            inside: inside.to_owned(),
            index: 5,
            address: address.to_vec(),
        };
        let mac = [2, 0, 0, 0, 0, 1];
        assert!(device("net0", &mac).is(&link(5, "net0", &mac)));
        assert!(device("net0", &mac).is(&link(9, "dev9", &mac)));
        assert!(device("net%d", &mac).is(&link(5, "net3", &mac)));
        assert!(device("net0", &[]).is(&link(5, "dev5", &[])));
        assert!(!device("net0", &mac).is(&link(5, "net0", &[2, 0, 0, 0, 0, 2])));
        assert!(!device("net0", &mac).is(&link(5, "other0", &mac)));
        assert!(!device("net0", &[]).is(&link(6, "net0", &[])));
        assert!(!device("net%d", &mac).is(&link(5, "netx", &mac)));
    }
}
