use super::{LONG, Supervised};
use crate::support::children::poll_until;
use crate::support::runtime::read_lossy;
use crate::support::terminal::Terminal;
use crate::support::{Bundle, Container, own_engine};
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{Action, tcflow};
use serde_json::json;
use std::process::Stdio;
use std::time::Duration;

#[test]
fn streams_are_kept_apart_in_every_form() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("echo one; echo two >&2; printf three");
    for form in ["k8s-file", "json-lines", "plain"] {
        let container = Container::new(&runtime, &bundle);
        let file = runtime.scratch().join(format!("log-{form}"));
        container.supervise(&["--output-format", form, "--output-file", &file.display().to_string()]).ok();
        assert_eq!(container.wait(), 0);
        let logs = runtime.run(&["logs", &container.id]).ok();
        assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("one\nthree", "two\n"), "{form}");
        let line = read_lossy(&file).lines().next().unwrap_or_default().to_owned();
        match form {
            "k8s-file" => assert!(line.ends_with(" stdout F one"), "{line}"),
            "json-lines" => {
                assert!(line.contains(r#""log":"one\n""#) && line.contains(r#""stream":"stdout""#), "{line}")
            }
            _ => assert_eq!(line, "one"),
        }
        let timed = runtime.run(&["logs", "--timestamps", "--since", "1h", &container.id]);
        match form {
            "plain" => drop(timed.fails(1, "without times")),
            _ => assert!(timed.ok().stdout.starts_with("20")),
        }
        container.delete(&[]).ok();
        assert!(file.exists(), "a file of the caller's stays");
    }
    let container = Container::new(&runtime, &bundle);
    container.supervise(&["--output-format", "none"]).ok();
    container.wait();
    runtime.run(&["logs", &container.id]).fails(1, "nothing of its output is kept");
}

/// The last line of a stream without a newline does not take in what the other stream has after it.
#[test]
fn with_times_every_record_is_a_line() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("echo one; printf two; sleep 0.3; echo three >&2");
    for form in ["k8s-file", "json-lines"] {
        let container = Container::new(&runtime, &bundle);
        container.supervise(&["--output-format", form]).ok();
        assert_eq!(container.wait(), 0);
        let logs = |flags: &[&str]| {
            let words = [&["logs"], flags, &[&*container.id]].concat();
            runtime.invoke(&words).through_shell("exec \"$@\" 2>&1").run().ok().stdout
        };
        assert_eq!(logs(&[]), "one\ntwothree\n", "{form}: the bytes are the program's");
        let timed = logs(&["--timestamps"]);
        let records: Vec<Option<&str>> = timed.lines().map(|line| line.split_once(' ').map(|(_, text)| text)).collect();
        assert_eq!(records, [Some("one"), Some("two"), Some("three")], "{form}: {timed}");
        assert_eq!(logs(&["--tail", "1"]), "three\n", "{form}");
        let last = logs(&["--timestamps", "--tail", "1"]);
        assert!(last.lines().count() == 1 && last.ends_with(" three\n"), "{form}: {last}");
        container.delete(&[]).ok();
    }
}

#[test]
fn nothing_is_lost_and_files_do_not_grow_without_end() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("head -c 30000000 /dev/zero | tr '\\0' x; echo; echo end");
    let container = Container::new(&runtime, &bundle);
    container.supervise(&["--output-max-size", "-1"]).ok();
    assert_eq!(container.wait(), 0);
    let logs = runtime.run(&["logs", &container.id]).ok().stdout;
    assert_eq!(logs.len(), 30_000_000 + "\nend\n".len());
    assert!(logs.bytes().take(30_000_000).all(|byte| byte == b'x'));

    let bundle = Bundle::shell("seq 1 20000");
    let container = Container::new(&runtime, &bundle);
    let file = runtime.scratch().join("rotated");
    let name = |suffix: &str| std::path::PathBuf::from(format!("{}{suffix}", file.display()));
    let flags = ["--output-max-size", "256k", "--output-max-files", "3", "--output-file", &file.display().to_string()];
    container.supervise(&flags).ok();
    assert_eq!(container.wait(), 0);
    for suffix in ["", ".1", ".2"] {
        let size = name(suffix).metadata().expect("a log file").len();
        assert!((1..=(256 + 128) * 1024).contains(&size), "{suffix}: {size}");
    }
    assert!(!name(".3").exists());
    let logs = runtime.run(&["logs", &container.id]).ok().stdout;
    let numbers: Vec<u32> = logs.lines().map(|line| line.parse().expect("a number")).collect();
    assert!(numbers.windows(2).all(|two| two[0] + 1 == two[1]), "no gap");
    let text = |suffix: &str| std::fs::read_to_string(name(suffix)).expect("a log file");
    // A line that was read from the program in two parts is two in the file.
    let lines = |suffix: &str| text(suffix).lines().filter(|line| line.contains(" stdout F ")).count();
    assert_eq!(numbers.len(), ["", ".1", ".2"].map(lines).iter().sum::<usize>(), "all that is kept is shown");
    assert_eq!(numbers.last(), Some(&20_000));
    assert_eq!(runtime.run(&["logs", "--tail", "2", &container.id]).ok().stdout, "19999\n20000\n");
}

/// Who follows gets all of it, over rotations, and ends with the container.
#[test]
fn a_follower_sees_everything_and_one_that_does_not_read_holds_nobody_up() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("read go; seq 1 30000; echo end");
    let container = Container::new(&runtime, &bundle);
    let flags = ["--interactive", "--output-max-size", "512k", "--output-max-files", "20"];
    container.supervise(&flags).ok();
    let follower = runtime.invoke(&["logs", "--follow", &container.id]).start();
    // A pipe that nobody reads.
    let (_unread, full) = std::io::pipe().expect("make a pipe");
    let stuck = runtime.invoke(&["logs", "--follow", &container.id]).stdout(full).start();
    runtime.invoke(&["attach", &container.id]).input("go\n").run().ok();
    assert_eq!(container.wait(), 0);
    let seen = follower.wait_within(LONG).ok().stdout;
    let wanted: String = (1..=30_000).map(|number| format!("{number}\n")).collect();
    assert!(seen == wanted + "end\n", "{} bytes were seen", seen.len());
    drop(_unread);
    let _ = stuck.wait_within(LONG);
}

/// A reader that is slower than the files are removed is told that it missed something.
#[test]
fn what_a_follower_misses_is_said() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("read go; seq 1 60000; echo end");
    let container = Container::new(&runtime, &bundle);
    container.supervise(&["--interactive", "--output-max-size", "20k", "--output-max-files", "2"]).ok();
    let (mut unread, full) = std::io::pipe().expect("make a pipe");
    let follower = runtime.invoke(&["logs", "--follow", &container.id]).stdout(full).start();
    runtime.invoke(&["attach", &container.id]).input("go\n").run().ok();
    assert_eq!(container.wait(), 0);
    let seen = std::thread::spawn(move || std::io::read_to_string(&mut unread).expect("read the pipe"));
    let told = follower.wait_within(LONG).ok().stderr;
    let seen = seen.join().expect("read the pipe");
    assert!(seen.ends_with("end\n"));
    let has_all = seen.lines().count() == 60_001;
    assert_eq!(told.contains("output is missing here"), !has_all, "{} lines: {told}", seen.lines().count());
}

#[test]
fn a_full_disk_costs_output_and_not_the_program() {
    let runtime = own_engine!();
    let runtime = runtime.wrapped(&["unshare", "-m", "--propagation", "private"]);
    let disk = runtime.scratch().join("disk");
    std::fs::create_dir(&disk).expect("make a directory");
    let bundle = Bundle::shell("head -c 4000000 /dev/zero | tr '\\0' x; echo done >&2; exit 5");
    let container = Container::new(&runtime, &bundle);
    let file = disk.join("log").display().to_string();
    let script = format!("mount -t tmpfs -o size=256k none '{}' && exec \"$@\"", disk.display());
    let plain = runtime.copy();
    let call = container.background("run", &["--detach", "--supervise", "--output-file", &file]);
    call.through(&["unshare", "-m", "--propagation", "private", "sh", "-c", &script, "sh"]).run().ok();
    assert_eq!(container.wait(), 5);
    assert!(container.shown()["outputLost"].as_u64().is_some_and(|lost| lost > 3_000_000), "{}", container.shown());
    assert!(container.kinds().contains(&"output_lost".to_owned()));
    drop(plain);
}

#[test]
fn attach_types_and_shows_and_detaches() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("while read x; do echo got $x; echo err $x >&2; done; echo end; exit 5");
    let container = Container::new(&runtime, &bundle);
    container.supervise(&["--interactive"]).ok();
    // Detach keys are looked for wherever they come from.
    let left = runtime.invoke(&["attach", "--detach-keys", "ctrl-a", &container.id]).input("a\n\u{1}b\n").run().ok();
    assert!(!left.stdout.contains("got b"));
    assert_eq!(container.status(), "running");
    let output = runtime.invoke(&["attach", &container.id]).input("c\n").run();
    output.clone().fails(5, "err c");
    assert!(output.stdout.ends_with("got c\nend\n"), "{}", output.stdout);
    runtime.run(&["attach", &container.id]).fails(1, "it has ended");
    assert_eq!(runtime.run(&["logs", &container.id]).ok().stdout, "got a\ngot c\nend\n");
}

/// Nobody reads what is shown, as after ^S: a signal ends attach all the same, and the program goes on.
#[test]
fn attach_to_a_terminal_that_is_not_read_ends_by_a_signal() {
    let runtime = own_engine!();
    let mut bundle = Bundle::shell("yes");
    bundle.set("/process/terminal", json!(true));
    let container = Container::new(&runtime, &bundle);
    container.supervise(&[]).ok();
    let terminal = Terminal::open(24, 80);
    tcflow(terminal.slave(), Action::OOff).expect("stop a terminal");
    let call = runtime.invoke(&["attach", &container.id]).through(&["setsid", "--ctty"]);
    let attached = call.stdin(terminal.slave()).stdout(terminal.slave()).stderr(Stdio::null()).start();
    // By then it is raw, and has more to show than there is room for.
    std::thread::sleep(Duration::from_millis(500));
    kill_process(Pid::from_raw(attached.pid()).expect("a process"), Signal::TERM).expect("kill");
    attached.wait_within(LONG).fails(143, "");
    assert_eq!(container.status(), "running");
    container.delete(&["--force"]).ok();
}

/// A program that closes its terminal and opens it again, as an init does, while nobody else has it open.
#[test]
fn a_terminal_that_is_opened_again_is_read_again() {
    let runtime = own_engine!();
    let mut bundle =
        Bundle::shell("T=$(tty); exec <&- >/dev/null 2>&1; sleep 0.3; exec <$T >$T 2>&1; echo later; exit 4");
    bundle.set("/process/terminal", json!(true));
    let container = Container::new(&runtime, &bundle);
    container.supervise(&["--restart", "on-failure:1"]).ok();
    assert_eq!(container.wait(), 4);
    assert_eq!(runtime.run(&["logs", &container.id]).ok().stdout, "later\nlater\n");
}

#[test]
fn a_terminal_is_attached_to_with_its_size() {
    let runtime = own_engine!();
    let mut bundle = Bundle::shell("tty; while read x; do stty size; done; exit 4");
    bundle.set("/process/terminal", json!(true));
    let container = Container::new(&runtime, &bundle);
    container.supervise(&[]).ok();
    let terminal = Terminal::open(31, 97);
    let slave = || terminal.slave();
    let attached = runtime.invoke(&["attach", &container.id]).stdin(slave()).stdout(slave()).stderr(slave()).start();
    let shows = |text: &str| {
        let seen = poll_until(LONG, || {
            terminal.send("\r");
            std::thread::sleep(std::time::Duration::from_millis(50));
            terminal.text().contains(text).then_some(())
        });
        assert!(seen.is_some(), "{text} is not in {:?}", terminal.text());
    };
    shows("31 97");
    terminal.resize(40, 120);
    let pid = rustix::process::Pid::from_raw(attached.pid()).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::WINCH).expect("tell of the new size");
    shows("40 120");
    // ctrl-p ctrl-q
    terminal.send("\u{10}\u{11}");
    assert_eq!(attached.wait_within(LONG).code, 0);
    assert_eq!(container.status(), "running");
    assert!(runtime.run(&["logs", &container.id]).ok().stdout.contains("/dev/pts/0\n"));
}

/// Lines of every length, none at all, bytes that are no text, and an end without a newline.
#[test]
fn every_byte_comes_out_again() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("cat /content");
    let mut content = Vec::new();
    for number in 0..40_000usize {
        content.extend((0..number * 7 % 211).map(|at| match (number * 31 + at * 17) % 251 {
            10 => b'x',
            byte => byte as u8,
        }));
        content.push(b'\n');
    }
    content.extend([b'y'; 300_000]);
    let text: Vec<u8> = content.iter().map(|byte| if byte.is_ascii() { *byte } else { b'?' }).collect();
    for (form, content) in [("plain", &content), ("k8s-file", &content), ("json-lines", &text)] {
        std::fs::write(bundle.rootfs().join("content"), content).expect("write the content");
        let container = Container::new(&runtime, &bundle);
        container.supervise(&["--output-format", form, "--output-max-size", "-1"]).ok();
        assert_eq!(container.wait(), 0);
        let logs = runtime.run(&["logs", &container.id]).ok();
        let seen = std::fs::read(&logs.stdout_file).expect("read what was shown");
        assert!(seen == *content, "{form}: {} of {} bytes", seen.len(), content.len());
    }
}

/// What lies in the caller's file already is another container's, and so is what was moved aside of that.
#[test]
fn a_file_that_is_used_again_shows_the_new_container_alone() {
    let runtime = own_engine!();
    let file = runtime.scratch().join("again");
    let name = file.display().to_string();
    for form in ["k8s-file", "plain"] {
        for (script, wanted) in [("seq 1 3000", 3000), ("seq 7001 7010", 7010), ("seq 8001 12000", 12000)] {
            let bundle = Bundle::shell(script);
            let container = Container::new(&runtime, &bundle);
            let flags = ["--output-file", &name, "--output-max-size", "100k", "--output-max-files", "9"];
            container.supervise(&[&flags[..], &["--output-format", form]].concat()).ok();
            assert_eq!(container.wait(), 0);
            let logs = runtime.run(&["logs", &container.id]).ok().stdout;
            let first: u32 = script.split(' ').nth(1).and_then(|number| number.parse().ok()).expect("a number");
            let numbers: Vec<u32> = logs.lines().map(|line| line.parse().expect("a number")).collect();
            assert_eq!(numbers, (first..=wanted).collect::<Vec<_>>(), "{form}");
            container.delete(&[]).ok();
        }
        std::fs::remove_file(&file).expect("remove the file");
    }
}

/// As other programs do of which only the beginning is read.
#[test]
fn a_reader_that_has_gone_is_no_error() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("seq 1 100000");
    let container = Container::new(&runtime, &bundle);
    container.supervise(&[]).ok();
    assert_eq!(container.wait(), 0);
    let (unread, closed) = std::io::pipe().expect("make a pipe");
    drop(unread);
    let output = runtime.invoke(&["logs", &container.id]).stdout(closed).run();
    assert_eq!((output.code, output.stderr.as_str()), (141, ""));
}
