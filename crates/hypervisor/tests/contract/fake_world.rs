//! The suite on the fake.

use mainstay_hypervisor::fake::{FakeHypervisor, FakeStorage};
use mainstay_hypervisor::{DomainUuid, Handle, HostInfo};

use crate::recorder::Recorder;
use crate::suite::World;

pub struct FakeWorld {
    pub fake: FakeHypervisor,
    pub storage: FakeStorage,
    pub news: Recorder,
}

impl FakeWorld {
    pub fn new() -> FakeWorld {
        let (news, storage) = (Recorder::default(), FakeStorage::default());
        let host = HostInfo {
            hostname: "host-1".into(),
            uuid: None,
            cpus: 4,
            memory_bytes: 1 << 33,
            memory_free_bytes: 1 << 32,
            libvirt_version: 9_000_000,
        };
        let fake = FakeHypervisor::start(host, storage.clone(), news.sink()).expect("a thread");
        FakeWorld { fake, storage, news }
    }
}

fn disk(name: &str) -> String {
    format!("/srv/ds/{name}.raw")
}

impl World for FakeWorld {
    fn handle(&self) -> &dyn Handle {
        &self.fake
    }
    fn news(&self) -> &Recorder {
        &self.news
    }
    fn xml(&self, name: &str) -> (DomainUuid, String) {
        crate::small::domain_xml(name, &disk(name))
    }
    fn wait_booted(&self, _: &str) {}
    fn resync(&self) {
        self.fake.resync();
    }
    fn user_destroys(&self, uuid: DomainUuid) {
        self.fake.user_destroys(uuid);
    }
    fn kill_qemu(&self, uuid: DomainUuid) {
        self.fake.qemu_dies(uuid);
    }
    fn terminate_qemu(&self, uuid: DomainUuid) {
        self.fake.qemu_is_terminated(uuid);
    }
    fn lock_image(&self, name: &str, locked: bool) {
        if locked { self.storage.lock(&disk(name), "another host") } else { self.storage.unlock(&disk(name)) }
    }
}
