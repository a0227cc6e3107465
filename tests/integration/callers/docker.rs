//! Docker Engine with rtx by `--add-runtime` and as the default runtime, over the containerd of its package.

use std::sync::OnceLock;

use super::{Caller, Site, sites};

const FUNCTIONS: &str = r#"
docker() { timeout $LIMIT /usr/bin/docker -H unix://$D/d.sock "$@"; }
# The control gives up where a machine is too busy to freeze what never sleeps.
pause() { docker pause $1 > /dev/null || { [ ${RT##*/} = runc ] && await "docker pause $1 > /dev/null 2>&1"; }; }
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

pub(super) static DOCKER: Caller = docker("docker");
/// Whose daemon may be killed without disturbing another test.
static RESTARTED: Caller = docker("docker-restart");

/// Nothing of the containers whose names begin so is left.
#[track_caller]
pub(super) fn remove(site: &Site, names: &str) {
    let output = site.sh(&format!(
        "ids=$(docker ps --all --no-trunc --quiet --filter name=^/{names})
         [ -z \"$ids\" ] || docker rm --force --volumes $ids > /dev/null
         for id in $ids; do
             await \"[ -z \\\"\\$(find /sys/fs/cgroup $D/exec -name $id -type d 2> /dev/null)\\\" ]\"
             await \"! pgrep -a -f -- '[-]id $id ' > /dev/null\"
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
        site.sh("docker run --name codes7 bb:1 /etc").fails(126, "permission denied");
        site.sh("docker run --name codes4 --sysctl kernel.shm_rmid_forced=x bb:1 true").fails(125, "invalid argument");
        site.sh("docker run --name codes5 --user nobody bb:1 true").fails(125, "unable to find user nobody");
        assert_eq!(site.sh("docker run --name codes6 --init bb:1 sh -c 'kill -9 $$'").code, 137);
        remove(site, "codes");
    }
}

/// Files that may be executed and cannot be: rtx's `start` says so, under runc the container does, which ends with 1.
#[test]
fn what_cannot_be_executed() {
    for site in sites!(DOCKER) {
        let output = site.sh("printf '#!/nope\n' > $D/script; printf junk > $D/junk; chmod +x $D/script $D/junk
             for i in $(seq 6); do docker run --network none --name inert$i -v $D/script:/script bb:1 /script 2> $D/inert; echo $? $(grep -c 'no such file or directory' $D/inert); done
             docker run --network none --name inert7 -v $D/junk:/junk bb:1 /junk 2> $D/inert; echo $? $(grep -c 'exec format error' $D/inert)");
        let (missing, format) = if site.runtime == "rtx" { ("127 1\n", "125 1\n") } else { ("1 1\n", "1 1\n") };
        assert_eq!(output.stdout, missing.repeat(6) + format, "{output:?}");
        remove(site, "inert");
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
            .sh("docker stop -t 100 life; get life ExitCode; docker restart life; docker kill life; docker wait life")
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

#[test]
fn events() {
    for site in sites!(DOCKER) {
        let output = site.sh("since=$(date +%s)
             docker run -d --name seen -m 32m bb:1 sleep 600 > /dev/null
             docker exec seen true; docker pause seen > /dev/null; docker unpause seen > /dev/null
             docker update --cpus 0.5 seen > /dev/null; docker kill seen > /dev/null; docker wait seen > /dev/null
             docker run --name seenoom -m 16m bb:1 sh -c 'x=xxxxxxxx; while :; do x=$x$x; done'
             for name in seen seenoom; do
                 await \"docker events --since $since --until \\$(date +%s) --filter container=$name --format '{{.Action}}' | grep -q die\"
                 docker events --since $since --until $(($(date +%s) + 1)) --filter container=$name --format '{{.Action}}' | sed 's/:.*//' | tr '\\n' ' '
             done");
        for word in
            ["create ", "start ", "exec_create", "exec_start", "pause ", "unpause ", "update ", "kill ", "die ", "oom "]
        {
            assert!(output.stdout.contains(word), "no {word}: {output:?}");
        }
        remove(site, "seen");
    }
}

/// `always` comes back after the daemon has been restarted, `unless-stopped` only if nobody has stopped it.
#[test]
fn restart_policies() {
    for site in sites!(RESTARTED) {
        site.sh("docker run -d --name polalways --restart always bb:1 sh -c 'echo x; sleep 0.5; exit 1'").ok();
        site.sh("await '[ $(docker logs polalways | wc -l) -ge 3 ]' && docker stop polalways").ok();
        assert_eq!(site.sh("sleep 1; get polalways Status").stdout, "exited\n");
        site.sh("docker run -d --name polunless --restart unless-stopped bb:1 sleep 600 && docker stop -t 0 polunless")
            .ok();
        site.sh("docker run -d --name polkilled --restart on-failure bb:1 sleep 600").ok();
        site.sh("before=$(get polkilled Pid); kill -9 $before; await '[ $(get polkilled Pid) -gt 0 ] && [ $(get polkilled Pid) != '$before' ]'").ok();
        site.sh("docker update --restart no polkilled").ok();
        site.sh("kill -9 $(get polkilled Pid); await '[ $(get polkilled Status) = exited ]'").ok();
        assert_eq!(site.sh("get polkilled ExitCode; get polunless Status").stdout, "137\nexited\n");
        remove(site, "pol");
    }
}

/// As compose makes it: a network and a volume of the project, services that find one another by name and by alias, a
/// service that waits for another's health, published ports, and the end of all of it.
#[test]
fn a_project() {
    for site in sites!(DOCKER) {
        let output = site.sh(
            "docker network create --subnet 10.88.7.0/24 front > /dev/null; docker network create --internal back > /dev/null
             docker volume create shared > /dev/null
             docker create --name projdb --network back --network-alias db -v shared:/data --health-cmd 'test -e /data/ready' \
                 --health-interval 300ms bb:1 sh -c 'touch /data/ready; while :; do echo stored | nc -l -p 5432; done' > /dev/null
             docker start projdb > /dev/null && await '[ $(get projdb Health.Status) = healthy ]'
             docker create --name projweb --network front --ip 10.88.7.7 -p 10.99.0.1:8080:80 -v shared:/data:ro bb:1 \
                 sh -c 'while :; do nc db 5432 < /dev/null | nc -l -p 80; done' > /dev/null
             docker network connect back projweb; docker start projweb > /dev/null
             await '[ \"$(docker run --rm --network front bb:1 nc projweb 80 < /dev/null)\" = stored ]' && echo by name
             await '[ \"$(busybox nc 10.88.7.7 80 < /dev/null)\" = stored ]' && echo by address
             await '[ \"$(busybox nc 10.99.0.1 8080 < /dev/null)\" = stored ]' && echo by port
             docker exec projweb test -e /data/ready && echo shared
             docker exec projweb sh -c 'ls /sys/class/net | grep -c eth'
             docker run --rm --network none bb:1 ls /sys/class/net
             docker inspect --format '{{range $p, $c := .NetworkSettings.Ports}}{{$p}} {{(index $c 0).HostPort}}{{end}}' projweb",
        );
        assert_eq!(output.stdout, "by name\nby address\nby port\nshared\n2\nlo\n80/tcp 8080\n", "{output:?}");
        remove(site, "proj");
        site.sh("docker network rm front back && docker volume rm shared").ok();
    }
}

#[test]
fn stats_update_and_pause() {
    for site in sites!(DOCKER) {
        site.sh("docker run -d --name figures -m 64m --cpus 1 bb:1 sh -c 'while :; do :; done'").ok();
        let stats = "docker stats --no-stream --format '{{.CPUPerc}} {{.MemUsage}} {{.PIDs}}' figures";
        // A daemon that is busy has no figures at first.
        let output = site.sh(&format!(
            "await '{} | tee $D/figures | grep -q \" / 64MiB 1$\"'; cat $D/figures",
            stats.replace('\'', "\"")
        ));
        assert!(output.stdout.ends_with("/ 64MiB 1\n"), "{output:?}");
        site.sh("docker update --cpus 0.2 --memory 48m --memory-swap 96m --pids-limit 20 --cpu-shares 512 --cpuset-cpus 0 figures").ok();
        let output = site
            .sh("docker exec figures sh -c 'cd /sys/fs/cgroup; cat cpu/cpu.cfs_quota_us memory/memory.limit_in_bytes \
             memory/memory.memsw.limit_in_bytes pids/pids.max cpu/cpu.shares cpuset/cpuset.cpus'");
        assert_eq!(output.stdout, "20000\n50331648\n100663296\n20\n512\n0\n", "{output:?}");
        site.sh("docker update --memory 1m figures").fails(1, "");
        let used = "awk '{ print $14 + $15 }' /proc/$(get figures Pid)/stat";
        let output = site.sh(&format!("pause figures; a=$({used}); sleep 0.5; [ $a = $({used}) ] && echo still"));
        assert_eq!(output.stdout, "still\n", "{output:?}");
        site.sh("docker stop -t 1 figures").ok();
        assert_eq!(site.sh("get figures Status").stdout, "exited\n");
        remove(site, "figures");
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
        let failing = "mkdir -p $D/failing; printf 'FROM bb:1\\nRUN exit 9\\n' > $D/failing/Dockerfile; DOCKER_BUILDKIT=0 docker build --force-rm $D/failing";
        site.sh(failing).fails(9, "returned a non-zero code: 9");
    }
}

/// live-restore: containers outlive their daemon, which finds them again.
#[test]
fn daemon_killed_and_restarted() {
    for site in sites!(RESTARTED) {
        site.sh("docker run -d --name stays bb:1 sh -c 'trap \"exit 8\" TERM; echo up; while :; do sleep 0.1; done' && await 'docker logs stays | grep -q up'").ok();
        site.sh("docker run -d --name ends bb:1 sh -c 'sleep 2; exit 7'").ok();
        site.sh("kill -9 $(cat $D/d.pid); sleep 3; rm -f $D/d.pid; daemon").ok();
        let output = site.sh("docker exec stays echo alive; await '[ $(get ends Status) = exited ]'; get ends ExitCode; docker stop -t 100 stays; get stays ExitCode");
        assert_eq!(output.stdout, "alive\n7\nstays\n8\n", "{output:?}");
        remove(site, "stays");
        remove(site, "ends");
    }
}
