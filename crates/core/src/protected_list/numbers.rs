//! The names that an owner gives to grants and orders.
//!
//! Invariant: a number is used once (R27). An epoch has one owner and a higher number than all before it, so what is numbered within
//! an epoch is named uniquely over all owners.

use crate::ids::{Epoch, Token};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Numbers {
    epoch: Epoch,
    grants: u64,
    orders: u64,
}

impl Numbers {
    pub(super) fn new(epoch: Epoch) -> Numbers {
        Numbers { epoch, grants: 0, orders: 0 }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// For a new grant.
    pub(super) fn next_grant(&mut self) -> Token {
        self.grants += 1;
        Token { epoch: self.epoch, number: self.grants }
    }

    /// For a new order.
    pub(super) fn next_order(&mut self) -> u64 {
        self.orders += 1;
        // Unique over all owners: an epoch gives fewer than a million. (If one gave more, two orders of a VM could only be taken for
        // the same by chance; that is no reason to end the agent.)
        self.epoch.0.wrapping_mul(1_000_000).wrapping_add(self.orders)
    }
}
