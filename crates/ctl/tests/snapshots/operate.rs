//! Orders: what goes to the primary, how its answers are told, and what is refused here already.

use super::canned::{Later, START_US, id, record, vm_name};
use super::*;
use mainstay_core::Event;
use mainstay_core::register::OrderKind;
use mainstay_core::settings::Evacuation;
use mainstay_core::view::VmState;

/// The only order that the command line gives.
fn ordered(line: &str) -> String {
    let mut canned = Canned::healthy();
    let mut words: Vec<String> = Vec::new();
    // Blanks within quotes belong to a word.
    for (index, part) in line.split('"').enumerate() {
        if index % 2 == 0 {
            words.extend(part.split_whitespace().map(str::to_owned));
        } else {
            words.push(part.to_owned());
        }
    }
    let cli = Cli::try_parse_from(words).expect("a good command line");
    let style = Style { colour: false, width: None, zone: Zone::Utc };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut output = Output {
        out: &mut out,
        err: &mut err,
        style,
        json: false,
        confirm: |_| Confirmation::Nobody,
        now_us: START_US,
    };
    let exit = mainstay_ctl::run(&cli, &mut canned, &mut output).expect("done");
    assert_eq!(exit, Exit::Ok, "{line}");
    assert_eq!(canned.orders.len(), 1, "{line}");
    canned.orders.remove(0)
}

const ORDERS: [&str; 24] = [
    "mainstay vm priority web highest",
    "mainstay vm priority web default",
    "mainstay vm ready db agent",
    "mainstay vm ready db running --delay 30s --timeout 1h",
    "mainstay vm ready db command --command \"/usr/bin/systemctl is-active postgresql\"",
    "mainstay vm ready db default",
    "mainstay rule set web-apart must apart --vm web1 --vm \"web, two\"",
    "mainstay rule set licences should on-hosts --vm db --host h1 --host h2",
    "mainstay rule remove \"a/b\"",
    "mainstay group set front --vm web1 --vm web2 --after backends --after dns",
    "mainstay group set backends --vm db",
    "mainstay group remove front",
    "mainstay admission set proved --failures 2 --refuse",
    "mainstay admission set host-failures --failures 1 --slot-cpu 500 --slot-memory 2048 --warn",
    "mainstay admission set percentage --cpu 25 --memory 30",
    "mainstay admission set failover-hosts --refuse",
    "mainstay host failover h3 on",
    "mainstay host failover h3 off",
    "mainstay host confirm-down h1 --yes",
    "mainstay host maintenance enter h1",
    "mainstay host maintenance enter h1 --shutdown --force",
    "mainstay host maintenance leave h1 --bring-back",
    "mainstay suspend --for 2h --no-wait",
    "mainstay resume",
];

#[test]
fn each_order_goes_to_its_path() {
    let paths: Vec<_> = ORDERS.map(ordered).into();
    expect![[r#"
        /v1/vms/web/priority?priority=highest
        /v1/vms/web/priority?priority=default
        /v1/vms/db/ready?when=agent&delay=0&timeout=600
        /v1/vms/db/ready?when=running&delay=30&timeout=3600
        /v1/vms/db/ready?when=command&command=%2Fusr%2Fbin%2Fsystemctl%20is-active%20postgresql&delay=0&timeout=600
        /v1/vms/db/ready?when=default
        /v1/rules/web-apart?strength=must&kind=apart&vms=web1,web%2C%20two&hosts=
        /v1/rules/licences?strength=should&kind=on-hosts&vms=db&hosts=h1,h2
        /v1/rules/a%2Fb/remove
        /v1/groups/front?vms=web1,web2&after=backends,dns
        /v1/groups/backends?vms=db&after=
        /v1/groups/front/remove
        /v1/admission?policy=proved&failures=2&refuse=true
        /v1/admission?policy=host-failures&failures=1&slot_cpu=500&slot_memory=2048&refuse=false
        /v1/admission?policy=percentage&cpu=25&memory=30
        /v1/admission?policy=failover-hosts&refuse=true
        /v1/hosts/h3/failover?keep=true
        /v1/hosts/h3/failover?keep=false
        /v1/hosts/h1/confirm-down
        /v1/hosts/h1/maintenance/enter?how=migrate&force=false
        /v1/hosts/h1/maintenance/enter?how=shutdown&force=true
        /v1/hosts/h1/maintenance/leave?bring_back=true
        /v1/suspend?seconds=7200
        /v1/resume"#]].assert_eq(&paths.join("\n"));
}

#[test]
fn answers_are_told_in_the_agents_words() {
    check(
        Canned::healthy(),
        "mainstay resume",
        expect![[r#"
        h3 has done /v1/resume
    "#]],
    );
    check(
        Canned::healthy(),
        "mainstay resume --json",
        expect![[r#"
        {
          "message": "h3 has done /v1/resume"
        }
    "#]],
    );
    let refusal = Some("h1 can't be emptied: big: h2: 1,024 MiB free, 98,304 MiB needed");
    let canned = Canned { refusal, ..Canned::healthy() };
    check(
        canned,
        "mainstay host maintenance enter h1",
        expect![[r#"
        stderr| error: h1 can't be emptied: big: h2: 1,024 MiB free, 98,304 MiB needed
        exit 1
    "#]],
    );
}

#[test]
fn what_does_not_fit_together_is_wrong_usage_and_says_what_would() {
    let mut text = String::new();
    for line in [
        "mainstay rule set r must on-hosts --vm web",
        "mainstay rule set r must apart --vm web --vm db --host h1",
        "mainstay rule set r must together --vm web",
        "mainstay vm ready db agent --command x",
        "mainstay vm ready db default --delay 3s",
        "mainstay vm ready db command --command=",
    ] {
        let mut canned = Canned::healthy();
        text.push_str(&run(&mut canned, None, line));
        assert!(canned.orders.is_empty(), "{line}");
    }
    expect![[r#"
        stderr| error: a rule on-hosts needs hosts: add --host HOST, once for each
        exit 2
        stderr| error: a rule apart is about VMs only: leave out --host, or make it on-hosts or not-on-hosts
        exit 2
        stderr| error: a rule together needs two VMs at least: add another --vm VM
        exit 2
        stderr| error: a command counts only when it is the condition: say `vm ready VM command --command COMMAND`
        exit 2
        stderr| error: default has no command, delay or time-out of its own: say started --delay TIME, for example
        exit 2
        stderr| error: the command is empty: write what is to be run in the guest, such as --command /bin/true
        exit 2
    "#]].assert_eq(&text);
}

#[test]
fn wrong_words_are_refused_by_the_parser_with_the_right_ones() {
    let mut text = String::new();
    for line in [
        "mainstay vm priority web urgent",
        "mainstay vm ready db command",
        "mainstay rule set r maybe apart --vm a --vm b",
        "mainstay rule set r must apart",
        "mainstay admission set proved --failures 0",
        "mainstay admission set percentage --cpu 101 --memory 1",
        "mainstay admission set failover-hosts --warn --refuse",
        "mainstay host failover h1 maybe",
        "mainstay suspend",
        "mainstay suspend --for 2",
        "mainstay suspend --for 0s",
        "mainstay rehearse --host h1 --fail h2",
        "mainstay rehearse --cut-storage h1:",
    ] {
        let error = Cli::try_parse_from(line.split(' ')).expect_err(line);
        let first =
            error.to_string().lines().take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
        text.push_str(&format!("{first}\n"));
    }
    expect![[r#"
        error: invalid value 'urgent' for '<PRIORITY>'   [possible values: lowest, low, medium, high, highest, disabled, default]
        error: the following required arguments were not provided:   --command <COMMAND>
        error: invalid value 'maybe' for '<STRENGTH>'   [possible values: must, should]
        error: the following required arguments were not provided:   --vm <VM>
        error: invalid value '0' for '--failures <N>': 0 is not in 1..=4294967295
        error: invalid value '101' for '--cpu <P>': 101 is not in 0..=100
        error: the argument '--warn' cannot be used with '--refuse'
        error: invalid value 'maybe' for '<on|off>'   [possible values: on, off]
        error: the following required arguments were not provided:   --for <TIME>
        error: invalid value '2' for '--for <TIME>': '2' is not a length of time; write for example 90s, 30m, 2h, 1d or 1h30m
        error: invalid value '0s' for '--for <TIME>': '0s' is no time at all; write for example 30m or 2h
        error: the argument '--host <HOST>' cannot be used with:   --fail <HOST>   --isolate <HOST>   --cut-storage <HOST[:DATASTORE]>
        error: invalid value 'h1:' for '--cut-storage <HOST[:DATASTORE]>': 'h1:' names no host and datastore; write HOST, or HOST:DATASTORE such as h1:nfs1
    "#]].assert_eq(&text);
}

/// The command with a person at the terminal.
fn confirmed(line: &str, confirm: fn(&str) -> Confirmation) -> (Vec<String>, Result<Exit, String>) {
    let cli = parse(line);
    let mut canned = Canned::host_failed();
    let style = Style { colour: false, width: None, zone: Zone::Utc };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut output = Output { out: &mut out, err: &mut err, style, json: false, confirm, now_us: START_US };
    let result = mainstay_ctl::run(&cli, &mut canned, &mut output);
    (canned.orders, result.map_err(|failure| failure.to_string()))
}

#[test]
fn that_a_host_is_down_is_confirmed_by_a_person_or_by_yes() {
    let line = "mainstay host confirm-down h1";
    let path = vec!["/v1/hosts/h1/confirm-down".to_owned()];
    let asked = |question: &str| {
        expect![[r#"
            h1 (host-1) shows no sign of life to the cluster. If you confirm that it is down, its VMs are started elsewhere.
            If it is not down, each of them then runs twice, and two copies that write to one disk destroy it.
            Make sure that h1 (host-1) has no power. Type yes to confirm: "#]].assert_eq(question);
        Confirmation::Yes
    };
    assert_eq!(confirmed(line, asked), (path.clone(), Ok(Exit::Ok)));
    let (orders, refused) = confirmed(line, |_| Confirmation::No);
    assert!(orders.is_empty());
    assert_eq!(refused, Err("not confirmed: nothing was done".to_owned()));
    let unasked = |_: &str| panic!("nothing is asked with --yes");
    assert_eq!(confirmed("mainstay host confirm-down h1 --yes", unasked), (path, Ok(Exit::Ok)));
    check(
        Canned::host_failed(),
        line,
        expect![[r#"
        stderr| error: there is no terminal to ask on: make sure that h1 (host-1) has no power, then add --yes; if it is not down, its VMs run twice and their disks are destroyed
        exit 1
    "#]],
    );
    check(
        Canned::host_failed(),
        "mainstay host confirm-down h9 --yes",
        expect![[r#"
        stderr| error: there is no host named 'h9'
        stderr| hint: known are: h1 (host-1), h2 (host-2), h3 (host-3)
        exit 1
    "#]],
    );
}

/// host-1 with so many VMs left; those that are there by name and order.
fn emptying(left: u32, vms: &[(&str, Option<u32>)]) -> Later {
    let mut canned = Canned::healthy();
    let view = &mut canned.status_mut().view;
    view.hosts[0].maintenance = Some((Evacuation::Migrate, left).into());
    view.vms = (1..)
        .zip(vms)
        .map(|(number, (name, to))| {
            let mut vm = canned::vm(number, name, Some(id(1)), VmState::Running);
            vm.order = to.map(|to| OrderKind::Migrate(id(to)));
            vm
        })
        .collect();
    (canned.status, Vec::new())
}

fn failed() -> mainstay_api::EventRecord {
    record(
        9_000,
        3,
        Event::VmOrderFailed {
            vm: vm_name(1, "db1"),
            host: id(1),
            order: OrderKind::Migrate(id(2)),
            reason: "unsupported configuration: CPU features are missing".into(),
        },
    )
}

fn emptied() -> Canned {
    let mut canned = Canned::healthy();
    let first = emptying(
        7,
        &[("db1", Some(2)), ("db2", Some(3)), ("db3", None), ("db4", None), ("db5", None), ("db6", None)],
    );
    let mut waits = emptying(3, &[("db1", None), ("scratch", None)]);
    if let Ok(status) = &mut waits.0 {
        status.view.vms[0].note =
            Some("no host can take it: host-2: 1,024 MiB free, 2,048 MiB needed".to_owned());
        status.view.vms[1].token = None;
        status.view.vms[1].note = Some("its first disk is on none of the cluster's datastores".to_owned());
    }
    waits.1 = vec![failed()];
    let lost: Later = (Err("the primary does not answer; try again in a few seconds"), Vec::new());
    let worlds =
        [first.clone(), first, lost.clone(), lost, waits, emptying(1, &[("db1", Some(3))]), emptying(0, &[])];
    canned.later = worlds.into();
    canned
}

#[test]
fn waiting_for_maintenance_shows_progress_until_the_host_is_empty() {
    let mut canned = emptied();
    // What failed before is not told again.
    canned.page.events.push(record(1_000, 3, failed().event.expect("an event")));
    check(
        canned,
        "mainstay host maintenance enter h1 --wait",
        expect![[r#"
            h3 has done /v1/hosts/h1/maintenance/enter?how=migrate&force=false
            7 of 7 VMs left: db1 (migrates to h2), db2 (migrates to h3), db3 (waits), db4 (waits), db5 (waits), 1 more and 1 that Mainstay does not protect: move or stop it yourself
            3 of 7 VMs left: db1 (no host can take it: h2: 1,024 MiB free, 2,048 MiB needed), scratch (not protected, move or stop it yourself: its first disk is on none of the cluster's datastores) and 1 that Mainstay does not protect: move or stop it yourself
            1 of 7 VMs left: db1 (migrates to h3)
            h1 (host-1) is empty, and in maintenance mode
            stderr| Waiting until it is empty. Ctrl-C ends the waiting only; the host goes on being emptied.
            stderr| warning: the primary does not answer; try again in a few seconds; still waiting
            stderr| warning: db1 could not migrate from h1 to h2: unsupported configuration: CPU features are missing
        "#]],
    );
}

#[test]
fn waiting_goes_on_when_the_host_is_being_emptied_already() {
    let already = || Canned {
        refusal: Some("h1 is in maintenance mode already, or on its way into it"),
        status: emptying(1, &[("db1", Some(2))]).0,
        later: std::iter::once(emptying(0, &[])).collect(),
        ..Canned::healthy()
    };
    check(
        already(),
        "mainstay host maintenance enter h1 --wait",
        expect![[r#"
        1 of 1 VM left: db1 (migrates to h2)
        h1 (host-1) is empty, and in maintenance mode
        stderr| note: h1 is in maintenance mode already, or on its way into it
        stderr| Waiting until it is empty. Ctrl-C ends the waiting only; the host goes on being emptied.
    "#]],
    );
    check(
        already(),
        "mainstay host maintenance enter h1 --wait --shutdown",
        expect![[r#"
        stderr| error: h1 is in maintenance mode already, or on its way into it
        exit 1
    "#]],
    );
}

#[test]
fn waiting_for_maintenance_as_json_is_one_line_each() {
    check(
        emptied(),
        "mainstay host maintenance enter h1 --wait --json",
        expect![[r#"
            {"message":"h3 has done /v1/hosts/h1/maintenance/enter?how=migrate&force=false"}
            {"host":"host-1","left":7,"of":7,"vms":[{"name":"db1","order":{"migrate":"host-2"},"note":null},{"name":"db2","order":{"migrate":"host-3"},"note":null},{"name":"db3","order":null,"note":null},{"name":"db4","order":null,"note":null},{"name":"db5","order":null,"note":null},{"name":"db6","order":null,"note":null}]}
            {"host":"host-1","left":3,"of":7,"vms":[{"name":"db1","order":null,"note":"no host can take it: host-2: 1,024 MiB free, 2,048 MiB needed"},{"name":"scratch","order":null,"note":"its first disk is on none of the cluster's datastores"}]}
            {"host":"host-1","left":1,"of":7,"vms":[{"name":"db1","order":{"migrate":"host-3"},"note":null}]}
            {"host":"host-1","left":0,"of":7,"vms":[]}
            stderr| Waiting until it is empty. Ctrl-C ends the waiting only; the host goes on being emptied.
            stderr| warning: the primary does not answer; try again in a few seconds; still waiting
            stderr| warning: db1 could not migrate from h1 to h2: unsupported configuration: CPU features are missing
        "#]],
    );
}

#[test]
fn waiting_ends_when_maintenance_is_ended_by_somebody_or_nobody_answers() {
    let ended: Later = (Canned::healthy().status, Vec::new());
    let mut canned = emptied();
    canned.later =
        std::iter::once(emptying(1, &[("db1", Some(2))])).chain(std::iter::repeat_n(ended, 99)).collect();
    check(
        canned,
        "mainstay host maintenance enter h1 --wait",
        expect![[r#"
            h3 has done /v1/hosts/h1/maintenance/enter?how=migrate&force=false
            1 of 1 VM left: db1 (migrates to h2)
            stderr| Waiting until it is empty. Ctrl-C ends the waiting only; the host goes on being emptied.
            stderr| error: h1 (host-1) is not in maintenance any more: somebody has ended it (see `mainstay events`)
            exit 1
        "#]],
    );
    let mut canned = emptied();
    canned.later = std::iter::repeat_n((Canned::no_primary().status, Vec::new()), 99).collect();
    check(
        canned,
        "mainstay host maintenance enter h1 --wait",
        expect![[r#"
            h3 has done /v1/hosts/h1/maintenance/enter?how=migrate&force=false
            stderr| Waiting until it is empty. Ctrl-C ends the waiting only; the host goes on being emptied.
            stderr| warning: h2 follows no primary at present; an election is under way; still waiting
            stderr| error: h2 follows no primary at present; an election is under way
            exit 1
        "#]],
    );
}
