//! `--json`, in the words of the API.

use super::*;

#[test]
fn json_of_lists_is_an_array_in_the_words_of_the_api() {
    check(
        Canned::healthy(),
        "mainstay --json datastore list",
        expect![[r#"
            [
              {
                "datastore": "nfs1",
                "connected": true,
                "error": null,
                "owner": "host-3",
                "epoch": 7,
                "list": {
                  "epoch": 7,
                  "version": 42
                },
                "ownership_left": 2600000,
                "heartbeat": true,
                "lease_left": 2400000,
                "unreadable_registers": 0
              },
              {
                "datastore": "nfs2",
                "connected": true,
                "error": null,
                "owner": "host-3",
                "epoch": 7,
                "list": {
                  "epoch": 7,
                  "version": 42
                },
                "ownership_left": 2600000,
                "heartbeat": true,
                "lease_left": 2400000,
                "unreadable_registers": 0
              }
            ]
        "#]],
    );
    let hosts = run(&mut Canned::healthy(), None, "mainstay host list --json");
    let hosts: serde_json::Value = serde_json::from_str(&hosts).expect("JSON");
    assert_eq!(hosts[0]["name"], "h1");
    assert_eq!(hosts[0]["host"], "host-1");
    assert_eq!(hosts[0]["state"], "connected");
    assert_eq!(hosts[2]["role"], "primary");
    let vms = run(&mut Canned::healthy(), None, "mainstay vm list --json --host h1");
    let vms: serde_json::Value = serde_json::from_str(&vms).expect("JSON");
    assert_eq!(vms.as_array().map(Vec::len), Some(1));
    assert_eq!(vms[0]["state"], "running");
}

#[test]
fn json_of_status_and_events_is_what_the_api_said() {
    let mut canned = Canned::host_failed();
    let status: mainstay_api::Status =
        serde_json::from_str(&run(&mut canned, None, "mainstay --json status")).expect("a Status");
    assert_eq!(Ok(status), canned.status);
    let page = run(&mut canned, None, "mainstay --json events");
    let (page, messages) = page.split_once("stderr|").expect("a host is missing");
    assert!(messages.contains("events of h1"), "{messages}");
    let page: mainstay_api::EventPage = serde_json::from_str(page).expect("a page");
    assert_eq!(page, canned.page);
    let lines = run(&mut canned, None, "mainstay --json events --follow --limit 0");
    let record: mainstay_api::EventRecord =
        serde_json::from_str(lines.lines().next().expect("a line")).expect("a record");
    assert_eq!(Some(&record), canned.to_follow.first());
}
