//! The measures. Each takes what it looks at and returns the places that it has found.

pub mod circles;
pub mod crates;
pub mod documents;
pub mod functions;
pub mod history;
pub mod licences;
pub mod matches;
pub mod prose;
pub mod rules;
pub mod structs;
pub mod text;
