//! The protocol as one deterministic state machine: no clock, no I/O, no randomness, no async.
