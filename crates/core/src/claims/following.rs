//! Claims that follow what libvirt shows: a VM that runs, arrives, or has stopped (R34, R36, R47).

use super::*;

impl Claims {
    pub(super) fn follow_running(
        &mut self,
        domain: &Domain,
        look: Option<&Look>,
        host: &HostSide<'_>,
        out: &mut Out<'_>,
    ) {
        let entry = look.and_then(|look| look.list.entry(domain.vm));
        let held = self.slots.get(&domain.vm).filter(|slot| !slot.claim.state.is_released());
        if domain.home.as_ref().is_some_and(|home| *home != self.datastore) {
            // Its disk was moved: from now on it is the other datastore's matter, and must not come back from here.
            if held.is_some() {
                self.release(domain.vm, ClaimState::Stopped { cause: StopCause::MovedAway });
            }
            return;
        }
        if held.is_none() && !self.leased {
            // A claim says that the VM is bound to a lease: there has to be one first, or the guard would freeze it.
            return;
        }
        let arrived = |slot: &&Slot| slot.claim.state != ClaimState::Migrating;
        let began = held.filter(arrived).map_or(out.now, |slot| slot.began);
        // A look from before the VM was here says nothing about this run of it (it may have left and come back).
        let granted = entry
            .filter(|_| look.is_some_and(|look| look.started >= began))
            .filter(|entry| entry.holder.as_ref() == Some(&self.me) && entry.intent.is_none())
            .map(|entry| entry.token);
        let held_token = held.and_then(|slot| slot.claim.token);
        // A frozen copy without a grant: since it came here somebody was granted the VM anew, who runs it or has passed it on.
        let stale = held.filter(|slot| slot.frozen && held_token.is_none()).and_then(|slot| slot.under);
        let conclusive = look.zip(host.lease).is_some_and(|(look, lease)| look.is_conclusive(lease));
        let stale = stale.filter(|_| conclusive);
        let taken = entry.filter(|entry| {
            entry.holder.as_ref() != Some(&self.me)
                && held_token.or(stale).is_some_and(|token| token < entry.token)
        });
        if let Some(entry) = taken {
            // Somebody was told to run it after this host: the later grant counts, this copy goes; also when the VM has been
            // stopped there since.
            let op = self.destroy(domain.vm, out);
            out.event(Event::VmCopyRemoved {
                vm: VmName { id: domain.vm, name: domain.name.clone() },
                holder: entry.holder.clone(),
            });
            if let Some(slot) = self.slots.get_mut(&domain.vm) {
                slot.stage =
                    Stage::Removing { op, then: ClaimState::Stopped { cause: StopCause::Withdrawn } };
            }
            return;
        }
        let spec =
            host.stored.get(&domain.vm).cloned().or_else(|| held.and_then(|slot| slot.claim.spec.clone()));
        let claim = Claim {
            vm: domain.vm,
            name: domain.name.clone(),
            token: granted.or(held_token),
            asked_to_stop: held.is_some_and(|slot| slot.asked_to_stop.is_some_and(|until| out.now < until)),
            powering_off: held.is_some_and(|slot| slot.powered_off.is_some_and(|until| out.now < until)),
            state: if held.is_some_and(|slot| slot.frozen) {
                ClaimState::Frozen
            } else {
                ClaimState::Running
            },
            spec,
            guest: held.map_or(Guest::Silent, |slot| slot.claim.guest),
            order_failed: held.and_then(|slot| slot.claim.order_failed.clone()),
        };
        self.put(claim, began, out);
        self.note_grant(domain.vm, look, host);
    }

    /// Notes under which grant a VM arrived that has none here. A look from before, or one in the term of the lease in which it
    /// came: after that term it may have been granted anew.
    fn note_grant(&mut self, vm: VmId, look: Option<&Look>, host: &HostSide<'_>) {
        let (Some(slot), Some(look)) = (self.slots.get_mut(&vm), look) else { return };
        let same_term = host.lease.is_some_and(|lease| slot.began >= lease.since) && !slot.frozen;
        if slot.claim.token.is_none() && (same_term || look.started <= slot.began) {
            slot.under = slot.under.max(look.list.entry(vm).map(|entry| entry.token));
        }
    }

    /// R45: the target of a live migration is claimed before it can run, so that whoever loses sight of the source waits for it.
    pub(super) fn follow_incoming(&mut self, domain: Option<&Domain>, out: &mut Out<'_>) {
        let Some(domain) = domain.filter(|domain| domain.home.as_ref() == Some(&self.datastore)) else {
            return;
        };
        // What an earlier stay here left behind is for the owner to read first.
        if self.leased && !self.slots.contains_key(&domain.vm) {
            let (token, state, spec) = (None, ClaimState::Migrating, None);
            let (vm, name) = (domain.vm, domain.name.clone());
            let claim = Claim {
                vm,
                name,
                token,
                state,
                spec,
                asked_to_stop: false,
                powering_off: false,
                guest: Guest::Silent,
                order_failed: None,
            };
            self.put(claim, out.now, out);
        }
    }

    pub(super) fn follow_stopped(
        &mut self,
        vm: VmId,
        domain: Option<&Domain>,
        cause: StopCause,
        look: Option<&Look>,
        out: &mut Out<'_>,
    ) {
        let entry = look.and_then(|look| look.list.entry(vm));
        let granted = entry.filter(|entry| {
            entry.holder.as_ref() == Some(&self.me) && entry.intent.is_none() && entry.desired == Desired::On
        });
        if let Some(slot) = self.slots.get_mut(&vm) {
            if !slot.claim.state.is_released() {
                let cause = match slot.cause(cause, out.now) {
                    // Libvirt ends a target whose source has gone: nobody's will.
                    StopCause::UserDestroyed if slot.claim.state == ClaimState::Migrating => {
                        StopCause::Withdrawn
                    }
                    cause => cause,
                };
                slot.claim.state = ClaimState::Stopped { cause };
                slot.stop_told = None;
                self.dirty = true;
                return;
            }
            // A grant that the owner gave while the VM was still running here: this stop is the answer to it, not a start.
            if let (None, Some(entry)) = (slot.claim.token, granted.filter(|entry| entry.attempts == 0)) {
                slot.claim.token = Some(entry.token);
                self.dirty = true;
                return;
            }
            // The owner may not have granted it yet, but must learn why it stopped (I4).
            let told = slot.stop_told.is_some_and(|at| out.now.since(at) >= UNGRANTED_STOP_KEPT);
            if slot.claim.token.is_none() && !told {
                return;
            }
            let processed = look.is_some()
                && entry.is_none_or(|entry| {
                    entry.holder.as_ref() != Some(&self.me) || Some(entry.token) != slot.claim.token
                });
            if !processed {
                return;
            }
            self.slots.remove(&vm);
            self.dirty = true;
        }
        if let (Some(entry), Some(look)) = (granted, look)
            && !look.changing
        {
            let claim = Claim {
                vm,
                name: entry.name.clone(),
                token: Some(entry.token),
                state: ClaimState::Starting,
                spec: Some(entry.spec.clone()),
                asked_to_stop: false,
                powering_off: false,
                guest: Guest::Silent,
                order_failed: None,
            };
            self.slots.insert(vm, Slot::new(claim, Stage::Announcing));
            self.undefining.remove(&vm);
            self.dirty = true;
            return;
        }
        self.drop_definition(vm, domain, entry, out);
    }

    pub(super) fn drop_definition(
        &mut self,
        vm: VmId,
        domain: Option<&Domain>,
        entry: Option<&Entry>,
        out: &mut Out<'_>,
    ) {
        let (Some(domain), Some(entry)) = (domain, entry) else {
            self.undefining.remove(&vm);
            return;
        };
        let Some(holder) = entry.holder.as_ref().filter(|holder| **holder != self.me) else { return };
        if domain.persistent && entry.desired == Desired::On && self.undefining.insert(vm) {
            out.vm(VmAction::Undefine { vm });
            let vm = VmName { id: vm, name: domain.name.clone() };
            out.event(Event::DefinitionDropped { vm, holder: holder.clone() });
        }
    }

    pub(super) fn put(&mut self, claim: Claim, began: Time, out: &mut Out<'_>) {
        if self.slots.get(&claim.vm).is_some_and(|slot| slot.claim == claim) {
            return;
        }
        self.dirty = true;
        self.look_wanted |= claim.token.is_none();
        match self.slots.get_mut(&claim.vm) {
            Some(slot) => {
                let vm = VmName { id: claim.vm, name: claim.name.clone() };
                match (&slot.claim.state, &claim.state) {
                    (ClaimState::Running, ClaimState::Frozen) => out.event(Event::VmFrozen { vm }),
                    (ClaimState::Frozen, ClaimState::Running) => out.event(Event::VmThawed { vm }),
                    _ => {}
                }
                slot.claim = claim;
                slot.began = began;
            }
            None => drop(self.slots.insert(claim.vm, Slot { began, ..Slot::new(claim, Stage::Settled) })),
        }
    }
}
