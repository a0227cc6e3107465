//! Every target: the function of rtx::fuzzing that has the name of the binary.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rtx::fuzzing::run(env!("CARGO_BIN_NAME"), data));
