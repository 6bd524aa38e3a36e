//! What this host can give to VMs besides room: asked for when libvirt has come, and now and then, since networks, bridges and
//! devices come and go without libvirt telling.
//!
//! Invariant: no answer leaves what was told before. The core takes "never told" for "nothing speaks against this host".

use super::{Errand, Pending, VmNews, Vms};
use mainstay_core::Input;
use mainstay_core::settings::HostOffers;
use mainstay_hypervisor as hv;
use std::sync::Arc;
use std::time::Duration;

/// How often it is asked for. The answer costs libvirtd a few milliseconds; what has changed delays nothing, a start that it
/// would have prevented only fails and is tried elsewhere.
pub const OFFERS_INTERVAL: Duration = Duration::from_secs(300);

/// What was told last, and which question is open.
#[derive(Debug, Default)]
pub(super) struct Offers {
    told: Option<Arc<HostOffers>>,
    /// Grows when libvirt comes back: what belongs to an earlier round asks no more.
    round: u64,
}

impl Vms {
    /// libvirt has come, or come back.
    pub(super) fn ask_offers(&mut self, errands: &mut Vec<Errand>) {
        self.offers.round += 1;
        self.submit(Pending::Offers(self.offers.round), hv::Op::HostOffers, errands);
    }

    pub(super) fn ask_offers_again(&mut self, round: u64, errands: &mut Vec<Errand>) {
        if round == self.offers.round {
            self.submit(Pending::Offers(round), hv::Op::HostOffers, errands);
        }
    }

    pub(super) fn on_offers(
        &mut self,
        round: u64,
        result: Result<hv::OpOutput, hv::OpError>,
        inputs: &mut Vec<Input>,
        errands: &mut Vec<Errand>,
    ) {
        match result {
            Ok(hv::OpOutput::HostOffers(offers)) => {
                let offers = host_offers(*offers);
                if self.offers.told.as_deref() != Some(&offers) {
                    let offers = Arc::new(offers);
                    self.offers.told = Some(Arc::clone(&offers));
                    inputs.push(Input::Offers(offers));
                }
            }
            Ok(other) => tracing::warn!(?other, "not what this host offers; please report this"),
            Err(error) => tracing::debug!(%error, "libvirt does not tell what this host offers"),
        }
        if round == self.offers.round {
            errands.push(Errand::Later(OFFERS_INTERVAL, VmNews::OffersAgain(round)));
        }
    }
}

fn host_offers(offers: hv::HostOffers) -> HostOffers {
    let bridges = offers.bridges.iter().map(|name| bridge(name));
    // Two devices of one name are two of a kind: each stands for itself.
    let mut devices: Vec<Arc<str>> = offers.devices.into_iter().map(Arc::from).collect();
    devices.sort_unstable();
    HostOffers {
        networks: names(offers.networks.into_iter().chain(bridges)),
        cpu_models: names(offers.cpu_models),
        machines: names(offers.machine_types),
        devices,
        cpu_mhz: offers.cpu_mhz,
    }
}

/// A bridge's name among networks.
pub(super) fn bridge(name: &str) -> String {
    format!("bridge {name}")
}

/// Sorted and each once, so that the same names are always the same list.
pub(super) fn names(names: impl IntoIterator<Item = String>) -> Vec<Arc<str>> {
    let mut names: Vec<Arc<str>> = names.into_iter().map(Arc::from).collect();
    names.sort_unstable();
    names.dedup();
    names
}
