//! What VMs need and what the host offers, as the core is told.

use super::*;
use mainstay_core::register::VmSpec;
use mainstay_core::settings::HostOffers;
use std::sync::Arc;

fn names(names: &[&str]) -> Vec<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

fn spec_of(text: &str) -> VmSpec {
    let mut bench = Bench::new();
    bench.fake.user_defines(text).expect("defined");
    bench.domain(DomainState::Stopped(StopCause::Unknown)).spec.expect("a spec")
}

#[test]
fn a_vm_that_needs_nothing_special_needs_room_only() {
    let spec = spec_of(&xml("/srv/ds1/web.img", ""));
    assert_eq!((spec.cpu_mhz, spec.memory_reserved_mib), (0, None), "all of its memory, no CPU");
    // 64, 1/64 of 1025 MiB, 8 for each of 2 CPUs.
    assert_eq!((spec.overhead_mib, spec.guest_agent), (64 + 17 + 16, false));
    assert_eq!(*spec.needs, Default::default());
}

#[test]
fn needs_and_wishes_are_read() {
    let wishes = "<m:vm xmlns:m='https://mainstay/1'><m:reservation cpu_mhz='500' memory_mib='256'/></m:vm>";
    let more = "<disk type='file' device='disk'><source file='/srv/ds10/data.img'/><target dev='vdb'/></disk>\
        <disk type='file' device='cdrom'><source file='/srv/iso/a.iso'/><target dev='sdb'/></disk>\
        <disk type='file' device='disk'><source file='/srv/ds1/more.img'/><target dev='vdc'/></disk>\
        <disk type='file' device='disk'><source file='/elsewhere/x.img'/><target dev='vdd'/></disk>\
        <interface type='network'><source network='lan'/></interface>\
        <interface type='bridge'><source bridge='br0'/></interface>\
        <interface type='network'><source network='lan'/></interface>\
        <hostdev mode='subsystem' type='pci'><source><address domain='0x0000' bus='0x03' slot='0x00' function='0x0'/></source></hostdev>\
        <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel></devices>";
    let text = xml("/srv/ds1/web.img", wishes)
        .replace("</devices>", more)
        .replace("arch='x86_64'", "arch='x86_64' machine='pc-q35-7.2'")
        .replace("<devices>", "<cpu mode='custom' match='exact'><model>Haswell</model></cpu><devices>");
    let spec = spec_of(&text);
    assert!(spec.guest_agent);
    let needs = &spec.needs;
    assert_eq!(needs.datastores, [DatastoreName::new("ds10"), DatastoreName::new("outer")]);
    assert_eq!(needs.networks, names(&["bridge br0", "lan"]));
    assert_eq!(needs.cpu_model.as_deref(), Some("Haswell"));
    assert_eq!(needs.machine.as_deref(), Some("pc-q35-7.2"));
    assert_eq!(needs.devices, names(&["pci 0000:03:00.0"]));
    assert_eq!((spec.cpu_mhz, spec.memory_reserved_mib), (500, Some(256)));
}

fn offers(bench: &mut Bench) -> Arc<HostOffers> {
    let Input::Offers(offers) = bench.settle_until(|input| matches!(input, Input::Offers(_))) else {
        panic!()
    };
    offers
}

/// Everything up to libvirt's answer about offers; how many were told to the core.
fn answers(bench: &mut Bench) -> usize {
    loop {
        let event = bench.next_event();
        let answer =
            matches!(&event, hv::Event::Done { result: Ok(hv::OpOutput::HostOffers(_)) | Err(_), .. });
        bench.news(VmNews::Hypervisor(event));
        if answer {
            return bench.inputs.iter().filter(|input| matches!(input, Input::Offers(_))).count();
        }
    }
}

fn again(bench: &mut Bench) -> VmNews {
    let at = bench
        .errands
        .iter()
        .position(|errand| matches!(errand, Errand::Later(_, VmNews::OffersAgain(_))))
        .expect("it is asked again");
    let Errand::Later(after, news) = bench.errands.remove(at) else { panic!() };
    assert_eq!(after, std::time::Duration::from_secs(300));
    news
}

#[test]
fn offers_are_told_at_start_and_when_they_change() {
    let mut bench = Bench::new();
    assert_eq!(*offers(&mut bench), HostOffers::default());
    bench.fake.host_offers(hv::HostOffers {
        networks: vec!["lan".into(), "dmz".into()],
        bridges: vec!["br0".into(), "br0".into()],
        cpu_models: vec!["Haswell".into()],
        machine_types: vec!["q35".into(), "pc-q35-7.2".into()],
        devices: vec!["usb 1:2".into(), "mdev a".into(), "usb 1:2".into()],
        cpu_mhz: 9_000,
    });
    let news = again(&mut bench);
    bench.news(news);
    let told = offers(&mut bench);
    let expected = HostOffers {
        networks: names(&["bridge br0", "dmz", "lan"]),
        cpu_models: names(&["Haswell"]),
        machines: names(&["pc-q35-7.2", "q35"]),
        devices: names(&["mdev a", "usb 1:2", "usb 1:2"]),
        cpu_mhz: 9_000,
    };
    assert_eq!(*told, expected, "two devices of a kind are two");
    let news = again(&mut bench);
    bench.news(news);
    assert_eq!(answers(&mut bench), 0, "nothing has changed");
}

#[test]
fn offers_are_asked_for_when_libvirt_comes_back_and_by_one_clock_only() {
    let mut bench = Bench::new();
    offers(&mut bench);
    let of_before = again(&mut bench);
    bench.fake.daemon_dies();
    bench.fake.host_offers(hv::HostOffers { cpu_mhz: 1, ..hv::HostOffers::default() });
    bench.fake.daemon_returns();
    assert_eq!(offers(&mut bench).cpu_mhz, 1);
    again(&mut bench);
    bench.fake.host_offers(hv::HostOffers { cpu_mhz: 2, ..hv::HostOffers::default() });
    bench.news(of_before);
    assert!(bench.errands.is_empty() && bench.events.try_recv().is_err(), "asked by the later clock only");
}

#[test]
fn what_libvirt_can_not_tell_is_not_told() {
    let mut bench = Bench::new();
    offers(&mut bench);
    bench.fake.host_offers(hv::HostOffers { cpu_mhz: 1, ..hv::HostOffers::default() });
    bench.fake.daemon_hangs();
    let news = again(&mut bench);
    bench.news(news);
    assert_eq!(answers(&mut bench), 0);
    again(&mut bench);
}
