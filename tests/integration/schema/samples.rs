//! Documents around one property of the schema: a value that is right, and what would violate the schema.

use serde_json::{Map, Value, json};

use super::{Property, properties};

/// What a right value is, where the type and the names of the schema do not say enough.
fn particular(pointer: &str) -> Option<Value> {
    Some(match pointer {
        "/ociVersion" => json!("1.3.0"),
        "/root/path" => json!("rootfs"),
        "/process/cwd" => json!("/"),
        "/process/args/*" => json!("true"),
        "/process/env/*" => json!("A=b"),
        "/process/rlimits/*/type" => json!("RLIMIT_CPU"),
        "/process/rlimits/*/hard" => json!(1024),
        "/linux/resources/memory/swap" => json!(67_108_864),
        "/linux/resources/memory/limit" | "/linux/resources/memory/reservation" => json!(67_108_864),
        // Labels need a host that has the module; empty is a string as well.
        "/process/apparmorProfile" | "/process/selinuxLabel" | "/linux/mountLabel" => json!(""),
        "/process/execCPUAffinity/initial" | "/process/execCPUAffinity/final" => json!("0"),
        "/linux/resources/cpu/cpus" | "/linux/resources/cpu/mems" | "/linux/memoryPolicy/nodes" => json!("0"),
        "/mounts/*" => json!({ "destination": "/tmp", "type": "tmpfs" }),
        "/mounts/*/destination" => json!("/tmp"),
        "/mounts/*/type" | "/mounts/*/source" => json!("tmpfs"),
        "/mounts/*/options/*" => json!("ro"),
        "/linux/devices/*/path" => json!("/dev/node"),
        "/linux/devices/*/type" | "/linux/resources/devices/*/type" => json!("c"),
        "/linux/resources/devices/*/access" => json!("rwm"),
        "/linux/namespaces/*/type" => json!("mount"),
        "/linux/resources/devices/*" => json!({ "allow": true, "access": "rwm" }),
        "/linux/personality" => json!({ "domain": "LINUX" }),
        "/process/scheduler/runtime" => json!(1_000_000),
        "/process/scheduler/deadline" => json!(2_000_000),
        "/process/scheduler/period" => json!(3_000_000),
        "/linux/resources/hugepageLimits/*/pageSize" => json!("2MB"),
        "/linux/resources/cpu/quota" | "/linux/resources/cpu/period" => json!(100_000),
        "/linux/resources/cpu/shares" => json!(512),
        "/linux/resources/cpu/realtimePeriod" => json!(1_000_000),
        "/linux/resources/blockIO/weight" | "/linux/resources/blockIO/leafWeight" => json!(100),
        "/linux/resources/blockIO/weightDevice/*/weight" => json!(100),
        "/linux/resources/blockIO/weightDevice/*/leafWeight" => json!(100),
        "/linux/seccomp/defaultAction" => json!("SCMP_ACT_ALLOW"),
        "/linux/seccomp/syscalls/*/names/*" => json!("mkdir"),
        "/linux/seccomp/syscalls/*/action" => json!("SCMP_ACT_ERRNO"),
        "/linux/sysctl/*" => json!("example.org"),
        "/linux/maskedPaths/*" | "/linux/readonlyPaths/*" => json!("/proc/kcore"),
        "/linux/intelRdt/memBwSchema" => json!("MB:0=100"),
        "/linux/intelRdt/schemata/*" => json!("L3:0=f"),
        "/linux/memoryPolicy/mode" => json!("MPOL_BIND"),
        "/linux/memoryPolicy/flags/*" => json!("MPOL_F_STATIC_NODES"),
        "/linux/seccomp/listenerPath" => json!("/run/listener.sock"),
        "/linux/cgroupsPath" => json!(""),
        "/windows" => json!({ "layerFolders": ["C:\\layer"] }),
        "/vm" => json!({ "kernel": { "path": "/vmlinuz" } }),
        _ if pointer.starts_with("/hooks/") && pointer.ends_with("/path") => json!("/bin/true"),
        _ if pointer.starts_with("/hooks/") && pointer.ends_with("/env/*") => json!("A=b"),
        _ if pointer.ends_with("/containerID") || pointer.ends_with("/hostID") => json!(0),
        _ if pointer.starts_with("/process/capabilities/") && pointer.ends_with("/*") => json!("CAP_KILL"),
        _ => return None,
    })
}

/// The key that stands for `*` in a map.
fn key(pointer: &str) -> Option<&'static str> {
    Some(match pointer {
        "/annotations" => "org.example.key",
        "/linux/sysctl" => "kernel.domainname",
        "/linux/netDevices" => "eth9",
        "/linux/timeOffsets" => "monotonic",
        "/linux/resources/unified" => "memory.high",
        "/linux/resources/rdma" => "mlx5_0",
        _ => return None,
    })
}

/// The schema with what can be asked of it.
pub struct Schema(pub Vec<Property>);

impl Schema {
    pub fn new() -> Schema {
        Schema(properties())
    }

    fn get(&self, pointer: &str) -> &Property {
        self.0.iter().find(|property| property.pointer == pointer).expect("a property of the schema")
    }

    pub fn required_below(&self, pointer: &str) -> Vec<&'static str> {
        let below = |property: &&Property| {
            property.required && property.pointer.rsplit_once('/').is_some_and(|(parent, _)| parent == pointer)
        };
        self.0.iter().filter(below).map(Property::name).collect()
    }

    /// A right value, with no more in it than what is required.
    pub fn right(&self, pointer: &str) -> Value {
        if let Some(value) = particular(pointer) {
            return value;
        }
        let property = self.get(pointer);
        match property.kind {
            "boolean" => json!(true),
            "string" => {
                json!(property.demand.split('|').next().filter(|_| !property.demand.starts_with('~')).unwrap_or("x"))
            }
            "array" if property.demand == "nonempty" => json!([self.right(&format!("{pointer}/*"))]),
            "array" => json!([]),
            "object" => {
                let required = self.required_below(pointer);
                required.iter().map(|name| ((*name).to_owned(), self.right(&format!("{pointer}/{name}")))).collect()
            }
            _ => json!(1),
        }
    }

    /// `base` with `value` at the property, what is on the way there being right.
    pub fn with(&self, base: &Value, pointer: &str, value: Value) -> Value {
        let mut document = base.clone();
        *self.reach(&mut document, pointer) = value;
        document
    }

    /// The place of a property, made if need be.
    pub fn reach<'a>(&self, document: &'a mut Value, pointer: &str) -> &'a mut Value {
        let mut at = document;
        let mut passed = String::new();
        for step in pointer.split('/').skip(1) {
            let parent = passed.clone();
            passed = format!("{passed}/{step}");
            let right = if passed == pointer { Value::Null } else { self.right(&passed) };
            if step != "*" {
                let entries = at.as_object_mut().expect("an object");
                at = entries.entry(step).or_insert(right);
            } else if let Some(key) = key(&parent) {
                *at = Value::Object(Map::new());
                at = at.as_object_mut().expect("a map").entry(key).or_insert(right);
            } else {
                // A list of one is what the base was prepared with.
                if at.as_array().is_none_or(|list| list.len() != 1) {
                    *at = json!([right]);
                }
                at = &mut at[0];
            }
        }
        at
    }
}

/// Where a property of the schema is in the documents made here.
pub fn concrete(pointer: &str) -> String {
    let mut concrete = String::new();
    let mut passed = String::new();
    for step in pointer.split('/').skip(1) {
        let step_there = if step == "*" { key(&passed).unwrap_or("0") } else { step };
        concrete = format!("{concrete}/{step_there}");
        passed = format!("{passed}/{step}");
    }
    concrete
}

/// Values that the schema forbids for a property.
pub fn wrong(property: &Property) -> Vec<Value> {
    let mut wrong = match property.kind {
        "string" => vec![json!(7), json!(true), json!([]), json!({})],
        "boolean" => vec![json!("true"), json!(0), json!([])],
        "object" => vec![json!("x"), json!([]), json!(1)],
        "array" => vec![json!("x"), json!({}), json!(1)],
        _ => vec![json!("1"), json!(true), json!(1.5), json!([])],
    };
    let range = match property.kind {
        "uint8" => Some((json!(-1), json!(256))),
        "uint16" => Some((json!(-1), json!(65_536))),
        "uint32" => Some((json!(-1), json!(1u64 << 32))),
        "uint64" => Some((json!(-1), json!(2e19))),
        "int32" => Some((json!(-3_000_000_000_i64), json!(3_000_000_000_u32))),
        "int64" => Some((json!(-1e19), json!(u64::MAX))),
        _ => None,
    };
    wrong.extend(range.into_iter().flat_map(|(below, above)| [below, above]));
    if let Some((least, most)) = property.demand.split_once("..") {
        wrong.extend(least.parse::<i64>().ok().map(|least| json!(least - 1)));
        wrong.extend(most.parse::<i64>().ok().map(|most| json!(most + 1)));
    } else if property.demand.contains('|') || property.demand.starts_with('~') {
        wrong.extend([json!("no such name"), json!("x\ny")]);
    } else if property.demand == "nonempty" {
        wrong.push(json!([]));
    }
    wrong
}
