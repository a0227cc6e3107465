//! Pods: containers that share namespaces, with an infra container that holds them and without.

use super::{Host, IMAGE, Named, PATIENCE, podman};
use crate::support::children::poll_until;
use crate::support::runtime::next_number;

/// A pod that is removed, with its containers, at the end of a test.
struct Pod {
    host: &'static Host,
    name: String,
}

impl Pod {
    fn new(host: &'static Host, flags: &[&str]) -> Pod {
        let pod = Pod { host, name: format!("pod-{}-{}", std::process::id(), next_number()) };
        let parent = host.cgroup_parent();
        host.podman(&[&["pod", "create", &*parent, "--name", &*pod.name], flags].concat()).ok();
        pod
    }

    /// A container in the pod, running.
    fn member(&self, flags: &[&str]) -> Named {
        let container = Named::new(self.host);
        let fixed = ["run", "--detach", "--name", &container.name, "--pod", &self.name];
        self.host.podman(&[&fixed, flags, &[IMAGE, "sleep", "600"]].concat()).ok();
        container
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.host.podman(&["pod", "rm", "--force", "--time", "0", &self.name]);
    }
}

fn namespace(container: &Named, name: &str) -> String {
    container.podman(&["exec"], &["readlink", &format!("/proc/self/ns/{name}")]).ok().stdout
}

#[test]
fn two_containers_share_the_infra_containers_namespaces() {
    let host = podman!();
    let flags =
        ["--network", "none", "--infra-image", IMAGE, "--infra-command", "sleep 600", "--share", "net,ipc,uts,pid"];
    let pod = Pod::new(host, &flags);
    let (first, second) = (pod.member(&[]), pod.member(&[]));
    for name in ["net", "ipc", "uts", "pid"] {
        assert_eq!(namespace(&first, name), namespace(&second, name), "{name}");
    }
    assert_ne!(namespace(&first, "mnt"), namespace(&second, "mnt"));
    let seen = first.podman(&["exec"], &["ps", "-o", "args"]).ok().stdout;
    assert_eq!(seen.matches("sleep 600").count(), 3, "{seen}");
    host.podman(&["pod", "stop", "--time", "0", &pod.name]).ok();
    // podman's own clean-up, by conmon, comes between "stopped" and "exited".
    let exited = || (first.inspect(".State.Status") == "exited").then_some(());
    assert!(poll_until(PATIENCE, exited).is_some(), "{}", first.inspect(".State.Status"));
    host.podman(&["pod", "start", &pod.name]).ok();
    assert_eq!(namespace(&first, "pid"), namespace(&second, "pid"));
}

#[test]
fn two_containers_without_an_infra_container() {
    let host = podman!();
    let pod = Pod::new(host, &["--infra=false"]);
    let parent = host.cgroup_parent();
    let flags = ["--network", "none", &*parent];
    let (first, second) = (pod.member(&flags), pod.member(&flags));
    assert_ne!(namespace(&first, "pid"), namespace(&second, "pid"));
    host.podman(&["pod", "pause", &pod.name]).ok();
    assert_eq!(second.inspect(".State.Status"), "paused");
    host.podman(&["pod", "unpause", &pod.name]).ok();
    host.podman(&["pod", "kill", &pod.name]).ok();
}
