//! The default gateways of the management networks, read from the kernel's route tables.
//!
//! Only those on an interface that has an own address of this host: the gateway of another network says nothing about
//! the management network. What it does not do: tell link-local IPv6 gateways (a ping could not reach them without
//! naming the interface), or look into other route tables than the main one (`ip rule`).

use mainstay_transport::common_bits;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `RTF_UP`: the route can be used.
const UP: u32 = 0x1;
/// `RTF_GATEWAY`: the route leads to a gateway.
const GATEWAY: u32 = 0x2;

/// A line of a route table.
#[derive(Debug, PartialEq, Eq)]
struct Route {
    network: IpAddr,
    bits: u8,
    gateway: Option<IpAddr>,
    interface: String,
}

/// The default gateways of the networks in which these addresses of this host are, as of now. Empty when there are none
/// or when the route tables can't be read.
#[must_use]
pub fn default_gateways(own: &[IpAddr]) -> Vec<IpAddr> {
    // `thread-self`: /proc/net is of the process's first thread, which may be in another network namespace.
    let read = |table| std::fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
    let routes = ipv4_routes(&read("route")).chain(ipv6_routes(&read("ipv6_route"))).collect();
    choose(routes, own)
}

fn choose(routes: Vec<Route>, own: &[IpAddr]) -> Vec<IpAddr> {
    let holds_own = |route: &Route| {
        route.gateway.is_none()
            && route.bits > 0
            && own.iter().any(|own| common_bits(route.network, *own).is_some_and(|bits| bits >= route.bits))
    };
    let is_management =
        |interface: &str| routes.iter().any(|route| route.interface == interface && holds_own(route));
    let mut gateways = Vec::new();
    for route in &routes {
        if let Some(gateway) = route.gateway
            && route.bits == 0
            && is_management(&route.interface)
            && !gateways.contains(&gateway)
        {
            gateways.push(gateway);
        }
    }
    gateways
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask ...`; addresses are hexadecimal words in host order.
fn ipv4_routes(text: &str) -> impl Iterator<Item = Route> {
    text.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let interface = fields.next()?.to_owned();
        let [network, gateway, flags] = [hex(fields.next()?)?, hex(fields.next()?)?, hex(fields.next()?)?];
        let mask = hex(fields.nth(3)?)?;
        let address = |word: u32| IpAddr::V4(Ipv4Addr::from(word.to_ne_bytes()));
        Some(Route {
            network: address(network),
            // At most 32.
            bits: u8::try_from(mask.count_ones()).ok()?,
            gateway: (flags & GATEWAY != 0).then(|| address(gateway)),
            interface,
        })
        .filter(|_| flags & UP != 0)
    })
}

/// `destination bits source bits next-hop metric references use flags interface`
fn ipv6_routes(text: &str) -> impl Iterator<Item = Route> {
    text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [network, bits, _, _, gateway, _, _, _, flags, interface] = fields[..] else { return None };
        let address = |text: &str| u128::from_str_radix(text, 16).ok().map(Ipv6Addr::from);
        let (bits, flags) = (hex(bits)?, hex(flags)?);
        let gateway = address(gateway)?;
        // The default route to nowhere, which is always there, is on the loopback interface without a gateway.
        if flags & UP == 0 || (flags & GATEWAY != 0 && gateway.is_unicast_link_local()) {
            return None;
        }
        Some(Route {
            network: IpAddr::V6(address(network)?),
            bits: u8::try_from(bits).ok()?,
            gateway: (flags & GATEWAY != 0).then_some(IpAddr::V6(gateway)),
            interface: interface.to_owned(),
        })
    })
}

fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";

    fn line(interface: &str, network: [u8; 4], gateway: [u8; 4], flags: u32, mask: [u8; 4]) -> String {
        let [network, gateway, mask] = [network, gateway, mask].map(u32::from_ne_bytes);
        format!("{interface}\t{network:08X}\t{gateway:08X}\t{flags:04X}\t0\t0\t0\t{mask:08X}\t0\t0\t0\n")
    }

    #[test]
    fn only_the_gateway_of_the_management_network_counts() {
        let text = [
            HEADER.to_owned(),
            line("public", [0; 4], [192, 0, 2, 1], UP | GATEWAY, [0; 4]),
            line("mgmt", [0; 4], [10, 77, 0, 254], UP | GATEWAY, [0; 4]),
            line("mgmt", [10, 77, 0, 0], [0; 4], UP, [255, 255, 255, 0]),
            line("mgmt", [10, 99, 0, 0], [10, 77, 0, 253], UP | GATEWAY, [255, 255, 0, 0]),
            line("public", [192, 0, 2, 0], [0; 4], UP, [255, 255, 255, 0]),
        ]
        .concat();
        let gateways = |own: [u8; 4]| choose(ipv4_routes(&text).collect(), &[IpAddr::from(own)]);
        assert_eq!(gateways([10, 77, 0, 1]), [IpAddr::from([10, 77, 0, 254])]);
        assert_eq!(gateways([192, 0, 2, 9]), [IpAddr::from([192, 0, 2, 1])]);
        assert!(gateways([10, 78, 0, 1]).is_empty());
        assert!(choose(ipv4_routes(HEADER).collect(), &[IpAddr::from([10, 77, 0, 1])]).is_empty());
    }

    #[test]
    fn ipv6_gateways_count_unless_they_are_link_local() {
        let none = "00000000000000000000000000000000";
        let line = |network: &str, bits: &str, gateway: &str, flags: &str, interface: &str| {
            format!("{network} {bits} {none} 00 {gateway} 00000400 00000001 00000000 {flags} {interface}\n")
        };
        let network = "fd000000000000000000000000000000";
        let text = [
            line(network, "40", none, "00000001", "mgmt"),
            line(none, "00", "fe800000000000000000000000000001", "00000003", "mgmt"),
            line(none, "00", "fd0000000000000000000000000000fe", "00000003", "mgmt"),
            line(none, "00", none, "00200200", "lo"),
        ]
        .concat();
        let own: IpAddr = "fd00::1".parse().expect("an address");
        let expected: IpAddr = "fd00::fe".parse().expect("an address");
        assert_eq!(choose(ipv6_routes(&text).collect(), &[own]), [expected]);
    }
}
