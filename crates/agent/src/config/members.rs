//! The hosts of the cluster and the addresses at which their agents talk to each other.

use super::das::{Das, given_once};
use super::document::{Document, HostSection};
use super::error::{ConfigError, Place};
use super::{Spanned, check_name};
use mainstay_core::ids::HostId;
use mainstay_transport::common_bits;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Addresses of one host, and allowed networks, at most. Each message goes out once per path.
pub const ADDRESSES_MAX: usize = 10;

/// A host of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id, by which the protocol knows it.
    pub id: HostId,
    /// The name that people use for it.
    pub name: String,
    /// Where its agent listens: one address per management network, in the order of the file, without those outside of
    /// the allowed networks. Never empty.
    pub addresses: Vec<SocketAddr>,
}

impl Member {
    /// Its addresses, without ports.
    #[must_use]
    pub fn ips(&self) -> Vec<IpAddr> {
        let mut ips: Vec<IpAddr> = self.addresses.iter().map(|address| address.ip()).collect();
        ips.sort_unstable();
        ips.dedup();
        ips
    }
}

/// An IP network in the form ADDRESS/BITS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    fn parse(text: &str) -> Option<Network> {
        let (address, bits) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let bits = bits.parse().ok()?;
        (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some(Network { address, bits })
    }

    fn contains(self, address: IpAddr) -> bool {
        common_bits(self.address, address).is_some_and(|common| common >= self.bits)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// This host and the others.
pub(super) fn check_members(
    place: &Place<'_>,
    document: &Document,
    das: &Das,
) -> Result<(Member, Vec<Member>), ConfigError> {
    let networks = check_networks(place, document, das)?;
    let mut members: Vec<Member> = Vec::new();
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for section in std::iter::once(&document.host).chain(&document.peer) {
        let mut member = check_member(place, section, &mut addresses)?;
        if members.iter().any(|other| other.id == member.id) {
            return Err(place.refuse(
                section.id.span(),
                format!("host id {} is used twice", member.id),
                "each host needs an id of its own, given once and never used again",
            ));
        }
        if members.iter().any(|other| other.name == member.name || other.id.as_str() == member.name) {
            return Err(place.refuse(
                section.name.span(),
                format!("host name {} is used twice", member.name),
                "give each host a name of its own",
            ));
        }
        keep_allowed(place, section, &networks, &mut member)?;
        members.push(member);
    }
    let me = members.remove(0);
    Ok((me, members))
}

fn check_networks(place: &Place<'_>, document: &Document, das: &Das) -> Result<Vec<Network>, ConfigError> {
    let new = document.network.allow_networks.as_ref();
    let Some(list) =
        given_once(place, "[network] allow_networks", new, "allowNetworkN", das.allow_networks())?
    else {
        return Ok(Vec::new());
    };
    check_length(place, list, "allowed networks")?;
    list.get_ref()
        .iter()
        .map(|text| {
            Network::parse(text.get_ref()).ok_or_else(|| {
                place.refuse(
                    text.span(),
                    format!("\"{}\" is not a network", text.get_ref()),
                    "write address and prefix length, for example 10.77.0.0/24 (networks have no names here)",
                )
            })
        })
        .collect()
}

/// Refuses a list of more than ten.
pub(super) fn check_length(
    place: &Place<'_>,
    list: &Spanned<Vec<Spanned<String>>>,
    what: &str,
) -> Result<(), ConfigError> {
    let length = list.get_ref().len();
    if length > ADDRESSES_MAX {
        return Err(place.refuse(
            list.span(),
            format!("{length} {what} are too many"),
            &format!("name at most {ADDRESSES_MAX}"),
        ));
    }
    Ok(())
}

/// `used` are the addresses of all hosts so far.
fn check_member(
    place: &Place<'_>,
    section: &HostSection,
    used: &mut Vec<SocketAddr>,
) -> Result<Member, ConfigError> {
    let id = section.id.get_ref();
    let number = id.strip_prefix("host-").unwrap_or("");
    let digits = (1..=9).contains(&number.len()) && number.chars().all(|c| c.is_ascii_digit());
    if !digits || (number.len() > 1 && number.starts_with('0')) {
        return Err(place.refuse(
            section.id.span(),
            format!("host id \"{id}\" is not of the form host-NUMBER"),
            "write for example host-1",
        ));
    }
    check_name(place, "host name", &section.name)?;
    let mut addresses = Vec::new();
    for text in written_addresses(place, section)? {
        let address = check_address(place, text)?;
        // After the checks of id and name, so that a section that was copied and forgotten is told by its id.
        addresses.push((address, text));
    }
    let member = Member {
        id: HostId::new(id),
        name: section.name.get_ref().clone(),
        addresses: addresses.iter().map(|(address, _)| *address).collect(),
    };
    for (address, text) in addresses {
        if used.contains(&address) {
            return Err(place.refuse(
                text.span(),
                format!("address {address} is used twice"),
                "give each host an address of its own",
            ));
        }
        used.push(address);
    }
    Ok(member)
}

fn written_addresses<'a>(
    place: &Place<'_>,
    section: &'a HostSection,
) -> Result<Vec<&'a Spanned<String>>, ConfigError> {
    let id = section.id.get_ref();
    match (&section.address, &section.addresses) {
        (Some(one), None) => Ok(vec![one]),
        (None, Some(list)) if !list.get_ref().is_empty() => {
            check_length(place, list, "addresses of one host")?;
            Ok(list.get_ref().iter().collect())
        }
        (None, Some(_) | None) => Err(place.refuse(
            section.id.span(),
            format!("host {id} has no address"),
            "write address = \"IP:PORT\", or addresses = [\"IP:PORT\", ...] with one per management network",
        )),
        (Some(_), Some(list)) => Err(place.refuse(
            list.span(),
            format!("host {id} has both address and addresses"),
            "keep one of the two; addresses holds several",
        )),
    }
}

fn check_address(place: &Place<'_>, written: &Spanned<String>) -> Result<SocketAddr, ConfigError> {
    let text = written.get_ref();
    let address: SocketAddr = text.parse().map_err(|_| {
        place.refuse(
            written.span(),
            format!("address \"{text}\" is not IP:PORT"),
            "write for example 10.77.0.1:7780, or [fd00::1]:7780 (no host names: they would need a name server after a failure)",
        )
    })?;
    if address.ip().is_unspecified() || address.port() == 0 {
        return Err(place.refuse(
            written.span(),
            format!("address {address} can't be reached by other hosts"),
            "write the host's own address and a port that is not 0",
        ));
    }
    Ok(address)
}

/// Drops the addresses outside of the allowed networks.
fn keep_allowed(
    place: &Place<'_>,
    section: &HostSection,
    networks: &[Network],
    member: &mut Member,
) -> Result<(), ConfigError> {
    if networks.is_empty() {
        return Ok(());
    }
    member.addresses.retain(|address| networks.iter().any(|network| network.contains(address.ip())));
    if !member.addresses.is_empty() {
        return Ok(());
    }
    let one = section.address.as_ref().map(Spanned::span);
    let span = one.or_else(|| section.addresses.as_ref().map(Spanned::span)).unwrap_or(0..0);
    let list: Vec<String> = networks.iter().map(Network::to_string).collect();
    Err(place.refuse(
        span,
        format!("host {} has no address in the allowed networks ({})", member.id, list.join(", ")),
        "give it an address there, or add its network to allow_networks",
    ))
}
