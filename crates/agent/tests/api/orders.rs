//! Orders: hosts are filled in, and what an order leaves as it is. How each is read: the tests of the crate `api`.

use crate::cluster::Cluster;
use mainstay_api::{Done, Rehearsal};
use mainstay_client::ClientError;
use mainstay_core::ids::HostId;

#[test]
fn hosts_are_meant_by_name_or_id_and_unknown_ones_are_refused() {
    let cluster = Cluster::start(Some(2));
    for n in 1..=2 {
        for name in ["h1", "host-1"] {
            let target = format!("/v1/hosts/{name}/confirm-down");
            let done: Done = cluster.client(n).post(&target).expect("done");
            assert_eq!(done.message, "ConfirmDown { host: id=1 }, says id=2");
        }
        let target = "/v1/rules/r?strength=must&kind=on-hosts&vms=a&hosts=h2,host-1";
        let done: Done = cluster.client(n).post(target).expect("done");
        assert!(done.message.contains("hosts: [id=2, id=1]"), "{}", done.message);
        let refusal = cluster.client(n).post::<Done>("/v1/hosts/h9/failover").expect_err("no such host");
        assert!(
            matches!(&refusal, ClientError::Refused { status: 404, error }
                if error.starts_with("there is no host h9 in this cluster: its hosts are h")),
            "{refusal:?}"
        );
    }
}

#[test]
fn what_is_not_named_of_admission_control_stays() {
    let cluster = Cluster::start(Some(2));
    let set = |query: &str| {
        cluster.client(1).post::<Done>(&format!("/v1/admission?{query}")).expect("done").message
    };
    let done = set("refuse=false");
    assert!(done.contains("Percentage { cpu: 25, memory: 30 }, refuse: false"), "{done}");
    let done = set("policy=proved");
    assert!(done.contains("Proved { failures: 1 }, refuse: true"), "{done}");
}

#[test]
fn a_rehearsal_is_the_primarys_from_any_host() {
    let cluster = Cluster::start(Some(2));
    for n in 1..=2 {
        let rehearsal: Rehearsal = cluster.client(n).get_patiently("/v1/rehearsal").expect("a rehearsal");
        let hosts: Vec<&str> = rehearsal.rehearsed.hosts.iter().map(|plan| plan.host.as_str()).collect();
        assert_eq!(hosts, ["host-1", "host-2"]);
        assert_eq!(rehearsal.host_names[&HostId::new("host-1")], "h1");
    }
    let cluster = Cluster::start(None);
    let refusal = cluster.client(1).get::<Rehearsal>("/v1/rehearsal").expect_err("no primary");
    assert_eq!(refusal.to_string(), "no primary is elected at the moment: try again in a few seconds");
}
