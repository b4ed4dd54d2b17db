//! Durations and sizes as they are written, with their unit: `"200ms"`, `"10s"`, `"256MiB"`.

use std::fmt;
use std::time::Duration;

use serde::Deserializer;
use serde::de::{Error, Visitor};

/// Units of sizes. Longer names come before those they end in.
const SIZE_UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// A text in quotes that `parse` understands.
struct Text<T> {
    what: &'static str,
    parse: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).ok_or_else(|| E::custom(format_args!("give {}", self.what)))
    }
}

/// Reads a duration such as `"200ms"`.
///
/// # Errors
///
/// A value that is no text in quotes, has no unit, or an unknown one.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let what = "a duration with a unit in quotes, such as \"200ms\" or \"10s\"";
    deserializer.deserialize_str(Text { what, parse: |text| humantime::parse_duration(text).ok() })
}

/// Reads a size in bytes such as `"256MiB"`.
///
/// # Errors
///
/// A value that is no text in quotes, has no unit, or an unknown one.
pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let what = "a size with a unit in quotes, such as \"256MiB\" or \"1GiB\"";
    deserializer.deserialize_str(Text { what, parse: parse_size })
}

/// A size in bytes such as `256MiB`; `None` where the text is none.
pub fn parse_size(text: &str) -> Option<u64> {
    let (digits, factor) =
        SIZE_UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?.trim_end(), *factor)))?;
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("256MiB", Some(256 << 20)),
            ("1 GiB", Some(1 << 30)),
            ("5MB", Some(5_000_000)),
            ("7B", Some(7)),
            ("7", None),
            ("", None),
            ("MiB", None),
            ("-1MiB", None),
            ("1.5GiB", None),
            ("99999999999TiB", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }
}
