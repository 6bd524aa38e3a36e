//! Tests on real files, as one binary.

mod concurrency;
mod contract;
mod files;
mod hang;
mod harness;
mod image_lock;
mod locks_and_xml;
