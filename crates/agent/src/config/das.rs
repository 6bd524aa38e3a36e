//! Options under their names of old: `isolationAddress0` and the like in a `[das]` table, written in any case, with or
//! without `das.` in front, values as text or not. Each has a place of its own elsewhere in the file and may be given once.

use super::Spanned;
use super::document::Document;
use super::error::{ConfigError, Place};
use std::collections::BTreeSet;
use std::ops::Range;

/// What can be said in the table, for the text of a refusal.
const KNOWN: &str = "use allowNetwork0 to 9, isolationAddress0 to 9, useDefaultIsolationAddress, isolationResponse, \
                     isolationShutdownTimeout, isolationPolicyDelaySec or heartbeatDsPerHost, or remove it";

/// The options that are given by a name of old.
#[derive(Debug, Default)]
pub(super) struct Das {
    /// Options with a number, and where the first of them stands.
    allow_networks: Option<Spanned<Vec<Spanned<String>>>>,
    isolation_addresses: Option<Spanned<Vec<Spanned<String>>>>,
    use_default_isolation_address: Option<Spanned<bool>>,
    isolation_response: Option<Spanned<String>>,
    isolation_shutdown_timeout: Option<Spanned<u64>>,
    isolation_policy_delay: Option<Spanned<u64>>,
    heartbeat_ds_per_host: Option<Spanned<u64>>,
}

impl Das {
    pub(super) fn read(place: &Place<'_>, document: &Document) -> Result<Das, ConfigError> {
        let mut das = Das::default();
        let mut networks = Vec::new();
        let mut addresses = Vec::new();
        let mut seen = BTreeSet::new();
        for (key, value) in &document.das {
            let name = key.get_ref().to_ascii_lowercase();
            let name = name.strip_prefix("das.").unwrap_or(&name);
            if !seen.insert(name.to_owned()) {
                let reason = format!("[das] {} is given twice", key.get_ref());
                return Err(place.refuse(key.span(), reason, "keep one of the two"));
            }
            let value = Value { place, key, value };
            match name {
                "usedefaultisolationaddress" => {
                    das.use_default_isolation_address = Some(value.boolean()?);
                }
                "isolationresponse" => das.isolation_response = Some(value.text()?),
                "isolationpolicydelaysec" | "config.fdm.isolationpolicydelaysec" => {
                    das.isolation_policy_delay = Some(value.number()?);
                }
                "isolationshutdowntimeout" => das.isolation_shutdown_timeout = Some(value.number()?),
                "heartbeatdsperhost" => das.heartbeat_ds_per_host = Some(value.number()?),
                // Foreign text: whatever is left is refused.
                _ => {
                    if let Some(number) = digit_after(name, "allownetwork") {
                        networks.push((number, value.text()?));
                    } else if let Some(number) = digit_after(name, "isolationaddress") {
                        addresses.push((number, value.text()?));
                    } else {
                        let reason = format!("there is no option {} of old here", key.get_ref());
                        return Err(place.refuse(key.span(), reason, KNOWN));
                    }
                }
            }
        }
        das.allow_networks = in_order(networks);
        das.isolation_addresses = in_order(addresses);
        Ok(das)
    }

    pub(super) fn allow_networks(&self) -> Option<&Spanned<Vec<Spanned<String>>>> {
        self.allow_networks.as_ref()
    }

    pub(super) fn isolation_addresses(&self) -> Option<&Spanned<Vec<Spanned<String>>>> {
        self.isolation_addresses.as_ref()
    }

    pub(super) fn use_default_isolation_address(&self) -> Option<&Spanned<bool>> {
        self.use_default_isolation_address.as_ref()
    }

    pub(super) fn isolation_response(&self) -> Option<&Spanned<String>> {
        self.isolation_response.as_ref()
    }

    pub(super) fn isolation_policy_delay(&self) -> Option<&Spanned<u64>> {
        self.isolation_policy_delay.as_ref()
    }

    pub(super) fn isolation_shutdown_timeout(&self) -> Option<&Spanned<u64>> {
        self.isolation_shutdown_timeout.as_ref()
    }

    pub(super) fn heartbeat_ds_per_host(&self) -> Option<&Spanned<u64>> {
        self.heartbeat_ds_per_host.as_ref()
    }
}

/// The one of two places that says something; both is refused.
pub(super) fn given_once<'a, T>(
    place: &Place<'_>,
    new_name: &str,
    new: Option<&'a Spanned<T>>,
    old_name: &str,
    old: Option<&'a Spanned<T>>,
) -> Result<Option<&'a Spanned<T>>, ConfigError> {
    match (new, old) {
        (Some(_), Some(old)) => Err(place.refuse(
            old.span(),
            format!("[das] {old_name} is the name of old for {new_name}, and both are given"),
            "keep one of the two",
        )),
        (new, old) => Ok(new.or(old)),
    }
}

fn digit_after(name: &str, start: &str) -> Option<u8> {
    match name.strip_prefix(start)?.as_bytes() {
        [digit @ b'0'..=b'9'] => Some(digit - b'0'),
        // Foreign text.
        _ => None,
    }
}

fn in_order(mut list: Vec<(u8, Spanned<String>)>) -> Option<Spanned<Vec<Spanned<String>>>> {
    list.sort_by_key(|(number, _)| *number);
    let span: Range<usize> = list.first()?.1.span();
    Some(Spanned::new(span, list.into_iter().map(|(_, text)| text).collect()))
}

/// One entry of the table.
struct Value<'a> {
    place: &'a Place<'a>,
    key: &'a Spanned<String>,
    value: &'a Spanned<toml::Value>,
}

impl Value<'_> {
    fn text(&self) -> Result<Spanned<String>, ConfigError> {
        let text = self.value.get_ref().as_str().ok_or_else(|| self.refuse("text in quotes"))?;
        Ok(self.at(text.to_owned()))
    }

    fn boolean(&self) -> Result<Spanned<bool>, ConfigError> {
        let value = self.value.get_ref();
        let text = value.as_str().and_then(|text| text.to_ascii_lowercase().parse().ok());
        value.as_bool().or(text).map(|value| self.at(value)).ok_or_else(|| self.refuse("true or false"))
    }

    fn number(&self) -> Result<Spanned<u64>, ConfigError> {
        let value = self.value.get_ref();
        let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
        let text = value.as_str().and_then(|text| text.parse().ok());
        number.or(text).map(|value| self.at(value)).ok_or_else(|| self.refuse("a whole number"))
    }

    fn at<T>(&self, value: T) -> Spanned<T> {
        Spanned::new(self.value.span(), value)
    }

    fn refuse(&self, wanted: &str) -> ConfigError {
        let (key, value) = (self.key.get_ref(), self.value.get_ref());
        self.place.refuse(
            self.value.span(),
            format!("[das] {key} can't be {value}"),
            &format!("write {wanted}"),
        )
    }
}
