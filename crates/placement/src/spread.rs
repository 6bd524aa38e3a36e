//! The former simple spread: one VM at a time, memory only, no rules.
//!
//! Why it is still here: the owner's protected list decides with it until it works on a whole [`Picture`](crate::Picture).
//! Nothing else in this crate uses it, and nothing new should.

use alloc::string::String;
use alloc::vec::Vec;

/// A host, as far as placement is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRoom {
    /// Why it can't take any VM now, if so: not connected, no libvirt, no contact with the datastore.
    pub unusable: Option<&'static str>,
    /// Memory in MiB that VMs could still take, less what was granted to it just now.
    pub memory_free_mib: u64,
    /// VMs that it runs or was granted.
    pub domains: u32,
    /// It lost this VM, or failed to start it, a short while ago: tried last.
    pub failed_recently: bool,
    /// Prefer it over all others (the VM's QEMU crashed there, and that is the first attempt).
    pub preferred: bool,
}

/// Chooses the host for a VM that needs `memory_mib`: a preferred one, else one that has not just failed, else the one with the
/// fewest VMs, else the most memory left, else the first. `Err` has the reason for each host, in order.
pub fn choose_spread(hosts: &[HostRoom], memory_mib: u64) -> Result<usize, Vec<String>> {
    let refusal = |host: &HostRoom| match host.unusable {
        Some(reason) => Some(String::from(reason)),
        None if host.memory_free_mib < memory_mib => {
            Some(alloc::format!("{} MiB free, {memory_mib} MiB needed", host.memory_free_mib))
        }
        None => None,
    };
    let fits = hosts.iter().enumerate().filter(|(_, host)| refusal(host).is_none());
    let order = |(index, host): &(usize, &HostRoom)| {
        (!host.preferred, host.failed_recently, host.domains, u64::MAX - host.memory_free_mib, *index)
    };
    match fits.min_by_key(order) {
        Some((index, _)) => Ok(index),
        None => Err(hosts.iter().map(|host| refusal(host).unwrap_or_default()).collect()),
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    fn room(memory_free_mib: u64, domains: u32) -> HostRoom {
        HostRoom { unusable: None, memory_free_mib, domains, failed_recently: false, preferred: false }
    }

    #[test]
    fn fewest_vms_first_then_most_memory() {
        assert_eq!(choose_spread(&[room(900, 3), room(800, 1), room(700, 1)], 100), Ok(1));
    }

    #[test]
    fn one_that_failed_recently_is_tried_last_but_tried() {
        let failed = HostRoom { failed_recently: true, ..room(900, 0) };
        assert_eq!(choose_spread(&[failed.clone(), room(800, 9)], 100), Ok(1));
        assert_eq!(choose_spread(&[failed, room(8, 9)], 100), Ok(0));
    }

    #[test]
    fn refusal_names_each_host_s_reason() {
        let cut = HostRoom { unusable: Some("not connected"), ..room(900, 0) };
        let reasons = choose_spread(&[cut, room(50, 0)], 100).unwrap_err();
        assert_eq!(reasons, ["not connected", "50 MiB free, 100 MiB needed"]);
    }

    proptest! {
        #[test]
        fn never_chooses_a_host_without_room(
            hosts in prop::collection::vec((any::<bool>(), 0u64..200, 0u32..9, any::<bool>()), 0..8),
            need in 0u64..200,
        ) {
            let rooms: Vec<HostRoom> = hosts
                .into_iter()
                .map(|(cut, memory_free_mib, domains, failed_recently)| HostRoom {
                    unusable: cut.then_some("cut"), memory_free_mib, domains, failed_recently, preferred: false,
                })
                .collect();
            match choose_spread(&rooms, need) {
                Ok(index) => {
                    prop_assert!(rooms[index].unusable.is_none());
                    prop_assert!(rooms[index].memory_free_mib >= need);
                }
                Err(reasons) => {
                    prop_assert_eq!(reasons.len(), rooms.len());
                    prop_assert!(rooms.iter().all(|room| room.unusable.is_some() || room.memory_free_mib < need));
                }
            }
        }
    }
}
