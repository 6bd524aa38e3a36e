//! The simulator's libvirt, with what stands between it and the core.

use crate::puppet::{Puppets, for_each_seed, host};
use mainstay_contracts::Excuse;
use mainstay_contracts::vms::{Deed, Heard, HostUnderTest, RULES, Rule};
use mainstay_core::register::{Entry, ProtectedList, VmSpec};
use mainstay_core::{
    DatastoreName, DiskAction, Effect, Epoch, OpId, RegisterId, RegisterValue, Time, Token, VmAction, VmId,
    XmlId,
};
use mainstay_sim::Action;
use mainstay_testkit::made;

/// What the model has nothing for.
const LACKS: [Excuse; 1] =
    [("a QEMU that is terminated is told as the host's doing", "nobody sends a SIGTERM")];

/// What it has nothing for besides where images have no locks.
const LACKS_WITHOUT_LOCKS: [Excuse; 2] =
    [LACKS[0], ("a start waits for the image, and can be called off", "this world's images have no locks")];

/// Much depends on chance: who comes first.
const SEEDS: u64 = 6;

const XML: XmlId = XmlId(1000);

const TOKEN: Token = Token { epoch: Epoch(1), number: 1 };

struct Simulated {
    puppets: Puppets,
    image_lock: bool,
}

fn store() -> DatastoreName {
    DatastoreName::new("ds1")
}

/// The list that grants the VM to host-1: the simulator's checkers want each start to be under a grant.
fn grant(vm: VmId) -> ProtectedList {
    let entry = Entry {
        vm,
        name: "vm1".into(),
        spec: VmSpec::default(),
        holder: Some(host(1)),
        token: TOKEN,
        ..made::entry(1)
    };
    made::protected_list(Epoch(1), vec![entry])
}

impl Simulated {
    fn new(seed: u64, image_lock: bool) -> Simulated {
        let mut puppets = Puppets::new(seed, image_lock);
        let vm = puppets.world.setup().vm_id(0);
        let (id, value) = (RegisterId::ProtectedList(Epoch(1)), RegisterValue::ProtectedList(grant(vm)));
        let action = DiskAction::Write(id, value);
        puppets.order(&host(1), Effect::Disk { op: OpId(1), datastore: store(), action });
        puppets.order(&host(1), Effect::StoreXml { datastore: store(), vm, xml: XML });
        puppets.pass(1_000_000);
        Simulated { puppets, image_lock }
    }
}

impl HostUnderTest for Simulated {
    fn vm(&self) -> VmId {
        self.puppets.world.setup().vm_id(0)
    }

    fn start(&self) -> (DatastoreName, XmlId, Token) {
        (store(), XML, TOKEN)
    }

    fn order(&mut self, op: OpId, action: VmAction) {
        self.puppets.order(&host(1), Effect::Vm { op, action });
    }

    fn heard(&self) -> &[Heard] {
        &self.puppets.heard
    }

    fn go_on(&mut self) -> bool {
        self.puppets.pass(5_000);
        true
    }

    fn now(&self) -> Time {
        Time(self.puppets.world.now())
    }

    fn happens(&mut self, deed: Deed) -> bool {
        let (vm, host) = (String::from("vm1"), host(1));
        if let Deed::Frozen(frozen) = deed {
            self.puppets.world.set_frozen(0, 0, frozen);
            return true;
        }
        let actions = match deed {
            Deed::UserDestroys => vec![Action::UserDestroy { vm }],
            Deed::UserShutsDown => vec![Action::UserShutdown { vm }],
            Deed::QemuDies => vec![Action::QemuKill { vm }],
            Deed::LibvirtdDies => vec![Action::LibvirtKill { host }],
            Deed::LibvirtdHangs => vec![Action::LibvirtHang { host }],
            Deed::LibvirtdReturns => vec![Action::LibvirtUp { host }],
            Deed::AgentRestarts => {
                vec![Action::AgentKill { host: host.clone() }, Action::agent_start(host)]
            }
            // Another host's QEMU holds it.
            Deed::ImageHeld(true) if self.image_lock => {
                vec![Action::UserStart { vm, host: crate::puppet::host(2) }]
            }
            Deed::ImageHeld(false) if self.image_lock => vec![Action::QemuKill { vm }],
            Deed::DestinationDies => vec![Action::LibvirtKill { host: crate::puppet::host(2) }],
            Deed::QemuIsTerminated | Deed::Frozen(_) | Deed::ImageHeld(_) => return false,
        };
        for action in actions {
            self.puppets.act(action);
        }
        true
    }
}

fn broken(image_lock: bool, lacks: &[Excuse]) -> Vec<&'static str> {
    let simulated = |_, rule: Rule| for_each_seed(SEEDS, |seed| rule(&mut Simulated::new(seed, image_lock)));
    mainstay_contracts::broken(&RULES, lacks, simulated)
}

#[test]
fn the_simulated_libvirt_keeps_the_contract() {
    assert_eq!(broken(true, &LACKS), [""; 0]);
}

#[test]
fn the_simulated_libvirt_without_image_locks_keeps_the_contract() {
    assert_eq!(broken(false, &LACKS_WITHOUT_LOCKS), [""; 0]);
}
