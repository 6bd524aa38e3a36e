//! Wrong usage: what clap doesn't tell of itself. Whoever mistypes one of a few words (a policy of admission control, say) sees
//! which there are, instead of having to ask for help first.

use super::Cli;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory, Error, Parser};
use std::ffi::OsString;

/// Reads the command line of this process. Ends it on wrong usage (2), and after --help and --version (0).
pub fn parse_or_exit() -> Cli {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    parse(&arguments).unwrap_or_else(|error| error.exit())
}

/// Reads a command line.
pub fn parse(arguments: &[OsString]) -> Result<Cli, Error> {
    Cli::try_parse_from(arguments).map_err(|mut error| {
        if error.kind() == ErrorKind::InvalidSubcommand
            && let Some(words) = words_instead(&mut Cli::command(), arguments)
        {
            add_tip(&mut error, words);
        }
        error
    })
}

/// What could have stood in the place of the word that is none, each with what it does. Nothing for the first word: there are
/// so many that they would hide the message.
fn words_instead(root: &mut Command, arguments: &[OsString]) -> Option<String> {
    root.build();
    let mut command: &Command = root;
    for argument in arguments.iter().skip(1).filter_map(|argument| argument.to_str()) {
        command = command.find_subcommand(argument).unwrap_or(command);
    }
    if command.get_name() == root.get_name() {
        return None;
    }
    let words: Vec<_> = command.get_subcommands().filter(|word| word.get_name() != "help").collect();
    let width = words.iter().map(|word| word.get_name().len()).max()?;
    let mut text = "use one of these".to_owned();
    for word in words {
        let about = word.get_about().map(StyledStr::to_string).unwrap_or_default();
        text.push_str(&format!("\n         {:<width$}  {about}", word.get_name()));
    }
    Some(text)
}

fn add_tip(error: &mut Error, tip: String) {
    let mut tips = match error.get(ContextKind::Suggested) {
        Some(ContextValue::StyledStrs(tips)) => tips.clone(),
        Some(_) | None => Vec::new(),
    };
    tips.push(tip.into());
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(line: &str, expected: Expect) {
        let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        expected.assert_eq(&parse(&arguments).expect_err(line).to_string());
    }

    #[test]
    fn a_word_that_is_no_policy_is_answered_with_the_policies() {
        check(
            "mainstay admission set nonsense",
            expect![[r#"
            error: unrecognized subcommand 'nonsense'

              tip: use one of these
                     proved          A real restart plan must exist for each choice of N failed hosts (a new cluster has this, with 1)
                     host-failures   Slots as in vSphere: enough of them must be left when the N largest hosts fail
                     percentage      These percentages of the cluster's CPU and memory must stay unreserved
                     failover-hosts  The dedicated failover hosts (see `mainstay host failover`) must be kept empty

            Usage: mainstay admission set [OPTIONS] <POLICY>

            For more information, try '--help'.
        "#]],
        );
    }

    #[test]
    fn a_policy_mistyped_is_answered_with_the_nearest_and_all() {
        check(
            "mainstay --json --host h1 admission set prooved --refuse",
            expect![[r#"
            error: unrecognized subcommand 'prooved'

              tip: a similar subcommand exists: 'proved'
              tip: use one of these
                     proved          A real restart plan must exist for each choice of N failed hosts (a new cluster has this, with 1)
                     host-failures   Slots as in vSphere: enough of them must be left when the N largest hosts fail
                     percentage      These percentages of the cluster's CPU and memory must stay unreserved
                     failover-hosts  The dedicated failover hosts (see `mainstay host failover`) must be kept empty

            Usage: mainstay admission set [OPTIONS] <POLICY>

            For more information, try '--help'.
        "#]],
        );
    }

    #[test]
    fn of_the_many_first_words_only_near_ones_are_named() {
        check(
            "mainstay frobnicate",
            expect![[r#"
            error: unrecognized subcommand 'frobnicate'

            Usage: mainstay [OPTIONS] <COMMAND>

            For more information, try '--help'.
        "#]],
        );
        check(
            "mainstay stauts",
            expect![[r#"
            error: unrecognized subcommand 'stauts'

              tip: a similar subcommand exists: 'status'

            Usage: mainstay [OPTIONS] <COMMAND>

            For more information, try '--help'.
        "#]],
        );
    }
}
