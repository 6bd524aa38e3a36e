//! Keeps all news, and waits for the one that a test needs.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use mainstay_hypervisor::{Domain, DomainUuid, Event, Handle, Op, OpError, OpOutput, Sink};
use mainstay_testkit::PATIENCE;

#[derive(Clone, Default)]
pub struct Recorder {
    events: Arc<(Mutex<Vec<Event>>, Condvar)>,
}

impl Recorder {
    pub fn sink(&self) -> Sink {
        let events = Arc::clone(&self.events);
        Box::new(move |event| {
            events.0.lock().expect("no test panics while it holds this").push(event);
            events.1.notify_all();
        })
    }

    /// The place behind all news so far.
    pub fn mark(&self) -> usize {
        self.events.0.lock().expect("not poisoned").len()
    }

    pub fn since(&self, mark: usize) -> Vec<Event> {
        self.events.0.lock().expect("not poisoned")[mark..].to_vec()
    }

    /// The first event from `mark` on of which `pick` makes something.
    pub fn wait<T>(&self, what: &str, mark: usize, pick: impl Fn(&Event) -> Option<T>) -> T {
        let start = Instant::now();
        let mut events = self.events.0.lock().expect("not poisoned");
        loop {
            if let Some(found) = events[mark..].iter().find_map(&pick) {
                return found;
            }
            let left = PATIENCE.checked_sub(start.elapsed());
            let Some(left) = left else {
                let seen = events[mark..].iter().map(summary).collect::<Vec<_>>().join("\n  ");
                drop(events);
                panic!("never came: {what}. Seen instead:\n  {seen}");
            };
            events = self.events.1.wait_timeout(events, left).expect("not poisoned").0;
        }
    }

    /// The domain as told by a change or a snapshot, once `good` likes it.
    pub fn wait_domain(
        &self,
        what: &str,
        mark: usize,
        uuid: DomainUuid,
        good: impl Fn(&Domain) -> bool,
    ) -> Domain {
        self.wait(what, mark, |event| match event {
            Event::Changed(domain) if domain.uuid == uuid && good(domain) => Some((**domain).clone()),
            Event::Snapshot { domains, .. } => {
                domains.iter().find(|domain| domain.uuid == uuid && good(domain)).cloned()
            }
            _ => None,
        })
    }

    pub fn run(&self, handle: &dyn Handle, id: u64, op: Op) -> Result<OpOutput, OpError> {
        let mark = self.mark();
        let what = format!("the result of {}", summary_of_op(&op));
        handle.submit(id, op);
        self.wait(&what, mark, |event| match event {
            Event::Done { id: done, result } if *done == id => Some(result.clone()),
            _ => None,
        })
    }
}

fn summary_of_op(op: &Op) -> String {
    format!("{op:?}").chars().take(80).collect()
}

fn summary(event: &Event) -> String {
    match event {
        Event::Snapshot { as_of: _, domains, unanswered, strays, complete } => {
            let states: Vec<String> =
                domains.iter().map(|domain| format!("{}={:?}", domain.name, domain.state)).collect();
            format!("Snapshot complete={complete} {states:?} unanswered={unanswered:?} strays={strays:?}")
        }
        Event::Changed(domain) => format!("Changed {} {:?} pid={:?}", domain.name, domain.state, domain.pid),
        other => format!("{other:?}").chars().take(300).collect(),
    }
}
