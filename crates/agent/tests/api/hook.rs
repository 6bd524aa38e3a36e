//! libvirt's hook: what is allowed, what is refused, and that nobody who is down keeps a VM from starting.

use crate::cluster::{Cluster, ORDERED, STARTING};
use mainstay_api::Done;
use mainstay_client::ClientError;
use mainstay_core::VmId;
use std::time::{Duration, Instant};

const ANY: VmId = VmId([9; 16]);

fn xml(vm: VmId, name: &str, disk: &str) -> Vec<u8> {
    format!(
        "<domain type='kvm'><name>{name}</name><uuid>{vm}</uuid><memory unit='MiB'>512</memory><vcpu>1</vcpu>\
         <devices><disk type='file' device='disk'><source file='{disk}'/><target dev='vda'/></disk></devices></domain>"
    )
    .into_bytes()
}

fn ask(cluster: &Cluster, n: u32, operation: &str, xml: Vec<u8>) -> Result<String, ClientError> {
    let target = format!("/v1/hook?operation={operation}");
    cluster.client(n).post_body::<Done>(&target, xml).map(|done| done.message)
}

fn refusal(answer: Result<String, ClientError>) -> String {
    match answer {
        Err(ClientError::Refused { status: 409, error }) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_primary_decides_about_a_start_on_any_host() {
    let cluster = Cluster::start(Some(2));
    let on = |name| xml(ANY, name, "/srv/ds1/x.img");
    for (n, host) in [(1, "h1"), (2, "h2")] {
        assert_eq!(ask(&cluster, n, "prepare", on("roomy")).expect("allowed"), "");
        assert_eq!(
            ask(&cluster, n, "prepare", on("tight")).expect("allowed"),
            format!("{host} is nearly full, says h2")
        );
        assert_eq!(
            refusal(ask(&cluster, n, "prepare", on("huge"))),
            format!("no room for huge of ds1 on {host}, says h2")
        );
    }
}

#[test]
fn a_start_of_mainstays_own_is_always_allowed() {
    let cluster = Cluster::start(Some(2));
    for n in 1..=2 {
        let own = xml(STARTING, "huge", "/srv/ds1/x.img");
        assert_eq!(ask(&cluster, n, "prepare", own).expect("allowed"), "");
    }
}

#[test]
fn a_vm_on_no_datastore_of_the_cluster_is_allowed() {
    let cluster = Cluster::start(Some(2));
    let elsewhere = xml(ANY, "huge", "/var/lib/libvirt/images/x.img");
    assert_eq!(ask(&cluster, 1, "prepare", elsewhere).expect("allowed"), "");
}

#[test]
fn a_migration_that_mainstay_ordered_is_allowed_on_its_target_only() {
    let cluster = Cluster::start(Some(2));
    let ordered = || xml(ORDERED, "ordered", "/srv/ds1/x.img");
    assert_eq!(ask(&cluster, 1, "prepare", ordered()).expect("allowed"), "");
    assert!(refusal(ask(&cluster, 2, "prepare", ordered())).starts_with("no room for ordered"));
}

#[test]
fn the_announcement_of_a_migration_is_allowed_since_prepare_follows() {
    let cluster = Cluster::start(Some(2));
    assert_eq!(ask(&cluster, 1, "migrate", xml(ANY, "huge", "/srv/ds1/x.img")).expect("allowed"), "");
}

#[test]
fn an_announced_migration_arrives_once_and_the_next_start_is_one_by_hand() {
    let cluster = Cluster::start(Some(2));
    let moving = |vm| xml(vm, "moving", "/srv/ds1/x.img");
    for n in 1..=2 {
        assert!(refusal(ask(&cluster, n, "prepare", moving(ANY))).starts_with("no room for moving"));
        assert_eq!(ask(&cluster, n, "migrate", moving(ANY)).expect("allowed"), "");
        let other = VmId([3; 16]);
        assert!(refusal(ask(&cluster, n, "prepare", moving(other))).starts_with("no room for moving"));
        assert!(refusal(ask(&cluster, 3 - n, "prepare", moving(ANY))).starts_with("no room for moving"));
        assert_eq!(ask(&cluster, n, "prepare", moving(ANY)).expect("allowed"), "");
        assert!(refusal(ask(&cluster, n, "prepare", moving(ANY))).starts_with("no room for moving"));
    }
}

#[test]
fn without_a_primary_or_its_answer_everything_is_allowed_with_a_warning() {
    let huge = || xml(ANY, "huge", "/srv/ds1/x.img");
    let allowed = |cluster: &Cluster, xml| ask(cluster, 1, "prepare", xml).expect("allowed");
    assert_eq!(
        allowed(&Cluster::start(None), huge()),
        "allowed without asking admission control: no primary is elected at the moment"
    );
    let gone = allowed(&Cluster::start(Some(3)), huge());
    assert!(gone.contains("the primary host-3 could not be asked"), "{gone}");
    for primary in [1, 2] {
        let cluster = Cluster::start(Some(primary));
        let begun = Instant::now();
        let silent = xml(ANY, "silent", "/srv/ds1/x.img");
        let message = allowed(&cluster, silent);
        assert!(message.starts_with("allowed without asking admission control: "), "{message}");
        assert!(begun.elapsed() < Duration::from_secs(10), "libvirtd waits for it");
    }
}

#[test]
fn xml_that_cannot_be_read_keeps_nobody_from_starting() {
    let cluster = Cluster::start(Some(2));
    for xml in [&b"<domain"[..], b"", b"\xff\xfe"] {
        let message = ask(&cluster, 1, "prepare", xml.to_vec()).expect("allowed");
        assert!(message.contains("the domain XML can't be used"), "{message}");
    }
}

#[test]
fn in_the_first_minutes_of_a_boot_a_protected_vm_waits_for_a_primary() {
    let cluster = Cluster::start(None);
    let ask = |vm| ask(&cluster, 1, "prepare", xml(vm, "web", "/srv/ds1/x.img"));
    let kept = format!("{{\"vm\":\"{ANY}\",\"name\":\"web\",\"datastore\":\"ds1\",\"protected\":true}}");
    std::fs::write(cluster.dir.path().join("protected-vms.json"), format!("{{\"vms\":[{kept}]}}"))
        .expect("written");
    std::fs::write(cluster.dir.path().join("uptime"), "20.00 3.00\n").expect("written");
    let text = refusal(ask(ANY));
    assert!(
        text.starts_with(
            "web is protected and may run on another host, and no primary is elected at the moment. "
        ),
        "{text}"
    );
    assert!(ask(VmId([3; 16])).expect("allowed").starts_with("allowed without asking"), "nobody protects it");
    std::fs::write(cluster.dir.path().join("uptime"), "301.00 3.00\n").expect("written");
    assert!(ask(ANY).expect("allowed").starts_with("allowed without asking"), "the first minutes are over");
}

#[test]
fn in_the_first_minutes_of_a_boot_a_live_migration_is_let_in() {
    let cluster = Cluster::start(None);
    let kept = format!("{{\"vm\":\"{ANY}\",\"name\":\"web\",\"datastore\":\"ds1\",\"protected\":true}}");
    std::fs::write(cluster.dir.path().join("protected-vms.json"), format!("{{\"vms\":[{kept}]}}"))
        .expect("written");
    std::fs::write(cluster.dir.path().join("uptime"), "20.00 3.00\n").expect("written");
    let web = || xml(ANY, "web", "/srv/ds1/x.img");
    assert_eq!(ask(&cluster, 1, "migrate", web()).expect("allowed"), "");
    assert!(ask(&cluster, 1, "prepare", web()).expect("allowed").starts_with("allowed without asking"));
    assert!(refusal(ask(&cluster, 1, "prepare", web())).starts_with("web is protected"), "a start by hand");
}
