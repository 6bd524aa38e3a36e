//! An agent that cannot have its addresses at start: what it goes on without, and what it says when it can't.

use super::{attempts_until_received, config, free_address, start};
use mainstay_transport::{Net, NetError};
use std::net::SocketAddr;

#[tokio::test]
async fn a_port_in_use_is_told_with_a_remedy() {
    let (first, _keep) = start(config("host-1", free_address(), &[])).await;
    let taken = first.local_address().expect("address");
    let error = Net::start(config("host-2", taken, &[])).await.expect_err("taken");
    assert!(matches!(error, NetError::AddressInUse { address } if address == taken), "{error}");
    assert!(error.to_string().contains("ss -lunp"), "{error}");
    let error = Net::start(config("Host.1", taken, &[])).await.expect_err("name");
    assert!(matches!(error, NetError::InvalidName { .. }), "{error}");
}

#[tokio::test]
async fn an_address_that_is_missing_at_start_stops_only_an_agent_that_has_no_other() {
    // Reserved for documentation: no host has it.
    let missing = SocketAddr::from(([192, 0, 2, 9], 7780));
    let [one, two] = [free_address(), free_address()];
    let mut both = config("host-1", one, &[("host-2", two)]);
    both.listen = vec![missing, one];
    let (first, _keep) = start(both).await;
    let (_second, mut to_second) = start(config("host-2", two, &[("host-1", one)])).await;
    attempts_until_received(&first, "host-2", "by the other", &mut to_second).await;

    let error = Net::start(config("host-3", missing, &[])).await.expect_err("no address");
    assert!(matches!(error, NetError::AddressNotHere { address } if address == missing), "{error}");
    let six = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 7780));
    let error = Net::start(config("host-3", free_address(), &[("host-4", six)])).await.expect_err("no path");
    assert!(matches!(error, NetError::NoPath { .. }), "{error}");
}
