//! The short run of the fuzz target `scenario`, with all scenarios of this crate as its examples.

mod scenario;
#[path = "../../../../fuzz/short_run.rs"]
mod short_run;

#[test]
fn scenarios() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("scenarios").map(|entry| entry.expect("legible").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let examples: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).expect("legible")).collect();
    short_run::run("scenario", &examples, 4_000, scenario::check);
}

#[test]
fn deep_and_long_scenarios_are_refused_with_a_small_stack() {
    let read = || {
        for opener in ["a=[", "a={a=", "[a.", "a.", "[[step]]\n", "[", "{", "\"\"\""] {
            let text = opener.repeat(200_000 / opener.len());
            assert!(!scenario::check(text.as_bytes()), "{opener:?}");
            assert!(!scenario::check(format!("about = \"x\"\nseed = {text}").as_bytes()), "{opener:?}");
        }
    };
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(read).expect("a thread");
    thread.join().expect("it does not panic");
}
