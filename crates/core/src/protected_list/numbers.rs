//! The names that an owner gives to grants and orders.
//!
//! Invariant: a number is used once (R27). An epoch has one owner and a higher number than all before it, so what is numbered within
//! an epoch is named uniquely over all owners.

use crate::ids::{Epoch, Token};
use serde::{Deserialize, Serialize};

/// An epoch gives fewer orders. An owner that gave one each second would reach it after eleven days; then its agent starts anew.
const ORDERS_MAX: u64 = 1_000_000;

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
        assert!(self.orders < ORDERS_MAX, "R27: an order of the next epoch would get the same number");
        // Unique over all owners, since an epoch gives fewer than that.
        self.epoch.0.wrapping_mul(ORDERS_MAX).wrapping_add(self.orders)
    }
}
