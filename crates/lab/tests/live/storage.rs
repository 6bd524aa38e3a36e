//! Datastores that are missing at start, full, or shared with another cluster.

use std::collections::BTreeSet;
use std::fs;

use mainstay_api::Status;
use mainstay_lab::{DatastoreConfig, Host, PowerOn, VmOptions};
use mainstay_words::Event;
use mainstay_words::HostState;
use mainstay_words::ids::HostId;
use mainstay_words::view::VmState;

use crate::support::{Alarm, Boots, Cluster, LONG, Setup, alarms, calm, id, returning};

/// Waits until all these VMs, of which some were restarted since, run anew and the owner has said so of each: it says no more of it in
/// the next step. (Until the owner has read what their host says, its view is that they run as before.)
fn wait_for_restarts(c: &Cluster, before: &Boots, vms: &BTreeSet<String>) {
    for vm in vms {
        c.wait("it to have booted anew", || c.lab.guest_record(vm).is_ok_and(|r| r.boots > before[vm]));
        let told = |e: &Event| matches!(e, Event::VmRestarted { vm: of, .. } if *of.name == **vm);
        c.wait("its restart to be told", || c.seen(told));
        c.wait("it to be protected", || {
            c.vm_view(vm).is_some_and(|v| v.protected && v.state == VmState::Running)
        });
    }
}

#[test]
fn three_hosts_datastore_is_missing_at_start_of_one() {
    let datastores = vec![DatastoreConfig::gluster("ds1"), DatastoreConfig::gluster("ds2")];
    let Some(mut c) = Cluster::up(Setup { vms: &[1, 2, 3], datastores, ..Setup::default() }) else { return };
    let on_ds2 = VmOptions { datastore: Some("ds2".into()), ..VmOptions::default() };
    c.step("a VM on the second datastore", calm(), |c| {
        c.lab.define_vm(2, "other", &on_ds2).expect("a VM");
        c.settle(&[]);
    });
    let perhaps = [Alarm::Failed(1), Alarm::AgentUnreachable(1)];
    c.step("a host comes up without it", alarms(&[Alarm::DatastoreLost("ds2")]).perhaps(&perhaps), |c| {
        let (before, moved) = (c.boots(), c.vms_on(1));
        c.power_off(1);
        let how =
            PowerOn { agent: true, without_datastores: vec!["ds2".into()], ..PowerOn::default() };
        c.host(1).power_on_with(&how).unwrap_or_else(|e| panic!("{e}"));
        c.wait("it to be there without ds2", || {
            c.host_view(1).is_some_and(|h| {
                let names: Vec<&str> = h.datastores.iter().map(|d| d.as_str()).collect();
                h.state == HostState::Connected && names == ["ds1"]
            })
        });
        c.wait("the alarm to stand", || {
            let is_it = |e: &Event| matches!(e, Event::DatastoreLost { datastore, .. } if datastore.as_str() == "ds2");
            c.status().is_some_and(|s| s.alarms.iter().any(|a| a.host == id(1) && a.event.as_ref().is_some_and(is_it)))
        });
        wait_for_restarts(c, &before, &moved);
        c.wait("all to be protected", || {
            c.status().is_some_and(|s| s.view.vms.iter().all(|v| v.protected) && s.view.vms.len() == 4)
        });
        c.assert_restarted_once(&before, &moved);
    });
    c.step("another host fails: ds2's VM goes where ds2 is", alarms(&[Alarm::Failed(2)]), |c| {
        let (before, moved) = (c.boots(), c.vms_on(2));
        assert!(moved.contains("other"));
        c.power_off(2);
        wait_for_restarts(c, &before, &moved);
        for vm in &moved {
            c.lab.wait_for_beats(vm, 2, LONG).expect("it beats");
        }
        assert_eq!(c.lab.hosts_running("other").expect("the runners"), [3]);
        c.assert_restarted_once(&before, &moved);
    });
    c.step("the datastore is mounted: the host joins by itself", returning(&[2]), |c| {
        let before = c.running();
        c.host(1).mount_datastore("ds2").expect("mounted");
        c.settle(&[]);
        c.assert_untouched(&before);
        c.power_on(2);
        c.settle(&[]);
        c.assert_untouched(&before);
    });
    c.down();
}

#[test]
fn three_hosts_datastore_is_full() {
    let datastores = vec![DatastoreConfig::gluster("ds1").sized(64)];
    let Some(mut c) = Cluster::up(Setup { vms: &[1, 2, 3], datastores, ..Setup::default() }) else { return };
    let late = [Alarm::NotProtectable("late")];
    c.step("a VM is started on a full datastore", alarms(&late), |c| {
        let options = VmOptions::default();
        c.lab.create_disk("late", &options).expect("a disk");
        // Its space has to be there already, or its guest could not write either.
        let disk = c.lab.disk_path("late").expect("its path");
        fs::write(&disk, fs::read(&disk).expect("its bytes")).expect("its space");
        // The first look at a file made behind Gluster's back needs space too.
        c.host(1).exec(&["stat", "/srv/ds1/late/disk.raw"]).expect("seen");
        c.lab.fill_datastore("ds1").expect("full");
        c.lab.define_existing(1, "late", &options).expect("defined");
        c.host(1).virsh(&["start", "late"]).expect("started");
        c.lab.wait_for_beats("late", 2, LONG).expect("it runs all the same");
        c.wait("the reason to be told", || {
            let told = |e: &Event| {
                matches!(e, Event::VmNotProtectable { vm, reason }
                    if &*vm.name == "late" && reason.contains("No space left"))
            };
            c.status().is_some_and(|s| s.alarms.iter().any(|a| a.event.as_ref().is_some_and(told)))
        });
        assert!(c.vm_view("late").is_none_or(|v| !v.protected));
    });
    c.step("a host fails: what was protected before is restarted", alarms(&[Alarm::Failed(1)]), |c| {
        let before = c.boots();
        c.power_off(1);
        let moved: BTreeSet<String> = ["vm1".to_string()].into();
        wait_for_restarts(c, &before, &moved);
        c.lab.wait_for_beats("vm1", 2, LONG).expect("it beats");
        c.assert_restarted_once(&before, &moved);
        assert!(c.lab.hosts_running("late").expect("the runners").is_empty(), "nobody knows how to start it");
    });
    c.step("there is space again", returning(&[1]), |c| {
        c.lab.drain_datastore("ds1").expect("drained");
        c.lab.define_existing(2, "late", &VmOptions::default()).expect("defined");
        c.host(2).virsh(&["start", "late"]).expect("started");
        c.settle(&[]);
        c.power_on(1);
        c.settle(&[]);
    });
    c.down();
}

/// Starts an agent of another cluster in a host, on the same datastore.
fn start_other_cluster(c: &Cluster, host: &Host<'_>, others: &[usize]) {
    let etc = host.dir().join("etc-mainstay");
    let address = |h: usize| format!("{}:7790", mainstay_lab::Net::Mgmt.address(h));
    let peers: String = others
        .iter()
        .filter(|o| **o != host.number())
        .map(|o| format!("[[peer]]\nid = \"host-{o}\"\nname = \"h{o}\"\naddress = \"{}\"\n", address(*o)))
        .collect();
    let text = format!(
        "state_dir = \"/var/lib/mainstay/other\"
[cluster]
id = \"0000000b\"
name = \"other\"
key_file = \"/etc/mainstay/other.key\"
[host]
id = \"host-{number}\"
name = \"h{number}\"
address = \"{address}\"
{peers}[[datastore]]
name = \"ds1\"
path = \"/srv/ds1\"
[libvirt]
uri = \"test:///default\"
[api]
socket = \"/run/mainstay/other/agent.sock\"
[log]
format = \"json\"
",
        number = host.number(),
        address = address(host.number()),
    );
    fs::write(etc.join("other.toml"), text).expect("its configuration");
    let key = "0123456789abcdef".repeat(4);
    host.exec_with_input(&["sh", "-c", "umask 077; cat > /etc/mainstay/other.key"], &key).expect("its key");
    let binary = c.lab.agent_binary().expect("the agent").display().to_string();
    host.spawn_daemon("other", &[binary.as_str(), "agent", "--config", "/etc/mainstay/other.toml"])
        .expect("started");
}

#[test]
fn three_hosts_two_clusters_share_a_datastore() {
    let Some(mut c) = Cluster::up(Setup { vms: &[1, 2, 3], ..Setup::default() }) else { return };
    let other = |c: &Cluster, host: usize| -> Option<Status> {
        let client = mainstay_client::Client::new(c.host(host).dir().join("run/other/agent.sock"));
        client.get::<Status>("/v1/status").ok().filter(|s| s.complete)
    };
    let owner = |status: &Status| status.view.datastores[0].owner.clone();
    // The other cluster has a primary of its own, the first of these two to be there when the second one is late.
    let both = [1, 2];
    let owned = |c: &Cluster, by: &[usize]| -> Option<HostId> {
        let status = by.iter().find_map(|host| other(c, *host))?;
        let primary = status.view.primary.clone();
        (status.cluster_id == "0000000b" && owner(&status) == primary).then_some(primary)?
    };
    let own = |c: &Cluster| c.wait_for("a primary's answer", || owner(&c.status()?));
    let ours = own(&c);
    let mut theirs = None;
    c.step("another cluster comes", calm(), |c| {
        let before = c.running();
        for host in both {
            start_other_cluster(c, &c.host(host), &both);
        }
        c.wait("it to own the datastore for itself, and both hosts to belong to it", || {
            theirs = owned(c, &both);
            theirs.is_some() && both.iter().all(|host| owned(c, &[*host]) == theirs)
        });
        c.settle(&[]);
        c.assert_untouched(&before);
        assert_eq!(own(c), ours);
        let view = c.wait_for("its view", || other(c, 1)).view;
        assert!(
            view.vms.iter().all(|vm| !vm.name.starts_with("vm")),
            "the other one's VMs are not its own: {:?}",
            view.vms
        );
        let folders = fs::read_dir(c.lab.dir().join("store/ds1/.mainstay")).expect("the folders");
        let mut folders: Vec<String> =
            folders.flatten().map(|f| f.file_name().to_string_lossy().into_owned()).collect();
        folders.sort();
        assert_eq!(folders, ["0000000b-other", "1ab0001a-lab"]);
    });
    let (fails, stays) = if theirs == Some(id(1)) { (1, 2) } else { (2, 1) };
    c.step("a host of both fails", alarms(&[Alarm::Failed(fails)]), |c| {
        let (before, moved) = (c.boots(), c.vms_on(fails));
        c.power_off(fails);
        c.settle(&[]);
        c.assert_restarted_once(&before, &moved);
        if ours != id(fails) {
            assert_eq!(own(c), ours);
        }
        c.wait("the other cluster to have moved by itself", || owned(c, &[stays]) == Some(id(stays)));
    });
    c.down();
}
