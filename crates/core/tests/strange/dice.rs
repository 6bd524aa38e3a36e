//! Values from a seed, with a liking for the edges.

use mainstay_core::files::FilesDigest;
use mainstay_core::ids::*;
use mainstay_core::message::*;
use mainstay_core::register::*;
use mainstay_core::{
    GuardReport, ProcessState, ReadRegister, RegisterValue,
    time::{Span, Time},
};

/// Xorshift: the same numbers everywhere, for ever.
pub struct Dice {
    state: u64,
    /// Whether numbers may be anything, or at most half of what fits: where a counter is to be increased.
    pub edges: bool,
}

impl Dice {
    pub fn new(seed: u64, edges: bool) -> Dice {
        Dice { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, edges }
    }

    pub fn raw(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        (self.raw() >> 11) % limit
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn number(&mut self) -> u64 {
        match self.below(8) {
            0 if self.edges => u64::MAX,
            1 if self.edges => u64::MAX - 1,
            2 => 1 << 62,
            3 => self.raw() >> 2,
            4 => 0,
            5 => self.below(100_000_000),
            _ => self.below(6),
        }
    }

    fn some<T>(&mut self, make: impl FnOnce(&mut Dice) -> T) -> Option<T> {
        (!self.one_in(3)).then(|| make(self))
    }

    fn list<T>(&mut self, mut make: impl FnMut(&mut Dice) -> T) -> Vec<T> {
        let length = match self.below(40) {
            0 => 300,
            1..10 => 0,
            _ => self.below(6),
        };
        (0..length).map(|_| make(self)).collect()
    }

    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize].clone()
    }

    pub fn host(&mut self) -> HostId {
        let names = ["host-1", "host-2", "host-3", "host-3", "host-2", "host-99", ""];
        HostId::new(self.pick(&names))
    }

    pub fn datastore(&mut self) -> DatastoreName {
        DatastoreName::new(self.pick(&["ds1", "ds1", "ds2", "ds2", "unheard-of", ""]))
    }

    /// One of a few, so that lists name the same.
    pub fn vm(&mut self) -> VmId {
        VmId([self.below(6) as u8; 16])
    }

    fn incarnation(&mut self) -> Incarnation {
        Incarnation(self.number())
    }

    fn epoch(&mut self) -> Epoch {
        Epoch(self.number())
    }

    fn time(&mut self) -> Time {
        Time(self.number())
    }

    fn token(&mut self) -> Token {
        Token { epoch: self.epoch(), number: self.number() }
    }

    fn stamp(&mut self) -> ListStamp {
        ListStamp { epoch: self.epoch(), version: self.number() }
    }

    fn rank(&mut self) -> Rank {
        Rank { datastores: self.number() as u32, host: self.host() }
    }

    fn capacity(&mut self) -> Capacity {
        Capacity {
            memory_mib: self.number(),
            memory_free_mib: self.number(),
            cpus: self.number() as u32,
            domains: self.number() as u32,
        }
    }

    pub fn body(&mut self) -> Body {
        match self.below(9) {
            0 => Body::Elect { rank: self.rank(), window: None },
            1 => Body::Announce { rank: self.rank(), owned: self.number() as u32 },
            2 | 3 => Body::Heartbeat(Box::new(Heartbeat {
                sent: self.time(),
                datastores: self.list(Dice::datastore),
                power_on: self.list(|dice| (dice.datastore(), dice.number()).into()),
                capacity: self.capacity(),
                hypervisor_well: self.one_in(2),
                promises: self.list(|dice| Promise {
                    datastore: dice.datastore(),
                    epoch: dice.epoch(),
                    echo: dice.time(),
                }),
                failure_timeout: self.some(|dice| Span(dice.number())),
                unwritten: self.list(Dice::datastore),
                guard: Default::default(),
                guard_error: None,
                arriving: self.list(Dice::vm),
                halted: self.list(|dice| (dice.vm(), dice.pick(&[Halt::Frozen, Halt::IoError])).into()),
                held: self.list(|dice| (dice.datastore(), Span(dice.number())).into()),
            })),
            4 | 5 => Body::HeartbeatAck(HeartbeatAck {
                echo: self.time(),
                // The run of the core that is asked, as a rule: others are not believed.
                run: if self.one_in(4) { self.incarnation() } else { crate::RUN },
                sent: self.time(),
                owned: self.list(|dice| OwnedDatastore {
                    datastore: dice.datastore(),
                    epoch: dice.epoch(),
                    list: dice.some(Dice::stamp),
                    lease: Span(dice.number()),
                    hold: None,
                }),
                heartbeat_datastores: self.list(Dice::datastore),
            }),
            6 => Body::ListChanged { datastore: self.datastore(), stamp: self.stamp() },
            7 => Body::Released { datastores: self.list(|dice| (dice.datastore(), dice.epoch()).into()) },
            _ => Body::SteppingDown,
        }
    }

    /// Seldom: a core that sees another file does little more.
    fn files(&mut self) -> Option<FilesDigest> {
        self.one_in(20).then(|| FilesDigest(self.number()))
    }

    pub fn message(&mut self) -> Message {
        Message {
            incarnation: self.incarnation(),
            sequence: self.number(),
            files: self.files(),
            body: self.body(),
        }
    }

    pub fn report(&mut self) -> GuardReport {
        let error = |dice: &mut Dice| dice.one_in(3).then(|| "no space left".into());
        match self.below(7) {
            0 => GuardReport::Hello { incarnation: self.incarnation() },
            1 | 2 => {
                GuardReport::Beat { datastore: self.datastore(), started: self.time(), error: error(self) }
            }
            3 => GuardReport::Lease { datastore: self.datastore(), term: self.number(), until: self.time() },
            4 => GuardReport::Hold { datastore: self.datastore(), until: self.time() },
            _ => GuardReport::Vm {
                vm: self.vm(),
                state: self.pick(&[
                    ProcessState::Absent,
                    ProcessState::Runs,
                    ProcessState::Frozen,
                    ProcessState::Ended,
                ]),
            },
        }
    }

    fn spec(&mut self) -> VmSpec {
        VmSpec {
            xml: XmlId(self.number()),
            memory_mib: self.number(),
            vcpus: self.number() as u32,
            priority: self.pick(&[Priority::Disabled, Priority::Medium, Priority::Highest]),
            ..VmSpec::default()
        }
    }

    fn claim(&mut self) -> Claim {
        let states = [
            ClaimState::Starting,
            ClaimState::Running,
            ClaimState::Frozen,
            ClaimState::Stopping,
            ClaimState::Migrating,
            ClaimState::Stopped { cause: StopCause::Crashed },
            ClaimState::Stopped { cause: StopCause::UserShutdown },
            ClaimState::StartFailed { reason: "no room".into() },
        ];
        Claim {
            vm: self.vm(),
            name: "vm".into(),
            token: self.some(Dice::token),
            state: self.pick(&states),
            spec: self.some(Dice::spec),
            asked_to_stop: false,
            powering_off: false,
            guest: Guest::Silent,
            order_failed: None,
            ended: self.one_in(4),
            under: self.token(),
        }
    }

    fn entry(&mut self) -> Entry {
        let responses = [IsolationResponse::ShutDown, IsolationResponse::PowerOff];
        Entry {
            vm: self.vm(),
            name: "vm".into(),
            spec: self.spec(),
            desired: self.pick(&[Desired::On, Desired::Off]),
            unprotected: self.one_in(4),
            holder: self.some(Dice::host),
            token: self.token(),
            intent: self.some(Dice::host),
            attempts: self.number() as u32,
            failed_over_from: self.some(Dice::host),
            verified: self.one_in(2),
            responsible: self.some(Dice::host),
            isolation_response: self.some(|dice| dice.pick(&responses)),
            shutdown_timeout: self.some(|dice| Span(dice.number())),
            failed_on: Vec::new(),
            has_agent: false,
            order: None,
            evacuated_from: None,
            mute: self.one_in(2),
            ran_under: self.some(Dice::token),
            asked_to_stop: self.one_in(4),
        }
    }

    pub fn register(&mut self) -> RegisterValue {
        let boot = BootId([self.below(3) as u8; 16]);
        let incarnation = self.incarnation();
        let ballot = |dice: &mut Dice| Ballot { round: dice.number(), host: dice.host() };
        match self.below(4) {
            0 => RegisterValue::Heartbeat(HeartbeatRegister {
                boot,
                incarnation,
                counter: self.number(),
                agent: self.some(Dice::incarnation),
                agent_well: self.one_in(2),
                failure_timeout: self.some(|dice| Span(dice.number())),
                slow: self.one_in(3),
                hold: None,
                files: self.files(),
            }),
            1 => {
                let mut claims = self.list(Dice::claim);
                claims.sort_by_key(|claim| claim.vm);
                RegisterValue::PowerOn(PowerOnList {
                    boot,
                    incarnation,
                    version: self.number(),
                    isolated: self.one_in(2),
                    list_seen: self.some(Dice::stamp),
                    complete: self.one_in(2),
                    guard: Default::default(),
                    claims,
                    offers: None,
                })
            }
            2 => RegisterValue::Ownership(OwnershipBlock {
                boot,
                incarnation,
                instance: self.epoch(),
                promised: self.some(ballot),
                accepted: self.some(|dice| (ballot(dice), dice.host()).into()),
                beat: self.some(|dice| OwnerBeat {
                    epoch: dice.epoch(),
                    counter: dice.number(),
                    released: dice.one_in(2),
                }),
                files: self.files(),
            }),
            _ => RegisterValue::ProtectedList(ProtectedList {
                epoch: self.epoch(),
                version: self.number(),
                owner: self.host(),
                // In no order, and with doubles: only a writer promises an order.
                entries: self.list(Dice::entry),
                settings: Default::default(),
                suspension: None,
                holds: None,
            }),
        }
    }

    pub fn read(&mut self) -> ReadRegister {
        match self.below(5) {
            0 => ReadRegister::Missing,
            1 => ReadRegister::Unreadable("its body does not match its checksum".into(), self.number()),
            _ => ReadRegister::Value(self.register()),
        }
    }
}
