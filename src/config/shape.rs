//! TOML → [`FileConfig`], with every setting that cannot be read reported, not only the first.
//!
//! serde stops at its first error. So the setting that the error points at is reported, taken out of the parsed
//! document, and the rest is read again, until all of it can be read.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer};

use super::WHOLE_FILE;
use super::file::FileConfig;
use super::report::{NAME_BYTES_MAX, Report, element_name, is_topic_level};

/// Most unreadable settings taken out before giving up.
const ROUNDS_MAX: usize = 100;

/// A key and, where its value is a list of tables, the number of the table that the next step is in.
struct Step {
    key: String,
    index: Option<usize>,
}

/// Reads what can be read of `document` and reports the rest; `None` where there is too much wrong to go on.
pub(super) fn read(document: &Spanned<DeTable<'_>>, report: &mut Report) -> Option<FileConfig> {
    let mut readable = document.clone();
    for _ in 0..ROUNDS_MAX {
        let error = match FileConfig::deserialize(Deserializer::from(readable.clone())) {
            Ok(file) => return Some(file),
            Err(error) => error,
        };
        let Some(steps) = error.span().and_then(|span| find(readable.get_ref(), &span)) else {
            report.whole(WHOLE_FILE, None, "it cannot be read: compare it with config/example.toml".to_owned());
            return None;
        };
        let path = path_of(document.get_ref(), &steps);
        if let Some((key, value)) = take(readable.get_mut(), &steps) {
            let text = words(error.message(), key.get_ref(), value.get_ref());
            report.unread(path, key.span().start, text);
        }
    }
    report.whole(WHOLE_FILE, None, format!("more than {ROUNDS_MAX} settings cannot be read: correct these first"));
    None
}

/// The steps to the innermost setting at `span`.
fn find(table: &DeTable<'_>, span: &Range<usize>) -> Option<Vec<Step>> {
    for (key, value) in table.iter() {
        let step = |index| Step { key: key.get_ref().to_string(), index };
        if key.span() == *span {
            return Some(vec![step(None)]);
        }
        let inner = match value.get_ref() {
            DeValue::Table(inner) => find(inner, span).map(|steps| (None, steps)),
            DeValue::Array(array) => find_in_tables(array, span),
            _ => None,
        };
        if let Some((index, mut steps)) = inner {
            steps.insert(0, step(index));
            return Some(steps);
        }
        if value.span().start <= span.start && span.end <= value.span().end {
            return Some(vec![step(None)]);
        }
    }
    None
}

fn find_in_tables(array: &DeArray<'_>, span: &Range<usize>) -> Option<(Option<usize>, Vec<Step>)> {
    let mut tables = array.iter().enumerate();
    tables.find_map(|(index, element)| Some((Some(index), find(element.get_ref().as_table()?, span)?)))
}

/// Takes the setting at `steps` out of `table`.
fn take<'d>(
    mut table: &mut DeTable<'d>,
    steps: &[Step],
) -> Option<(Spanned<std::borrow::Cow<'d, str>>, Spanned<DeValue<'d>>)> {
    let (last, way) = steps.split_last()?;
    for step in way {
        let value = table.get_mut(step.key.as_str())?.get_mut();
        table = match (value, step.index) {
            (DeValue::Table(inner), None) => inner,
            (DeValue::Array(array), Some(index)) => match array.get_mut(index)?.get_mut() {
                DeValue::Table(inner) => inner,
                _ => return None,
            },
            _ => return None,
        };
    }
    table.remove_entry(last.key.as_str())
}

/// `camera[gate].fps_max`. Keys that no setting could have are not repeated: they may hold anything.
fn path_of(root: &DeTable<'_>, steps: &[Step]) -> String {
    let mut path = String::new();
    let mut table = Some(root);
    for (depth, step) in steps.iter().enumerate() {
        if depth > 0 {
            path.push('.');
        }
        path.push_str(if is_topic_level(&step.key) { &step.key } else { "\"…\"" });
        let value = table.and_then(|table| table.get(step.key.as_str())).map(|value| value.get_ref());
        let inner = match step.index {
            None => value,
            Some(index) => {
                let element = value.and_then(|value| Some(value.as_array()?.get(index)?.get_ref()));
                let name =
                    element.map_or_else(|| format!("#{}", index + 1), |element| element_name(index, element));
                path.push_str(&format!("[{name}]"));
                element
            }
        };
        table = inner.and_then(|inner| inner.as_table());
    }
    path
}

/// serde's message in our words. Its own text repeats the value, which may be a password in the wrong place.
fn words(message: &str, key: &str, value: &DeValue<'_>) -> String {
    let expected = message.rsplit_once("expected ").map(|(_, expected)| expected).unwrap_or_default();
    if message.starts_with("unknown field") {
        return unknown_setting(key, expected, value);
    }
    if message.starts_with("unknown variant") {
        return format!("give {}", expected.replace('`', "\""));
    }
    if message.starts_with("wanted ") {
        return format!("give a text in quotes, not {}", kind(value));
    }
    if message.starts_with("invalid type") || message.starts_with("invalid value") {
        return match key {
            "mask" => "give a list of polygons, as in [[[x, y], [x, y], [x, y]]]".to_owned(),
            "polygon" => "give its corners, as in [[x, y], [x, y], [x, y]]".to_owned(),
            "points" => "give its points, as in [[x, y], [x, y]]".to_owned(),
            "labels" | "zones" | "windows" => "give a list of texts, as in [\"a\", \"b\"]".to_owned(),
            "camera" => "give [[camera]] sections".to_owned(),
            "zone" | "line" | "filter" | "ignore" => format!("give [[camera.{key}]] sections"),
            "schedule" if expected == "a sequence" => "give [[schedule]] sections".to_owned(),
            _ => format!("give {}, not {}", wanted(expected), kind(value)),
        };
    }
    if message.contains("overflowed") {
        return "the number is too large: give a smaller one".to_owned();
    }
    if message.starts_with("give ") { message.to_owned() } else { "this value cannot be read".to_owned() }
}

fn wanted(expected: &str) -> &str {
    match expected {
        "a string" => "a text in quotes",
        "path string" => "a path in quotes",
        "a boolean" => "true or false",
        "i64" => "a whole number",
        "f64" => "a number",
        other => other,
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text in quotes",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn unknown_setting(key: &str, expected: &str, value: &DeValue<'_>) -> String {
    let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    for (secret, known_as) in [("password", "password_file"), ("token", "token_file")] {
        if key == secret && known.contains(&known_as) {
            let others: Vec<&str> = known.iter().filter(|k| k.starts_with(secret)).copied().collect();
            return format!("a {secret} is not written here: give {}", others.join(" or "));
        }
    }
    let what = if matches!(value, DeValue::Table(_)) { "section" } else { "setting" };
    match nearest(key, &known) {
        Some(near) => format!("there is no such {what}: did you mean `{near}`?"),
        None => format!("there is no such {what}: remove it (config/example.toml shows all there are)"),
    }
}

/// The known key that `key` most likely means.
pub(super) fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    if key.len() > NAME_BYTES_MAX {
        return None;
    }
    let allowed = match key.chars().count() {
        0..=2 => 0,
        3..=4 => 1,
        5..=8 => 2,
        _ => 3,
    };
    let close = known.iter().map(|k| (distance(key, k), *k)).filter(|(d, _)| *d <= allowed).min();
    let longer = || known.iter().find(|k| key.len() >= 3 && k.starts_with(key)).copied();
    close.map(|(_, k)| k).or_else(longer)
}

/// Letters to change, add, leave out or swap with their neighbour to get from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = changed.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_keys() {
        let known = ["fps_max", "priority", "password_file", "id", "mask", "url"];
        for (key, near) in [
            ("fps", Some("fps_max")),
            ("fsp_max", Some("fps_max")),
            ("piority", Some("priority")),
            ("pasword_file", Some("password_file")),
            ("ulr", Some("url")),
            ("xy", None),
            ("colour", None),
        ] {
            assert_eq!(nearest(key, &known), near, "{key}");
        }
    }
}
