//! Shared by the property tests, the comparison with `crm_simulate` and the benchmark: random pictures, and the best that is possible.
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each user takes a part of it, and which part is unused differs"
)]

pub mod best;
pub mod cluster;
pub mod crm;
pub mod random;
