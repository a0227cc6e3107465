//! Man pages and shell completions, generated from the clap definitions so that they cannot differ from them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;

use super::args::{Cli, DocsArgs, DocsCommand};

/// `rtx docs`: man pages and completions, for the Makefile and for packagers.
pub fn docs(args: DocsArgs) -> Result<i32> {
    match args.command {
        DocsCommand::Man(to) => man(&to.dir)?,
        DocsCommand::Completions(to) => completions(&to.dir)?,
    }
    Ok(0)
}

/// Writes `rtx.1`, `rtx-create.1`, ... to `dir`, which is made if need be.
///
/// # Errors
/// The directory or a file that could not be written, by its path.
pub fn man(dir: &Path) -> Result<()> {
    make(dir)?;
    // A page for a command is about that command: the options of all are in rtx(1).
    let command = Cli::command()
        .mut_args(|arg| arg.global(false))
        .mut_subcommands(|command| command.after_help("The global options of rtx(1) may be given here as well."));
    clap_mangen::generate_to(command, dir).with_context(|| format!("write man pages to {}", dir.display()))
}

/// Writes the completions of bash (`rtx.bash`), zsh (`_rtx`) and fish (`rtx.fish`) to `dir`, which is made if need be.
///
/// # Errors
/// The directory or a file that could not be written, by its path.
pub fn completions(dir: &Path) -> Result<()> {
    make(dir)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut Cli::command(), "rtx", dir)
            .with_context(|| format!("write the completions of {shell} to {}", dir.display()))?;
    }
    Ok(())
}

fn make(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("create directory {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_and_each_shell_its_completions() -> Result<()> {
        let dir = tempfile::tempdir()?;
        man(dir.path())?;
        completions(dir.path())?;
        for name in ["rtx.1", "rtx-create.1", "rtx-engine-schema.1", "rtx.bash", "_rtx", "rtx.fish"] {
            let text = fs::read_to_string(dir.path().join(name)).context(name)?;
            assert!(text.contains("rtx"), "{name}");
        }
        assert!(!dir.path().join("rtx-docs.1").exists(), "a hidden command has no page");
        Ok(())
    }
}
