//! Isolation: what is pinged before this host believes that it is isolated, and what it does with its VMs then.

use super::Spanned;
use super::das::{Das, given_once};
use super::document::Document;
use super::error::{ConfigError, Place};
use super::members::{Member, check_length};
use crate::gateway::default_gateways;
use mainstay_api::order::SHUTDOWN_TIMEOUT_MAX;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long a guest may take to shut down, unless the file says otherwise.
const SHUTDOWN_TIMEOUT_DEFAULT: u64 = 300;

/// Later than that nobody would see a connection with the network that went.
const ISOLATION_TIMEOUT_MAX: u64 = 3600;

/// How this host finds out that it is isolated, and what it does then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsolationConfig {
    /// The configured isolation addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether the default gateway of the management networks is an isolation address too.
    pub use_default_gateway: bool,
    /// The default gateways that were there when the file was read. Which are pinged is looked up each time; whether
    /// *any* is pinged is decided here, once, since the core must know how many isolation addresses there are.
    pub gateways: Vec<IpAddr>,
    /// How long there must have been no answer of any kind before this host believes that it is isolated; `None`: as `[timing]` says.
    pub timeout: Option<Duration>,
    /// What happens to the VMs of an isolated host.
    pub response: IsolationResponse,
    /// How long a guest may take to shut down before it is powered off.
    pub shutdown_timeout: Duration,
}

/// What happens to the VMs of an isolated host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IsolationResponse {
    /// They stay powered on.
    #[default]
    Leave,
    /// Their guests are shut down; powered off when they take too long.
    Shutdown,
    /// They are powered off.
    PowerOff,
}

impl IsolationResponse {
    /// The core's word for it.
    pub fn core(self) -> mainstay_core::register::IsolationResponse {
        use mainstay_core::register::IsolationResponse as Core;
        match self {
            IsolationResponse::Leave => Core::LeavePoweredOn,
            IsolationResponse::Shutdown => Core::ShutDown,
            IsolationResponse::PowerOff => Core::PowerOff,
        }
    }
}

/// What stands behind one of [`mainstay_core::Config::isolation_addresses`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsolationTarget {
    /// A configured address.
    Address(IpAddr),
    /// The default gateways of the management networks, whichever they are at that time.
    DefaultGateway,
}

impl IsolationConfig {
    /// What to ping, in the order of [`IsolationConfig::names`].
    #[must_use]
    pub fn targets(&self) -> Vec<IsolationTarget> {
        let gateway = (self.use_default_gateway && !self.gateways.is_empty())
            .then_some(IsolationTarget::DefaultGateway);
        self.addresses.iter().copied().map(IsolationTarget::Address).chain(gateway).collect()
    }

    /// What people read for each of [`IsolationConfig::targets`].
    #[must_use]
    pub fn names(&self) -> Vec<Arc<str>> {
        let gateways: Vec<String> = self.gateways.iter().map(IpAddr::to_string).collect();
        let name = |target| match target {
            IsolationTarget::Address(address) => address.to_string(),
            IsolationTarget::DefaultGateway => format!("default gateway {}", gateways.join(", ")),
        };
        self.targets().into_iter().map(|target| name(target).into()).collect()
    }
}

impl IsolationResponse {
    fn parse(text: &str) -> Option<IsolationResponse> {
        Some(match text {
            "leave" | "none" | "leavePoweredOn" => IsolationResponse::Leave,
            "shutdown" => IsolationResponse::Shutdown,
            "power_off" | "powerOff" => IsolationResponse::PowerOff,
            // Foreign text.
            _ => return None,
        })
    }
}

pub(super) fn check_isolation(
    place: &Place<'_>,
    document: &Document,
    das: &Das,
    me: &Member,
) -> Result<IsolationConfig, ConfigError> {
    let section = &document.isolation;
    let own = me.ips();
    let use_default_gateway = given_once(
        place,
        "[isolation] use_default_gateway",
        section.use_default_gateway.as_ref(),
        "useDefaultIsolationAddress",
        das.use_default_isolation_address(),
    )?
    .is_none_or(|given| *given.get_ref());
    Ok(IsolationConfig {
        addresses: check_addresses(place, document, das, &own)?,
        use_default_gateway,
        gateways: if use_default_gateway { default_gateways(&own) } else { Vec::new() },
        timeout: check_timeout(place, document, das)?,
        response: check_response(place, document, das)?,
        shutdown_timeout: check_shutdown_timeout(place, document, das)?,
    })
}

fn check_addresses(
    place: &Place<'_>,
    document: &Document,
    das: &Das,
    own: &[IpAddr],
) -> Result<Vec<IpAddr>, ConfigError> {
    let new = document.isolation.addresses.as_ref();
    let old = das.isolation_addresses();
    let Some(list) = given_once(place, "[isolation] addresses", new, "isolationAddressN", old)? else {
        return Ok(Vec::new());
    };
    check_length(place, list, "isolation addresses")?;
    let mut addresses = Vec::new();
    for written in list.get_ref() {
        let address = check_address(place, written, own)?;
        if addresses.contains(&address) {
            return Err(place.refuse(
                written.span(),
                format!("isolation address {address} is given twice"),
                "name each address once",
            ));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

fn check_address(
    place: &Place<'_>,
    written: &Spanned<String>,
    own: &[IpAddr],
) -> Result<IpAddr, ConfigError> {
    let text = written.get_ref();
    let refuse = |reason, remedy| Err(place.refuse(written.span(), reason, remedy));
    let Ok(address) = text.parse::<IpAddr>() else {
        return refuse(
            format!("isolation address \"{text}\" is not an IP address"),
            "write for example 10.77.0.254 (no host names: they would need a name server after a failure)",
        );
    };
    let link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    if address.is_unspecified() || address.is_multicast() || link_local {
        return refuse(
            format!("isolation address {address} can't be pinged"),
            "write the address of one machine that is always there, such as a router or the storage",
        );
    }
    if address.is_loopback() || own.contains(&address) {
        return refuse(
            format!(
                "isolation address {address} is this host's own, which answers also when the host is isolated"
            ),
            "write the address of another machine that is always there, such as a router or the storage",
        );
    }
    Ok(address)
}

fn check_timeout(place: &Place<'_>, document: &Document, das: &Das) -> Result<Option<Duration>, ConfigError> {
    let new = document.isolation.timeout.as_ref();
    let old = das.isolation_policy_delay();
    let given = given_once(place, "[isolation] timeout", new, "isolationPolicyDelaySec", old)?;
    let Some(written) = given else { return Ok(None) };
    let seconds = *written.get_ref();
    if seconds > ISOLATION_TIMEOUT_MAX {
        return Err(place.refuse(
            written.span(),
            format!("an isolation timeout of {seconds} s is not possible"),
            &format!("use 0 to {ISOLATION_TIMEOUT_MAX} seconds"),
        ));
    }
    Ok(Some(Duration::from_secs(seconds)))
}

fn check_response(
    place: &Place<'_>,
    document: &Document,
    das: &Das,
) -> Result<IsolationResponse, ConfigError> {
    let new = document.isolation.response.as_ref();
    let old = das.isolation_response();
    let Some(written) = given_once(place, "[isolation] response", new, "isolationResponse", old)? else {
        return Ok(IsolationResponse::default());
    };
    let text = written.get_ref();
    IsolationResponse::parse(text).ok_or_else(|| {
        place.refuse(
            written.span(),
            format!("there is no isolation response \"{text}\""),
            "use leave, shutdown or power_off",
        )
    })
}

fn check_shutdown_timeout(
    place: &Place<'_>,
    document: &Document,
    das: &Das,
) -> Result<Duration, ConfigError> {
    let new = document.isolation.shutdown_timeout.as_ref();
    let old = das.isolation_shutdown_timeout();
    let given = given_once(place, "[isolation] shutdown_timeout", new, "isolationShutdownTimeout", old)?;
    let Some(written) = given else {
        return Ok(Duration::from_secs(SHUTDOWN_TIMEOUT_DEFAULT));
    };
    let seconds = *written.get_ref();
    if !(1..=SHUTDOWN_TIMEOUT_MAX).contains(&seconds) {
        return Err(place.refuse(
            written.span(),
            format!("a shutdown_timeout of {seconds} s is not possible"),
            &format!(
                "use 1 to {SHUTDOWN_TIMEOUT_MAX} seconds; for powering off at once, response = \"power_off\""
            ),
        ));
    }
    Ok(Duration::from_secs(seconds))
}
