//! Autostart of protected VMs: off while they are protected, and put back afterwards.

use super::*;
use mainstay_agent::remembered::Remembered;
use mainstay_agent::vms::{Listed, Lists};
use mainstay_core::event::AutostartChange;
use mainstay_core::{Event, Span, VmName};

impl Bench {
    /// A VM with autostart that runs here.
    fn with_autostart() -> (Bench, hv::DomainUuid) {
        let mut bench = Bench::new();
        let uuid = bench.fake.user_defines(&xml("/srv/ds1/web.img", "")).expect("defined");
        bench.fake.user_starts(uuid).expect("started");
        bench.fake.user_sets_autostart(uuid, true);
        bench.look();
        (bench, uuid)
    }

    /// What libvirt shows now is known.
    fn look(&mut self) {
        for event in self.events_up_to_a_snapshot() {
            self.news(VmNews::Hypervisor(event));
        }
    }

    /// What is protected, after libvirt has been looked at.
    fn lists(&mut self, lists: Lists) {
        self.look();
        self.news(VmNews::Lists(Box::new(lists)));
    }

    /// Later, by more than a VM may be missing in a list that is made anew.
    fn lists_after_a_while(&mut self, lists: Lists) {
        let later = clock::now() + Span::from_secs(61);
        let news = VmNews::Lists(Box::new(lists));
        self.vms.on_news(later, news, &mut self.inputs, &mut self.errands);
        self.run_errands();
    }

    /// What is to be written to disk.
    fn text(&mut self) -> Option<String> {
        let at = self.errands.iter().position(|errand| matches!(errand, Errand::Remember(_)))?;
        let Errand::Remember(text) = self.errands.remove(at) else { panic!() };
        Some(text)
    }

    /// It is written.
    fn write(&mut self) -> String {
        let text = self.text().expect("something to remember");
        self.news(VmNews::Remembered(Ok(())));
        text
    }

    fn autostart(&mut self, uuid: hv::DomainUuid) -> bool {
        let mut flag = None;
        for event in self.events_up_to_a_snapshot() {
            if let hv::Event::Snapshot { domains, .. } = &event {
                flag = domains.iter().find(|domain| domain.uuid == uuid).map(|domain| domain.autostart);
            }
            self.news(VmNews::Hypervisor(event));
        }
        flag.expect("it is there")
    }

    fn told(&mut self) -> Vec<Event> {
        let mut told = Vec::new();
        self.errands.retain(|errand| match errand {
            Errand::Tell(event) => {
                told.push((**event).clone());
                false
            }
            _ => true,
        });
        told
    }
}

fn listed(protected: bool, elsewhere: bool) -> Lists {
    let datastore = DatastoreName::new("ds1");
    let listed = Listed { name: "web".into(), datastore: datastore.clone(), protected, elsewhere };
    Lists { known: [datastore].into(), vms: [(vm(), listed)].into() }
}

fn empty() -> Lists {
    Lists { known: [DatastoreName::new("ds1")].into(), ..Lists::default() }
}

fn off(again: bool) -> Event {
    let change = if again { AutostartChange::OffAgain } else { AutostartChange::Off };
    Event::VmAutostart { vm: VmName { id: vm(), name: "web".into() }, change }
}

fn back() -> Event {
    Event::VmAutostart { vm: VmName { id: vm(), name: "web".into() }, change: AutostartChange::Back }
}

#[test]
fn autostart_is_remembered_first_then_off_and_back_when_the_vm_is_unprotected() {
    let (mut bench, uuid) = Bench::with_autostart();
    bench.lists(listed(true, false));
    assert!(bench.autostart(uuid), "not before it is on disk");
    let text = bench.write();
    assert!(text.contains("\"autostart\": true"), "{text}");
    assert!(!bench.autostart(uuid));
    assert_eq!(bench.told(), [off(false)]);
    bench.lists(listed(true, false));
    assert_eq!((bench.text(), bench.told()), (None, vec![]), "there is no more to do");
    bench.lists(listed(false, false));
    assert!(bench.autostart(uuid));
    assert_eq!(bench.told(), [back()]);
    bench.write();
    bench.lists(listed(false, false));
    assert!(bench.autostart(uuid), "its user's matter from now on");
    assert_eq!(bench.told(), []);
}

#[test]
fn an_agent_that_starts_anew_puts_back_what_an_earlier_one_remembered() {
    let (mut bench, uuid) = Bench::with_autostart();
    bench.lists(listed(true, false));
    let folder = tempfile::tempdir().expect("a folder");
    let text = bench.write();
    std::fs::write(folder.path().join("protected-vms.json"), text).expect("written");
    assert!(!bench.autostart(uuid));
    assert_eq!(bench.told(), [off(false)]);
    let remembered = Remembered::load(folder.path()).expect("read");
    let migrations = Migrations { destinations: [].into(), timeout: std::time::Duration::from_secs(60) };
    bench.vms = Vms::new(Mounts::new(Vec::new()), migrations).remembering(remembered);
    // Nothing is known: neither the definition nor the list.
    bench.news(VmNews::Lists(Box::default()));
    bench.lists(Lists::default());
    assert!(!bench.autostart(uuid));
    // A list that lacks the VM may be one that is made anew.
    bench.lists(empty());
    assert!(!bench.autostart(uuid));
    bench.lists_after_a_while(empty());
    assert!(bench.autostart(uuid));
    assert_eq!(bench.told(), [back()]);
}

#[test]
fn autostart_that_is_switched_on_again_goes_off_again_and_that_is_told_once() {
    let (mut bench, uuid) = Bench::with_autostart();
    bench.lists(listed(true, false));
    bench.write();
    assert!(!bench.autostart(uuid));
    assert_eq!(bench.told(), [off(false)]);
    for told in [vec![off(true)], vec![], vec![]] {
        bench.fake.user_sets_autostart(uuid, true);
        bench.look();
        bench.lists(listed(true, false));
        assert!(!bench.autostart(uuid));
        assert_eq!(bench.told(), told);
    }
}

#[test]
fn autostart_does_not_come_back_where_the_vm_does_not_run_or_is_defined_no_more() {
    let (mut bench, uuid) = Bench::with_autostart();
    bench.lists(listed(true, true));
    bench.write();
    assert!(!bench.autostart(uuid), "a definition that was left behind counts as well");
    bench.told();
    bench.lists(listed(false, true));
    assert!(!bench.autostart(uuid));
    assert!(!bench.write().contains("web"), "and is forgotten");

    let (mut bench, uuid) = Bench::with_autostart();
    bench.lists(listed(true, false));
    bench.write();
    bench.fake.user_destroys(uuid);
    bench.fake.submit(1_000, hv::Op::Undefine { uuid });
    bench.look();
    bench.lists(listed(true, true));
    let text = bench.write();
    assert!(text.contains("web") && !text.contains("autostart"), "{text}");
}

#[test]
fn what_can_not_be_remembered_is_left_as_it_is_and_tried_again() {
    let (mut bench, uuid) = Bench::with_autostart();
    bench.lists(listed(true, false));
    bench.text().expect("something to remember");
    bench.news(VmNews::Remembered(Err("no space left on device".into())));
    assert!(bench.autostart(uuid));
    bench.lists(listed(true, false));
    bench.write();
    assert!(!bench.autostart(uuid));
}

#[test]
fn what_goes_on_as_a_transient_domain_has_no_autostart_to_come_back() {
    let (mut bench, uuid) = Bench::with_autostart();
    bench.lists(listed(true, false));
    bench.write();
    assert!(!bench.autostart(uuid));
    let snapshot = bench.events_up_to_a_snapshot().pop();
    let Some(hv::Event::Snapshot { mut domains, .. }) = snapshot else { panic!("no snapshot") };
    let undefined = hv::Domain { persistent: false, as_of: clock::now(), ..domains.remove(0) };
    bench.news(VmNews::Hypervisor(hv::Event::Changed(Box::new(undefined))));
    bench.news(VmNews::Lists(Box::new(listed(true, false))));
    let text = bench.write();
    assert!(text.contains("web") && !text.contains("autostart"), "{text}");
    bench.lists(listed(false, false));
    assert!(!bench.autostart(uuid), "a definition that came later is its user's");
}

#[test]
fn a_list_that_is_found_again_has_its_time_to_fill_up() {
    let (mut bench, uuid) = Bench::with_autostart();
    bench.lists(listed(true, false));
    bench.write();
    assert!(!bench.autostart(uuid));
    bench.lists(empty());
    bench.lists_after_a_while(Lists::default());
    bench.lists_after_a_while(empty());
    assert!(!bench.autostart(uuid));
}

#[test]
fn what_libvirt_refuses_is_tried_again_when_it_shows_the_vm_anew() {
    let (mut bench, uuid) = Bench::with_autostart();
    bench.lists(listed(true, false));
    bench.fake.refuse_next(uuid, hv::OpError::WrongState { message: "not now".into() });
    bench.write();
    let refused = |event: &hv::Event| matches!(event, hv::Event::Done { result: Err(_), .. });
    while {
        let event = bench.next_event();
        let over = refused(&event);
        bench.news(VmNews::Hypervisor(event));
        !over
    } {}
    bench.news(VmNews::Lists(Box::new(listed(true, false))));
    assert!(bench.autostart(uuid), "it is not asked again and again");
    bench.lists(listed(true, false));
    assert!(!bench.autostart(uuid));
}

#[test]
fn vms_that_nobody_protects_keep_their_autostart() {
    let (mut bench, uuid) = Bench::with_autostart();
    for lists in [Lists::default(), empty(), listed(false, false)] {
        bench.lists(lists);
        assert!(bench.autostart(uuid));
        assert_eq!((bench.text(), bench.told()), (None, vec![]));
    }
}
