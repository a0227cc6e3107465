//! `buildah --runtime`: a Dockerfile's RUN steps, and `buildah run`.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::{Caller, sites};

const FUNCTIONS: &str = r#"
export TMPDIR=$D
b() { timeout $LIMIT buildah --root $D/root --runroot $D/run --storage-driver vfs "$@"; }
bud() { b bud --runtime $RT --isolation oci --network none --cgroup-parent /$Y/$$ --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 "$@"; }
run() { b run --runtime $RT --isolation oci --network none "$@"; }
left() { pgrep -a -f '[b]uildah-buildah'; find /sys/fs/cgroup -path "*/$Y/*buildah*" -type d 2> /dev/null; find /run/rtx /run/runc -maxdepth 1 -name '*buildah*' 2> /dev/null; true; }
mkdir -p $D/context; cd $D/context
"#;

const SETUP: &str = r#"
id=$(b pull --quiet oci:$D/image:1 | tail -1) && b tag $id localhost/bb:1
# buildah run takes no --ulimit, and sets what root without CAP_SYS_RESOURCE cannot.
b from --name work --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 localhost/bb:1
"#;

static BUILDAH: Caller = Caller {
    name: "buildah",
    programs: &["buildah"],
    packages: "buildah",
    functions: FUNCTIONS,
    setup: SETUP,
    sites: OnceLock::new(),
};

/// The names that buildah gives to containers say nothing of who made them: what is left can be told of one test only.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn steps_users_and_mounts() {
    let _alone = alone();
    for site in sites!(BUILDAH) {
        let output = site.sh(r#"cat > Steps << 'END'
FROM localhost/bb:1
RUN id -u > /who && echo first step
USER plain
RUN echo user $(id -u) in $(pwd)
USER root
WORKDIR /data
RUN --mount=type=tmpfs,target=/fresh touch /fresh/x && grep -c " /fresh " /proc/mounts
RUN --mount=type=bind,source=.,target=/context head -1 /context/Steps
ENV GREETING=hello
RUN ["sh", "-c", "echo $GREETING from $(pwd)"]
RUN cat /who && ! ls /fresh/x
END
bud -f Steps -t built ."#);
        assert_eq!(output.code, 0, "{output:?}");
        for text in
            ["first step\n", "user 1000 in /\n", "\n1\n", "\nFROM localhost/bb:1\n", "hello from /data\n", "\n0\n"]
        {
            assert!(output.stdout.contains(text), "{text:?} is missing: {output:?}");
        }
        site.assert_gone("");
    }
}

#[test]
fn failing_steps() {
    let _alone = alone();
    for site in sites!(BUILDAH) {
        let step = |words: &str| {
            site.sh(&format!("f=$D/step-$$; printf 'FROM localhost/bb:1\\nRUN {words}\\n' > $f; bud -f $f ."))
        };
        step("exit 9").fails(9, "exit status 9");
        step("kill -TERM $$; sleep 1; exit 4").fails(4, "exit status 4");
        step("[\"/nope\"]").fails(1, "exec: ").fails(1, "/nope: no such file or directory");
        site.assert_gone("");
    }
}

#[test]
fn run_in_a_working_container() {
    let _alone = alone();
    for site in sites!(BUILDAH) {
        let output = site.sh("mkdir -p $D/bound; echo bound > $D/bound/file
            run -v $D/bound:/data:ro --user plain work -- sh -c 'id -u; cat /data/file; touch /data/x 2> /dev/null || echo read-only; exit 6'");
        assert_eq!((output.code, &*output.stdout), (6, "1000\nbound\nread-only\n"), "{output:?}");
        let output = site
            .sh("echo typed | run work -- cat; run --env A=b --workingdir /tmp work -- sh -c 'echo $A $(pwd)'")
            .ok();
        assert_eq!(output.stdout, "typed\nb /tmp\n");
        let output = site.sh("script -qec \"buildah --root $D/root --runroot $D/run --storage-driver vfs run --runtime $RT --isolation oci \
                              --network none --tty work -- tty\" /dev/null");
        assert!(output.stdout.contains("/dev/pts/0") || output.stdout.contains("/dev/console"), "{output:?}");
        site.assert_gone("");
    }
}

/// A RUN step's cgroup is the parent itself, which builds at the same time share.
#[test]
fn two_builds_with_one_parent() {
    let _alone = alone();
    for site in sites!(BUILDAH) {
        let output = site.sh(r#"
build() {
    printf 'FROM localhost/bb:1\nRUN touch /shared/%s; for i in $(seq 600); do test -e /shared/%s && exit; sleep 0.1; done; exit 1\nRUN echo built %s\n' $1 $2 $1 > $D/build-$1
    bud --cgroup-parent /$Y/one-parent -v $D/shared:/shared -f $D/build-$1 -t $1 . > $D/build-$1.out 2>&1 || cat $D/build-$1.out
}
mkdir -p $D/shared
build one other & build other one; wait
grep -h '^built' $D/build-one.out $D/build-other.out"#);
        assert_eq!(output.stdout, "built one\nbuilt other\n", "{output:?}");
        site.assert_gone("");
    }
}
