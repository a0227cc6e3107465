//! Larger numbers: many containers, commands and signals at the same time, long outputs and long calls. What is left
//! afterwards counts as much as what they say.

use super::containerd::CONTAINERD;
use super::docker::{DOCKER, remove};
use super::sites;

/// Fifty that end by themselves, each with its own word and code.
#[test]
fn fifty_of_docker_at_once() {
    for site in sites!(DOCKER) {
        let output = site.sh(
            "for i in $(seq 50); do (docker run --network none --rm --name fifty$i bb:1 sh -c \"echo $i; exit $i\" > $D/fifty$i 2>&1; echo $? >> $D/fifty$i) & done
             wait
             for i in $(seq 50); do [ \"$(cat $D/fifty$i)\" = \"$(printf \"$i\\n$i\")\" ] || tail $D/fifty$i; done",
        );
        assert_eq!((output.stdout, output.stderr), (String::new(), String::new()));
        remove(site, "fifty");
    }
}

/// Forty that live at the same time; all are stopped at once, each by three callers, and removed by two.
#[test]
fn storm_of_dockers_stops() {
    for site in sites!(DOCKER) {
        let output = site.sh(
            "for i in $(seq 40); do docker run -d --network none --name storm$i bb:1 sh -c 'trap \"exit 7\" TERM; echo up; while :; do sleep 0.2; done' > /dev/null & done
             wait
             docker ps --quiet --filter name=^/storm | wc -l
             for i in $(seq 40); do await \"docker logs storm$i | grep -q up\"; done
             for i in $(seq 40); do for n in 1 2 3; do docker stop -t 200 storm$i > /dev/null & done; done
             wait
             for i in $(seq 40); do get storm$i ExitCode; done | sort | uniq -c | tr -s ' '
             for i in $(seq 40); do for n in 1 2; do docker rm --force storm$i > /dev/null 2>&1 & done; done
             wait
             docker ps --all --quiet --filter name=^/storm | wc -l",
        );
        assert_eq!((&*output.stdout, &*output.stderr), ("40\n 40 7\n0\n", ""));
        remove(site, "storm");
    }
}

/// Commands in one container: sixty at once with words and codes of their own, while one of them streams all the time
/// and others pause and resume everything.
#[test]
fn many_execs_of_docker() {
    for site in sites!(DOCKER) {
        let output = site.sh(
            "docker run -d --network none --name crowd bb:1 sleep 3600 > /dev/null
             docker exec crowd sh -c 'n=0; until [ -e /tmp/over ]; do n=$((n + 1)); echo $n; sleep 0.05; done; echo over; exit 9' > $D/streamed & streaming=$!
             for i in $(seq 60); do (docker exec crowd sh -c \"head -c 100000 /dev/zero | wc -c; echo $i; exit $i\" > $D/exec$i 2>&1; echo $? >> $D/exec$i) & all=\"$all $!\"; done
             wait $all
             for i in $(seq 60); do [ \"$(cat $D/exec$i)\" = \"$(printf \"100000\\n$i\\n$i\")\" ] || tail $D/exec$i; done
             for i in $(seq 10); do docker pause crowd && docker unpause crowd; done > /dev/null
             docker exec crowd touch /tmp/over; wait $streaming; echo $?
             tail -1 $D/streamed; sed '$d' $D/streamed | awk '$1 != NR { print \"lost\", NR; exit }'
             docker top crowd -o pid,args | tail -n +2 | tr -s ' ' | cut -d ' ' -f 2-",
        );
        assert_eq!((&*output.stdout, &*output.stderr), ("9\nover\nsleep 3600\n", ""));
        remove(site, "crowd");
    }
}

/// Megabytes of output on both streams come whole, by attachment and by the log.
#[test]
fn long_outputs_of_docker() {
    for site in sites!(DOCKER) {
        let output = site.sh(
            "docker run --network none --name long bb:1 sh -c 'seq 400000 & seq 400000 >&2; wait' 2> $D/long.err | md5sum
             md5sum < $D/long.err; docker logs long 2> $D/long.err | md5sum; md5sum < $D/long.err; rm $D/long.err; seq 400000 | md5sum",
        );
        let sums: Vec<&str> = output.stdout.lines().collect();
        assert!(sums.len() == 5 && sums.iter().all(|sum| *sum == sums[4]), "{output:?}");
        remove(site, "long");
    }
}

#[test]
fn long_outputs_of_containerd() {
    for site in sites!(CONTAINERD) {
        let output = site.sh("c run -d --log-uri file://$D/long.log $R $I long sh -c 'seq 1000000' && await '[ \"$(status long)\" = STOPPED ]'
             c task delete long; c container rm long; md5sum < $D/long.log; seq 1000000 | md5sum");
        let sums: Vec<&str> = output.stdout.lines().collect();
        assert!(sums.len() == 2 && sums[0] == sums[1], "{output:?}");
        site.assert_gone("long");
    }
}

/// Forty commands at once in one task, then as many that its end takes along. (Of so many, ctr itself loses words.)
#[test]
fn many_execs_of_containerd() {
    for site in sites!(CONTAINERD) {
        let output = site.sh(
            "start crowded sleep 3600
             for i in $(seq 40); do (c task exec --exec-id e$i crowded sh -c \"echo $i > /tmp/word$i; exit $i\" > $D/exec$i 2>&1; echo $? >> $D/exec$i) & done
             wait
             for i in $(seq 40); do tail -1 $D/exec$i | grep -qx $i || tail $D/exec$i; done
             c task exec --exec-id words crowded sh -c 'for i in $(seq 40); do grep -qx $i /tmp/word$i || echo no word $i; done'
             for i in $(seq 40); do c task exec --exec-id l$i crowded sh -c 'trap \"\" TERM; while :; do sleep 0.2; done' > /dev/null 2>&1 & done
             await '[ $(c task ps crowded | grep -c -v PID) -ge 41 ]'
             c task kill -s 9 crowded; wait
             await '[ $(status crowded) = STOPPED ]'; c task delete crowded > /dev/null 2>&1; c container rm crowded",
        );
        assert_eq!((&*output.stdout, &*output.stderr), ("", ""));
        site.assert_gone("crowded");
    }
}

/// Signals, pauses and deletions of the same tasks from several callers at the same time.
#[test]
fn storm_of_containerds_kills() {
    for site in sites!(CONTAINERD) {
        let output = site.sh(
            "for i in $(seq 20); do start storm$i sh -c 'trap : USR1; while :; do sleep 0.2; done' & done; wait
             for i in $(seq 20); do
                 for n in 1 2 3; do c task kill -s USR1 storm$i & done
                 (c task pause storm$i && c task resume storm$i) &
             done > /dev/null 2>&1; wait
             c task ls | grep -c 'storm.*RUNNING'
             for i in $(seq 20); do
                 for n in 1 2 3; do c task kill -a -s 9 storm$i & done
                 c task delete --force storm$i &
             done > /dev/null 2>&1; wait
             for i in $(seq 20); do c task delete --force storm$i; c container rm storm$i; done > /dev/null 2>&1
             c task ls -q | grep -c storm",
        );
        assert_eq!((&*output.stdout, &*output.stderr), ("20\n0\n", ""));
        site.assert_gone("storm");
    }
}
