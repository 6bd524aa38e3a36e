//! Election: each partition gets one primary, by rank: most connected datastores first, then the larger host id as text.
//!
//! A candidate bids to all hosts, collects bids for a window, and declares itself when its own is the best. A standing
//! primary answers bids with an announcement, so a host that comes (back) joins it: *a better host does not take over by
//! being better*. The rule for change (R3): a primary hands over when its agent stops, when it meets a primary that owns more
//! datastores (or as many and ranks higher), or when it has reached fewer datastores than one of its secondaries for a
//! whole failure time-out.
//!
//! It does not: decide anything about VMs, or own anything. Two primaries at once (one per partition) are normal.

pub use mainstay_words::judgement::PrimaryReason;

use crate::event::Event;
use crate::ids::HostId;
use crate::message::{Body, Rank};
use crate::out::Out;
use crate::time::{Span, Time};
use crate::timing::Timing;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// A host's part in the election.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Standing {
    Candidate {
        since: Time,
        bid_due: Time,
        round_end: Time,
        bids: BTreeMap<HostId, Bid>,
        /// Hosts that ranked higher in an earlier round but never announced themselves (a one-way link, say).
        passed_over: BTreeSet<HostId>,
    },
    Secondary {
        primary: HostId,
        last_heard: Time,
    },
    Primary {
        reason: PrimaryReason,
        announce_due: Time,
        /// Since when a secondary reaches more datastores.
        outranked_since: Option<Time>,
    },
}

/// What a candidate says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Bid {
    pub(crate) rank: Rank,
    /// How long it collects bids; `None`: it is of an older release.
    pub(crate) window: Option<Span>,
}

/// What the machine around must do after an election step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Turn {
    /// This host stands as it did before.
    None,
    /// This host has become primary.
    Elected,
    /// Became secondary (of another primary than before): send a heartbeat.
    Follows,
    /// Was primary and is no more: let go of what is owned.
    SteppedDown,
    /// Became a candidate without having been primary.
    Stands,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Election {
    me: HostId,
    peers: Vec<HostId>,
    standing: Standing,
    watching_since: Time,
}

/// Which datastores hosts reach, and how many this one owns.
pub(crate) struct Reach {
    /// This host's present rank.
    pub(crate) rank: Rank,
    /// How many datastores it owns.
    pub(crate) owned: u32,
    /// The most datastores that a connected secondary reaches.
    pub(crate) best_member: u32,
    /// Secondaries may beat slowly on some, and so notice later that those are gone.
    pub(crate) slow: bool,
    /// It would hand over at once, being in maintenance: it stands for so long before it declares itself.
    pub(crate) reluctant: Option<Span>,
}

impl Election {
    pub(crate) fn new(me: HostId, peers: Vec<HostId>, now: Time, timing: &Timing) -> Election {
        // Twice the window at the start: hosts that boot together should find each other, and their datastores.
        let standing = Standing::Candidate {
            since: now,
            bid_due: now,
            round_end: now + timing.election_window().scaled(2, 1),
            bids: BTreeMap::new(),
            passed_over: BTreeSet::new(),
        };
        Election { me, peers, standing, watching_since: now }
    }

    pub(crate) fn is_primary(&self) -> bool {
        matches!(self.standing, Standing::Primary { .. })
    }

    pub(crate) fn primary(&self) -> Option<&HostId> {
        match &self.standing {
            Standing::Candidate { .. } => None,
            Standing::Secondary { primary, .. } => Some(primary),
            Standing::Primary { .. } => Some(&self.me),
        }
    }

    /// Why this host is primary, if it is.
    pub(crate) fn reason(&self) -> Option<&PrimaryReason> {
        match &self.standing {
            Standing::Candidate { .. } | Standing::Secondary { .. } => None,
            Standing::Primary { reason, .. } => Some(reason),
        }
    }

    /// When this host last heard no primary: from then on it watches the others itself.
    pub(crate) fn watching_since(&self) -> Time {
        self.watching_since
    }

    pub(crate) fn deadline(&self, timing: &Timing) -> Time {
        match &self.standing {
            Standing::Candidate { bid_due, round_end, .. } => (*bid_due).min(*round_end),
            Standing::Secondary { last_heard, .. } => *last_heard + timing.network_timeout(),
            Standing::Primary { announce_due, .. } => *announce_due,
        }
    }

    pub(crate) fn stand(&mut self, reason: &str, timing: &Timing, out: &mut Out<'_>) -> Turn {
        let was_primary = self.is_primary();
        if was_primary {
            out.event(Event::SteppedDown { reason: Arc::from(reason) });
            for peer in &self.peers {
                out.send(peer, Body::SteppingDown);
            }
        } else {
            self.watching_since = out.now;
        }
        out.event(Event::ElectionStarted { reason: Arc::from(reason) });
        self.standing = Standing::Candidate {
            since: out.now,
            bid_due: out.now,
            round_end: out.now + timing.election_window(),
            bids: BTreeMap::new(),
            passed_over: BTreeSet::new(),
        };
        if was_primary { Turn::SteppedDown } else { Turn::Stands }
    }

    /// R16: this host stood still until now. Its primary gets the time to be heard that it always has, and so do bids.
    pub(crate) fn go_on(&mut self, timing: &Timing, now: Time) {
        match &mut self.standing {
            Standing::Candidate { round_end, .. } => {
                *round_end = (*round_end).max(now + timing.election_window());
            }
            Standing::Secondary { last_heard, .. } => *last_heard = now,
            Standing::Primary { .. } => {}
        }
    }

    fn follow(&mut self, primary: &HostId, out: &mut Out<'_>) -> Turn {
        let was_primary = self.is_primary();
        if was_primary {
            let reason = alloc::format!("{primary} is primary too and owns more datastores, or ranks higher");
            out.event(Event::SteppedDown { reason: reason.into() });
        }
        out.event(Event::FollowsPrimary { primary: primary.clone() });
        self.standing = Standing::Secondary { primary: primary.clone(), last_heard: out.now };
        if was_primary { Turn::SteppedDown } else { Turn::Follows }
    }

    /// `outsiders`: hosts that are not connected with this one as their primary.
    pub(crate) fn on_tick(
        &mut self,
        reach: &Reach,
        outsiders: impl FnOnce() -> Vec<HostId>,
        timing: &Timing,
        out: &mut Out<'_>,
    ) -> Turn {
        let Reach { rank, owned, best_member, slow, reluctant } = reach;
        match &mut self.standing {
            Standing::Secondary { primary, last_heard } => {
                if out.now.since(*last_heard) < timing.network_timeout() {
                    return Turn::None;
                }
                let reason = alloc::format!("primary {primary} is silent");
                self.stand(&reason, timing, out)
            }
            Standing::Candidate { bid_due, .. } => {
                if out.now >= *bid_due {
                    *bid_due = out.now + timing.heartbeat.scaled(1, 2);
                    for peer in &self.peers {
                        out.send(peer, bid(rank, timing));
                    }
                }
                self.close_round(rank, *reluctant, timing, out)
            }
            Standing::Primary { announce_due, outranked_since, .. } => {
                if out.now >= *announce_due {
                    *announce_due = out.now + timing.heartbeat;
                    for host in outsiders() {
                        out.send(&host, Body::Announce { rank: rank.clone(), owned: *owned });
                    }
                }
                if *best_member <= rank.datastores {
                    *outranked_since = None;
                    return Turn::None;
                }
                let since = *outranked_since.get_or_insert(out.now);
                let patience = timing.failure_timeout + if *slow { timing.resync() } else { Span::ZERO };
                if out.now.since(since) < patience {
                    return Turn::None;
                }
                self.stand("a secondary reaches more datastores", timing, out)
            }
        }
    }

    fn close_round(
        &mut self,
        rank: &Rank,
        reluctant: Option<Span>,
        timing: &Timing,
        out: &mut Out<'_>,
    ) -> Turn {
        let Standing::Candidate { since, round_end, bids, passed_over, .. } = &mut self.standing else {
            return Turn::None;
        };
        if out.now < *round_end {
            return Turn::None;
        }
        let others = bids.values().filter(|bid| !passed_over.contains(&bid.rank.host));
        match others.max_by_key(|bid| &bid.rank) {
            Some(best) if best.rank > *rank => {
                // The better one has had this host's window to announce itself. Its own may be longer. It gets that and one more,
                // then it is passed over.
                let window = timing.election_window().max(best.window.unwrap_or_default());
                passed_over.insert(best.rank.host.clone());
                *round_end = out.now + window.scaled(2, 1);
                Turn::None
            }
            // Who would hand over at once leaves the role to the others, if they take it.
            _ if reluctant.is_some_and(|patience| out.now.since(*since) < patience) => {
                *round_end = out.now + timing.election_window();
                Turn::None
            }
            runner_up => {
                let runner_up = runner_up.map(|bid| &bid.rank);
                let better = bids.values().map(|bid| &bid.rank).filter(|bid| *bid > rank).max();
                let reason = match (better, runner_up) {
                    (Some(better), _) => {
                        PrimaryReason::BetterOneSilent { rank: rank.clone(), better: better.clone() }
                    }
                    (None, None) => PrimaryReason::OnlyCandidate { rank: rank.clone() },
                    (None, Some(next)) if next.datastores < rank.datastores => {
                        PrimaryReason::MoreDatastores { rank: rank.clone(), runner_up: next.clone() }
                    }
                    (None, Some(next)) => {
                        PrimaryReason::LargerId { rank: rank.clone(), runner_up: next.clone() }
                    }
                };
                out.event(Event::BecamePrimary { reason: reason.clone() });
                self.standing = Standing::Primary { reason, announce_due: out.now, outranked_since: None };
                Turn::Elected
            }
        }
    }

    /// A bid arrived.
    pub(crate) fn on_elect(
        &mut self,
        from: &HostId,
        bid: Bid,
        rank: &Rank,
        owned: u32,
        timing: &Timing,
        out: &mut Out<'_>,
    ) -> Turn {
        match &mut self.standing {
            Standing::Primary { .. } => {
                out.send(from, Body::Announce { rank: rank.clone(), owned });
                Turn::None
            }
            Standing::Secondary { primary, .. } => {
                if primary != from {
                    return Turn::None;
                }
                let reason = alloc::format!("primary {from} stands for election anew");
                self.stand(&reason, timing, out)
            }
            Standing::Candidate { bids, .. } => {
                if bids.insert(from.clone(), bid).is_none() {
                    out.send(from, self::bid(rank, timing));
                }
                Turn::None
            }
        }
    }

    /// A primary presented itself.
    pub(crate) fn on_announce(
        &mut self,
        from: &HostId,
        theirs: (u32, Rank),
        mine: (u32, Rank),
        out: &mut Out<'_>,
    ) -> Turn {
        match &mut self.standing {
            Standing::Candidate { .. } => self.follow(from, out),
            Standing::Secondary { primary, last_heard } => {
                if primary == from {
                    *last_heard = out.now;
                }
                Turn::None
            }
            Standing::Primary { .. } => {
                if theirs > mine {
                    return self.follow(from, out);
                }
                out.send(from, Body::Announce { rank: mine.1, owned: mine.0 });
                Turn::None
            }
        }
    }

    /// The primary answered a heartbeat. Returns whether it is ours.
    pub(crate) fn on_ack(&mut self, from: &HostId, now: Time) -> bool {
        match &mut self.standing {
            Standing::Secondary { primary, last_heard } if primary == from => {
                *last_heard = now;
                true
            }
            Standing::Secondary { .. } | Standing::Candidate { .. } | Standing::Primary { .. } => false,
        }
    }

    /// A host said that it is (no longer) primary.
    pub(crate) fn on_stepping_down(&mut self, from: &HostId, timing: &Timing, out: &mut Out<'_>) -> Turn {
        match &self.standing {
            Standing::Secondary { primary, .. } if primary == from => {
                let reason = alloc::format!("primary {from} stepped down");
                self.stand(&reason, timing, out)
            }
            Standing::Secondary { .. } | Standing::Candidate { .. } | Standing::Primary { .. } => Turn::None,
        }
    }
}

fn bid(rank: &Rank, timing: &Timing) -> Body {
    Body::Elect { rank: rank.clone(), window: Some(timing.election_window()) }
}
