//! Hours of the week at which something counts, by the clock of a place.
//!
//! A window is written as `"mon-fri 22:00-06:00"`: days, then hours. Either may be left out: every day, the whole day. Days
//! are single or ranges, joined by commas: `"sat,sun"`, `"fri-mon"`. Hours that run over midnight belong to the day on which
//! they begin. Where clocks are set forward the missing hour is left out; where they are set back the double hour counts
//! twice.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Names of the days as they are written, in the order of the week.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// Hours of the week in a time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    zone: TimeZone,
    windows: Vec<Window>,
}

/// Hours of some days of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Days on which it begins, Monday first.
    days: [bool; 7],
    /// First minute of the day, 0..1440.
    from: u16,
    /// Minute at which it ends, 1..=1440; of the next day where it is before `from`.
    to: u16,
}

impl Schedule {
    /// What holds in any of `windows`, by the clock of `zone`.
    pub fn new(zone: TimeZone, windows: Vec<Window>) -> Self {
        Self { zone, windows }
    }

    /// It holds at that moment. A moment beyond the years -9999 to 9999 is none.
    pub fn holds(&self, at: SystemTime) -> bool {
        let Ok(at) = Timestamp::try_from(at) else { return false };
        let local = self.zone.to_datetime(at);
        let day = local.weekday().to_monday_zero_offset().unsigned_abs() as usize;
        let minute = u16::from(local.hour().unsigned_abs()) * 60 + u16::from(local.minute().unsigned_abs());
        self.windows.iter().any(|window| window.holds(day, minute))
    }
}

impl Window {
    /// Reads a window such as `mon-fri 22:00-06:00`.
    ///
    /// # Errors
    ///
    /// One sentence that says what is wrong with it and how to write one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let how = "write days and hours as in \"mon-fri 22:00-06:00\", \"sat,sun\" or \"08:00-18:00\"";
        let words: Vec<&str> = text.split_whitespace().collect();
        let is_hours = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
        let (days_text, hours_text) = match words.as_slice() {
            [hours] if is_hours(hours) => (None, Some(*hours)),
            [days] => (Some(*days), None),
            [days, hours] => (Some(*days), Some(*hours)),
            _ => return Err(how.to_owned()),
        };
        let days = days_text.map_or(Some([true; 7]), days).ok_or(how)?;
        let (from, to) = hours_text.map_or(Some((0, DAY)), hours).ok_or(how)?;
        if from == to {
            return Err("it ends when it begins and never holds: give 00:00-24:00 for the whole day".to_owned());
        }
        Ok(Self { days, from, to })
    }

    fn holds(&self, day: usize, minute: u16) -> bool {
        if self.from < self.to {
            return self.days[day] && (self.from..self.to).contains(&minute);
        }
        let yesterday = (day + 6) % 7;
        (self.days[day] && minute >= self.from) || (self.days[yesterday] && minute < self.to)
    }
}

/// `mon-fri,sun`.
fn days(text: &str) -> Option<[bool; 7]> {
    let number = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        for step in 0..=(last + 7 - first) % 7 {
            days[(first + step) % 7] = true;
        }
    }
    Some(days)
}

/// `22:00-06:00`, in minutes.
fn hours(text: &str) -> Option<(u16, u16)> {
    let (from, to) = text.split_once('-')?;
    let (from, to) = (minute(from)?, minute(to)?);
    (from < DAY).then_some((from, to))
}

fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let two = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
    if !two(hour) || !two(minute) {
        return None;
    }
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    (minute < 60 && hour * 60 + minute <= DAY).then_some(hour * 60 + minute)
}

/// Which of several schedules hold, looked up once a minute.
#[derive(Clone, Debug)]
pub(super) struct Hours {
    schedules: Vec<Option<Arc<Schedule>>>,
    open: Vec<bool>,
    minute: Option<u64>,
}

impl Hours {
    /// `None` always holds.
    pub fn new(schedules: Vec<Option<Arc<Schedule>>>) -> Self {
        Self { open: vec![true; schedules.len()], schedules, minute: None }
    }

    /// Which of them hold at `wall`, in their order.
    pub fn at(&mut self, wall: SystemTime) -> &[bool] {
        let minute = wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 60);
        if self.minute != Some(minute) {
            self.minute = Some(minute);
            for (open, schedule) in self.open.iter_mut().zip(&self.schedules) {
                *open = schedule.as_ref().is_none_or(|schedule| schedule.holds(wall));
            }
        }
        &self.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(zone: &str, windows: &[&str]) -> Schedule {
        let windows = windows.iter().map(|text| Window::parse(text).unwrap()).collect();
        Schedule::new(TimeZone::get(zone).unwrap(), windows)
    }

    fn utc(text: &str) -> SystemTime {
        humantime::parse_rfc3339(text).unwrap()
    }

    #[test]
    fn hours_over_midnight_belong_to_the_day_on_which_they_begin() {
        let night = schedule("UTC", &["fri 22:00-06:00"]);
        // 2026-01-02 is a Friday.
        for (at, holds) in [
            ("2026-01-02T21:59:59Z", false),
            ("2026-01-02T22:00:00Z", true),
            ("2026-01-03T05:59:59Z", true),
            ("2026-01-03T06:00:00Z", false),
            ("2026-01-02T05:00:00Z", false),
            ("2026-01-03T23:00:00Z", false),
        ] {
            assert_eq!(night.holds(utc(at)), holds, "{at}");
        }
        let sunday = schedule("UTC", &["sun 23:00-01:00"]);
        assert!(sunday.holds(utc("2026-01-05T00:30:00Z")), "Monday after Sunday");
    }

    #[test]
    fn the_clock_of_the_place_rules_in_summer_and_winter() {
        let day = schedule("Europe/Berlin", &["08:00-18:00"]);
        assert!(day.holds(utc("2026-01-05T07:00:00Z")) && !day.holds(utc("2026-01-05T06:59:00Z")));
        assert!(day.holds(utc("2026-07-05T06:00:00Z")) && !day.holds(utc("2026-07-05T16:00:00Z")));
        let kolkata = schedule("Asia/Kolkata", &["mon"]);
        assert!(kolkata.holds(utc("2026-01-04T18:30:00Z")) && !kolkata.holds(utc("2026-01-04T18:29:00Z")));
    }

    #[test]
    fn the_hour_set_back_counts_twice_and_the_hour_set_forward_never() {
        let hour = schedule("Europe/Berlin", &["02:00-03:00"]);
        // Set back on 2026-10-25 at 03:00 to 02:00, set forward on 2026-03-29 at 02:00 to 03:00.
        let held = |day: &str| (0..24 * 60).filter(|m| hour.holds(utc(day) + MINUTE * *m)).count();
        assert_eq!(held("2026-10-25T00:00:00Z"), 120);
        assert_eq!(held("2026-03-29T00:00:00Z"), 0);
        assert_eq!(held("2026-06-01T00:00:00Z"), 60);
    }

    const MINUTE: std::time::Duration = std::time::Duration::from_secs(60);

    #[test]
    fn several_windows_and_ranges_of_days() {
        let many = schedule("UTC", &["mon-wed,fri 08:00-12:00", "sat-sun", "00:00-01:00"]);
        for (at, holds) in [
            ("2026-01-05T09:00:00Z", true),
            ("2026-01-08T09:00:00Z", false),
            ("2026-01-08T00:30:00Z", true),
            ("2026-01-09T11:59:00Z", true),
            ("2026-01-10T23:59:59Z", true),
        ] {
            assert_eq!(many.holds(utc(at)), holds, "{at}");
        }
        let around = Window::parse("FRI-mon 00:00-24:00").unwrap();
        assert_eq!(around.days, [true, false, false, false, true, true, true]);
    }

    #[test]
    fn windows_that_are_none() {
        for bad in [
            "",
            "day",
            "mon-",
            "-mon",
            "mon,",
            "mo",
            "8:00-9:00",
            "08:00",
            "08:00-24:01",
            "24:00-01:00",
            "08:60-09:00",
            "mon 08:00-09:00 x",
            "08:00-09:00 mon",
            "+8:00-09:00",
            "mon tue",
            "08:00\u{2013}09:00",
        ] {
            assert!(Window::parse(bad).is_err_and(|e| e.contains("write days and hours")), "{bad}");
        }
        assert!(Window::parse("mon 08:00-08:00").unwrap_err().contains("never holds"));
        assert!(Window::parse("mon 00:00-00:00").unwrap_err().contains("never holds"));
    }

    #[test]
    fn looked_up_once_a_minute() {
        let day = Some(Arc::new(schedule("UTC", &["08:00-18:00"])));
        let mut hours = Hours::new(vec![None, day]);
        assert_eq!(hours.at(utc("2026-01-05T07:59:59Z")), [true, false]);
        assert_eq!(hours.at(utc("2026-01-05T08:00:00Z")), [true, true]);
        assert_eq!(hours.at(utc("2026-01-05T07:00:00Z")), [true, false], "the clock was set back");
    }
}
