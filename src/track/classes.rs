//! Which classes a rule is for.

/// A set of class numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Classes {
    /// Every class.
    All,
    /// Those whose place is true.
    Some(Vec<bool>),
}

impl Classes {
    /// The classes that `wanted` names, all where it names none. `labels` are the model's, by class number.
    pub fn named(wanted: &[String], labels: &[String]) -> Self {
        if wanted.is_empty() {
            return Classes::All;
        }
        Classes::Some(labels.iter().map(|label| wanted.contains(label)).collect())
    }

    pub fn contains(&self, class: u32) -> bool {
        match self {
            Classes::All => true,
            Classes::Some(classes) => classes.get(class as usize).copied().unwrap_or(false),
        }
    }
}
