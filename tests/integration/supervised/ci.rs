use super::LONG;
use crate::support::children::poll_until;
use crate::support::runtime::Invocation;
use crate::support::{Bundle, own_engine};

/// contrib/ci/supervised says the right thing of every way in which a job can end.
#[test]
fn the_script_for_ci_gets_every_end_right() {
    let runtime = own_engine!();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/ci/supervised");
    let memory = serde_json::json!({ "limit": 20_000_000, "swap": 20_000_000 });
    let cases = [
        ("echo built", "60s", 0, "built", "success"),
        ("echo broken >&2; exit 3", "60s", 3, "broken", "failure: exit code 3"),
        ("exec tail /dev/zero", "60s", 137, "", "out of memory"),
        ("echo slow; exec sleep 600", "1s", 124, "slow", "timed out"),
        ("echo killed by it; exec sleep 600", "60s", 137, "killed by it", "killed: exit code 137"),
    ];
    for (payload, timeout, code, printed, verdict) in cases {
        let mut bundle = Bundle::shell(payload);
        bundle.set("/linux/resources/memory", memory.clone());
        bundle.write();
        let words = ["sh", script, &bundle.path().display().to_string(), timeout].map(str::to_owned).to_vec();
        let rtx = format!("{} --root {}", runtime.program.display(), runtime.root().display());
        let job = Invocation::new(words, runtime.scratch().to_path_buf()).env("RTX", &rtx).start();
        if verdict.starts_with("killed") {
            let id = || runtime.run(&["list", "-q"]).stdout.lines().next().map(str::to_owned);
            let runs = || id().filter(|id| runtime.run(&["logs", id]).stdout.contains(printed));
            let id = poll_until(LONG, runs).expect("the job runs");
            runtime.run(&["kill", &id, "KILL"]).ok();
        }
        let output = job.wait_within(LONG);
        assert_eq!(output.code, code, "{payload}: {output:?}");
        assert!(output.stdout.contains(verdict), "{payload}: {output:?}");
        assert!(output.stdout.contains(printed) || output.stderr.contains(printed), "{payload}: {output:?}");
        assert_eq!(runtime.run(&["list", "-q"]).ok().stdout, "", "nothing is left");
    }
}
