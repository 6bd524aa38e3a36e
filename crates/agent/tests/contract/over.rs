//! The agent's translation over a hypervisor, with what the agent's driver does around it: domain XML, looks at images, timers.

use crate::recorder::Recorder;
use mainstay_agent::clock;
use mainstay_agent::vms::{Destination, Errand, ImageState, Migrations, Mounts, VmNews, Vms};
use mainstay_contracts::vms::{Deed, Heard, HostUnderTest};
use mainstay_core::{DatastoreName, HostId, Input, OpId, Time, Token, VmAction, VmId, XmlId};
use mainstay_hypervisor::{DomainUuid, Handle};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A hypervisor that is quiet for so long is asked for everything.
const RESYNC: Duration = Duration::from_secs(1);

/// A hypervisor and the people around it.
pub trait Rig {
    fn handle(&self) -> &dyn Handle;
    fn news(&self) -> &Recorder;
    fn xml(&self, name: &str) -> (DomainUuid, String);
    fn resync(&self);
    fn image_is_held(&self, uuid: DomainUuid, images: &[PathBuf]) -> bool;
    /// The agent starts anew: a connection of its own.
    fn restart(&mut self);
    fn happens(&mut self, name: &str, uuid: DomainUuid, deed: Deed) -> bool;
}

pub struct Over<R> {
    rig: R,
    name: String,
    uuid: DomainUuid,
    xml: String,
    vms: Vms,
    /// How much of the news was taken.
    taken: usize,
    later: Vec<(Instant, VmNews)>,
    heard: Vec<Heard>,
    resynced: Instant,
}

fn vms() -> Vms {
    let uri = "qemu+tcp://127.0.0.1:1/system".into();
    let migrations = Migrations {
        destinations: [(HostId::new("host-2"), Destination { uri, data_uri: None })].into(),
        timeout: Duration::from_secs(60),
    };
    Vms::new(Mounts::new(Vec::new()), migrations)
}

impl<R: Rig> Over<R> {
    pub fn new(rig: R, name: &str) -> Over<R> {
        let (uuid, xml) = rig.xml(name);
        Over {
            rig,
            name: name.into(),
            uuid,
            xml,
            vms: vms(),
            taken: 0,
            later: Vec::new(),
            heard: Vec::new(),
            resynced: Instant::now(),
        }
    }

    fn news(&mut self, news: VmNews) {
        let (mut inputs, mut errands) = (Vec::new(), Vec::new());
        self.vms.on_news(clock::now(), news, &mut inputs, &mut errands);
        self.take(inputs, errands);
    }

    /// As the driver does it: the core takes the inputs, then the errands are run.
    fn take(&mut self, inputs: Vec<Input>, errands: Vec<Errand>) {
        let at = clock::now();
        // Of its host's room and offers the rules say nothing.
        let about_vms = |input: &Input| !matches!(input, Input::Capacity(_) | Input::Offers(_));
        for input in inputs.into_iter().filter(about_vms) {
            self.heard.push(Heard { at, input });
        }
        for errand in errands {
            match errand {
                Errand::Libvirt(id, op) => self.rig.handle().submit(id, op),
                Errand::Later(after, news) => self.later.push((Instant::now() + after, news)),
                Errand::LoadXml { op, .. } => self.news(VmNews::XmlLoaded(op, Ok(self.xml.clone()))),
                Errand::Probe { op, images } => {
                    let state = match self.rig.image_is_held(self.uuid, &images) {
                        true => ImageState::Held("somebody holds it".into()),
                        false => ImageState::Free,
                    };
                    self.news(VmNews::Probed(op, Ok(state)));
                }
                // Nobody tells it what is protected.
                Errand::Remember(_) | Errand::Tell(_) => {}
            }
        }
    }
}

impl<R: Rig> HostUnderTest for Over<R> {
    fn vm(&self) -> VmId {
        VmId(self.uuid.0)
    }

    fn start(&self) -> (DatastoreName, XmlId, Token) {
        (DatastoreName::new("ds1"), XmlId(1), Token::default())
    }

    fn order(&mut self, op: OpId, action: VmAction) {
        let (mut inputs, mut errands) = (Vec::new(), Vec::new());
        self.vms.act(op, action, &mut inputs, &mut errands);
        self.take(inputs, errands);
    }

    fn heard(&self) -> &[Heard] {
        &self.heard
    }

    fn go_on(&mut self) -> bool {
        let news = self.rig.news().since(self.taken);
        self.taken += news.len();
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.later).into_iter().partition(|(at, _)| *at <= now);
        self.later = later;
        let due: Vec<(Instant, VmNews)> = due;
        if news.is_empty() && due.is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        for event in news {
            self.news(VmNews::Hypervisor(event));
        }
        for (_, news) in due {
            self.news(news);
        }
        if self.resynced.elapsed() > RESYNC {
            self.resynced = Instant::now();
            self.rig.resync();
        }
        true
    }

    fn now(&self) -> Time {
        clock::now()
    }

    fn happens(&mut self, deed: Deed) -> bool {
        if deed == Deed::AgentRestarts {
            self.rig.restart();
            // The fake is the same one, with all that it has told.
            self.taken = self.rig.news().mark();
            self.later.clear();
            self.vms = vms();
        }
        self.rig.happens(&self.name, self.uuid, deed)
    }
}
