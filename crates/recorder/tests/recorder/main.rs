//! The recorder and its reader together, on real files.

mod common;
mod faults;
mod round_trip;
