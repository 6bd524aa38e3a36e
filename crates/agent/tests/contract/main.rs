//! What the core hears of VMs, under the rules of `mainstay-contracts`: the agent's own translation, over the hypervisor in memory and
//! over real QEMU. So the models of the simulator and of the model check are held against what really happens.

mod over;

// The worlds of the hypervisor's own suite.
#[path = "../../../hypervisor/tests/contract/fake_world.rs"]
mod fake_world;
#[path = "../../../hypervisor/tests/contract/real_world.rs"]
#[expect(dead_code, reason = "only a part of it is wanted here")]
mod real_world;
#[path = "../../../hypervisor/tests/contract/recorder.rs"]
mod recorder;
#[path = "../../../hypervisor/tests/contract/small.rs"]
mod small;
#[path = "../../../hypervisor/tests/contract/suite.rs"]
#[expect(dead_code, reason = "only a part of it is wanted here")]
mod suite;

use fake_world::FakeWorld;
use mainstay_contracts::Excuse;
use mainstay_contracts::vms::{Deed, RULES, Rule};
use mainstay_hypervisor::{Config, DomainUuid, Handle, Hypervisor, Op};
use over::{Over, Rig};
use real_world::{RealWorld, inside};
use recorder::Recorder;
use std::path::PathBuf;
use std::time::Duration;
use suite::World;

/// What the fake has nothing for.
const FAKE_LACKS: [Excuse; 1] = [(
    "a resume of a frozen VM is carried out when it is thawed",
    "no process stands still, and no operation is carried out after it was answered",
)];

struct Fake {
    world: FakeWorld,
    held: bool,
}

impl Rig for Fake {
    fn handle(&self) -> &dyn Handle {
        self.world.handle()
    }

    fn news(&self) -> &Recorder {
        self.world.news()
    }

    fn xml(&self, name: &str) -> (DomainUuid, String) {
        self.world.xml(name)
    }

    fn resync(&self) {
        self.world.resync();
    }

    fn image_is_held(&self, uuid: DomainUuid, _: &[PathBuf]) -> bool {
        self.held || self.world.fake.state_of(uuid).is_some_and(|state| state.is_active())
    }

    fn restart(&mut self) {}

    fn happens(&mut self, name: &str, uuid: DomainUuid, deed: Deed) -> bool {
        let fake = &self.world.fake;
        match deed {
            Deed::UserDestroys => fake.user_destroys(uuid),
            Deed::UserShutsDown => fake.guest_powers_off(uuid),
            Deed::QemuDies => fake.qemu_dies(uuid),
            Deed::QemuIsTerminated => fake.qemu_is_terminated(uuid),
            Deed::LibvirtdDies => fake.daemon_dies(),
            Deed::LibvirtdHangs => fake.daemon_hangs(),
            Deed::LibvirtdReturns => fake.daemon_returns(),
            Deed::ImageHeld(held) => {
                self.held = held;
                self.world.lock_image(name, held);
            }
            // No libvirtd answers where the VM would be migrated to.
            Deed::AgentRestarts | Deed::DestinationDies => {}
            Deed::Frozen(_) => return false,
        }
        true
    }
}

struct Real<'a> {
    world: &'a RealWorld,
    hypervisor: Hypervisor,
    news: Recorder,
    hangs: bool,
}

fn connect() -> (Hypervisor, Recorder) {
    let news = Recorder::default();
    let config = Config {
        resync_interval: Duration::from_secs(2),
        op_timeout: Duration::from_secs(8),
        ..Config::default()
    };
    (Hypervisor::start(config, news.sink()).expect("threads"), news)
}

impl Rig for Real<'_> {
    fn handle(&self) -> &dyn Handle {
        &self.hypervisor
    }

    fn news(&self) -> &Recorder {
        &self.news
    }

    fn xml(&self, name: &str) -> (DomainUuid, String) {
        self.world.xml(name)
    }

    // It has its own interval.
    fn resync(&self) {}

    fn image_is_held(&self, _: DomainUuid, images: &[PathBuf]) -> bool {
        let held = |image: &PathBuf| {
            mainstay_storage::image_lock::probe_image(image) != mainstay_storage::ImageLock::Free
        };
        images.iter().any(held)
    }

    fn restart(&mut self) {
        (self.hypervisor, self.news) = connect();
    }

    fn happens(&mut self, name: &str, uuid: DomainUuid, deed: Deed) -> bool {
        match deed {
            Deed::UserDestroys => self.world.user_destroys(uuid),
            Deed::UserShutsDown => {
                self.world.wait_booted(name);
                self.world.virsh(&["shutdown", name]);
            }
            Deed::QemuDies => {
                self.world.kill_qemu(uuid);
                self.world.wait_no_qemu(uuid);
            }
            Deed::QemuIsTerminated => self.world.terminate_qemu(uuid),
            Deed::LibvirtdDies => self.world.kill_libvirtd(),
            Deed::LibvirtdHangs => {
                self.hangs = true;
                self.world.signal_libvirtd(libc::SIGSTOP);
            }
            Deed::LibvirtdReturns if std::mem::take(&mut self.hangs) => {
                self.world.signal_libvirtd(libc::SIGCONT)
            }
            Deed::LibvirtdReturns => self.world.start_libvirtd(),
            Deed::ImageHeld(held) => self.world.lock_image(name, held),
            Deed::Frozen(true) => self.world.signal_qemu(uuid, libc::SIGSTOP),
            Deed::Frozen(false) => self.world.signal_qemu(uuid, libc::SIGCONT),
            // No libvirtd answers where the VM would be migrated to.
            Deed::AgentRestarts | Deed::DestinationDies => {}
        }
        true
    }
}

#[test]
fn the_agent_over_the_fake_keeps_the_contract() {
    let fake = |_, rule: Rule| rule(&mut Over::new(Fake { world: FakeWorld::new(), held: false }, "vm"));
    assert_eq!(mainstay_contracts::broken(&RULES, &FAKE_LACKS, fake), [""; 0]);
}

#[test]
fn the_agent_over_real_qemu_keeps_the_contract() {
    inside("the_agent_over_real_qemu_keeps_the_contract", |world| {
        let mut number = 0;
        let real = |_, rule: Rule| {
            number += 1;
            let (hypervisor, news) = connect();
            // A VM of its own for each, so that one does not see what another has left.
            let vm = format!("rule{number}");
            let kept = rule(&mut Over::new(Real { world, hypervisor, news, hangs: false }, &vm));
            // Nothing runs on, whatever the rule has left.
            let _ = world.news.run(world.handle(), 1_000 + number, Op::Destroy { uuid: world.xml(&vm).0 });
            kept
        };
        assert_eq!(mainstay_contracts::broken(&RULES, &[], real), [""; 0]);
    });
}
