//! Every test that drives the real binary on the real kernel; one module a feature.

mod differential;
mod support;
