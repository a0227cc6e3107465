//! `rtx spec`: a config.json to start from.

use super::args::SpecArgs;
use crate::config::spec_template;
use crate::engine::oci::cgroup;
use crate::sys::{On, errno_of};
use anyhow::{Result, bail};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

pub fn spec(args: SpecArgs) -> Result<i32> {
    let path = args.bundle.as_deref().unwrap_or(Path::new(".")).join("config.json");
    let rootless = args.rootless.then(|| (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()));
    let mut file = match File::options().write(true).create_new(true).open(&path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("file {} exists. Remove it first", path.display())
        }
        other => other.map_err(|error| errno_of(&error)).on("create", path.display())?,
    };
    file.write_all(spec_template::spec(rootless, cgroup::is_unified_host()).as_bytes())
        .map_err(|error| errno_of(&error))
        .on("write", path.display())?;
    Ok(0)
}
