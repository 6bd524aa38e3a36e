//! `mainstay vm show`: all that is known and set about one VM.

use crate::exit::Failure;
use crate::style::Style;
use crate::vms::{Protection, if_isolated, priority, ready_words, state_word, tone};
use crate::words::{HostNames, clean, memory};
use mainstay_api::Status;
use mainstay_api::vms::{find_vm, unknown_vm};
use mainstay_api::words::Word;
use mainstay_core::register::{OrderKind, Priority};
use mainstay_core::view::{View, VmView};

/// The VM of that name or UUID.
pub fn find<'a>(status: &'a Status, wanted: &str) -> Result<&'a VmView, Failure> {
    find_vm(&status.view, wanted).map_err(|text| not_found(status, text))
}

/// The failure to tell when no VM has that name or UUID.
pub fn unknown(status: &Status, wanted: &str) -> Option<Failure> {
    unknown_vm(&status.view, wanted).map(|text| not_found(status, text))
}

/// A host that answers for itself alone may not know a VM that there is.
fn not_found(status: &Status, text: String) -> Failure {
    let note = status.note.as_ref().map(|note| HostNames(status.host_names.clone()).in_text(note));
    Failure::Refused(note.map_or(text.clone(), |note| format!("{text} ({note})")))
}

/// The text, one thing a line.
pub fn render(vm: &VmView, view: &View, names: &HostNames, style: &Style) -> String {
    let mut text = String::new();
    let mut line = |heading: &str, content: &str| text.push_str(&format!("{heading:<12} {content}\n"));
    line("VM", &format!("{} ({})", clean(&vm.name), vm.vm));
    line("State", &style.paint(tone(vm.state), state_word(vm.state)));
    line("Host", &vm.host.as_ref().map_or_else(|| "-".to_owned(), |host| names.full(host)));
    line("Protected", Protection::of(vm, view).word());
    // What has a grant stands in a protected list.
    if vm.token.is_some() && !vm.unprotected {
        let off = "off in libvirt while it is in protection";
        let instead =
            if vm.priority == Priority::Disabled { "; nobody restarts it" } else { ": Mainstay restarts it" };
        line("Autostart", &format!("{off}{instead}"));
    }
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
        let words = (clean(name), rule.strength.word().to_owned(), rule.kind.word().to_owned());
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
