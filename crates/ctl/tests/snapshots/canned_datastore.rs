//! A datastore of a made-up cluster, as bytes in files.

use mainstay_core::ids::{BootId, Epoch, HostId, Incarnation, Token, VmId, XmlId};
use mainstay_core::register::{
    Ballot, Claim, ClaimState, Entry, HeartbeatRegister, IsolationResponse, ListStamp, Order, OrderKind,
    OwnerBeat, OwnershipBlock, PowerOnList, ProtectedList, StopCause, Suspension, VmSpec,
};
use mainstay_core::settings::Settings;
use mainstay_core::time::Span;
use mainstay_core::{RegisterId, RegisterValue};
use mainstay_formats::encode_slot;
use mainstay_formats::layout::{ClusterId, LIST_FILE, TOP_FOLDER, XML_FOLDER, locate, xml_file};
use mainstay_testkit::made;
use std::os::unix::fs::FileExt;
use std::path::Path;
use tempfile::TempDir;

fn write(folder: &Path, id: &RegisterId, value: RegisterValue) {
    let at = locate(id).expect("a good name");
    let bytes = encode_slot(&ClusterId::parse("c1").expect("an id"), id, 9, &value).expect("a good value");
    let path = folder.join(&at.file);
    let file = std::fs::File::options().create(true).truncate(false).write(true).open(path).expect("a file");
    file.set_len(at.file_size).expect("space");
    file.write_all_at(&bytes, at.slots[0]).expect("space");
}

fn entry(number: u8, name: &str, holder: Option<&str>) -> Entry {
    Entry {
        name: name.into(),
        spec: VmSpec { xml: XmlId(7), ..made::spec() },
        holder: holder.map(HostId::new),
        token: Token { epoch: Epoch(7), number: number.into() },
        ..made::entry(number)
    }
}

fn list(folder: &Path, epoch: u64, owner: &str, entries: Vec<Entry>) {
    let epoch = Epoch(epoch);
    let value = ProtectedList {
        version: 42,
        owner: owner.into(),
        settings: Settings { revision: 2 * (epoch.0 - 6), ..Settings::default() }.into(),
        suspension: (epoch.0 > 6).then_some(Suspension { left: Span::from_secs(7_200), stands: true }),
        ..made::protected_list(epoch, entries)
    };
    write(folder, &RegisterId::ProtectedList(epoch), RegisterValue::ProtectedList(value));
}

/// Two hosts; a damaged slot; lists of two epochs; a foreign file.
pub fn make() -> TempDir {
    let datastore = tempfile::tempdir().expect("a folder");
    let cluster = ClusterId::parse("c1").expect("an id");
    let folder = datastore.path().join(TOP_FOLDER).join(cluster.folder_name("lab"));
    std::fs::create_dir_all(folder.join(XML_FOLDER)).expect("a folder");
    let (boot, incarnation) = (BootId([1; 16]), Incarnation(0xabc));
    for (host, counter) in [("host-1", 812), ("host-2", 17)] {
        let agent_well = host == "host-1";
        let value = HeartbeatRegister {
            boot,
            incarnation,
            agent: agent_well.then_some(Incarnation(0xdef)),
            agent_well,
            failure_timeout: Some(Span::from_millis(4_500)),
            ..made::heartbeat(counter)
        };
        write(&folder, &RegisterId::Heartbeat(host.into()), RegisterValue::Heartbeat(value));
    }
    let damaged = std::fs::File::options().write(true).open(folder.join("host-1-hb")).expect("a file");
    damaged.write_all_at(b"rubbish", 4_096).expect("space");
    let claim = |entry: Entry, state| Claim {
        vm: entry.vm,
        name: entry.name,
        token: Some(entry.token),
        spec: Some(entry.spec),
        ..made::claim(1, state)
    };
    let mut started_by_user = claim(entry(3, "new", None), ClaimState::Running);
    (started_by_user.token, started_by_user.spec) = (None, None);
    let claims = vec![
        claim(entry(1, "web", None), ClaimState::Running),
        claim(entry(2, "db", None), ClaimState::Stopped { cause: StopCause::GuestShutdown }),
        started_by_user,
        claim(entry(4, "mail", None), ClaimState::Frozen),
        claim(entry(5, "dns", None), ClaimState::Stopping),
    ];
    let value = PowerOnList {
        boot,
        incarnation,
        isolated: true,
        list_seen: Some(ListStamp { epoch: Epoch(7), version: 41 }),
        ..made::power_on_list(5, claims)
    };
    write(&folder, &RegisterId::PowerOn("host-1".into()), RegisterValue::PowerOn(value));
    let ballot = Ballot { round: 3, host: "host-2".into() };
    let value = OwnershipBlock {
        boot,
        incarnation,
        instance: Epoch(7),
        promised: Some(ballot.clone()),
        accepted: Some((ballot, "host-2".into()).into()),
        beat: Some(OwnerBeat { epoch: Epoch(7), counter: 99, released: false }),
        files: None,
    };
    write(&folder, &RegisterId::Ownership("host-2".into()), RegisterValue::Ownership(value));
    list(&folder, 6, "host-1", vec![entry(1, "web", Some("host-1"))]);
    let mut moving = entry(2, "db", Some("host-1"));
    (moving.intent, moving.attempts, moving.failed_over_from) =
        (Some("host-2".into()), 2, Some("host-1".into()));
    let mut frozen = entry(4, "mail", Some("host-1"));
    frozen.shutdown_timeout = Some(Span::from_secs(60));
    let mut stopping = entry(5, "dns", Some("host-1"));
    (stopping.responsible, stopping.isolation_response, stopping.shutdown_timeout) =
        (Some("host-2".into()), Some(IsolationResponse::ShutDown), Some(Span::from_secs(120)));
    let mut ordered = entry(1, "web", Some("host-1"));
    ordered.order = Some(Order { number: 7_000_001, what: OrderKind::Migrate("host-2".into()) });
    list(&folder, 7, "host-2", vec![ordered, moving, frozen, stopping]);
    assert!(folder.join(LIST_FILE).exists());
    let xml = folder.join(XML_FOLDER).join(xml_file(VmId([1; 16]), XmlId(7)));
    std::fs::write(xml, "<domain/>").expect("a file");
    std::fs::write(folder.join("notes.txt"), "hello").expect("a file");
    datastore
}
