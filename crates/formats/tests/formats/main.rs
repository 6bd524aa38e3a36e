//! Tests of both formats, as one binary: they share their generators.

mod disk;
mod examples;
mod generators;
mod wire;
