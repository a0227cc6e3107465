//! Slurm with contrib/slurm/oci.conf: a controller and two nodes on this machine.

use std::sync::OnceLock;

use super::{Caller, Site, sites};

const SETUP: &str = r#"
set -e
mkdir -p $D/conf $D/log $D/ctld $D/spool/$Y-1 $D/spool/$Y-2 $D/bundle
sed "s|/run/rtx-slurm|$D/state|" "$CONTRIB/prolog" > $D/conf/prolog
chmod +x $D/conf/prolog
cat > $D/conf/slurm.conf << END
# The nodes' names are in the containers' ids, and so in their cgroups, which all sites share.
ClusterName=rtx
SlurmctldHost=localhost
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$D/munge.sock
CredType=cred/munge
StateSaveLocation=$D/ctld
SlurmdSpoolDir=$D/spool/%n
SlurmctldPidFile=$D/slurmctld.pid
SlurmdPidFile=$D/slurmd.%n.pid
SlurmctldPort=16817
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerNode=300
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
KillWait=2
# On a busy machine an answer is late, and nobody is lost.
MessageTimeout=100
TCPTimeout=60
BatchStartTimeout=100
Prolog=$D/conf/prolog
SchedulerParameters=sched_interval=1,sched_min_interval=0
SlurmdParameters=config_overrides
NodeName=$Y-1 NodeHostname=localhost NodeAddr=127.0.0.1 Port=16818 CPUs=4 RealMemory=4000
NodeName=$Y-2 NodeHostname=localhost NodeAddr=127.0.0.1 Port=16819 CPUs=4 RealMemory=4000
PartitionName=all Nodes=$Y-[1-2] Default=YES MaxTime=10 State=UP
END
sed "s|/usr/bin/rtx|$RT|; s|/run/rtx-slurm|$D/state|" "$CONTRIB/oci.conf" > $D/conf/oci.conf
cp -a $D/unpacked/rootfs $D/bundle
(cd $D/bundle && $RT spec)
mkdir $D/ordinary
cp -a $D/unpacked/rootfs $D/ordinary
chown -R 65534:65534 $D/ordinary
(cd $D/ordinary && as_nobody $RT spec --rootless)
head -c 1024 /dev/urandom > $D/munge.key
chmod 400 $D/munge.key
munged --socket $D/munge.sock --key-file $D/munge.key --pid-file $D/munge.pid --log-file $D/log/munge --seed-file $D/munge.seed --force < /dev/null
setsid slurmctld -D -i > $D/log/slurmctld 2>&1 < /dev/null &
await 'scontrol ping | grep -q UP'
for node in $Y-1 $Y-2; do setsid slurmd -D -N $node > $D/log/$node 2>&1 < /dev/null & done
await '[ $(sinfo --noheader --Node --states=idle | wc -l) = 2 ]'
"#;

const fn slurm(name: &'static str) -> Caller {
    Caller {
        name,
        programs: &["slurmctld", "slurmd", "srun", "sbatch", "munged"],
        packages: "slurmctld slurmd slurm-client munge",
        functions: concat!(
            "CONTRIB=",
            env!("CARGO_MANIFEST_DIR"),
            "/contrib/slurm",
            r#"
export SLURM_CONF=$D/conf/slurm.conf
s() { timeout $LIMIT srun --quiet --container=$D/bundle "$@"; }
as_nobody() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
job() { scontrol --oneliner show job $1 | tr ' ' '\n' | sed -n "s/^$2=//p"; }
over() { await "! squeue --noheader --jobs $1 2> /dev/null | grep -q ."; }
left() { find $D/state -mindepth 2 -maxdepth 2; pgrep -a -f "[r]un $Y-[12].root"; pgrep -a -f '[s]leep 60[0-9]'
    find /sys/fs/cgroup -type d -name "$Y-[12].*" 2> /dev/null; true; }
"#
        ),
        setup: SETUP,
        sites: OnceLock::new(),
    }
}

static SLURM: Caller = slurm("slurm");
/// Which waits for a limit while the other works.
static LIMITED: Caller = slurm("slurm-limit");

#[test]
fn everything() {
    for site in sites!(SLURM) {
        run_to_the_end(site);
        arrays_and_batches(site);
        ordinary_user(site);
        steps(site);
        arrays_on_two_nodes(site);
        signals(site);
        memory(site);
        cancelled(site);
        cancelled_on_two_nodes(site);
    }
}

fn run_to_the_end(site: &Site) {
    let output = site.sh("s sh -c 'echo out; echo err >&2; exit 3'");
    assert_eq!((output.code, &*output.stdout), (3, "out\n"), "{output:?}");
    assert!(output.stderr.contains("err\n"), "{output:?}");
    assert_eq!(site.sh("echo typed | s cat").ok().stdout, "typed\n");
    assert_eq!(site.sh("A=b s sh -c 'echo $A $(pwd) $$'").ok().stdout, "b / 1\n");
    // This Slurm takes no more than one container a node and step.
    let output = site.sh("s --nodes=2 --ntasks=2 sh -c 'echo task; sleep 0.5'").ok();
    assert_eq!(output.stdout, "task\ntask\n");
    assert_ne!(site.sh("s /nope").code, 0);
    site.assert_gone("");
}

fn arrays_and_batches(site: &Site) {
    let script = "cat > $D/batch << 'END'
#!/bin/sh
echo task $SLURM_ARRAY_TASK_ID
exit $SLURM_ARRAY_TASK_ID
END
        cd $D && id=$(sbatch --parsable --wait --array=0-5 --output=$D/array-%a --container=$D/bundle $D/batch)
        for i in 0 1 2 3 4 5; do grep -qx \"task $i\" $D/array-$i && [ \"$(job ${id}_$i ExitCode)\" = $i:0 ] || { echo $i; cat $D/array-$i; job ${id}_$i ExitCode; }; done";
    assert_eq!(site.sh(script).stdout, "");
    site.assert_gone("");
}

/// Whose containers have a state directory, and a user namespace, of their own.
fn ordinary_user(site: &Site) {
    let output = site.sh(
        "cd / && as_nobody srun --quiet --container=$D/ordinary sh -c 'id -u; grep -c . /proc/self/uid_map; exit 6'",
    );
    assert_eq!((output.code, &*output.stdout), (6, "0\n1\n"), "{output:?}");
    assert_eq!(site.sh("stat -c %U $D/state/nobody").stdout, "nobody\n");
    site.assert_gone("");
}

/// Slurm signals `run` and everything below it, so whether the program's own answer comes through is a race that runc
/// loses as well: only the end counts.
fn cancelled(site: &Site) {
    let script = "srun --job-name=listens --container=$D/bundle sh -c 'trap \"exit 5\" TERM; echo up; while :; do sleep 0.1; done' > $D/listens 2>&1 &
        await 'grep -q up $D/listens' && id=$(squeue --noheader --name=listens --format=%i) && scancel $id
        wait; over $id && job $id JobState";
    assert_eq!(site.sh(script).stdout, "CANCELLED\n");
    site.assert_gone("");
}

/// Nothing stays, on whichever node it was. (A program that is deaf to SIGTERM Slurm lets live for long.)
fn cancelled_on_two_nodes(site: &Site) {
    let script = "srun --nodes=2 --ntasks=2 --job-name=wide --container=$D/bundle sh -c 'trap \"exit 5\" TERM; echo up; sleep 600 & while :; do sleep 0.1; done' > $D/wide.out 2>&1 &
        await '[ $(grep -c up $D/wide.out) = 2 ]' && id=$(squeue --noheader --name=wide --format=%i) && [ $(find $D/state -mindepth 2 -maxdepth 2 | wc -l) = 2 ] || echo not two
        scancel $id; wait; over $id && job $id JobState";
    assert_eq!(site.sh(script).stdout, "CANCELLED\n");
    site.assert_gone("");
}

/// Steps of one job, one after the other and side by side, each a container of its own.
fn steps(site: &Site) {
    let script = r#"mkfifo $D/one $D/two; cat > $D/steps << END
#!/bin/sh
srun --quiet --nodes=1 --ntasks=1 --container=$D/bundle sh -c 'echo first; exit 3' 2> /dev/null; echo \$?
exec 3<> $D/one 4<> $D/two
srun --quiet --nodes=1 --ntasks=1 --nodelist=$Y-1 --container=$D/bundle sh -c 'read line; echo \$line; exit 4' < $D/one 2> /dev/null &
srun --quiet --nodes=1 --ntasks=1 --nodelist=$Y-2 --container=$D/bundle sh -c 'read line; echo \$line' < $D/two &
until [ \$(find $D/state -mindepth 2 -maxdepth 2 | wc -l) = 2 ]; do sleep 0.1; done
echo two >&4; wait \$!; echo \$?
echo one >&3; wait; echo over
END
        cd $D && id=$(timeout $LIMIT sbatch --parsable --wait --ntasks=2 --nodes=2 --output=$D/steps.out $D/steps); cat $D/steps.out; job $id JobState
        squeue --noheader --format='%i %T %r' >&2; sinfo --Node --noheader --format='%N %T %E' >&2"#;
    let output = site.sh(script);
    assert_eq!(output.stdout, "first\n3\ntwo\n0\none\nover\nCOMPLETED\n", "{output:?}");
    site.assert_gone("");
}

fn arrays_on_two_nodes(site: &Site) {
    let script = "cat > $D/wide << 'END'
#!/bin/sh
echo task $SLURM_ARRAY_TASK_ID
sleep 0.5
END
        cd $D && id=$(timeout $LIMIT sbatch --parsable --wait --cpus-per-task=4 --array=0-7 --output=$D/wide-%a --container=$D/bundle $D/wide)
        for i in 0 1 2 3 4 5 6 7; do grep -qx \"task $i\" $D/wide-$i || { echo $i; cat $D/wide-$i; }; done
        for i in 0 1 2 3 4 5 6 7; do job ${id}_$i NodeList; done | sort -u | wc -l";
    assert_eq!(site.sh(script).stdout, "2\n");
    site.assert_gone("");
}

fn signals(site: &Site) {
    let script = "srun --job-name=hears --container=$D/bundle sh -c 'trap \"echo heard; exit 5\" USR1; echo up; while :; do sleep 0.1; done' > $D/hears 2>&1 &
        await 'grep -q up $D/hears' && id=$(squeue --noheader --name=hears --format=%i) && scancel --signal=USR1 $id
        wait; over $id; grep -x heard $D/hears";
    assert_eq!(site.sh(script).stdout, "heard\n");
    site.assert_gone("");
}

/// The bundle's own limit, which the kernel keeps, and Slurm's, which slurmstepd looks after.
fn memory(site: &Site) {
    let output = site.sh("mkdir $D/limited && cp -a $D/bundle/. $D/limited && cd $D/limited &&
        jq '.linux.resources.memory.limit = 20000000' config.json > new && mv new config.json
        srun --quiet --container=$D/limited sh -c 'x=xxxxxxxx; while :; do x=$x$x; done'");
    assert_ne!(output.code, 0, "{output:?}");
    site.assert_gone("");
    let output = site.sh("srun --mem=60 --container=$D/bundle dd if=/dev/zero of=/dev/null bs=300M count=1000000");
    assert_ne!(output.code, 0, "{output:?}");
    assert!(output.stderr.contains("memory"), "{output:?}");
    site.assert_gone("");
}

/// Slurm's shortest limit is a minute, so the two runtimes wait for it at the same time.
#[test]
fn beyond_its_time() {
    let sites = sites!(LIMITED);
    std::thread::scope(|scope| {
        for site in sites {
            scope.spawn(|| site.run_beyond());
        }
    });
}

impl Site {
    fn run_beyond(&self) {
        let script = "setsid srun --time=1 --job-name=long --container=$D/bundle sh -c 'trap \"exit 5\" TERM; echo up; while :; do sleep 0.1; done' \
                > $D/long.out 2>&1 < /dev/null &
            await 'grep -qx up $D/long.out' && squeue --noheader --name=long --format=%i";
        let id = self.sh(script).ok().stdout;
        let wait = format!("await '[ $(job {0} JobState) = TIMEOUT ]'; job {0} JobState", id.trim());
        assert_eq!(self.sh(&wait).stdout, "TIMEOUT\n");
        assert!(self.sh("cat $D/long.out").stdout.contains("DUE TO TIME LIMIT"));
        self.assert_gone("");
    }
}
