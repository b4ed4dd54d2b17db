//! Collects problems and finds the line and path of each.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Problem;

/// Longest name of a camera, a node or a setting.
pub(super) const NAME_BYTES_MAX: usize = 64;

/// A table of the file as it was written, with its path.
#[derive(Clone, Debug)]
pub(super) struct Section<'d> {
    path: String,
    table: Option<&'d DeTable<'d>>,
    start: Option<usize>,
}

impl<'d> Section<'d> {
    /// The whole file.
    pub fn root(document: &'d Spanned<DeTable<'d>>) -> Self {
        Self { path: String::new(), table: Some(document.get_ref()), start: None }
    }

    /// The table `key` of this one, which may not be there.
    pub fn child(&self, key: &str) -> Section<'d> {
        let value = self.table.and_then(|table| table.get(key));
        let start = value.map(|value| value.span().start).or(self.start);
        Section { path: self.path_of(key), table: value.and_then(|v| v.get_ref().as_table()), start }
    }

    /// The `[[key]]` tables of this one, in the order written.
    pub fn tables(&self, key: &str) -> Vec<Section<'d>> {
        let array = self.table.and_then(|table| table.get(key)?.get_ref().as_array());
        let tables = array.into_iter().flat_map(|array| array.iter()).enumerate();
        tables
            .map(|(index, value)| Section {
                path: format!("{}[{}]", self.path_of(key), element_name(index, value.get_ref())),
                table: value.get_ref().as_table(),
                start: Some(value.span().start),
            })
            .collect()
    }

    /// `key` is written in this table.
    pub fn given(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Path of the setting `key` of this table.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn start_of(&self, key: &str) -> Option<usize> {
        let entry = self.table.and_then(|table| table.get_key_value(key));
        entry.map(|(key, _)| key.span().start).or(self.start)
    }
}

/// A camera by its id, a zone or the like by its name, where it has a sound one; else by its number from 1.
pub(super) fn element_name(index: usize, element: &DeValue<'_>) -> String {
    let table = element.as_table();
    let name = table.and_then(|table| table.get("id").or_else(|| table.get("name"))?.get_ref().as_str());
    name.filter(|name| is_topic_level(name)).map_or_else(|| format!("#{}", index + 1), str::to_owned)
}

/// A name that may stand as one level of a topic: `[A-Za-z0-9_-]`, 1 to 64 of them.
pub(super) fn is_topic_level(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// The problems found so far.
pub(super) struct Report {
    line_starts: Vec<usize>,
    problems: Vec<Problem>,
    /// Paths of settings that could not be read: what follows from that is not a problem of its own.
    unread: Vec<String>,
}

impl Report {
    /// No problems in `text` yet.
    pub fn new(text: &str) -> Self {
        let after_newlines = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        Self { line_starts: std::iter::once(0).chain(after_newlines).collect(), problems: vec![], unread: vec![] }
    }

    /// A setting that could not be read, at byte `start`.
    pub fn unread(&mut self, path: String, start: usize, text: String) {
        let line = Some(self.line(start));
        self.unread.push(path.clone());
        self.problems.push(Problem { line, path, text });
    }

    /// Something wrong with the file as a whole, `start` the byte where it shows.
    pub fn whole(&mut self, path: &str, start: Option<usize>, text: String) {
        let line = start.map(|start| self.line(start));
        self.problems.push(Problem { line, path: path.to_owned(), text });
    }

    /// Something wrong with the setting `key` of `section`, or with its absence.
    pub fn at(&mut self, section: &Section<'_>, key: &str, text: impl Into<String>) {
        let path = section.path_of(key);
        let follows = |unread: &String| path.strip_prefix(unread.as_str()).is_some_and(is_end_of_step);
        if !self.unread.iter().any(follows) {
            let line = self.line_of(section, key);
            self.problems.push(Problem { line, path, text: text.into() });
        }
    }

    /// Line of the setting `key`, or of its section where it is not written.
    pub fn line_of(&self, section: &Section<'_>, key: &str) -> Option<usize> {
        section.start_of(key).map(|start| self.line(start))
    }

    /// All problems in the order of their lines, those without a line last.
    pub fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        self.problems
    }

    fn line(&self, start: usize) -> usize {
        self.line_starts.partition_point(|line_start| *line_start <= start)
    }
}

fn is_end_of_step(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(['.', '['])
}
