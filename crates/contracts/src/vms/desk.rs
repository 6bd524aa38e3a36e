//! Orders and looks in a handy form.

use super::host::{Heard, HostUnderTest};
use mainstay_words::{Domain, DomainState, Input, OpId, Span, Time, VmAction, VmId, VmOutcome};

/// How soon a look follows an order, at the latest. Less than from one regular look to the next.
const SOON: Span = Span::from_secs(5);

/// What is not told within this does not come.
const PATIENCE: Span = Span::from_secs(60);

/// How long something that must not happen is waited for.
const A_WHILE: Span = Span::from_secs(1);

/// Orders and looks in a handy form.
pub(super) struct Desk<'a> {
    pub(super) host: &'a mut dyn HostUnderTest,
    ops: u64,
    /// When the last answer came.
    answered: Time,
}

impl Desk<'_> {
    /// A host without the VM.
    pub(super) fn empty(host: &mut dyn HostUnderTest) -> Result<Desk<'_>, String> {
        let mut desk = Desk { host, ops: 1_000_000, answered: Time(0) };
        desk.connected(0)?;
        desk.remove()?;
        Ok(desk)
    }

    pub(super) fn remove(&mut self) -> Result<(), String> {
        let vm = self.host.vm();
        self.done(VmAction::Destroy { vm })?;
        self.done(VmAction::Undefine { vm })
    }

    /// A host where the VM runs.
    pub(super) fn running(host: &mut dyn HostUnderTest) -> Result<Desk<'_>, String> {
        let mut desk = Desk::empty(host)?;
        desk.start()?;
        Ok(desk)
    }

    pub(super) fn start(&mut self) -> Result<(), String> {
        let vm = self.host.vm();
        self.done(self.prepare())?;
        self.done(VmAction::Resume { vm })?;
        self.expect_look(DomainState::Running)
    }

    pub(super) fn prepare(&self) -> VmAction {
        let (datastore, xml, token) = self.host.start();
        VmAction::Prepare { vm: self.host.vm(), name: "vm".into(), datastore, xml, token }
    }

    pub(super) fn order(&mut self, action: VmAction) -> OpId {
        self.ops += 1;
        self.host.order(OpId(self.ops), action);
        OpId(self.ops)
    }

    /// The answer, and when it came.
    pub(super) fn answer(&mut self, op: OpId) -> Result<(VmOutcome, Time), String> {
        let (outcome, at) = self.wait(0, &format!("the answer to {op:?}"), |heard| match &heard.input {
            Input::VmDone { op: done, outcome } if *done == op => Some((outcome.clone(), heard.at)),
            _ => None,
        })?;
        self.answered = at;
        Ok((outcome, at))
    }

    pub(super) fn outcome(&mut self, action: VmAction) -> Result<VmOutcome, String> {
        let op = self.order(action);
        Ok(self.answer(op)?.0)
    }

    pub(super) fn done(&mut self, action: VmAction) -> Result<(), String> {
        match self.outcome(action.clone())? {
            VmOutcome::Done => Ok(()),
            other => Err(format!("{other:?} in answer to {action:?}")),
        }
    }

    pub(super) fn failed(&mut self, action: VmAction) -> Result<(), String> {
        match self.outcome(action.clone())? {
            VmOutcome::Failed(_) => Ok(()),
            other => Err(format!("{other:?} in answer to {action:?}, which can't be done")),
        }
    }

    /// The place behind all that was told so far.
    pub(super) fn mark(&self) -> usize {
        self.host.heard().len()
    }

    /// The first thing from `mark` on of which `pick` makes something.
    pub(super) fn wait<T>(
        &mut self,
        mark: usize,
        what: &str,
        pick: impl Fn(&Heard) -> Option<T>,
    ) -> Result<T, String> {
        let mut next = mark;
        let until = self.host.now() + PATIENCE;
        loop {
            while let Some(heard) = self.host.heard().get(next) {
                if let Some(found) = pick(heard) {
                    return Ok(found);
                }
                next += 1;
            }
            if self.host.now() > until || !self.host.go_on() {
                let seen: Vec<String> = self.host.heard()[mark..].iter().map(summary).collect();
                return Err(format!("never came: {what}; told instead:\n    {}", seen.join("\n    ")));
            }
        }
    }

    /// Waits until libvirt has told of everything, from `mark` on.
    pub(super) fn connected(&mut self, mark: usize) -> Result<Vec<Domain>, String> {
        self.wait(mark, "all domains", |heard| match &heard.input {
            Input::Domains { domains, .. } => Some(domains.clone()),
            _ => None,
        })
    }

    /// A look that was asked for after the last answer, and comes soon. `None`: the VM does not exist.
    pub(super) fn look(&mut self) -> Result<Option<Domain>, String> {
        let (vm, from) = (self.host.vm(), self.answered);
        let until = from + SOON;
        self.wait(
            0,
            &format!("a look within {} s, asked for at {from:?} or later", SOON.0 / 1_000_000),
            |heard| {
                let found = seen_in(heard, vm).filter(|(as_of, _)| *as_of >= from);
                found.filter(|_| heard.at <= until).map(|(_, domain)| domain)
            },
        )
    }

    pub(super) fn expect_look(&mut self, state: DomainState) -> Result<(), String> {
        match self.look()? {
            Some(domain) if domain.state == state && domain.persistent => Ok(()),
            other => Err(format!(
                "{:?} instead of {state:?}",
                other.map(|domain| (domain.state, domain.persistent))
            )),
        }
    }

    /// Waits until the VM is told in that state, from `mark` on.
    pub(super) fn told(&mut self, mark: usize, state: DomainState) -> Result<(), String> {
        let vm = self.host.vm();
        self.wait(mark, &format!("{state:?}"), |heard| {
            let (_, domain) = seen_in(heard, vm)?;
            (domain?.state == state).then_some(())
        })
    }

    /// Lets time pass; fails if that is told from `mark` on.
    pub(super) fn never(
        &mut self,
        mark: usize,
        what: &str,
        of: impl Fn(&Heard) -> bool,
    ) -> Result<(), String> {
        let until = self.host.now() + A_WHILE;
        while self.host.now() < until && self.host.go_on() {}
        match self.host.heard()[mark..].iter().find(|heard| of(heard)) {
            Some(heard) => Err(format!("{what}: {}", summary(heard))),
            None => Ok(()),
        }
    }

    /// Lets time pass; fails if a look that was asked for after the last answer shows a VM that is not off.
    pub(super) fn never_there(&mut self) -> Result<(), String> {
        let (vm, from) = (self.host.vm(), self.answered);
        self.never(0, "it is there after all", |heard| {
            let after = seen_in(heard, vm).filter(|(as_of, _)| *as_of >= from);
            let domain = after.and_then(|(_, domain)| domain);
            domain.is_some_and(|domain| !matches!(domain.state, DomainState::Stopped(_)))
        })
    }

    /// What holds of everything that was told.
    pub(super) fn end(self) -> Result<bool, String> {
        let mut newest = None;
        let mut answered = std::collections::BTreeSet::new();
        for heard in self.host.heard() {
            match &heard.input {
                Input::Domain { as_of, .. } => {
                    if newest.is_some_and(|newest| newest > *as_of) {
                        return Err(format!("an older look after a newer one: {}", summary(heard)));
                    }
                    newest = Some(*as_of);
                }
                Input::VmDone { op, .. } if !answered.insert(*op) => {
                    return Err(format!("{op:?} was answered twice"));
                }
                _ => {}
            }
            if let Input::Domain { as_of, .. } | Input::Domains { as_of, .. } = &heard.input
                && *as_of > heard.at
            {
                return Err(format!("told before it was asked for: {}", summary(heard)));
            }
        }
        Ok(true)
    }
}

/// What that says about the VM: when it was asked for, and the domain, or that there is none.
pub(super) fn seen_in(heard: &Heard, vm: VmId) -> Option<(Time, Option<Domain>)> {
    match &heard.input {
        Input::Domain { as_of, domain } if domain.vm == vm => Some((*as_of, Some(domain.clone()))),
        Input::Domains { as_of, domains } => {
            Some((*as_of, domains.iter().find(|domain| domain.vm == vm).cloned()))
        }
        _ => None,
    }
}

pub(super) fn summary(heard: &Heard) -> String {
    let text = match &heard.input {
        Input::Domain { as_of, domain } => format!("{:?} as of {as_of:?}", domain.state),
        Input::Domains { as_of, domains } => {
            let states: Vec<_> = domains.iter().map(|domain| domain.state).collect();
            format!("all: {states:?} as of {as_of:?}")
        }
        other => format!("{other:?}").chars().take(160).collect(),
    };
    format!("{:?} {text}", heard.at)
}

pub(super) fn stopped(heard: &Heard, vm: VmId) -> bool {
    let off =
        |domain: Option<Domain>| domain.is_none_or(|domain| matches!(domain.state, DomainState::Stopped(_)));
    seen_in(heard, vm).is_some_and(|(_, domain)| off(domain))
}
