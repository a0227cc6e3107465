//! Images that are made to mislead: links and files in the places where a runtime puts or looks for something.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::json;

use crate::support::runtime::next_number;
use crate::support::terminal::{FdSocket, Terminal};
use crate::support::{Bundle, Container, own_engine};

/// A bundle whose image has `dev` as it likes: nothing is mounted there.
fn with_own_dev(script: &str) -> Bundle {
    let mut bundle = Bundle::shell(script);
    bundle.unmount("/dev").unmount("/dev/pts").unmount("/dev/shm").unmount("/dev/mqueue");
    bundle.set("/root/readonly", json!(false));
    bundle
}

/// CVE-2019-16884, CVE-2023-28642: something in the place of /proc, or in it, by its name or by a link to it, would keep
/// the masks and the security modules' files out of the way.
#[test]
fn nothing_stands_in_for_proc() {
    let runtime = own_engine!();
    for destination in
        ["/proc", "/proc/self", "/proc/self/attr", "/proc/sys", "/proc/kcore", "/alias", "/alias/self", "/up"]
    {
        for source in ["tmpfs", "bind"] {
            let mut bundle = Bundle::shell("true");
            bundle.make_dir("fake");
            bundle.make_link("rootfs/alias", "/proc");
            bundle.make_link("rootfs/up", "../../../../proc/sys");
            match source {
                "bind" => bundle.bind("fake", destination, &["bind"]),
                _ => bundle.mount(destination, "tmpfs", "tmpfs", &[]),
            };
            let container = Container::new(&runtime, &bundle);
            let output = container.run(&[]);
            assert_eq!(output.code, 1, "{source} at {destination}: {}", output.stderr);
        }
    }
}

/// CVE-2019-19921, CVE-2025-54867: /proc and /sys that are links, to a directory of the image or out of it.
#[test]
fn proc_and_sys_are_directories() {
    let runtime = own_engine!();
    for name in ["proc", "sys"] {
        for target in ["/tmp", "tmp", "../../..", "/proc/self/root", "/nonexistent"] {
            let bundle = Bundle::shell("true");
            fs::remove_dir(bundle.rootfs().join(name)).expect("remove a directory of the image");
            symlink(target, bundle.rootfs().join(name)).expect("make a link");
            Container::new(&runtime, &bundle).run(&[]).fails(1, "must be mounted on ordinary directory");
        }
    }
}

/// CVE-2019-18837: the last name of a destination is a link to something of the host, or to where something could be made
/// there. It leads to the same path inside the root.
#[test]
fn a_destination_that_is_a_link_stays_in_the_root() {
    let runtime = own_engine!();
    let device = json!([{ "path": "/link", "type": "c", "major": 1, "minor": 3, "fileMode": 438 }]);
    for (kind, name) in
        [("file", "a-file"), ("directory", "a-directory"), ("tmpfs", "a-directory"), ("device", "a-file")]
    {
        for (name, up) in [(name, 0), (name, 20), ("new", 0), ("new", 20)] {
            let mut bundle = Bundle::shell("cat /proc/self/mountinfo; cat /link; true");
            bundle.make_file("file", "of the volume");
            bundle.make_dir("directory");
            bundle.make_file("victim/a-file", "of the host");
            bundle.make_dir("victim/a-directory");
            let target = bundle.host("victim").join(name).display().to_string();
            bundle.make_link("rootfs/link", &format!("{}{target}", "../".repeat(up)));
            bundle.set("/root/readonly", json!(false));
            match kind {
                "device" => bundle.set("/linux/devices", device.clone()),
                "tmpfs" => bundle.mount("/link", "tmpfs", "tmpfs", &[]),
                _ => bundle.bind(kind, "/link", &["bind"]),
            };
            let container = Container::new(&runtime, &bundle);
            let output = container.run(&[]).ok();
            let (seen, what) = (output.stdout, format!("{kind} at {target}, {up} up"));
            // A device is not made where there is something already.
            assert_eq!(seen.contains(&format!(" {target} ")), kind != "device", "{what}: {seen}");
            assert_eq!(seen.ends_with("of the volume"), kind == "file", "{what}: {seen}");
            assert!(!seen.contains("of the host"), "{what}: {seen}");
            let text = fs::read_to_string(bundle.host("victim/a-file")).expect("a file of the host");
            assert_eq!(text, "of the host", "{what}");
            assert_eq!(
                fs::read_dir(bundle.host("victim")).expect("the victim").count(),
                2,
                "{what} was made on the host"
            );
        }
    }
}

/// CVE-2026-41579, CVE-2026-47766: a /dev that leads out of the container's root, where nodes and links are made.
#[test]
fn dev_does_not_lead_out() {
    let runtime = own_engine!();
    for absolute in [true, false] {
        let bundle = with_own_dev("true");
        let victim = bundle.make_dir("victim");
        bundle.make_file("victim/ptmx", "of the host");
        fs::remove_dir(bundle.host("rootfs/dev")).expect("remove /dev");
        let up = if absolute { String::new() } else { "../".repeat(20) };
        bundle.make_link("rootfs/dev", &format!("{up}{}", victim.display()));
        let _ = Container::new(&runtime, &bundle).run(&[]);
        assert_eq!(fs::read_to_string(victim.join("ptmx")).expect("the victim"), "of the host");
        assert_eq!(fs::read_dir(&victim).expect("the victim").count(), 1, "something was made on the host");
    }
}

/// CVE-2025-31133, CVE-2025-62161: the image's /dev/null is no null device, and a mask made of it would show what it is.
#[test]
fn masks_are_not_made_of_what_the_image_has() {
    let runtime = own_engine!();
    for kind in ["link", "file", "zero"] {
        let mut bundle = with_own_dev("cat /masked");
        bundle.make_file("rootfs/masked", "what is masked");
        bundle.set("/linux/maskedPaths", json!(["/masked"]));
        let null = bundle.host("rootfs/dev/null");
        match kind {
            "link" => bundle.make_link("rootfs/dev/null", "/proc/sys/kernel/core_pattern"),
            "file" => drop(bundle.make_file("rootfs/dev/null", "of the image")),
            _ => mknodat(CWD, &null, FileType::CharacterDevice, Mode::from(0o666), makedev(1, 5)).expect("mknod"),
        }
        let container = Container::new(&runtime, &bundle);
        container.run(&[]).fails(1, "is not the null device");
        assert!(!container.stdout().contains("what is masked"));
    }
}

/// Where the image's /dev leads elsewhere in the image, its null device is one all the same.
#[test]
fn masks_are_made_where_dev_is_a_link() {
    let runtime = own_engine!();
    for target in ["devices", "/devices"] {
        let mut bundle = with_own_dev("cat /masked; ls -l /masked | cut -c1");
        bundle.make_file("rootfs/masked", "what is masked");
        bundle.set("/linux/maskedPaths", json!(["/masked"]));
        fs::remove_dir_all(bundle.host("rootfs/dev")).expect("remove /dev");
        bundle.make_dir("rootfs/devices");
        bundle.make_link("rootfs/dev", target);
        let container = Container::new(&runtime, &bundle);
        container.run(&[]).ok();
        assert_eq!(container.stdout(), "c\n");
    }
}

/// CVE-2025-52565, CVE-2026-88264: the image's /dev/console and the terminal's multiplexer lead elsewhere.
#[test]
fn the_terminal_is_not_bound_elsewhere() {
    let runtime = own_engine!();
    let victim = format!("/tmp/rtx-victim-{}-{}", std::process::id(), next_number());
    for target in ["/proc/sys/kernel/core_pattern", "../../../../../../proc/sysrq-trigger", victim.as_str()] {
        let mut bundle = with_own_dev("cat /proc/self/mountinfo; echo over");
        bundle.set("/process/terminal", json!(true));
        bundle.mount("/dev/pts", "devpts", "devpts", &["newinstance", "ptmxmode=0666", "mode=0620"]);
        bundle.make_dir("rootfs/dev/pts");
        bundle.make_link("rootfs/dev/console", target);
        let container = Container::new(&runtime, &bundle);
        let socket = FdSocket::listen(runtime.scratch(), &format!("{}.sock", container.id));
        let output = container.create_with(&["--console-socket", &socket.path()]);
        if output.code == 0 {
            let (master, _) = socket.receive().expect("the terminal");
            let terminal = Terminal::of(master);
            container.start().ok();
            terminal.wait_for("over");
            // A terminal over a file of /proc takes it away from the container and gives it nothing.
            let seen = terminal.text();
            assert!(!seen.lines().any(|line| line.contains(" /dev/console ") && line.contains(" - proc ")), "{seen}");
        }
        assert!(!fs::exists(&victim).expect("look for the victim"), "made on the host by way of {target}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        assert!(!mounts.contains(&container.id));
    }
}

/// CVE-2026-88265: the standard streams are opened again as the container's /dev/null and given to its user; by way of a
/// link they would be a file of the host.
#[test]
fn streams_do_not_become_what_dev_null_leads_to() {
    let runtime = own_engine!();
    let mut bundle = with_own_dev("echo stolen >&0; ls -l /proc/self/fd/0; true");
    let victim = bundle.make_file("shared/victim", "of the host");
    bundle.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    bundle.bind("shared", "/shared", &["bind"]).remove("/linux/maskedPaths");
    bundle.make_link("rootfs/dev/null", "/shared/victim");
    let container = Container::new(&runtime, &bundle);
    let _ = container.run(&[]);
    assert!(!container.stdout().contains("/shared/victim"), "{}", container.stdout());
    assert_eq!(fs::read_to_string(&victim).expect("the victim"), "of the host");
    assert_eq!(fs::metadata(&victim).expect("the victim").uid(), 0);
}

/// A passwd file that would be waited for, or that has no end.
#[test]
fn the_passwd_file_of_an_image_costs_nothing() {
    let runtime = own_engine!();
    let node = |bundle: &Bundle, kind, device| {
        let passwd = bundle.host("rootfs/etc/passwd");
        fs::remove_file(&passwd).expect("remove the passwd file");
        mknodat(CWD, passwd, kind, Mode::from(0o666), device).expect("mknod");
    };
    let mut bundles: Vec<Bundle> = (0..4).map(|_| Bundle::shell("echo $HOME")).collect();
    node(&bundles[0], FileType::Fifo, 0);
    node(&bundles[1], FileType::CharacterDevice, makedev(1, 5));
    let file =
        fs::File::options().write(true).open(bundles[2].host("rootfs/etc/passwd")).expect("open the passwd file");
    file.set_len(1 << 40).expect("make a long file");
    fs::remove_file(bundles[3].host("rootfs/etc/passwd")).expect("remove the passwd file");
    bundles[3].make_link("rootfs/etc/passwd", "/proc/kmsg");
    for bundle in &mut bundles {
        bundle.set("/process/user", json!({ "uid": 12345, "gid": 0 }));
        let output = Container::new(&runtime, bundle).run(&[]).ok();
        assert_eq!(output.stdout, "/\n");
    }
}
