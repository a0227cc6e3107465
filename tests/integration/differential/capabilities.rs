//! Capability sets, for root and for others, and what noNewPrivileges and the user make of them.

use serde_json::json;

use super::cases;
use crate::support::Bundle;

const SETS: [&str; 5] = ["bounding", "effective", "permitted", "inheritable", "ambient"];

/// Each of the five sets, in the order of `SETS`.
fn sets(b: &mut Bundle, members: [&[&str]; 5]) {
    for (set, names) in SETS.iter().zip(members) {
        b.set(&format!("/process/capabilities/{set}"), json!(names));
    }
}

fn as_user(b: &mut Bundle) {
    b.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
}

const NONE: &[&str] = &[];
const KILL: &[&str] = &["CAP_KILL"];
const MORE: &[&str] = &["CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW", "CAP_SYS_ADMIN"];

cases! {
    "capabilities";
    probe absent => |b| { b.remove("/process/capabilities"); };
    probe empty_object => |b| { b.set("/process/capabilities", json!({})); };
    probe none => |b| sets(b, [NONE; 5]);
    probe all_sets => |b| sets(b, [MORE; 5]);
    probe only_bounding => |b| sets(b, [MORE, NONE, NONE, NONE, NONE]);
    probe no_bounding => |b| sets(b, [NONE, KILL, KILL, NONE, NONE]);
    probe permitted_but_not_effective => |b| sets(b, [MORE, NONE, MORE, NONE, NONE]);
    probe inheritable_without_ambient => |b| sets(b, [MORE, KILL, KILL, MORE, NONE]);
    probe ambient_without_inheritable => |b| sets(b, [MORE, MORE, MORE, NONE, KILL]);
    probe ambient_one => |b| sets(b, [MORE, MORE, MORE, MORE, KILL]);
    probe effective_beyond_permitted => |b| sets(b, [MORE, MORE, KILL, NONE, NONE]);
    probe permitted_beyond_bounding => |b| sets(b, [KILL, MORE, MORE, NONE, NONE]);
    probe user_without_ambient => |b| { sets(b, [MORE, MORE, MORE, MORE, NONE]); as_user(b); };
    probe user_with_ambient => |b| { sets(b, [MORE; 5]); as_user(b); };
    probe user_with_ambient_may_be_new => |b| {
        sets(b, [MORE; 5]);
        as_user(b);
        b.set("/process/noNewPrivileges", json!(false));
    };
    probe user_with_bounding => |b| { sets(b, [MORE, NONE, NONE, NONE, NONE]); as_user(b); };
    probe root_may_be_new => |b| { sets(b, [MORE; 5]); b.set("/process/noNewPrivileges", json!(false)); };
    probe absent_for_user => |b| { b.remove("/process/capabilities"); as_user(b); };
    probe absent_no_new_privileges => |b| { b.remove("/process/noNewPrivileges"); };
    probe unknown => |b| sets(b, [&["CAP_KILL", "CAP_NOSUCH"], KILL, KILL, NONE, NONE]);
    probe lower_case => |b| sets(b, [&["cap_kill"], NONE, NONE, NONE, NONE]);
    probe without_prefix => |b| sets(b, [&["KILL"], NONE, NONE, NONE, NONE]);
    probe newest => |b| sets(b, [&["CAP_CHECKPOINT_RESTORE", "CAP_BPF", "CAP_PERFMON"]; 5]);
    probe last_of_first_word => |b| sets(b, [&["CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_SYSLOG"]; 5]);
    probe not_held_by_caller => |b| sets(b, [&["CAP_SYS_RESOURCE"]; 5]);
}
