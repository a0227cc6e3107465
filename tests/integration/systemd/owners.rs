//! Which scope is whose: names are the callers' choice, and what is lost has to be found again.

use std::fs;

use serde_json::json;

use super::{assert_gone, needs_systemd, runtime, waiting};
use crate::support::runtime::find_program;
use crate::support::units::property;
use crate::support::{Bundle, Container, skip};

/// Ends a container whose record is lost, in three ways, and sees that nothing of it stays.
#[test]
fn delete_force_of_a_lost_record_finds_the_scope() {
    needs_systemd!();
    let runtime = runtime();
    for lost in ["the record", "the record and the configuration", "the directory"] {
        let (bundle, unit) = waiting();
        let container = Container::new(&runtime, &bundle);
        container.run_detached(&[]).ok();
        let pid = container.pid();
        let directory = runtime.root().join(&container.id);
        match lost {
            "the directory" => fs::remove_dir_all(&directory).expect("remove the directory"),
            _ => fs::write(directory.join("state.json"), "").expect("damage the record"),
        }
        if lost == "the record and the configuration" {
            fs::write(directory.join("config.json"), "").expect("damage the configuration");
        }
        // The scope of another container of the same id, in another directory, is another's.
        let elsewhere = super::runtime();
        elsewhere.run(&["delete", "--force", &container.id]).ok();
        assert_eq!(property(&unit, "ActiveState"), "active");
        container.delete(&["--force"]).ok();
        assert!(!std::path::Path::new(&format!("/proc/{pid}/cwd")).exists(), "without {lost} it still runs");
        assert_gone(&unit);
        assert!(!directory.exists());
    }
}

/// A create that is killed before it has a scope, or is refused one, has no claim on the one that has its name.
#[test]
fn a_killed_create_leaves_the_scope_of_its_name_alone() {
    needs_systemd!();
    if find_program("strace").is_none() {
        skip!("no strace");
    }
    let runtime = runtime();
    let (bundle, unit) = waiting();
    let first = Container::new(&runtime, &bundle);
    first.run_detached(&[]).ok();
    let mut second = Bundle::shell("exec sleep 600");
    second.spec["linux"]["cgroupsPath"] = bundle.spec["linux"]["cgroupsPath"].clone();
    let other = Container::new(&runtime, &second);
    // The first connection is stage1's, to ask where systemd itself is.
    let killed = ["strace", "-o", "/dev/null", "-e", "inject=connect:signal=KILL:when=2"];
    assert_ne!(other.background("create", &[]).through(&killed).run().code, 0);
    assert!(runtime.root().join(&other.id).join("state.json").exists(), "it was killed too early");
    other.delete(&["--force"]).ok();
    assert_eq!((first.status(), property(&unit, "ActiveState")), ("running".to_owned(), "active".to_owned()));
    // The next create of the id does the same.
    assert_ne!(other.background("create", &[]).through(&killed).run().code, 0);
    // Until its stage2 is gone as well the killed one has the id.
    let again = || Some(other.create()).filter(|output| !output.stderr.contains("already exists"));
    let refused = crate::support::children::poll_until(std::time::Duration::from_secs(20), again);
    refused.expect("the id is free").fails(1, "UnitExists");
    assert_eq!(first.status(), "running");
    first.delete(&["--force"]).ok();
    assert_gone(&unit);
}

/// What is killed when it has a scope leaves it behind, and that one is its own.
#[test]
fn a_killed_create_is_found_by_its_scope() {
    needs_systemd!();
    let runtime = runtime();
    let (mut bundle, unit) = waiting();
    let hook = bundle.make_script("hang", "touch begun; exec sleep 600");
    bundle.spec["hooks"] = json!({ "createRuntime": [{ "path": hook, "env": ["PATH=/bin:/usr/bin"] }] });
    let container = Container::new(&runtime, &bundle);
    let create = container.background("create", &[]).start();
    let begun = || bundle.host("begun").exists().then_some(());
    crate::support::children::poll_until(std::time::Duration::from_secs(20), begun).expect("the hook begins");
    assert!(property(&unit, "Documentation").ends_with(&container.id));
    container.delete(&["--force"]).ok();
    assert_ne!(create.wait().code, 0);
    assert_gone(&unit);
}

/// A stopped container has no scope, and another may have its name by the time that it is deleted.
#[test]
fn deleting_a_stopped_container_leaves_the_next_scope_of_its_name_alone() {
    needs_systemd!();
    let runtime = runtime();
    let (bundle, unit) = waiting();
    let first = Container::new(&runtime, &bundle);
    first.run_detached(&[]).ok();
    first.kill("KILL").ok();
    first.wait_exit();
    let gone = || (property(&unit, "LoadState") == "not-found").then_some(());
    crate::support::children::poll_until(std::time::Duration::from_secs(20), gone).expect("the scope ends");
    let second = Container::new(&runtime, &bundle);
    second.run_detached(&[]).ok();
    first.delete(&[]).ok();
    assert_eq!((second.status(), property(&unit, "ActiveState")), ("running".to_owned(), "active".to_owned()));
}

/// Whose a scope is does not get lost when an annotation describes it.
#[test]
fn an_annotation_adds_documentation() {
    needs_systemd!();
    let runtime = runtime();
    let (mut bundle, unit) = waiting();
    bundle.spec["annotations"] = json!({
        "org.systemd.property.Documentation": "['man:sleep(1)']",
        "org.systemd.property.Description": "'sleeps'",
    });
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    assert_eq!(property(&unit, "Description"), "sleeps");
    let documentation = property(&unit, "Documentation");
    assert!(documentation.contains("man:sleep(1)") && documentation.ends_with(&container.id), "{documentation}");
    container.delete(&["--force"]).ok();
    assert_gone(&unit);
}

/// A scope says by itself whose it is: `gc` ends it when the state of its container is gone, and no other.
#[test]
fn gc_ends_the_scope_of_a_lost_directory() {
    needs_systemd!();
    let (runtime, elsewhere) = (runtime(), super::runtime());
    let ((bundle, unit), (other, kept)) = (waiting(), waiting());
    let (lost, there) = (Container::new(&runtime, &bundle), Container::new(&runtime, &other));
    lost.run_detached(&[]).ok();
    there.run_detached(&[]).ok();
    fs::remove_dir_all(runtime.root().join(&lost.id)).expect("remove the directory");
    // Another directory of state has nothing to do with it.
    assert_eq!(elsewhere.run(&["gc"]).ok().stdout, "");
    let planned = runtime.run(&["gc", "--dry-run"]).ok().stdout;
    assert!(planned.contains(&format!("would be removed: scope {unit} of systemd")), "{planned}");
    assert_eq!(property(&unit, "ActiveState"), "active");
    let done = runtime.run(&["gc"]).ok().stdout;
    assert_eq!(done, planned.replace("would be removed", "removed"));
    assert_gone(&unit);
    assert_eq!((there.status(), property(&kept, "ActiveState")), ("running".to_owned(), "active".to_owned()));
    assert!(!runtime.root().join(&lost.id).exists());
}
