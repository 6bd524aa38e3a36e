//! R5: whether the files of all hosts that this one sees name the same hosts and datastores.
//!
//! A host's *last word* is what its newest message, or its newest heartbeat on disk, says of its file.
//!
//! Invariant: while a live host's last word differs, [`Agreement::holds`] is false.
//!
//! It does not: end what runs, judge who is alive, or know what follows from a difference. The rooms that may do something new ask
//! here first.

use crate::config::Config;
use crate::datastore::Datastore;
use crate::datastores::Datastores;
use crate::event::Event;
use crate::files::{Files, FilesDigest};
use crate::hosts::{Hosts, Peer};
use crate::ids::HostId;
use crate::message::Body;
use crate::out::Out;
use crate::time::Time;
use crate::timing::Timing;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use serde::{Deserialize, Serialize};

/// What this host's file says, and whose file says something else.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Agreement {
    me: HostId,
    ours: Files,
    digest: FilesDigest,
    /// What each host's last message says.
    said: BTreeMap<HostId, FilesDigest>,
    apart: BTreeMap<HostId, Apart>,
    /// What hosts said that their files name, for people.
    theirs: BTreeMap<HostId, Files>,
    /// When those whose files differ are told what stands in this one's.
    tell_due: Time,
    #[cfg(feature = "broken-rules")]
    broken: bool,
}

/// A host whose last word differs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Apart {
    /// It is heard, or its heartbeat moves.
    live: bool,
    since: Time,
    /// People know; and the words that they were given.
    told: Option<Option<Arc<str>>>,
}

impl Agreement {
    pub(crate) fn new(config: &Config, now: Time) -> Agreement {
        let ours = Files::of(config);
        Agreement {
            me: config.me.clone(),
            digest: ours.digest(),
            ours,
            said: BTreeMap::new(),
            apart: BTreeMap::new(),
            theirs: BTreeMap::new(),
            tell_due: now,
            #[cfg(feature = "broken-rules")]
            broken: false,
        }
    }

    /// Breaks R5: differences are told, and nothing follows from them.
    #[cfg(feature = "broken-rules")]
    pub(crate) fn break_rule(&mut self, rule: crate::BrokenRule) {
        self.broken = rule == crate::BrokenRule::FilesIgnored;
    }

    /// What this host's file says, in short.
    pub(crate) fn digest(&self) -> FilesDigest {
        self.digest
    }

    /// Nothing that is alive has a file that differs. Whoever does something new asks here first.
    pub(crate) fn holds(&self) -> bool {
        #[cfg(feature = "broken-rules")]
        if self.broken {
            return true;
        }
        !self.apart.values().any(|apart| apart.live)
    }

    /// The last word of some host differs: everybody's heartbeat is watched, to see who is alive.
    pub(crate) fn is_disturbed(&self) -> bool {
        !self.apart.is_empty()
    }

    /// Whether that host's last word differs: what it does when it falls silent is not known then.
    pub(crate) fn is_apart(&self, host: &HostId) -> bool {
        #[cfg(feature = "broken-rules")]
        if self.broken {
            return false;
        }
        self.apart.contains_key(host)
    }

    /// A message says what stands in its sender's file. Counts at once: what the message asks for is answered in this step.
    pub(crate) fn on_message(&mut self, from: &HostId, files: Option<FilesDigest>, now: Time) {
        match files {
            Some(files) => drop(self.said.insert(from.clone(), files)),
            None => drop(self.said.remove(from)),
        }
        if files.is_some_and(|files| files != self.digest) {
            let apart = Apart { live: true, since: now, told: None };
            self.apart.entry(from.clone()).or_insert(apart).live = true;
        }
    }

    /// A host says what its file names.
    pub(crate) fn on_files(&mut self, from: &HostId, files: Files) {
        self.theirs.insert(from.clone(), files);
    }

    /// Whose last word differs now, and who of them is alive.
    pub(crate) fn tick(
        &mut self,
        hosts: &Hosts,
        datastores: &Datastores,
        timing: &Timing,
        out: &mut Out<'_>,
    ) {
        let said = || self.said.values().any(|files| *files != self.digest);
        let written = || datastores.all().any(|datastore| datastore.mirror().shows_other_files());
        if self.apart.is_empty() && !said() && !written() {
            return;
        }
        for peer in hosts.all() {
            let host = peer.host();
            let word = last_word(peer, self.said.get(host).copied(), datastores, timing, out.now);
            let differs = word.is_some_and(|word| word != self.digest);
            if differs && !datastores.all().any(|datastore| datastore.is_presumed_down(host)) {
                let live = is_live(peer, datastores, timing, out.now);
                let apart = Apart { live, since: out.now, told: None };
                self.apart.entry(host.clone()).or_insert(apart).live = live;
            } else if self.apart.remove(host).is_some_and(|apart| apart.told.is_some()) {
                out.event(Event::FilesAgree { host: host.clone() });
            }
        }
        self.tell(timing, out);
    }

    /// Tells people, and those hosts what this one's file names.
    fn tell(&mut self, timing: &Timing, out: &mut Out<'_>) {
        for (host, apart) in &mut self.apart {
            let theirs = self.theirs.get(host);
            let words = theirs.map(|theirs| Arc::from(self.ours.difference(&self.me, theirs, host)));
            // In words, where they come in time.
            let waits = words.is_none() && out.now.since(apart.since) < timing.network_timeout();
            let known = apart.told.as_ref().is_some_and(|told| *told == words || words.is_none());
            if !waits && !known {
                apart.told = Some(words.clone());
                out.event(Event::FilesDiffer { host: host.clone(), difference: words });
            }
        }
        if out.now >= self.tell_due && !self.apart.is_empty() {
            self.tell_due = out.now + timing.resync();
            for host in self.apart.keys() {
                out.send(host, Body::Files(self.ours.clone().into()));
            }
        }
    }
}

/// What was last seen of a host's file: of one that is heard, its messages; else the newest of all signs of life.
fn last_word(
    peer: &Peer,
    said: Option<FilesDigest>,
    datastores: &Datastores,
    timing: &Timing,
    now: Time,
) -> Option<FilesDigest> {
    if is_heard(peer, timing, now) && said.is_some() {
        return said;
    }
    let written = datastores.all().filter_map(|datastore| datastore.mirror().last_word(peer.host()));
    let said = peer.last_network().map(|at| (at, said));
    written.chain(said).max_by_key(|(at, _)| *at)?.1
}

fn is_heard(peer: &Peer, timing: &Timing, now: Time) -> bool {
    peer.last_network().is_some_and(|at| now.since(at) < timing.network_timeout())
}

/// It is heard, or its heartbeat has moved lately on some datastore, or nobody can say.
fn is_live(peer: &Peer, datastores: &Datastores, timing: &Timing, now: Time) -> bool {
    let evidence = |datastore: &Datastore| datastore.mirror().evidence(peer.host(), timing, now);
    let mut all = datastores.all().filter_map(evidence).peekable();
    let unseen = all.peek().is_none();
    let moves = all.any(|disk| disk.has_moved(timing));
    is_heard(peer, timing, now) || unseen || moves
}
