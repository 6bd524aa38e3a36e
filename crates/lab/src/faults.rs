//! Faults of the networks, each with its undo. [`Lab::heal`] undoes them all.
//!
//! All of them are kept in the state, survive the hosts' power cycles as a broken switch does, and may overlap.

use crate::config::Net;
use crate::error::{LabError, Result};
use crate::host::Host;
use crate::lab::Lab;
use crate::network;
use crate::state::{Cut, Direction, NetFaults, Split};

impl Lab {
    /// Changes the faults of the networks and makes it so.
    fn change_faults(&self, change: impl FnOnce(&mut NetFaults)) -> Result<()> {
        self.registry.update(|s| {
            change(&mut s.faults);
            let powered: Vec<bool> = s.hosts.iter().map(|h| h.on).collect();
            network::apply_faults(&s.config, &s.faults, &powered)
        })
    }

    /// A network falls apart: hosts of different groups don't hear each other; hosts in no group hear everybody; all
    /// still reach the switch itself (gateway, storage server). Replaces an earlier split of that network.
    pub fn split(&self, net: Net, groups: &[&[usize]]) -> Result<()> {
        for host in groups.iter().copied().flatten() {
            self.host(*host)?;
        }
        let mut all: Vec<usize> = groups.iter().copied().flatten().copied().collect();
        all.sort_unstable();
        if all.windows(2).any(|w| w[0] == w[1]) {
            return Err(LabError::Config("a host can't be on two sides of a split".into()));
        }
        let groups = groups.iter().map(|g| g.to_vec()).collect();
        self.change_faults(|f| {
            f.splits.retain(|s| s.net != net);
            f.splits.push(Split { net, groups });
        })
    }

    /// Joins a network that was split.
    pub fn unsplit(&self, net: Net) -> Result<()> {
        self.change_faults(|f| f.splits.retain(|s| s.net != net))
    }

    /// What one host sends doesn't reach another (or does again). The other way is not touched.
    pub fn drop_pair(&self, net: Net, from: usize, to: usize, dropped: bool) -> Result<()> {
        self.host(from)?;
        self.host(to)?;
        self.change_faults(|f| {
            f.pairs.retain(|p| *p != (net, from, to));
            if dropped {
                f.pairs.push((net, from, to));
            }
        })
    }

    /// Undoes every fault of the networks.
    pub fn heal(&self) -> Result<()> {
        self.change_faults(|f| *f = NetFaults::default())
    }
}

impl Host<'_> {
    /// Cuts the host off from a network. [`Cut::Silent`] is what the host can't see: its card keeps its link.
    pub fn cut(&self, net: Net, how: Cut) -> Result<()> {
        self.lab.change_faults(|f| f.link_mut(self.number, net).cut = Some(how))
    }

    /// Connects the host with that network again, after [`Host::cut`].
    pub fn join(&self, net: Net) -> Result<()> {
        self.lab.change_faults(|f| f.link_mut(self.number, net).cut = None)
    }

    /// Nothing gets through in one direction, dropped in the switch, so that the host can't see it.
    pub fn drop_direction(&self, net: Net, direction: Direction) -> Result<()> {
        self.lab.change_faults(|f| {
            let dropped = &mut f.link_mut(self.number, net).dropped;
            if !dropped.contains(&direction) {
                dropped.push(direction);
            }
        })
    }

    /// Undoes [`Host::drop_direction`] for both directions.
    pub fn undrop(&self, net: Net) -> Result<()> {
        self.lab.change_faults(|f| f.link_mut(self.number, net).dropped.clear())
    }

    /// Loses that share of all packets in each direction; 0 undoes it.
    pub fn lose_packets(&self, net: Net, percent: u8) -> Result<()> {
        self.lab.change_faults(|f| f.link_mut(self.number, net).loss_percent = percent.min(100))
    }

    /// Whether the switch itself (gateway, storage server) hears the host; other hosts do in any case.
    pub fn set_gateway_reachable(&self, net: Net, reachable: bool) -> Result<()> {
        self.lab.change_faults(|f| f.link_mut(self.number, net).no_gateway = !reachable)
    }

    /// A firewall rule inside the host drops one direction. Unlike [`Host::drop_direction`], the host's own programs
    /// notice: sending fails with "Operation not permitted". Gone after a power-off.
    pub fn firewall_drop(&self, net: Net, direction: Direction) -> Result<()> {
        let (nic, hook, which) = match direction {
            Direction::In => (net.nic(), "input", "iifname"),
            Direction::Out => (net.nic(), "output", "oifname"),
        };
        let rules = format!(
            "table inet lab {{\n chain c_{hook} {{\n  type filter hook {hook} priority 0;\n  {which} \"{nic}\" drop\n }}\n}}\n"
        );
        self.exec_with_input(&["nft", "-f", "-"], &rules).map(drop)
    }

    /// Removes the rules of [`Host::firewall_drop`].
    pub fn firewall_clear(&self) -> Result<()> {
        self.exec_with_input(&["nft", "-f", "-"], "table inet lab\ndelete table inet lab\n").map(drop)
    }
}
