//! The model check's libvirt.

use mainstay_check::Bench;
use mainstay_contracts::Excuse;
use mainstay_contracts::vms::{Deed, Heard, HostUnderTest, RULES, Rule};
use mainstay_core::{DatastoreName, Effect, OpId, Time, Token, VmAction, VmId, XmlId};

/// What is not modelled.
const LACKS: [Excuse; 7] = [
    ("a start waits for the image, and can be called off", "no image has a lock"),
    ("a destroy by the user is told as such", "the user shuts down, and does nothing else"),
    ("a new agent reads that the user has destroyed it", "the user shuts down, and does nothing else"),
    ("a QEMU that is terminated is told as the host's doing", "nobody sends a SIGTERM"),
    ("a libvirtd that ends is told, and says nothing about VMs", STEADY),
    ("a VM that dies without libvirtd has crashed", STEADY),
    ("a libvirtd that hangs leaves the outcome open", STEADY),
];

const STEADY: &str = "libvirtd neither ends nor hangs";

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
            // No migration begins here, whatever has died.
            Deed::DestinationDies => {}
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
    let checked = |_, rule: Rule| rule(&mut Checked::default());
    assert_eq!(mainstay_contracts::broken(&RULES, &LACKS, checked), [""; 0]);
}
