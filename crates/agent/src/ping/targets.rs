//! Whom the core's pings go to: the addresses of each host, and what stands behind each isolation address.

use super::{PingResult, Pinger};
use crate::config::{AgentConfig, IsolationTarget};
use crate::gateway::default_gateways;
use mainstay_core::ids::HostId;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

/// Whom to ping where.
#[derive(Debug)]
pub struct PingTargets {
    pinger: Pinger,
    patience: Duration,
    hosts: BTreeMap<HostId, Vec<IpAddr>>,
    isolation: Vec<IsolationTarget>,
    /// This host's addresses, by which the gateways of the management networks are known.
    own: Vec<IpAddr>,
    /// The gateways as last seen: when an interface is down its gateway is gone from the route table, and must
    /// still count as an address that does not answer.
    gateways: Vec<IpAddr>,
}

impl PingTargets {
    /// The targets of that configuration; each ping may take so long.
    #[must_use]
    pub fn new(config: &AgentConfig, patience: Duration) -> PingTargets {
        PingTargets {
            pinger: Pinger::start(),
            patience,
            hosts: config.peers.iter().map(|peer| (peer.id.clone(), peer.ips())).collect(),
            isolation: config.isolation.targets(),
            own: config.me.ips(),
            gateways: config.isolation.gateways.clone(),
        }
    }

    /// Says at start what will not work, and what follows from it.
    pub fn warn_of_gaps(&self) {
        let isolation = self.isolation.iter().filter_map(|target| match target {
            IsolationTarget::Address(address) => Some(address),
            // Of the kind of an own address.
            IsolationTarget::DefaultGateway => None,
        });
        let addresses = self.own.iter().chain(self.hosts.values().flatten()).chain(isolation);
        for (kind, is_ipv6) in [("IPv4", false), ("IPv6", true)] {
            let needed = addresses.clone().find(|address| address.is_ipv6() == is_ipv6);
            if let Some(Err(why)) = needed.map(|address| Pinger::check(*address)) {
                tracing::error!(
                    kind,
                    why,
                    "this host can't send pings: it never judges a silent host as failed (it can't tell it from one \
                     whose agent is unreachable), so while it is primary no VM of a failed host is restarted; and it \
                     never finds itself isolated"
                );
            }
        }
        if self.isolation.is_empty() {
            tracing::warn!(
                "no isolation address: there is no default gateway in a management network, or it is not used; this \
                 host never finds itself isolated, and its isolation response never happens; name machines that \
                 are always there under [isolation] addresses, and restart the agent"
            );
        }
    }

    /// Whether that host answers at any of its addresses.
    pub fn host(&self, host: &HostId) -> impl Future<Output = bool> + Send + use<> {
        let addresses = self.hosts.get(host).cloned().unwrap_or_default();
        any_answers(self.pinger.clone(), addresses, self.patience)
    }

    /// Whether the isolation address of that number answers.
    pub fn isolation(&mut self, index: usize) -> impl Future<Output = bool> + Send + use<> {
        let addresses = match self.isolation.get(index) {
            Some(IsolationTarget::Address(address)) => vec![*address],
            Some(IsolationTarget::DefaultGateway) => self.present_gateways(),
            // The core was told how many there are.
            None => Vec::new(),
        };
        any_answers(self.pinger.clone(), addresses, self.patience)
    }

    fn present_gateways(&mut self) -> Vec<IpAddr> {
        let found = default_gateways(&self.own);
        if !found.is_empty() && found != self.gateways {
            tracing::info!(gateways = ?found, before = ?self.gateways, "the default gateway has changed");
            self.gateways = found;
        }
        self.gateways.clone()
    }
}

/// Pings all at once; the first answer decides. Where pings are impossible the answer is yes: what follows from "no" (a
/// host is failed, this host is isolated) must not follow from a missing privilege.
async fn any_answers(pinger: Pinger, addresses: Vec<IpAddr>, patience: Duration) -> bool {
    let mut pings = JoinSet::new();
    for address in addresses {
        let pinger = pinger.clone();
        pings.spawn(async move { (address, pinger.ping(address, patience).await) });
    }
    while let Some(ended) = pings.join_next().await {
        match ended {
            Ok((address, PingResult::Answered { rtt })) => {
                tracing::debug!(%address, ?rtt, "answers pings");
                return true;
            }
            Ok((_, PingResult::NoAnswer)) => {}
            Ok((address, PingResult::CannotSend { why })) => {
                tracing::debug!(%address, why, "no ping could be sent");
            }
            Ok((address, PingResult::Impossible { why })) => {
                // Once: what lasts was said at start, what does not need not fill the log.
                static SAID: AtomicBool = AtomicBool::new(false);
                if !SAID.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%address, why, "no ping is possible: the address is taken for one that answers");
                }
                return true;
            }
            Err(error) => tracing::warn!(%error, "a ping broke off; please report this"),
        }
    }
    false
}
