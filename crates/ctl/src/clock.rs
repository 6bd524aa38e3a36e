//! Wall-clock times for people, with milliseconds.

use std::time::{SystemTime, UNIX_EPOCH};

/// This machine's clock, in microseconds since 1970.
pub fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

/// Which clock times are shown in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// The time zone of this machine and user (TZ).
    Local,
    /// UTC, marked with a Z.
    Utc,
}

impl Zone {
    /// `2026-02-03 14:05:06.123`, for microseconds since 1970.
    pub fn show(self, unix_us: u64) -> String {
        self.written(unix_us, &format!(".{:03}", unix_us / 1_000 % 1_000))
    }

    /// `2026-02-03 14:05:06`, for microseconds since 1970.
    pub fn show_to_seconds(self, unix_us: u64) -> String {
        self.written(unix_us, "")
    }

    fn written(self, unix_us: u64, fraction: &str) -> String {
        let Some(t) = self.broken_down(unix_us / 1_000_000) else {
            // Only years beyond 32 bits come here: show the number rather than nothing.
            return format!("@{}{fraction}", unix_us / 1_000_000);
        };
        let mark = match self {
            Zone::Local => "",
            Zone::Utc => "Z",
        };
        format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02}{fraction}{mark}",
            i64::from(t.tm_year) + 1_900,
            t.tm_mon + 1,
            t.tm_mday,
            t.tm_hour,
            t.tm_min,
            t.tm_sec
        )
    }

    fn broken_down(self, unix_s: u64) -> Option<libc::tm> {
        let seconds = libc::time_t::try_from(unix_s).ok()?;
        // SAFETY: `tm` is plain data for which all zeroes is a valid value.
        let mut tm: libc::tm = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to live values of this frame; the _r functions keep no reference to them. TZ is not
        // changed by this process.
        let result = unsafe {
            match self {
                Zone::Local => libc::localtime_r(&seconds, &mut tm),
                Zone::Utc => libc::gmtime_r(&seconds, &mut tm),
            }
        };
        (!result.is_null()).then_some(tm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utc_is_exact_to_the_millisecond() {
        assert_eq!(Zone::Utc.show(0), "1970-01-01 00:00:00.000Z");
        assert_eq!(Zone::Utc.show(1_770_127_506_123_999), "2026-02-03 14:05:06.123Z");
    }

    #[test]
    fn a_time_beyond_the_calendar_is_shown_as_a_number() {
        assert_eq!(Zone::Utc.show(u64::MAX), "586524-01-19 08:01:49.551Z");
    }
}
