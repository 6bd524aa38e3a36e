//! `mainstay vm show`: all that is known and set about one VM.

use crate::exit::Failure;
use crate::orders::{kind_word, strength_word};
use crate::style::Style;
use crate::vms::{if_isolated, priority, ready_words, state_word, tone};
use crate::words::{HostNames, clean, memory};
use mainstay_core::ids::VmId;
use mainstay_core::register::OrderKind;
use mainstay_core::view::{View, VmView};

/// The VM of that name or UUID.
pub fn find<'a>(view: &'a View, wanted: &str) -> Result<&'a VmView, Failure> {
    let id = VmId::parse(wanted);
    let found: Vec<_> = view.vms.iter().filter(|vm| Some(vm.vm) == id || *vm.name == *wanted).collect();
    match found.as_slice() {
        // A cluster may have thousands: they are not all named here.
        [] => Err(Failure::Refused(format!(
            "there is no VM of the name or UUID '{}': `mainstay vm list` shows all",
            clean(wanted)
        ))),
        [vm] => Ok(vm),
        [..] => {
            let ids: Vec<_> = found.iter().map(|vm| vm.vm.to_string()).collect();
            Err(Failure::Refused(format!(
                "{} VMs are called {}: say which by its UUID, {}",
                ids.len(),
                clean(wanted),
                ids.join(" or ")
            )))
        }
    }
}

/// The text, one thing a line.
pub fn render(vm: &VmView, view: &View, names: &HostNames, style: &Style) -> String {
    let mut text = String::new();
    let mut line = |heading: &str, content: &str| text.push_str(&format!("{heading:<12} {content}\n"));
    line("VM", &format!("{} ({})", clean(&vm.name), vm.vm));
    line("State", &style.paint(tone(vm.state), state_word(vm.state)));
    line("Host", &vm.host.as_ref().map_or_else(|| "-".to_owned(), |host| names.full(host)));
    line("Protected", if vm.protected { "yes" } else { "no" });
    for note in vm.note.iter().flat_map(|note| note.split("; ")) {
        line("Note", &names.in_text(note));
    }
    if let Some(order) = &vm.order {
        line("Asked to", &order_words(order, names));
    }
    line("Priority", &priority(vm, &view.settings));
    let ready = ready_words(&view.settings.readiness(vm.vm));
    line("Counts as", &ready);
    for (name, group) in view.settings.groups.iter().filter(|(_, group)| group.vms.contains(&vm.vm)) {
        let after: Vec<_> = group.waits_for.iter().map(|name| clean(name)).collect();
        let after =
            if after.is_empty() { String::new() } else { format!(", starts after {}", after.join(", ")) };
        line("Group", &format!("{}{after}", clean(name)));
    }
    for (name, rule) in view.settings.rules.iter().filter(|(_, rule)| rule.vms.contains(&vm.vm)) {
        let others = rule.vms.iter().filter(|other| **other != vm.vm).map(|other| {
            let known = view.vms.iter().find(|known| known.vm == *other);
            known.map_or_else(|| other.to_string(), |known| clean(&known.name))
        });
        // Of other VMs only where the rule is about them.
        let about: Vec<_> = match rule.hosts.is_empty() {
            true => others.collect(),
            false => rule.hosts.iter().map(|host| names.short(host)).collect(),
        };
        let words = (clean(name), strength_word(rule.strength), kind_word(rule.kind));
        line("Rule", &format!("{}: {} {} {}", words.0, words.1, words.2, about.join(", ")));
    }
    line("If isolated", &if_isolated(vm));
    line("Datastore", &clean(vm.datastore.as_str()));
    line("Size", &format!("{}, {}", memory(vm.memory_mib), crate::settings::number(vm.vcpus, "vCPU")));
    line("Grant", &vm.token.map_or_else(|| "none".to_owned(), |token| token.to_string()));
    text
}

fn order_words(order: &OrderKind, names: &HostNames) -> String {
    match order {
        OrderKind::Migrate(to) => format!("migrate to {}", names.full(to)),
        OrderKind::ShutDown => "shut down, for maintenance".to_owned(),
        OrderKind::StartElsewhere => "end, to be started elsewhere".to_owned(),
    }
}
