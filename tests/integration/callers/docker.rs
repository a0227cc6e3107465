//! Docker Engine with rtx by `--add-runtime` and as the default runtime, over the containerd of its package.

use std::sync::OnceLock;

use super::{Caller, Site, sites};

const FUNCTIONS: &str = r#"
docker() { timeout 100 /usr/bin/docker -H unix://$D/d.sock "$@"; }
get() { docker inspect --format "{{.State.$2}}" $1; }
daemon() {
    setsid dockerd -H unix://$D/d.sock --containerd $D/c.sock --data-root $D/data --exec-root $D/exec -p $D/d.pid \
        --config-file $D/daemon.json >> $D/dockerd.log 2>&1 < /dev/null &
    await 'docker version > /dev/null 2>&1'
}
"#;

const SETUP: &str = r#"
cat > $D/daemon.json << END
{
    "runtimes": { "tested": { "path": "$RT" } },
    "default-runtime": "tested",
    "exec-opts": ["native.cgroupdriver=cgroupfs"],
    "cgroup-parent": "/$Y",
    "oom-score-adjust": 0,
    "storage-driver": "overlay2",
    "bip": "10.87.5.1/24",
    "userland-proxy": false,
    "live-restore": true,
    "init-path": "/usr/bin/tini-static"
}
END
containerd_start && daemon && tar -C $D/unpacked/rootfs -cf $D/rootfs.tar . &&
docker import --change 'ENV PATH=/bin' --change 'CMD ["sh"]' $D/rootfs.tar bb:1
"#;

const fn docker(name: &'static str) -> Caller {
    Caller {
        name,
        programs: &["dockerd", "containerd", "containerd-shim-runc-v2", "iptables"],
        packages: "docker.io",
        functions: FUNCTIONS,
        setup: SETUP,
        sites: OnceLock::new(),
    }
}

static DOCKER: Caller = docker("docker");
/// Whose daemon may be killed without disturbing another test.
static RESTARTED: Caller = docker("docker-restart");

/// Nothing of the containers whose names begin so is left.
#[track_caller]
fn remove(site: &Site, names: &str) {
    let output = site.sh(&format!(
        "ids=$(docker ps --all --no-trunc --quiet --filter name=^/{names})
         [ -z \"$ids\" ] || docker rm --force --volumes $ids > /dev/null
         for id in $ids; do
             await \"[ -z \\\"\\$(find /sys/fs/cgroup $D/exec -name $id -type d)\\\" ]\"
             pgrep -a -f \"[-]id $id \"
         done; true"
    ));
    assert_eq!((&*output.stdout, &*output.stderr), ("", ""), "left behind");
}

#[test]
fn run_and_its_codes() {
    for site in sites!(DOCKER) {
        let output = site.sh("docker run --rm bb:1 sh -c 'echo out; echo err >&2; exit 3'");
        assert_eq!((output.code, &*output.stdout, &*output.stderr), (3, "out\n", "err\n"));
        assert_eq!(site.sh("echo typed | docker run --rm -i --runtime tested bb:1 cat").ok().stdout, "typed\n");
        site.sh("docker run --name codes1 bb:1 /nope")
            .fails(127, "exec: \"/nope\": stat /nope: no such file or directory");
        site.sh("docker run --name codes2 bb:1 nope").fails(127, "executable file not found in $PATH");
        site.sh("docker run --name codes3 bb:1 /etc/passwd").fails(126, "permission denied");
        site.sh("docker run --name codes4 --sysctl kernel.shm_rmid_forced=x bb:1 true").fails(125, "invalid argument");
        site.sh("docker run --name codes5 --user nobody bb:1 true").fails(125, "unable to find user nobody");
        assert_eq!(site.sh("docker run --name codes6 --init bb:1 sh -c 'kill -9 $$'").code, 137);
        remove(site, "codes");
    }
}

#[test]
fn terminals() {
    for site in sites!(DOCKER) {
        let output = site
            .sh("script -qec \"/usr/bin/docker -H unix://$D/d.sock run --rm -it bb:1 sh -c 'tty; exit 4'\" /dev/null");
        assert_eq!(output.code, 4, "{output:?}");
        assert!(output.stdout.contains("/dev/pts/0"), "{output:?}");
        site.sh("docker run -d --name tty bb:1 sleep 600").ok();
        let output = site.sh("script -qec \"/usr/bin/docker -H unix://$D/d.sock exec -it tty tty\" /dev/null");
        assert!(output.stdout.contains("/dev/pts/"), "{output:?}");
        remove(site, "tty");
    }
}

#[test]
fn options_reach_the_container() {
    for site in sites!(DOCKER) {
        let output = site.sh(
            "mkdir -p $D/bound; docker run --rm -m 64m --cpus 0.5 --pids-limit 50 --ulimit nofile=100:200 --read-only --tmpfs /fresh:size=1m \
             -u plain --cap-drop ALL --security-opt no-new-privileges -v $D/bound:/data:ro --shm-size 2m --hostname named \
             --device /dev/null:/dev/other --group-add 77 --init bb:1 sh -c '
             cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us pids/pids.max; ulimit -n; id -u; id -G; hostname
             touch /x 2> /dev/null || echo read-only; touch /data/x 2> /dev/null || echo bound read-only; touch /fresh/x && echo fresh
             grep -E \"CapBnd|NoNewPrivs|Seccomp:\" /proc/self/status; df /dev/shm | tail -1 | tr -s \" \" | cut -d\" \" -f2
             echo > /dev/other && echo device; ls /proc/acpi; cat /proc/1/comm'",
        );
        let expected = "67108864\n50000\n50\n100\n1000\n1000 77\nnamed\nread-only\nbound read-only\nfresh\nCapBnd:\t0000000000000000\n\
                        NoNewPrivs:\t1\nSeccomp:\t2\n2048\ndevice\ndocker-init\n";
        assert_eq!((output.code, &*output.stdout), (0, expected), "{output:?}");
    }
}

#[test]
fn exec_and_its_codes() {
    for site in sites!(DOCKER) {
        site.sh("docker run -d --name exec bb:1 sleep 600").ok();
        assert_eq!(site.sh("docker exec exec sh -c 'exit 5'").code, 5);
        site.sh("docker exec exec /nope").fails(126, "");
        site.sh("docker exec exec /etc/passwd").fails(126, "");
        let output = site.sh("docker exec -u plain -e A=b -w /tmp exec sh -c 'echo $(id -u) $A $(pwd)'; echo typed | docker exec -i exec cat").ok();
        assert_eq!(output.stdout, "1000 b /tmp\ntyped\n");
        site.sh("docker exec -d exec touch /tmp/done && await 'docker exec exec test -e /tmp/done'").ok();
        remove(site, "exec");
    }
}

#[test]
fn networks_by_name() {
    for site in sites!(DOCKER) {
        let output = site.sh(
            "docker network create net > /dev/null
             docker run -d --name netweb --network net bb:1 sh -c 'while :; do echo hello | nc -l -p 80; done' > /dev/null
             await '[ \"$(docker run --rm --network net bb:1 nc netweb 80 < /dev/null)\" = hello ]' && echo reached
             docker run --rm --network container:netweb --pid container:netweb bb:1 cat /proc/1/comm
             docker run --rm --network host --pid host --ipc host --uts host bb:1 echo host",
        );
        assert_eq!(output.stdout, "reached\nsh\nhost\n", "{output:?}");
        remove(site, "net");
        site.sh("docker network rm net").ok();
    }
}

#[test]
fn a_life() {
    for site in sites!(DOCKER) {
        site.sh("docker run -d --name life bb:1 sh -c 'trap \"echo heard\" USR1; trap \"exit 7\" TERM; echo up; while :; do sleep 0.1; done'").ok();
        site.sh("await 'docker logs life | grep -q up' && docker kill -s USR1 life && await 'docker logs life | grep -q heard'").ok();
        site.sh(
            "docker top life | grep -q 'echo heard' && [ $(docker stats --no-stream --format '{{.PIDs}}' life) -ge 1 ]",
        )
        .ok();
        site.sh("docker pause life && [ $(get life Status) = paused ]").ok();
        site.sh("docker exec life true").fails(1, "is paused");
        site.sh("docker unpause life && docker exec life true").ok();
        let output = site.sh(
            "docker update -m 32m --memory-swap 64m --cpus 0.7 --pids-limit 33 life > /dev/null
             docker exec life sh -c 'cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us pids/pids.max'",
        );
        assert_eq!(output.stdout, "33554432\n70000\n33\n", "{output:?}");
        let output = site
            .sh("docker stop life; get life ExitCode; docker restart life; docker kill life; docker wait life")
            .ok();
        assert_eq!(output.stdout, "life\n7\nlife\nlife\n137\n");
        let output = site
            .sh("docker run -d --name lifedeaf bb:1 sh -c 'trap \"\" TERM; while :; do sleep 1; done' > /dev/null
             docker stop -t 1 lifedeaf; get lifedeaf ExitCode");
        assert_eq!(output.stdout, "lifedeaf\n137\n");
        remove(site, "life");
    }
}

#[test]
fn restart_policy_oom_and_health() {
    for site in sites!(DOCKER) {
        site.sh("docker run -d --name again --restart on-failure:2 bb:1 sh -c 'echo x; exit 3'").ok();
        let output = site.sh("await '[ \"$(docker logs again | wc -l) $(get again Status)\" = \"3 exited\" ]'
             docker inspect --format '{{.RestartCount}} {{.State.ExitCode}}' again");
        assert_eq!(output.stdout, "2 3\n", "{output:?}");
        assert_eq!(
            site.sh("docker run --name againoom -m 16m bb:1 sh -c 'x=xxxxxxxx; while :; do x=$x$x; done'").code,
            137
        );
        assert_eq!(site.sh("get againoom OOMKilled").stdout, "true\n");
        site.sh(
            "docker run -d --name againhealth --health-cmd 'test -e /tmp/ok' --health-interval 300ms --health-retries 1 bb:1 sleep 600
             await '[ $(get againhealth Health.Status) = unhealthy ]' && docker exec againhealth touch /tmp/ok &&
             await '[ $(get againhealth Health.Status) = healthy ]'",
        )
        .ok();
        remove(site, "again");
    }
}

/// The classic builder's steps run with the default runtime; BuildKit's have a runc of their own.
#[test]
fn build() {
    for site in sites!(DOCKER) {
        let output = site.sh(r#"mkdir -p $D/context; cd $D/context; export DOCKER_BUILDKIT=0
cat > Dockerfile << 'END'
FROM bb:1
RUN id -u > /who && chmod 666 /who
USER plain
RUN id -u >> /who
ENV GREETING=hello
WORKDIR /tmp
RUN ["sh", "-c", "echo $GREETING $(pwd) >> /who"]
CMD cat /who
END
docker build --quiet --tag built . > /dev/null && docker run --rm built"#);
        assert_eq!((output.code, &*output.stdout), (0, "0\n1000\nhello /tmp\n"), "{output:?}");
        let failing = "mkdir -p $D/failing; printf 'FROM bb:1\\nRUN exit 9\\n' > $D/failing/Dockerfile; DOCKER_BUILDKIT=0 docker build $D/failing";
        site.sh(failing).fails(9, "returned a non-zero code: 9");
        site.sh("docker container prune --force").ok();
    }
}

/// live-restore: containers outlive their daemon, which finds them again.
#[test]
fn daemon_killed_and_restarted() {
    for site in sites!(RESTARTED) {
        site.sh("docker run -d --name stays bb:1 sh -c 'trap \"exit 8\" TERM; while :; do sleep 0.1; done'").ok();
        site.sh("docker run -d --name ends bb:1 sh -c 'sleep 2; exit 7'").ok();
        site.sh("kill -9 $(cat $D/d.pid); sleep 3; rm -f $D/d.pid; daemon").ok();
        let output = site.sh("docker exec stays echo alive; await '[ $(get ends Status) = exited ]'; get ends ExitCode; docker stop stays; get stays ExitCode");
        assert_eq!(output.stdout, "alive\n7\nstays\n8\n", "{output:?}");
        remove(site, "stays");
        remove(site, "ends");
    }
}
