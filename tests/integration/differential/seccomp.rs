//! Seccomp: actions, comparisons, architectures and flags, seen in what system calls do and in the status file.

use serde_json::{Value, json};

use super::cases;
use crate::support::Bundle;

/// Tries calls in a shell, each with its outcome; the filter count of the shell itself comes first.
const TRIES: &str = "grep Seccomp /proc/self/status; mkdir /tmp/d; echo mkdir $?; touch /tmp/f; echo touch $?; chmod 700 /tmp/f; echo chmod $?; \
    ln -s x /tmp/l; echo symlink $?; uname; echo uname $?";

fn filter(b: &mut Bundle, default: &str, rules: Value) {
    b.set(
        "/linux/seccomp",
        json!({ "defaultAction": default, "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules }),
    );
    b.shell_payload(&format!("exec 2>&1; {TRIES}")).mount("/tmp", "tmpfs", "tmpfs", &[]);
}

/// One rule on mkdir with `action`.
fn on_mkdir(b: &mut Bundle, action: &str) {
    filter(b, "SCMP_ACT_ALLOW", json!([{ "names": ["mkdir", "mkdirat"], "action": action }]));
}

/// Docker's profile, which says nothing of calls that are newer than itself.
fn denied_by_default(b: &mut Bundle, architectures: Value, errno: Option<u32>) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/bundles/seccomp/config.json");
    let config: Value = serde_json::from_str(&std::fs::read_to_string(path).expect("read a profile")).expect("JSON");
    let mut profile = config["linux"]["seccomp"].clone();
    profile["architectures"] = architectures;
    profile["defaultErrnoRet"] = json!(errno.unwrap_or(1));
    b.set("/linux/seccomp", profile);
}

/// A rule on personality(2) with a comparison of its first argument; `setarch` calls it.
fn compare(b: &mut Bundle, op: &str, value: u64, value_two: u64) {
    let arg = json!({ "index": 0, "op": op, "value": value, "valueTwo": value_two });
    filter(b, "SCMP_ACT_ALLOW", json!([{ "names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": [arg] }]));
    b.shell_payload("exec 2>&1; linux32 true; echo 32: $?; linux64 true; echo 64: $?");
}

cases! {
    "seccomp";
    probe errno => |b| on_mkdir(b, "SCMP_ACT_ERRNO");
    probe errno_with_number => |b| filter(b, "SCMP_ACT_ALLOW", json!([{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 }]));
    probe errno_zero => |b| filter(b, "SCMP_ACT_ALLOW", json!([{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0 }]));
    probe kill => |b| on_mkdir(b, "SCMP_ACT_KILL");
    probe kill_thread => |b| on_mkdir(b, "SCMP_ACT_KILL_THREAD");
    probe kill_process => |b| on_mkdir(b, "SCMP_ACT_KILL_PROCESS");
    probe trap => |b| on_mkdir(b, "SCMP_ACT_TRAP");
    probe trace => |b| on_mkdir(b, "SCMP_ACT_TRACE");
    probe log => |b| on_mkdir(b, "SCMP_ACT_LOG");
    probe allow => |b| on_mkdir(b, "SCMP_ACT_ALLOW");
    probe unknown_action => |b| on_mkdir(b, "SCMP_ACT_NOSUCH");
    probe unknown_call => |b| filter(b, "SCMP_ACT_ALLOW", json!([{ "names": ["nosuchcall", "mkdir"], "action": "SCMP_ACT_ERRNO" }]));
    probe default_errno_return => |b| {
        filter(b, "SCMP_ACT_ALLOW", json!([{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }]));
        b.set("/linux/seccomp/defaultErrnoRet", json!(28));
    };
    probe two_rules_for_one_call => |b| filter(b, "SCMP_ACT_ALLOW", json!([
        { "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 }, { "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 2 },
    ]));
    probe rule_equal_to_default => |b| filter(b, "SCMP_ACT_ALLOW", json!([{ "names": ["mkdir"], "action": "SCMP_ACT_ALLOW" }]));
    probe call_newer_than_the_profile => |b| denied_by_default(b, json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]), None);
    probe call_newer_than_a_profile_of_one_architecture => |b| denied_by_default(b, json!(["SCMP_ARCH_X86_64"]), None);
    probe call_newer_than_a_profile_with_an_errno => |b| denied_by_default(b, json!(["SCMP_ARCH_X86_64"]), Some(22));
    probe no_rules => |b| { filter(b, "SCMP_ACT_ALLOW", json!([])); };
    probe no_architectures => |b| { on_mkdir(b, "SCMP_ACT_ERRNO"); b.remove("/linux/seccomp/architectures"); };
    probe three_architectures => |b| {
        on_mkdir(b, "SCMP_ACT_ERRNO");
        b.set("/linux/seccomp/architectures", json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]));
    };
    probe unknown_architecture => |b| {
        on_mkdir(b, "SCMP_ACT_ERRNO");
        b.set("/linux/seccomp/architectures", json!(["SCMP_ARCH_NOSUCH"]));
    };
    probe flag_log => |b| {
        on_mkdir(b, "SCMP_ACT_ERRNO");
        b.set("/linux/seccomp/flags", json!(["SECCOMP_FILTER_FLAG_LOG"]));
    };
    probe flag_spec_allow => |b| {
        on_mkdir(b, "SCMP_ACT_ERRNO");
        b.set("/linux/seccomp/flags", json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]));
    };
    probe flag_unknown => |b| { on_mkdir(b, "SCMP_ACT_ERRNO"); b.set("/linux/seccomp/flags", json!(["NOSUCH"])); };
    probe compare_equal => |b| compare(b, "SCMP_CMP_EQ", 8, 0);
    probe compare_not_equal => |b| compare(b, "SCMP_CMP_NE", 8, 0);
    probe compare_less => |b| compare(b, "SCMP_CMP_LT", 8, 0);
    probe compare_less_or_equal => |b| compare(b, "SCMP_CMP_LE", 8, 0);
    probe compare_greater => |b| compare(b, "SCMP_CMP_GT", 0, 0);
    probe compare_greater_or_equal => |b| compare(b, "SCMP_CMP_GE", 8, 0);
    probe compare_masked => |b| compare(b, "SCMP_CMP_MASKED_EQ", 8, 8);
    probe compare_unknown => |b| compare(b, "SCMP_CMP_NOSUCH", 8, 0);
    probe compare_index_too_high => |b| {
        let arg = json!({ "index": 6, "op": "SCMP_CMP_EQ", "value": 1 });
        filter(b, "SCMP_ACT_ALLOW", json!([{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [arg] }]));
    };
    probe two_arguments_at_one_index => |b| {
        let args = json!([{ "index": 0, "op": "SCMP_CMP_EQ", "value": 8 }, { "index": 0, "op": "SCMP_CMP_EQ", "value": 0 }]);
        filter(b, "SCMP_ACT_ALLOW", json!([{ "names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": args }]));
        b.shell_payload("exec 2>&1; linux32 true; echo 32: $?; linux64 true; echo 64: $?");
    };
    probe without_no_new_privileges => |b| {
        on_mkdir(b, "SCMP_ACT_ERRNO");
        b.set("/process/noNewPrivileges", json!(false));
    };
    probe without_no_new_privileges_as_user => |b| {
        on_mkdir(b, "SCMP_ACT_ERRNO");
        b.set("/process/noNewPrivileges", json!(false)).set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    };
    probe status_fields => |b| {
        b.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }] }));
    };
}
