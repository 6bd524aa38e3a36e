//! Answers of a made-up cluster, from calm to ugly.

use mainstay_api::order::{Order, Setting, VmOrder};
use mainstay_api::vms::unknown_vm;
use mainstay_api::{Done, EventPage, EventRecord, Rehearsal, Status};
use mainstay_core::election::PrimaryReason;
use mainstay_core::host_liveness::HostState;
use mainstay_core::ids::{DatastoreName, Epoch, HostId, Incarnation, Token, VmId};
use mainstay_core::message::{Capacity, Rank};
use mainstay_core::register::{IsolationResponse, ListStamp, Priority, StopCause};
use mainstay_core::time::{Span, Time};
use mainstay_core::timing::Timing;
use mainstay_core::view::{DatastoreView, HostView, Role, View, VmState, VmView};
use mainstay_core::{Event, VmName};
use mainstay_ctl::{Agent, Failure};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// 2026-02-03 14:05:00 UTC.
pub const START_US: u64 = 1_770_127_500_000_000;

/// An agent whose answers are made up beforehand.
pub struct Canned {
    /// To `status`; a text when it is refused.
    pub status: Result<Status, &'static str>,
    /// The answer to `events`.
    pub page: EventPage,
    /// What happens while one follows.
    pub to_follow: Vec<EventRecord>,
    /// What the world is after each pause.
    pub later: VecDeque<Later>,
    /// The answer to `rehearsal`; none when it is refused.
    pub rehearsal: Option<Rehearsal>,
    /// The paths of orders, and the answer to them; `None`: it is done.
    pub orders: Vec<String>,
    /// Why an order is refused.
    pub refusal: Option<&'static str>,
}

/// The next status, and what has happened until then.
pub type Later = (Result<Status, &'static str>, Vec<EventRecord>);

impl Agent for Canned {
    fn status(&mut self) -> Result<Status, Failure> {
        self.status.clone().map_err(|text| Failure::Refused(text.to_owned()))
    }

    fn events(&mut self, after_us: u64) -> Result<EventPage, Failure> {
        let newer = self.page.events.iter().filter(|record| record.at_unix_us > after_us);
        Ok(EventPage { events: newer.cloned().collect(), missing: self.page.missing.clone() })
    }

    fn follow(
        &mut self,
        after_us: u64,
        receive: &mut dyn FnMut(EventRecord) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let newer = self.to_follow.iter().filter(|record| record.at_unix_us > after_us);
        newer.cloned().try_for_each(receive)
    }

    fn order(&mut self, order: &Order) -> Result<Done, Failure> {
        if let Order::Vm { vm, order } = order {
            match order {
                VmOrder::Protect | VmOrder::Unprotect => return self.protection(vm, order),
                VmOrder::SetIsolation { response, shutdown_timeout } => {
                    let timeout = match shutdown_timeout {
                        Setting::Keep => "is kept".to_owned(),
                        Setting::ClusterDefault => "is the cluster's".to_owned(),
                        Setting::To(span) => span.to_string(),
                    };
                    return Ok(Done { message: format!("{vm}: {response:?}, time-out {timeout}") });
                }
                VmOrder::SetPriority(_) | VmOrder::SetReadiness(_) => {}
            }
        }
        let target = order.target();
        self.orders.push(target.clone());
        match self.refusal {
            Some(text) => Err(Failure::Refused(text.to_owned())),
            None => Ok(Done { message: format!("h3 has done {target}") }),
        }
    }

    fn rehearsal(&mut self) -> Result<Rehearsal, Failure> {
        let none = || Failure::Refused("no primary answers; try again in a few seconds".to_owned());
        self.rehearsal.clone().ok_or_else(none)
    }

    fn pause(&mut self, _: Duration) {
        let (status, events) = self.later.pop_front().expect("a world after this pause");
        self.status = status;
        self.page.events.extend(events);
    }
}

impl Canned {
    fn protection(&self, vm: &str, order: &VmOrder) -> Result<Done, Failure> {
        match (vm, order == &VmOrder::Protect) {
            ("web", true) => Ok(Done { message: "web is protected".to_owned() }),
            ("web", false) => Ok(Done { message: "web is no longer protected".to_owned() }),
            (other, _) => {
                let view = &self.status.as_ref().map_err(|text| Failure::Refused((*text).to_owned()))?.view;
                Err(Failure::Refused(unknown_vm(view, other).expect("a VM that there isn't")))
            }
        }
    }
}

pub fn id(number: u32) -> HostId {
    HostId::new(&format!("host-{number}"))
}

fn host(number: u32, datastores: &[&str]) -> HostView {
    HostView {
        host: id(number),
        state: HostState::Connected,
        since: Span::from_secs(320),
        network_heartbeat: Some(Span::from_millis(412)),
        datastore_heartbeats: datastores
            .iter()
            .map(|name| (DatastoreName::new(name), Span::from_millis(903)).into())
            .collect(),
        ping: None,
        datastores: datastores.iter().map(|name| DatastoreName::new(name)).collect(),
        capacity: Some(Capacity { memory_mib: 65_536, memory_free_mib: 40_448, cpus: 16, domains: 3 }),
        hypervisor_well: Some(true),
        maintenance: None,
        failover_host: false,
    }
}

fn datastore(name: &str) -> DatastoreView {
    DatastoreView {
        datastore: name.into(),
        connected: true,
        error: None,
        owner: Some(id(3)),
        epoch: Epoch(7),
        list: Some(ListStamp { epoch: Epoch(7), version: 42 }),
        ownership_left: Some(Span::from_millis(2_600)),
        heartbeat: true,
        lease_left: Some(Span::from_millis(2_400)),
        unreadable_registers: 0,
    }
}

pub fn vm(number: u8, name: &str, host: Option<HostId>, state: VmState) -> VmView {
    let mut bytes = [0; 16];
    bytes[15] = number;
    VmView {
        vm: VmId(bytes),
        name: name.into(),
        datastore: "nfs1".into(),
        host,
        state,
        protected: state == VmState::Running,
        unprotected: false,
        note: None,
        priority: Priority::Medium,
        token: Some(Token { epoch: Epoch(7), number: u64::from(number) }),
        memory_mib: 2_048,
        vcpus: 2,
        isolation_response: IsolationResponse::LeavePoweredOn,
        isolation_response_own: false,
        shutdown_timeout: Span::from_secs(300),
        shutdown_timeout_own: false,
        order: None,
    }
}

pub fn record(after_ms: u64, reporter: u32, event: Event) -> EventRecord {
    EventRecord {
        host: id(reporter),
        at_unix_us: START_US + after_ms * 1_000,
        at: Time(after_ms * 1_000),
        incarnation: Incarnation(1),
        sequence: after_ms,
        severity: event.severity(),
        text: event.to_string(),
        event: Some(event),
    }
}

pub fn vm_name(number: u8, name: &str) -> VmName {
    VmName { id: vm(number, name, None, VmState::Off).vm, name: name.into() }
}

impl Canned {
    /// Three hosts, two datastores, three VMs, nothing wrong.
    pub fn healthy() -> Canned {
        let stores = ["nfs1", "nfs2"];
        let view = View {
            host: id(3),
            now: Time(86_400_000_000),
            role: Role::Primary,
            primary: Some(id(3)),
            primary_reason: Some(PrimaryReason::LargerId {
                rank: Rank { datastores: 2, host: id(3) },
                runner_up: Rank { datastores: 2, host: id(2) },
            }),
            timing: Timing::STANDARD,
            hosts: (1..=3).map(|number| host(number, &stores)).collect(),
            datastores: stores.map(datastore).into(),
            vms: vec![
                vm(1, "web", Some(id(1)), VmState::Running),
                vm(2, "db", Some(id(2)), VmState::Running),
                vm(3, "old", None, VmState::Off),
            ],
            hypervisor_well: true,
            isolated: false,
            guard: true,
            settings: Arc::default(),
            suspensions: Vec::new(),
            objection: None,
        };
        let names = (1..=3).map(|number| (id(number), format!("h{number}"))).collect();
        Canned {
            status: Ok(Status {
                cluster_id: "c1".to_owned(),
                cluster_name: "lab".to_owned(),
                host_names: names,
                complete: true,
                note: None,
                view,
                alarms: Vec::new(),
            }),
            page: EventPage { events: Vec::new(), missing: BTreeMap::new() },
            to_follow: Vec::new(),
            later: VecDeque::new(),
            rehearsal: None,
            orders: Vec::new(),
            refusal: None,
        }
    }

    pub fn status_mut(&mut self) -> &mut Status {
        self.status.as_mut().expect("a canned status")
    }

    /// host-1 has failed; of its VMs one is starting elsewhere and one waits; a datastore is out of the primary's reach.
    pub fn host_failed() -> Canned {
        let mut canned = Canned::healthy();
        let failed = Event::HostStateChanged {
            host: id(1),
            from: HostState::Connected,
            to: HostState::Failed,
            last_evidence: Span::from_millis(4_612),
            cut_off: false,
        };
        let lost = Event::DatastoreLost { datastore: "nfs2".into(), reason: "Stale file handle".into() };
        let events = vec![
            record(0, 3, lost.clone()),
            record(4_612, 3, failed.clone()),
            record(
                4_700,
                3,
                Event::VmGranted {
                    vm: vm_name(1, "web"),
                    host: id(2),
                    token: Token { epoch: Epoch(7), number: 4 },
                    attempt: 1,
                    reason: "host-1 has failed".into(),
                },
            ),
            record(
                5_100,
                2,
                Event::VmClaimed { vm: vm_name(1, "web"), token: Token { epoch: Epoch(7), number: 4 } },
            ),
            record(
                5_300,
                3,
                Event::VmWaitsForHost {
                    vm: vm_name(4, "big"),
                    reasons: vec![(id(2), "needs 96 GiB, 39 GiB are free".into()).into()],
                },
            ),
            record(
                5_400,
                3,
                Event::VmStopped {
                    vm: vm_name(2, "db"),
                    host: id(2),
                    cause: StopCause::UserShutdown,
                    restart: false,
                },
            ),
        ];
        let restarted =
            Event::VmRestarted { vm: vm_name(1, "web"), from: Some(id(1)), to: id(2), attempts: 1 };
        canned.to_follow = vec![record(6_000, 3, restarted)];
        canned.page.missing = BTreeMap::from([(id(1), "no answer within 2 s".to_owned())]);
        let status = canned.status_mut();
        status.alarms = vec![events[0].clone(), events[1].clone(), events[4].clone()];
        let view = &mut status.view;
        let host = &mut view.hosts[0];
        host.state = HostState::Failed;
        host.since = Span::from_millis(2_149);
        host.network_heartbeat = Some(Span::from_millis(6_761));
        host.datastore_heartbeats = vec![("nfs1".into(), Span::from_millis(7_200)).into()];
        host.ping = Some(false);
        host.datastores = Vec::new();
        host.hypervisor_well = None;
        view.hosts[1].hypervisor_well = Some(false);
        let store = &mut view.datastores[1];
        store.connected = false;
        store.error = Some("Stale file handle".into());
        store.owner = None;
        store.epoch = Epoch(0);
        store.list = None;
        store.ownership_left = None;
        store.lease_left = None;
        store.unreadable_registers = 2;
        view.vms[0] = VmView { host: Some(id(2)), ..vm(1, "web", None, VmState::Starting) };
        view.vms.push(VmView {
            note: Some("no host can take it: host-2 has 39 GiB free, it needs 96 GiB".to_owned()),
            memory_mib: 98_304,
            priority: Priority::Highest,
            ..vm(4, "big", None, VmState::Waiting)
        });
        canned.page.events = events;
        canned
    }

    /// A host's own view while nobody is primary, with no VMs at all.
    pub fn no_primary() -> Canned {
        let mut canned = Canned::healthy();
        let status = canned.status_mut();
        status.complete = false;
        status.note = Some("host-2 follows no primary at present; an election is under way".to_owned());
        let view = &mut status.view;
        view.host = id(2);
        view.role = Role::Candidate;
        view.primary = None;
        view.primary_reason = None;
        view.vms.clear();
        view.hypervisor_well = false;
        for host in &mut view.hosts {
            if host.host != id(2) {
                host.state = HostState::Unknown;
                host.network_heartbeat = None;
                host.datastore_heartbeats.clear();
                host.datastores.clear();
                host.capacity = None;
                host.hypervisor_well = None;
            }
        }
        for datastore in &mut view.datastores {
            datastore.ownership_left = None;
        }
        canned
    }

    /// host-2 alone in the world, as it sees itself: one VM goes down, one is frozen, two go on.
    pub fn isolated() -> Canned {
        let mut canned = Canned::no_primary();
        let status = canned.status_mut();
        status.complete = true;
        status.note = None;
        let view = &mut status.view;
        view.role = Role::Primary;
        view.primary = Some(id(2));
        view.isolated = true;
        view.hypervisor_well = true;
        view.hosts[1].state = HostState::Isolated;
        view.hosts[1].datastores.pop();
        let store = &mut view.datastores[1];
        (store.connected, store.error, store.lease_left) = (false, Some("Stale file handle".into()), None);
        view.vms = vec![
            VmView {
                note: Some("its host is isolated, isolation response: shut down; will be restarted on host-1 when its host has stopped it".to_owned()),
                isolation_response: IsolationResponse::ShutDown,
                shutdown_timeout: Span::from_secs(120),
                shutdown_timeout_own: true,
                ..vm(1, "web", Some(id(2)), VmState::Running)
            },
            VmView {
                note: Some("frozen: its host reaches neither its datastore nor the datastore's owner".to_owned()),
                isolation_response: IsolationResponse::PowerOff,
                isolation_response_own: true,
                datastore: "nfs2".into(),
                ..vm(2, "db", Some(id(2)), VmState::Frozen)
            },
            VmView {
                isolation_response: IsolationResponse::ShutDown,
                // Of no account while nothing is shut down by it.
                ..vm(3, "mail", Some(id(2)), VmState::Running)
            },
            VmView { shutdown_timeout_own: true, ..vm(4, "dns", Some(id(2)), VmState::Running) },
        ];
        canned
    }

    /// Its guard is gone, and the run leases with it.
    pub fn without_guard() -> Canned {
        let mut canned = Canned::healthy();
        let view = &mut canned.status_mut().view;
        view.guard = false;
        for datastore in &mut view.datastores {
            datastore.lease_left = None;
        }
        canned
    }

    /// Names that are long, not ASCII, or that try to steer the terminal; an id without a configured name.
    pub fn ugly() -> Canned {
        let mut canned = Canned::healthy();
        let status = canned.status_mut();
        status.cluster_name = "Zürich-Süd".to_owned();
        status.host_names.insert(id(1), "kvm-node-with-a-rather-long-name.rack-17.example.org".to_owned());
        status.host_names.insert(id(2), "日本語ホスト".to_owned());
        status.host_names.remove(&id(3));
        let vms = &mut status.view.vms;
        vms[0].name = "web\u{1b}[2J\nevil".into();
        vms[1].name = "データベース".into();
        vms[2].name = "a-virtual-machine-whose-owner-likes-to-write-everything-into-its-name".into();
        canned
    }
}
