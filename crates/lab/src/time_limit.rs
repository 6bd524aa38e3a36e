//! A limit on how long a lab may stand: a test that hangs must end by itself, say where, and leave nothing behind.
//!
//! It ends the whole process, since nothing else ends a thread that hangs.

use std::io::Write as _;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::cleanup;
use crate::config::LabConfig;
use crate::lab::Lab;
use crate::state::Registry;

/// How long the last words may take: what they tell of is broken.
const WORDS_MAX: Duration = Duration::from_secs(15);

/// The exit status of a test program that has failed.
const FAILED: i32 = 101;

/// Counts until dropped.
#[derive(Debug)]
pub(crate) struct TimeLimit {
    /// Dropping it ends the thread.
    _end: Sender<()>,
}

impl TimeLimit {
    /// Begins to count for the calling thread's lab.
    pub(crate) fn start(config: &LabConfig, limit: Duration) -> TimeLimit {
        let (end, ended) = channel::<()>();
        let config = config.clone();
        let who = std::thread::current().name().unwrap_or("a program").to_string();
        std::thread::spawn(move || match ended.recv_timeout(limit) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
            Err(RecvTimeoutError::Timeout) => expire(&who, config, limit),
        });
        TimeLimit { _end: end }
    }
}

fn expire(who: &str, config: LabConfig, limit: Duration) {
    // Not by a macro: what a test prints is kept until it ends, and this one does not.
    let say = |text: &str| {
        let _ = std::io::stderr().write_all(text.as_bytes());
    };
    say(&format!(
        "\n{who} is not done within {} s: its lab is taken down, and this process ends\n",
        limit.as_secs()
    ));
    let (report, words) = channel();
    let copy = config.clone();
    std::thread::spawn(move || report.send(Lab::described(copy)));
    say(&words.recv_timeout(WORDS_MAX).unwrap_or_else(|_| "the lab can't be described\n".into()));
    // Its files are there to be looked at: who cleans up after it leaves them.
    let kept = Registry::system().keep_files(&config);
    // Whether that could be noted or not.
    for error in [kept, cleanup::remove_all(&config)].into_iter().filter_map(Result::err) {
        say(&format!("{error}\n"));
    }
    say(&format!("logs and disks are kept in {}\n", config.dir.display()));
    std::process::exit(FAILED);
}
