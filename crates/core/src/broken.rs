//! Rules broken on purpose: what checks must be able to find. Only with the feature `broken-rules`.

use serde::{Deserialize, Serialize};

/// A rule to break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum BrokenRule {
    /// R30, R31, R52: a host starts, resumes and thaws without having read the protected list again.
    NoReadAfterClaim,
    /// R41: an owner moves a VM without having read its holder's registers again.
    NoReadBeforeConfirm,
    /// R50: an owner grants a whole lease by network, whatever is left of its own ownership.
    AckBeyondOwnership,
    /// R72: an owner takes a silent host for dead although its guard was told not to freeze.
    HoldsIgnored,
}
