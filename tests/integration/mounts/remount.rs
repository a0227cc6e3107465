//! Changing what is mounted already: `remount` (mount(8), mount(2)).

use super::{only_own_engine, run, seen};
use crate::support::Bundle;

#[test]
fn a_bind_is_changed_with_and_without_a_source() {
    let runtime = only_own_engine!();
    for source in ["source", ""] {
        let mut b = Bundle::new();
        let place = b.make_dir("source").display().to_string();
        b.mount("/tmp", "bind", &place, &["bind", "nosuid"]);
        b.mount("/tmp", "bind", if source.is_empty() { "" } else { &place }, &["bind", "remount", "ro"]);
        let options = seen(&runtime, &b)["mounts"]["/tmp"]["options"].as_str().expect("a mount").to_owned();
        let options: Vec<_> = options.split(',').collect();
        assert!(options.contains(&"ro") && options.contains(&"nosuid"), "{source:?}: {options:?}");
    }
}

#[test]
fn where_nothing_is_mounted_nothing_can_be_changed() {
    let runtime = only_own_engine!();
    for options in [&["bind", "remount"][..], &["rbind", "remount", "ro"], &["bind", "remount", "slave"], &["remount"]]
    {
        let mut b = Bundle::new();
        b.mount("/tmp", "none", "/", options);
        run(&runtime, &b).fails(1, "error mounting /mounts/7 at /tmp: nothing is mounted there");
    }
}
