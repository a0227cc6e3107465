//! The process: arguments, environment, directory, user, limits and attributes.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::cases;
use crate::support::Bundle;

fn user(b: &mut Bundle, user: serde_json::Value) {
    b.set("/process/user", user);
}

fn env(b: &mut Bundle, variables: &[&str]) {
    b.set("/process/env", json!(variables));
}

fn rlimit(b: &mut Bundle, name: &str, soft: u64, hard: u64) {
    b.set("/process/rlimits", json!([{ "type": name, "soft": soft, "hard": hard }]));
}

/// Says in the shell's words what the signal state, niceness and terminal are without Rust's own start-up in between.
/// Without SigQ, which counts the signals of all processes of the user.
const SIGNALS: &str = "sed -nE 's/^(Sig[^Q].*|Shd.*):.*(.{8})$/\\1 \\2/p' /proc/self/status";

cases! {
    "process";
    probe arguments_with_odd_characters => |b| {
        b.probe(&["", " ", "a\nb", "ä\u{1F600}", "\"quoted\"", "$HOME", "*"]);
    };
    probe program_in_path => |b| { b.args(&["probe"]); };
    probe program_in_second_directory_of_path => |b| { b.args(&["probe"]); env(b, &["PATH=/nope:/usr/bin:/bin"]); };
    probe program_relative_to_cwd => |b| { b.args(&["./probe"]).set("/process/cwd", json!("/bin")); };
    probe program_in_relative_path => |b| {
        b.args(&["probe"]).set("/process/cwd", json!("/"));
        env(b, &["PATH=bin"]);
    };
    probe program_without_path => |b| { b.args(&["probe"]); env(b, &["A=b"]); };
    probe program_is_script => |b| {
        let script = b.make_file("rootfs/usr/bin/script", "#!/bin/sh\necho \"$0\" \"$@\"\n");
        fs::set_permissions(script, fs::Permissions::from_mode(0o755)).expect("chmod a script");
        b.args(&["script", "one", "two words"]);
    };
    probe script_without_interpreter_line => |b| {
        let script = b.make_file("rootfs/usr/bin/script", "echo hello\n");
        fs::set_permissions(script, fs::Permissions::from_mode(0o755)).expect("chmod a script");
        b.args(&["/usr/bin/script"]);
    };
    probe script_with_missing_interpreter => |b| {
        let script = b.make_file("rootfs/usr/bin/script", "#!/nope\n");
        fs::set_permissions(script, fs::Permissions::from_mode(0o755)).expect("chmod a script");
        b.args(&["/usr/bin/script"]);
    };
    probe missing_program => |b| { b.args(&["/nope"]); };
    probe missing_program_in_path => |b| { b.args(&["nope"]); };
    probe program_is_directory => |b| { b.args(&["/etc"]); };
    probe program_not_executable => |b| { b.args(&["/etc/passwd"]); };
    probe program_through_link => |b| {
        b.make_link("rootfs/usr/bin/linked", "/bin/probe");
        b.args(&["/usr/bin/linked"]);
    };
    probe env_empty => |b| env(b, &[]);
    probe env_absent => |b| { b.remove("/process/env"); };
    probe env_duplicates => |b| env(b, &["A=1", "PATH=/bin", "A=2", "B=", "A=3"]);
    probe env_with_odd_characters => |b| env(b, &["A=a b\"c'\nd", "Ä=ö", "PATH=/bin", "E==x="]);
    probe env_without_equals_sign => |b| env(b, &["PATH=/bin", "NOEQUALS"]);
    probe env_home_given => |b| env(b, &["PATH=/bin", "HOME=/given"]);
    probe env_home_empty => |b| env(b, &["PATH=/bin", "HOME="]);
    probe env_of_listening => |b| env(b, &["PATH=/bin", "LISTEN_FDS=3", "LISTEN_PID=1", "NOTIFY_SOCKET=/x"]);
    probe cwd => |b| { b.set("/process/cwd", json!("/home")); };
    probe cwd_missing => |b| { b.set("/process/cwd", json!("/made/by/runtime")).set("/root/readonly", json!(false)); };
    probe cwd_missing_read_only => |b| { b.set("/process/cwd", json!("/made/by/runtime")); };
    probe cwd_is_file => |b| { b.set("/process/cwd", json!("/etc/passwd")); };
    probe cwd_is_link => |b| { b.make_link("rootfs/link", "/home"); b.set("/process/cwd", json!("/link")); };
    probe cwd_not_for_user => |b| {
        b.make_dir("rootfs/closed");
        fs::set_permissions(b.host("rootfs/closed"), fs::Permissions::from_mode(0o700)).expect("chmod a directory");
        user(b, json!({ "uid": 1000, "gid": 1000 }));
        b.set("/process/cwd", json!("/closed"));
    };
    probe cwd_relative => |b| { b.set("/process/cwd", json!("home")); };
    probe cwd_empty => |b| { b.set("/process/cwd", json!("")); };
    probe user_known => |b| user(b, json!({ "uid": 1000, "gid": 1000 }));
    probe user_unknown => |b| user(b, json!({ "uid": 4711, "gid": 4712 }));
    probe user_only_group => |b| user(b, json!({ "uid": 0, "gid": 1000 }));
    probe user_groups => |b| user(b, json!({ "uid": 1000, "gid": 1000, "additionalGids": [5, 1001, 77777] }));
    probe user_groups_of_root => |b| user(b, json!({ "uid": 0, "gid": 0, "additionalGids": [5, 0, 5] }));
    probe user_largest => |b| user(b, json!({ "uid": 4_294_967_294_u32, "gid": 4_294_967_294_u32 }));
    probe umask => |b| user(b, json!({ "uid": 0, "gid": 0, "umask": 0o077 }));
    probe umask_zero => |b| user(b, json!({ "uid": 0, "gid": 0, "umask": 0 }));
    probe umask_and_files => |b| {
        b.shell_payload("umask; : > /tmp/file; mkdir /tmp/dir; ls -ln /tmp | awk '{print $1,$3,$4,$9}'").set("/root/readonly", json!(false));
        user(b, json!({ "uid": 1000, "gid": 1001, "umask": 0o027 }));
    };
    probe rlimits_absent => |b| { b.remove("/process/rlimits"); };
    probe rlimits_many => |b| {
        let limit = |name: &str, n: u64| json!({ "type": name, "soft": n, "hard": n });
        let all = ["RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_STACK", "RLIMIT_RSS"].map(|name| limit(name, 1 << 33));
        let few = ["RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_LOCKS", "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_SIGPENDING"].map(|name| limit(name, 500));
        b.set("/process/rlimits", json!([all.as_slice(), few.as_slice()].concat()));
    };
    probe rlimit_nice_and_priority => |b| { b.set("/process/rlimits", json!([
        { "type": "RLIMIT_NICE", "soft": 0, "hard": 0 }, { "type": "RLIMIT_RTPRIO", "soft": 0, "hard": 0 },
        { "type": "RLIMIT_RTTIME", "soft": 1_000_000, "hard": 2_000_000 }, { "type": "RLIMIT_MSGQUEUE", "soft": 1000, "hard": 2000 },
        { "type": "RLIMIT_MEMLOCK", "soft": 4096, "hard": 8192 },
    ])); };
    probe rlimit_unlimited => |b| rlimit(b, "RLIMIT_CPU", u64::MAX, u64::MAX);
    probe rlimit_soft_below_hard => |b| rlimit(b, "RLIMIT_NOFILE", 100, 200);
    probe rlimit_soft_above_hard => |b| rlimit(b, "RLIMIT_NOFILE", 200, 100);
    probe rlimit_raised => |b| rlimit(b, "RLIMIT_NOFILE", 10_000_000, 10_000_000);
    probe rlimit_unknown => |b| rlimit(b, "RLIMIT_NOSUCH", 1, 1);
    probe rlimit_twice => |b| { b.set("/process/rlimits", json!([
        { "type": "RLIMIT_NOFILE", "soft": 100, "hard": 100 }, { "type": "RLIMIT_NOFILE", "soft": 50, "hard": 50 },
    ])); };
    probe oom_score_zero => |b| { b.set("/process/oomScoreAdj", json!(0)); };
    probe oom_score_raised => |b| { b.set("/process/oomScoreAdj", json!(500)); };
    probe oom_score_too_high => |b| { b.set("/process/oomScoreAdj", json!(1001)); };
    probe no_new_privileges_false => |b| { b.set("/process/noNewPrivileges", json!(false)); };
    probe personality_linux32 => |b| {
        b.set("/linux/personality", json!({ "domain": "LINUX32" })).shell_payload("uname -m; cat /proc/self/personality");
    };
    probe personality_linux => |b| { b.set("/linux/personality", json!({ "domain": "LINUX" })); };
    probe sysctls => |b| {
        b.set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1", "kernel.shmmax": "65536", "fs.mqueue.msg_max": "5", "net/ipv4/tcp_ecn": "1" }));
        b.probe(&["--read", "/proc/sys/net/ipv4/ip_forward", "--read", "/proc/sys/kernel/shmmax", "--read", "/proc/sys/fs/mqueue/msg_max"]);
    };
    probe sysctl_hostname => |b| { b.set("/linux/sysctl", json!({ "kernel.hostname": "other" })); };
    probe sysctl_domainname => |b| { b.set("/linux/sysctl", json!({ "kernel.domainname": "example" })); };
    probe sysctl_of_host => |b| { b.set("/linux/sysctl", json!({ "kernel.panic": "1" })); };
    probe sysctl_without_network_namespace => |b| {
        b.without_namespace("network").set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }));
    };
    probe sysctl_of_hosts_network_namespace_by_path => |b| {
        b.namespace("network", "/proc/1/ns/net").set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }));
    };
    probe sysctl_unknown => |b| { b.set("/linux/sysctl", json!({ "net.nosuch": "1" })); };
    probe signal_state => |b| { b.shell_payload(SIGNALS); };
    probe session_keyring => |b| { b.remove("/linux/maskedPaths"); };
    probe annotations => |b| { b.set("/annotations", json!({ "org.example.one": "1", "two": "" })); };
    probe standard_streams => |b| {
        b.shell_payload("ls -ln /proc/self/fd | awk '{print $1, $3, $4, $9}'; cat; echo done >&2");
    };
    probe proc_self_exe => |b| { b.args(&["/bin/busybox", "readlink", "/proc/self/exe"]); };
}
