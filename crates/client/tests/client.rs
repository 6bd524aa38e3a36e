//! The client against sockets that answer, answer wrongly, or say nothing.

use mainstay_api::Done;
use mainstay_api::order::{HostOrder, Order};
use mainstay_client::{Client, ClientError};
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::JoinHandle;

/// Answers one request with these bytes; gives the request.
fn agent(socket: &Path, answer: &'static [u8]) -> JoinHandle<String> {
    let listener = UnixListener::bind(socket).expect("a socket");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).expect("a request");
            request.extend(byte);
        }
        stream.write_all(answer).expect("sent");
        String::from_utf8(request).expect("UTF-8")
    })
}

fn asked(answer: &'static [u8]) -> (Result<Done, ClientError>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("agent.sock");
    let agent = agent(&socket, answer);
    let order = Order::Host { host: "h 1".into(), order: HostOrder::ConfirmDown };
    let done = Client::new(&socket).on_host("h2").order(&order);
    (done, agent.join().expect("the agent"))
}

#[test]
fn an_order_is_one_post_and_its_answer_is_read_with_and_without_a_length() {
    for answer in [
        &b"HTTP/1.0 200 OK\r\nCONTENT-length: 18\r\n\r\n{\"message\":\"done\"}and more"[..],
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"message\":\"done\"}",
    ] {
        let (done, request) = asked(answer);
        assert_eq!(done.expect("done").message, "done");
        let (first, rest) = request.split_once("\r\n").expect("lines");
        assert_eq!(first, "POST /v1/hosts/h%201/confirm-down HTTP/1.0");
        assert!(rest.contains("mainstay-host: h2\r\n") && rest.contains("Content-Length: 0\r\n"), "{rest}");
    }
}

#[test]
fn a_refusal_has_the_agents_words_or_the_status() {
    let (refused, _) = asked(b"HTTP/1.1 409 Conflict\r\n\r\n{\"error\":\"it is not so\"}");
    assert!(
        matches!(&refused, Err(ClientError::Refused { status: 409, error }) if error == "it is not so"),
        "{refused:?}"
    );
    let (refused, _) = asked(b"HTTP/1.1 500 X\r\ncontent-length: 4\r\n\r\noops");
    assert!(refused.expect_err("refused").to_string().contains("HTTP status 500"));
}

#[test]
fn what_is_no_answer_is_a_broken_connection_and_what_is_no_json_is_unreadable() {
    for answer in
        [&b""[..], b"nonsense\r\n\r\n", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}"]
    {
        let (failed, _) = asked(answer);
        assert!(matches!(failed, Err(ClientError::Broken(_))), "{failed:?}");
    }
    let (failed, _) = asked(b"HTTP/1.1 200 OK\r\n\r\n{\"message\":");
    assert!(matches!(failed, Err(ClientError::Unreadable(_))), "{failed:?}");
}

#[test]
fn without_an_agent_it_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("agent.sock");
    let ask = || Client::new(&socket).get::<Done>("/v1/status");
    assert!(matches!(ask(), Err(ClientError::NoAgent { .. })));
    // A file that an agent left behind.
    drop(UnixListener::bind(&socket).expect("a socket"));
    assert!(matches!(ask(), Err(ClientError::NoAgent { .. })));
}

#[test]
fn nobody_smuggles_a_request_in_a_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let client = Client::new(folder.path().join("agent.sock"));
    let ask = |client: &Client, target| client.get::<Done>(target);
    let named = client.clone().on_host("h1\r\nx: y");
    assert!(matches!(ask(&named, "/v1/status"), Err(ClientError::Refused { status: 400, .. })));
    assert!(matches!(ask(&client, "/v1/ HTTP/1.0\r\n"), Err(ClientError::Refused { status: 400, .. })));
}
