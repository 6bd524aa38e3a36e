//! The same core on virtual time, with seeded faults and checkers outside the core.
