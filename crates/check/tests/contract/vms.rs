//! The model check's libvirt.

use mainstay_check::Bench;
use mainstay_contracts::vms::{Deed, Heard, HostUnderTest, RULES};
use mainstay_core::{DatastoreName, Effect, OpId, Time, Token, VmAction, VmId, XmlId};

/// What is not modelled: image locks, and a libvirtd that ends or hangs.
const NOT_TRIED: [&str; 4] = [
    "a start waits for the image, and can be called off",
    "a libvirtd that ends is told, and says nothing about VMs",
    "a VM that dies without libvirtd has crashed",
    "a libvirtd that hangs leaves the outcome open",
];

/// The host whose VM it is.
const HERE: usize = 0;

#[derive(Default)]
struct Checked {
    bench: Bench,
    heard: Vec<Heard>,
    taken: usize,
}

impl Checked {
    fn take(&mut self) {
        let new = &self.bench.told()[self.taken..];
        self.taken += new.len();
        let here = new.iter().filter(|told| told.host == HERE);
        self.heard.extend(here.map(|told| Heard { at: told.at, input: told.input.clone() }));
    }
}

impl HostUnderTest for Checked {
    fn vm(&self) -> VmId {
        self.bench.vm()
    }

    fn start(&self) -> (DatastoreName, XmlId, Token) {
        (self.bench.datastore(), XmlId(1), Token::default())
    }

    fn order(&mut self, op: OpId, action: VmAction) {
        self.bench.ask(HERE, Effect::Vm { op, action });
    }

    fn heard(&self) -> &[Heard] {
        &self.heard
    }

    fn go_on(&mut self) -> bool {
        let some = self.bench.go_on();
        self.take();
        some
    }

    fn now(&self) -> Time {
        self.bench.clock(HERE)
    }

    fn happens(&mut self, deed: Deed) -> bool {
        match deed {
            Deed::UserShutsDown => self.bench.user_shuts_down(),
            Deed::QemuDies => self.bench.qemu_dies(HERE),
            Deed::Frozen(frozen) => self.bench.set_frozen(HERE, frozen),
            Deed::AgentRestarts => self.bench.restart(HERE),
            Deed::UserDestroys
            | Deed::QemuIsTerminated
            | Deed::ImageHeld(_)
            | Deed::LibvirtdDies
            | Deed::LibvirtdHangs
            | Deed::LibvirtdReturns => return false,
        }
        self.take();
        true
    }
}

#[test]
fn the_checked_libvirt_keeps_the_contract() {
    let mut broken = Vec::new();
    for (name, rule) in RULES {
        match rule(&mut Checked::default()) {
            Ok(tried) => assert_eq!(tried, !NOT_TRIED.contains(&name), "tried: {name}"),
            Err(error) => {
                println!("broken: {name}: {error}");
                broken.push(name);
            }
        }
    }
    assert_eq!(broken, [""; 0]);
}
