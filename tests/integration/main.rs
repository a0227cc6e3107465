//! Every test that drives the real binary on the real kernel; one module a feature.

mod cli;
mod differential;
mod errors;
mod leaks;
mod support;
