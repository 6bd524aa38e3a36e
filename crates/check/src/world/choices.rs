//! What may go otherwise than by default, and where.
//!
//! - An operation at the head of the queue may be *held*: it is let go at any later instant of the grid, or at the end of the
//!   present one. Each costs one of the run's delays.
//! - A write that is held may land at any time until it is let go, or ever after if its writer has died. Nobody can tell
//!   when, but by reading: so this is decided at each read of its register.
//! - Faults, and their repairs, at instants of the grid.

use super::{Held, Item, World};
use crate::setup::Fault;
use mainstay_core::message::Body;

/// How an operation is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hold {
    /// It is carried out and answered when it is let go. A write may land before.
    Whole,
    /// A read: carried out now, answered when it is let go.
    Answer,
    /// A read of several registers: the first now, the others when it is let go.
    Rest,
    /// A message: for ever.
    Lost,
}

/// One way to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Choice {
    /// As by default.
    Go,
    /// The operation at the head of the queue is held.
    Hold(Hold),
    /// That held write lands, just before it would be seen.
    Land(usize),
    /// That held operation is let go.
    Release(usize),
    /// That fault of the menu happens.
    Fault(usize),
    /// It is repaired.
    Repair(usize),
}

impl World {
    /// Whether something else than the default may happen to the item at the head of the queue.
    pub(super) fn may_go_otherwise(&self, head: &Item) -> bool {
        let mut choices = Vec::new();
        self.choices_of_head(head, &mut choices);
        !choices.is_empty()
    }

    /// Whether something else than time going on may happen now that nothing is left to do.
    pub(super) fn may_intervene(&self) -> bool {
        let mut choices = Vec::new();
        self.interventions(&mut choices);
        !choices.is_empty()
    }

    /// All ways to go on from here.
    pub fn choices(&self, choices: &mut Vec<Choice>) {
        if self.is_over() || self.checks.violation.is_some() {
            return;
        }
        match self.ready.front() {
            Some(head) => self.choices_of_head(head, choices),
            None => self.interventions(choices),
        }
        choices.push(Choice::Go);
    }

    fn choices_of_head(&self, head: &Item, choices: &mut Vec<Choice>) {
        if self.start == u64::MAX || self.hangs(head) {
            return;
        }
        if let Item::Read(read) = head {
            choices.extend(self.undecided(read).map(Choice::Land));
        }
        if self.faults.delays_left == 0 {
            return;
        }
        let holds = self.setup.holds;
        let of_head: &[Hold] = match head {
            Item::Write(_) if holds.writes => &[Hold::Whole],
            Item::Read(read) if holds.reads && read.wanted.len() > 1 => {
                &[Hold::Whole, Hold::Answer, Hold::Rest]
            }
            Item::Read(_) if holds.reads => &[Hold::Whole, Hold::Answer],
            Item::Message { message, .. } if holds.messages => match message.body {
                Body::Heartbeat(_)
                | Body::HeartbeatAck(_)
                | Body::ListChanged { .. }
                | Body::Released { .. } => &[Hold::Whole, Hold::Lost],
                // Elections are liveness only.
                Body::Elect { .. } | Body::Announce { .. } | Body::SteppingDown | Body::Files(_) => &[],
            },
            Item::Libvirt { .. } if holds.libvirt => &[Hold::Whole],
            Item::Write(_)
            | Item::Read(_)
            | Item::Message { .. }
            | Item::Libvirt { .. }
            | Item::Tick { .. }
            | Item::GuardTick { .. }
            | Item::Ping { .. }
            | Item::PingDone { .. }
            | Item::Order { .. }
            | Item::Report { .. }
            | Item::Deed { .. }
            | Item::Domains { .. }
            | Item::Xml { .. } => &[],
        };
        choices.extend(of_head.iter().copied().map(Choice::Hold));
    }

    fn interventions(&self, choices: &mut Vec<Choice>) {
        if self.start == u64::MAX {
            return;
        }
        for (index, held) in self.held.iter().enumerate() {
            // What was carried out before the storage hung may still be answered.
            let goes = !self.hangs(&held.item) || held.is_done();
            if !held.hung && !held.orphan && (self.on_grid || held.fresh) && goes {
                choices.push(Choice::Release(index));
            }
        }
        if !self.on_grid {
            return;
        }
        for (index, menu) in self.setup.menu.iter().enumerate() {
            let (happened, repaired) = self.faults.happened[index];
            let early = self.now <= self.start + menu.until + super::INSTANT;
            if !happened && early && self.faults.left > 0 && self.makes_sense(menu.fault) {
                choices.push(Choice::Fault(index));
            }
            if happened && !repaired && menu.repaired {
                choices.push(Choice::Repair(index));
            }
        }
    }

    fn makes_sense(&self, fault: Fault) -> bool {
        match fault {
            Fault::NetworkCut(host) => self.hosts[host].powered && !self.faults.cut[host],
            Fault::StorageHang(host) => self.hosts[host].powered && !self.faults.hung[host],
            Fault::Outage(host) => {
                self.hosts[host].powered && !self.faults.hung[host] && !self.faults.cut[host]
            }
            Fault::PowerLoss(host) => self.hosts[host].powered,
            Fault::AgentKill(host) | Fault::AgentStop(host) => self.hosts[host].core.is_some(),
            Fault::UserShutdown => self.executing().next().is_some(),
        }
    }

    /// Goes on that way, to where there is a choice again.
    pub fn take(&mut self, choice: Choice) {
        self.checks.happened = Default::default();
        self.say_choice(choice);
        match choice {
            Choice::Go => match self.ready.pop_front() {
                Some(item) => self.happen(item),
                None => self.advance(),
            },
            Choice::Hold(how) => {
                self.faults.delays_left -= 1;
                self.hold_head(how);
            }
            Choice::Land(index) => {
                if let Some(held) = self.held.get_mut(index)
                    && let Item::Write(write) = held.item.clone()
                {
                    held.landed = true;
                    self.land(&write);
                    self.held.retain(|held| !(held.orphan && held.landed));
                }
            }
            Choice::Release(index) => {
                let held = self.held.remove(index);
                self.let_go(held);
            }
            Choice::Fault(index) => {
                self.faults.left -= 1;
                self.faults.happened[index].0 = true;
                self.befall(self.setup.menu[index].fault);
            }
            Choice::Repair(index) => {
                self.faults.happened[index].1 = true;
                self.repair(self.setup.menu[index].fault);
            }
        }
        self.settle();
    }

    fn hold_head(&mut self, how: Hold) {
        let Some(mut item) = self.ready.pop_front() else { return };
        if let Item::Read(read) = &mut item {
            let mut part = read.clone();
            match how {
                Hold::Answer => self.sample(&mut part, usize::MAX),
                Hold::Rest => self.sample(&mut part, 1),
                Hold::Whole | Hold::Lost => {}
            }
            *read = part;
        }
        if how != Hold::Lost {
            self.hold(item, false);
        }
    }

    fn let_go(&mut self, held: Held) {
        match held.item {
            Item::Write(write) if held.landed => self.answer_write(&write, None),
            Item::Read(read) if read.wanted.is_empty() => self.read(read),
            item => self.happen(item),
        }
    }

    fn befall(&mut self, fault: Fault) {
        match fault {
            Fault::PowerLoss(host) => self.lose_power(host),
            Fault::AgentKill(host) => self.kill_agent(host),
            Fault::AgentStop(host) => self.feed(host, mainstay_core::Input::Stop),
            Fault::UserShutdown => self.user_shutdown(),
            Fault::NetworkCut(_) | Fault::StorageHang(_) | Fault::Outage(_) => {}
        }
        self.set_paths();
    }

    fn repair(&mut self, fault: Fault) {
        let done = match fault {
            Fault::PowerLoss(host) => self.boot(host),
            Fault::AgentKill(host) if self.hosts[host].powered && self.hosts[host].core.is_none() => {
                self.start_agent(host)
            }
            Fault::AgentStop(host) if self.hosts[host].powered && self.hosts[host].core.is_some() => {
                self.kill_agent(host);
                self.start_agent(host)
            }
            Fault::AgentKill(_)
            | Fault::AgentStop(_)
            | Fault::UserShutdown
            | Fault::NetworkCut(_)
            | Fault::StorageHang(_)
            | Fault::Outage(_) => Ok(()),
        };
        if let Err(reason) = done {
            self.checks.fail(reason);
        }
        self.set_paths();
        // What the storage held back goes on, in the order in which it was asked for.
        let (hung, others) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|held: &Held| held.hung && !held.orphan && !self.hangs(&held.item));
        self.held = others;
        let hung: Vec<Held> = hung;
        self.ready.extend(hung.into_iter().map(|held| held.item));
    }

    fn set_paths(&mut self) {
        for host in 0..self.hosts.len() {
            let outage = self.is_active(Fault::Outage(host));
            self.faults.cut[host] = outage || self.is_active(Fault::NetworkCut(host));
            self.faults.hung[host] = outage || self.is_active(Fault::StorageHang(host));
        }
    }
}
