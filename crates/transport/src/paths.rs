//! Which of our addresses talks to which of a peer's, and which of these paths works just now.
//!
//! Each address of either side is in at least one path, so each management network is used, and each path joins the two
//! addresses that are nearest: those that share most of their front, which are those on the same network. Both sides
//! come to the same paths, since the rule does not care who asks.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use quinn::Connection;
use tokio::task::JoinSet;

use crate::connection::{self, Shared};
use crate::link::Link;

/// The paths from our addresses, by their place in `own`, to a peer's. Empty when no address of ours can talk to any.
pub(crate) fn pair(own: &[SocketAddr], theirs: &[SocketAddr]) -> Vec<(usize, SocketAddr)> {
    let closeness = |i: usize, j: usize| {
        let (mine, other) = (own.get(i)?.ip(), theirs.get(j)?.ip());
        let bits = match (mine.is_unspecified(), mine, other) {
            // A wildcard address is near to all: the system chooses.
            (true, IpAddr::V6(_), _) | (true, IpAddr::V4(_), IpAddr::V4(_)) => 0,
            (_, _, _) => common_bits(mine, other)?,
        };
        // Equally near ones: by their order in the lists, which is likely the same on both sides.
        Some((bits, std::cmp::Reverse((i.abs_diff(j), i.min(j)))))
    };
    let nearest_own =
        |j| (0..own.len()).filter(|i| closeness(*i, j).is_some()).max_by_key(|i| closeness(*i, j));
    let nearest_theirs =
        |i| (0..theirs.len()).filter(|j| closeness(i, *j).is_some()).max_by_key(|j| closeness(i, *j));
    let mut paths = Vec::new();
    for (i, _) in own.iter().enumerate() {
        for (j, address) in theirs.iter().enumerate() {
            if nearest_own(j) == Some(i) || nearest_theirs(i) == Some(j) {
                paths.push((i, *address));
            }
        }
    }
    paths
}

/// The path to which a connection belongs that came in at our address number `own`.
pub(crate) fn path_of(links: &[Arc<Link>], own: usize, from: SocketAddr) -> Option<&Arc<Link>> {
    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
    let exact = links.iter().find(|link| link.own == own && link.address == from);
    // A peer that is configured with other addresses there than here: the connection serves all the same.
    exact.or_else(|| links.iter().find(|link| link.own == own)).or_else(|| links.first())
}

/// A connection to the peer that works: of several paths, the first on which it answers now. Why not any
/// connection: the one on a network that was just lost looks alive until it ends by its silence. The caller bounds the
/// wait.
pub(crate) async fn reach(shared: &Arc<Shared>, links: &[Arc<Link>]) -> Option<(Arc<Link>, Connection)> {
    if let [only] = links {
        return only.connected(shared).await.map(|connection| (Arc::clone(only), connection));
    }
    let mut tries = JoinSet::new();
    for link in links {
        let (shared, link) = (Arc::clone(shared), Arc::clone(link));
        let runtime = shared.runtime.clone();
        let attempt = async move {
            loop {
                let connection = link.connected(&shared).await?;
                if connection::is_answered(&connection).await {
                    return Some((link, connection));
                }
            }
        };
        tries.spawn_on(attempt, &runtime);
    }
    while let Some(ended) = tries.join_next().await {
        if let Ok(Some(reached)) = ended {
            return Some(reached);
        }
    }
    None
}

/// How many bits at the front two addresses share; `None` when one is IPv4 and the other IPv6.
pub fn common_bits(one: IpAddr, other: IpAddr) -> Option<u8> {
    let bits = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    // At most 128.
    u8::try_from(bits).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| format!("{text}:7780").parse().expect("an address")).collect()
    }

    /// The paths as pairs of indexes.
    fn paths(own: &[&str], theirs: &[&str]) -> Vec<(usize, usize)> {
        let theirs = addresses(theirs);
        let index = |address| theirs.iter().position(|other| *other == address).expect("one of theirs");
        pair(&addresses(own), &theirs).into_iter().map(|(i, address)| (i, index(address))).collect()
    }

    #[test]
    fn addresses_of_the_same_network_talk_to_each_other_whatever_their_order() {
        assert_eq!(paths(&["10.1.0.1"], &["10.1.0.2"]), [(0, 0)]);
        assert_eq!(paths(&["10.1.0.1", "10.2.0.1"], &["10.1.0.2", "10.2.0.2"]), [(0, 0), (1, 1)]);
        assert_eq!(paths(&["10.1.0.1", "10.2.0.1"], &["10.2.0.2", "10.1.0.2"]), [(0, 1), (1, 0)]);
        assert_eq!(paths(&["10.1.0.1", "[fd00::1]"], &["[fd00::2]", "10.1.0.2"]), [(0, 1), (1, 0)]);
    }

    #[test]
    fn each_address_is_used_when_one_side_has_more() {
        assert_eq!(paths(&["10.1.0.1", "10.2.0.1"], &["10.2.0.2"]), [(0, 0), (1, 0)]);
        assert_eq!(paths(&["10.1.0.1"], &["10.1.0.2", "10.2.0.2"]), [(0, 0), (0, 1)]);
    }

    #[test]
    fn families_do_not_mix_except_at_a_wildcard() {
        assert_eq!(paths(&["10.1.0.1"], &["[fd00::2]"]), []);
        assert_eq!(paths(&["10.1.0.1"], &["[fd00::2]", "10.1.0.2"]), [(0, 1)]);
        assert_eq!(paths(&["[::]"], &["[fd00::2]", "10.1.0.2"]), [(0, 0), (0, 1)]);
        assert_eq!(paths(&["0.0.0.0"], &["[fd00::2]", "10.1.0.2"]), [(0, 1)]);
    }

    #[test]
    fn both_sides_come_to_the_same_paths() {
        let one = ["10.1.0.1", "10.1.0.2", "192.168.0.1", "[fd00::1]", "172.16.0.1"];
        let other = ["10.1.0.3", "192.168.0.2", "10.1.0.4", "172.31.0.1"];
        let mut mirrored: Vec<_> = paths(&other, &one).into_iter().map(|(i, j)| (j, i)).collect();
        mirrored.sort_unstable();
        assert_eq!(paths(&one, &other), mirrored);
    }
}
