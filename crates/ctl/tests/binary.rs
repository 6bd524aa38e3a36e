//! The built program as a script sees it: exit codes, which stream has what, closed pipes, a canned agent on a socket.

use mainstay_testkit::wait_until;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;

/// The program, far from any real agent of this machine.
fn mainstay(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    command
        .env("MAINSTAY_SOCKET", folder.join("agent.sock"))
        .env("MAINSTAY_HOST_SOCKETS", folder.join("hosts"));
    command.env_remove("MAINSTAY_HOST").stdin(Stdio::null());
    command
}

fn run(folder: &Path, line: &str) -> Output {
    mainstay(folder).args(line.split(' ')).output().expect("the program runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// An agent that gives these answers (status and body), one connection each; returns the request lines that it got.
fn canned_agent(socket: &Path, answers: Vec<(u16, String)>) -> JoinHandle<Vec<String>> {
    let listener = UnixListener::bind(socket).expect("a socket");
    std::thread::spawn(move || {
        let mut asked = Vec::new();
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut reader = BufReader::new(stream.try_clone().expect("a handle"));
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                reader.read_line(&mut head).expect("a request");
            }
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            // The program may hang up early: that is one of the things tested here.
            let _ = stream.write_all(answer.as_bytes());
            asked.push(head);
        }
        asked
    })
}

const STATUS: &str = r#"{"cluster_id":"c1","cluster_name":"lab","host_names":{"host-1":"h1"},"complete":true,"note":null,
    "view":{"host":"host-1","now":5,"role":"primary","primary":"host-1","primary_reason":null,
    "timing":{"heartbeat":1000000,"lease":3000000,"failure_timeout":4500000},
    "hosts":[],"datastores":[],"vms":[],"hypervisor_well":true,"guard":true},"alarms":[]}"#;

fn event(number: u64) -> String {
    format!(
        r#"{{"host":"host-1","at_unix_us":{number},"at":0,"incarnation":1,"sequence":{number},"severity":"info","text":"number {number}","event":null}}"#
    )
}

#[test]
fn without_an_agent_it_exits_with_3_and_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    for line in
        ["status", "status --json", "host list", "vm list", "vm protect web", "datastore list", "events"]
    {
        let output = run(folder.path(), line);
        assert_eq!(output.status.code(), Some(3), "{line}");
        assert_eq!(text(&output.stdout), "", "{line}");
        let message = text(&output.stderr);
        assert!(message.starts_with("error: no agent answers on "), "{message}");
        assert!(message.contains("there is no such socket\nhint: start the agent"), "{message}");
    }
}

#[test]
fn with_only_sockets_of_hosts_the_hint_names_one() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("hosts")).expect("a folder");
    let agent = canned_agent(&folder.path().join("hosts/h1.sock"), vec![(200, STATUS.to_owned())]);
    let output = run(folder.path(), "status");
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("use --host h1"), "{}", text(&output.stderr));
    // And the hint is right.
    let output = run(folder.path(), "status --host h1");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("Cluster   lab (c1)\n"), "{}", text(&output.stdout));
    agent.join().expect("the agent");
}

#[test]
fn a_host_without_a_socket_is_asked_through_the_local_agent() {
    let folder = tempfile::tempdir().expect("a folder");
    let agent = canned_agent(&folder.path().join("agent.sock"), vec![(200, STATUS.to_owned())]);
    assert_eq!(run(folder.path(), "--host host-2 host list").status.code(), Some(0));
    let asked = agent.join().expect("the agent");
    assert!(asked[0].starts_with("GET /v1/status HTTP/1.0\r\n"), "{asked:?}");
    assert!(asked[0].contains("\r\nmainstay-host: host-2\r\n"), "{asked:?}");
}

#[test]
fn wrong_usage_exits_with_2() {
    let folder = tempfile::tempdir().expect("a folder");
    for line in [
        "frobnicate",
        "status --colour",
        "events --since yesterday",
        "events --severity loud",
        "vm protect",
        "vm set web",
        "vm set web --isolation-response explode",
        "vm priority web urgent",
        "rule set r must apart --vm web",
        "suspend --for forever",
        "admission set nonsense",
        "completions tcl",
        "agent",
        "sim run",
        "sim run --seed one",
        "sim run --vms 3 file.toml",
        "sim run --timing fast file.toml",
        "sim soak --seeds 9..1",
        "--color sometimes status",
    ] {
        let output = run(folder.path(), line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert_eq!(text(&output.stdout), "", "{line}");
        assert!(text(&output.stderr).contains("error:"), "{line}: {}", text(&output.stderr));
    }
    assert_eq!(mainstay(folder.path()).output().expect("the program runs").status.code(), Some(2));
}

#[test]
fn a_word_that_is_no_policy_is_answered_with_those_that_there_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = run(folder.path(), "admission set nonsense");
    assert_eq!(output.status.code(), Some(2));
    for policy in ["proved", "host-failures", "percentage", "failover-hosts"] {
        let line = format!("\n         {policy} ");
        assert!(text(&output.stderr).contains(&line), "{policy}: {}", text(&output.stderr));
    }
}

#[test]
fn help_names_the_exit_codes() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = run(folder.path(), "help");
    assert_eq!(output.status.code(), Some(0));
    for code in
        ["0  done", "1  the request", "2  the command line", "3  no agent", "4  `mainstay status --check`"]
    {
        assert!(text(&output.stdout).contains(code), "{}", text(&output.stdout));
    }
}

#[test]
fn what_the_agent_refuses_exits_with_1_and_its_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let problem = r#"{"error":"no VM called a/b is known: `mainstay vm list` shows all"}"#;
    let agent = canned_agent(
        &folder.path().join("agent.sock"),
        vec![(404, problem.to_owned()), (500, "oops".to_owned())],
    );
    let output = run(folder.path(), "vm protect a/b");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "error: no VM called a/b is known: `mainstay vm list` shows all\n");
    let output = run(folder.path(), "status");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("HTTP status 500"), "{}", text(&output.stderr));
    let asked = agent.join().expect("the agent");
    assert!(asked[0].starts_with("POST /v1/vms/a%2Fb/protect HTTP/1.0\r\n"), "{asked:?}");
}

#[test]
fn an_answer_of_another_kind_is_an_error_that_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let agent = canned_agent(&folder.path().join("agent.sock"), vec![(200, "[]".to_owned())]);
    let output = run(folder.path(), "status");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("hint: agent and command line may be of different versions"));
    agent.join().expect("the agent");
}

#[test]
fn status_check_of_a_degraded_cluster_exits_with_4() {
    let folder = tempfile::tempdir().expect("a folder");
    let alarm = STATUS.replace(r#""alarms":[]"#, &format!(r#""alarms":[{}]"#, event(1)));
    let answers = vec![(200, STATUS.to_owned()), (200, alarm.clone()), (200, alarm)];
    let agent = canned_agent(&folder.path().join("agent.sock"), answers);
    assert_eq!(run(folder.path(), "status --check").status.code(), Some(0));
    assert_eq!(run(folder.path(), "status --check").status.code(), Some(4));
    assert_eq!(run(folder.path(), "status").status.code(), Some(0));
    agent.join().expect("the agent");
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let folder = tempfile::tempdir().expect("a folder");
    // Far more than a pipe holds, so that the program must notice that nobody reads.
    let events: Vec<_> = (0..20_000).map(event).collect();
    let page = format!(r#"{{"events":[{}],"missing":{{}}}}"#, events.join(","));
    let agent = canned_agent(&folder.path().join("agent.sock"), vec![(200, STATUS.to_owned()), (200, page)]);
    let mut command = mainstay(folder.path());
    command.args(["events", "--utc", "--limit", "20000"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program runs");
    let mut first = String::new();
    {
        let mut stdout = BufReader::new(child.stdout.take().expect("its stdout"));
        stdout.read_line(&mut first).expect("a line");
    }
    assert_eq!(first, "1970-01-01 00:00:00.000Z  h1  info     number 0\n");
    let mut messages = String::new();
    child.stderr.take().expect("its stderr").read_to_string(&mut messages).expect("its messages");
    assert_eq!(messages, "");
    assert_eq!(child.wait().expect("its end").code(), Some(0));
    agent.join().expect("the agent");
}

#[test]
fn completions_know_the_subcommands() {
    let folder = tempfile::tempdir().expect("a folder");
    for shell in ["bash", "zsh", "fish"] {
        let output = run(folder.path(), &format!("completions {shell}"));
        assert_eq!(output.status.code(), Some(0), "{shell}");
        for word in ["status", "events", "datastore", "unprotect", "completions"] {
            assert!(text(&output.stdout).contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn one_seed_is_one_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = run(folder.path(), "sim run --seed 3 --trace");
    let second = run(folder.path(), "sim run --seed 3 --trace");
    assert_eq!(text(&first.stdout), text(&second.stdout));
    assert!(text(&first.stdout).contains("\nseed 3: "), "{}", text(&first.stderr));
    let short = run(folder.path(), "sim run --seed 3");
    assert!(text(&short.stdout).starts_with("seed 3: "), "{}", text(&short.stdout));
    assert!(text(&first.stdout).ends_with(text(&short.stdout)), "a trace changes nothing in the run");
}

#[test]
fn a_scenario_that_cannot_be_read_says_which_and_exits_with_1() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = run(folder.path(), "sim run /nowhere/partition.toml");
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(message.starts_with("error: /nowhere/partition.toml can't be used: No such file"), "{message}");
    let file = folder.path().join("partition.toml");
    std::fs::write(&file, "about = 5").expect("a file");
    let output = run(folder.path(), &format!("sim run {}", file.display()));
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).starts_with("error: scenario partition can't be read"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_scenario_runs_from_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("calm.toml");
    let scenario = r#"
        about = "nothing happens"
        hosts = ["host-1", "host-2"]
        vm = [{ name = "web", host = "host-1" }]
        expect = [{ that = "vm_runs", vm = "web", on = "host-1", within = 30.0 }]
    "#;
    std::fs::write(&file, scenario).expect("a file");
    let output = run(folder.path(), &format!("sim run {}", file.display()));
    assert_eq!(
        text(&output.stdout),
        "scenario calm went as expected: nothing happens\n",
        "{}",
        text(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(0));
    std::fs::write(&file, scenario.replace("on = \"host-1\"", "on = \"host-2\"")).expect("a file");
    let output = run(folder.path(), &format!("sim run {}", file.display()));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("did not go as expected"), "{}", text(&output.stdout));
}

#[test]
fn a_folder_of_scenarios_runs_on_ones_own_size_and_times() {
    let folder = tempfile::tempdir().expect("a folder");
    let scenario = r#"
        about = "a host dies"
        hosts = ["host-1", "host-2"]
        vm = [{ name = "web", host = "host-1" }]
        step = [{ at = 20, do = "power_off", host = "host-1" }]
        expect = [{ that = "vm_runs", vm = "web", not_on = "host-1", after = 20, within = 7 }]
    "#;
    let scenarios = folder.path().join("mine");
    std::fs::create_dir(&scenarios).expect("a folder");
    std::fs::write(scenarios.join("a.toml"), scenario).expect("a file");
    std::fs::write(scenarios.join("b.toml"), scenario.replace("dies", "fails")).expect("a file");
    let line = format!("sim run {}", scenarios.display());
    let swift = run(folder.path(), &format!("{line} --timing 0.25,1,1.5 --hosts 8"));
    assert_eq!(swift.status.code(), Some(0), "{}", text(&swift.stderr));
    let lines: Vec<&str> = text(&swift.stdout).lines().collect();
    assert_eq!(
        lines,
        [
            "scenario a went as expected: a host dies",
            "scenario b went as expected: a host fails",
            "2 of 2 scenarios went as expected"
        ]
    );
    let patient = run(folder.path(), &format!("{line} --timing patient"));
    assert_eq!(patient.status.code(), Some(1), "no failover within 7 s");
    assert!(text(&patient.stderr).contains("scenario a: not as expected:\n  never, from 20 s to 27 s"));
    let small = run(folder.path(), &format!("{line} --hosts 1"));
    assert!(text(&small.stderr).contains("--hosts must be at least that many"), "{}", text(&small.stderr));
}

#[test]
fn a_soak_that_never_saw_what_it_must_fails_only_when_asked_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let lenient = run(folder.path(), "sim soak --seeds 0..2");
    assert_eq!(lenient.status.code(), Some(0), "{}", text(&lenient.stderr));
    assert_eq!(text(&lenient.stderr), "", "no bar where there is no terminal");
    assert!(text(&lenient.stdout).starts_with("2 seeds, 0 failed"), "{}", text(&lenient.stdout));
    assert!(text(&lenient.stdout).contains("<- never seen"), "{}", text(&lenient.stdout));
    let strict = run(folder.path(), "sim soak --seeds 0..2 --jobs 1 --require-sometimes");
    assert_eq!(strict.status.code(), Some(1));
    assert!(
        text(&strict.stderr).starts_with("error: vacuous: 2 seeds never saw"),
        "{}",
        text(&strict.stderr)
    );
}

#[test]
fn ctrl_c_ends_a_soak_with_what_was_seen() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = mainstay(folder.path());
    command.args(["sim", "soak", "--seeds", "0..1000000000", "--json"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
    // The handler is there once libc's table says so: asked of the kernel, not guessed by waiting.
    let status = format!("/proc/{}/status", child.id());
    let catches_int = || {
        let text = std::fs::read_to_string(&status).expect("its status");
        let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:\t")).expect("a mask");
        u64::from_str_radix(caught, 16).expect("a mask") & 2 != 0
    };
    wait_until("its handler", catches_int);
    // SAFETY: a plain system call on a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) }, 0);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(said["seeds"].as_u64() < said["seeds_wanted"].as_u64(), "{said}");
}

#[test]
fn an_agent_without_its_configuration_exits_with_1_and_names_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    for line in ["agent --config /nowhere/agent.toml", "agent --config /nowhere/agent.toml --check"] {
        let output = run(folder.path(), line);
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert_eq!(text(&output.stdout), "", "{line}");
        assert!(text(&output.stderr).contains("/nowhere/agent.toml"), "{}", text(&output.stderr));
    }
}

#[test]
fn the_hook_exits_with_1_only_when_the_cluster_refuses() {
    let folder = tempfile::tempdir().expect("a folder");
    let hook = "hook web prepare begin -";
    let output = run(folder.path(), hook);
    assert_eq!((output.status.code(), &*output.stdout, text(&output.stderr)), (Some(0), &b""[..], ""));
    let refusal = r#"{"error":"h1 is in maintenance mode: it takes no VMs"}"#.to_owned();
    let agent = canned_agent(&folder.path().join("agent.sock"), vec![(409, refusal)]);
    let output = run(folder.path(), hook);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""));
    assert_eq!(text(&output.stderr), "Mainstay refuses: h1 is in maintenance mode: it takes no VMs\n");
    agent.join().expect("the agent");
    // Nothing on libvirt's side may be taken for wrong usage, which would forbid the start.
    for line in ["hook", "hook --vm --prepare begin - more --json", "hook web reconnect begin -"] {
        assert_eq!(run(folder.path(), line).status.code(), Some(0), "{line}");
    }
}

#[test]
fn orders_are_posts_and_arguments_that_do_not_fit_exit_with_2() {
    let folder = tempfile::tempdir().expect("a folder");
    let answers =
        vec![(200, r#"{"message":"h1 is a host like the others"}"#.to_owned()), (200, STATUS.to_owned())];
    let agent = canned_agent(&folder.path().join("agent.sock"), answers);
    let output = run(folder.path(), "host failover h1 off");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "h1 is a host like the others\n"));
    // Stdin is no terminal here.
    let output = run(folder.path(), "host confirm-down h1");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("then add --yes; if it is not down, its VMs run twice"));
    let asked = agent.join().expect("the agent");
    assert!(asked[0].starts_with("POST /v1/hosts/h1/failover?keep=false HTTP/1.0\r\n"), "{asked:?}");
    assert_eq!(run(folder.path(), "vm ready db agent --command x").status.code(), Some(2));
}
