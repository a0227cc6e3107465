//! The sections of config.json for other platforms (config-solaris.md, config-windows.md, config-vm.md, config-zos.md,
//! config-freebsd.md). rtx ignores them; what violates the schema is refused all the same, because a document that is
//! wrong in one place was not written by what its author believes.

use super::schema::Kind::{Boolean, Integer, List, Object, OneOf, Text};
use super::schema::{Kind, Names, optional, required};

const UINT8: Kind = Integer(0, u8::MAX as i128, "uint8");
const UINT16: Kind = Integer(0, u16::MAX as i128, "uint16");
const UINT32: Kind = Integer(0, u32::MAX as i128, "uint32");
const UINT64: Kind = Integer(0, u64::MAX as i128, "uint64");
const INT64: Kind = Integer(i64::MIN as i128, i64::MAX as i128, "int64");
const TEXTS: Kind = List(&Text);

macro_rules! one_of {
    ($($name:literal),+) => {
        OneOf(&Names { list: &[$($name),+], problem: "\"{}\" is none of the names that belong here", or_empty: false })
    };
}

pub const SOLARIS: Kind = Object(&[
    optional("milestone", Text),
    optional("limitpriv", Text),
    optional("maxShmMemory", Text),
    optional("cappedCPU", Object(&[optional("ncpus", Text)])),
    optional("cappedMemory", Object(&[optional("physical", Text), optional("swap", Text)])),
    optional("anet", List(&ANET)),
]);

const ANET: Kind = Object(&[
    optional("linkname", Text),
    optional("lowerLink", Text),
    optional("allowedAddress", Text),
    optional("configureAllowedAddress", Text),
    optional("defrouter", Text),
    optional("macAddress", Text),
    optional("linkProtection", Text),
]);

pub const WINDOWS: Kind = Object(&[
    required("layerFolders", TEXTS, "a Windows container needs its layers"),
    optional(
        "devices",
        List(&Object(&[
            required("id", Text, "a device needs an id"),
            required("idType", one_of!("class"), "a device needs the type of its id"),
        ])),
    ),
    optional("resources", WINDOWS_RESOURCES),
    optional(
        "network",
        Object(&[
            optional("endpointList", TEXTS),
            optional("allowUnqualifiedDNSQuery", Boolean),
            optional("DNSSearchList", TEXTS),
            optional("networkSharedContainerName", Text),
            optional("networkNamespace", Text),
        ]),
    ),
    optional("credentialSpec", Object(&[])),
    optional("servicing", Boolean),
    optional("ignoreFlushesDuringBoot", Boolean),
    optional("hyperv", Object(&[optional("utilityVMPath", Text)])),
]);

const WINDOWS_RESOURCES: Kind = Object(&[
    optional("memory", Object(&[optional("limit", UINT64)])),
    optional(
        "cpu",
        Object(&[
            optional("count", UINT64),
            optional("shares", UINT16),
            optional("maximum", UINT16),
            optional("affinity", List(&Object(&[optional("mask", UINT64), optional("group", UINT32)]))),
        ]),
    ),
    optional("storage", Object(&[optional("iops", UINT64), optional("bps", UINT64), optional("sandboxSize", UINT64)])),
]);

pub const VM: Kind = Object(&[
    optional(
        "hypervisor",
        Object(&[required("path", Text, "a hypervisor needs a path"), optional("parameters", TEXTS)]),
    ),
    required(
        "kernel",
        Object(&[
            required("path", Text, "a kernel needs a path"),
            optional("parameters", TEXTS),
            optional("initrd", Text),
        ]),
        "a virtual machine needs a kernel",
    ),
    optional(
        "image",
        Object(&[
            required("path", Text, "an image needs a path"),
            required("format", one_of!("raw", "qcow2", "vdi", "vmdk", "vhd"), "an image needs a format"),
        ]),
    ),
    optional("hwConfig", HARDWARE),
]);

const HARDWARE: Kind = Object(&[
    optional("deviceTree", Text),
    optional("vcpus", UINT32),
    optional("memory", UINT64),
    optional("dtdevs", TEXTS),
    optional(
        "iomems",
        List(&Object(&[optional("firstGFN", UINT64), optional("firstMFN", UINT64), optional("nrMFNs", UINT64)])),
    ),
    optional("irqs", List(&UINT32)),
]);

pub const ZOS: Kind = Object(&[
    optional(
        "namespaces",
        List(&Object(&[
            required("type", one_of!("mount", "pid", "uts", "ipc"), "a namespace needs a type"),
            optional("path", Text),
        ])),
    ),
    // Gone since 1.1.0.
    optional("devices", List(&ZOS_DEVICE)),
]);

const ZOS_DEVICE: Kind = Object(&[
    required("path", Text, "a device needs a path"),
    required("type", one_of!("c", "b", "u", "p"), "a device needs a type"),
    required("major", INT64, "a device needs a major number"),
    required("minor", INT64, "a device needs a minor number"),
    optional("fileMode", Integer(0, 0o777, "a file mode")),
    optional("uid", UINT32),
    optional("gid", UINT32),
]);

const SHARING: Kind = one_of!("disable", "new", "inherit");
const SHARING_ALWAYS: Kind = one_of!("new", "inherit");

pub const FREEBSD: Kind = Object(&[
    optional("devices", List(&Object(&[optional("path", Text), optional("mode", Text)]))),
    optional("jail", JAIL),
]);

const JAIL: Kind = Object(&[
    optional("parent", Text),
    optional("host", SHARING_ALWAYS),
    optional("ip4", SHARING),
    optional("ip4Addr", TEXTS),
    optional("ip6", SHARING),
    optional("ip6Addr", TEXTS),
    optional("vnet", SHARING_ALWAYS),
    optional("interface", Text),
    optional("vnetInterfaces", TEXTS),
    optional("sysvmsg", SHARING),
    optional("sysvsem", SHARING),
    optional("sysvshm", SHARING),
    optional("enforceStatfs", UINT8),
    optional("allow", ALLOW),
]);

const ALLOW: Kind = Object(&[
    optional("setHostname", Boolean),
    optional("rawSockets", Boolean),
    optional("chflags", Boolean),
    optional("mount", TEXTS),
    optional("quotas", Boolean),
    optional("socketAf", Boolean),
    optional("mlock", Boolean),
    optional("reservedPorts", Boolean),
    optional("suser", Boolean),
]);
