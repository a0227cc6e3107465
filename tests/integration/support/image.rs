//! The image that callers pull: busybox and two users.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::payload;

/// Makes `dir/image`, an OCI layout with the tag 1, and leaves its root file system in `dir/unpacked/rootfs`.
pub fn build(dir: &Path) {
    let (layout, bundle) = (dir.join("image").display().to_string(), dir.join("unpacked"));
    let (image, unpacked) = (format!("{layout}:1"), bundle.display().to_string());
    umoci(&["init", "--layout", &layout]);
    umoci(&["new", "--image", &image]);
    umoci(&["unpack", "--image", &image, &unpacked]);
    fill(&bundle.join("rootfs"));
    umoci(&["repack", "--image", &image, &unpacked]);
    umoci(&["config", "--image", &image, "--config.cmd", "sh", "--config.env", "PATH=/bin"]);
    let status = Command::new("chmod").args(["-R", "a+rX", &layout]).status();
    assert!(status.expect("run chmod").success());
}

fn umoci(args: &[&str]) {
    let output = Command::new("umoci").args(args).output().expect("run umoci");
    assert!(output.status.success(), "umoci {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn fill(rootfs: &Path) {
    for name in ["bin", "etc", "tmp", "data"] {
        fs::create_dir_all(rootfs.join(name)).expect("make the image's directories");
    }
    fs::copy(payload::busybox(), rootfs.join("bin/busybox")).expect("copy busybox into the image");
    for applet in payload::applets().iter().filter(|applet| *applet != "busybox") {
        symlink("busybox", rootfs.join("bin").join(applet)).expect("link an applet");
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nplain:x:1000:1000:Plain:/:/bin/sh\n";
    fs::write(rootfs.join("etc/passwd"), passwd).expect("write /etc/passwd");
    fs::write(rootfs.join("etc/group"), "root:x:0:\nplain:x:1000:\n").expect("write /etc/group");
}
