use super::super::args::{Command as Verb, Format, LogFormat, Rootless};
use super::super::values::Optional;
use super::*;

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn normalised(line: &str) -> String {
    normalise_argv(words(line)).join(OsStr::new(" ")).into_string().unwrap()
}

fn parsed(line: &str) -> Cli {
    parse(words(line)).unwrap_or_else(|err| panic!("{line}: {err}"))
}

fn mistake(line: &str) -> (i32, String) {
    usage_error(parse(words(line)).expect_err(line), &words(line))
}

#[test]
fn clap_finds_no_fault_in_the_definitions() {
    Cli::command().debug_assert();
}

#[test]
fn single_dash_long_flags_get_the_second_dash() {
    for (given, wanted) in [
        ("rtx restore -no-subreaper -bundle B c", "rtx restore --no-subreaper --bundle B c"),
        ("rtx -root=X -log-format json list", "rtx --root=X --log-format json list"),
        ("rtx list -root X", "rtx list --root X"),
        ("rtx -debug run c -b D", "rtx --debug run c -b D"),
        ("rtx exec -env A=1 -cap CAP_KILL c sh", "rtx exec --env A=1 --cap CAP_KILL c -- sh"),
        ("rtx -help", "rtx --help"),
        ("rtx help --help", "rtx help"),
        ("rtx exec -no-new-privs=0 c true", "rtx exec --no-new-privs=false c -- true"),
        ("rtx exec --no-new-privs=T c true", "rtx exec --no-new-privs c -- true"),
        ("rtx exec --no-new-privs c true", "rtx exec --no-new-privs c -- true"),
        ("rtx help run -h", "rtx help run"),
        ("rtx -version", "rtx --version"),
    ] {
        assert_eq!(normalised(given), wanted);
    }
}

#[test]
fn short_flags_stay_short() {
    for line in [
        "rtx run -d -b D c",
        "rtx run -db D c",
        "rtx exec -td -e A=1 -u 0:0 -g 5 -p F -c CAP_KILL c",
        "rtx list -q -f json",
        "rtx kill -a c",
        "rtx delete -f c",
        "rtx --root R list",
        "rtx list --format json",
        "rtx list -f table -q --root=R",
        "rtx pause c",
        "rtx resume c",
        "rtx update -r - c",
        "rtx -v",
        "rtx run -h",
    ] {
        assert_eq!(normalised(line), line);
    }
}

#[test]
fn the_payload_is_not_touched() {
    for (given, wanted) in [
        ("rtx exec -t c ls -la -root=X", "rtx exec -t c -- ls -la -root=X"),
        ("rtx exec c -t ls --help", "rtx exec c -t -- ls --help"),
        ("rtx exec c -- -root", "rtx exec c -- -root"),
        ("rtx exec -- c ls -bundle", "rtx exec -- c ls -bundle"),
        ("rtx ps c -ef", "rtx ps c -- -ef"),
        ("rtx ps c -- -ef", "rtx ps c -- -ef"),
        ("rtx kill -- c -bundle", "rtx kill -- c -bundle"),
        ("rtx kill c -9", "rtx kill c -- -9"),
        ("rtx kill c -KILL", "rtx kill c -- -KILL"),
        ("rtx kill c -a 9", "rtx kill c -a 9"),
        ("rtx kill c -9 -all", "rtx kill c --all -- -9"),
        ("rtx kill c -9 --", "rtx kill c -- -9"),
        ("rtx kill c -9 TERM", "rtx kill c TERM -- -9"),
        ("rtx nosuch -bundle", "rtx nosuch -bundle"),
    ] {
        assert_eq!(normalised(given), wanted);
    }
    let (_, text) = mistake("rtx kill c --al");
    assert!(text.contains("did you mean '--all'?"), "{text}");
    assert_eq!(normalise_argv(vec![]), Vec::<OsString>::new());
}

#[test]
fn values_are_taken_as_go_takes_them() {
    for (given, wanted) in [
        ("rtx update --memory-swap -1 c", "rtx update --memory-swap=-1 c"),
        ("rtx exec -e -x c sh", "rtx exec -e=-x c -- sh"),
        ("rtx run --detach=true --keep=false c", "rtx run --detach c"),
        ("rtx run -d=1 c", "rtx run -d c"),
        ("rtx run --bundle= --pid-file= c", "rtx run c"),
        ("rtx spec --rootless", "rtx spec --rootless"),
        ("rtx --rootless true spec", "rtx --rootless true spec"),
    ] {
        assert_eq!(normalised(given), wanted);
    }
    let empty = normalise_argv(["rtx", "create", "--console-socket", "", "c"].map(OsString::from).to_vec());
    assert_eq!(empty, words("rtx create c"));
    let empty = ["rtx", "run", "--timeline", "", "c"].map(OsString::from).to_vec();
    assert!(
        usage_error(parse(empty.clone()).expect_err("an empty path"), &empty)
            .1
            .starts_with("flag needs an argument: -timeline")
    );
}

#[test]
fn an_argument_that_is_not_utf8_survives() {
    let root = OsString::from_vec(b"-root=/\xff".to_vec());
    let given = vec!["rtx".into(), root, "list".into()];
    assert_eq!(normalise_argv(given)[1], OsString::from_vec(b"--root=/\xff".to_vec()));
}

/// What is understood without clap is what clap understands, and callers write little else.
#[test]
fn plain_command_lines_mean_what_clap_takes_them_for() {
    for line in [
        "rtx --root R --log-format=json --log L create --bundle B --pid-file P --console-socket S c",
        "rtx --root=R --log L --log-format text --debug --systemd-cgroup create -b B --pidfd-socket=S c",
        "rtx create --bundle B --pid-file P --no-pivot --no-new-keyring --preserve-fds 2 c",
        "rtx create --root R --bundle B",
        "rtx run --root R --bundle B -d --keep --no-subreaper c",
        "rtx run --bundle A --bundle B --detach c",
        "rtx run c",
        "rtx exec --pid-file P --process F --detach --tty --console-socket S c",
        "rtx exec -t -e A=1 --env=B=2=3 -u 0:0 --cwd / --preserve-fds=3 c sh -c --root x",
        "rtx --debug exec -d -p F --pidfd-socket S c",
        "rtx start --root R c",
        "rtx state c",
        "rtx kill c",
        "rtx kill --all c 9",
        "rtx kill -a c KILL",
        "rtx delete c",
        "rtx delete --force c",
        "rtx delete -f c",
    ] {
        let plain = plain::parse(&words(line)).unwrap_or_else(|| panic!("{line} is not plain"));
        let clap = parse_all(words(line)).unwrap_or_else(|err| panic!("{line}: {err}"));
        assert_eq!(format!("{plain:?}"), format!("{clap:?}"), "{line}");
    }
}

#[test]
fn the_rest_is_left_to_clap() {
    for line in [
        "rtx",
        "rtx --help",
        "rtx -v",
        "rtx list c",
        "rtx list --format yaml",
        "rtx nosuch c",
        "rtx run --help",
        "rtx run -db D c",
        "rtx run -bundle D c",
        "rtx run --detach=true c",
        "rtx run --bundle= c",
        "rtx run --bundle -x c",
        "rtx run --preserve-fds x c",
        "rtx run c --bundle D",
        "rtx run c d",
        "rtx run -- c",
        "rtx state",
        "rtx state --force c",
        "rtx state c d",
        "rtx kill c -9",
        "rtx kill c 9 --all",
        "rtx exec",
        "rtx exec c -t ls",
        "rtx exec c -- ls",
        "rtx --log-format xml state c",
        "rtx --rootless true state c",
        "rtx create --engine oci c",
    ] {
        assert!(plain::parse(&words(line)).is_none(), "{line}");
    }
    assert!(plain::parse(&["rtx", "run", "--bundle", "", "c"].map(OsString::from)).is_none());
    assert!(plain::parse(&["rtx", "state", ""].map(OsString::from)).is_none());
}

#[test]
fn the_command_lines_of_the_callers_parse() {
    for line in [
        "rtx --root R --log-format=json --log L create --bundle B --pid-file P --console-socket S c",
        "rtx --systemd-cgroup create --bundle B --pid-file P --no-pivot --no-new-keyring --preserve-fds 2 c",
        "rtx --cgroup-manager disabled create --bundle B --pid-file P c",
        "rtx --root R --log F --log-format json --systemd-cgroup create --bundle B --pidfd-socket S c",
        "rtx exec --pid-file P --process F --detach --tty --console-socket S c",
        "rtx kill --all c 9",
        "rtx kill -a c",
        "rtx delete --force c",
        "rtx update --resources=- c",
        "rtx update --resources - c",
        "rtx update --memory 32M --memory-swap -1 --pids-limit -1 --cpu-quota -1 --cpu-idle 1 --cpu-burst 1000 c",
        "rtx ps --format json c",
        "rtx events --stats c",
        "rtx events --interval=5s c",
        "rtx list --format=json --root R",
        "rtx features",
        "rtx --version",
        "rtx checkpoint --image-path D --work-path D --leave-running --leave-running c",
        "rtx checkpoint --image-path D --empty-ns network --manage-cgroups-mode soft --status-fd 3 --link-remap c",
        "rtx restore --bundle B --pid-file P --detach --image-path R --work-path B -no-subreaper --no-pivot c",
        "rtx run -d --supervise --restart on-failure:3 -i --output-max-size 1m --output-format plain -b D c",
        "rtx wait --timeout 1m --condition running a b c",
        "rtx logs -f --since 10m --tail 5 c",
        "rtx events --follow --since 7 c",
        "rtx events --all",
        "rtx stop -t 5 c",
        "rtx attach --detach-keys= c",
        "rtx kill --timeout 3 c KILL",
        "rtx engine list",
        "rtx --engine mock --config F check B",
        "rtx docs man D",
        "rtx --root R gc --dry-run",
        "rtx doctor -json",
    ] {
        parsed(line);
    }
}

#[test]
fn values_arrive_where_they_belong() {
    let cli = parsed("rtx --rootless=true --log-format json run c -b D -allow-unconfined");
    assert_eq!((cli.globals.rootless, cli.globals.log_format), (Rootless::Always, LogFormat::Json));
    let Some(Verb::Run(run)) = cli.command else { panic!("not run") };
    assert_eq!((run.launch.id.as_deref(), run.launch.bundle), (Some("c"), Some("D".into())));
    assert!(run.launch.allow_unconfined && !run.detach);

    let cli = parsed("rtx exec -g 1 -g 2 -e A=1 -e B=2 --cap CAP_KILL -t c ls -la -- --help");
    let Some(Verb::Exec(exec)) = cli.command else { panic!("not exec") };
    assert_eq!((exec.additional_gids, exec.env.len(), exec.id.as_str()), (vec![1, 2], 2, "c"));
    assert_eq!(exec.args, ["ls", "-la", "--", "--help"]);

    let Some(Verb::Ps(ps)) = parsed("rtx ps -f json c -ef --no-headers").command else { panic!("not ps") };
    assert_eq!((ps.format, ps.ps_options), (Format::Json, vec!["-ef".into(), "--no-headers".into()]));

    let Some(Verb::Kill(kill)) = parsed("rtx kill c").command else { panic!("not kill") };
    assert_eq!(kill.signal, "SIGTERM");
    let Some(Verb::Update(update)) = parsed("rtx update --memory 1.5g --memory-swap -1 c").command else {
        panic!("not update")
    };
    let given = |bytes| Some(Optional(Some(bytes)));
    assert_eq!((update.memory, update.memory_swap), (given(3 << 29), given(-1)));
}

#[test]
fn help_is_no_mistake() {
    for line in ["rtx checkpoint --help", "rtx -h", "rtx help run", "rtx run -help"] {
        let err = parse(words(line)).expect_err(line);
        assert!(!err.use_stderr() && err.exit_code() == 0, "{line}");
    }
    assert!(parsed("rtx").command.is_none());
    assert!(parsed("rtx -v").globals.version);
}

#[test]
fn mistakes_are_told_in_the_words_of_runc() {
    for (line, code, wanted) in [
        ("rtx nosuch", 3, "No help topic for 'nosuch'"),
        ("rtx strat c", 3, "did you mean 'start'?"),
        ("rtx create --bundel B c", 1, "not defined: -bundel (did you mean '--bundle'?)"),
        ("rtx -nosuch list", 1, "flag provided but not defined: -nosuch"),
        ("rtx create --nosuch=1 c", 1, "flag provided but not defined: -nosuch"),
        ("rtx state -nosuch c", 1, "flag provided but not defined: -nosuch"),
        ("rtx run -z c", 1, "flag provided but not defined: -z"),
        ("rtx start", 1, "\"start\" requires exactly 1 argument(s)"),
        ("rtx state a b", 1, "\"state\" requires exactly 1 argument(s)"),
        ("rtx kill", 1, "\"kill\" requires a minimum of 1"),
        ("rtx kill a b c", 1, "\"kill\" requires"),
        ("rtx exec", 1, "\"exec\" requires a minimum of 1 argument(s)"),
        ("rtx wait", 1, "\"wait\" requires a minimum of 1 argument(s)"),
        ("rtx events", 1, "\"events\" requires exactly 1 argument(s)"),
        ("rtx run --restart maybe c", 1, "invalid value for restart: 'maybe' is none of no"),
        ("rtx attach --detach-keys ctrl- c", 1, "invalid value for detach-keys: 'ctrl-' is no key"),
        ("rtx run a b", 1, "\"run\" requires at most 1 argument(s)"),
        ("rtx engine list x", 1, "\"engine list\" requires exactly 0 argument(s)"),
        ("rtx gc c", 1, "\"gc\" requires exactly 0 argument(s)"),
        ("rtx engine", 1, "\"engine\" requires one of: list, schema"),
        ("rtx create --bundle", 1, "flag needs an argument: -bundle (see 'rtx create --help')"),
        ("rtx --root", 1, "flag needs an argument: -root (see 'rtx --help')"),
        ("rtx --root list --log=x run --preserve-fds x c", 1, "invalid digit found in string (see 'rtx run --help')"),
        ("rtx list -f xml", 1, "invalid value for format: 'xml' is none of: table, json (see 'rtx list --help')"),
        ("rtx update --memory abc c", 1, "invalid value for memory: invalid size: 'abc'"),
        ("rtx update --cpu-period abc c", 1, "invalid value for cpu-period: 'abc'"),
        ("rtx run --keep=maybe c", 1, "invalid value for keep"),
        ("rtx events --interval 0s c", 1, "duration interval must be greater than 0"),
        ("rtx --rootless maybe list", 1, "invalid value for rootless"),
    ] {
        let (got, text) = mistake(line);
        assert_eq!(got, code, "{line}");
        assert!(text.contains(wanted) && !text.contains('\n'), "{line}: {text}");
    }
}
