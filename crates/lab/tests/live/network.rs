//! The management network is cut while the storage is kept: partitioned, not failed.

use std::time::Duration;

use mainstay_core::host_liveness::HostState;
use mainstay_lab::{Cut, Net};

use crate::support::{Cluster, Setup, calm};

#[test]
fn three_hosts_management_network_is_cut_with_storage_kept() {
    let Some(mut c) = Cluster::up(Setup::default()) else { return };
    for host in [1, 3] {
        let who = if host == 3 { "the primary" } else { "a secondary" };
        c.step(&format!("{who} is cut off"), calm(), |c| {
            let before = c.running();
            c.host(host).cut(Net::Mgmt, Cut::Silent).expect("cut");
            c.wait("the others to call it partitioned", || {
                c.status_by(2).is_ok_and(|s| {
                    let of_it = |h: &&mainstay_core::view::HostView| h.host == crate::support::id(host);
                    s.complete
                        && s.view.hosts.iter().find(of_it).map(|h| h.state) == Some(HostState::Partitioned)
                })
            });
            std::thread::sleep(Duration::from_secs(10));
            c.assert_untouched(&before);
            c.host(host).join(Net::Mgmt).expect("joined");
            c.settle(&[]);
            c.assert_untouched(&before);
        });
    }
    c.down();
}
