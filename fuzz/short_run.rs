//! The short run of a fuzz target, as a plain test: the corpus, then a fixed number of damaged variants of it from a fixed seed.
//!
//! The tests of each crate include this file by its path, so that fuzzing adds no crate to the workspace. What it does not do:
//! it is not guided by coverage; `cargo fuzz` is, over the same targets and the same corpus (docs/internals/fuzzing.md).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// A target: whether it accepts the bytes; it panics when a property does not hold.
pub type Check = fn(&[u8]) -> bool;

/// Where the examples of a target are.
pub fn corpus_of(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

/// Runs the corpus, `made` (examples that only this version understands), and `runs` damaged variants of both. `valid-*` must be accepted, `damaged-*` must not; of all others (`found-*` by a
/// fuzzer, say) only the properties are checked.
pub fn run(target: &str, made: &[Vec<u8>], runs: u32, check: Check) {
    let mut examples = made.to_vec();
    for bytes in made {
        assert!(guarded(target, "a made example", bytes, check), "a made example is refused");
    }
    let files = std::fs::read_dir(corpus_of(target)).expect("each target has a corpus");
    let mut files: Vec<PathBuf> = files.map(|entry| entry.expect("legible").path()).collect();
    files.sort();
    for file in files {
        let bytes = std::fs::read(&file).expect("legible");
        let name = file.file_name().expect("a file").to_string_lossy().into_owned();
        let accepted = guarded(target, &name, &bytes, check);
        if name.starts_with("valid-") {
            assert!(accepted, "{} was a good example and is refused: did the format change?", file.display());
        }
        assert!(!(name.starts_with("damaged-") && accepted), "{} is accepted", file.display());
        examples.push(bytes);
    }
    assert!(!examples.is_empty(), "the corpus of {target} is empty");
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for round in 0..runs {
        let bytes = damaged(&examples, &mut dice);
        guarded(target, &format!("round {round}"), &bytes, check);
    }
}

/// Says which input it was when a property does not hold.
fn guarded(target: &str, name: &str, bytes: &[u8], check: Check) -> bool {
    match catch_unwind(AssertUnwindSafe(|| check(bytes))) {
        Ok(accepted) => accepted,
        Err(panic) => {
            let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{target}-failed"));
            std::fs::write(&kept, bytes).expect("written");
            eprintln!(
                "{target}, {name}: the input is kept; to make it a regression test:\n  cp {} fuzz/corpus/{target}/found-WHAT",
                kept.display()
            );
            std::panic::resume_unwind(panic)
        }
    }
}

/// One to four changes of one of the examples.
fn damaged(examples: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = examples[dice.below(examples.len())].clone();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len() + 1);
        let to = (at + 1 + dice.below(16)).min(bytes.len());
        match dice.below(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            1 if at < bytes.len() => bytes[at] = dice.below(256) as u8,
            2 => bytes.insert(at, dice.below(256) as u8),
            3 if at < to => drop(bytes.drain(at..to)),
            4 if at < to => {
                let piece = bytes[at..to].to_vec();
                bytes.splice(at..at, piece);
            }
            5 => bytes.truncate(at),
            // Numbers at the edges, as text and as CBOR.
            6 => {
                let edges: [&[u8]; 8] = [
                    b"0",
                    b"-1",
                    b"18446744073709551615",
                    b"18446744073709551616",
                    b"1e400",
                    b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff",
                    b"\x9b\x00\x00\x00\xff\xff\xff\xff\xff",
                    b"\xff\xff\xff\xff",
                ];
                let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                bytes.splice(at..at + digits, edges[dice.below(edges.len())].iter().copied());
            }
            7 => {
                let openers: [&[u8]; 6] = [b"[", b"{\"a\":", b"\x81", b"\xa1\x61a", b"<a>", b"\x9f"];
                let nest = openers[dice.below(openers.len())].repeat(1 << dice.below(11));
                bytes.splice(at..at, nest);
            }
            _ => {
                let other = &examples[dice.below(examples.len())];
                let from = dice.below(other.len() + 1);
                let end = (from + dice.below(64)).min(other.len());
                bytes.splice(at..at, other[from..end].iter().copied());
            }
        }
    }
    bytes
}

/// Xorshift: the same numbers everywhere, for ever.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}
