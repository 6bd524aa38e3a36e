//! Rules broken on purpose: what checks must be able to find. Only with the feature `broken-rules`.

use serde::{Deserialize, Serialize};

/// A rule to break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum BrokenRule {
    /// A host starts, resumes and thaws without having read the protected list again.
    NoReadAfterClaim,
    /// An owner moves a VM without having read its holder's registers again.
    NoReadBeforeConfirm,
    /// An owner grants a whole lease by network, whatever is left of its own ownership.
    AckBeyondOwnership,
    /// An owner takes a silent host for dead although its guard was told not to freeze.
    HoldsIgnored,
    /// A host whose file differs from that of a live host goes on all the same.
    FilesIgnored,
    /// An owner that stood still goes on taking a host for failed that shows itself again.
    FailedStands,
    /// A host thaws the copy of a VM that others have run since.
    OldCopyKept,
    /// An owner reads no stop on purpose but the holder's.
    OnlyHolderHeard,
}
