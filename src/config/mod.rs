//! What was asked for: the bundle and the envelope, the check of every rule of the runtime-spec with JSON pointers, and
//! what rtx itself is configured to do.

pub mod bundle;
pub mod check;
pub mod envelope;
pub mod features;
pub mod findings;
pub mod id;
pub mod idmap_option;
pub mod json;
pub mod mount_options;
pub mod number_list;
pub mod resctrl;
pub mod rtx_config;
pub mod spec_template;
pub mod supervision;
pub mod update;
