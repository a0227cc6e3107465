//! What `--version` prints. containerd and Docker read the lines by their first word.

use libseccomp::ScmpVersion;

/// The text of `rtx --version`, in the form of runc's and without the last line's end.
pub fn text() -> String {
    let mut text = format!(
        "rtx version {}\ncommit: {}\nspec: {}",
        env!("CARGO_PKG_VERSION"),
        // Set by the Makefile; a build without it does not know its commit.
        option_env!("RTX_COMMIT").unwrap_or("unknown"),
        crate::OCI_VERSION,
    );
    if let Ok(version) = ScmpVersion::current() {
        text += &format!("\nlibseccomp: {}.{}.{}", version.major, version.minor, version.micro);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn has_the_lines_that_callers_read() {
        let text = super::text();
        let words: Vec<_> = text.lines().filter_map(|line| line.split_once(' ')).map(|(word, _)| word).collect();
        assert_eq!(words, ["rtx", "commit:", "spec:", "libseccomp:"]);
    }
}
