//! Whom to ask, and what can be asked. The commands know the cluster only through [`Agent`], so that they can be tested with
//! canned answers.

use crate::exit::Failure;
use mainstay_api::order::Order;
use mainstay_api::{Done, EventPage, EventRecord, Rehearsal, Status};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An agent that answers.
pub trait Agent {
    /// The cluster, as the asked agent sees it.
    fn status(&mut self) -> Result<Status, Failure>;
    /// Past events of all hosts that are newer than that (in microseconds since 1970), oldest first.
    fn events(&mut self, after_us: u64) -> Result<EventPage, Failure>;
    /// Hands over events that are newer than that (in microseconds since 1970) as they happen, until the agent ends it or the
    /// receiver fails.
    fn follow(
        &mut self,
        after_us: u64,
        receive: &mut dyn FnMut(EventRecord) -> Result<(), Failure>,
    ) -> Result<(), Failure>;
    /// Has the primary carry out an order.
    fn order(&mut self, order: &Order) -> Result<Done, Failure>;
    /// What each host's failure would come to.
    fn rehearsal(&mut self) -> Result<Rehearsal, Failure>;
    /// Lets some time pass before the next look.
    fn pause(&mut self, length: Duration);
}

/// The way to an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The socket to connect to.
    pub socket: PathBuf,
    /// The host to which the agent there is to pass the request on.
    pub pass_on_to: Option<String>,
}

impl Route {
    /// A socket of that host's name in the folder is the shortest way; otherwise the local agent passes the request on.
    pub fn choose(socket: &Path, host_sockets: &Path, host: Option<&str>) -> Route {
        let Some(host) = host else {
            return Route { socket: socket.to_owned(), pass_on_to: None };
        };
        // A name is no path: it must not lead out of the folder.
        if !host.contains('/') {
            let direct = host_sockets.join(format!("{host}.sock"));
            if direct.exists() {
                return Route { socket: direct, pass_on_to: None };
            }
        }
        Route { socket: socket.to_owned(), pass_on_to: Some(host.to_owned()) }
    }

    /// The failure to tell when nobody answers there.
    pub fn no_agent(&self, why: NoAnswer, host_sockets: &Path) -> Failure {
        let names = hosts_with_sockets(host_sockets);
        let (reason, hint) = match (why, names.first()) {
            (NoAnswer::NoSocket, Some(_)) if self.pass_on_to.is_some() => (
                "there is no such socket, and so no agent that could pass the question on",
                format!(
                    "{} has no socket of {}, only those of {}",
                    host_sockets.display(),
                    self.pass_on_to.as_deref().unwrap_or_default(),
                    names.join(", ")
                ),
            ),
            (NoAnswer::NoSocket, Some(first)) => (
                "there is no such socket",
                format!(
                    "{} has the sockets of {}: use --host {first}, as in `mainstay --host {first} status`",
                    host_sockets.display(),
                    names.join(", ")
                ),
            ),
            (NoAnswer::NoSocket, None) => (
                "there is no such socket",
                "start the agent (systemctl start mainstay), or name its socket with --socket PATH or MAINSTAY_SOCKET"
                    .to_owned(),
            ),
            (NoAnswer::NobodyListens, _) => (
                "nobody listens there any more",
                "the agent has ended: look at `journalctl -u mainstay`, then start it (systemctl start mainstay)"
                    .to_owned(),
            ),
            (NoAnswer::NotAllowed, _) => {
                ("permission denied", "only root may talk to the agent: try it with sudo".to_owned())
            }
            (NoAnswer::Silent, _) => (
                "it is there, but gives no answer in time",
                "look at `journalctl -u mainstay` for what the agent is doing".to_owned(),
            ),
        };
        Failure::NoAgent { socket: self.socket.clone(), reason, hint }
    }
}

/// Why nobody answers at a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// No such file.
    NoSocket,
    /// A file that an agent left behind.
    NobodyListens,
    /// It is root's.
    NotAllowed,
    /// Somebody listens and says nothing.
    Silent,
}

/// The hosts that have a socket in the folder, in order.
fn hosts_with_sockets(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".sock").map(str::to_owned))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_with_a_socket_is_asked_directly_and_another_through_the_local_agent() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("h1.sock"), "").unwrap();
        let local = Path::new("/run/agent.sock");
        let choose = |host| Route::choose(local, folder.path(), host);
        assert_eq!(choose(None), Route { socket: local.to_owned(), pass_on_to: None });
        assert_eq!(choose(Some("h1")), Route { socket: folder.path().join("h1.sock"), pass_on_to: None });
        assert_eq!(choose(Some("h2")), Route { socket: local.to_owned(), pass_on_to: Some("h2".to_owned()) });
        let out = format!("../{}/h1", folder.path().file_name().unwrap().to_str().unwrap());
        assert_eq!(choose(Some(&out)), Route { socket: local.to_owned(), pass_on_to: Some(out.clone()) });
    }

    #[test]
    fn the_hint_fits_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let route = Route { socket: "/run/agent.sock".into(), pass_on_to: None };
        let hint = |why| route.no_agent(why, folder.path()).hint().unwrap();
        assert!(hint(NoAnswer::NoSocket).starts_with("start the agent"));
        assert!(hint(NoAnswer::NotAllowed).contains("sudo"));
        assert!(hint(NoAnswer::NobodyListens).contains("has ended"));
        assert!(hint(NoAnswer::Silent).contains("journalctl"));
        for name in ["h2.sock", "h1.sock", "notes.txt"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert!(hint(NoAnswer::NoSocket).contains("has the sockets of h1, h2: use --host h1"));
    }
}
