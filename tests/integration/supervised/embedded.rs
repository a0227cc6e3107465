use crate::support::runtime::Invocation;
use crate::support::{Bundle, own_engine, skip};

/// examples/supervise, which cargo builds for `cargo test`.
#[test]
fn a_program_that_embeds_rtx_supervises_a_container() {
    let runtime = own_engine!();
    let own = std::env::current_exe().expect("the test's own path");
    let example = own.ancestors().nth(2).expect("cargo's directory").join("examples/supervise");
    if !example.exists() {
        skip!("{} is not built: cargo build --example supervise", example.display());
    }
    let mut bundle = Bundle::shell("echo out; exit 4");
    bundle.write();
    let words = [&example, &runtime.root(), &bundle.path().to_owned()].map(|path| path.display().to_string());
    let output = Invocation::new(words.to_vec(), runtime.scratch().to_path_buf()).run().ok();
    let wanted = "ended with 4 after 1 restarts\nstdout out\nstdout out\n1 created\n2 started\n3 stopped\n4 restarting\n5 started\n6 stopped\n";
    assert_eq!(output.stdout, wanted);
    bundle.args(&["/nosuch"]).write();
    let output = Invocation::new(words.to_vec(), runtime.scratch().to_path_buf()).run();
    output.fails(1, "no such file or directory");
    assert_eq!(runtime.run(&["list", "-q"]).ok().stdout, "");
}
