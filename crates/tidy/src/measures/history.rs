//! The subjects of commits.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;

/// The commit at which the house was measured for the first time. What was before stays as it is.
const START: &str = "0ae6e0d";

/// The subjects of all commits since then; nothing, where the repository does not reach back so far.
pub fn subjects(root: &Path) -> Result<Vec<String>> {
    let range = format!("{START}..HEAD");
    let output = Command::new("git")
        .args(["log", "--format=%s", &range])
        .current_dir(root)
        .output()
        .context("git log")?;
    let reason = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "git log {range}: {}", reason.trim());
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_string).collect())
}

/// Subjects of more characters than that.
pub fn long(subjects: &[String], width: usize) -> Vec<&String> {
    subjects.iter().filter(|subject| subject.chars().count() > width).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_subjects_are_found() {
        let subjects = ["core: short".to_string(), format!("core: {}", "x".repeat(67)), "ä".repeat(72)];
        assert_eq!(long(&subjects, 72), [&subjects[1]]);
    }
}
