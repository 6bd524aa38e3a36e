//! The short run of the fuzz targets `register` and `message`, and how both formats deal with depth and size.

mod bounds;
mod corpus;
mod message;
mod register;
#[path = "../../../../fuzz/short_run.rs"]
mod short_run;
mod strange;

#[test]
fn registers_on_disk() {
    short_run::run("register", &[], 15_000, register::check);
}

#[test]
fn messages() {
    short_run::run("message", &[], 30_000, message::check);
}
