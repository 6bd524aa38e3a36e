//! Orders of administrators: each is made into the core's command here, and nowhere else.
//!
//! Only the primary carries out orders; any other host forwards them to it. The primary fills in what an order leaves as
//! it is, from what it believes at that moment: an asker's knowledge would be older.
//!
//! What it does not do: read orders (the crate `api` does), or decide whether one can be carried out (the core does).

use super::{Answer, ORDER_PATIENCE, PEER_PATIENCE, Refusal, Service};
use mainstay_api::order::{AdmissionOrder, GroupOrder, HostOrder, Order, RuleOrder, Setting, VmOrder};
use mainstay_api::vms::{find_vm, unknown_vm};
use mainstay_core::ids::HostId;
use mainstay_core::register::IsolationResponse;
use mainstay_core::settings::Admission;
use mainstay_core::view::{Role, View};
use mainstay_core::{Command, Span};

impl Service {
    /// Has the primary carry out an order.
    pub(super) async fn order(&self, order: Order, may_forward: bool) -> Result<Answer, Refusal> {
        // Whichever host is asked refuses a host that it does not know, also where there is no primary.
        for host in order.hosts() {
            self.find(host)?;
        }
        let view = self.look().await?.view;
        if view.role != Role::Primary {
            return self.forward_order(&order, view, may_forward).await;
        }
        let unknown = order.vms().iter().find_map(|vm| unknown_vm(&view, vm));
        let command = command(order, &view, |host| self.find(host).map(|member| member.id.clone()))?;
        self.operate(command, ORDER_PATIENCE).await.map_err(|refusal| match unknown {
            // The core refuses it too, but can't say which names there are.
            Some(text) if refusal.status == 409 => Refusal::new(409, text),
            Some(_) | None => refusal,
        })
    }

    async fn forward_order(&self, order: &Order, view: View, may_forward: bool) -> Result<Answer, Refusal> {
        let primary = view.primary.filter(|primary| *primary != self.me.id && may_forward);
        let primary = primary.ok_or_else(|| {
            Refusal::new(503, "no primary is elected at the moment: try again in a few seconds")
        })?;
        let patience = ORDER_PATIENCE + PEER_PATIENCE;
        self.forward(&primary, "POST", &order.target(), patience).await.map_err(|error| {
            let primary = self.name(&primary);
            Refusal::new(
                504,
                format!(
                    "the primary {primary} could not be asked: {error}; look at the status before you try again"
                ),
            )
        })
    }
}

/// The core's command. `view`: what the primary believes, for what the order leaves as it is; `id`: a host's id, by name or id.
fn command(
    order: Order,
    view: &View,
    id: impl Fn(&str) -> Result<HostId, Refusal>,
) -> Result<Command, Refusal> {
    Ok(match order {
        Order::Vm { vm, order } => match order {
            VmOrder::Protect => Command::Protect { vm },
            VmOrder::Unprotect => Command::Unprotect { vm },
            VmOrder::SetIsolation { response, shutdown_timeout } => {
                isolation(&vm, response, shutdown_timeout, view)?
            }
            VmOrder::SetPriority(priority) => Command::SetPriority { vm, priority },
            VmOrder::SetReadiness(readiness) => Command::SetReadiness { vm, readiness },
        },
        Order::Rule { name, order } => match order {
            RuleOrder::Set { strength, kind, vms, hosts } => {
                let hosts = hosts.iter().map(|host| id(host)).collect::<Result<_, Refusal>>()?;
                Command::SetRule { name, strength, kind, vms, hosts }
            }
            RuleOrder::Remove => Command::RemoveRule { name },
        },
        Order::Group { name, order } => match order {
            GroupOrder::Set { vms, waits_for } => Command::SetGroup { name, vms, waits_for },
            GroupOrder::Remove => Command::RemoveGroup { name },
        },
        Order::Admission(order) => admission(order, view),
        Order::Host { host, order } => {
            let host = id(&host)?;
            match order {
                HostOrder::Failover { keep } => Command::SetFailoverHost { host, keep },
                HostOrder::ConfirmDown => Command::ConfirmDown { host },
                HostOrder::EnterMaintenance { how, force } => Command::EnterMaintenance { host, how, force },
                HostOrder::LeaveMaintenance { bring_back } => Command::LeaveMaintenance { host, bring_back },
            }
        }
        Order::Suspend { length } => Command::Suspend { length },
        Order::Resume => Command::Resume,
    })
}

/// The core's command sets response and time-out at once; a person may want to change one of them. It names the VM by its
/// UUID, so that what stays is that of the very VM that is changed.
fn isolation(
    vm: &str,
    response: Setting<IsolationResponse>,
    shutdown_timeout: Setting<Span>,
    view: &View,
) -> Result<Command, Refusal> {
    let vm = find_vm(view, vm).map_err(|reason| Refusal::new(409, reason))?;
    if let (None, Some(reason)) = (vm.token, &vm.note) {
        return Err(Refusal::new(409, format!("{} is not protected: {reason}", vm.name)));
    }
    let present = vm.isolation_response_own.then_some(vm.isolation_response);
    let present_timeout = vm.shutdown_timeout_own.then_some(vm.shutdown_timeout);
    Ok(Command::SetIsolation {
        vm: vm.vm.to_string(),
        response: response.over(present),
        shutdown_timeout: shutdown_timeout.over(present_timeout),
    })
}

fn admission(order: AdmissionOrder, view: &View) -> Command {
    let present = &view.settings.admission;
    Command::SetAdmission {
        admission: Admission {
            policy: order.policy.unwrap_or_else(|| present.policy.clone()),
            refuse: order.refuse.unwrap_or(present.refuse),
        },
    }
}
