//! Values on the command line: each is read here, and what is wrong with one is told with an example of a right one.

use super::protection::StorageCut;
use super::simulating::Moment;
use mainstay_core::{Span, Time};
use mainstay_sim::scenario::topology::{OwnTiming, ScenarioTiming};
use std::ops::Range;
use std::time::Duration;

/// Reads a range of seeds, `A..B`.
pub fn seeds(text: &str) -> Result<Range<u64>, String> {
    let range = text.split_once("..").and_then(|(a, b)| Some(a.trim().parse().ok()?..b.trim().parse().ok()?));
    range.filter(|range: &Range<u64>| !range.is_empty()).ok_or_else(|| {
        format!("'{text}' is no range of seeds; write for example 0..1000 (the last one is not run)")
    })
}

/// Reads the name of a preset, or three times.
pub fn timing(text: &str) -> Result<ScenarioTiming, String> {
    let timing = if text.contains(',') {
        let times: Result<Vec<f64>, _> = text.split(',').map(|time| time.trim().parse()).collect();
        let Ok([heartbeat, lease, failure_timeout]) = times.as_deref() else {
            return Err(format!(
                "'{text}' is not HEARTBEAT,LEASE,FAILURE_TIMEOUT in seconds, such as 0.5,2,3"
            ));
        };
        let (heartbeat, lease, failure_timeout) = (*heartbeat, *lease, *failure_timeout);
        ScenarioTiming::Own(OwnTiming { heartbeat, lease, failure_timeout })
    } else {
        ScenarioTiming::Preset(text.to_owned())
    };
    timing.times().map(|_| timing)
}

/// Reads an age: `90s`, `10m`, `2h`, `1d`, and sums such as `1h30m`.
pub fn age(text: &str) -> Result<Duration, String> {
    duration(text)
        .ok_or_else(|| format!("'{text}' is not an age; write for example 90s, 10m, 2h, 1d or 1h30m"))
}

/// Reads a length of time, written like an age.
pub fn length(text: &str) -> Result<Duration, String> {
    duration(text).ok_or_else(|| {
        format!("'{text}' is not a length of time; write for example 90s, 30m, 2h, 1d or 1h30m")
    })
}

/// Reads a length of time that is not zero.
pub fn some_length(text: &str) -> Result<Duration, String> {
    length(text).and_then(|length| match length {
        Duration::ZERO => Err(format!("'{text}' is no time at all; write for example 30m or 2h")),
        longer => Ok(longer),
    })
}

fn duration(text: &str) -> Option<Duration> {
    let mut seconds = 0u64;
    let mut number = None::<u64>;
    for c in text.chars() {
        if let Some(digit) = c.to_digit(10) {
            number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(u64::from(digit))?);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return None,
        };
        seconds = seconds.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    (number.is_none() && !text.is_empty()).then_some(Duration::from_secs(seconds))
}

/// Reads `812.5`, `812.5s` and `+12.5`.
pub fn moment(text: &str) -> Result<Moment, String> {
    let (after, number) = match text.strip_prefix('+') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let number = number.strip_suffix('s').unwrap_or(number);
    let (seconds, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let us = (digits(seconds) && digits(fraction) && fraction.len() <= 6)
        .then(|| {
            let seconds: u64 = seconds.parse().ok()?;
            let fraction: u64 = format!("{fraction:0<6}").parse().ok()?;
            seconds.checked_mul(1_000_000)?.checked_add(fraction)
        })
        .flatten()
        .ok_or_else(|| {
            format!("'{text}' is not a time; write seconds since the host's boot (812.5) or since the first step (+12.5)")
        })?;
    Ok(if after { Moment::After(Span(us)) } else { Moment::Boot(Time(us)) })
}

/// Reads `HOST` and `HOST:DATASTORE`.
pub fn storage_cut(text: &str) -> Result<StorageCut, String> {
    let (host, datastore) = match text.split_once(':') {
        Some((host, datastore)) => (host, Some(datastore)),
        None => (text, None),
    };
    if host.is_empty() || datastore == Some("") {
        return Err(format!(
            "'{text}' names no host and datastore; write HOST, or HOST:DATASTORE such as h1:nfs1"
        ));
    }
    Ok(StorageCut { host: host.to_owned(), datastore: datastore.map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read_in_units_and_sums() {
        let seconds = |text: &str| age(text).map(|age| age.as_secs());
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("1h30m"), Ok(5_400));
        assert_eq!(seconds("2d"), Ok(172_800));
        for wrong in
            ["", "10", "m", "5x", "-5m", "10m5", "99999999999999999999s", "999999999999999999d", "１０m"]
        {
            assert!(age(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn moments_are_boot_times_or_relative() {
        assert_eq!(moment("812.5"), Ok(Moment::Boot(Time(812_500_000))));
        assert_eq!(moment("812.000001s"), Ok(Moment::Boot(Time(812_000_001))));
        assert_eq!(moment("+3"), Ok(Moment::After(Span(3_000_000))));
        for wrong in ["", "+", "1.", ".5", "-1", "1.0000001", "10m", "99999999999999999999"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn seeds_are_a_range_that_is_not_empty() {
        assert_eq!(seeds("5..8"), Ok(5..8));
        for wrong in ["5", "8..5", "5..5", "..", "a..b", "-1..5", "0..=5"] {
            assert!(seeds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn timings_are_presets_or_three_times_that_keep_the_inequalities() {
        assert!(timing("swift").is_ok());
        assert!(timing("0.5,2,3").is_ok());
        for wrong in ["fast", "1,3", "1,3,x", "1,3,3", ""] {
            assert!(timing(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lengths_of_time_are_read_like_ages_and_some_must_not_be_zero() {
        assert_eq!(length("0s"), Ok(Duration::ZERO));
        assert_eq!(some_length("2h"), Ok(Duration::from_secs(7_200)));
        let wrong = some_length("2 h").expect_err("a blank");
        assert_eq!(wrong, "'2 h' is not a length of time; write for example 90s, 30m, 2h, 1d or 1h30m");
        assert_eq!(
            some_length("0m").expect_err("zero"),
            "'0m' is no time at all; write for example 30m or 2h"
        );
    }

    #[test]
    fn cut_storage_names_a_host_and_perhaps_a_datastore() {
        let cut = |host: &str, datastore: Option<&str>| {
            Ok(StorageCut { host: host.to_owned(), datastore: datastore.map(str::to_owned) })
        };
        assert_eq!(storage_cut("h1"), cut("h1", None));
        assert_eq!(storage_cut("h1:nfs:2"), cut("h1", Some("nfs:2")));
        for wrong in ["", ":", "h1:", ":nfs1"] {
            assert!(storage_cut(wrong).is_err(), "{wrong}");
        }
    }
}
