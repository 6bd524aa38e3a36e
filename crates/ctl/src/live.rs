//! The agent at the other end of the socket.

use crate::ask::{Agent, NoAnswer, Route};
use crate::exit::Failure;
use mainstay_api::order::Order;
use mainstay_api::{Done, EventPage, EventRecord, Rehearsal, Status};
use mainstay_client::{Client, ClientError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How many events are fetched for the filters to choose from: more than an agent keeps at hand, so all of them.
const EVENTS_FETCHED: usize = 1_000_000;

/// Asks over the socket.
pub struct Live {
    client: Client,
    route: Route,
    host_sockets: PathBuf,
}

impl Live {
    /// Nothing is connected before something is asked.
    pub fn new(route: Route, host_sockets: &Path) -> Live {
        let client = Client::new(&route.socket);
        let client = match &route.pass_on_to {
            Some(host) => client.on_host(host),
            None => client,
        };
        Live { client, route, host_sockets: host_sockets.to_owned() }
    }

    fn failure(&self, request: &str, error: ClientError) -> Failure {
        let none = |why| self.route.no_agent(why, &self.host_sockets);
        match error {
            ClientError::NoAgent { socket } if socket.exists() => none(NoAnswer::NobodyListens),
            ClientError::NoAgent { .. } => none(NoAnswer::NoSocket),
            ClientError::NotAllowed { .. } => none(NoAnswer::NotAllowed),
            ClientError::NoAnswer { .. } => none(NoAnswer::Silent),
            ClientError::Refused { error, .. } => Failure::Refused(error),
            ClientError::Broken(_) => Failure::Refused(error.to_string()),
            ClientError::Unreadable(reason) => Failure::Answer { request: request.to_owned(), reason },
        }
    }
}

impl Agent for Live {
    fn status(&mut self) -> Result<Status, Failure> {
        let path = "/v1/status";
        self.client.get(path).map_err(|error| self.failure(path, error))
    }

    fn events(&mut self, after_us: u64) -> Result<EventPage, Failure> {
        let path = format!("/v1/events?after={after_us}&limit={EVENTS_FETCHED}");
        self.client.get(&path).map_err(|error| self.failure(&path, error))
    }

    fn follow(
        &mut self,
        after_us: u64,
        receive: &mut dyn FnMut(EventRecord) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let path = format!("/v1/events?follow=true&after={after_us}&limit={EVENTS_FETCHED}");
        let mut result = Ok(());
        let followed = self.client.follow(&path, |record| {
            result = receive(record);
            result.is_ok()
        });
        followed.map_err(|error| self.failure(&path, error))?;
        result?;
        Err(Failure::Refused(
            "the agent has ended the stream of events; ask again when it is back".to_owned(),
        ))
    }

    fn order(&mut self, order: &Order) -> Result<Done, Failure> {
        self.client.order(order).map_err(|error| self.failure(&order.target(), error))
    }

    fn rehearsal(&mut self) -> Result<Rehearsal, Failure> {
        let path = "/v1/rehearsal";
        self.client.get(path).map_err(|error| self.failure(path, error))
    }

    fn pause(&mut self, length: Duration) {
        std::thread::sleep(length);
    }
}
