//! The short run of the fuzz target `agent_config`.

mod agent_config;
#[path = "../../../../fuzz/short_run.rs"]
mod short_run;

#[test]
fn configurations() {
    short_run::run("agent_config", &[], 6_000, agent_config::check);
}

#[test]
fn deep_and_long_configurations_are_refused_with_a_small_stack() {
    let read = || {
        for opener in ["a=[", "a={a=", "[a.", "a.", "[[a]]\n", "[", "{", "\"\"\"", "a=\"\\u0041"] {
            let text = opener.repeat(200_000 / opener.len());
            assert!(!agent_config::check(text.as_bytes()), "{opener:?}");
            let text = format!("state_dir = \"/x\"\n[cluster]\nid = {text}");
            assert!(!agent_config::check(text.as_bytes()), "{opener:?}");
        }
    };
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(read).expect("a thread");
    thread.join().expect("it does not panic");
}
