//! Bytes to types and back, for the wire and for the disk; versioned, never panics.
