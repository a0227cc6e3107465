//! The schema of config.json as runtime-spec 1.3.0 describes it (config.md, config-linux.md, schema/): a table an object.

use super::schema::Kind::{Boolean, Foreign, Integer, List, Map, Object, OneOf, Text};
use super::schema::{Kind, Names, assumed, optional, required};
use super::{names, platforms};

const UINT16: Kind = Integer(0, u16::MAX as i128, "uint16");
const INT32: Kind = Integer(i32::MIN as i128, i32::MAX as i128, "int32");
const UINT32: Kind = Integer(0, u32::MAX as i128, "uint32");
const INT64: Kind = Integer(i64::MIN as i128, i64::MAX as i128, "int64");
const UINT64: Kind = Integer(0, u64::MAX as i128, "uint64");
const TEXTS: Kind = List(&Text);

macro_rules! names {
    ($list:expr, $problem:literal) => {
        OneOf(&Names { list: $list, problem: $problem, or_empty: false })
    };
    ($list:expr, $problem:literal, or_empty) => {
        OneOf(&Names { list: $list, problem: $problem, or_empty: true })
    };
}

/// The whole of config.json.
pub const SPEC: Kind = Object(&[
    assumed("ociVersion", Text, "1.0.0"),
    optional("root", Object(&[required("path", Text, "root.path must be specified"), optional("readonly", Boolean)])),
    optional("mounts", List(&MOUNT)),
    required("process", PROCESS, "process property must not be empty"),
    optional("hostname", Text),
    optional("domainname", Text),
    optional("hooks", HOOKS),
    optional("annotations", Map(&Text)),
    optional("linux", LINUX),
    optional("solaris", Foreign(&platforms::SOLARIS)),
    optional("windows", Foreign(&platforms::WINDOWS)),
    optional("vm", Foreign(&platforms::VM)),
    optional("zos", Foreign(&platforms::ZOS)),
    optional("freebsd", Foreign(&platforms::FREEBSD)),
]);

const MOUNT: Kind = Object(&[
    required("destination", Text, "mount destination must not be empty"),
    optional("type", Text),
    optional("source", Text),
    optional("options", TEXTS),
    optional("uidMappings", List(&ID_MAPPING)),
    optional("gidMappings", List(&ID_MAPPING)),
]);

const ID_MAPPING: Kind = Object(&[
    required("containerID", UINT32, "an id mapping needs its first id in the container"),
    required("hostID", UINT32, "an id mapping needs its first id on the host"),
    required("size", UINT32, "an id mapping needs a size"),
]);

/// config.md "Process"; also what `exec --process` takes.
pub const PROCESS: Kind = Object(&[
    optional("terminal", Boolean),
    optional(
        "consoleSize",
        Object(&[
            required("height", UINT64, "the size of a console needs a height"),
            required("width", UINT64, "the size of a console needs a width"),
        ]),
    ),
    optional("user", USER),
    optional("args", TEXTS),
    // For Windows, and to be ignored elsewhere.
    optional("commandLine", Foreign(&Text)),
    optional("env", TEXTS),
    required("cwd", Text, "Cwd property must not be empty"),
    optional("capabilities", CAPABILITIES),
    optional("rlimits", List(&RLIMIT)),
    optional("noNewPrivileges", Boolean),
    optional("apparmorProfile", Text),
    optional("oomScoreAdj", INT32),
    optional("selinuxLabel", Text),
    optional("ioPriority", IO_PRIORITY),
    optional("scheduler", SCHEDULER),
    optional("execCPUAffinity", Object(&[optional("initial", Text), optional("final", Text)])),
]);

const USER: Kind = Object(&[
    optional("uid", UINT32),
    optional("gid", UINT32),
    optional("umask", UINT32),
    optional("additionalGids", List(&UINT32)),
    // For Windows as well.
    optional("username", Foreign(&Text)),
]);

const CAPABILITIES: Kind = Object(&[
    optional("bounding", TEXTS),
    optional("effective", TEXTS),
    optional("inheritable", TEXTS),
    optional("permitted", TEXTS),
    optional("ambient", TEXTS),
]);

const RLIMIT: Kind = Object(&[
    required("type", names!(names::RLIMITS, "wrong rlimit value: {}"), "wrong rlimit value: the type is missing"),
    required("hard", UINT64, "wrong rlimit value: the hard limit is missing"),
    required("soft", UINT64, "wrong rlimit value: the soft limit is missing"),
]);

const IO_PRIORITY: Kind = Object(&[
    required(
        "class",
        names!(names::IO_PRIORITY_CLASSES, "invalid ioPriority.Class: \"{}\""),
        "invalid ioPriority.Class: it is missing",
    ),
    assumed("priority", INT32, "0"),
]);

const SCHEDULER: Kind = Object(&[
    required(
        "policy",
        names!(names::SCHEDULER_POLICIES, "invalid scheduler policy: \"{}\""),
        "scheduler policy is required",
    ),
    optional("nice", INT32),
    optional("priority", INT32),
    optional("flags", List(&names!(names::SCHEDULER_FLAGS, "invalid scheduler flag: \"{}\""))),
    optional("runtime", UINT64),
    optional("deadline", UINT64),
    optional("period", UINT64),
]);

const HOOKS: Kind = Object(&[
    optional("prestart", List(&HOOK)),
    optional("createRuntime", List(&HOOK)),
    optional("createContainer", List(&HOOK)),
    optional("startContainer", List(&HOOK)),
    optional("poststart", List(&HOOK)),
    optional("poststop", List(&HOOK)),
]);

const HOOK: Kind = Object(&[
    required("path", Text, "a hook needs a path"),
    optional("args", TEXTS),
    optional("env", TEXTS),
    optional("timeout", INT64),
]);

const LINUX: Kind = Object(&[
    optional("devices", List(&DEVICE)),
    optional("netDevices", Map(&Object(&[optional("name", Text)]))),
    optional("uidMappings", List(&ID_MAPPING)),
    optional("gidMappings", List(&ID_MAPPING)),
    optional("namespaces", List(&NAMESPACE)),
    optional("resources", RESOURCES),
    optional("cgroupsPath", Text),
    optional("rootfsPropagation", names!(names::PROPAGATIONS, "rootfsPropagation={} is not supported", or_empty)),
    optional("seccomp", SECCOMP),
    optional("sysctl", Map(&Text)),
    optional("maskedPaths", TEXTS),
    optional("readonlyPaths", TEXTS),
    optional("mountLabel", Text),
    optional("intelRdt", INTEL_RDT),
    optional("memoryPolicy", MEMORY_POLICY),
    optional("personality", PERSONALITY),
    optional("timeOffsets", Map(&Object(&[optional("secs", INT64), optional("nanosecs", UINT32)]))),
]);

const NAMESPACE: Kind = Object(&[
    required(
        "type",
        names!(names::NAMESPACES, "namespace {\"{}\" \"\"} does not exist"),
        "namespace {\"\" \"\"} does not exist: the type is missing",
    ),
    optional("path", Text),
]);

const DEVICE: Kind = Object(&[
    required("path", Text, "a device needs a path"),
    required("type", names!(names::DEVICE_TYPES, "invalid device type \"{}\""), "invalid device type \"\""),
    optional("major", INT64),
    optional("minor", INT64),
    optional("fileMode", UINT32),
    optional("uid", UINT32),
    optional("gid", UINT32),
]);

const RESOURCES: Kind = Object(&[
    optional("unified", Map(&Text)),
    optional("devices", List(&DEVICE_RULE)),
    optional("pids", Object(&[required("limit", INT64, "the limit of processes is missing")])),
    optional("blockIO", BLOCK_IO),
    optional("cpu", CPU),
    optional("hugepageLimits", List(&HUGEPAGE_LIMIT)),
    optional("memory", MEMORY),
    optional("network", NETWORK),
    optional("rdma", Map(&Object(&[optional("hcaHandles", UINT32), optional("hcaObjects", UINT32)]))),
]);

const DEVICE_RULE: Kind = Object(&[
    required("allow", Boolean, "a device rule must say whether it allows or denies"),
    optional("type", names!(names::DEVICE_RULE_TYPES, "invalid cgroup device type \"{}\"", or_empty)),
    optional("major", INT64),
    optional("minor", INT64),
    optional("access", Text),
]);

const BLOCK_IO: Kind = Object(&[
    optional("weight", UINT16),
    optional("leafWeight", UINT16),
    optional("weightDevice", List(&WEIGHT_DEVICE)),
    optional("throttleReadBpsDevice", List(&THROTTLE_DEVICE)),
    optional("throttleWriteBpsDevice", List(&THROTTLE_DEVICE)),
    optional("throttleReadIOPSDevice", List(&THROTTLE_DEVICE)),
    optional("throttleWriteIOPSDevice", List(&THROTTLE_DEVICE)),
]);

const WEIGHT_DEVICE: Kind = Object(&[
    required("major", INT64, "a block device needs a major number"),
    required("minor", INT64, "a block device needs a minor number"),
    optional("weight", UINT16),
    optional("leafWeight", UINT16),
]);

const THROTTLE_DEVICE: Kind = Object(&[
    required("major", INT64, "a block device needs a major number"),
    required("minor", INT64, "a block device needs a minor number"),
    assumed("rate", UINT64, "0"),
]);

const CPU: Kind = Object(&[
    optional("shares", UINT64),
    optional("quota", INT64),
    optional("burst", UINT64),
    optional("period", UINT64),
    optional("realtimeRuntime", INT64),
    optional("realtimePeriod", UINT64),
    optional("cpus", Text),
    optional("mems", Text),
    optional("idle", INT64),
]);

const HUGEPAGE_LIMIT: Kind = Object(&[
    required("pageSize", Text, "a hugepage limit needs a page size"),
    required("limit", UINT64, "a hugepage limit needs a limit"),
]);

const MEMORY: Kind = Object(&[
    optional("limit", INT64),
    optional("reservation", INT64),
    optional("swap", INT64),
    optional("kernel", INT64),
    optional("kernelTCP", INT64),
    optional("swappiness", UINT64),
    optional("disableOOMKiller", Boolean),
    optional("useHierarchy", Boolean),
    optional("checkBeforeUpdate", Boolean),
]);

const NETWORK: Kind = Object(&[
    optional("classID", UINT32),
    optional(
        "priorities",
        List(&Object(&[
            required("name", Text, "a network priority needs the name of an interface"),
            required("priority", UINT32, "a network priority needs a priority"),
        ])),
    ),
]);

const SECCOMP_ACTION: Kind = names!(names::SECCOMP_ACTIONS, "string {} is not a valid action for seccomp");

const SECCOMP: Kind = Object(&[
    required(
        "defaultAction",
        SECCOMP_ACTION,
        "string  is not a valid action for seccomp: the default action is missing",
    ),
    optional("defaultErrnoRet", UINT32),
    optional("flags", List(&names!(names::SECCOMP_FLAGS, "seccomp flag \"{}\" is not supported"))),
    optional("listenerPath", Text),
    optional("listenerMetadata", Text),
    optional("architectures", List(&names!(names::SECCOMP_ARCHS, "string {} is not a valid arch for seccomp"))),
    optional("syscalls", List(&SYSCALL)),
]);

const SYSCALL: Kind = Object(&[
    required("names", TEXTS, "a seccomp rule must name its system calls"),
    required("action", SECCOMP_ACTION, "string  is not a valid action for seccomp"),
    optional("errnoRet", UINT32),
    optional("args", List(&SYSCALL_ARG)),
]);

const SYSCALL_ARG: Kind = Object(&[
    required("index", Integer(0, 5, "an argument's index"), "a seccomp comparison needs the index of an argument"),
    required("value", UINT64, "a seccomp comparison needs a value"),
    optional("valueTwo", UINT64),
    required(
        "op",
        names!(names::SECCOMP_OPERATORS, "string {} is not a valid operator for seccomp"),
        "string  is not a valid operator for seccomp",
    ),
]);

const INTEL_RDT: Kind = Object(&[
    optional("closID", Text),
    optional("schemata", TEXTS),
    optional("l3CacheSchema", Text),
    optional("memBwSchema", Text),
    optional("enableMonitoring", Boolean),
    // Gone in 1.3.0, but configurations of 1.1 and 1.2 have them.
    optional("enableCMT", Boolean),
    optional("enableMBM", Boolean),
]);

const MEMORY_POLICY: Kind = Object(&[
    required(
        "mode",
        names!(names::MEMORY_POLICY_MODES, "invalid memory policy mode \"{}\""),
        "memory policy mode is missing",
    ),
    optional("nodes", Text),
    optional("flags", List(&names!(names::MEMORY_POLICY_FLAGS, "invalid memory policy flag \"{}\""))),
]);

const PERSONALITY: Kind = Object(&[
    required(
        "domain",
        names!(names::PERSONALITY_DOMAINS, "invalid personality domain {}"),
        "invalid personality domain: it is missing",
    ),
    optional("flags", TEXTS),
]);
