//! The rehearsal: what each host's failure would come to. The driver gives the picture, which is quick; working it out may
//! take seconds in a large cluster and has a thread of its own.

use super::{Answer, Refusal, Service, ok};
use crate::driver::Question;
use mainstay_api::Rehearsal;
use mainstay_core::view::Role;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long the primary may take: a thousand hosts are worked out in less.
pub(super) const REHEARSAL_PATIENCE: Duration = Duration::from_secs(60);

impl Service {
    pub(super) async fn rehearsal(&self, may_forward: bool) -> Result<Answer, Refusal> {
        let view = self.look().await?.view;
        if view.role != Role::Primary {
            let primary = view.primary.filter(|primary| *primary != self.me.id && may_forward);
            let primary = primary.ok_or_else(|| {
                Refusal::new(503, "no primary is elected at the moment: try again in a few seconds")
            })?;
            let answer = self.forward(&primary, "GET", "/v1/rehearsal", REHEARSAL_PATIENCE).await;
            return answer.map_err(|error| {
                let primary = self.name(&primary);
                Refusal::new(504, format!("the primary {primary} could not be asked: {error}; try again, or ask on {primary} itself"))
            });
        }
        let (answer, answered) = oneshot::channel();
        let stopping = || Refusal::new(503, format!("the agent of {} is stopping: try again", self.me.name));
        self.questions.send(Question::Rehearse(answer)).await.map_err(|_| stopping())?;
        let scene = answered.await.map_err(|_| stopping())?;
        let host_names = self.host_names();
        let work = move || {
            let revision = scene.settings().revision;
            ok(Rehearsal { host_names, rehearsed: scene.rehearse(), revision })
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| {
            Refusal::new(
                500,
                format!("the rehearsal has ended by a fault of the program ({error}); please report this"),
            )
        })?
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Answer, forward, ok};
    use super::*;
    use mainstay_core::ids::{HostId, VmId};
    use mainstay_core::{HostPlan, LeftOutVm, PlacedVm, Rehearsed};
    use mainstay_transport::BODY_BYTES_MAX;

    const HOSTS: usize = 64;
    const VMS: usize = 2_000;

    fn host(number: usize) -> HostId {
        HostId::new(&format!("host-{}", 1 + number % HOSTS))
    }

    /// Each VM is on one host, so it is in one plan. `left_out` of them would find no room on any other host.
    fn answer(left_out: usize) -> Answer {
        let mut hosts: Vec<HostPlan> = (0..HOSTS)
            .map(|number| HostPlan {
                host: host(number),
                placed: vec![],
                left_out: vec![],
                not_restarted: vec![],
            })
            .collect();
        for number in 0..VMS {
            let mut id = [0xa5; 16];
            id[..8].copy_from_slice(&number.to_be_bytes());
            let (vm, name) = (VmId(id), format!("customer-17-web-{number}").into());
            let plan = &mut hosts[number % HOSTS];
            if number < left_out {
                let why = "needs 8192 MiB of memory, 4711 MiB are free after higher priorities";
                let why = (1..HOSTS).map(|other| (host(number + other), why.into()).into()).collect();
                plan.left_out.push(LeftOutVm { vm, name, why });
            } else {
                plan.placed.push(PlacedVm { vm, name, to: host(number + 1), wave: 1 });
            }
        }
        let rehearsed =
            Rehearsed { hosts, policy: "proved for 1 failed hosts, warns".into(), objection: None };
        let host_names = (0..HOSTS).map(|number| (host(number), format!("hypervisor-{number}"))).collect();
        ok(Rehearsal { host_names, rehearsed, revision: 1 })
            .unwrap_or_else(|refusal| panic!("{}", refusal.error))
    }

    #[test]
    fn a_rehearsal_of_many_vms_fits_and_one_that_does_not_says_what_to_do() {
        let size = |left_out| forward::encode_fitting(&answer(left_out), "h1").len();
        assert!(size(0) < BODY_BYTES_MAX / 4, "{}", size(0));
        assert!(size(200) < BODY_BYTES_MAX, "a tenth of all VMs left out: {}", size(200));
        let refused = forward::encode_fitting(&answer(VMS), "h1");
        let text = String::from_utf8_lossy(&refused);
        assert!(text.contains("507") && text.contains("ask on h1 itself, without --host"), "{text}");
    }
}
